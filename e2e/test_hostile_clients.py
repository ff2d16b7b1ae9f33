# SPDX-License-Identifier: Apache-2.0
"""Clients that mean harm, beside one that means none: it notices little, and the server's memory stays in bounds."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from microsandbox import PythonSandbox

from host import Server, descendants, need_everything

CLIENT = Path(__file__).with_name("hostile_client.py")
SECONDS = 3
RUNS = 40
# How much slower a run may be beside an attack than alone: the median, measured in the same minute.
SLOWER_MAX = 10
# The same for the slowest tenth, which feels a flood while it is taken in: this is for stalls of a second and more.
SLOWEST_MAX = 200
# What the limits in protocol::limits allow together, with room for the allocator.
MEMORY_MIB_MAX = 1800
# How long the server may take to close what an attacker left.
SETTLE_SECONDS = 20

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    need_everything()
    server = Server.start(tmp_path_factory.mktemp("attacked"))
    yield server
    server.end()


@pytest.fixture
async def healthy(attacked: Server, name: str) -> AsyncIterator[PythonSandbox]:
    async with PythonSandbox.create(name=name, server_url=attacked.url) as sandbox:
        yield sandbox


@pytest.fixture
async def victim(attacked: Server, name: str) -> AsyncIterator[PythonSandbox]:
    """Give the sandbox that the attacker uses."""
    async with PythonSandbox.create(name=f"{name}-victim", server_url=attacked.url) as sandbox:
        yield sandbox


@dataclass
class Times:
    """The median, and what nine of ten runs stay below."""

    p50: float
    p90: float


async def times(sandbox: PythonSandbox) -> Times:
    """Return how long small runs take, in seconds."""
    taken: list[float] = []
    for _ in range(RUNS):
        began = time.perf_counter()
        execution = await sandbox.run("1")
        taken.append(time.perf_counter() - began)
        assert await execution.output() == "1"
    taken.sort()
    return Times(statistics.median(taken), taken[len(taken) * 9 // 10])


def memory_mib(server: Server) -> int:
    """Return the most memory that the server ever had resident, and begin anew."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")
    return int(line.split()[1]) // 1024


def descriptors(server: Server) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


class Attack:
    """One hostile client while it does its work."""

    def __init__(self, kind: str, server: Server, sandbox: PythonSandbox | None = None) -> None:
        name = [sandbox.name] if sandbox else []
        self.command = [sys.executable, CLIENT, kind, "127.0.0.1", str(server.port), str(SECONDS), *name]

    async def __aenter__(self) -> Attack:
        self.process = await asyncio.create_subprocess_exec(*self.command, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert await asyncio.wait_for(self.process.stdout.readline(), 60) == b"ready\n"
        return self

    async def seen(self) -> dict[str, int]:
        """Wait for its end and return what it saw."""
        out, _ = await asyncio.wait_for(self.process.communicate(), 60)
        assert self.process.returncode == 0
        return json.loads(out)

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.communicate()


ALONE = ["idle", "slow_heads", "slow_bodies", "stalled_bodies", "head_flood", "body_flood", "deep_json", "garbage"]
USING = ["big_answers", "big_answers_to_models", "stalled_readers"]
ANSWERS = {
    "head_flood": {"431"},
    "body_flood": {"400"},
    "deep_json": {"400"},
    "garbage": {"400", "415", "0"},
    "pipelining": {"200"},
    "discover_batches": {"200"},
    "big_answers": {"200"},
    "big_answers_to_models": {"200"},
}


@pytest.mark.parametrize("kind", [*ALONE, "pipelining", "discover_batches", *USING, "vanishing"])
async def test_another_client_hardly_notices(
    attacked: Server, healthy: PythonSandbox, victim: PythonSandbox, kind: str
) -> None:
    await times(healthy)
    before = await times(healthy)
    memory_mib(attacked)
    open_before = descriptors(attacked)
    processes_before = descendants(attacked.process.pid)
    async with Attack(kind, attacked, victim) as attack:
        beside = await times(healthy)
        async with PythonSandbox.create(server_url=attacked.url) as newcomer:
            assert await (await newcomer.run("2")).output() == "2"
        seen = await attack.seen()
    # Twice, so that what else the machine does meanwhile is seen in both.
    after = await times(healthy)
    alone = Times(max(before.p50, after.p50), max(before.p90, after.p90))
    peak = memory_mib(attacked)
    shown = [f"{1000 * taken:.1f}" for taken in (alone.p50, beside.p50, alone.p90, beside.p90)]
    print(
        f"{kind}: run p50 {shown[0]} ms alone, {shown[1]} beside; p90 {shown[2]}, {shown[3]}; peak {peak} MiB; {seen}"
    )
    assert beside.p50 <= SLOWER_MAX * alone.p50, f"{beside.p50 / alone.p50:.1f} times as slow"
    assert beside.p90 <= SLOWEST_MAX * alone.p90, f"at times {beside.p90 / alone.p90:.1f} times as slow"
    assert peak < MEMORY_MIB_MAX
    assert sum(seen.values()) > 0
    if kind in ANSWERS:
        assert set(seen) <= ANSWERS[kind], seen
    # What the attacker left is gone: its connections, and what it made the sandbox do.
    await settled(lambda: descriptors(attacked) <= open_before + 8)
    assert await (await asyncio.wait_for(victim.run("1"), 30)).output() == "1"
    await settled(lambda: len(descendants(attacked.process.pid)) <= len(processes_before))


async def settled(holds: object) -> None:
    assert callable(holds)
    deadline = time.monotonic() + SETTLE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it is not cleared up"
        await asyncio.sleep(0.1)
