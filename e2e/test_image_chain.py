# SPDX-License-Identifier: Apache-2.0
"""Where an image comes from: the store, a registry, this machine, a directory. The answer to a start says which."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from conftest import Wire
from host import PROGRAMS, Server, clean_environment, need, need_everything
from registries import Registry, layout, tree

BUSYBOX = Path("/bin/busybox")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give an OCI layout with one small image."""
    need(BUSYBOX.exists(), "/bin/busybox is needed: Debian's package busybox-static")
    folder = tmp_path_factory.mktemp("small") / "layout"
    layout(folder, [tree({"bin": "", "bin/sh": BUSYBOX.read_bytes()})], {})
    return folder


@pytest.fixture(scope="module")
def hub(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Give a registry that has an image for Python and one of a team, and none for Node."""
    running = Registry.start(tmp_path_factory.mktemp("hub") / "registry")
    running.fill(small, "microsandbox/python:latest")
    running.fill(small, "team/tiny:1")
    yield running
    running.end()


@pytest.fixture
def chain(server: Server, hub: Registry, tmp_path: Path) -> Iterator[Server]:
    """Give a server with every link of the chain; the common one runs before it."""
    need_everything()
    assert server.url
    (tmp_path / "rootfs" / "bin").mkdir(parents=True)
    (tmp_path / "rootfs" / "bin" / "sh").write_bytes(BUSYBOX.read_bytes())
    (tmp_path / "rootfs" / "bin" / "sh").chmod(0o755)
    own = Server.start(tmp_path / "home", "--registry", hub.address, "--allow-rootfs", str(tmp_path / "rootfs"))
    yield own
    own.end()


async def said_of_start(server: Server, name: str, image: str, **config: str) -> str:
    """Start a sandbox and stop it again; return what the answer says of its image."""
    target = {"sandbox": name, "namespace": "default"}
    async with aiohttp.ClientSession() as session:
        wire = Wire(server.url, session)
        said = await wire.result("sandbox.start", sandbox=name, config={"image": image, **config})
        again = await wire.result("sandbox.start", sandbox=name, config={"image": image, **config})
        await wire.result("sandbox.stop", **target)
    begin = f"Sandbox {name} started successfully "
    assert again == begin + "(it was running already)"
    assert said.startswith(begin + "(image: "), said
    return said[len(begin + "(image: ") : -1]


async def test_an_image_is_pulled_once_and_then_of_the_store(chain: Server, hub: Registry, name: str) -> None:
    for image in ("microsandbox/python", f"{hub.address}/team/tiny:1"):
        full = image if ":" in image else f"{hub.address}/{image}:latest"
        assert await said_of_start(chain, name, image) == f"{full}, pulled from the registry"
        assert await said_of_start(chain, name, image) == f"{full} of the image store"
        assert await said_of_start(chain, name, image, pull="always") == f"{full}, pulled from the registry"


async def test_what_the_registry_lacks_is_this_machines_own(chain: Server, name: str) -> None:
    assert await said_of_start(chain, name, "microsandbox/node") == "this machine's own programs"


async def test_what_is_loaded_goes_before_the_registry(chain: Server, small: Path, name: str) -> None:
    load = ["image", "load", small, "--reference", "microsandbox/python", "--home", chain.home]
    subprocess.run([PROGRAMS / "msb", *load], env=clean_environment(), check=True, capture_output=True, timeout=60)
    said = await said_of_start(chain, name, "microsandbox/python")
    assert said == "docker.io/microsandbox/python:latest of the image store"


async def test_a_directory_is_said_to_be_one(chain: Server, tmp_path: Path, name: str) -> None:
    assert await said_of_start(chain, name, str(tmp_path / "rootfs")) == "a directory of this machine"
