# SPDX-License-Identifier: Apache-2.0
"""The envelope: its members, ids, and which error has which shape."""

from __future__ import annotations

import pytest

from conformance.guest import PING, Guest, check_flat, check_rpc
from conformance.rows import row
from conftest import Wire


@row("params may be absent")
async def test_absent_params_are_null(wire: Wire) -> None:
    absent = await wire.send(json={key: value for key, value in PING.items() if key != "params"})
    null = await wire.send(json={**PING, "params": None})
    for answer in (absent, null):
        check_flat(answer, 400, 2001, "must be an object")
    assert absent.body["error"] == null.body["error"]


@pytest.mark.parametrize("call_id", ["text", 7, -1.5, True, ["a", 1], {"any": ["json"]}, "", 0, False])
@row("an id of any kind comes back")
async def test_the_id_comes_back_as_it_was_sent(wire: Wire, call_id: object) -> None:
    answer = await wire.send(json={**PING, "id": call_id})
    assert answer.status == 200
    assert answer.body["id"] == call_id
    assert type(answer.body["id"]) is type(call_id)


@row("no id is no notification")
async def test_a_call_without_an_id_is_answered_in_full(wire: Wire) -> None:
    without = {key: value for key, value in PING.items() if key != "id"}
    for call in (without, {**PING, "id": None}):
        answer = await wire.send(json=call)
        assert answer.status == 200
        assert "sandboxes" in answer.body["result"]
        assert "id" not in answer.body


@row("success has no error member")
async def test_a_success_has_no_error(shared: Guest) -> None:
    calls: list[tuple[str, dict[str, object]]] = [
        ("sandbox.start", {"config": {"image": "microsandbox/python"}}),
        ("sandbox.repl.run", {"language": "python", "code": "1/0"}),
        ("sandbox.command.run", {"command": "false"}),
        ("sandbox.metrics.get", {}),
    ]
    for method, params in calls:
        answer = await shared.call(method, **params)
        assert answer.status == 200
        assert set(answer.body) == {"jsonrpc", "result", "id"}


@pytest.mark.parametrize("version", ["1.0", "", "2", "2.00"])
@row("wrong jsonrpc: JSON-RPC shape")
async def test_a_wrong_version_of_the_envelope(wire: Wire, version: str) -> None:
    answer = await wire.send(json={**PING, "jsonrpc": version})
    check_rpc(answer, 400, -32600, "Invalid or missing jsonrpc version field")
    assert answer.body["id"] == 1


@row("unknown method: JSON-RPC shape")
async def test_an_unknown_method(wire: Wire) -> None:
    for method in ("sandbox.explode", "", "Sandbox.Start", "sandbox.start "):
        check_rpc(await wire.call(method, {}), 404, -32601, f"Method not found: {method}")


@row("bad params: flat shape")
async def test_bad_params_are_flat(wire: Wire) -> None:
    check_flat(await wire.call("sandbox.stop", {"namespace": "default"}), 400, 2001, "sandbox")


@row("not found: flat shape")
async def test_not_found_is_flat(wire: Wire) -> None:
    answer = await wire.call("sandbox.stop", {"namespace": "default", "sandbox": "never-started"})
    check_flat(answer, 404, 4001, "never-started")


@row("what fails inside a sandbox: flat shape")
async def test_what_fails_inside_is_flat(shared: Guest) -> None:
    check_flat(await shared.call("sandbox.command.run", command="no-such-program"), 500, 5002, "no-such-program")
