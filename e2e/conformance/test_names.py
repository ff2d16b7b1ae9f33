# SPDX-License-Identifier: Apache-2.0
"""Names of sandboxes and namespaces: one rule, and texts that clients show."""

from __future__ import annotations

import pytest

from conformance.guest import PYTHON, check_flat
from conformance.rows import case, row
from conftest import Wire

CHARACTERS = "can only contain alphanumeric characters, hyphens, or underscores"

NAMES = [
    case("empty", "", "cannot be empty"),
    case("63 characters at most", "a" * 64, "cannot exceed 63 characters"),
    case("63 characters at most", "a" * 100_000, "cannot exceed 63 characters"),
    case("letters, digits, hyphens, underscores", "a/b", CHARACTERS),
    case("letters, digits, hyphens, underscores", "../../etc", CHARACTERS),
    case("letters, digits, hyphens, underscores", "a b", CHARACTERS),
    case("letters, digits, hyphens, underscores", "a.b", CHARACTERS),
    case("letters, digits, hyphens, underscores", "é", CHARACTERS),
    case("letters, digits, hyphens, underscores", "a\x00", CHARACTERS),
    case("first one alphanumeric", "-a", "must start with an alphanumeric character"),
    case("first one alphanumeric", "_a", "must start with an alphanumeric character"),
]


@pytest.mark.parametrize("method", ["sandbox.start", "sandbox.stop", "sandbox.repl.run"])
@pytest.mark.parametrize(("bad", "text"), NAMES)
async def test_bad_names_of_sandboxes(wire: Wire, method: str, bad: str, text: str) -> None:
    params = {"namespace": "default", "sandbox": bad, "config": PYTHON, "language": "python", "code": "1"}
    check_flat(await wire.call(method, params), 400, 2001, f"Sandbox name {text}")


@pytest.mark.parametrize("method", ["sandbox.start", "sandbox.stop", "sandbox.metrics.get"])
@pytest.mark.parametrize(("bad", "text"), NAMES)
async def test_bad_names_of_namespaces(wire: Wire, method: str, bad: str, text: str) -> None:
    params = {"namespace": bad, "sandbox": "x", "config": PYTHON}
    check_flat(await wire.call(method, params), 400, 2001, f"Namespace name {text}")


@pytest.mark.parametrize("bad", [5, ["a"], {"a": 1}, True])
@row("a name is text")
async def test_names_that_are_no_text(wire: Wire, bad: object) -> None:
    check_flat(await wire.call("sandbox.stop", {"namespace": "default", "sandbox": bad}), 400, 2001, "sandbox")
    check_flat(await wire.call("sandbox.stop", {"namespace": bad, "sandbox": "x"}), 400, 2001, "namespace")


@row("no wildcard to start in")
async def test_every_namespace_is_none_to_start_in(wire: Wire) -> None:
    answer = await wire.call("sandbox.start", {"namespace": "*", "sandbox": "x", "config": PYTHON})
    check_flat(answer, 400, 2001, "Wildcard namespace (*) is not valid for sandbox creation")


@pytest.mark.parametrize("good", ["a", "9", "Z_-", "a" * 63, "0-_-_"])
@row("good names")
async def test_good_names(wire: Wire, good: str) -> None:
    """A name that the rule allows is looked for."""
    answer = await wire.call("sandbox.stop", {"namespace": good, "sandbox": good})
    check_flat(answer, 404, 4001, good)
