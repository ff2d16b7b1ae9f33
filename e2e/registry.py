# SPDX-License-Identifier: Apache-2.0
"""A registry on loopback, Debian's own `docker-registry`, and images that a test makes for it."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from host import need

# How long the registry may take to answer, in seconds.
READY_SECONDS = 20
# How long a copy into it may take, in seconds.
COPY_SECONDS = 120


@dataclass
class Registry:
    """One that runs."""

    address: str
    process: subprocess.Popen[bytes]

    def push(self, layout: Path, name: str) -> None:
        """Put an image into it, from an OCI layout."""
        copy = ["skopeo", "copy", "--dest-tls-verify=false", f"oci:{layout}", f"docker://{self.address}/{name}"]
        subprocess.run(copy, check=True, capture_output=True, timeout=COPY_SECONDS)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def registry(folder: Path) -> Iterator[Registry]:
    """Run a registry that keeps its data in a folder."""
    need(Path("/usr/bin/docker-registry").exists(), "docker-registry is needed: Debian's package docker-registry")
    need(Path("/usr/bin/skopeo").exists(), "skopeo is needed: Debian's package skopeo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.yml"
    storage = {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}}
    config.write_text(json.dumps({"version": 0.1, "storage": storage, "http": {"addr": address}}))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(["docker-registry", "serve", config], stdout=log, stderr=log)
    running = Registry(address, process)
    try:
        _wait_for(f"http://{address}/v2/")
        yield running
    finally:
        running.end()


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            urllib.request.urlopen(url, timeout=READY_SECONDS).close()
        except urllib.error.URLError:
            assert time.monotonic() < deadline, "the registry does not answer"
            time.sleep(0.05)
        else:
            return


def write_layout(folder: Path, layers: Sequence[bytes], config: Mapping[str, Any] | None = None) -> Path:
    """Write an image as an OCI layout: its layers are plain tars."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def add(data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    kind = "application/vnd.oci.image"
    described = [add(layer, f"{kind}.layer.v1.tar") for layer in layers]
    rootfs = {"type": "layers", "diff_ids": [layer["digest"] for layer in described]}
    whole = {"architecture": "amd64", "os": "linux", "rootfs": rootfs, "config": dict(config or {})}
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": add(json.dumps(whole).encode(), f"{kind}.config.v1+json"),
        "layers": described,
    }
    index = {"schemaVersion": 2, "manifests": [add(json.dumps(manifest).encode(), f"{kind}.manifest.v1+json")]}
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder


def layer(files: Mapping[str, bytes | str], modes: Mapping[str, int] | None = None) -> bytes:
    """Make a tar: bytes are files, texts that begin with `->` symbolic links, and empty texts directories."""
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
