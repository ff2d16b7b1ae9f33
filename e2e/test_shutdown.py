# SPDX-License-Identifier: Apache-2.0
"""However a server ends, nothing of it stays: at once when it is asked to, with the next start when it is killed."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from microsandbox import NodeSandbox, PythonSandbox

from host import END_SECONDS, GONE_SECONDS, PROGRAMS, Server, descendants, need_everything


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """Give a server that the test itself ends."""
    need_everything()
    server = Server.start(tmp_path / "home")
    yield server
    if server.process.poll() is None:
        server.process.kill()
        server.wait()
    assert server.process.stdout is not None
    server.process.stdout.close()


@dataclass
class Busy:
    """Sandboxes whose server is about to end, and calls that are under way in them."""

    sandboxes: list[PythonSandbox | NodeSandbox]
    calls: list[asyncio.Task[object]]

    async def release(self) -> list[BaseException]:
        """Wait for the calls once the server has ended; return how they failed."""
        ended = await asyncio.wait_for(asyncio.gather(*self.calls, return_exceptions=True), 20)
        for sandbox in self.sandboxes:
            assert sandbox._session is not None
            await sandbox._session.close()
        return [error for error in ended if isinstance(error, BaseException)]


async def fill(server: Server) -> Busy:
    """Start sandboxes and leave them busy: code that runs, a command that runs, a background child, files."""
    python = PythonSandbox(server_url=server.url, name="busy-python")
    node = NodeSandbox(server_url=server.url, name="busy-node")
    idle = PythonSandbox(server_url=server.url, name="idle")
    await asyncio.gather(*(sandbox.start() for sandbox in (python, node, idle)))
    await python.command.run("sh", ["-c", "setsid sleep 9000 >/dev/null 2>&1 & echo x > /tmp/file"])
    acts = [python.run("while True: pass"), node.run("while (true);"), python.command.run("sleep", ["9000"])]
    calls: list[asyncio.Task[object]] = [asyncio.create_task(act) for act in acts]
    await asyncio.sleep(0.5)
    assert not any(call.done() for call in calls)
    assert len(descendants(server.process.pid)) >= 5
    server.note_cgroups()
    assert server.cgroups, "the sandboxes are in cgroups of their own"
    return Busy([python, node, idle], calls)


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
async def test_a_server_that_is_asked_to_end_leaves_nothing(own_server: Server, by: signal.Signals) -> None:
    busy = await fill(own_server)
    began = time.monotonic()
    await asyncio.to_thread(own_server.end, by)
    assert time.monotonic() - began < 15
    errors = await busy.release()
    assert len(errors) == 3
    assert all(isinstance(error, RuntimeError) for error in errors), errors


async def test_a_server_without_sandboxes_ends_at_once(own_server: Server) -> None:
    began = time.monotonic()
    await asyncio.to_thread(own_server.end)
    assert time.monotonic() - began < 3


async def test_asking_twice_does_no_harm(own_server: Server) -> None:
    busy = await fill(own_server)
    own_server.process.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.05)
    if own_server.process.poll() is None:
        await asyncio.to_thread(own_server.end, signal.SIGINT)
    else:
        assert own_server.process.returncode == 0
        assert own_server.left_behind() == []
    await busy.release()


async def test_a_home_has_one_server(own_server: Server) -> None:
    command = [PROGRAMS / "msb", "server", "start", "--dev", "--port", "0", "--home", own_server.home]
    second = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=END_SECONDS, check=False
    )
    assert second.returncode != 0
    assert second.stdout == ""
    assert str(own_server.home) in second.stderr
    async with PythonSandbox.create(server_url=own_server.url) as sandbox:
        assert await (await sandbox.run("1")).output() == "1"
    await asyncio.to_thread(own_server.end)


async def test_a_port_that_is_taken_is_named(own_server: Server, tmp_path: Path) -> None:
    port = str(own_server.port)
    command = [PROGRAMS / "msb", "server", "start", "--dev", "--port", port, "--home", tmp_path / "other"]
    second = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=END_SECONDS, check=False
    )
    assert second.returncode != 0
    assert port in second.stderr
    await asyncio.to_thread(own_server.end)


async def test_a_server_that_was_killed_is_cleaned_up_after_by_the_next_one(own_server: Server) -> None:
    busy = await fill(own_server)
    own_server.kill()
    errors = await busy.release()
    assert len(errors) == 3
    following = await asyncio.to_thread(Server.start, own_server.home)
    try:
        deadline = time.monotonic() + GONE_SECONDS
        itself = f"process {following.process.pid}:"
        while left := [one for one in own_server.left_of_sandboxes() if not one.startswith(itself)]:
            assert time.monotonic() < deadline, left
            await asyncio.sleep(0.1)
        async with PythonSandbox.create(server_url=following.url, name="busy-python") as sandbox:
            assert await (await sandbox.run("import os; print(os.path.exists('/tmp/file'))")).output() == "False"
            following.note_cgroups()
    finally:
        await asyncio.to_thread(following.end)
    assert own_server.left_behind() == []
