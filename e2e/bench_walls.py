# SPDX-License-Identifier: Apache-2.0
"""Measures the start of an empty sandbox beside a minimal C program that builds the same walls for the same agent.

    python e2e/bench_walls.py [--samples 100] [--json FILE]

Needs msb (MSB_PROFILE names the build), gcc and root. What the C program does is read from the plan of a real sandbox:
masks, devices, capabilities, filter, limits, and what the agent is told. Every round takes one sample of each row, each
round beginning with another; what follows a start (its end, the removal) is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from host import PROGRAMS, REPO, TARGET, Server, become_subreaper
from kept import Kept

SAMPLES_MIN = 100
WARM_UP_ROUNDS = 5
GOAL = 1.3
C = "the C program"
JAIL = "msb-jail, run by the C program"
PLAIN = "sandbox.start, --disk-store plain"
BTRFS = "sandbox.start, --disk-store btrfs"
CALL = "a call that does nothing"
PHASES = ("directories and cgroups", "walls, until the exec", "agent, until its greeting")

# Stands in the place of msb-jail: keeps the plan, and has it carried out.
SAVING_JAIL = """#!/usr/bin/python3
import os, sys
if len(sys.argv) == 1:
    plan = sys.stdin.buffer.read()
    open({into!r}, "wb").write(plan)
    text = os.memfd_create("plan")
    os.write(text, plan)
    os.lseek(text, 0, os.SEEK_SET)
    os.dup2(text, 0)
