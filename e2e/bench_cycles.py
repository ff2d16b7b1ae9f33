# SPDX-License-Identifier: Apache-2.0
"""Starts and stops sandboxes many times, and looks for what is left of them.

    python e2e/bench_cycles.py [--count 10000] [--clients 4] [--own-names] [--json FILE]

Needs msb (MSB_PROFILE names the build) and root. The server is on a machine of its own as far as the network goes, and
has everything: interfaces and rules for each sandbox, a volume with quota groups where this host can have one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from host import PROGRAMS, TARGET, Server, become_subreaper, cgroups_of, descendants
from kept import Kept
from machines import own_machine
from machines import run as command

COUNT = 10_000
CLIENTS = 4
IMAGE = "microsandbox/python"
# Cycles before the first look: what is made once and kept is there by then.
WARM_UP = 50
# The slope is that of these parts of the run; the first one fills what has a bound.
PARTS = 40
# What the memory of the server may grow by with each cycle, in bytes: less than it takes to remember a name. Before so
# many cycles, the slope is that of what fills for the first time.
MEMORY_BYTES_MAX = 64
JUDGED_MIN = 2_000
# btrfs gives the space of removed subvolumes back every 30 seconds.
GONE_SECONDS = 90


def devices(home: Path) -> list[str]:
    """Return the loop devices that have a file of a home behind them."""
    backing = Path("/sys/block").glob("loop*/loop/backing_file")
    return sorted(path.parent.parent.name for path in backing if str(home) in path.read_text())


def quota_groups(home: Path) -> list[str]:
    """Return the quota groups of the volume of a home that stand for a subvolume."""
    found: list[str] = []
    for device in devices(home):
        for volume in Path("/sys/fs/btrfs").glob(f"*/devices/{device}"):
            found += [path.name for path in (volume.parent.parent / "qgroups").glob("0_*") if path.name != "0_5"]
    return sorted(found)


@dataclass
class Watched:
    """A server, and where traces of its sandboxes could be."""

    server: Server
    # Its own directory in every hierarchy.
    cgroups: set[Path] = field(default_factory=set)

    @property
    def pid(self) -> int:
        return self.server.process.pid

    def note_cgroups(self) -> None:
        """Find out where it makes cgroups; to be called while a sandbox runs."""
        below = cgroups_of(descendants(self.pid)) - cgroups_of({self.pid})
        above = {parent for path in below for parent in [Path(path), *Path(path).parents]}
        self.cgroups |= {path for path in above if path.parent.name == "microsandbox"}

    def traces(self) -> dict[str, list[str]]:
        """Return everything there is, by kind."""
        of_server, home = Path(f"/proc/{self.pid}"), self.server.home
        networks = self._networks()
        return {
            "processes": sorted(map(str, descendants(self.pid))),
            # Without the numbers that the kernel gave them.
            "mounts": sorted(line.split(" ", 3)[3] for line in (of_server / "mountinfo").read_text().splitlines()),
            "cgroups": sorted(str(path) for own in self.cgroups for path in own.rglob("*") if path.is_dir()),
            "network namespaces": sorted(networks),
            "interfaces": [line for network in networks.values() for line in interfaces(network)],
            "rules": [line for network in networks.values() for line in rules(network)],
            "files": sorted(str(path.relative_to(home)) for path in home.rglob("*")),
            "loop devices": devices(home),
            "quota groups": quota_groups(home),
            "descriptors": sorted(kind(path) for path in (of_server / "fd").iterdir()),
        }

    def _networks(self) -> dict[str, Path]:
        """Return every network namespace that the server is in or holds, as the kernel calls it and as a file."""
        server = Path(f"/proc/{self.pid}")
        held = [path for path in (server / "fd").iterdir() if kind(path) == "net"]
        entered = [thread / "ns/net" for thread in (server / "task").iterdir()]
        # Those that last come last: a thread may end at any time.
        found = {target(path): path for path in [*entered, *held, server / "ns/net"]}
        found.pop("closed", None)
        return found

    def look(self, cycles: int, began: float) -> dict[str, float]:
        """Return what the server takes now."""
        fields = dict(line.split(":\t", 1) for line in Path(f"/proc/{self.pid}/status").read_text().splitlines())
        return {
            "cycles": cycles,
            "seconds": round(time.monotonic() - began, 2),
            "memory_kib": int(fields["VmRSS"].split()[0]),
            "threads": int(fields["Threads"]),
            "descriptors": len(os.listdir(f"/proc/{self.pid}/fd")),
        }

    def settled(self, before: dict[str, list[str]]) -> tuple[dict[str, list[str]], float]:
        """Return what there is that was not before, or the other way round, and after how many seconds."""
        began = time.monotonic()
        while True:
            now = self.traces()
            left = {what: difference(there, now[what]) for what, there in before.items() if there != now[what]}
            waited = time.monotonic() - began
            if not left or waited > GONE_SECONDS:
                return left, waited
            time.sleep(0.5)


def inside(network: Path, *words: str) -> list[str]:
    return command("nsenter", f"--net={network}", *words).splitlines()


def interfaces(network: Path) -> list[str]:
    return [line.split(":")[1].strip() for line in inside(network, "ip", "-o", "link")]


def rules(network: Path) -> list[str]:
    """Return the rules of a network, without what was counted."""
    return [re.sub(r"packets \d+ bytes \d+", "", line) for line in inside(network, "nft", "list", "ruleset")]


def kind(descriptor: Path) -> str:
    """Return what a descriptor is; of sockets and pipes there are many alike."""
    return target(descriptor).split(":[")[0]


def target(link: Path) -> str:
    try:
        return os.readlink(link)
    except FileNotFoundError:
        return "closed"


def difference(before: list[str], now: list[str]) -> list[str]:
    more, fewer = Counter(now) - Counter(before), Counter(before) - Counter(now)
    return [f"+ {what}" for what in more.elements()] + [f"- {what}" for what in fewer.elements()]


def cycle(url: str, numbers: range, name: str) -> None:
    """Start and stop a sandbox for each number, which is put into the name where that has room for it."""
    with closing(Kept(url)) as call:
        for number in numbers:
            sandbox = name.format(number=number)
            call.call("sandbox.start", sandbox=sandbox, config={"image": IMAGE})
            call.call("sandbox.stop", sandbox=sandbox)


def run(watched: Watched, count: int, names: list[str]) -> dict[str, Any]:
    """Make the cycles, with a client for each name, and return everything that is known of them."""
    clients = len(names)
    url = watched.server.url
    with ThreadPoolExecutor(clients) as threads:

        def some(first: int, after: int) -> None:
            each = [range(first + client, after, clients) for client in range(clients)]
            list(threads.map(cycle, [url] * clients, each, names))

        some(0, WARM_UP)
        with closing(Kept(url)) as call:
            call.call("sandbox.start", sandbox="look", config={"image": IMAGE})
            watched.note_cgroups()
            call.call("sandbox.stop", sandbox="look")
        watched.settled({"quota groups": []})
        start = watched.traces()
        began, load = time.monotonic(), os.getloadavg()
        looks = [watched.look(0, began)]
        for part in range(PARTS):
            some(WARM_UP + count * part // PARTS, WARM_UP + count * (part + 1) // PARTS)
            looks.append(watched.look(count * (part + 1) // PARTS, began))
    left, waited = watched.settled(start)
    looks.append(watched.look(count, began))
    return report(looks, left, waited, load)


def slope(looks: list[dict[str, float]], what: str) -> float:
    """Return how much more there is after each cycle, in the last quarter: what has a bound is full by then."""
    later = looks[len(looks) * 3 // 4 :]
    return statistics.linear_regression([look["cycles"] for look in later], [look[what] for look in later]).slope


def report(
    looks: list[dict[str, float]], left: dict[str, list[str]], waited: float, load: tuple[float, ...]
) -> dict[str, Any]:
    """Return everything that is known of this run; the last look is that at the end."""
    first, *parts, last = looks
    slopes = {what: slope(parts, what) for what in ("memory_kib", "descriptors", "threads")}
    return {
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "load": [round(number, 2) for number in load],
        "profile": PROGRAMS.name,
        "cycles": int(last["cycles"]),
        "seconds": parts[-1]["seconds"],
        "first": first,
        "last": last,
        "memory_bytes_per_cycle": round(slopes["memory_kib"] * 1024, 1),
        "descriptors_per_cycle": round(slopes["descriptors"], 5),
        "threads_per_cycle": round(slopes["threads"], 5),
        "gone_after_s": round(waited, 1),
        "left": left,
        "looks": looks,
        "goal": f"exactly nothing left within {GONE_SECONDS} s, and memory that does not grow with the cycles",
        "reached": not left and (last["cycles"] < JUDGED_MIN or slopes["memory_kib"] * 1024 <= MEMORY_BYTES_MAX),
    }


def show(found: dict[str, Any]) -> None:
    print(f"kernel {found['kernel']}  {found['cores']} cores  load {found['load']}  {found['profile']} build")
    print(f"{found['cycles']} cycles in {found['seconds']:.0f} s; as before {found['gone_after_s']:.1f} s later")
    for what in ("memory_kib", "descriptors", "threads"):
        print(f"{what:14}{found['first'][what]:>9} before{found['last'][what]:>9} at the end")
    slopes = (found[f"{what}_per_cycle"] for what in ("memory_bytes", "descriptors", "threads"))
    print("for each cycle of the last quarter: {:.1f} bytes of memory, {} descriptors, {} threads".format(*slopes))
    for what, there in found["left"].items():
        print(f"LEFT of {what}: {len(there)}, such as {there[:3]}")
    print(f"{found['goal']}: {'' if found['reached'] else 'NOT '}reached")


def bench(folder: Path, count: int, names: list[str]) -> dict[str, Any]:
    with own_machine(folder) as machine:
        before = machine.ruleset(), machine.interfaces()
        home = folder / "home"
        with Server.start(home, inside=machine.inside) as server:
            found = run(Watched(server), count, names)
        after = {
            "rules, without the server": difference(before[0].splitlines(), machine.ruleset().splitlines()),
            "interfaces, without the server": difference(before[1], machine.interfaces()),
            "loop devices, without the server": devices(home),
        }
    found["left"].update({what: there for what, there in after.items() if there})
    found["reached"] = found["reached"] and not found["left"]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=COUNT, help=f"cycles, at least {PARTS} [default: {COUNT}]")
    parser.add_argument("--clients", type=int, default=CLIENTS, help=f"clients at once [default: {CLIENTS}]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    told = "every sandbox has a name of its own, which the server remembers for a while"
    parser.add_argument("--own-names", action="store_true", help=told)
    options = parser.parse_args()
    if options.count < PARTS or options.clients < 1:
        parser.error(f"--count must be at least {PARTS}, and --clients at least 1")
    become_subreaper()
    with tempfile.TemporaryDirectory(dir=TARGET, prefix="cycles-") as scratch:
        names = ["cycle-{number}" if options.own_names else f"cycle-of-{client}" for client in range(options.clients)]
        found = bench(Path(scratch), options.count, names)
    show(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
