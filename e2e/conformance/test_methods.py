# SPDX-License-Identifier: Apache-2.0
"""The methods: what each needs, and the result it has."""

from __future__ import annotations

import pytest

from conformance.guest import PYTHON, Guest, check_flat, out
from conformance.rows import case, row
from conftest import Wire

ALL = ("sandbox.start", "sandbox.stop", "sandbox.repl.run", "sandbox.command.run", "sandbox.metrics.get")
RUN = {"language": "python", "code": "1"}


@row("start: result is a string")
async def test_the_result_of_a_start(wire: Wire, name: str) -> None:
    guest = Guest(wire, name)
    assert (await guest.start()).startswith(f"Sandbox {name} started successfully")
    await guest.stop()


@row("start: no configuration")
async def test_a_start_without_a_configuration(wire: Wire, name: str) -> None:
    text = f"No configuration provided and no existing configuration found for sandbox '{name}'"
    check_flat(await Guest(wire, name).call("sandbox.start"), 400, 2001, text)


@row("stop: result is a string")
async def test_the_result_of_a_stop(guest: Guest) -> None:
    assert await guest.stop() == f"Sandbox {guest.name} stopped successfully"


@row("metrics: result holds sandboxes")
async def test_the_result_of_metrics(shared: Guest) -> None:
    result = await shared.result("sandbox.metrics.get")
    assert set(result) == {"sandboxes"}
    assert isinstance(result["sandboxes"], list)


@row("run: result")
async def test_the_result_of_a_run(shared: Guest) -> None:
    assert await shared.run("print('a')\nprint('b')") == {
        "status": "success",
        "language": "python",
        "output": [{"stream": "stdout", "text": "a"}, {"stream": "stdout", "text": "b"}],
    }


@row("command: result")
async def test_the_result_of_a_command(shared: Guest) -> None:
    result = await shared.command("sh", "-c", "echo a; exit 3")
    assert result == {
        "command": "sh",
        "args": ["-c", "echo a; exit 3"],
        "exit_code": 3,
        "success": False,
        "output": [{"stream": "stdout", "text": "a"}],
    }
    assert (await shared.command("true")) == {
        "command": "true",
        "args": [],
        "exit_code": 0,
        "success": True,
        "output": [],
    }


@pytest.mark.parametrize("params", [None, 5, "text", [], ["default", "x"]])
@row("params are an object")
async def test_params_that_are_no_object(wire: Wire, params: object) -> None:
    for method in ALL:
        text = "Request parameters must be an object containing "
        check_flat(await wire.call(method, params), 400, 2001, text, "'namespace'")
        if method != "sandbox.metrics.get":
            check_flat(await wire.call(method, params), 400, 2001, "'sandbox'")


@pytest.mark.parametrize(
    ("method", "params", "text"),
    [
        case("start: sandbox and namespace", "sandbox.start", {"namespace": "default"}, "sandbox"),
        case("start: sandbox and namespace", "sandbox.start", {"sandbox": "x", "config": PYTHON}, "namespace"),
        case("stop: sandbox and namespace", "sandbox.stop", {"namespace": "default"}, "sandbox"),
        case("stop: sandbox and namespace", "sandbox.stop", {"sandbox": "x"}, "namespace"),
        case("metrics: namespace", "sandbox.metrics.get", {"sandbox": "x"}, "namespace"),
        case(
            "run: missing names",
            "sandbox.repl.run",
            {"namespace": "default", **RUN},
            "Missing required 'sandbox' parameter for portal request",
        ),
        case(
            "command: missing names",
            "sandbox.command.run",
            {"namespace": "default", "command": "true"},
            "Missing required 'sandbox' parameter for portal request",
        ),
        case(
            "command: missing names",
            "sandbox.command.run",
            {"sandbox": "x", "command": "true"},
            "Missing required 'namespace' parameter for portal request",
        ),
    ],
)
async def test_names_that_are_missing(wire: Wire, method: str, params: dict[str, object], text: str) -> None:
    check_flat(await wire.call(method, params), 400, 2001, text)
    for key in {"namespace", "sandbox"} - set(params):
        check_flat(await wire.call(method, {**params, key: None}), 400, 2001, text)


BAD_TIMEOUTS = (-1, 0.5, 1.0, "1", True, 2**64, [1])


@pytest.mark.parametrize(
    ("method", "params", "text"),
    [
        case("run: language", "sandbox.repl.run", {"code": "1"}, "language"),
        case("run: language", "sandbox.repl.run", {"code": "1", "language": 5}, "language"),
        case("run: language", "sandbox.repl.run", {"code": "1", "language": "cobol"}, "python"),
        case("run: code", "sandbox.repl.run", {"language": "python"}, "code"),
        case("run: code", "sandbox.repl.run", {"language": "python", "code": 1}, "code"),
        *(case("run: timeout", "sandbox.repl.run", {**RUN, "timeout": bad}, "timeout") for bad in BAD_TIMEOUTS),
        case("command: command", "sandbox.command.run", {}, "command"),
        case("command: command", "sandbox.command.run", {"command": ""}, "command"),
        case("command: command", "sandbox.command.run", {"command": "a\0b"}, "command"),
        case("command: command", "sandbox.command.run", {"command": ["ls"]}, "command"),
        case("command: args", "sandbox.command.run", {"command": "ls", "args": "-l"}, "args"),
        case("command: args", "sandbox.command.run", {"command": "ls", "args": [1]}, "args"),
        case("command: args", "sandbox.command.run", {"command": "ls", "args": ["a\0"]}, "args"),
        *(
            case("command: timeout", "sandbox.command.run", {"command": "ls", "timeout": bad}, "timeout")
            for bad in BAD_TIMEOUTS
        ),
    ],
)
async def test_parameters_that_are_missing_or_wrong(
    shared: Guest, method: str, params: dict[str, object], text: str
) -> None:
    check_flat(await shared.call(method, **params), 400, 2001, text)


@row("run: timeout")
async def test_a_run_may_have_a_timeout(shared: Guest) -> None:
    for timeout in (None, 5):
        assert out(await shared.run("1", timeout=timeout)) == "1"


@row("command: args")
async def test_arguments_may_be_left_out(shared: Guest) -> None:
    assert (await shared.result("sandbox.command.run", command="true"))["args"] == []
