# SPDX-License-Identifier: Apache-2.0
"""A machine of the test's own, as far as its network goes, and an internet that it is connected with.

The thread of the test itself moves into the machine's network namespace: so the server that it starts lives there, and
the SDK reaches it on that machine's loopback interface. Nothing of the real machine's network is touched.
"""

from __future__ import annotations

import ctypes
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

# How long the internet may take to be ready, or to tell what reached it, in seconds.
INTERNET_SECONDS = 20

# The machine's own addresses: one on the internet, one in a house, one of a bridge as Docker makes it.
OWN_ADDRESSES = ("185.5.5.5", "192.168.7.7", "172.17.0.1")
NAME_SERVER = "81.2.69.53"


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@dataclass
class Machine:
    """The machine, with its internet."""

    internet: subprocess.Popen[str]
    resolv_conf: Path
    reached: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)
    reader: threading.Thread | None = None

    @property
    def inside(self) -> list[str]:
        """Words before a command that give it this machine's name server."""
        script = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", script, str(self.resolv_conf)]

    def what_reached_the_internet(self) -> list[str]:
        """Return what reached it since the last question."""
        found: list[str] = []
        with suppress(queue.Empty):
            while True:
                found.append(self.reached.get_nowait())
        return found

    def end(self) -> None:
        if self.reader:
            self.reader.join()

    def ruleset(self) -> str:
        return run("nft", "list", "ruleset")

    def interfaces(self) -> list[str]:
        return [line.split(":")[1].strip().split("@")[0] for line in run("ip", "-o", "link").splitlines()]


@contextmanager
def own_machine(folder: Path) -> Iterator[Machine]:
    """Move this thread into a machine of its own, and back again at the end."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    program = Path(__file__).parent / "internet.py"
    internet = subprocess.Popen(
        ["unshare", "--net", sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    resolv_conf = folder / "resolv.conf"
    resolv_conf.write_text(f"nameserver {NAME_SERVER}\n")
    machine: Machine | None = None
    try:
        _check(_libc.unshare(_CLONE_NEWNET))
        machine = Machine(internet, resolv_conf)
        _connect(machine)
        yield machine
    finally:
        _check(_libc.setns(home, _CLONE_NEWNET))
        os.close(home)
        internet.kill()
        internet.wait()
        if machine:
            machine.end()
        for pipe in (internet.stdin, internet.stdout):
            assert pipe
            pipe.close()


def _connect(machine: Machine) -> None:
    internet = machine.internet
    assert internet.stdin
    assert internet.stdout
    here = os.readlink("/proc/thread-self/ns/net")
    # `unshare` executes the program once it is in its namespace.
    waited = threading.Event()
    while os.readlink(f"/proc/{internet.pid}/ns/net") == here or "python" not in _name(internet.pid):
        assert internet.poll() is None
        waited.wait(0.01)
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "host0", "type", "veth", "peer", "name", "net0", "netns", str(internet.pid))
    for address in OWN_ADDRESSES:
        run("ip", "addr", "add", f"{address}/24", "dev", "host0")
    run("ip", "link", "set", "host0", "up")
    run("ip", "route", "add", "default", "via", "185.5.5.1", "src", OWN_ADDRESSES[0])
    internet.stdin.write("\n")
    internet.stdin.flush()
    ready = threading.Event()

    def read() -> None:
        for line in internet.stdout or ():
            if line == "ready\n":
                ready.set()
            else:
                machine.reached.put(line.rstrip("\n"))

    machine.reader = threading.Thread(target=read, daemon=True)
    machine.reader.start()
    assert ready.wait(INTERNET_SECONDS)


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text()
