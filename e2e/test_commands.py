# SPDX-License-Identifier: Apache-2.0
"""Commands: what they get, what comes back, and how they end."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from microsandbox import CommandExecution, CommandTimeout, MicrosandboxError, PythonSandbox

from conftest import Wire

BOTH_STREAMS = "for i in 1 2 3 4 5; do echo out$i; echo err$i >&2; done"
FIVE_OUT = "\n".join(f"out{i}" for i in range(1, 6))
FIVE_ERR = "\n".join(f"err{i}" for i in range(1, 6))

# Counts the processes of the sandbox whose command line holds the first argument.
COUNT = """
import os, sys
found = 0
for pid in filter(str.isdecimal, os.listdir('/proc')):
    try:
        line = open(f'/proc/{pid}/cmdline', 'rb').read().replace(bytes(1), b' ').decode()
    except OSError:
        continue
    found += sys.argv[1] in line and int(pid) != os.getpid()
print(found)
"""


async def sh(sandbox: PythonSandbox, script: str, timeout: int | None = None) -> CommandExecution:
    return await sandbox.command.run("sh", ["-c", script], timeout=timeout)


async def count(sandbox: PythonSandbox, marker: str) -> int:
    return int(await (await sandbox.command.run("python3", ["-c", COUNT, marker])).output())


async def test_a_command_returns_its_code_and_both_streams(python: PythonSandbox) -> None:
    result = await sh(python, "echo out; echo err >&2; exit 3")
    assert (await result.output(), await result.error()) == ("out", "err")
    assert (result.exit_code, result.success) == (3, False)
    assert (result.command, result.args) == ("sh", ["-c", "echo out; echo err >&2; exit 3"])
    assert (await python.command.run("true")).success


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 255", 255), ("exit 300", 44), ("kill -9 $$", 1), ("kill -TERM $$", 1)]
)
async def test_exit_codes(python: PythonSandbox, script: str, code: int) -> None:
    result = await sh(python, script)
    assert (result.exit_code, result.success) == (code, code == 0)


async def test_the_output_of_echo_is_never_lost(python: PythonSandbox) -> None:
    for number in range(100):
        assert await (await python.command.run("echo", [str(number)])).output() == str(number)


async def test_the_output_of_a_shell_on_both_streams_is_never_incomplete(python: PythonSandbox) -> None:
    for _ in range(50):
        result = await sh(python, BOTH_STREAMS)
        assert (await result.output(), await result.error()) == (FIVE_OUT, FIVE_ERR)


async def test_both_streams_come_in_order_of_arrival(python: PythonSandbox, wire: Wire) -> None:
    script = "for i in 1 2 3; do echo out$i; sleep 0.05; echo err$i >&2; sleep 0.05; done"
    result = await wire.result("sandbox.command.run", sandbox=python.name, command="sh", args=["-c", script])
    assert [line["text"] for line in result["output"]] == ["out1", "err1", "out2", "err2", "out3", "err3"]


async def test_there_is_no_shell_in_between(python: PythonSandbox) -> None:
    args = ["$HOME", "*", "a b", "'", '"', "é\n", ";ls", ""]
    code = "import sys, json; print(json.dumps(sys.argv[1:]))"
    result = await python.command.run("python3", ["-c", code, *args])
    assert await result.output() == json.dumps(args)


async def test_standard_input_is_empty(python: PythonSandbox) -> None:
    result = await python.command.run("cat")
    assert (result.exit_code, await result.output()) == (0, "")


async def test_a_name_is_looked_up_in_the_path_and_a_path_is_taken_as_it_is(python: PythonSandbox) -> None:
    await sh(python, "printf '#!/bin/sh\\necho mine \"$@\"\\n' > ~/tool && chmod +x ~/tool")
    home = await (await sh(python, "echo ~")).output()
    assert await (await python.command.run(f"{home}/tool", ["a"])).output() == "mine a"
    assert await (await python.command.run("env", ["-i", "echo", "x"])).output() == "x"


@pytest.mark.parametrize("command", ["no-such-program", "/no/such/program", "/etc/passwd", "/tmp", "./no", "a\tb"])
async def test_a_command_that_cannot_be_started_is_an_error_and_the_sandbox_goes_on(
    python: PythonSandbox, command: str
) -> None:
    with pytest.raises(RuntimeError, match=r"^Failed to execute command: ") as caught:
        await python.command.run(command)
    assert isinstance(caught.value, MicrosandboxError)
    assert not isinstance(caught.value, TimeoutError)
    assert caught.value.code == 5002
    assert command in str(caught.value)
    assert (await python.command.run("true")).success
    assert await (await python.run("1")).output() == "1"


async def test_a_timeout_kills_the_whole_tree_and_keeps_the_output_so_far(python: PythonSandbox) -> None:
    script = "echo before; echo oops >&2; sleep 7001 & (setsid sleep 7002 &) ; sh -c 'sleep 7003'; echo never"
    began = time.monotonic()
    with pytest.raises(CommandTimeout, match=r"^Failed to execute command: ") as caught:
        await sh(python, script, timeout=1)
    assert 1 <= time.monotonic() - began < 4
    assert isinstance(caught.value, RuntimeError)
    assert isinstance(caught.value, TimeoutError)
    assert (caught.value.output, caught.value.error) == ("before", "oops")
    assert await count(python, "sleep 700") == 0
    assert (await python.command.run("true")).success


async def test_a_timeout_of_zero_is_over_at_once(python: PythonSandbox) -> None:
    began = time.monotonic()
    with pytest.raises(CommandTimeout):
        await python.command.run("sleep", ["10"], timeout=0)
    assert time.monotonic() - began < 3


async def test_a_command_that_ignores_signals_is_killed_too(python: PythonSandbox) -> None:
    with pytest.raises(CommandTimeout):
        await sh(python, "trap '' TERM INT HUP; while :; do sleep 0.1; done", timeout=1)
    assert (await python.command.run("true")).success


async def test_a_background_child_that_holds_the_pipe_does_not_delay_the_answer(python: PythonSandbox) -> None:
    began = time.monotonic()
    result = await sh(python, "sleep 30 & echo done")
    assert time.monotonic() - began < 5
    assert await result.output() == "done"


async def test_no_timeout_means_none(python: PythonSandbox) -> None:
    assert (await python.command.run("sleep", ["2"])).success


async def test_bytes_that_are_no_text_are_replaced(python: PythonSandbox) -> None:
    result = await sh(python, r"printf 'a\377\376b\nc\n'")
    first, second = (await result.output()).split("\n")
    assert first.startswith("a")
    assert first.endswith("b")
    assert "\ufffd" in first
    assert second == "c"


async def test_output_without_a_line_end_comes_too(python: PythonSandbox) -> None:
    assert await (await sh(python, "printf 'x\\n\\n  y'")).output() == "x\n\n  y"


async def test_megabytes_of_output_are_complete(python: PythonSandbox) -> None:
    one_line = await python.command.run("python3", ["-c", "print('x' * 5_000_000)"])
    assert await one_line.output() == "x" * 5_000_000
    many = await python.command.run("seq", ["200000"])
    assert await many.output() == "\n".join(map(str, range(1, 200_001)))
    assert not many.truncated


async def test_more_output_than_an_answer_carries_is_cut_and_said(python: PythonSandbox) -> None:
    result = await python.command.run("sh", ["-c", "yes 0123456789abcdef | head -c 40000000"])
    assert result.truncated
    assert 1_000_000 < len(await result.output()) < 40_000_000
    assert (await python.command.run("true")).success


async def test_commands_run_side_by_side(python: PythonSandbox) -> None:
    began = time.monotonic()
    results = await asyncio.gather(*(sh(python, f"sleep 1; echo {n}") for n in range(8)))
    assert time.monotonic() - began < 6
    assert [await result.output() for result in results] == [str(n) for n in range(8)]


async def test_a_command_runs_while_code_does(python: PythonSandbox) -> None:
    busy = asyncio.create_task(python.run("import time; time.sleep(2); print('late')"))
    began = time.monotonic()
    assert (await python.command.run("true")).success
    assert time.monotonic() - began < 1.5
    assert await (await busy).output() == "late"


async def test_a_command_whose_client_leaves_is_ended(python: PythonSandbox) -> None:
    task = asyncio.create_task(python.command.run("sleep", ["7104"]))
    while await count(python, "sleep 7104") == 0:
        await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    deadline = time.monotonic() + 5
    while await count(python, "sleep 7104") and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    assert await count(python, "sleep 7104") == 0


async def test_files_are_shared_between_commands_and_code(python: PythonSandbox) -> None:
    await python.run("open('/tmp/f', 'w').write('from code')")
    assert await (await python.command.run("cat", ["/tmp/f"])).output() == "from code"
    await sh(python, "echo from command > /tmp/g")
    assert await (await python.run("print(open('/tmp/g').read(), end='')")).output() == "from command"


async def test_the_older_name_of_the_method_and_null_arguments_are_served(python: PythonSandbox, wire: Wire) -> None:
    result = await wire.result("sandbox.command.execute", sandbox=python.name, command="echo", args=None)
    assert (result["exit_code"], result["success"], result["args"]) == (0, True, [])
