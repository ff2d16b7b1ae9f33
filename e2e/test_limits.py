# SPDX-License-Identifier: Apache-2.0
"""Limits: what a client asks for is what the kernel holds, and going beyond is told as what it is."""

from __future__ import annotations

import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from conftest import Wire
from host import Server

IMAGE = "microsandbox/python"
# What two busy processes may use together while the limit is a quarter of a processor.
QUARTER = (0.1, 0.45)

FORKS = """
import os, signal
children = []
try:
    while len(children) < 600:
        pid = os.fork()
        if pid == 0:
            signal.pause()
            os._exit(0)
        children.append(pid)
except OSError as error:
    print(type(error).__name__)
print(len(children))
for pid in children:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""
BURN = """
import os, time
began = time.monotonic()
for _ in range(2):
    if os.fork() == 0:
        while time.monotonic() - began < 2: pass
        os._exit(0)
for _ in range(2): os.wait()
used = os.times()
print((used.children_user + used.children_system) / (time.monotonic() - began))
"""
OPEN_FILES = """
import errno, os
files = []
try:
    while len(files) < 5000: files.append(os.open('/dev/null', os.O_RDONLY))
except OSError as error:
    print(errno.errorcode[error.errno])
print(len(files))
for file in files: os.close(file)
"""
SHM_FILL = """
import errno, os
try:
    with open('/dev/shm/fill', 'wb', buffering=0) as file:
        for _ in range(128): file.write(bytes(1 << 20))
except OSError as error:
    print(errno.errorcode[error.errno])
print(os.path.getsize('/dev/shm/fill') >> 20)
"""

Run = Callable[[str], Awaitable[tuple[str, list[str]]]]


@asynccontextmanager
async def limited(wire: Wire, name: str, **config: object) -> AsyncIterator[Run]:
    """Give a sandbox with these limits as a function that runs code in it."""

    async def run(code: str) -> tuple[str, list[str]]:
        source = textwrap.dedent(code)
        result = await wire.result("sandbox.repl.run", sandbox=name, language="python", code=source)
        return result["status"], [line["text"] for line in result["output"]]

    await wire.result("sandbox.start", sandbox=name, config={"image": IMAGE, **config})
    try:
        yield run
    finally:
        await wire.result("sandbox.stop", sandbox=name)


async def test_processes_end_where_the_client_said(wire: Wire, name: str) -> None:
    async with limited(wire, name, pids=40) as run:
        status, (error, count) = await run(FORKS)
        assert (status, error) == ("success", "BlockingIOError")
        assert 5 <= int(count) < 40


async def test_open_files_end_where_the_client_said(wire: Wire, name: str) -> None:
    async with limited(wire, name, open_files=600) as run:
        status, (error, count) = await run(OPEN_FILES)
        assert (status, error) == ("success", "EMFILE")
        assert 500 <= int(count) < 600


async def test_a_fraction_of_a_processor_is_a_fraction(wire: Wire, name: str) -> None:
    async with limited(wire, name, cpu_millis=250) as run:
        status, (share,) = await run(BURN)
        assert status == "success"
        assert QUARTER[0] < float(share) < QUARTER[1]


async def test_shared_memory_is_as_large_as_asked_for_and_counts_as_memory(wire: Wire, name: str) -> None:
    async with limited(wire, name, shm=96, memory=512) as run:

        async def memory() -> int:
            (reading,) = (await wire.result("sandbox.metrics.get", sandbox=name))["sandboxes"]
            return int(reading["memory_usage"])

        before = await memory()
        assert await run(SHM_FILL) == ("success", ["ENOSPC", "96"])
        assert 80 <= await memory() - before <= 140


async def test_shared_memory_cannot_outgrow_the_memory_limit(wire: Wire, name: str) -> None:
    async with limited(wire, name, shm=96, memory=96) as run:
        status, output = await run(SHM_FILL)
        assert status == "out_of_memory", output
        assert "96 MiB" in " ".join(output)
        assert (await run("import os; os.unlink('/dev/shm/fill'); print('next')"))[1] == ["next"]


@pytest.mark.parametrize(
    ("key", "value", "needle"),
    [
        ("pids", 31, "from 32 to 4096, not 31"),
        ("pids", 4097, "from 32 to 4096, not 4097"),
        ("open_files", 511, "from 512 to 1048576"),
        ("io_weight", 0, "from 1 to 1000"),
        ("io_weight", 1001, "from 1 to 1000"),
        ("shm", 0, "from 1"),
        ("shm", 513, "at most the sandbox's memory of 512 MiB, not 513"),
        ("cpu_millis", 9, "from 10 to 255000"),
    ],
)
async def test_what_cannot_be_a_limit_is_refused(wire: Wire, name: str, key: str, value: Any, needle: str) -> None:
    config = {"image": IMAGE, "memory": 512, key: value}
    answer = await wire.call("sandbox.start", {"namespace": "default", "sandbox": name, "config": config})
    assert (answer.status, answer.body["code"]) == (400, 2001), answer.text
    assert needle in answer.body["error"]


async def test_a_running_sandbox_says_which_limits_differ(server: Server, wire: Wire, name: str) -> None:
    async with limited(wire, name, pids=64):
        server.note_cgroups()
        text = await wire.result("sandbox.start", sandbox=name, config={"image": IMAGE, "pids": 65, "shm": 32})
        assert "with other values than asked for: pids, shm" in text
