# SPDX-License-Identifier: Apache-2.0
"""Sandboxes start, stop, die and come again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time

import aiohttp
import pytest
from microsandbox import MicrosandboxError, NodeSandbox, PythonSandbox, StartTimeoutError

from conftest import Wire
from host import Server, descendants


async def running(wire: Wire, namespace: str = "default") -> set[str]:
    """Return the names of the sandboxes that run in a namespace."""
    answer = await wire.result("sandbox.metrics.get", namespace=namespace)
    return {sandbox["name"] for sandbox in answer["sandboxes"] if sandbox["running"]}


async def settle(server: Server, before: set[int]) -> None:
    """Wait until the server has had no other processes for half a second: an undone start may only just begin one."""
    deadline, quiet = time.monotonic() + 20, 0
    while quiet < 10:
        assert time.monotonic() < deadline, descendants(server.process.pid) - before
        await asyncio.sleep(0.05)
        quiet = quiet + 1 if descendants(server.process.pid) <= before else 0


async def test_a_sandbox_runs_within_its_block_and_not_after(server: Server, wire: Wire, name: str) -> None:
    before = descendants(server.process.pid)
    async with PythonSandbox.create(name=name) as sandbox:
        assert await running(wire) >= {name}
        assert descendants(server.process.pid) > before
        assert await sandbox.metrics.is_running()
    assert name not in await running(wire)
    await settle(server, before)


async def test_the_manual_life_cycle(server: Server, name: str) -> None:
    sandbox = PythonSandbox(name=name)
    sandbox._session = aiohttp.ClientSession()
    try:
        await sandbox.start(memory=1024, cpus=2.0)
        await sandbox.start()
        assert await (await sandbox.run("print('once')")).output() == "once"
    finally:
        await sandbox.stop()
        await sandbox.stop()
        await sandbox._session.close()


async def test_a_sandbox_can_be_started_again_and_is_fresh(server: Server, name: str) -> None:
    sandbox = PythonSandbox(name=name)
    for _ in range(3):
        await sandbox.start()
        assert await (await sandbox.run("print('x' in globals()); x = 1")).output() == "False"
        await sandbox.stop()


async def test_namespaces_do_not_share_names(server: Server, wire: Wire, name: str) -> None:
    async with (
        PythonSandbox.create(name=name, namespace="one") as one,
        PythonSandbox.create(name=name, namespace="two") as two,
    ):
        await one.run("x = 1")
        assert (await two.run("x")).has_error()
        assert await running(wire, "one") == {name}
        assert await running(wire, "two") == {name}
        assert await running(wire, "three") == set()


async def test_many_sandboxes_at_once(server: Server) -> None:
    async def use(number: int) -> str:
        kind = PythonSandbox if number % 4 else NodeSandbox
        async with kind.create(memory=256) as sandbox:
            server.note_cgroups()
            return await (await sandbox.run(f"{number} * 2")).output()

    assert await asyncio.gather(*(use(number) for number in range(12))) == [str(2 * n) for n in range(12)]


async def test_two_starts_of_one_name_at_once_make_one_sandbox(server: Server, wire: Wire, name: str) -> None:
    before = descendants(server.process.pid)
    start = {"sandbox": name, "config": {"image": "microsandbox/python"}}
    await asyncio.gather(*(wire.result("sandbox.start", **start) for _ in range(5)))
    await wire.result("sandbox.repl.run", sandbox=name, language="python", code="1")
    answer = await wire.result("sandbox.metrics.get", sandbox=name)
    assert [sandbox["name"] for sandbox in answer["sandboxes"]] == [name]
    await wire.result("sandbox.stop", sandbox=name)
    assert descendants(server.process.pid) <= before


async def test_a_body_that_raises_leaves_no_sandbox(wire: Wire, name: str) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with PythonSandbox.create(name=name):
            raise KeyError("mine")
    assert name not in await running(wire)


async def test_a_cancelled_run_leaves_no_sandbox(server: Server, wire: Wire, name: str) -> None:
    before = descendants(server.process.pid)
    entered = asyncio.Event()

    async def use() -> None:
        async with PythonSandbox.create(name=name) as sandbox:
            entered.set()
            await sandbox.run("while True: pass")

    task = asyncio.create_task(use())
    await entered.wait()
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert name not in await running(wire)
    await settle(server, before)


@pytest.mark.parametrize("after", [0.0, 0.002, 0.01, 0.03])
async def test_a_start_cancelled_at_any_moment_leaves_no_sandbox(wire: Wire, name: str, after: float) -> None:
    sandbox = PythonSandbox(name=name)
    task = asyncio.create_task(sandbox.start())
    await asyncio.sleep(after)
    if not task.cancel():  # it was faster
        await sandbox.stop()
    else:
        with pytest.raises(asyncio.CancelledError):
            await task
    assert name not in await running(wire)


async def test_a_start_past_its_deadline_leaves_nothing(server: Server, wire: Wire, name: str) -> None:
    before = descendants(server.process.pid)
    with pytest.raises(StartTimeoutError) as caught:
        await PythonSandbox(name=name).start(timeout=0)
    assert isinstance(caught.value, RuntimeError)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.code == 5004
    assert name not in await running(wire)
    await settle(server, before)
    async with PythonSandbox.create(name=name) as sandbox:
        assert await (await sandbox.run("1")).output() == "1"


async def test_a_sandbox_killed_from_outside_is_seen_and_can_come_again(server: Server, wire: Wire, name: str) -> None:
    before = descendants(server.process.pid)
    sandbox = PythonSandbox(name=name)
    await sandbox.start()
    await sandbox.run("x = 1")
    for pid in descendants(server.process.pid) - before:
        with contextlib.suppress(ProcessLookupError):  # killing the one before ended it
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while await sandbox.metrics.is_running() and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    assert await sandbox.metrics.is_running() is False
    assert sandbox.is_started
    with pytest.raises(MicrosandboxError, match=name) as caught:
        await sandbox.run("x")
    assert caught.value.code == 4009
    await sandbox.stop()
    await sandbox.start()
    assert (await sandbox.run("x")).has_error()
    await sandbox.stop()


async def test_a_run_that_is_under_way_when_the_sandbox_dies_ends_with_an_error(server: Server, name: str) -> None:
    before = descendants(server.process.pid)
    async with PythonSandbox.create(name=name) as sandbox:
        await sandbox.run("1")
        task = asyncio.create_task(sandbox.run("while True: pass"))
        await asyncio.sleep(0.3)
        for pid in descendants(server.process.pid) - before:
            with contextlib.suppress(ProcessLookupError):  # killing the one before ended it
                os.kill(pid, signal.SIGKILL)
        with pytest.raises(MicrosandboxError):
            await asyncio.wait_for(task, 20)


async def test_one_sandbox_speaks_both_languages(python: PythonSandbox, wire: Wire) -> None:
    await python.run("open('/tmp/shared', 'w').write('from python')")
    code = "console.log(require('fs').readFileSync('/tmp/shared', 'utf8'))"
    result = await wire.result("sandbox.repl.run", sandbox=python.name, language="nodejs", code=code)
    assert result["output"] == [{"stream": "stdout", "text": "from python"}]
