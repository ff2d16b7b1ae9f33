# SPDX-License-Identifier: Apache-2.0
"""The official Python client of MCP, 1.x and 2.x, unchanged and in virtual environments of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from host import TARGET, Server

TOOLS = [
    "sandbox_start",
    "sandbox_stop",
    "sandbox_run_code",
    "sandbox_run_command",
    "sandbox_get",
    "sandbox_get_metrics",
    "image_pull",
    "image_list",
    "image_inspect",
    "image_remove",
]


def client_python(version: str) -> Path:
    """Give the interpreter of a virtual environment with one version of the client; made when it is not there."""
    venv = TARGET / f"venv-mcp-{version}"
    python = venv / "bin" / "python"
    ready = venv / "ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"mcp=={version}"]
        subprocess.run(install, check=True)
        ready.touch()
    return python


@pytest.fixture(
    scope="module",
    params=[("1.30.0", "handshake"), ("2.3.0", "handshake"), ("2.3.0", "discover")],
    ids=["1.x", "2.x", "2.x without a handshake"],
)
def asked(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Give the version of the client and how it begins."""
    return request.param


@pytest.fixture(scope="module")
def found(server: Server, asked: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Give what the client saw."""
    version, beginning = asked
    script = Path(__file__).with_name("mcp_client.py")
    name = f"client-{version}-{beginning}".replace(".", "-")
    ended = subprocess.run(
        [client_python(version), script, f"{server.url}/mcp", name, beginning],
        env={"PATH": os.environ["PATH"]},
        cwd=tmp_path_factory.mktemp("mcp"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def result(said: dict[str, Any]) -> Any:
    """Return the JSON that is the text of a tool's answer, which must be no error."""
    assert said["isError"] is False, said
    return json.loads(said["text"])


def error(said: dict[str, Any]) -> str:
    """Return the text of a tool's error, which must name its cause's request."""
    assert said["isError"] is True, said
    assert said["text"].startswith("Error: ")
    assert "\nRequest id: " in said["text"]
    return said["text"]


def test_it_is_the_client_asked_for(found: dict[str, Any], asked: tuple[str, str]) -> None:
    assert found["version"] == asked[0]


def test_the_beginning(found: dict[str, Any], asked: tuple[str, str]) -> None:
    began = found["begin"]
    assert began["capabilities"] == {"prompts": {"listChanged": False}, "tools": {"listChanged": False}}
    assert "sandbox_start" in began["instructions"]
    if asked[1] == "discover":
        assert "2026-07-28" in began["supportedVersions"]
    else:
        assert began["protocolVersion"] == "2025-11-25"
        assert began["serverInfo"]["name"] == "microsandbox-server"
        assert found["ping"] == {}


def test_what_is_offered(found: dict[str, Any]) -> None:
    assert [tool["name"] for tool in found["tools"]] == TOOLS
    assert all(tool["inputSchema"]["type"] == "object" and tool["description"] for tool in found["tools"])
    assert [prompt["name"] for prompt in found["prompts"]] == ["create_python_sandbox", "create_node_sandbox"]
    assert "microsandbox/python" in found["prompt"]
    assert "not found" in found["resources"].lower() or "resources/list" in found["resources"]


def test_a_sandbox_is_used_through_tools(found: dict[str, Any]) -> None:
    assert "started successfully" in result(found["start"])
    run = result(found["run"])
    assert (run["status"], run["output"]) == ("success", [{"stream": "stdout", "text": "x is 42"}])
    assert result(found["state"])["output"][0]["text"] == "43"
    command = result(found["command"])
    assert (command["exit_code"], command["success"], command["output"][0]["text"]) == (3, False, "out")
    (metrics,) = result(found["metrics"])["sandboxes"]
    assert metrics["running"] is True
    assert metrics["memory_usage"] >= 1
    assert "stopped successfully" in result(found["stop"])


def test_code_that_raises_is_a_result(found: dict[str, Any]) -> None:
    raised = result(found["raised"])
    assert raised["status"] == "error"
    assert raised["output"][-1] == {"stream": "stderr", "text": "ZeroDivisionError: division by zero"}


def test_errors_say_what_to_do(found: dict[str, Any]) -> None:
    assert "What to do: start it with sandbox_start" in error(found["too early"])
    assert "no-such-program" in error(found["missing"])
    assert "'code'" in error(found["no code"])
    assert "sandbox_run_code" in found["unknown tool"]


def test_a_call_that_is_given_up_ends(found: dict[str, Any]) -> None:
    if found["version"].startswith("1."):
        assert "given up" not in found  # this client tells nobody that it does not wait any more
        return
    assert found["given up"] is not None
    assert result(found["after giving up"])["output"][0]["text"] == "free"
    assert found["after giving up seconds"] < 20
