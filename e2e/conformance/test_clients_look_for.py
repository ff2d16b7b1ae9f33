# SPDX-License-Identifier: Apache-2.0
"""What published clients make of an answer, as rules of their own; the clients themselves are tested elsewhere."""

from __future__ import annotations

import json
import re
import time
import uuid
from typing import Any

import pytest

from conformance.guest import PING, PYTHON, Guest, err, out
from conformance.rows import row
from conftest import Answer, Wire


def succeeded(answer: Answer) -> bool:
    """Apply the strictest success test of all clients: HTTP exactly 200, and no `error` key."""
    return answer.status == 200 and "error" not in answer.body


def old_has_error(result: dict[str, Any]) -> bool:
    """Apply the rule by which old clients know that code failed."""
    lines = [line for line in result["output"] if line["stream"] == "stderr" and line["text"]]
    return result["status"] in ("error", "exception") or bool(lines)


@row("success test")
async def test_the_success_test_tells_success_from_failure(shared: Guest) -> None:
    assert succeeded(await shared.call("sandbox.metrics.get"))
    for method, params in (
        ("sandbox.explode", {}),
        ("sandbox.repl.run", {}),
        ("sandbox.command.run", {"command": "no-such-program"}),
        ("sandbox.start", {"config": {**PYTHON, "memory": -1}}),
    ):
        answer = await shared.call(method, **params)
        assert not succeeded(answer)
        assert answer.status != 200, "at 200 clients look for error.message, which a flat error has not"
        assert "error" in answer.body


@row("failure text")
async def test_a_failure_has_a_text_to_show(shared: Guest) -> None:
    """Clients show the body as it is when the status is not 200, so it must be text that says what was wrong."""
    answer = await shared.call("sandbox.command.run", command="no-such-program")
    assert "no-such-program" in answer.text
    assert json.loads(answer.text)["error"]


@row("start warning")
async def test_a_start_gives_no_warning(shared: Guest) -> None:
    assert "timed out waiting" not in await shared.start()


@row("key")
async def test_a_server_without_keys_takes_any(wire: Wire) -> None:
    """The Go client needs a key to be set even where none is asked for."""
    for header in ("Authorization", "Proxy-Authorization"):
        for value in ("Bearer msb_anything", "Bearer x", "msb_anything", "Basic eDp5"):
            assert succeeded(await wire.send(json=PING, headers={header: value}))


@row("name if none")
async def test_a_made_up_name_is_a_good_one(wire: Wire) -> None:
    guest = Guest(wire, f"sandbox-{uuid.uuid4().hex[:8]}")
    await guest.start()
    await guest.stop()


@row("namespace, image, memory and cpus that clients send")
async def test_the_start_that_clients_send(wire: Wire, name: str) -> None:
    for image in ("microsandbox/python", "microsandbox/node"):
        params = {
            "namespace": "default",
            "sandbox": name,
            "config": {"image": image, "memory": 512, "cpus": 1, "envs": [], "volumes": [], "ports": []},
        }
        assert succeeded(await wire.call("sandbox.start", params))
        await Guest(wire, name).stop()


@row("id sent")
async def test_an_id_of_letters_comes_back_as_such(wire: Wire) -> None:
    sent = str(uuid.uuid4())
    answer = await wire.send(json={**PING, "id": sent})
    assert answer.body["id"] == sent


@row("id wanted back")
async def test_no_id_was_sent_so_no_number_comes_back(wire: Wire) -> None:
    answer = await wire.send(json={key: value for key, value in PING.items() if key != "id"})
    assert answer.body.get("id") is None
    failed = await wire.send(json={"jsonrpc": "2.0", "method": "nope"})
    assert failed.body.get("id") is None


@pytest.mark.parametrize("language", ["nodejs", "javascript"])
@row("Node language")
async def test_the_language_of_node(shared: Guest, language: str) -> None:
    result = await shared.run("console.log('x')", language)
    assert (result["language"], out(result)) == (language, "x")


@row("repl timeout")
async def test_a_run_with_a_timeout_and_one_without(shared: Guest) -> None:
    assert not old_has_error(await shared.run("1"))
    assert old_has_error(await shared.run("while True: pass", timeout=1))


@row("command timeout")
async def test_a_timeout_in_nanoseconds_is_no_error(shared: Guest) -> None:
    began = time.monotonic()
    assert (await shared.command("sleep", "0.2", timeout=30_000_000_000))["success"]
    assert 0.2 <= time.monotonic() - began < 5


@row("output()")
async def test_lines_joined_are_the_output(shared: Guest) -> None:
    text = "a\n\n  b\nc d"
    assert out(await shared.run(f"print({text!r})")) == text
    assert out(await shared.command("printf", "%s", text)) == text


@pytest.mark.parametrize(
    ("code", "fails"),
    [
        ("print('x')", False),
        ("1/0", True),
        ("raise SystemExit(3)", True),
        ("import os\nos._exit(0)", True),
        ("while True: pass", True),
        ("class Silent(Exception):\n    pass\nraise Silent", True),
        ("import sys\nsys.stderr = None\nraise ValueError", True),
    ],
)
@row("has_error")
async def test_old_clients_see_every_failure(guest: Guest, code: str, fails: bool) -> None:
    result = await guest.run(code, timeout=1)
    assert old_has_error(result) is fails, result
    assert (result["status"] == "success") is not fails


@row("has_error")
async def test_old_clients_see_the_failures_of_node(shared: Guest) -> None:
    for code in ("throw new Error('boom')", "throw undefined", "await Promise.reject()", "process.exit(3)"):
        result = await shared.run(code, "nodejs")
        assert old_has_error(result), result
        assert err(result)


@row("metrics")
async def test_the_first_of_sandboxes_is_the_one_asked_for(shared: Guest, guest: Guest) -> None:
    for one in (shared, guest):
        result = await one.result("sandbox.metrics.get")
        assert [found["name"] for found in result["sandboxes"]] == [one.name]
        reading = result["sandboxes"][0]
        for key in ("memory_usage", "disk_usage"):
            assert re.fullmatch(r"null|\d+", json.dumps(reading[key])), "an unsigned whole number"


@row("start timeout")
async def test_a_start_without_a_deadline_has_the_servers(wire: Wire, name: str) -> None:
    """Clients watch the time themselves and name no deadline: the start must not have a short one of its own."""
    guest = Guest(wire, name)
    for params in ({}, {"timeout_ms": None}, {"timeout_ms": 180_000}):
        assert succeeded(await guest.call("sandbox.start", config=PYTHON, **params))
        await guest.stop()


@row("create() starts?")
async def test_what_was_never_started_cannot_be_used(wire: Wire, name: str) -> None:
    """One client's `create` does not start: its first call must fail in a way that says so."""
    answer = await Guest(wire, name).call("sandbox.repl.run", language="python", code="1")
    assert not succeeded(answer)
    assert "sandbox.start" in answer.text
