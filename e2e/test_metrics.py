# SPDX-License-Identifier: Apache-2.0
"""Metrics are measured: they follow what a sandbox does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from microsandbox import PythonSandbox

from conftest import Wire
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


async def test_cpu_is_the_percent_of_one_core(python: PythonSandbox) -> None:
    busy = asyncio.create_task(python.run("import time\nend = time.time() + 6\nwhile time.time() < end: pass"))

    async def is_busy() -> bool:
        cpu = await python.metrics.cpu()
        assert cpu is None or cpu < 160, "one core was asked for"
        return cpu is not None and cpu > 50

    await wait_until(is_busy, 6)
    await busy

    async def is_idle() -> bool:
        cpu = await python.metrics.cpu()
        return cpu is not None and cpu < 20

    await wait_until(is_idle)


async def test_two_readers_see_the_same_cpu(python: PythonSandbox) -> None:
    await asyncio.sleep(1.5)
    readings = await asyncio.gather(*(python.metrics.cpu() for _ in range(10)))
    assert len(set(readings)) <= 2, "at most one new sample came in between"


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


async def test_an_unknown_namespace_is_empty(wire: Wire) -> None:
    assert await wire.result("sandbox.metrics.get", namespace="nobody-here") == {"sandboxes": []}


async def test_a_star_means_every_namespace(server: Server, wire: Wire, name: str) -> None:
    async with PythonSandbox.create(name=name, namespace="ns-a"), PythonSandbox.create(name=name, namespace="ns-b"):
        answer = await wire.result("sandbox.metrics.get", namespace="*")
        found = {(one["namespace"], one["name"]) for one in answer["sandboxes"]}
        assert {("ns-a", name), ("ns-b", name)} <= found
        answer = await wire.result("sandbox.metrics.get", namespace="*", sandbox=name)
        assert {one["namespace"] for one in answer["sandboxes"]} == {"ns-a", "ns-b"}
        answer = await wire.result("sandbox.metrics.get", namespace="ns-a", sandbox=None)
        assert [one["name"] for one in answer["sandboxes"]] == [name]


async def test_an_unknown_sandbox_is_not_found(wire: Wire, name: str) -> None:
    answer = await wire.call("sandbox.metrics.get", {"namespace": "default", "sandbox": name})
    assert (answer.status, answer.body["code"]) == (404, 4001)
    assert name in answer.body["error"]


async def test_numbers_on_the_wire_are_whole_where_clients_decode_them_as_such(
    python: PythonSandbox, wire: Wire
) -> None:
    answer = await wire.call("sandbox.metrics.get", {"namespace": "default", "sandbox": python.name})
    (reading,) = answer.body["result"]["sandboxes"]
    assert type(reading["memory_usage"]) is int
    assert type(reading["disk_usage"]) is int
