# SPDX-License-Identifier: Apache-2.0
"""What sandboxes may write: each has its limit, and its neighbours and the host notice nothing."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from microsandbox import MicrosandboxError, PythonSandbox

from host import Server, descendants, need, need_everything

MIB = 1 << 20
# A few tree blocks of btrfs.
BLOCKS = 16 * 16 * 1024
VOLUME_MIB = 1024
# btrfs gives the space of removed subvolumes back every 30 seconds, and a device goes with what is mounted of it.
COLLECTED_SECONDS = 90
FULL = ("EDQUOT", "ENOSPC")

FILL = """
import errno, os
def fill(path):
    written = 0
    try:
        with open(path, "wb", buffering=0) as file:
            while True:
                written += file.write(bytes(1 << 16))
    except OSError as error:
        return errno.errorcode[error.errno], written
"""


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give a server that refuses to run without limits on disks."""
    need_everything()
    need(Path("/usr/sbin/mkfs.btrfs").exists(), "mkfs.btrfs is needed: Debian's package btrfs-progs")
    home = tmp_path_factory.mktemp("disk")
    server = Server.start(home, "--disk-store", "btrfs", "--disk-store-size", str(VOLUME_MIB))
    yield server
    server.end()
    assert not devices(home)


@pytest.fixture
async def small(limited: Server, name: str) -> AsyncIterator[PythonSandbox]:
    """Give a sandbox that may write 64 MiB."""
    async with PythonSandbox.create(limited.url, name=name, disk=64) as sandbox:
        yield sandbox


async def value(sandbox: PythonSandbox, code: str) -> str:
    execution = await sandbox.run(code)
    assert not execution.has_error(), await execution.error()
    return await execution.output()


async def used(sandbox: PythonSandbox) -> int:
    """Return the disk metric once the one before is too old to be told again."""
    await asyncio.sleep(2.1)
    disk = await sandbox.metrics.disk()
    assert disk is not None
    return disk


def devices(home: Path) -> list[str]:
    """Return the loop devices that have a file of a home behind them."""
    backing = Path("/sys/block").glob("loop*/loop/backing_file")
    return [path.parent.parent.name for path in backing if str(home) in path.read_text()]


def quota_groups(home: Path) -> set[str]:
    """Return the quota groups of the volume of a home that stand for a subvolume."""
    (device,) = devices(home)
    (groups,) = Path("/sys/fs/btrfs").glob(f"*/devices/{device}")
    names = {path.name for path in (groups.parent.parent / "qgroups").glob("0_*")}
    return names - {"0_5"}


