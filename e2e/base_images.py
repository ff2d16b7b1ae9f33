# SPDX-License-Identifier: Apache-2.0
"""Base images as `msb image build-base` makes them, each built once for each recipe, and a server that has them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from host import PROGRAMS, REPO, TARGET, Server, clean_environment, need
from keys import keygen

CACHE = TARGET / "base-images"
KINDS = ("python", "node")
# A build takes half a minute of processor time; others may want the processors too.
BUILD_SECONDS = 900
# For tests that may be the first to need the images.
BUILDS_TIMEOUT = pytest.mark.timeout(2 * BUILD_SECONDS)


def need_tools() -> None:
    need(os.geteuid() == 0, "root is needed to build images as this test does")
    for program in ("mmdebstrap", "npm", "gpg"):
        need(shutil.which(program), f"{program} is needed: Debian's package of that name")


def msb(*arguments: str | Path, settings: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run one `msb` command that may build an image."""
    return subprocess.run(
        [PROGRAMS / "msb", *arguments],
        env=clean_environment() | dict(settings or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )


def succeed(*arguments: str | Path, settings: Mapping[str, str] | None = None) -> str:
    """Run one `msb` command that must do what it is told; return what it wrote."""
    done = msb(*arguments, settings=settings)
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(kind: str, output: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return msb("image", "build-base", kind, "-o", output, *arguments)


def stamp() -> str:
    """Name the recipe: images that another one made are not used."""
    source = REPO / "crates" / "cli" / "src"
    files = sorted([source / "base.rs", *(source / "base").iterdir()])
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def place(kind: str, ending: str) -> Path:
    """Say where what is made of the recipe is kept, and remove what another one made."""
    need_tools()
    CACHE.mkdir(parents=True, exist_ok=True)
    for old in CACHE.glob(f"{kind}-*"):
        if not old.name.startswith(f"{kind}-{stamp()}."):
            old.unlink()
    return CACHE / f"{kind}-{stamp()}.{ending}"


def cached_tar(kind: str) -> Path:
    """Build the root file system of an image unless this recipe has made it before."""
    tar = place(kind, "tar")
    if not tar.exists():
        done = build(kind, tar)
        assert done.returncode == 0, done.stderr
        assert "bookworm-security" in done.stdout
        assert done.stderr.splitlines()[-1] == "100% done"
    return tar


def cached_archive(kind: str) -> Path:
    """Build an image into a store, and save it from there, unless this recipe has made it before."""
    archive = place(kind, "oci")
    if not archive.exists():
        with tempfile.TemporaryDirectory(prefix="msb-e2e-") as home:
            succeed("image", "build-base", kind, "--home", home)
            succeed("image", "save", f"microsandbox/{kind}", "-o", archive, "--home", home)
    return archive


@dataclass(frozen=True)
class BaseServer:
    """A server that has the base images and may show nothing else: what runs there runs in them."""

    server: Server
    key: str

    @classmethod
    def start(cls, home: Path) -> BaseServer:
        for kind in KINDS:
            succeed("image", "load", cached_archive(kind), "--home", home)
        return cls(Server.start(home, dev=False), keygen(home).text)
