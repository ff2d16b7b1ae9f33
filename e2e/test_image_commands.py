# SPDX-License-Identifier: Apache-2.0
"""Images as a person pulls, looks at, removes, saves and loads them, from a real registry and without a server."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from host import PROGRAMS, clean_environment, need
from registries import Registry, archive, layout, skopeo

CONFIG = {
    "Entrypoint": ["/entry"],
    "Cmd": ["serve", "--all"],
    "Env": ["PATH=/bin", "GREETING=hello"],
    "User": "1000:1000",
    "WorkingDir": "/work",
}
LAYERS = [{"etc/motd": "lowest\n", "etc/kept": "kept\n"}, {"etc/motd": "topmost\n"}]


@pytest.fixture(autouse=True)
def need_programs() -> None:
    need((PROGRAMS / "msb").is_file(), f"{PROGRAMS / 'msb'} is needed: `cargo xtask build`")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Give an OCI layout of one image, and the digest of its manifest."""
    root = tmp_path_factory.mktemp("layout") / "image"
    return root, layout(root, LAYERS, CONFIG)


@pytest.fixture
def registry(tmp_path: Path, image: tuple[Path, str]) -> Iterator[Registry]:
    """Give a registry that has the image as team/app:1."""
    running = Registry.start(tmp_path / "registry")
    running.fill(image[0], "team/app:1")
    yield running
    running.end()