async def until_none(left: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + COLLECTED_SECONDS
    while found := left():
        assert time.monotonic() < deadline, f"{what} left: {found}"
        await asyncio.sleep(0.5)


async def test_a_full_disk_ends_writes_and_nothing_else(limited: Server, small: PythonSandbox) -> None:
    async with PythonSandbox.create(limited.url, disk=64) as neighbour:
        await value(small, FILL)
        error, written = eval(await value(small, "fill('/root/big')"))
        assert error in FULL
        assert 62 * MIB <= written <= 64 * MIB
        assert written <= await used(small) <= 64 * MIB
        assert await value(neighbour, "open('/root/a', 'wb').write(bytes(40 << 20))") == str(40 * MIB)
        assert 40 * MIB <= await used(neighbour) <= 40 * MIB + BLOCKS
        assert await value(small, "os.unlink('/root/big'); 1 + 1") == "2"
        assert await used(small) <= MIB
        error, again = eval(await value(small, "fill('/tmp/again')"))
        assert error in FULL
        assert again >= 60 * MIB
    taken = (limited.home / "volume.btrfs").stat().st_blocks * 512
    assert taken <= VOLUME_MIB * MIB


async def test_installing_and_removing_files_is_counted_to_the_block(small: PythonSandbox) -> None:
    before = await used(small)
    for mib in (1, 7):
        await value(small, f"open('/root/f', 'wb').write(bytes({mib} << 20)); None")
        assert mib * MIB <= await used(small) - before <= mib * MIB + BLOCKS
    await value(small, "import os; os.unlink('/root/f')")
    assert abs(await used(small) - before) <= BLOCKS


async def test_inodes_end_too_and_a_neighbour_goes_on(limited: Server, name: str) -> None:
    async with (
        PythonSandbox.create(limited.url, name=name, disk=16) as hog,
        PythonSandbox.create(limited.url, disk=64) as neighbour,
    ):
        await value(hog, FILL + "open('/root/most', 'wb').write(bytes(13 << 20)); os.sync()")
        code = (
            "os.mkdir('/root/d')\ncount = 0\ntry:\n  while count < 1_000_000:\n"
            "    os.close(os.open(f'/root/d/{count:0200}', os.O_CREAT)); count += 1\n"
            "except OSError as error: print(errno.errorcode[error.errno], count)"
        )
        idle = await median_seconds(neighbour)
        filling = asyncio.create_task(value(hog, code))
        busy = await median_seconds(neighbour)
        error, count = (await filling).split()
        assert error in FULL
        assert 100 < int(count) < 50_000
        assert busy <= max(10 * idle, 0.25), f"{busy} beside {idle} when nobody writes"
        assert await value(neighbour, "open('/root/f', 'w').write('x')") == "1"


async def median_seconds(sandbox: PythonSandbox) -> float:
    taken: list[float] = []
    for _ in range(40):
        began = time.perf_counter()
        assert await value(sandbox, "1") == "1"
        taken.append(time.perf_counter() - began)
    return sorted(taken)[len(taken) // 2]


async def test_a_crowd_of_writers_and_syncers_has_one_limit(small: PythonSandbox) -> None:
    code = """
import os
for n in range(60):
    if os.fork() == 0:
        try:
            file = os.open(f"/root/{n}", os.O_CREAT | os.O_WRONLY)
            while True:
                os.write(file, bytes(50_000))
                os.fsync(file)
                os.sync()
        finally:
            os._exit(0)
for n in range(60):
    os.wait()
sum(entry.stat().st_size for entry in os.scandir("/root") if entry.name.isdecimal())
"""
    total = int(await value(small, code))
    assert 50 * MIB <= total <= 64 * MIB
    assert await used(small) <= 64 * MIB


@pytest.mark.parametrize("disk", [0, 1, 15, VOLUME_MIB + 1, 10**8, -1, 2.5, "64"])
async def test_what_no_disk_can_be_is_refused(limited: Server, disk: int) -> None:
    with pytest.raises(MicrosandboxError, match=r"'config\.disk' parameter: it must be .*from 16 to"):
        await PythonSandbox(limited.url).start(disk=disk)


async def test_many_sandboxes_come_and_go_and_nothing_is_left(limited: Server) -> None:
    began = quota_groups(limited.home)

    async def cycles(count: int) -> None:
        for _ in range(count):
            async with PythonSandbox.create(limited.url) as sandbox:
                await value(sandbox, "open('/root/f', 'wb').write(bytes(100_000))")

    await asyncio.gather(*(cycles(50) for _ in range(4)))
    assert len(devices(limited.home)) == 1
    await until_none(lambda: quota_groups(limited.home) - began, "quota groups")


async def test_a_killed_server_leaves_no_device_and_the_next_one_goes_on(tmp_path: Path) -> None:
    need_everything()
    home = tmp_path / "home"
    server = Server.start(home, "--disk-store", "btrfs", "--disk-store-size", str(VOLUME_MIB))
    sandbox = PythonSandbox(server.url)
    await sandbox.start()
    await value(sandbox, "open('/root/f', 'wb').write(bytes(10_000_000))")
    agents = descendants(server.process.pid)
    server.kill()
    # What the dead server's sandbox holds is found again, and removed.
    server = Server.start(home, "--disk-store", "btrfs", "--disk-store-size", str(VOLUME_MIB))
    assert not [pid for pid in agents if Path(f"/proc/{pid}").exists() and pid in descendants(os.getpid())]
    assert len(devices(home)) == 1
    await until_none(lambda: quota_groups(home), "quota groups")
    async with PythonSandbox.create(server.url) as again:
        assert await value(again, "import os; os.path.exists('/root/f')") == "False"
    server.kill()
    await until_none(lambda: devices(home), "devices")
    Server.start(home).end()
    await until_none(lambda: devices(home), "devices")
    with pytest.raises(MicrosandboxError):
        await sandbox.stop()


async def test_a_host_without_a_volume_says_so_and_works(tmp_path: Path) -> None:
    need_everything()
    server = Server.start(tmp_path / "home", "--disk-store", "plain")
    log = server.log.read_text()
    assert "no limit on what a sandbox writes" in log
    assert "--disk-store auto" in log
    async with PythonSandbox.create(server.url, disk=16) as sandbox:
        await value(sandbox, "open('/root/f', 'wb').write(bytes(20 << 20))")
        assert 20 * MIB <= await used(sandbox) <= 21 * MIB
    assert not devices(tmp_path)
    server.end()
