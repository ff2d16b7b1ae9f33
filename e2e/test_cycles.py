# SPDX-License-Identifier: Apache-2.0
"""Starts and stops leave nothing behind: the benchmark of cycles, in short, and that it would see what is left."""

from __future__ import annotations

import shutil
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from bench_cycles import IMAGE, Watched, bench
from host import Server, need, need_everything
from kept import Kept
from machines import own_machine

COUNT = 200
CLIENTS = 4
# What a sandbox has on its host while it runs.
HAS = {"processes", "cgroups", "interfaces", "files", "descriptors"}

# The common server runs before these, so that neither is a leftover.
pytestmark = pytest.mark.usefixtures("server")


@pytest.fixture(autouse=True)
def needs() -> None:
    need_everything()
    for program in ("nft", "ip"):
        need(shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin"), f"{program} is needed")


def test_starts_and_stops_leave_nothing(tmp_path: Path) -> None:
    found = bench(tmp_path, COUNT, [f"cycle-of-{client}" for client in range(CLIENTS)])
    assert found["left"] == {}
    assert found["last"]["cycles"] == COUNT
    assert found["reached"]


def test_what_is_left_would_be_seen(tmp_path: Path) -> None:
    with own_machine(tmp_path) as machine, Server.start(tmp_path / "home", inside=machine.inside) as server:
        watched = Watched(server)
        with closing(Kept(server.url)) as call:
            call.call("sandbox.start", sandbox="left", config={"image": IMAGE})
            watched.note_cgroups()
            there = watched.traces()
            call.call("sandbox.stop", sandbox="left")
        after = watched.traces()
        assert {what for what in there if Counter(there[what]) - Counter(after[what])} >= HAS
