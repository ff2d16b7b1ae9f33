# SPDX-License-Identifier: Apache-2.0
"""Commands: how they are started, what they get, and how they end."""

from __future__ import annotations

import json
import time

import pytest

from conformance.guest import Guest, check_flat, out, processes
from conformance.rows import case, row


@row("no shell")
async def test_there_is_no_shell_in_between(shared: Guest) -> None:
    args = ["$HOME", "*", "a b", "'", '"', "é\n", ";ls", ""]
    code = "import sys, json; print(json.dumps(sys.argv[1:]))"
    result = await shared.command("python3", "-c", code, *args)
    assert out(result) == json.dumps(args)
    assert result["args"] == ["-c", code, *args]


@row("PATH lookup")
async def test_a_name_is_looked_up_in_the_path_and_a_path_is_taken_as_it_is(guest: Guest) -> None:
    await guest.sh("printf '#!/bin/sh\\necho mine \"$@\"\\n' > /tmp/tool && chmod +x /tmp/tool")
    assert out(await guest.command("/tmp/tool", "a")) == "mine a"
    assert out(await guest.command("env", "-i", "echo", "x")) == "x"
    check_flat(await guest.call("sandbox.command.run", command="tool"), 500, 5002, "tool")


@row("stdin is null")
async def test_standard_input_is_empty(shared: Guest) -> None:
    result = await shared.command("cat")
    assert (result["exit_code"], result["output"]) == (0, [])
    assert out(await shared.command("readlink", "/proc/self/fd/0")) == "/dev/null"


@row("cwd, environment and user are the sandbox's")
async def test_a_command_has_what_the_sandbox_has(shared: Guest) -> None:
    code = "import os, sys; print(os.getcwd(), os.getuid(), os.environ.get('HOME'), os.environ.get('PATH'))"
    assert out(await shared.command("python3", "-c", code)) == out(await shared.run(code))


@row("extra parameters are ignored")
async def test_parameters_that_nobody_knows(shared: Guest) -> None:
    script = 'pwd; id -un; echo "[$EXTRA]"'
    plain = await shared.sh(script)
    extra = await shared.sh(script, cwd="/", env={"EXTRA": "1"}, envs=["EXTRA=1"], user="nobody", shell=True)
    assert extra == plain


@pytest.mark.parametrize(
    ("script", "code"),
    [
        case("exit codes", "exit 0", 0),
        case("exit codes", "exit 255", 255),
        case("exit codes beyond 255", "exit 300", 44),
        case("killed by a signal", "kill -9 $$", 1),
        case("killed by a signal", "kill -TERM $$", 1),
    ],
)
async def test_exit_codes(shared: Guest, script: str, code: int) -> None:
    result = await shared.sh(script)
    assert (result["exit_code"], result["success"]) == (code, code == 0)


@row("a trailing carriage return")
async def test_a_carriage_return_at_the_end_of_a_line(shared: Guest) -> None:
    assert out(await shared.sh(r"printf 'a\r\nb\rc\n'")) == "a\nb\rc"


@pytest.mark.parametrize("command", ["no-such-program", "/no/such/program", "/etc/passwd", "/tmp", "./no", "a\tb"])
@row("spawn failure")
async def test_a_command_that_cannot_be_started_is_an_error_and_the_sandbox_goes_on(
    shared: Guest, command: str
) -> None:
    answer = await shared.call("sandbox.command.run", command=command)
    check_flat(answer, 500, 5002, "Command execution failed: ", command)
    if command.startswith(("no-", "/no")):
        assert "No such file or directory (os error 2)" in answer.body["error"]
    assert (await shared.command("true"))["success"]
    assert out(await shared.run("1")) == "1"


@row("timeout: the whole tree is killed")
async def test_a_timeout_kills_the_whole_tree(guest: Guest) -> None:
    script = "echo before; sleep 7001 & (setsid sleep 7002 &) ; sh -c 'sleep 7003'; echo never"
    began = time.monotonic()
    answer = await guest.call("sandbox.command.run", command="sh", args=["-c", script], timeout=1)
    assert 1 <= time.monotonic() - began < 4
    check_flat(answer, 500, 5002, "timed out after 1 second")
    assert out(answer.body) == "before"
    assert "sleep 700" not in await processes(guest)


@row("timeout: a grandchild with the pipe delays nothing")
async def test_a_grandchild_that_holds_the_pipe_does_not_delay_a_timeout(guest: Guest) -> None:
    began = time.monotonic()
    script = "(trap '' TERM HUP INT; setsid sh -c 'sleep 30; sleep 30') & sleep 30"
    check_flat(await guest.call("sandbox.command.run", command="sh", args=["-c", script], timeout=1), 500, 5002)
    assert time.monotonic() - began < 4


@row("timeout: signals are of no help")
async def test_a_command_that_ignores_signals_is_killed_too(guest: Guest) -> None:
    script = "trap '' TERM INT HUP; while :; do sleep 0.1; done"
    check_flat(await guest.call("sandbox.command.run", command="sh", args=["-c", script], timeout=1), 500, 5002)
    assert "trap" not in await processes(guest)


@row("timeout: 0 is over at once")
async def test_a_timeout_of_zero_is_over_at_once(shared: Guest) -> None:
    began = time.monotonic()
    answer = await shared.call("sandbox.command.run", command="sleep", args=["10"], timeout=0)
    check_flat(answer, 500, 5002, "timed out after 0 seconds")
    assert time.monotonic() - began < 3


@row("timeout: the sandbox remains usable")
async def test_after_a_timeout_everything_goes_on(shared: Guest) -> None:
    await shared.run("after = 7")
    await shared.call("sandbox.command.run", command="sleep", args=["10"], timeout=0)
    assert out(await shared.command("echo", "next")) == "next"
    assert out(await shared.run("after")) == "7"


@row("a background child with the pipe delays nothing")
async def test_a_background_child_that_holds_the_pipe_does_not_delay_the_answer(guest: Guest) -> None:
    began = time.monotonic()
    result = await guest.sh("sleep 30 & echo done")
    assert time.monotonic() - began < 5
    assert (out(result), result["exit_code"]) == ("done", 0)
    assert "sleep 30" in await processes(guest)
