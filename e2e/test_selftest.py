# SPDX-License-Identifier: Apache-2.0
"""`msb selftest`: the walls withstand the attack list, and the list can tell when they do not."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from host import PROGRAMS, clean_environment, need_everything

# How long the whole list may take, in seconds.
LIST_SECONDS = 600

# Why a line may say nothing on a host.
REASONS = ("this kernel does not have the call", "this host has no ", "this server ")
# Lines that need something of the host that has no other sign: the control's answer is the reason.
DEPENDS = {
    "write-max-user-namespaces": "needs CAP_SYS_RESOURCE outside",
    "oom-score": "needs CAP_SYS_RESOURCE outside",
    "list-acpi": "is empty in virtual machines without ACPI",
    "descriptors": "needs a larger limit outside than inside",
    "io-uring-setup": "can be switched off for everybody",
}

# Without these, most of the list would say nothing: their controls work on every kernel that sandboxes run on.
ALWAYS = {
    "mount-tmpfs",
    "fsmount-whole",
    "unshare-user",
    "clone-user",
    "clone3-user",
    "setns-pidfd",
    "setns-passed",
    "ptrace-seize",
    "process-vm-readv",
    "agent-mem-read",
    "agent-environ",
    "bpf-map",
    "tiocsti-high-bits",
    "sched-fifo",
    "packet-raw",
    "netlink-generic",
    "mknod-c-mem",
    "write-core-pattern",
    "workdir-fd-3",
    "image-proc-host",
    "swap",
    "neighbour-file",
    "neighbour-segment",
    "predecessor-abstract",
    "forks",
    "memory-own",
    "bomb-forks",
    "bomb-daemons",
    "outlive",
}

# Stands in the place of msb-jail: carries out a plan from which walls were taken out.
WEAK_JAIL = """#!/usr/bin/python3
import json, os, sys
if len(sys.argv) == 1:
    plan = json.load(sys.stdin)
    plan.update({changes!r})
    text = os.memfd_create("plan")
    os.write(text, json.dumps(plan).encode())
    os.lseek(text, 0, os.SEEK_SET)
    os.dup2(text, 0)
os.execv({jail!r}, ["msb-jail", *sys.argv[1:]])
"""
# One instruction of classic BPF: allow.
ALLOW_ALL = [[6, 0, 0, 0x7FFF0000]]


@dataclass
class Outcome:
    """What a self-test said."""

    code: int
    output: str
    errors: str

    @property
    def report(self) -> dict[str, Any]:
        return json.loads(self.output)

    def lines(self, verdict: str) -> dict[str, dict[str, Any]]:
        return {line["id"]: line for line in self.report["lines"] if line["verdict"] == verdict}


def selftest(home: Path, *arguments: str, programs: Path = PROGRAMS) -> Outcome:
    command = [programs / "msb", "selftest", "--home", home, *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env=clean_environment(), timeout=LIST_SECONDS, check=False
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def weakened(folder: Path, **changes: object) -> Path:
    """Return a folder of programs whose msb-jail leaves walls out."""
    folder.mkdir()
    for name in ("msb", "msb-agent", "msb-probe"):
        (folder / name).write_bytes((PROGRAMS / name).read_bytes())
        (folder / name).chmod(0o755)
    jail = folder / "msb-jail"
    jail.write_text(WEAK_JAIL.format(changes=changes, jail=str(PROGRAMS / "msb-jail")))
    jail.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Give the outcome of the whole list."""
    need_everything()
    home = tmp_path_factory.mktemp("selftest")
    tested = selftest(home, "--json")
    assert tested.code in (0, 1), tested.errors
    assert list(home.iterdir()) == [], "what was made for the test is gone"
    return tested


def test_the_walls_withstand_the_attack_list(whole: Outcome) -> None:
    failed = {name: line["why"] for name, line in whole.lines("fail").items()}
    assert failed == {}


