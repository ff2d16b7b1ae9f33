# SPDX-License-Identifier: Apache-2.0
"""Debian's docker-registry on loopback, and small images that skopeo puts into it."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from host import need

# `s3cret` for `ann`, in bcrypt with little work.
HTPASSWD = "ann:$2b$04$SdV0my9.DYzq9OG5I.it7uxul16jTHAWV2OFzoonGd/2jV5DxNZ6q\n"
READY_SECONDS = 30


@dataclass
class Registry:
    """A registry that runs."""

    home: Path
    process: subprocess.Popen[str]
    address: str
    draining: threading.Thread

    @classmethod
    def start(cls, home: Path, *, password: bool = False) -> Registry:
        """Start one on a free port; with `password`, one that only `ann` gets into."""
        for program in ("docker-registry", "skopeo"):
            need(shutil.which(program), f"{program} is needed: Debian's package of that name")
        home.mkdir(parents=True)
        settings: dict[str, Any] = {
            "version": 0.1,
            "storage": {"filesystem": {"rootdirectory": str(home / "storage")}},
            "http": {"addr": "127.0.0.1:0"},
        }
        if password:
            (home / "htpasswd").write_text(HTPASSWD)
            settings["auth"] = {"htpasswd": {"realm": "e2e", "path": str(home / "htpasswd")}}
        # What is JSON is YAML too.
        (home / "config.yml").write_text(json.dumps(settings))
        process = subprocess.Popen(
            ["docker-registry", "serve", home / "config.yml"],
            env={"PATH": "/usr/bin:/bin", "OTEL_TRACES_EXPORTER": "none"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        return cls(home, process, *_address(process))

    def fill(self, layout: Path, name: str, *, password: bool = False) -> None:
        """Put an image into it."""
        credentials = ["--dest-creds=ann:s3cret"] if password else []
        options = ["--preserve-digests", "--dest-tls-verify=false", *credentials]
        skopeo("copy", *options, f"oci:{layout}:e2e", f"docker://{self.address}/{name}")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.draining.join()


def _address(process: subprocess.Popen[str]) -> tuple[str, threading.Thread]:
    log = process.stderr
    assert log is not None
    watchdog = threading.Timer(READY_SECONDS, process.kill)
    watchdog.start()
    try:
        found = next(filter(None, (re.search(r"listening on ([0-9.]+:[0-9]+)", line) for line in log)), None)
    finally:
        watchdog.cancel()
    assert found, "the registry did not say where it listens"

    def drain() -> None:
        # Its log goes on, and must not fill the pipe.
        with log:
            for _ in log:
                pass

    draining = threading.Thread(target=drain, daemon=True)
    draining.start()
    return found[1], draining


def skopeo(*arguments: str) -> str:
    """Run skopeo and return what it wrote."""
    command = ["skopeo", "--insecure-policy", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def archive(files: dict[str, str]) -> bytes:
    """Return a tar of these files."""
    into = io.BytesIO()
    with tarfile.open(fileobj=into, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            entry.mode = 0o644
            tar.addfile(entry, io.BytesIO(text.encode()))
    return into.getvalue()


def tree(files: Mapping[str, bytes | str], modes: Mapping[str, int] | None = None) -> bytes:
    """Return a tar: bytes are files, texts that begin with `->` symbolic links, and empty texts directories."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.mode = (modes or {}).get(name, 0o755)
            if isinstance(content, bytes):
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
            elif content.startswith("->"):
                entry.type, entry.linkname = tarfile.SYMTYPE, content[2:]
                tar.addfile(entry)
            else:
                entry.type = tarfile.DIRTYPE
                tar.addfile(entry)
    return buffer.getvalue()


@dataclass(frozen=True)
class Gzipped:
    """A layer that is compressed, and the digest of its tar."""

    content: bytes
    diff_id: str


def layout(root: Path, layers: Sequence[dict[str, str] | bytes | Gzipped], config: Mapping[str, Any]) -> str:
    """Write an OCI layout with one image of these files, or tars; return the digest of its manifest."""
    blobs = root / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (root / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def blob(kind: str, content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        media_type = f"application/vnd.oci.image.{kind}"
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    parts: list[dict[str, Any]] = []
    diff_ids: list[str] = []
    for layer in layers:
        if isinstance(layer, Gzipped):
            parts.append(blob("layer.v1.tar+gzip", layer.content))
            diff_ids.append(layer.diff_id)
        else:
            parts.append(blob("layer.v1.tar", layer if isinstance(layer, bytes) else archive(layer)))
            diff_ids.append(parts[-1]["digest"])
    document = {
        "os": "linux",
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[_machine()],
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    described = blob("config.v1+json", json.dumps(document).encode())
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described,
        "layers": parts,
    }
    top = blob("manifest.v1+json", json.dumps(manifest).encode())
    named = top | {"annotations": {"org.opencontainers.image.ref.name": "e2e"}}
    (root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    return top["digest"]


def _machine() -> str:
    return subprocess.run(["uname", "-m"], capture_output=True, text=True, check=True).stdout.strip()
