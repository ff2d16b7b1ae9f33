# SPDX-License-Identifier: Apache-2.0
"""Measures `msb pull` beside `skopeo copy` and `umoci unpack` of the same image, from a registry on loopback.

    python e2e/bench_pull.py [--pairs 7] [--json FILE]

Needs msb (MSB_PROFILE names the build), docker-registry, skopeo and umoci, and root. The two take turns, each into a
folder of its own that was not there before. What one leaves in the page cache is on the disk before the other begins:
msb waits for the disk and the others do not, so it would pay for them too. All is removed at the end only: ext4 without
a journal takes a hundred times as long to make a file for a minute after many were removed.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from host import PROGRAMS, TARGET, clean_environment
from registries import Gzipped, Registry, layout, skopeo

PAIRS_MIN = 7
GOAL = 1.5
OURS = "msb pull"
THEIRS = "skopeo copy + umoci unpack"
# What each layer takes compressed, as images have them: a large one at the bottom, ever smaller ones above.
LAYER_BYTES = tuple(megabytes * 1_000_000 for megabytes in (20, 10, 6, 3, 1))
# The level that builders of images use.
GZIP_LEVEL = 6
BASE_IMAGES = TARGET / "base-images"
# Where files are taken from when no base image was built: what an image with Python has most of.
HOST_FOLDERS = ("/usr/lib/python3", "/usr/lib/python3.*", "/usr/share", "/usr/lib")
MTIME = 1735689600
STEP_SECONDS_MAX = 300


class Hashed(gzip.GzipFile):
    """Compresses, always to the same bytes, and hashes what it compresses."""

    def __init__(self, into: io.BytesIO) -> None:
        super().__init__("", "wb", GZIP_LEVEL, into, mtime=0)
        self.hash = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.hash.update(data)
        return super().write(data)


class Layer:
    """A layer that is being written."""

    def __init__(self) -> None:
        self.compressed = io.BytesIO()
        self._folders: set[PurePosixPath] = set()
        self._plain = Hashed(self.compressed)
        self._tar = tarfile.open(fileobj=self._plain, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115

    def add(self, entry: tarfile.TarInfo, content: bytes | None) -> None:
        """Add an entry, below folders that the layer has too, as builders do it."""
        path = PurePosixPath(entry.name)
        for folder in [*reversed(path.parents)][1:]:
            if folder not in self._folders:
                above = tarfile.TarInfo(str(folder))
                above.type, above.mode, above.mtime = tarfile.DIRTYPE, 0o755, MTIME
                self.add(above, None)
        if entry.isdir():
            if path in self._folders:
                return
            self._folders.add(path)
        self._tar.addfile(entry, None if content is None else io.BytesIO(content))

    def end(self) -> Gzipped:
        self._tar.close()
        self._plain.close()
        return Gzipped(self.compressed.getvalue(), f"sha256:{self._plain.hash.hexdigest()}")


def of_tar(path: Path) -> Iterator[tuple[tarfile.TarInfo, bytes | None]]:
    """Give the entries of a root file system; a hard link as another file, for its file may be in another layer."""
    with tarfile.open(path) as tar:
        for entry in tar:
            if entry.isreg() or entry.islnk():
                file = tar.extractfile(entry)
                assert file
                content = file.read()
                entry.type, entry.size, entry.linkname = tarfile.REGTYPE, len(content), ""
                yield entry, content
            elif entry.isdir() or entry.issym():
                yield entry, None


def of_host() -> Iterator[tuple[tarfile.TarInfo, bytes | None]]:
    """Give files of this machine, always in the same order, with nothing of them that differs between machines."""
    for pattern in HOST_FOLDERS:
        for folder in sorted(Path("/").glob(pattern.lstrip("/"))):
            for root, folders, names in os.walk(folder):
                folders.sort()
                for path in (Path(root, name) for name in sorted(names)):
                    entry = tarfile.TarInfo(str(path.relative_to("/")))
                    entry.mtime = MTIME
                    if path.is_symlink():
                        entry.type, entry.linkname = tarfile.SYMTYPE, str(path.readlink())
                        yield entry, None
                    elif path.is_file():
                        content = path.read_bytes()
                        entry.size, entry.mode = len(content), path.stat().st_mode & 0o755
                        yield entry, content


def layers(entries: Iterator[tuple[tarfile.TarInfo, bytes | None]]) -> Iterator[Gzipped]:
    """Fill one layer after the other; the same bytes for the same entries."""
    seen: set[str] = set()
    for most in LAYER_BYTES:
        layer = Layer()
        for entry, content in entries:
            if entry.name not in seen or entry.isdir():
                seen.add(entry.name)
                layer.add(entry, content)
            if layer.compressed.tell() >= most:
                break
        else:
            sys.exit("there are not enough files for the image; build one first: cargo xtask test e2e")
        yield layer.end()


def image(folder: Path) -> dict[str, object]:
    """Make the image as an OCI layout, and tell what is in it."""
    built = sorted(BASE_IMAGES.glob("python-*.tar"))
    made = list(layers(of_tar(built[0]) if built else of_host()))
    layout(folder, made, {})
    plain = [gzip.decompress(layer.content) for layer in made]
    return {
        "of": "msb image build-base python" if built else "files of this machine",
        "layers": len(made),
        "compressed_bytes": sum(len(layer.content) for layer in made),
        "unpacked_bytes": sum(len(tar) for tar in plain),
        "files": sum(len(tarfile.open(fileobj=io.BytesIO(tar)).getmembers()) for tar in plain),
    }


def run(*command: str | Path) -> None:
    done = subprocess.run(
        command,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=STEP_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"


def ours(name: str, into: Path) -> None:
    run(PROGRAMS / "msb", "pull", "--home", into, name)


def theirs(name: str, into: Path) -> None:
    into.mkdir()
    skopeo("copy", "--src-tls-verify=false", f"docker://{name}", f"oci:{into / 'layout'}:bench")
    run("umoci", "unpack", "--image", f"{into / 'layout'}:bench", into / "bundle")


def sample(pull: Callable[[str, Path], None], name: str, into: Path) -> float:
    """Return how long one pull takes, in seconds."""
    os.sync()
    began = time.perf_counter()
    pull(name, into)
    return time.perf_counter() - began


def measure(folder: Path, name: str, pairs: int) -> dict[str, list[float]]:
    """Return the samples of both, in seconds; each begins every other pair, and the first pair only warms up."""
    turns = [(OURS, ours), (THEIRS, theirs)]
    rows: dict[str, list[float]] = {OURS: [], THEIRS: []}
    for pair in range(pairs + 1):
        for row, pull in turns:
            taken = sample(pull, name, Path(tempfile.mkdtemp(dir=folder)) / "into")
            if pair > 0:
                rows[row].append(taken)
        turns.reverse()
    return rows


def report(rows: dict[str, list[float]], described: dict[str, object]) -> dict[str, object]:
    """Return everything that is known of this run."""
    medians = {row: statistics.median(taken) for row, taken in rows.items()}
    ratio = medians[OURS] / medians[THEIRS]
    return {
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "image": described,
        "pairs": len(rows[OURS]),
        "rows": {
            row: {"p50_s": round(medians[row], 3), "least_s": round(min(taken), 3), "most_s": round(max(taken), 3)}
            for row, taken in rows.items()
        },
        "ratio": round(ratio, 3),
        "goal": f"p50 at most {GOAL} times {THEIRS}",
        "reached": ratio <= GOAL,
    }


def show(found: dict[str, object]) -> None:
    described, rows = found["image"], found["rows"]
    assert isinstance(described, dict)
    assert isinstance(rows, dict)
    print(
        f"an image of {described['compressed_bytes'] / 1e6:.1f} MB in {described['layers']} layers "
        f"({described['files']} entries, {described['unpacked_bytes'] / 1e6:.0f} MB unpacked; {described['of']})"
    )
    print(f"kernel {found['kernel']}  {found['cores']} cores  {found['pairs']} pairs")
    print(f"{'':28}{'p50':>9}{'least':>9}{'most':>9}")
    for row, numbers in rows.items():
        print(f"{row:28}" + "".join(f"{numbers[key]:>7.2f} s" for key in ("p50_s", "least_s", "most_s")))
    verdict = "reached" if found["reached"] else "NOT reached"
    print(f"ratio of the p50s: {found['ratio']:.2f}  {found['goal']}: {verdict}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=PAIRS_MIN, help=f"pairs of samples, at least {PAIRS_MIN}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    options = parser.parse_args()
    if options.pairs < PAIRS_MIN:
        parser.error(f"--pairs must be at least {PAIRS_MIN}: fewer say nothing about the middle")
    for program in ("docker-registry", "skopeo", "umoci"):
        if not shutil.which(program):
            parser.error(f"{program} is needed: Debian's package of that name")
    with tempfile.TemporaryDirectory(dir=TARGET, prefix="bench-pull-") as scratch:
        folder = Path(scratch)
        described = image(folder / "layout")
        registry = Registry.start(folder / "registry")
        try:
            registry.fill(folder / "layout", "bench/image:1")
            found = report(measure(folder, f"{registry.address}/bench/image:1", options.pairs), described)
        finally:
            registry.end()
    show(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