def test_what_says_nothing_here_has_an_allowed_reason(whole: Outcome) -> None:
    silent = {name: line["why"] for name, line in whole.lines("not-applicable").items()}
    odd = {name: why for name, why in silent.items() if not why.startswith(REASONS) and name not in DEPENDS}
    assert odd == {}
    assert ALWAYS & set(silent) == set()
    assert set(whole.lines("pass")) >= ALWAYS


def test_the_report_says_what_was_asked_and_what_came_back(whole: Outcome) -> None:
    report = whole.report
    lines = report["lines"]
    assert report["passed"] + report["failed"] + report["not_applicable"] == len(lines) > 400
    assert report["passed"] > 250
    assert whole.code == (1 if report["failed"] else 0)
    mount = next(line for line in lines if line["id"] == "mount-tmpfs")
    assert mount == {
        "id": "mount-tmpfs",
        "group": "mounts",
        "tries": "mounts a tmpfs",
        "verdict": "pass",
        "wanted": "EPERM",
        "answer": "EPERM",
        "control": "done (0)",
    }
    groups = {line["group"] for line in lines}
    looks = {line["id"] for line in lines if line["id"].startswith("after-")}
    assert looks == {f"after-{group}-{what}" for group in groups for what in ("server", "neighbour", "host")}


def test_people_get_a_table_and_a_sum(tmp_path: Path) -> None:
    need_everything()
    tested = selftest(tmp_path, "--group", "namespaces")
    assert tested.code == 0, tested.output + tested.errors
    assert re.search(r"^  pass  unshare-user +makes a user namespace by unshare$", tested.output, re.MULTILINE)
    assert re.search(r"^\d+ passed, 0 failed, \d+ not applicable, in \d+ s on Linux ", tested.output, re.MULTILINE)
    assert "mount-tmpfs" not in tested.output


def test_an_unknown_part_of_the_list_is_named_with_the_known_ones(tmp_path: Path) -> None:
    tested = selftest(tmp_path, "--group", "everything")
    assert tested.code == 2
    assert "mounts, namespaces, agent" in tested.errors


# The list can fail


def test_without_a_filter_the_list_fails_and_the_host_stays_as_it_is(tmp_path: Path) -> None:
    need_everything()
    programs = weakened(tmp_path / "programs", seccomp=ALLOW_ALL)
    home = tmp_path / "home"
    groups = ["namespaces", "agent", "kernel", "other-entries", "sockets"]
    tested = selftest(home, "--json", *(word for group in groups for word in ("--group", group)), programs=programs)
    assert tested.code == 1
    failed = tested.lines("fail")
    assert {"unshare-user", "clone-user", "clone3-user", "setns-own-user"} <= set(failed)
    assert {"add-key", "keyctl", "personality-addresses", "netlink-generic"} <= set(failed)
    assert {"add-key-i386", "unshare-user-i386"} <= set(failed)
    assert failed["unshare-user"]["answer"] == "done (0)"
    # What other walls hold is held without the filter too.
    assert {"agent-mem-read", "packet-raw", "raw-icmp"} & set(failed) == set()
    looks = {name: line for name, line in failed.items() if name.startswith("after-")}
    assert looks == {}


def test_with_capabilities_and_without_filter_and_landlock_mounting_is_noticed(tmp_path: Path) -> None:
    need_everything()
    programs = weakened(tmp_path / "programs", seccomp=ALLOW_ALL, landlock=False, capabilities=list(range(41)))
    tested = selftest(tmp_path / "home", "--json", "--group", "mounts", programs=programs)
    assert tested.code == 1
    failed = tested.lines("fail")
    assert {"mount-tmpfs", "mount-bind", "fsmount-whole", "chroot", "pivot-root"} <= set(failed)
    assert failed["mount-tmpfs"]["answer"] == "done (0)"
    assert "after-mounts-host" not in failed


def test_without_covers_the_kernels_files_are_noticed(tmp_path: Path) -> None:
    need_everything()
    programs = weakened(tmp_path / "programs", masked=[], read_only=[])
    tested = selftest(tmp_path / "home", "--json", "--group", "proc-and-sys", programs=programs)
    assert tested.code == 1
    assert {"read-kallsyms", "read-keys", "list-sys-kernel"} & set(tested.lines("fail"))