os.execv({jail!r}, ["msb-jail", *sys.argv[1:]])
"""
# The files of a cgroup in which the server writes limits; those that differ from a new group's were written.
LIMITS = (
    *("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.swappiness", "pids.max", "cpu.shares"),
    *("blkio.bfq.weight", "blkio.weight", "programs/cpu.cfs_period_us", "programs/cpu.cfs_quota_us"),
    *("memory.max", "memory.swap.max", "cpu.weight", "io.weight", "io.bfq.weight", "programs/cpu.max"),
)
# What must be the same of both, besides mounts, limits and cgroups.
SAID_OF_WALLS = ("Uid:", "Gid:", "Groups:", "Cap", "NoNewPrivs:", "Seccomp")
KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")


def milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


class Example:
    """A sandbox of a server of its own, whose plan is known."""

    def __init__(self, folder: Path, image: Path) -> None:
        programs = folder / "programs"
        programs.mkdir()
        for name in ("msb", "msb-agent"):
            shutil.copy(PROGRAMS / name, programs)
        saved = folder / "plan.json"
        jail = programs / "msb-jail"
        jail.write_text(SAVING_JAIL.format(into=str(saved), jail=str(PROGRAMS / "msb-jail")))
        jail.chmod(0o755)
        flags = ("--allow-rootfs", str(image.parent), "--disk-store", "plain")
        self.server = Server.start(folder / "example", *flags, programs=programs)
        self.call = Kept(self.server.url)
        self.call.call("sandbox.start", sandbox="example", config={"image": str(image)})
        self.plan: dict[str, Any] = json.loads(saved.read_text())
        self.plan["agent"] = str(PROGRAMS / "msb-agent")

    def groups(self) -> list[Path]:
        """Return its cgroups, those below others after them."""
        upper = [Path(tasks).parent for tasks in self.plan["cgroup_tasks"]]
        return [*upper, Path(self.plan["program_tasks"]).parent]

    def __enter__(self) -> Example:
        return self

    def __exit__(self, *failure: object) -> None:
        self.call.close()
        self.server.__exit__(*failure)


def cgroup_records(groups: list[Path], name: str) -> list[tuple[str, ...]]:
    """Return what makes cgroups like those of a sandbox, called differently."""
    own = groups[0].name
    twins = [Path(str(group).replace(own, name)) for group in groups]
    for twin in twins:
        twin.mkdir()
    records: list[tuple[str, ...]] = [("cgroup", str(twin)) for twin in twins]
    # The processor time of programs is limited one level below.
    for group, twin in zip(groups[:-1], twins[:-1], strict=True):
        for file in LIMITS:
            if (group / file).exists() and (value := (group / file).read_text()) != (twin / file).read_text():
                records.append(("set", str(twin / file), value.strip()))
    for twin in reversed(twins):
        twin.rmdir()
    return records


def specification(example: Example, box: Path, name: str) -> tuple[str, dict[str, Any]]:
    """Return what the C program does, and the plan of msb-jail for the very same."""
    groups, plan = example.groups(), dict(example.plan)
    own = groups[0].name
    upper = box / "layers/0/upper"
    plan.update(socket=str(box / "agent.sock"), scratch=str(box / "scratch"), process=str(box / "process"))
    for tasks in ("cgroup_tasks", "program_tasks"):
        plan[tasks] = json.loads(json.dumps(plan[tasks]).replace(own, name))
    (overlay,) = plan["overlays"]
    plan["overlays"] = [{**overlay, "upper": str(upper), "work": str(box / "layers/0/work")}]
    assert not plan["volumes"]
    assert not plan["writable"]
    records: list[tuple[object, ...]] = [("make", box), ("make", box / "scratch"), ("make", box / "layers")]
    records += [("make", box / "layers/0")]
    modes = {upper: "755", box / "layers/0/work": "755", upper / "etc": "755", upper / "root": "700"}
    records += [("make", path, mode) for path, mode in (modes | {upper / "tmp": "1777"}).items()]
    original = Path(overlay["upper"]) / "etc"
    records += [("preset", upper / "etc" / file.name, *file.read_text().split("\n")[:1]) for file in original.iterdir()]
    records += cgroup_records(groups, name)
    hello = {"version": 1, "secret": json.loads(plan["agent_config"])["secret"]}
    records += [("hello", json.dumps(hello)), ("agent", plan["agent"]), ("config", plan["agent_config"])]
    records += [("socket", plan["socket"]), ("scratch", plan["scratch"]), ("hostname", plan["hostname"])]
    records += [("first", plan["ids"]["first"]), ("ids", plan["ids"]["count"]), ("shm", plan["shm_bytes"])]
    records += [("files", plan["open_files_max"]), ("upper", upper), ("work", box / "layers/0/work")]
    records += [("lower", path) for path in overlay["lowers"]]
    records += [("device", one["name"], one["major"], one["minor"]) for one in plan["devices"]]
    records += [("link", *pair) for pair in plan["device_links"]]
    records += [("masked", path) for path in plan["masked"]] + [("readonly", path) for path in plan["read_only"]]
    records += [("capability", number) for number in plan["capabilities"]]
    records += [("enter", path) for path in plan["cgroup_tasks"]] + [("programs", plan["program_tasks"])]
    records += [("filter", " ".join(str(number) for one in plan["seccomp"] for number in one))]
    return "".join("\t".join(map(str, record)) + "\n" for record in records), plan


class Driver:
    """The C program, which takes samples with itself or with msb-jail."""

    def __init__(self, c: Path, spec: Path, given: Path, *program: Path) -> None:
        command = [c, spec, given, *program]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def sample(self) -> list[float]:
        """Return how long each phase took, in seconds."""
        _, *nanoseconds = self._step()
        self._step()
        return [number / 1e9 for number in nanoseconds]

    def walls(self) -> dict[str, Any]:
        """Return what the kernel says of the walls of one sandbox."""
        agent = Path("/proc") / str(self._step()[0])
        mountinfo = re.sub(r"/fd/\d+", "/fd/N", (agent / "mountinfo").read_text())
        mounts = [line.split() for line in mountinfo.splitlines()]
        status = [line for line in (agent / "status").read_text().splitlines() if line.startswith(SAID_OF_WALLS)]
        said = {
            "mounts": [(words[3:6], words[words.index("-") + 1 :]) for words in mounts],
            "status": status,
            "limits": (agent / "limits").read_text(),
            "cgroups": (agent / "cgroup").read_text(),
            "ids": (agent / "uid_map").read_text() + (agent / "gid_map").read_text(),
            "others": [
                kind for kind in KINDS if os.readlink(agent / "ns" / kind) == os.readlink(f"/proc/self/ns/{kind}")
            ],
        }
        self._step()
        return said

    def _step(self) -> list[int]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the C program failed"
        return [int(word) for word in line.split()]

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, failure: object, *_: object) -> None:
        self._process.communicate(timeout=60)
        assert failure or self._process.returncode == 0


class Started:
    """A server whose starts are measured."""

    def __init__(self, home: Path, image: Path, disk_store: str) -> None:
        flags = ("--allow-rootfs", str(image.parent), "--disk-store", disk_store)
        self.server = Server.start(home, *flags)
        self.call = Kept(self.server.url)
        self._config = {"image": str(image)}

    def sample(self) -> list[float]:
        taken, _ = self.call.timed("sandbox.start", sandbox="walls", config=self._config)
        self.call.call("sandbox.stop", sandbox="walls")
        return [taken]

    def idle(self) -> list[float]:
        return [self.call.timed("sandbox.metrics.get", namespace="nobody")[0]]

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *failure: object) -> None:
        self.call.close()
        self.server.__exit__(*failure)


def measure(samples: int, turns: list[tuple[str, Callable[[], list[float]]]]) -> dict[str, list[list[float]]]:
    """Return the samples of every row, each as the seconds of its phases."""
    rows: dict[str, list[list[float]]] = {row: [] for row, _ in turns}
    for number in range(WARM_UP_ROUNDS + samples):
        first = number % len(turns)
        for row, sample in turns[first:] + turns[:first]:
            taken = sample()
            if number >= WARM_UP_ROUNDS:
                rows[row].append(taken)
    return rows


def report(rows: dict[str, list[list[float]]], load: tuple[float, ...], *, landlock: bool) -> dict[str, Any]:
    """Return everything that is known of this run."""
    table: dict[str, Any] = {}
    whole = {row: sorted(sum(sample) for sample in samples) for row, samples in rows.items()}
    for row, sums in whole.items():
        phases = [statistics.median(phase) for phase in zip(*rows[row], strict=True)]
        table[row] = {
            "p50_ms": milliseconds(statistics.median(sums)),
            "p95_ms": milliseconds(sums[-(-len(sums) * 95 // 100) - 1]),
            "times_c": round(statistics.median(sums) / statistics.median(whole[C]), 3),
            "phases_p50_ms": dict(zip(PHASES, map(milliseconds, phases), strict=True)) if len(phases) > 1 else None,
        }
    return {
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "load": [round(number, 2) for number in load],
        "profile": PROGRAMS.name,
        # The C program does without.
        "landlock": landlock,
        "samples": len(rows[C]),
        "rows": table,
        "goal": f"p50 of {PLAIN} at most {GOAL} times {C}",
        "reached": table[PLAIN]["times_c"] <= GOAL,
    }


def show(found: dict[str, Any]) -> None:
    print(f"kernel {found['kernel']}  {found['cores']} cores  load {found['load']}  {found['samples']} samples each")
    print(f"{'':36}{'p50':>9}{'p95':>12}{'x C':>7}")
    rows = found["rows"]
    for row, numbers in rows.items():
        print(f"{row:36}{numbers['p50_ms']:>6.2f} ms{numbers['p95_ms']:>9.2f} ms{numbers['times_c']:>7.2f}")
    print(f"{'where it goes (p50)':36}{'C':>9}{'msb-jail':>12}")
    for phase in PHASES:
        c, jail = (rows[row]["phases_p50_ms"][phase] for row in (C, JAIL))
        print(f"  {phase:34}{c:>6.2f} ms{jail:>9.2f} ms")
    rest = rows[PLAIN]["p50_ms"] - rows[JAIL]["p50_ms"]
    print(f"  {'the server itself, with the call':34}{'':>9}{rest:>9.2f} ms")
    print(f"{found['goal']}: {'reached' if found['reached'] else 'NOT reached'}")


def compare(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """Check that the C program builds the same walls."""
    for part, said in ours.items():
        assert theirs[part] == said, f"{part} of the C program: {theirs[part]}\nof msb-jail: {said}"
    assert ours["others"] == [], "namespaces that are the host's"


def bench(folder: Path, samples: int) -> dict[str, Any]:
    c = folder / "bench_walls"
    source = REPO / "e2e" / "bench_walls.c"
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o", c, source], check=True)
    image = folder / "images" / "empty"
    image.mkdir(parents=True)
    # The last one ends first: a server checks that no process is there which was not before it.
    with ExitStack() as parts:
        example = parts.enter_context(Example(folder, image))
        text, plan = specification(example, folder / "box", f"bench-{os.getpid()}")
        spec, given = folder / "spec", folder / "box.json"
        spec.write_text(text)
        given.write_text(json.dumps(plan))
        jail = parts.enter_context(Driver(c, spec, given, PROGRAMS / "msb-jail"))
        minimal = parts.enter_context(Driver(c, spec, spec, c))
        compare(minimal.walls(), jail.walls())
        plain = parts.enter_context(Started(folder / "plain", image, "plain"))
        btrfs = parts.enter_context(Started(folder / "btrfs", image, "btrfs"))
        turns = [(C, minimal.sample), (JAIL, jail.sample), (PLAIN, plain.sample), (BTRFS, btrfs.sample)]
        load = os.getloadavg()
        return report(measure(samples, [*turns, (CALL, plain.idle)]), load, landlock=plan["landlock"])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=SAMPLES_MIN, help=f"samples of each row, at least {SAMPLES_MIN}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    options = parser.parse_args()
    if options.samples < SAMPLES_MIN:
        parser.error(f"--samples must be at least {SAMPLES_MIN}: fewer say nothing about the slow ones")
    become_subreaper()
    with tempfile.TemporaryDirectory(dir=TARGET, prefix="walls-") as scratch:
        found = bench(Path(scratch), options.samples)
    show(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
