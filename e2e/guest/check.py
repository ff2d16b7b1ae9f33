# SPDX-License-Identifier: Apache-2.0
"""What must hold on a host with cgroups of version 2 alone and an older kernel; runs as root in an emulated machine.

It needs nothing but Python, and prints its counts as pytest does. The machine is slow: bounds here say that a limit is
there at all, and how exact it is is tested elsewhere.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

TREE = Path("/sys/fs/cgroup")
HOME = Path("/checks/home")
LOG = Path("/checks/server.log")
# A cgroup as systemd hands it to a service with Delegate=yes.
SERVICE = TREE / "service"
READY_SECONDS = 60
ANSWER_SECONDS = 120
IMAGE = "microsandbox/python"
# What this machine has no file system or scheduler for; every other protection works on its kernel.
MAY_BE_OFF = {"disk_limit", "inode_limit", "io_weight"}

FORKS = """
import os, signal
children = []
try:
    while len(children) < 500:
        pid = os.fork()
        if pid == 0:
            signal.pause()
            os._exit(0)
        children.append(pid)
except OSError as error:
    print(type(error).__name__, end=' ')
print(len(children))
for pid in children:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""
BURN = """
import os, time
end = time.monotonic() + 6
for _ in range(2):
    if os.fork() == 0:
        while time.monotonic() < end: pass
        os._exit(0)
for _ in range(2): os.wait()
"""
INSIDE = """
import os, resource
status = dict(line.split(':\\t', 1) for line in open('/proc/self/status').read().splitlines() if ':\\t' in line)
print(open('/proc/self/cgroup').read().strip(), status['Seccomp'], status['NoNewPrivs'],
      open('/proc/self/uid_map').read().split()[1] != '0', resource.getrlimit(resource.RLIMIT_NOFILE)[1],
      os.statvfs('/dev/shm').f_blocks * os.statvfs('/dev/shm').f_frsize >> 20)
"""
SHM_FILL = """
import errno
try:
    with open('/dev/shm/fill', 'wb') as file:
        for _ in range(64): file.write(bytes(1 << 20))
except OSError as error:
    print(errno.errorcode[error.errno])
"""


