# SPDX-License-Identifier: Apache-2.0
"""Measures a sandbox's `run("1")` while another is busy at its processor limit, and while it is not, in turns.

    python e2e/bench_neighbour.py [--samples 480] [--loops 4] [--json FILE]

Needs msb (MSB_PROFILE names the build) and root. The busy one has one processor, and by default more loops
than that: they take it from all of the machine's at once, until the kernel stops them for the rest of each 100 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from host import PROGRAMS, TARGET, Server, become_subreaper
from kept import Kept

SAMPLES_MIN = 300
BLOCK = 40
GOAL = 2.0
CPUS = 1
IMAGE = "microsandbox/python"
IDLE = "the other is idle"
BUSY = "the other is busy"
# What of its processor the busy one must have had for its row to count.
USED_MIN = 0.8

# Loops until the file is there, and says what share of the time the loops had.
LOOPS = """
import os, time
def used():
    times = os.times()
    return times.children_user + times.children_system
before, began = used(), time.monotonic()
for _ in range(LOOPS):
    if os.fork() == 0:
        while not os.path.exists('/tmp/enough'): pass
        os._exit(0)
for _ in range(LOOPS): os.wait()
print((used() - before) / (time.monotonic() - began))
os.remove('/tmp/enough')
"""


class Pair:
    """Two sandboxes of one server."""

    def __init__(self, url: str, loops: int) -> None:
        self.neighbour, self.busy = Kept(url), Kept(url)
        self.shares: list[float] = []
        self._loops = LOOPS.replace("LOOPS", str(loops))
        for name in ("neighbour", "busy"):
            self.busy.call("sandbox.start", sandbox=name, config={"image": IMAGE, "cpus": CPUS})

    def idle_block(self) -> list[float]:
        """Return how long each run took, in seconds."""
        code = {"language": "python", "code": "1"}
        return [self.neighbour.timed("sandbox.repl.run", sandbox="neighbour", **code)[0] for _ in range(BLOCK)]

    def busy_block(self) -> list[float]:
        with ThreadPoolExecutor(1) as thread:
            loops = thread.submit(
                self.busy.call, "sandbox.repl.run", sandbox="busy", language="python", code=self._loops
            )
            self._wait_until_busy()
            taken = self.idle_block()
            enough = {"command": "touch", "args": ["/tmp/enough"]}
            self.neighbour.call("sandbox.command.run", sandbox="busy", **enough)
            said = loops.result()
        self.shares.append(float(said["output"][0]["text"]))
        return taken

    def _wait_until_busy(self) -> None:
        """Wait until the loops have had a quarter of a second: a command in there is as slow as they make it."""
        code = "import time; time.sleep(0.25)"
        self.neighbour.call("sandbox.repl.run", sandbox="neighbour", language="python", code=code)

    def end(self) -> None:
        for name in ("neighbour", "busy"):
            self.busy.call("sandbox.stop", sandbox=name)
        self.neighbour.close()
        self.busy.close()


def percentile(sorted_samples: list[float], percent: int) -> float:
    return sorted_samples[-(-len(sorted_samples) * percent // 100) - 1]


def report(rows: dict[str, list[float]], shares: list[float], load: tuple[float, ...]) -> dict[str, Any]:
    """Return everything that is known of this run."""
    for taken in rows.values():
        taken.sort()
    ratio = percentile(rows[BUSY], 99) / percentile(rows[IDLE], 99)
    used = sum(shares) / len(shares)
    return {
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "load": [round(number, 2) for number in load],
        "profile": PROGRAMS.name,
        "samples": len(rows[IDLE]),
        "busy_used_cpus": round(used, 2),
        "rows": {
            row: {f"p{percent}_ms": round(percentile(taken, percent) * 1000, 3) for percent in (50, 95, 99)}
            for row, taken in rows.items()
        },
        "ratio": round(ratio, 3),
        "goal": f"p99 at most {GOAL} times as long while the other is busy",
        "reached": ratio <= GOAL and used >= USED_MIN * CPUS,
    }


def show(found: dict[str, Any]) -> None:
    print(f"kernel {found['kernel']}  {found['cores']} cores  load {found['load']}  {found['samples']} samples each")
    print(f"{'':24}{'p50':>10}{'p95':>10}{'p99':>10}")
    for row, numbers in found["rows"].items():
        print(f"{row:24}" + "".join(f"{numbers[key]:>7.2f} ms" for key in ("p50_ms", "p95_ms", "p99_ms")))
    print(f"the busy one used {found['busy_used_cpus']:.2f} processors of {CPUS}")
    print(f"ratio of the p99s: {found['ratio']:.2f}  {found['goal']}: {'' if found['reached'] else 'NOT '}reached")


def measure(url: str, samples: int, loops: int) -> dict[str, Any]:
    pair = Pair(url, loops)
    rows: dict[str, list[float]] = {IDLE: [], BUSY: []}
    turns = [(IDLE, pair.idle_block), (BUSY, pair.busy_block)]
    pair.idle_block()
    load = os.getloadavg()
    while len(rows[IDLE]) < samples:
        for row, block in turns:
            rows[row] += block()
        turns.reverse()
    found = report(rows, pair.shares, load)
    pair.end()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=480, help=f"samples of each row, at least {SAMPLES_MIN}")
    parser.add_argument("--loops", type=int, default=4, help="processes that do nothing but count [default: 4]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    options = parser.parse_args()
    if options.samples < SAMPLES_MIN:
        parser.error(f"--samples must be at least {SAMPLES_MIN}: fewer say nothing about the slowest")
    become_subreaper()
    with (
        tempfile.TemporaryDirectory(dir=TARGET, prefix="neighbour-") as scratch,
        Server.start(Path(scratch) / "home") as server,
    ):
        found = measure(server.url, options.samples, options.loops)
    show(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
