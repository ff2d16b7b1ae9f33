# SPDX-License-Identifier: Apache-2.0
"""Measures what a user waits for, through the SDK, beside the bare interpreter in the same run.

    python e2e/bench.py [--samples 100] [--json FILE]

Needs a server (MSB_SERVER_URL). Every round takes one sample of each row, so that all rows meet the same machine.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from microsandbox import PythonSandbox

SAMPLES_MIN = 50
WARM_UP_ROUNDS = 3
BARE = "python3 -c 'print(1)'"
FIRST = "start() to first result"
RUN = 'run("1") round trip'
COMMAND = 'command.run("true")'
STOP = "stop()"


@dataclass(frozen=True)
class Goal:
    """What the median of a row must not exceed: milliseconds, or a multiple of the bare interpreter."""

    text: str
    milliseconds: float | None = None
    times_bare: float | None = None

    def reached(self, median_ms: float, bare_ms: float) -> bool:
        bound = self.milliseconds if self.milliseconds is not None else (self.times_bare or 0) * bare_ms
        return median_ms <= bound


GOALS = {
    FIRST: Goal("p50 at most 2.5 times bare", times_bare=2.5),
    RUN: Goal("p50 under 3 ms", milliseconds=3),
    COMMAND: Goal("p50 under 10 ms", milliseconds=10),
}


def percentile(sorted_samples: list[float], percent: int) -> float:
    """Return the smallest sample that so many percent do not exceed."""
    index = -(-len(sorted_samples) * percent // 100) - 1
    return sorted_samples[max(index, 0)]


def bare_interpreter() -> float:
    began = time.perf_counter()
    ended = subprocess.run(["/usr/bin/python3", "-c", "print(1)"], stdout=subprocess.PIPE, check=True)
    taken = time.perf_counter() - began
    assert ended.stdout == b"1\n"
    return taken


async def one_round(kept: PythonSandbox) -> dict[str, float]:
    """Take one sample of every row, in seconds."""
    taken = {BARE: bare_interpreter()}

    fresh = PythonSandbox()
    began = time.perf_counter()
    await fresh.start()
    output = await (await fresh.run("print(1)")).output()
    taken[FIRST] = time.perf_counter() - began
    assert output == "1"
    began = time.perf_counter()
    await fresh.stop()
    taken[STOP] = time.perf_counter() - began

    began = time.perf_counter()
    execution = await kept.run("1")
    taken[RUN] = time.perf_counter() - began
    assert await execution.output() == "1"

    began = time.perf_counter()
    result = await kept.command.run("true")
    taken[COMMAND] = time.perf_counter() - began
    assert result.success
    return taken


async def measure(samples: int) -> dict[str, list[float]]:
    """Return the samples of every row, in milliseconds, sorted."""
    rows: dict[str, list[float]] = {name: [] for name in (BARE, FIRST, RUN, COMMAND, STOP)}
    async with PythonSandbox.create() as kept:
        for number in range(WARM_UP_ROUNDS + samples):
            taken = await one_round(kept)
            if number >= WARM_UP_ROUNDS:
                for name, seconds in taken.items():
                    rows[name].append(seconds * 1000)
    return {name: sorted(row) for name, row in rows.items()}


def report(rows: dict[str, list[float]]) -> dict[str, object]:
    """Return everything that is known of this run."""
    bare = percentile(rows[BARE], 50)
    table: dict[str, object] = {}
    for name, row in rows.items():
        numbers = {f"p{percent}_ms": round(percentile(row, percent), 3) for percent in (50, 95, 99)}
        goal = GOALS.get(name)
        table[name] = {
            **numbers,
            "p50_times_bare": round(percentile(row, 50) / bare, 3),
            "goal": goal.text if goal else None,
            "reached": goal.reached(percentile(row, 50), bare) if goal else None,
        }
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "samples": len(rows[BARE]),
        "rows": table,
    }


def show(found: dict[str, object]) -> None:
    print(f"{found['date']}  kernel {found['kernel']}  {found['cores']} cores  {found['samples']} samples each")
    print(f"{'':26}{'p50':>10}{'p95':>10}{'p99':>10}{'x bare':>9}  goal")
    rows = found["rows"]
    assert isinstance(rows, dict)
    for name, row in rows.items():
        verdict = f"{row['goal']}: {'reached' if row['reached'] else 'NOT reached'}" if row["goal"] else ""
        numbers = "".join(f"{row[key]:>7.2f} ms" for key in ("p50_ms", "p95_ms", "p99_ms"))
        print(f"{name:26}{numbers}{row['p50_times_bare']:>9.2f}  {verdict}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=100, help=f"samples of each row, at least {SAMPLES_MIN}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    options = parser.parse_args()
    if options.samples < SAMPLES_MIN:
        parser.error(f"--samples must be at least {SAMPLES_MIN}: fewer say nothing about the slow ones")
    found = report(asyncio.run(measure(options.samples)))
    show(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
