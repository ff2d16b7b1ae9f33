# SPDX-License-Identifier: Apache-2.0
"""The server as a process of this host, and what of it can be found on the host.

The test process makes itself a subreaper, so that whatever outlives a server becomes its child and is seen.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target"))
PROGRAMS = TARGET / os.environ.get("MSB_PROFILE", "debug")
CGROUPS = Path("/sys/fs/cgroup")

# How long a server may take to be ready or to end, in seconds.
READY_SECONDS = 60
END_SECONDS = 60
# How long what a killed server leaves behind may take to go, in seconds.
GONE_SECONDS = 20

_PR_SET_CHILD_SUBREAPER = 36


def need(condition: object, reason: str) -> None:
    """Skip the test if a condition does not hold; fail it where nothing may be missing."""
    if condition:
        return
    if os.environ.get("MSB_TEST_REQUIRE") == "all":
        pytest.fail(f"needed here: {reason}")
    pytest.skip(reason)


def need_everything() -> None:
    """Check what every test against real sandboxes needs."""
    need(os.geteuid() == 0, "root is needed to build the walls of a sandbox")
    for program in ("msb", "msb-jail", "msb-agent"):
        need((PROGRAMS / program).is_file(), f"{PROGRAMS / program} is needed: `cargo xtask build`")
    need(Path("/usr/bin/python3").exists(), "/usr/bin/python3 is needed: Debian's package python3")
    need(Path("/usr/bin/node").exists(), "/usr/bin/node is needed: Debian's package nodejs")


def clean_environment() -> dict[str, str]:
    """Return the environment of the tests without our own settings."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("MSB_", "MICROSANDBOX_"))}


def become_subreaper() -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become a subreaper")


def children(pid: int) -> set[int]:
    """Return the processes whose parent is `pid`, zombies left out."""
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            state, parent = entry.joinpath("stat").read_text().rpartition(") ")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(parent) == pid and state not in "ZX":
            found.add(int(entry.name))
    return found


def descendants(pid: int) -> set[int]:
    """Return all processes below `pid`."""
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        below = children(waiting.pop()) - found
        found |= below
        waiting += below
    return found


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return "(gone)"


def cgroup_directories() -> set[str]:
    """Return every cgroup directory of the host, in all hierarchies."""
    return {root for root, _, _ in os.walk(CGROUPS)}


def cgroups_of(pids: set[int]) -> set[str]:
    """Return the cgroup directories in which processes are, in all hierarchies."""
    found: set[str] = set()
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for line in lines:
            _, controllers, path = line.split(":", 2)
            unified = "unified" if (CGROUPS / "unified").is_dir() else ""
            name = controllers.removeprefix("name=").split(",")[0] or unified
            found.add(str(CGROUPS / name) + path.rstrip("/"))
    return found


@dataclass
class Server:
    """One running `msb server start`."""

    home: Path
    process: subprocess.Popen[str]
    url: str
    log: Path
    before: set[int]
    cgroups_before: set[str] = field(default_factory=set)
    cgroups: set[str] = field(default_factory=set)

    @classmethod
    def start(
        cls,
        home: Path,
        *arguments: str,
        dev: bool = True,
        log_level: str | None = None,
        inside: Sequence[str] = (),
        programs: Path = PROGRAMS,
    ) -> Server:
        """Start a server on a free port and wait for the line that says where it listens.

        With `dev`, it is one that asks for no keys. It has no network, so that this machine's own stays as it is,
        unless it is started inside another machine's, or by somebody who cannot change it, by the words in `inside`.
        """
        log = Path(tempfile.mkstemp(prefix="msb-e2e-", suffix=".log")[1])
        before, cgroups_before = children(os.getpid()), cgroup_directories()
        network = [] if inside else ["--no-network"]
        flags = [*(["--dev"] if dev else []), *network, "--port", "0", "--home", home, *arguments]
        command = [*inside, programs / "msb", "server", "start", *flags]
        environment = clean_environment()
        if log_level:
            environment["MSB_LOG"] = log_level
        with log.open("w") as errors:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        line = _first_line(process)
        found = re.search(r"http://[0-9.]+:[0-9]+", line)
        if not found:
            process.kill()
            process.wait()
            raise AssertionError(f"the server did not say where it listens: {line!r}\n{log.read_text()}")
        return cls(home, process, found[0], log, before, cgroups_before)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, failure: object, *_: object) -> None:
        if failure is None:
            self.end()
        else:
            self.process.terminate()
            self.wait()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def note_cgroups(self) -> None:
        """Remember in which cgroups the sandboxes are, to look for them after the end."""
        self.cgroups |= cgroups_of(descendants(self.process.pid)) - cgroups_of({os.getpid()}) - self.cgroups_before

    def end(self, by: signal.Signals = signal.SIGTERM) -> None:
        """Ask the server to end, and check that it does so cleanly and leaves nothing behind."""
        self.note_cgroups()
        self.process.send_signal(by)
        self.wait()
        assert self.process.returncode == 0, f"exit status {self.process.returncode}\n{self.log.read_text()}"
        left = self.left_behind()
        assert not left, f"left behind: {left}\n{self.log.read_text()}"
        self.log.unlink()

    def kill(self) -> None:
        """Kill the server itself and nothing else."""
        self.note_cgroups()
        self.process.kill()
        self.wait()

    def wait(self) -> None:
        self.process.communicate(timeout=END_SECONDS)

    def left_behind(self) -> list[str]:
        """Return what is left of the server and its sandboxes on this host, in words."""
        own = {str(Path(path).parent) for path in self.cgroups} - self.cgroups_before
        own = {path for path in own if Path(path).name != "microsandbox"}  # shared with other servers
        return self.left_of_sandboxes() + [f"cgroup {path}" for path in sorted(own & cgroup_directories())]

    def left_of_sandboxes(self) -> list[str]:
        """Return what is left of the sandboxes that this server had, in words."""
        left = [f"process {pid}: {command_line(pid)}" for pid in children(os.getpid()) - self.before]
        home = str(self.home)
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        left += [f"mount {line}" for line in mounts if home in line]
        for name in ("sandboxes", "run"):
            if (self.home / name).is_dir():
                left += [f"file {entry}" for entry in (self.home / name).iterdir()]
        left += [f"cgroup {path}" for path in sorted(self.cgroups & cgroup_directories())]
        return left


def _first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    watchdog = threading.Timer(READY_SECONDS, process.kill)
    watchdog.start()
    try:
        return process.stdout.readline()
    finally:
        watchdog.cancel()
