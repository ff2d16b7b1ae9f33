# SPDX-License-Identifier: Apache-2.0
"""The unchanged clients of the registries work with this server, each as its users would use it."""

from __future__ import annotations

import re
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from host import Server, need_everything
from keys import keygen
from published.installs import (
    CLIENT_SECONDS,
    TEST_SECONDS,
    python_environments,
    python_of,
    python_program,
    rust_program,
    rust_source,
    session,
)
from published.tee import Exchange, tee
from published.versions import MISSING, PYTHON, WORKING, Version

pytestmark = pytest.mark.timeout(TEST_SECONDS)


@dataclass
class Client:
    """One version of a client: what its user saw, and what went over the wire."""

    version: Version
    found: dict[str, Any]
    exchanges: list[Exchange]
    keys: dict[str, str]

    def sent(self, method: str, sandbox: str | None = None) -> list[Exchange]:
        calls = [exchange for exchange in self.exchanges if exchange.method == method]
        return [call for call in calls if sandbox in {None, call.params["sandbox"]}]


@pytest.fixture(scope="module")
def environments() -> dict[str, Path]:
    """Give an environment for each version of the Python client."""
    numbers = {version.number for version in WORKING if version.kind is PYTHON}
    return python_environments(sorted(numbers | set(MISSING)))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give a server that asks for keys."""
    need_everything()
    server = Server.start(tmp_path_factory.mktemp("guarded") / "home", "--allow-host-image", dev=False)
    yield server
    server.end()


@pytest.fixture(scope="module")
def clients(
    guarded: Server, environments: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Version], Client]:
    """Give what came of one version of a client; it is run when it is asked for first.

    It has two keys, each for one of the namespaces that it uses.
    """
    keys = {namespace: keygen(guarded.home, "-n", namespace).text for namespace in ("default", "published")}

    @cache
    def of(version: Version) -> Client:
        if version.kind is PYTHON:
            command, variables = python_program(environments[version.number], version.options)
        else:
            command, variables = [rust_program(version.number)], {}
        with tee(guarded.url) as between:
            variables |= {"MSB_SERVER_URL": between.url, "MSB_API_KEY": keys["default"], "OWN_KEY": keys["published"]}
            found = session(command, variables, tmp_path_factory.mktemp("published"))
        return Client(version, found, between.exchanges(), keys)

    return of


@pytest.fixture(params=WORKING, ids=str)
def client(request: pytest.FixtureRequest, clients: Callable[[Version], Client]) -> Client:
    return clients(request.param)


def those_with(ability: str) -> pytest.MarkDecorator:
    """Run a test for the versions that can do something."""
    versions = [version for version in WORKING if getattr(version, ability)]
    return pytest.mark.parametrize("client", versions, indirect=True, ids=str)


def printed(output: str, language: str = "python") -> dict[str, Any]:
    """Say what a client sees of an execution that went well."""
    return {"output": output, "error": "", "has_error": False, "status": "success", "language": language}


@pytest.mark.parametrize(("number", "module"), MISSING.items())
def test_three_python_clients_cannot_be_imported_as_they_come(
    environments: dict[str, Path], number: str, module: str
) -> None:
    command = [python_of(environments[number]), "-c", "import microsandbox"]
    ended = subprocess.run(command, env={}, capture_output=True, text=True, timeout=CLIENT_SECONDS, check=False)
    assert ended.returncode == 1
    assert ended.stderr.rstrip().endswith(f"ModuleNotFoundError: No module named '{module}'")


def test_it_is_the_published_one(client: Client) -> None:
    number = client.version.number
    if client.version.kind is PYTHON:
        assert client.found["version"] == number
    else:  # it is built by its lock file and nothing else
        lock = (rust_source(number) / "Cargo.lock").read_text(encoding="utf-8")
        assert f'name = "microsandbox"\nversion = "{number}"\nsource = "registry+' in lock


def test_code_runs_and_its_variables_are_kept(client: Client) -> None:
    assert client.found["hello"] == printed("Hello, World!")
    assert client.found["silent"] == printed("")
    assert client.found["state"] == printed("Result: 84")


def test_an_error_is_seen_as_one_and_the_sandbox_lives_on(client: Client) -> None:
    raised, syntax = client.found["raised"], client.found["syntax"]
    assert (raised["output"], raised["has_error"], raised["status"]) == ("before", True, "error")
    assert raised["error"].startswith("Traceback (most recent call last):")
    assert raised["error"].endswith("ZeroDivisionError: division by zero")
    assert (syntax["output"], syntax["has_error"], syntax["status"]) == ("", True, "error")
    assert "SyntaxError" in syntax["error"]
    assert client.found["after"] == printed("42")


def test_a_line_on_standard_error_is_an_error_to_these_clients(client: Client) -> None:
    assert client.found["warned"] == {**printed("done"), "error": "careful", "has_error": True}


def test_text_arrives_as_it_was_written(client: Client) -> None:
    assert client.found["unicode"] == printed("héllo 你好 🎉 10")
    assert client.found["layout"] == printed(client.version.kind.layout)
    assert client.found["large"] == [20_000, "0 " + "x" * 30, "19999 " + "x" * 30, False]


def test_a_sandbox_is_started_and_stopped_by_whoever_knows_its_name(client: Client) -> None:
    found, kind = client.found, client.version.kind
    not_started = [kind.not_started, "Sandbox is not started. Call start() first."]
    assert found["before the start"] == found["stopped, and known"] == not_started
    for refused, prefix, named in (
        (found["no such image"], kind.prefixes[0], "no-such-image"),
        (found["stopped, and unknown"], kind.prefixes[1], "published-life"),
    ):
        error, text = refused
        assert error == kind.refused
        assert text.startswith(prefix)
        assert named in text
    assert found["started twice"] == printed("kept")
    assert found["started again"] == printed("False")
    assert found["other namespace"] == printed("elsewhere")


@those_with("command")
def test_a_command_gives_both_streams_and_its_exit_code(client: Client) -> None:
    assert client.found["command"] == ["out", "err", 3, False]
    assert client.found["command asked"] == ["sh", ["-c", "echo out; echo err >&2; exit 3"]]


@those_with("command")
def test_a_command_that_fails_to_run_is_an_error_and_the_sandbox_lives_on(client: Client) -> None:
    found, kind = client.found, client.version.kind
    for refused, words in (("timeout", "command timed out"), ("missing", "no-such-program")):
        error, text = found[refused]
        assert error == kind.refused
        assert text.startswith(kind.prefixes[2])
        assert words in text
    assert 1 <= found["timeout seconds"] < 5
    assert found["command after"] == ["", 0, True, []]
    assert found["state after commands"] == "42"


@those_with("metrics")
def test_metrics_are_those_of_the_sandbox_and_whole_numbers(client: Client) -> None:
    running, cpu, memory, disk = client.found["metrics"]
    assert running is True
    assert cpu is None or cpu >= 0
    assert (type(memory), type(disk)) == (int, int)
    assert memory >= 1
    raw = client.found["raw metrics"]
    assert (raw["namespace"], raw["name"], raw["running"]) == ("default", "published-running", True)


@those_with("javascript")
def test_javascript_runs_too(client: Client) -> None:
    language = client.version.javascript
    assert client.found["node"] == printed("Hello from Node.js! 40", language)
    raised = client.found["node raised"]
    assert (raised["has_error"], raised["status"], raised["language"]) == (True, "error", language)
    assert "boom" in raised["error"]
    assert client.found["node after"] == printed("20", language)


def test_it_sends_the_names_of_its_time(client: Client) -> None:
    version = client.version
    methods = {"sandbox.start", "sandbox.repl.run", version.command, version.metrics, "sandbox.stop"} - {None}
    assert {exchange.method for exchange in client.exchanges} == methods
    images = {call.params["config"]["image"] for call in client.sent("sandbox.start")}
    assert images == {*version.images[: 2 if version.javascript else 1], "no-such-image"}
    languages = {call.params["language"] for call in client.sent("sandbox.repl.run")}
    assert languages == {"python", version.javascript} - {""}


def test_the_second_start_of_a_running_sandbox_reaches_the_server_and_succeeds(client: Client) -> None:
    refused, first, second, *_ = client.sent("sandbox.start", "published-life")
    assert "error" in refused.answer.body
    config = {"image": client.version.images[0], "memory": 256, "cpus": 2}
    assert first.params["config"] == second.params["config"] == config
    for start in (first, second):
        assert start.answer.body["result"].startswith("Sandbox published-life started successfully")


def test_its_key_goes_with_every_call(client: Client) -> None:
    unnamed = {call.params["sandbox"] for call in client.exchanges if call.params["namespace"] == "published"}
    assert len(unnamed) == 1
    assert re.fullmatch("sandbox-[0-9a-f]{8}", *unnamed)
    for exchange in client.exchanges:
        key = client.keys["published" if exchange.params["sandbox"] in unnamed else "default"]
        assert exchange.request.headers["authorization"] == f"Bearer {key}"
        assert exchange.request.first_line == "POST /api/v1/rpc HTTP/1.1"


def test_answers_have_the_shape_that_it_looks_for(client: Client) -> None:
    for exchange in client.exchanges:
        status, body = exchange.answer.first_line.split()[1], exchange.answer.body
        if status == "200":
            assert body == {"jsonrpc": "2.0", "result": body["result"], "id": exchange.request.body["id"]}
            assert uuid.UUID(body["id"])
        else:
            assert "result" not in body
            assert isinstance(body["error"], str)
