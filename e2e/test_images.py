# SPDX-License-Identifier: Apache-2.0
"""A plain root directory as an image: used where the operator allows it, unchanged afterwards, refused elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from microsandbox import PythonSandbox

from conftest import Wire
from host import PROGRAMS, Server

TOOLS = ("sh", "cat", "ls", "id")


def make_rootfs(root: Path) -> None:
    """Make a root directory with a shell and a few tools, and nothing else of this host."""
    (root / "bin").mkdir(parents=True)
    root.joinpath("motd").write_text("made for the test\n")
    for tool in TOOLS:
        program = Path(shutil.which(tool, path="/usr/bin:/bin") or "")
        shutil.copy(program, root / "bin" / tool)
        listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        for library in re.findall(r"(/\S+) \(0x", listed):
            target = root / library.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, target)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give an allowed directory with one rootfs in it, and one that is not allowed beside it."""
    base = tmp_path_factory.mktemp("images")
    make_rootfs(base / "allowed" / "small")
    make_rootfs(base / "secret")
    (base / "allowed" / "out").symlink_to(base / "secret")
    return base


@pytest.fixture(scope="module")
def rootfs_server(server: Server, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give a server that allows the directory; the common one runs before it, so that neither is a leftover."""
    assert server.url
    own = Server.start(tmp_path_factory.mktemp("home"), "--allow-rootfs", str(images / "allowed"))
    yield own
    own.end()


async def test_an_allowed_directory_is_an_image(rootfs_server: Server, images: Path) -> None:
    image = images / "allowed" / "small"
    async with PythonSandbox.create(server_url=rootfs_server.url, image=str(image)) as sandbox:
        result = await sandbox.command.run("sh", ["-c", "cat /motd; id -u; ls /; echo x > /motd; cat /motd"])
        output = await result.output()
        assert output.startswith("made for the test\n0\n"), await result.error()
        assert {"bin", "dev", "etc", "proc", "sys"} <= set(output.split())
        assert output.endswith("\nx")
        assert "usr" in output.split() or not (image / "usr").exists()
    assert (image / "motd").read_text() == "made for the test\n"
    assert not (image / "etc").exists(), "what the sandbox has of its own is not written into the image"


async def test_a_language_that_the_image_lacks_is_named(rootfs_server: Server, images: Path) -> None:
    image = str(images / "allowed" / "small")
    async with PythonSandbox.create(server_url=rootfs_server.url, image=image) as sandbox:
        with pytest.raises(RuntimeError, match="python3"):
            await sandbox.run("1")
        assert (await sandbox.command.run("cat", ["/motd"])).success


async def test_a_working_directory_that_the_image_lacks_is_made(
    rootfs_server: Server, images: Path, wire: Wire, name: str
) -> None:
    image = images / "allowed" / "small"
    own = Wire(rootfs_server.url, wire.session)
    config = {"image": str(image), "workdir": "/made/for/me"}
    await own.result("sandbox.start", sandbox=name, config=config)
    result = await own.result("sandbox.command.run", sandbox=name, command="sh", args=["-c", "pwd; ls -ldn ."])
    first, second = (line["text"] for line in result["output"])
    assert first == "/made/for/me"
    # Not the count of links, which file systems make up as they like.
    mode, _, *owner = second.split()[:4]
    assert (mode, owner) == ("drwxr-xr-x", ["0", "0"]), second
    await own.result("sandbox.stop", sandbox=name)
    assert not (image / "made").exists()
    answer = await own.call(
        "sandbox.start", {"sandbox": name, "namespace": "default", "config": {**config, "workdir": "/motd/x"}}
    )
    assert answer.status == 500
    assert "/motd/x" in answer.text
    assert "a file is in the way" in answer.text


async def test_an_image_of_one_static_program_runs_it(rootfs_server: Server, images: Path) -> None:
    image = images / "allowed" / "distroless"
    image.mkdir()
    shutil.copy(PROGRAMS / "msb-agent", image / "app")
    async with PythonSandbox.create(server_url=rootfs_server.url, image=str(image)) as sandbox:
        result = await sandbox.command.run("/app", ["--version"])
        assert (await result.output()).startswith("msb-agent "), await result.error()
        with pytest.raises(RuntimeError, match=r"command not found: 'sh' is not in PATH"):
            await sandbox.command.run("sh", ["-c", "true"])
        with pytest.raises(RuntimeError, match=r"no python3 .* use an image with Python, such as microsandbox/python"):
            await sandbox.run("1")


async def test_a_program_whose_loader_the_image_lacks_says_so(rootfs_server: Server, images: Path) -> None:
    image = images / "allowed" / "foreign"
    image.mkdir()
    shutil.copy("/usr/bin/true", image / "app")
    async with PythonSandbox.create(server_url=rootfs_server.url, image=str(image)) as sandbox:
        with pytest.raises(RuntimeError, match=r"'/app' asks for '/lib\S+', which is not in this image"):
            await sandbox.command.run("/app")


@pytest.mark.parametrize(
    "path", ["secret", "allowed/out", "allowed/../secret", "allowed/missing", "allowed/small/motd"]
)
async def test_other_directories_are_refused(rootfs_server: Server, images: Path, path: str) -> None:
    sandbox = PythonSandbox(server_url=rootfs_server.url)
    with pytest.raises(RuntimeError) as caught:
        await sandbox.start(image=f"{images}/{path}")
    assert caught.value.code == 4001  # type: ignore[attr-defined]
    assert not sandbox.is_started


async def test_nothing_is_allowed_that_was_not_named(server: Server, images: Path) -> None:
    with pytest.raises(RuntimeError, match="--allow-rootfs"):
        await PythonSandbox().start(image=str(images / "allowed" / "small"))


async def test_an_unknown_image_says_what_there_is(server: Server) -> None:
    with pytest.raises(RuntimeError, match="microsandbox/python"):
        await PythonSandbox().start(image="alpine:3")
