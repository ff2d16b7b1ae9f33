# SPDX-License-Identifier: Apache-2.0
"""Commands through the SDK, and what a sandbox makes of many or large ones; the rest is in `conformance`."""

from __future__ import annotations

import asyncio
import time

import pytest
from microsandbox import CommandExecution, CommandTimeout, MicrosandboxError, PythonSandbox


async def sh(sandbox: PythonSandbox, script: str, timeout: int | None = None) -> CommandExecution:
    return await sandbox.command.run("sh", ["-c", script], timeout=timeout)


async def test_a_command_returns_its_code_and_both_streams(python: PythonSandbox) -> None:
    result = await sh(python, "echo out; echo err >&2; exit 3")
    assert (await result.output(), await result.error()) == ("out", "err")
    assert (result.exit_code, result.success) == (3, False)
    assert (result.command, result.args) == ("sh", ["-c", "echo out; echo err >&2; exit 3"])
    assert (await python.command.run("true")).success


async def test_a_command_that_cannot_be_started_is_an_error(python: PythonSandbox) -> None:
    with pytest.raises(RuntimeError, match=r"^Failed to execute command: .*no-such-program") as caught:
        await python.command.run("no-such-program")
    assert isinstance(caught.value, MicrosandboxError)
    assert not isinstance(caught.value, TimeoutError)
    assert caught.value.code == 5002


async def test_a_command_that_times_out_is_an_error_with_the_output_so_far(python: PythonSandbox) -> None:
    with pytest.raises(CommandTimeout, match=r"^Failed to execute command: ") as caught:
        await sh(python, "echo before; echo oops >&2; sleep 9", timeout=1)
    assert isinstance(caught.value, RuntimeError)
    assert isinstance(caught.value, TimeoutError)
    assert (caught.value.output, caught.value.error) == ("before", "oops")
    assert (await python.command.run("true")).success


async def test_no_timeout_means_none(python: PythonSandbox) -> None:
    assert (await python.command.run("sleep", ["2"])).success


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


async def test_files_are_shared_between_commands_and_code(python: PythonSandbox) -> None:
    await python.run("open('/tmp/f', 'w').write('from code')")
    assert await (await python.command.run("cat", ["/tmp/f"])).output() == "from code"
    await sh(python, "echo from command > /tmp/g")
    assert await (await python.run("print(open('/tmp/g').read(), end='')")).output() == "from command"
