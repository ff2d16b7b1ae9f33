# SPDX-License-Identifier: Apache-2.0
"""Names of methods, images and languages that older published clients use."""

from __future__ import annotations

import pytest

from conformance.guest import Guest, out
from conformance.rows import case, row
from conftest import Wire


@row("sandbox.command.execute")
async def test_command_execute(shared: Guest) -> None:
    result = await shared.result("sandbox.command.execute", command="echo", args=["x"], timeout=5)
    assert result == await shared.command("echo", "x", timeout=5)


@row("sandbox.getStatus")
async def test_get_status_tells_of_the_whole_namespace(shared: Guest, guest: Guest) -> None:
    result = await guest.wire.result("sandbox.getStatus", namespace="default")
    by_name = {one["name"]: one for one in result["sandboxes"]}
    for one in (shared, guest):
        assert by_name[one.name]["running"] is True
        assert set(by_name[one.name]) == set(await one.metrics())


@pytest.mark.parametrize(
    ("image", "language"),
    [
        case("image appcypher/msb-python", "appcypher/msb-python", "python"),
        case("image appcypher/msb-nodejs", "appcypher/msb-nodejs", "nodejs"),
    ],
)
async def test_older_images(wire: Wire, name: str, image: str, language: str) -> None:
    guest = Guest(wire, name)
    assert await guest.start(image=image) == f"Sandbox {name} started successfully (image: this machine's own programs)"
    assert out(await guest.run("20 + 1", language)) == "21"
    await guest.stop()


@pytest.mark.parametrize(
    "language",
    [
        case("language node", "node"),
        case("language javascript", "javascript"),
        case("language nodejs", "nodejs"),
    ],
)
async def test_one_node_engine_whatever_it_is_called(shared: Guest, language: str) -> None:
    await shared.run("globalThis.engine = 42", "nodejs")
    result = await shared.run("engine", language)
    assert (result["language"], result["status"], out(result)) == (language, "success", "42")


@row("run without a namespace")
async def test_a_run_without_a_namespace_is_in_the_default_one(shared: Guest) -> None:
    params = {"sandbox": shared.name, "language": "python", "code": "6 * 7"}
    answer = await shared.wire.call("sandbox.repl.run", params)
    assert answer.status == 200
    assert out(answer.body["result"]) == "42"
