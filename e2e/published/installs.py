# SPDX-License-Identifier: Apache-2.0
"""Installs the published clients as they come from their registries, once, below the target directory.

A Python client gets a virtual environment of its own; a Rust client is a dependency of a program of ours, built with a
lock file. What is there already is kept, so that a later run costs nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from host import TARGET, need
from published.versions import MISSING

HERE = Path(__file__).parent
INSTALLED = TARGET / "published"

# How long one client's installation or build may take, and a test that waits for it, in seconds.
INSTALL_SECONDS = 300
BUILD_SECONDS = 600
TEST_SECONDS = 900
# How long a program with a client may run, in seconds.
CLIENT_SECONDS = 120
# How many installations are made at the same time.
INSTALLS_AT_ONCE = 4

# What the first versions import without saying so, and where it is put: outside of what installing them gave.
UNDECLARED = "python-dotenv==1.2.4"
_UNDECLARED_FOLDER = "undeclared"


class NotInstalledError(Exception):
    """A client could not be had; the text says why."""


def python_environment(version: str) -> Path:
    """Give the folder of a virtual environment with one version of the Python client; made when it is not there."""
    folder = INSTALLED / f"python-{version}"
    stamp = folder / "ready"
    wanted = f"microsandbox {version}, {UNDECLARED}, Python {sys.version}"
    if stamp.exists() and stamp.read_text() == wanted:
        return folder
    _run([sys.executable, "-m", "venv", "--clear", "--without-pip", folder])
    pip = [sys.executable, "-m", "pip", "--python", python_of(folder), "--disable-pip-version-check", "install"]
    pip += ["--quiet", "--no-compile"]
    _run([*pip, f"microsandbox=={version}"])
    if MISSING.get(version) == "dotenv":
        _run([*pip, "--target", folder / _UNDECLARED_FOLDER, UNDECLARED])
    stamp.write_text(wanted)
    return folder


def python_of(folder: Path) -> Path:
    """Give the interpreter of a virtual environment."""
    return folder / "bin" / "python"


def python_program(folder: Path, options: Sequence[str]) -> tuple[list[str | Path], dict[str, str]]:
    """Give the command that runs our program in a virtual environment, and the variables that it needs."""
    undeclared = folder / _UNDECLARED_FOLDER
    variables = {"PYTHONPATH": str(undeclared)} if undeclared.exists() else {}
    return [python_of(folder), HERE / "python_client.py", *options], variables


def python_environments(versions: Sequence[str]) -> dict[str, Path]:
    """Give the environments of several versions, made side by side."""
    with ThreadPoolExecutor(INSTALLS_AT_ONCE) as pool:
        try:
            return dict(zip(versions, pool.map(python_environment, versions), strict=True))
        except NotInstalledError as error:
            need(False, f"the published Python clients could not be installed: {error}")
            raise


def rust_source(version: str) -> Path:
    """Give the folder of our program with one version of the Rust client."""
    return HERE / f"rust_{version.replace('.', '_')}"


def rust_program(version: str) -> Path:
    """Give our program with one version of the Rust client; cargo builds what is not there.

    All versions are built in one folder: what they depend on is the same.
    """
    need(shutil.which("cargo"), "cargo is needed to build the published Rust clients")
    source = rust_source(version)
    build = ["cargo", "build", "--quiet", "--locked", "--manifest-path", source / "Cargo.toml"]
    try:
        _run([*build, "--target-dir", INSTALLED / "rust"], BUILD_SECONDS)
    except NotInstalledError as error:
        need(False, f"the program with the published Rust client {version} could not be built: {error}")
    return INSTALLED / "rust" / "debug" / source.name


def session(command: Sequence[str | Path], environment: dict[str, str], folder: Path) -> Any:
    """Run a program with a client in an empty folder, and give what it printed as JSON."""
    environment = {"PATH": os.environ["PATH"], **environment}
    options: dict[str, Any] = {"env": environment, "cwd": folder, "capture_output": True, "text": True}
    ended = subprocess.run(command, **options, timeout=CLIENT_SECONDS, check=False)
    if ended.returncode != 0:
        pytest.fail(f"the client ended with {ended.returncode}:\n{ended.stderr}")
    return json.loads(ended.stdout)


def _run(command: Sequence[str | Path], seconds: float = INSTALL_SECONDS) -> None:
    """Run one step of an installation."""
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds)
    except subprocess.CalledProcessError as error:
        raise NotInstalledError(error.stderr.strip()[-2000:]) from error
    except subprocess.TimeoutExpired as error:
        raise NotInstalledError(f"it took more than {seconds} seconds") from error