class Msb:
    """Runs `msb` with a home of its own."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.environment = clean_environment() | {"HOME": str(folder), "MICROSANDBOX_HOME": str(self.home)}
        self.environment.pop("DOCKER_CONFIG", None)

    def run(self, *arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        command = [PROGRAMS / "msb", *arguments]
        done = subprocess.run(command, env=self.environment, input=stdin, capture_output=True, timeout=60, check=False)
        return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())

    def __call__(self, *arguments: str | Path, stdin: bytes = b"") -> str:
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, done
        return done.stdout

    def refused(self, *arguments: str | Path, stdin: bytes = b"") -> tuple[int, str]:
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode != 0, done
        assert done.stdout == "", done
        return done.returncode, done.stderr

    def references(self) -> list[str]:
        return [row["reference"] for row in json.loads(self("image", "ls", "--json"))]

    def texts(self) -> list[str]:
        """Return what the file of the unpacked layers says."""
        layers = self.home / "images" / "store-v1" / "layers"
        return sorted(path.read_text() for path in layers.glob("*/root/etc/motd"))


@pytest.fixture
def msb(tmp_path: Path) -> Msb:
    return Msb(tmp_path)


def test_a_pulled_image_is_used_without_its_registry(msb: Msb, registry: Registry, image: tuple[Path, str]) -> None:
    reference = f"{registry.address}/team/app:1"
    pulled = msb.run("pull", reference)
    assert (pulled.returncode, pulled.stdout) == (0, f"Image: {reference}\nDigest: {image[1]}\n")
    assert msb.texts() == ["lowest\n", "topmost\n"]
    assert stat.S_IMODE(msb.home.stat().st_mode) == 0o700
    assert msb("pull", reference, "--policy", "always") == pulled.stdout

    registry.end()
    for policy in ("if-missing", "never"):
        assert msb("pull", reference, "--policy", policy) == pulled.stdout
    assert msb("pull", reference) == pulled.stdout
    code, said = msb.refused("pull", reference, "--policy", "always")
    assert (code, f"cannot reach {registry.address}" in said) == (1, True), said
    assert msb.references() == [reference], "a pull that failed takes nothing away"


def test_never_asks_nobody_and_says_what_helps(msb: Msb, registry: Registry) -> None:
    reference = f"{registry.address}/team/app:1"
    code, said = msb.refused("pull", reference, "--policy", "never")
    assert code == 1
    assert "not in the image store" in said
    assert f"msb pull {reference}" in said


def test_what_is_not_there_is_named(msb: Msb, registry: Registry) -> None:
    code, said = msb.refused("pull", f"{registry.address}/team/other:1")
    assert (code, "has no" in said and "check the name" in said) == (1, True), said
    assert msb.references() == []


def test_progress_is_plain_lines_in_a_log(msb: Msb, registry: Registry) -> None:
    pulled = msb.run("pull", f"{registry.address}/team/app:1")
    lines = pulled.stderr.splitlines()
    assert lines[0] == f"pulling {registry.address}/team/app:1"
    layer_lines = [line for line in lines if re.fullmatch(r"layer [0-9a-f]{12}: [a-z]+ \([0-9.]+ k?B\)", line)]
    assert len(layer_lines) == len(lines) - 1 <= 3 * len(LAYERS), lines
    assert sum(": unpacked (" in line for line in layer_lines) == len(LAYERS), lines
    assert not re.search(r"[^\x20-\x7e\n]", pulled.stderr), "nothing but text"


def test_progress_is_json_lines_when_asked_for(msb: Msb, registry: Registry, image: tuple[Path, str]) -> None:
    reference = f"{registry.address}/team/app:1"
    pulled = msb.run("pull", reference, "--json")
    events = [json.loads(line) for line in pulled.stdout.splitlines()]
    assert pulled.stderr == ""
    assert events[0] == {"event": "pulling", "reference": reference}
    unpacked = [event for event in events if event.get("state") == "unpacked"]
    assert len(unpacked) == len(LAYERS)
    assert all(event["fetched"] == event["size"] > 0 for event in unpacked)
    assert (events[-1]["event"], events[-1]["reference"], events[-1]["digest"]) == ("pulled", reference, image[1])
    (again,) = (json.loads(line) for line in msb("pull", reference, "--json").splitlines())
    assert (again["event"], again["digest"]) == ("here", image[1])


def test_progress_is_bars_on_a_terminal(msb: Msb, registry: Registry) -> None:
    leader, follower = pty.openpty()
    command = [PROGRAMS / "msb", "pull", f"{registry.address}/team/app:1"]
    environment = msb.environment | {"TERM": "xterm"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=follower)
    os.close(follower)
    shown = b""
    try:
        while chunk := os.read(leader, 4096):
            shown += chunk
    except OSError:
        pass  # the other end is closed
    finally:
        os.close(leader)
    assert process.wait() == 0, shown
    assert b"pulling" in shown
    assert b"[====" in shown
    assert b"\x1b[" in shown


def test_images_are_listed_inspected_and_removed(msb: Msb, registry: Registry, image: tuple[Path, str]) -> None:
    assert msb.references() == []
    assert "msb pull" in msb("image", "ls")
    reference = f"{registry.address}/team/app:1"
    msb("pull", reference)
    header, row = msb("image", "ls").splitlines()
    assert header.split() == ["REFERENCE", "DIGEST", "PLATFORM", "PULLED", "SIZE"]
    assert row.split()[:2] == [reference, image[1].removeprefix("sha256:")[:12]]

    for name in (reference, image[1], image[1].removeprefix("sha256:")[:12]):
        found = json.loads(msb("image", "inspect", name))
        assert (found["reference"], found["digest"], len(found["layers"])) == (reference, image[1], 2)
    assert (found["entrypoint"], found["cmd"], found["env"]) == (CONFIG["Entrypoint"], CONFIG["Cmd"], CONFIG["Env"])
    assert (found["user"], found["workdir"]) == (CONFIG["User"], CONFIG["WorkingDir"])

    code, said = msb.refused("image", "rm", reference, "team/nothing:1")
    assert (code, "no image here is called team/nothing:1" in said, "msb image ls" in said) == (1, True, True)
    assert msb.references() == [reference], "all names are looked up before any image goes"
    assert msb("image", "rm", reference).startswith(f"removed {reference} (")
    assert (msb.references(), msb.texts()) == ([], [])
    assert "no image here" in msb.refused("image", "inspect", reference)[1]


def test_what_is_removed_saved_and_loaded_is_json_when_asked_for(
    msb: Msb, registry: Registry, image: tuple[Path, str], tmp_path: Path
) -> None:
    reference = f"{registry.address}/team/app:1"
    msb("pull", reference)
    (listed,) = json.loads(msb("image", "ls", "--json"))
    file = tmp_path / "saved.tar"
    saved = json.loads(msb("image", "save", reference, "-o", file, "--json"))
    assert saved == {"file": str(file), "images": [listed]}
    code, said = msb.refused("image", "save", reference, "-o", "-", "--json")
    assert (code, "cannot both be written to standard output" in said) == (2, True), said

    other = Msb(tmp_path / "other")
    (loaded,) = json.loads(other("image", "load", file, "--json"))
    assert (loaded["reference"], loaded["digest"], loaded["size"]) == (reference, image[1], listed["size"])
    (removed,) = json.loads(other("image", "rm", reference, "--json"))
    assert (removed["reference"], removed["digest"], removed["in_use"]) == (reference, image[1], False)
    assert (removed["layers"], removed["blobs"], removed["bytes"] > 0) == (2, 4, True)
    assert other.references() == []


def stored(msb: Msb) -> list[str]:
    """Return the files of the store but for its lock."""
    store = msb.home / "images" / "store-v1"
    return sorted(str(path.relative_to(store)) for path in store.rglob("*") if path.is_file() and path.name != "lock")


def test_an_image_of_two_hundred_layers_is_refused_from_a_registry_and_from_an_archive(
    msb: Msb, registry: Registry, tmp_path: Path
) -> None:
    layers = [{f"file-{number}": "x"} for number in range(200)]
    layout(tmp_path / "tall", layers, {})
    registry.fill(tmp_path / "tall", "tall:1")
    code, said = msb.refused("pull", f"{registry.address}/tall:1")
    assert (code, "more than the 128 layers that are allowed" in said) == (1, True), said
    assert (msb.references(), stored(msb)) == ([], [])

    for transport in ("oci-archive", "docker-archive"):
        file = tmp_path / transport
        skopeo("copy", f"oci:{tmp_path / 'tall'}:e2e", f"{transport}:{file}:tall:1")
        code, said = msb.refused("image", "load", file)
        assert (code, "the number of layers (200)" in said, "bound of 128" in said) == (1, True, True), said
        assert (msb.references(), stored(msb)) == ([], [])


def test_of_a_pull_with_one_bad_layer_nothing_is_left_half_made(msb: Msb, registry: Registry, tmp_path: Path) -> None:
    many = {f"good/file-{number}": "x" * 1000 for number in range(2000)}
    layout(tmp_path / "mixed", [many, {"ok": "x"}, {"../outside": "x"}, many | {"more": "x"}], {})
    registry.fill(tmp_path / "mixed", "mixed:1")
    code, said = msb.refused("pull", f"{registry.address}/mixed:1")
    assert (code, "../outside" in said) == (1, True), said
    assert msb.references() == []
    store = msb.home / "images" / "store-v1"
    assert [*store.glob("making/*"), *store.glob("removing/*"), *tmp_path.glob("**/outside")] == []
    for layer in store.glob("layers/*/root"):
        assert len([*layer.rglob("*")]) in {1, 2001, 2002}, "whole layers may stay, to go on from"


def test_a_name_without_a_registry_is_of_the_default_one(msb: Msb, registry: Registry) -> None:
    msb("pull", "team/app:1", "--registry", registry.address)
    assert msb.references() == [f"{registry.address}/team/app:1"]
    assert "no image here" in msb.refused("image", "inspect", "team/app:1")[1]
    msb.environment["MICROSANDBOX_REGISTRY"] = registry.address
    assert json.loads(msb("image", "inspect", "team/app:1"))["platform"].startswith("linux/")


def test_a_mirror_is_asked_first(msb: Msb, registry: Registry) -> None:
    mirror = f"registry.invalid={registry.address}"
    msb("pull", "registry.invalid/team/app:1", "--mirror", mirror)
    assert msb.references() == ["registry.invalid/team/app:1"]


def test_prune_takes_images_only_when_told_to(msb: Msb, registry: Registry) -> None:
    reference = f"{registry.address}/team/app:1"
    msb("pull", reference)
    assert "0 blobs and 0 layers removed" in msb("image", "prune")
    assert msb.references() == [reference]
    pruned = json.loads(msb("image", "prune", "--all", "--json"))
    assert (pruned["images"], pruned["layers"], pruned["bytes"] > 0) == ([reference], 2, True)
    assert (msb.references(), msb.texts()) == ([], [])


@pytest.mark.parametrize(("format_", "transport"), [("oci", "oci-archive"), ("docker", "docker-archive")])
def test_a_saved_image_is_read_by_others_and_loaded_again(
    msb: Msb, registry: Registry, image: tuple[Path, str], tmp_path: Path, format_: str, transport: str
) -> None:
    reference = f"{registry.address}/team/app:1"
    msb("pull", reference)
    file = tmp_path / "saved.tar"
    assert msb("image", "save", reference, "-o", file, "--format", format_) == ""
    inspected = json.loads(skopeo("inspect", "--config", f"{transport}:{file}"))
    assert inspected["config"]["Env"] == CONFIG["Env"]
    assert not list(tmp_path.glob(".saved*")), "nothing is left beside it"

    other = Msb(tmp_path / "other")
    loaded = other("image", "load", file)
    assert loaded.startswith(f"Image: {reference}\nDigest: sha256:"), loaded
    assert format_ == "docker" or image[1] in loaded
    assert other.texts() == ["lowest\n", "topmost\n"], "it is ready to use"
    assert json.loads(other("image", "inspect", reference))["env"] == CONFIG["Env"]
    assert other("pull", reference, "--policy", "never").startswith(f"Image: {reference}\n")


def test_archives_go_through_pipes(msb: Msb, registry: Registry, tmp_path: Path) -> None:
    reference = f"{registry.address}/team/app:1"
    msb("pull", reference)
    command = [PROGRAMS / "msb", "image", "save", reference, "-o", "-"]
    saved = subprocess.run(command, env=msb.environment, capture_output=True, timeout=60, check=True).stdout
    other = Msb(tmp_path / "other")
    assert "Image: docker.io/mine/app:2\n" in other("image", "load", "-", "--reference", "mine/app:2", stdin=saved)
    assert other.references() == ["docker.io/mine/app:2"]


def test_a_root_file_system_becomes_an_image(msb: Msb, tmp_path: Path) -> None:
    file = tmp_path / "root.tar"
    file.write_bytes(archive({"etc/motd": "plain\n"}))
    assert msb.refused("image", "load", file)[1].count("--reference NAME") >= 1
    assert msb("image", "load", file, "--reference", "mine/root", "--rootfs").startswith(
        "Image: docker.io/mine/root:latest\n"
    )
    assert msb.texts() == ["plain\n"]
    assert json.loads(msb("image", "inspect", "mine/root"))["env"] == []


def test_of_an_archive_that_is_refused_nothing_stays(msb: Msb, tmp_path: Path) -> None:
    file = tmp_path / "bad.tar"
    file.write_bytes(archive({"../outside": "x"}))
    code, said = msb.refused("image", "load", file, "--reference", "mine/bad", "--rootfs")
    assert (code, "cannot unpack the layers of docker.io/mine/bad:latest" in said, "../outside" in said) == (
        1,
        True,
        True,
    ), said
    assert msb.references() == []
    assert "0 blobs and 0 layers removed" in msb("image", "prune")
    assert not (tmp_path / "outside").exists()


def test_what_is_saved_over_stays_when_the_save_fails(msb: Msb, tmp_path: Path) -> None:
    file = tmp_path / "kept.tar"
    file.write_text("kept")
    assert "no image here" in msb.refused("image", "save", "team/app", "-o", file)[1]
    assert file.read_text() == "kept"


def test_a_registry_with_a_password_wants_a_login(msb: Msb, tmp_path: Path, image: tuple[Path, str]) -> None:
    registry = Registry.start(tmp_path / "guarded", password=True)
    try:
        registry.fill(image[0], "app:1", password=True)
        host, reference = registry.address, f"{registry.address}/app:1"
        assert f"msb registry login {host}" in msb.refused("pull", reference)[1]

        login = ("registry", "login", host, "-u", "ann", "--password-stdin")
        assert "kept, unchecked" in msb(*login, "--no-verify", stdin=b"wr0ng\n")
        said = msb.refused("pull", reference)[1]
        assert "does not take the login" in said
        assert "wr0ng" not in said

        assert "kept, and works" in msb(*login, stdin=b"s3cret\n")
        code, said = msb.refused(*login, stdin=b"wr0ng\n")
        assert (code, "was not kept" in said, "does not take the login" in said) == (1, True, True), said
        assert "wr0ng" not in said
        (file,) = [path for path in msb.home.iterdir() if path.is_file() and b"s3cret" in path.read_bytes()]
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert json.loads(msb("registry", "ls", "--json")) == [{"registry": host, "kept_by": "msb"}]
        assert image[1] in msb("pull", reference)

        assert "is forgotten" in msb("registry", "logout", host)
        assert "no login for" in msb.refused("registry", "logout", host)[1]
        assert f"msb registry login {host}" in msb.refused("pull", reference, "--policy", "always")[1]
    finally:
        registry.end()


def test_a_login_that_cannot_be_checked_is_not_kept(msb: Msb, registry: Registry) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        gone = f"127.0.0.1:{nobody.getsockname()[1]}"
    for host, reason in [(gone, f"cannot reach {gone}"), (registry.address, "asks nobody for one")]:
        code, said = msb.refused("registry", "login", host, "-u", "ann", "--password-stdin", stdin=b"s3cret\n")
        assert (code, reason in said, "--no-verify" in said) == (1, True, True), said
        assert "s3cret" not in said
    assert json.loads(msb("registry", "ls", "--json")) == []
    assert not msb.home.exists()


def test_a_password_is_asked_for_without_showing_it(msb: Msb) -> None:
    code, said = msb.refused("registry", "login", "r.example", "-u", "ann")
    assert (code, "--password-stdin" in said) == (2, True), said
    leader, follower = pty.openpty()
    command = [PROGRAMS / "msb", "registry", "login", "r.example", "-u", "ann", "--no-verify"]
    process = subprocess.Popen(command, env=msb.environment, stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    shown = b""
    try:
        while b": " not in shown:
            shown += os.read(leader, 4096)
        os.write(leader, b"s3cret\n")
        while chunk := os.read(leader, 4096):
            shown += chunk
    except OSError:
        pass  # the other end is closed
    finally:
        os.close(leader)
    assert process.wait() == 0, shown
    assert b"Password of ann for r.example: " in shown
    assert b"s3cret" not in shown
    assert json.loads(msb("registry", "ls", "--json"))[0]["registry"] == "r.example"


def test_an_interrupted_pull_says_what_it_leaves_and_harms_nothing(
    msb: Msb, registry: Registry, image: tuple[Path, str]
) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(30)
    reference = f"127.0.0.1:{listener.getsockname()[1]}/team/app:1"
    command = [PROGRAMS / "msb", "pull", reference]
    process = subprocess.Popen(command, env=msb.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    # It is asked and never answers: the pull waits for it.
    connection, _ = listener.accept()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    connection.close()
    listener.close()
    assert process.returncode == 130, said
    assert "interrupted" in said
    assert "the next pull goes on from there" in said
    assert image[1] in msb("pull", f"{registry.address}/team/app:1")
