# SPDX-License-Identifier: Apache-2.0
"""The unchanged Python clients of the package index, each in an environment of its own, work with this server."""

from __future__ import annotations

import re
import subprocess
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from host import Server
from installs import CLIENT_SECONDS, HERE, TEST_SECONDS, beside, python_environments, python_of, session
from tee import Exchange, tee

pytestmark = pytest.mark.timeout(TEST_SECONDS)

KEY = "msb_from_the_environment"
OLD_IMAGES = {"python": "appcypher/msb-python", "node": "appcypher/msb-nodejs"}
NEW_IMAGES = {"python": "microsandbox/python", "node": "microsandbox/node"}


@dataclass(frozen=True)
class Version:
    """What one version of the client calls things, and what it can do besides running Python."""

    number: str
    name: str
    can: tuple[str, ...] = ()
    images: str = "old"
    command: str = "sandbox.command.execute"
    metrics: str = "sandbox.getStatus"

    def __str__(self) -> str:
        return self.number


WORKING = (
    Version("0.1.2", "sandbox_name"),
    Version("0.1.3", "sandbox_name"),
    Version("0.1.4", "sandbox_name", ("command", "status")),
    Version("0.1.5", "sandbox_name", ("command", "status", "node")),
    Version("0.1.6", "name", ("command", "status", "node")),
    Version("0.1.8", "name", ("command", "metrics", "node"), "new", "sandbox.command.run", "sandbox.metrics.get"),
)
# What is imported and neither in the client nor among what it asks for.
MISSING = {"0.1.2": "dotenv", "0.1.3": "dotenv", "0.1.7": "microsandbox.metrics"}


@dataclass
class Session:
    """What one client saw, and what went to and fro for it."""

    version: Version
    found: dict[str, Any]
    exchanges: list[Exchange]

    def sent(self, method: str) -> list[Exchange]:
        return [exchange for exchange in self.exchanges if exchange.method == method]


@pytest.fixture(scope="module")
def environments() -> dict[str, Path]:
    return python_environments(sorted({version.number for version in WORKING} | set(MISSING)))


def variables(folder: Path) -> dict[str, str]:
    """Give what a version is to find in its environment: what it forgot to ask for, if that is something."""
    return {"PYTHONPATH": str(beside(folder))} if beside(folder).exists() else {}


@pytest.fixture(scope="module")
def sessions(
    server: Server, environments: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Version], Session]:
    """Give what one version of the client saw; it is run when it is asked for first."""

    @cache
    def of(version: Version) -> Session:
        folder = environments[version.number]
        command = [python_of(folder), HERE / "python_client.py", version.name, *version.can]
        with tee(server.url) as between:
            environment = {"MSB_SERVER_URL": between.url, "MSB_API_KEY": KEY, **variables(folder)}
            found = session(command, environment, tmp_path_factory.mktemp("published"))
        return Session(version, found, between.exchanges())

    return of


@pytest.fixture(params=WORKING, ids=str)
def client(request: pytest.FixtureRequest, sessions: Callable[[Version], Session]) -> Session:
    return sessions(request.param)


def those_with(*abilities: str) -> pytest.MarkDecorator:
    """Run a test for the versions that can do one of these."""
    versions = [version for version in WORKING if set(abilities) & set(version.can)]
    return pytest.mark.parametrize("client", versions, indirect=True, ids=str)


def printed(output: str, language: str = "python") -> dict[str, Any]:
    """Say what a client sees of an execution that went well."""
    return {"output": output, "error": "", "has_error": False, "status": "success", "language": language}


@pytest.mark.parametrize(("number", "module"), MISSING.items())
def test_three_versions_cannot_even_be_imported_as_they_come(
    environments: dict[str, Path], number: str, module: str
) -> None:
    command = [python_of(environments[number]), "-c", "import microsandbox"]
    ended = subprocess.run(command, env={}, capture_output=True, text=True, timeout=CLIENT_SECONDS, check=False)
    assert ended.returncode == 1
    assert ended.stderr.rstrip().endswith(f"ModuleNotFoundError: No module named '{module}'")


def test_it_is_the_published_one(client: Session) -> None:
    assert client.found["version"] == client.version.number


def test_code_runs_and_its_variables_are_kept(client: Session) -> None:
    assert client.found["hello"] == printed("Hello, World!")
    assert client.found["state"] == printed("Result: 84")
    assert client.found["silent"] == printed("")


def test_an_error_is_seen_as_one_and_the_sandbox_lives_on(client: Session) -> None:
    raised, syntax = client.found["raised"], client.found["syntax"]
    assert (raised["output"], raised["has_error"], raised["status"]) == ("before", True, "error")
    assert raised["error"].startswith("Traceback (most recent call last):")
    assert raised["error"].endswith("ZeroDivisionError: division by zero")
    assert (syntax["output"], syntax["has_error"], syntax["status"]) == ("", True, "error")
    assert "SyntaxError" in syntax["error"]
    assert client.found["after"] == printed("42")


