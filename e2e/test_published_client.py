# SPDX-License-Identifier: Apache-2.0
"""The unchanged client from the package index, in a virtual environment of its own, works against this server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from host import TARGET, Server

VERSION = "0.1.8"
VENV = TARGET / f"venv-{VERSION}"


@pytest.fixture(scope="module")
def published_python() -> Path:
    """Give the interpreter of a virtual environment with the published client; made when it is not there."""
    python = VENV / "bin" / "python"
    ready = VENV / "ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"microsandbox=={VERSION}"]
        subprocess.run(install, check=True)
        ready.touch()
    return python


@pytest.fixture(scope="module")
def found(server: Server, published_python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Give what the client saw."""
    script = Path(__file__).with_name("published_client.py")
    environment = {"PATH": os.environ["PATH"], "MSB_SERVER_URL": server.url}
    ended = subprocess.run(
        [published_python, script],
        env=environment,
        cwd=tmp_path_factory.mktemp("published"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_it_is_the_published_one(found: dict[str, Any]) -> None:
    assert found["version"] == VERSION


def test_quick_start(found: dict[str, Any]) -> None:
    assert found["hello"] == "Hello, World!"
    assert found["hello has_error"] is False
    assert (found["status"], found["language"]) == ("success", "python")


def test_state(found: dict[str, Any]) -> None:
    assert found["state"] == "Result: 84"


def test_errors(found: dict[str, Any]) -> None:
    assert found["error has_error"] is True
    assert found["error"].startswith("Traceback (most recent call last):")
    assert found["error"].endswith("ZeroDivisionError: division by zero")
    assert found["after"] == "next"


def test_commands(found: dict[str, Any]) -> None:
    assert found["command"] == ["out", "err", 3, False]
    assert found["command asked"] == ["sh", ["-c", "echo out; echo err >&2; exit 3"]]
    assert found["timeout"].startswith("Failed to execute command: ")
    assert 1 <= found["timeout seconds"] < 5
    assert found["missing"].startswith("Failed to execute command: ")
    assert "no-such-program" in found["missing"]
    assert found["command after"] == "next"


def test_metrics(found: dict[str, Any]) -> None:
    assert found["cpu"] is None or found["cpu"] >= 0
    assert found["memory"] >= 1
    assert found["disk"] >= 0
    assert found["running"] is True
    assert found["all"]["name"] == "published-metrics"
    assert found["all"]["running"] is True


def test_node(found: dict[str, Any]) -> None:
    assert found["node"] == "Hello from Node.js! 40"
    has_error, error = found["node error"]
    assert has_error is True
    assert "boom" in error


def test_manual_life_cycle(found: dict[str, Any]) -> None:
    assert found["manual"] == "manual"
