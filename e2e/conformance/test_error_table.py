# SPDX-License-Identifier: Apache-2.0
"""The one table of errors: each situation with its HTTP status and code."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from conformance.guest import PING, PYTHON, Guest, check_flat, out
from conformance.rows import case, row
from conftest import Wire
from host import PROGRAMS, Server, children

_F_OFD_SETLK = 37


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("sandbox.stop", {}),
        ("sandbox.repl.run", {"language": "python", "code": "1"}),
        ("sandbox.command.run", {"command": "true"}),
        ("sandbox.metrics.get", {}),
    ],
)
@row("unknown sandbox")
async def test_an_unknown_sandbox(wire: Wire, shared: Guest, method: str, params: dict[str, object]) -> None:
    never = Guest(wire, "never-started")
    check_flat(await never.call(method, **params), 404, 4001, "never-started")
    elsewhere = Guest(wire, shared.name, namespace="elsewhere")
    check_flat(await elsewhere.call(method, **params), 404, 4001, "elsewhere")


@row("unknown image")
async def test_an_unknown_image(wire: Wire, name: str) -> None:
    answer = await Guest(wire, name).call("sandbox.start", config={"image": "no/such/image"})
    check_flat(answer, 404, 4001, "no/such/image", "microsandbox/python")


@pytest.mark.parametrize("image", ["", "/etc", "../..", "microsandbox/python/../x", "a b"])
@row("unknown image")
async def test_what_is_no_image(wire: Wire, name: str, image: str) -> None:
    answer = await Guest(wire, name).call("sandbox.start", config={"image": image})
    assert (answer.status, answer.body["code"]) in ((404, 4001), (400, 2001)), answer.text


@row("sandbox that does not run")
async def test_a_sandbox_that_does_not_run(guest: Guest) -> None:
    await guest.stop()
    run = await guest.call("sandbox.repl.run", language="python", code="1")
    command = await guest.call("sandbox.command.run", command="true")
    for answer in (run, command):
        check_flat(answer, 409, 4009, guest.name)


@pytest.mark.parametrize(
    ("method", "params", "words"),
    [
        case("bad parameters", "sandbox.repl.run", {"language": "python"}, "code"),
        case("bad names", "sandbox.stop", {"sandbox": "a/b"}, "Sandbox name"),
        case("limits beyond the host", "sandbox.start", {"config": {**PYTHON, "memory": 10**9}}, "memory"),
    ],
)
async def test_bad_parameters(shared: Guest, method: str, params: dict[str, object], words: str) -> None:
    check_flat(await shared.call(method, **params), 400, 2001, words)


@row("cpus beyond the host are fewer")
async def test_more_cpus_than_the_host_has_are_fewer_and_said(wire: Wire, name: str) -> None:
    guest = Guest(wire, name)
    said = await guest.start(cpus=255)
    assert said.startswith(f"Sandbox {name} started successfully")
    assert "warning" in said
    assert f"{len(os.sched_getaffinity(0))} processor" in said
    await guest.stop()


@row("command not found")
async def test_a_command_that_is_not_found(shared: Guest) -> None:
    answer = await shared.call("sandbox.command.run", command="no-such-program", args=["a"])
    check_flat(answer, 500, 5002, "no-such-program")
    assert answer.body["output"] == []


@row("command timed out")
async def test_a_command_that_timed_out_carries_its_output_so_far(shared: Guest) -> None:
    script = "echo before; echo oops >&2; sleep 9"
    answer = await shared.call("sandbox.command.run", command="sh", args=["-c", script], timeout=1)
    check_flat(answer, 500, 5002, "timed out after 1 second")
    lines = [(line["stream"], line["text"]) for line in answer.body["output"]]
    assert sorted(lines) == [("stderr", "oops"), ("stdout", "before")]


@row("start deadline passed")
async def test_a_start_that_takes_too_long(wire: Wire, name: str) -> None:
    check_flat(await Guest(wire, name).call("sandbox.start", config=PYTHON, timeout_ms=0), 504, 5004, name)


@pytest.mark.parametrize(
    "headers",
    [case("foreign Origin", {"Origin": "https://evil.example"}), case("foreign Host", {"Host": "evil.example:5555"})],
)
async def test_a_foreign_caller(wire: Wire, headers: dict[str, str]) -> None:
    check_flat(await wire.send(json=PING, headers=headers), 403, 3001)


@row("anything unexpected")
async def test_what_is_unexpected_has_an_id_that_the_log_has_too(server: Server, wire: Wire, name: str) -> None:
    before = children(server.process.pid)
    guest = Guest(wire, name)
    await guest.start()
    await guest.run("1")
    task = asyncio.create_task(guest.call("sandbox.repl.run", language="python", code="print('in')\nwhile True: pass"))
    await asyncio.sleep(0.3)
    (first_process,) = children(server.process.pid) - before
    os.kill(first_process, signal.SIGKILL)
    answer = await asyncio.wait_for(task, 20)
    check_flat(answer, 500, 5002, "Execution failed")
    assert out(answer.body) == "in"
    assert answer.body["request_id"] in server.log.read_text()
    await guest.stop()


@pytest.fixture
def full_server(server: Server, tmp_path: Path) -> Iterator[Server]:
    """Give a server that shares no id blocks with others of this machine, and all of whose blocks are taken."""
    assert server.url, "the common one, which counts what is there before it, is older"
    own_run = tmp_path / "msb"
    inside = 'mount -t tmpfs tmpfs /run && exec "$0" "$@"'
    own_run.write_text(f"#!/bin/sh\nexec unshare --mount sh -c '{inside}' '{PROGRAMS}/msb' \"$@\"\n")
    own_run.chmod(0o755)
    own = Server.start(tmp_path / "home", programs=tmp_path)
    everything = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    with Path(f"/proc/{own.process.pid}/root/run/microsandbox.ids").open("r+b") as blocks:
        fcntl.fcntl(blocks, _F_OFD_SETLK, everything)
        yield own
    own.end()


@row("no capacity")
async def test_no_capacity(full_server: Server) -> None:
    async with aiohttp.ClientSession() as session:
        answer = await Guest(Wire(full_server.url, session), "no-room").call("sandbox.start", config=PYTHON)
    check_flat(answer, 429, 4290, "no-room")
    assert int(answer.headers["Retry-After"]) >= 1
    assert "stop a sandbox" in answer.body["remedy"]