def test_a_line_on_standard_error_is_an_error_to_these_clients(client: Session) -> None:
    assert client.found["warned"] == {**printed("done"), "error": "careful", "has_error": True}


def test_text_arrives_as_it_was_written(client: Session) -> None:
    assert client.found["unicode"] == printed("héllo 你好 🎉 10")
    assert client.found["layout"] == printed("  a\n\n b")
    assert client.found["large"] == [20_000, "0 " + "x" * 30, "19999 " + "x" * 30, False]


def test_a_sandbox_is_started_and_stopped_by_whoever_knows_its_name(client: Session) -> None:
    found = client.found
    assert found["before the start"] == "Sandbox is not started. Call start() first."
    assert found["no such image"].startswith("Failed to start sandbox: ")
    assert "no-such-image" in found["no such image"]
    assert found["started twice"] == printed("kept")
    assert found["stopped, and known"] == "Sandbox is not started. Call start() first."
    assert found["stopped, and unknown"].startswith("Failed to execute code: ")
    assert "published-life" in found["stopped, and unknown"]
    assert found["started again"] == printed("False")
    assert found["other namespace"] == printed("elsewhere")


@those_with("command")
def test_a_command_gives_both_streams_and_its_exit_code(client: Session) -> None:
    assert client.found["command"] == ["out", "err", 3, False]
    assert client.found["command asked"] == ["sh", ["-c", "echo out; echo err >&2; exit 3"]]


@those_with("command")
def test_a_command_that_fails_to_run_is_a_runtime_error_and_the_sandbox_lives_on(client: Session) -> None:
    found = client.found
    assert found["timeout"].startswith("Failed to execute command: ")
    assert "command timed out" in found["timeout"]
    assert 1 <= found["timeout seconds"] < 5
    assert found["missing"].startswith("Failed to execute command: ")
    assert "no-such-program" in found["missing"]
    assert found["command after"] == ["", 0, True, []]
    assert found["state after commands"] == "42"


@those_with("status", "metrics")
def test_metrics_are_those_of_the_sandbox_and_whole_numbers(client: Session) -> None:
    running, cpu, memory, disk = client.found["metrics"]
    assert running is True
    assert cpu is None or cpu >= 0
    assert (type(memory), type(disk)) == (int, int)
    assert memory >= 1
    raw = client.found["raw metrics"]
    assert (raw["namespace"], raw["name"], raw["running"]) == ("default", "published-running", True)


@those_with("node")
def test_javascript_runs_too(client: Session) -> None:
    assert client.found["node"] == printed("Hello from Node.js! 40", "nodejs")
    raised = client.found["node raised"]
    assert (raised["has_error"], raised["status"]) == (True, "error")
    assert "boom" in raised["error"]
    assert client.found["node after"] == printed("20", "nodejs")


def test_it_sends_the_names_of_its_time(client: Session) -> None:
    version = client.version
    images = OLD_IMAGES if version.images == "old" else NEW_IMAGES
    starts = {(each.params["sandbox"], each.params["config"]["image"]) for each in client.sent("sandbox.start")}
    assert ("published-running", images["python"]) in starts
    methods = {"sandbox.start", "sandbox.repl.run", "sandbox.stop"}
    if "command" in version.can:
        methods.add(version.command)
    if {"status", "metrics"} & set(version.can):
        methods.add(version.metrics)
    if "node" in version.can:
        assert ("published-node", images["node"]) in starts
    assert {exchange.method for exchange in client.exchanges} == methods
    unnamed = client.found["unnamed"]
    assert re.fullmatch("sandbox-[0-9a-f]{8}", unnamed)
    assert (unnamed, images["python"]) in starts


def test_the_second_start_of_a_running_sandbox_reaches_the_server_and_succeeds(client: Session) -> None:
    starts = [each for each in client.sent("sandbox.start") if each.params["sandbox"] == "published-life"]
    asked = [each.params["config"] for each in starts]
    image = (OLD_IMAGES if client.version.images == "old" else NEW_IMAGES)["python"]
    assert asked[1] == asked[2] == {"image": image, "memory": 256, "cpus": 2}
    results = [each.answer.body.get("result") for each in starts]
    assert results[0] is None
    for result in results[1:]:
        assert result.startswith("Sandbox published-life started successfully")


def test_its_key_goes_with_every_call(client: Session) -> None:
    for exchange in client.exchanges:
        own = exchange.params["sandbox"] == client.found["unnamed"]
        key = "msb_of_its_own" if own else KEY
        assert exchange.request.headers["authorization"] == f"Bearer {key}"
        assert exchange.request.first_line == "POST /api/v1/rpc HTTP/1.1"


def test_answers_have_the_shape_that_it_looks_for(client: Session) -> None:
    for exchange in client.exchanges:
        status, body = exchange.answer.first_line.split()[1], exchange.answer.body
        if status == "200":
            assert body == {"jsonrpc": "2.0", "result": body["result"], "id": exchange.request.body["id"]}
            assert uuid.UUID(body["id"])
        else:
            assert "result" not in body
            assert isinstance(body["error"], str)
