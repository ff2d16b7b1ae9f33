# SPDX-License-Identifier: Apache-2.0
"""Base images: they run code, carry nothing of this machine, and are made of signed packages only."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
from microsandbox import NodeSandbox, PythonSandbox

from base_images import BUILDS_TIMEOUT, build, cached_tar, need_tools, succeed
from host import GONE_SECONDS, PROGRAMS, clean_environment, command_line, descendants

EPOCH = 1735689600
pytestmark = BUILDS_TIMEOUT

WHEEL = """
import zipfile
with zipfile.ZipFile("/tmp/tiny-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("tiny.py", "SIZE = 'very small'")
    wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n")
    wheel.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    wheel.writestr("tiny-1.0.dist-info/RECORD", "")
"""


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def python_tar() -> Path:
    return cached_tar("python")


@pytest.mark.usefixtures("base_images")
async def test_the_python_image_runs_python() -> None:
    async with PythonSandbox.create() as sandbox:
        execution = await sandbox.run("name = 'Python'\nprint(f'Hello {name}!')")
        assert await execution.output() == "Hello Python!"
        execution = await sandbox.run(
            "import ssl, sqlite3, ctypes, zoneinfo, lzma\nprint(name, open('/etc/debian_version').read())"
        )
        assert (await execution.output()).startswith("Python 12."), await execution.error()
        result = await sandbox.command.run("python", ["-m", "pip", "--version"])
        assert "/usr/lib/python3/dist-packages/pip (python 3.11)" in await result.output(), await result.error()


@pytest.mark.usefixtures("base_images")
async def test_pip_and_venv_work_in_the_python_image() -> None:
    async with PythonSandbox.create() as sandbox:
        assert not (await sandbox.run(WHEEL)).has_error()
        wheel = "/tmp/tiny-1.0-py3-none-any.whl"
        result = await sandbox.command.run("pip", ["install", "--no-index", wheel], timeout=120)
        assert result.success, await result.error()
        result = await sandbox.command.run("python3", ["-c", "import tiny; print(tiny.SIZE)"])
        assert await result.output() == "very small"
        script = (
            f"python3 -m venv /tmp/v && /tmp/v/bin/pip install --no-index {wheel} && /tmp/v/bin/python -c 'import tiny'"
        )
        result = await sandbox.command.run("sh", ["-ec", script], timeout=120)
        assert result.success, await result.error()


@pytest.mark.usefixtures("base_images")
async def test_the_node_image_runs_node() -> None:
    async with NodeSandbox.create() as sandbox:
        execution = await sandbox.run(
            "const fs = require('fs');\nconsole.log(process.version, fs.existsSync('/usr/local/bin/node'));"
        )
        assert (await execution.output()).startswith("v24."), await execution.error()
        assert (await execution.output()).endswith(" true")
        for program in ("npm", "npx"):
            result = await sandbox.command.run(program, ["--version"], timeout=60)
            assert (await result.output()).startswith("11."), await result.error()


def test_nothing_of_this_machine_is_in_an_image(python_tar: Path) -> None:
    unchecked = (1).to_bytes(4, "little")
    with tarfile.open(python_tar) as archive:
        members = {member.name.removeprefix("."): member for member in archive}
        assert max(member.mtime for member in members.values()) <= EPOCH
        assert all(member.isfile() or member.isdir() or member.issym() or member.islnk() for member in members.values())

        def text(name: str) -> str:
            file = archive.extractfile(members[name])
            assert file
            return file.read().decode()

        sources = [name for name in members if name.startswith("/etc/apt/sources.list")]
        assert sources == ["/etc/apt/sources.list.d", "/etc/apt/sources.list.d/debian.sources"]
        uris = [line for line in text(sources[1]).splitlines() if line.startswith("URIs: ")]
        assert uris == ["URIs: http://deb.debian.org/debian", "URIs: http://deb.debian.org/debian-security"]
        settings = {name for name in members if name.startswith("/etc/apt/apt.conf")}
        assert settings == {f"/etc/apt/apt.conf{end}" for end in (".d", ".d/01autoremove", ".d/70debconf")}
        assert not {"/etc/resolv.conf", "/etc/hostname", "/dev"} & members.keys()
        assert "force-unsafe-io" not in text("/etc/dpkg/dpkg.cfg.d/microsandbox")
        for folder in ("/var/log", "/var/lib/apt/lists", "/var/cache/apt", "/tmp", "/var/tmp"):
            below = [n for n, m in members.items() if n.startswith(folder + "/") and m.isfile() and m.size]
            assert not below, below
        assert not [
            name for name in members if name.endswith("-old") or (name.startswith("/etc") and name.endswith("-"))
        ]
        compiled = [member for name, member in members.items() if name.endswith(".pyc")]
        assert len(compiled) > 100
        for member in compiled:
            file = archive.extractfile(member)
            assert file
            assert file.read(8)[4:] == unchecked, member.name


def test_two_builds_give_the_same_bytes(python_tar: Path, tmp_path: Path) -> None:
    # It costs a second build, so it is done once for each recipe.
    sums = python_tar.with_suffix(".sums")
    if not sums.exists():
        # Where it is built must not matter either: apt's own user can reach one folder, and not the other.
        first, second = tmp_path / "first.tar", tmp_path / "second.tar"
        tmp_path.chmod(0o700)
        done = build("python", second)
        assert done.returncode == 0, done.stderr
        shutil.copyfile(python_tar, first)
        if packages(first) != packages(second):  # Debian published an update since the first one was built
            done = build("python", first)
            assert done.returncode == 0, done.stderr
        sums.write_text(f"{sha256(first)}\n{sha256(second)}\n")
    one, other = sums.read_text().split()
    assert one == other


def packages(tar: Path) -> bytes:
    with tarfile.open(tar) as archive:
        file = archive.extractfile("./var/lib/dpkg/status")
        assert file
        return file.read()


def archive_of(root: Path, sign: bool) -> str:
    """Make an archive without packages, signed by somebody whom nobody knows, or by nobody."""
    home = root / "gpg"
    home.mkdir(mode=0o700, parents=True)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", ""]
    if sign:
        subprocess.run([*gpg, "--quick-generate-key", "stranger@example.com", "rsa2048"], check=True)
    empty = "d41d8cd98f00b204e9800998ecf8427e", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    for suite in ("bookworm", "bookworm-updates"):
        folder = root / "debian-mirror" / "dists" / suite
        (folder / "main" / "binary-amd64").mkdir(parents=True)
        (folder / "main" / "binary-amd64" / "Packages").touch()
        release = (
            f"Origin: Debian\nLabel: Debian\nSuite: {suite}\nCodename: {suite}\nArchitectures: amd64\n"
            f"Components: main\nDate: Sat, 10 Jun 2023 08:53:33 UTC\n"
            f"MD5Sum:\n {empty[0]} 0 main/binary-amd64/Packages\nSHA256:\n {empty[1]} 0 main/binary-amd64/Packages\n"
        )
        (folder / "Release").write_text(release)
        if sign:
            signed = ["--clearsign", "--output", str(folder / "InRelease"), str(folder / "Release")]
            subprocess.run([*gpg, *signed], check=True)
    if sign:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "gpg-agent"], check=True)
    for path in root.rglob("*"):  # apt reads them as a user of its own
        if home not in (path, *path.parents):
            path.chmod(0o755 if path.is_dir() else 0o644)
    return f"file://{root}/debian-mirror"


def assert_nothing_left(folder: Path, before: set[int]) -> None:
    assert list(folder.iterdir()) == []
    assert str(folder) not in Path("/proc/self/mountinfo").read_text()
    left = descendants(os.getpid()) - before
    assert not left, [command_line(pid) for pid in left]


@pytest.mark.parametrize(("sign", "says"), [(True, "NO_PUBKEY"), (False, "is not signed")])
def test_packages_without_a_known_signature_are_refused(tmp_path: Path, sign: bool, says: str) -> None:
    need_tools()
    folder, before = tmp_path / "out", descendants(os.getpid())
    folder.mkdir()
    done = build("python", folder / "a.tar", "--mirror", archive_of(tmp_path / "archive", sign))
    assert done.returncode == 1, done.stderr
    assert says in done.stderr
    assert "cannot build the base image" in done.stderr
    assert_nothing_left(folder, before)


def test_a_mirror_that_does_not_answer_is_named(tmp_path: Path) -> None:
    need_tools()
    before = descendants(os.getpid())
    done = build("python", tmp_path / "a.tar", "--mirror", "http://127.0.0.1:9/debian")
    assert done.returncode == 1, done.stderr
    assert "127.0.0.1" in done.stderr
    assert len(done.stderr) < 20_000
    assert_nothing_left(tmp_path, before)


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_build_leaves_nothing_behind(tmp_path: Path, by: signal.Signals) -> None:
    need_tools()
    before = descendants(os.getpid())
    process = subprocess.Popen(
        [PROGRAMS / "msb", "image", "build-base", "python", "-o", tmp_path / "a.tar"],
        env=clean_environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    with process.stderr:
        while "unpacking" not in (line := process.stderr.readline()):
            assert line, "it ended before it could be interrupted"
        process.send_signal(by)
        said = process.stderr.read()
    process.wait(timeout=60)
    if by == signal.SIGKILL:
        # Its processes die with it; its directory goes with the next build, however that ends.
        deadline = time.monotonic() + GONE_SECONDS
        while descendants(os.getpid()) - before:
            assert time.monotonic() < deadline, "its processes outlive it"
            time.sleep(0.05)
        assert build("python", tmp_path / "a.tar", "--mirror", "file:///nowhere").returncode == 1
    else:
        assert process.returncode == 1
        assert "the build was interrupted" in said
    assert_nothing_left(tmp_path, before)


def test_without_a_file_it_is_kept_ready_to_use(tmp_path: Path) -> None:
    need_tools()

    home, settings = tmp_path / "home", {"TMPDIR": str(tmp_path)}
    built = succeed("image", "build-base", "python", "--home", home, settings=settings)
    assert built.startswith("Reference: docker.io/microsandbox/python:latest\nDigest: sha256:"), built
    assert [path.name for path in tmp_path.iterdir()] == ["home"], "where it was built nothing is left"
    assert (
        succeed("pull", "microsandbox/python", "--policy", "never", "--home", home).splitlines()[1]
        == built.splitlines()[1]
    )
    found = json.loads(succeed("image", "inspect", "microsandbox/python", "--home", home))
    assert (found["cmd"], found["workdir"], "LANG=C.UTF-8" in found["env"]) == (["python3"], "/", True)
    (layer,) = (home / "images" / "store-v1" / "layers").iterdir()
    assert (layer / "root" / "usr" / "bin" / "python3").exists()
    (described,) = found["layers"]
    blob = (
        tmp_path / "home" / "images" / "store-v1" / "blobs" / described["blob"].removeprefix("sha256:")
    ).read_bytes()
    assert blob[:10] == bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255]), "compressed, without a word of when and where"
    plain = gzip.decompress(blob)
    assert f"sha256:{hashlib.sha256(plain).hexdigest()}" == described["diff_id"]
    assert len(blob) < len(plain) / 2
