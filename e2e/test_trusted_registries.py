# SPDX-License-Identifier: Apache-2.0
"""Clients do not reach the server's own network by naming registries there, unless its operator named them."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest
from microsandbox import MicrosandboxError, PythonSandbox

from conftest import Wire
from host import PROGRAMS, Server, clean_environment, need, need_everything
from registries import Registry, layout, tree

BUSYBOX = Path("/bin/busybox")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Give a registry that has the image tiny:1."""
    need(BUSYBOX.exists(), "/bin/busybox is needed: Debian's package busybox-static")
    folder = tmp_path_factory.mktemp("hub")
    layout(folder / "tiny", [tree({"bin": "", "bin/sh": BUSYBOX.read_bytes()})], {})
    running = Registry.start(folder / "registry")
    running.fill(folder / "tiny", "tiny:1")
    yield running
    running.end()


@pytest.fixture
def start(server: Server, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Give a function that starts a server of the test's own; the common one runs before it."""
    need_everything()
    assert server.url
    started: list[Server] = []

    def go(*arguments: str) -> Server:
        started.append(Server.start(tmp_path / "home", *arguments))
        return started[-1]

    yield go
    for own in started:
        own.end()


def msb(home: Path, *arguments: str, stdin: str = "") -> str:
    environment = clean_environment() | {"HOME": str(home.parent)}
    command = [PROGRAMS / "msb", *arguments, "--home", home]
    done = subprocess.run(
        command, env=environment, input=stdin, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def runs(server: Server, image: str, name: str) -> None:
    async with PythonSandbox.create(server_url=server.url, name=name, image=image) as sandbox:
        assert await (await sandbox.command.run("sh", ["-c", "echo here"])).output() == "here"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "0.0.0.0", "127.1", "[::ffff:127.0.0.1]"])
async def test_what_listens_near_the_server_is_not_asked_for_a_client(
    server: Server, wire: Wire, name: str, host: str
) -> None:
    with closing(socket.create_server(("0.0.0.0", 0))) as service:
        service.settimeout(0)
        image = f"{host}:{service.getsockname()[1]}/secrets:1"
        with pytest.raises(MicrosandboxError, match=r"a loopback address.*--trusted-registry") as caught:
            await PythonSandbox(name=name).start(image=image)
        assert caught.value.code == 2001
        answer = await wire.call("image.pull", {"image": image, "pull": "always"})
        assert (answer.status, answer.body["code"]) == (400, 2001)
        assert "a loopback address" in answer.body["error"]
        with pytest.raises(BlockingIOError):
            service.accept()


@pytest.mark.parametrize(
    ("image", "place"),
    [
        ("10.1.2.3/x", "a private network"),
        ("192.168.1.1:5000/x", "a private network"),
        ("100.64.0.1/x", "a private network"),
        ("[fd12::1]/x", "a private network"),
        ("169.254.1.1/x", "a link-local address"),
        ("169.254.169.254/latest/meta-data", "metadata service"),
    ],
)
async def test_other_near_places_are_not_asked_for_a_client(server: Server, name: str, image: str, place: str) -> None:
    with pytest.raises(MicrosandboxError, match=place):
        await PythonSandbox(name=name).start(image=image, timeout=20)


@pytest.mark.parametrize("option", ["--trusted-registry", "--registry", "--mirror"])
async def test_what_the_operator_names_is_asked(
    start: Callable[..., Server], hub: Registry, name: str, option: str
) -> None:
    value = f"mirrored.example={hub.address}" if option == "--mirror" else hub.address
    server = start(option, value)
    await runs(server, f"{hub.address}/tiny:1", name)
    if option == "--mirror":
        await runs(server, "mirrored.example/tiny:1", name)
    other = hub.address.replace("127.0.0.1", "127.0.0.2")
    with pytest.raises(MicrosandboxError, match="a loopback address"):
        await PythonSandbox(server_url=server.url, name=name).start(image=f"{other}/tiny:1")


async def test_what_the_operator_pulls_is_there_for_clients(
    start: Callable[..., Server], hub: Registry, name: str
) -> None:
    image = f"{hub.address}/tiny:1"
    server = start()
    msb(server.home, "pull", image)
    await runs(server, image, name)
    async with aiohttp.ClientSession() as session:
        answer = await Wire(server.url, session).call("image.pull", {"image": image, "pull": "always"})
    assert answer.status == 400, "it is used, and not asked for again"


async def test_a_registry_that_the_operator_logged_in_to_is_asked(
    start: Callable[..., Server], tmp_path: Path, name: str
) -> None:
    layout(tmp_path / "tiny", [tree({"bin": "", "bin/sh": BUSYBOX.read_bytes()})], {})
    guarded = Registry.start(tmp_path / "guarded", password=True)
    try:
        guarded.fill(tmp_path / "tiny", "tiny:1", password=True)
        login = ("registry", "login", guarded.address, "-u", "ann", "--password-stdin")
        msb(tmp_path / "home", *login, stdin="s3cret\n")
        await runs(start(), f"{guarded.address}/tiny:1", name)
    finally:
        guarded.end()