class Server:
    """One server, and what is asked of it."""

    def __init__(self, group: Path | None = None) -> None:
        command = ["/checks/msb", "server", "start", "--dev", "--port", "0", "--home", str(HOME)]
        command = command if group is None else inside(group, command)
        with LOG.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "listening on" in line, f"the server said {line!r}: {LOG.read_text()[-2000:]}"
        self.url = line.split()[-1]

    def call(self, method: str, **params: object) -> dict[str, object]:
        """Make one call; the answer is the result, or has a key `error`."""
        body = {"jsonrpc": "2.0", "id": "1", "method": method, "params": {"namespace": "default", **params}}
        request = urllib.request.Request(
            f"{self.url}/api/v1/rpc", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
                result = json.load(answer)["result"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method}: {error.read().decode()}; {LOG.read_text()[-1000:]}") from None
        return result if isinstance(result, dict) else {"text": result}

    def start(self, name: str, **config: object) -> Path:
        """Start a sandbox and return its cgroup."""
        before = set(groups())
        self.call("sandbox.start", sandbox=name, config={"image": IMAGE, **config})
        (new,) = set(groups()) - before
        return new

    def stop(self, name: str) -> None:
        self.call("sandbox.stop", sandbox=name)

    def run(self, name: str, code: str) -> tuple[str, str]:
        """Run code; return its status and output."""
        result = self.call("sandbox.repl.run", sandbox=name, language="python", code=code)
        lines = result["output"]
        assert isinstance(lines, list)
        return str(result["status"]), "\n".join(line["text"] for line in lines).strip()

    def end(self) -> None:
        """Ask the server to end; it must do so well."""
        self.process.terminate()
        assert self.process.wait(ANSWER_SECONDS) == 0


def groups() -> list[Path]:
    """List the cgroups of sandboxes, wherever in the tree."""
    return [path for path in TREE.glob("**/microsandbox/*/*") if path.is_dir()]


def inside(group: Path, command: list[str]) -> list[str]:
    """Return a command that enters a cgroup first."""
    return ["sh", "-c", 'echo 0 > "$0/cgroup.procs" && exec "$@"', str(group), *command]


def read(group: Path, file: str) -> str:
    return (group / file).read_text().strip()


def cpu_seconds(group: Path) -> float:
    return int(read(group, "cpu.stat").split()[1]) / 1e6


@contextmanager
def sandbox(server: Server, name: str, **config: object) -> Iterator[Path]:
    """Give a sandbox, and check that nothing of it is left in the tree."""
    group = server.start(name, **config)
    yield group
    server.stop(name)
    assert groups() == [], "stopping removes every cgroup"


def check_limits_and_walls(server: Server) -> None:
    """Everything about one sandbox: each start of an interpreter takes seconds here."""
    config = {"memory": 96, "cpu_millis": 250, "pids": 40, "open_files": 700, "shm": 8, "io_weight": 50}
    with sandbox(server, "limited", **config) as group:
        found = {
            file: read(group, file)
            for file in ("memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cpu.weight")
            if (group / file).exists()
        }
        expected = {"memory.max": str(96 << 20), "memory.oom.group": "0", "pids.max": "40", "cpu.weight": "25"}
        assert found == {**expected, "memory.swap.max": "0"}, found
        assert read(group / "programs", "cpu.max") == "25000 100000"
        agent = read(group, "cgroup.threads").split()
        assert len(agent) >= 1, "the agent is beside the limit on processor time"

        wall = server.call("sandbox.get", sandbox="limited")["isolation"]
        assert isinstance(wall, dict)
        off = {part["name"]: part["why"] for part in wall["protections"] if not part["on"]}
        assert set(off) <= MAY_BE_OFF, off

        assert server.run("limited", INSIDE) == ("success", "0::/programs 2 1 True 700 8")
        assert not set(agent) & set(read(group / "programs", "cgroup.threads").split())

        status, said = server.run("limited", FORKS)
        assert status == "success", said
        error, count = said.split()
        assert error == "BlockingIOError", said
        assert 5 <= int(count) < 40, said

        before, began = cpu_seconds(group), time.monotonic()
        assert server.run("limited", BURN)[0] == "success"
        share = (cpu_seconds(group) - before) / (time.monotonic() - began)
        print(f"guest: a quarter of a processor was {share:.2f}")
        assert 0.1 < share < 0.45

        assert server.run("limited", SHM_FILL) == ("success", "ENOSPC")
        assert int(read(group, "memory.current")) > 8 << 20, "what is in /dev/shm is memory"

        status, said = server.run("limited", "block = b'x' * (300 << 20)")
        assert (status, "96 MiB" in said) == ("out_of_memory", True), said
        kills = dict(line.split() for line in read(group, "memory.events").splitlines())
        assert int(kills["oom_kill"]) >= 1, kills
        assert server.run("limited", "print('next')") == ("success", "next")
        (metrics,) = server.call("sandbox.metrics.get")["sandboxes"]  # type: ignore[misc]
        assert 1 <= metrics["memory_usage"] <= 96, metrics


def check_host_without_fair_disks(server: Server) -> None:
    """Of all limits only the share of the disk is off, for the reason there is."""
    assert server.process.poll() is None
    warnings = [line for line in LOG.read_text().splitlines() if "does not hold a limit" in line]
    assert len(warnings) == 1, warnings
    assert "io_weight" in warnings[0], warnings
    assert "bfq" in warnings[0], warnings


def check_killed_server_leaves_nothing(server: Server) -> None:
    """What a killed server left is removed by the next one."""
    group = server.start("left", pids=64)
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    assert group.exists()
    assert read(group, "cgroup.procs") or read(group, "cgroup.events")
    following = Server()
    assert not group.exists()
    assert groups() == []
    following.end()
    assert not (TREE / "microsandbox").exists(), "the last server takes its own cgroup away"


def check_delegated_service() -> None:
    """A server in a delegated cgroup stays below it, and moves its processes out of the way."""
    for disk in Path("/sys/block").glob("vd*"):
        (disk / "queue/scheduler").write_text("bfq")
    (TREE / "cgroup.subtree_control").write_text("+memory +cpu +pids +io")
    SERVICE.mkdir()
    os.setxattr(SERVICE, "trusted.delegate", b"1")
    LOG.write_text("")
    waiting = inside(SERVICE, ["sh", "-c", "echo there; exec sleep 1000"])
    neighbour = subprocess.Popen(waiting, stdout=subprocess.PIPE, text=True)
    assert neighbour.stdout is not None
    assert neighbour.stdout.readline() == "there\n"
    server = Server(SERVICE)
    assert "does not hold a limit" not in LOG.read_text(), LOG.read_text()
    with sandbox(server, "delegated", io_weight=50) as group:
        assert SERVICE in group.parents
        assert read(group, "io.bfq.weight").split()[-1] == "50"
        members = set(read(SERVICE / "microsandbox-server", "cgroup.procs").split())
        assert {str(server.process.pid), str(neighbour.pid)} <= members
        assert read(SERVICE, "cgroup.procs") == ""
        assert server.run("delegated", "print(6 * 7)") == ("success", "42")
    server.end()
    assert not (SERVICE / "microsandbox").exists()
    neighbour.kill()
    neighbour.wait()


def main() -> None:
    began, failed = time.monotonic(), 0
    print(f"guest: Linux {os.uname().release}, controllers {read(TREE, 'cgroup.controllers')}", flush=True)
    server = Server()
    checks: list[tuple[str, Callable[[], None]]] = [
        ("host_without_fair_disks", lambda: check_host_without_fair_disks(server)),
        ("limits_and_walls", lambda: check_limits_and_walls(server)),
        ("killed_server_leaves_nothing", lambda: check_killed_server_leaves_nothing(server)),
        ("delegated_service", check_delegated_service),
    ]
    for name, check in checks:
        since = time.monotonic()
        try:
            check()
            verdict = "PASSED"
        except Exception:  # noqa: BLE001 (the other checks are run all the same)
            traceback.print_exc()
            failed += 1
            verdict = "FAILED"
        print(f"guest: {verdict} {name} in {time.monotonic() - since:.1f}s", flush=True)
    # On a line of its own, whatever the kernel may have printed.
    print(f"\n=== {len(checks) - failed} passed, {failed} failed in {time.monotonic() - began:.1f}s ===", flush=True)


main()
