# SPDX-License-Identifier: Apache-2.0
"""Metrics are measured: they follow what a sandbox does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from microsandbox import PythonSandbox

from host import Server

KEYS = ["name", "namespace", "running", "cpu_usage", "memory_usage", "disk_usage"]


async def wait_until(what: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    """Wait until something that is sampled has come true."""
    deadline = time.monotonic() + seconds
    while not await what():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.1)


async def test_all_metrics_have_the_six_keys_and_their_kinds(python: PythonSandbox) -> None:
    reading = await python.metrics.all()
    assert sorted(reading) == sorted(KEYS)
    assert (reading["name"], reading["namespace"], reading["running"]) == (python.name, "default", True)
    assert isinstance(reading["memory_usage"], int)
    assert reading["memory_usage"] >= 1
    assert isinstance(reading["disk_usage"], int)
    assert reading["cpu_usage"] is None or reading["cpu_usage"] >= 0


async def test_memory_follows_what_is_allocated(python: PythonSandbox) -> None:
    before = await python.metrics.memory()
    await python.run("block = bytearray(b'x') * (100 * 1024 * 1024)")
    full = await python.metrics.memory()
    await python.run("del block")
    after = await python.metrics.memory()
    assert before is not None
    assert full is not None
    assert after is not None
    assert 90 <= full - before <= 140
    assert after < full - 80


async def test_disk_is_the_size_of_what_was_written(python: PythonSandbox) -> None:
    before = await python.metrics.disk()
    await python.run("import os; open('big', 'wb').write(os.urandom(10_000_000))")
    assert before is not None

    async def has_grown() -> bool:
        disk = await python.metrics.disk()
        return disk is not None and 9_500_000 <= disk - before <= 12_000_000

    await wait_until(has_grown)


async def test_metrics_before_the_start_are_an_error(server: Server) -> None:
    with pytest.raises(RuntimeError, match="not started"):
        await PythonSandbox().metrics.is_running()
