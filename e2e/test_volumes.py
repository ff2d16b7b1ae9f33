# SPDX-License-Identifier: Apache-2.0
"""Directories of the host in sandboxes: only those that the operator allows, and never more of them."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from microsandbox import MicrosandboxError, PythonSandbox

from host import Server, need_everything

# Somebody of the host who is not root.
OWNER = 4711


@dataclass
class Shared:
    """A server and the directories that it allows."""

    server: Server
    data: Path
    archive: Path


@pytest.fixture(scope="module")
def shared(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """Give a server of its own; the one of the whole run starts before it, so that it is not taken for its leavings."""
    need_everything()
    base = tmp_path_factory.mktemp("shared")
    data, archive = base / "data", base / "archive"
    for directory in (data, data / "sub", archive):
        directory.mkdir()
        (directory / "file").write_text(f"in {directory.name}")
        os.chown(directory / "file", OWNER, OWNER)
        os.chown(directory, OWNER, OWNER)
    (data / "out").symlink_to("/etc")
    (data / "near").symlink_to("sub")
    (base / "secret").mkdir()
    arguments = ("--allow-volume", str(data), "--allow-volume", f"{archive}:ro")
    server = Server.start(tmp_path_factory.mktemp("home"), *arguments)
    yield Shared(server, data, archive)
    server.end()


async def value(sandbox: PythonSandbox, code: str) -> str:
    execution = await sandbox.run(code)
    assert not execution.has_error(), await execution.error()
    return await execution.output()


async def test_a_volume_is_read_only_unless_it_is_said(shared: Shared) -> None:
    volumes = [f"{shared.data}/near:/mnt/sub", f"{shared.archive}:/archive:ro"]
    async with PythonSandbox.create(shared.server.url, volumes=volumes) as sandbox:
        assert await value(sandbox, "print(open('/mnt/sub/file').read())") == "in sub"
        assert await value(sandbox, "print(open('/archive/file').read())") == "in archive"
        for code in ("open('/mnt/sub/new', 'w')", "__import__('os').remove('/archive/file')"):
            execution = await sandbox.run(code)
            assert "Read-only file system" in await execution.error()


async def test_what_is_written_is_the_owners_and_is_there_for_the_next(shared: Shared) -> None:
    volumes = [f"{shared.data}:/data:rw"]
    async with PythonSandbox.create(shared.server.url, volumes=volumes) as sandbox:
        await value(sandbox, "import os\nos.makedirs('/data/made/deep')\nopen('/data/made/x', 'w').write('kept')")
        assert await value(sandbox, "os.stat('/data/made/x').st_uid") == "0"
    for made in ("made", "made/deep", "made/x"):
        status = (shared.data / made).stat()
        assert (status.st_uid, status.st_gid) == (OWNER, OWNER)
    async with PythonSandbox.create(shared.server.url, volumes=volumes) as sandbox:
        assert await value(sandbox, "print(open('/data/made/x').read())") == "kept"


async def test_links_inside_a_volume_lead_to_the_sandboxs_own_files(shared: Shared) -> None:
    async with PythonSandbox.create(shared.server.url, volumes=[f"{shared.data}:/data"]) as sandbox:
        code = "print(open('/data/out/hostname').read())"
        assert await value(sandbox, code) == await value(sandbox, "print(open('/etc/hostname').read())")


REFUSED = [
    ("/etc:/data", "not below a directory"),
    ("{data}/../secret:/data", "not of the form"),
    ("{base}/secret:/data", "not below a directory"),
    ("{data}/out:/data", "not below a directory"),
    ("{data}/none:/data", "there is no directory"),
    ("{data}/file:/data", "there is no directory"),
    ("{data}", "not of the form"),
    ("{data}:data", "not of the form"),
    ("{data}:/data:wo", "not of the form"),
    ("{data}:/", "a place inside"),
    ("{data}:/proc", "a place inside"),
    ("{data}:/sys/kernel", "a place inside"),
    ("{data}:/dev/shm", "a place inside"),
    ("{archive}:/data:rw", "can only be read"),
    ("{data}/roots:/data:rw", "belongs to root"),
]


@pytest.mark.parametrize(("volume", "why"), REFUSED)
async def test_what_is_not_allowed_is_refused(shared: Shared, volume: str, why: str) -> None:
    (shared.data / "roots").mkdir(exist_ok=True)
    text = volume.format(data=shared.data, archive=shared.archive, base=shared.data.parent)
    sandbox = PythonSandbox(shared.server.url)
    with pytest.raises(MicrosandboxError, match=r"'config\.volumes' parameter: ") as refused:
        await sandbox.start(volumes=[text])
    assert why in str(refused.value)
    assert refused.value.code == 2001


async def test_two_volumes_in_one_place_are_refused_and_so_is_a_string(shared: Shared) -> None:
    with pytest.raises(MicrosandboxError, match="in each other's way"):
        await PythonSandbox(shared.server.url).start(
            volumes=[f"{shared.data}:/data", f"{shared.archive}:/data/archive"]
        )
    with pytest.raises(ValueError, match="must be a list"):
        await PythonSandbox(shared.server.url).start(volumes=f"{shared.data}:/data")


async def test_without_a_word_of_the_operator_there_are_none(server: Server, shared: Shared) -> None:
    with pytest.raises(MicrosandboxError, match="--allow-volume"):
        await PythonSandbox(server.url).start(volumes=[f"{shared.data}:/data"])


async def test_a_directory_that_is_exchanged_for_a_link_never_leads_out(shared: Shared) -> None:
    swapped, link = shared.data / "swapped", shared.data / "link"
    swapped.mkdir()
    (swapped / "mark").write_text("mine")
    link.symlink_to("/etc")
    stop = threading.Event()

    def swap() -> None:
        aside = shared.data / "aside"
        while not stop.is_set():
            swapped.rename(aside)
            link.rename(swapped)
            swapped.rename(link)
            aside.rename(swapped)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(15):
            sandbox = PythonSandbox(shared.server.url)
            try:
                await sandbox.start(volumes=[f"{swapped}:/data"])
            except MicrosandboxError:
                continue
            assert await value(sandbox, "import os; print(os.listdir('/data'))") == "['mark']"
            await sandbox.stop()
    finally:
        stop.set()
        await asyncio.to_thread(thread.join)
