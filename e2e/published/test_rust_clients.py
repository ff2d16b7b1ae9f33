# SPDX-License-Identifier: Apache-2.0
"""The unchanged Rust clients of the registry, in a program of ours for each, work with this server."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from host import Server
from installs import TEST_SECONDS, rust_program, session
from tee import Exchange, tee

pytestmark = pytest.mark.timeout(TEST_SECONDS)

KEY = "msb_from_the_environment"
NOT_STARTED = ["NotStarted", "Sandbox is not started. Call start() first."]
REFUSED = "Failed to communicate with Microsandbox server: "


@dataclass(frozen=True)
class Version:
    """What one version of the client calls things."""

    number: str
    images: tuple[str, str]
    javascript: str
    command: str

    def __str__(self) -> str:
        return self.number


FIRST = Version("0.1.1", ("appcypher/msb-python", "appcypher/msb-nodejs"), "node", "sandbox.command.execute")
SECOND = Version("0.1.2", ("microsandbox/python", "microsandbox/node"), "javascript", "sandbox.command.run")


@dataclass
class Session:
    """What one client saw, and what went to and fro for it."""

    version: Version
    found: dict[str, Any]
    exchanges: list[Exchange]


@pytest.fixture(scope="module")
def sessions(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Version], Session]:
    """Give what one version of the client saw; it is built and run when it is asked for first."""

    @cache
    def of(version: Version) -> Session:
        program = rust_program(version.number)
        with tee(server.url) as between:
            environment = {"MSB_SERVER_URL": between.url, "MSB_API_KEY": KEY}
            found = session([program], environment, tmp_path_factory.mktemp("published"))
        return Session(version, found, between.exchanges())

    return of


@pytest.fixture(params=[FIRST, SECOND], ids=str)
def client(request: pytest.FixtureRequest, sessions: Callable[[Version], Session]) -> Session:
    return sessions(request.param)


def printed(output: str, language: str = "python") -> dict[str, Any]:
    """Say what a client sees of an execution that went well."""
    return {"output": output, "error": "", "has_error": False, "status": "success", "language": language}


def test_code_runs_and_its_variables_are_kept(client: Session) -> None:
    assert client.found["hello"] == printed("Hello, World!")
    assert client.found["silent"] == printed("")
    assert client.found["state"] == printed("Result: 84")


def test_an_error_is_seen_as_one_and_the_sandbox_lives_on(client: Session) -> None:
    raised = client.found["raised"]
    assert (raised["output"], raised["has_error"], raised["status"]) == ("before", True, "error")
    assert raised["error"].startswith("Traceback (most recent call last):")
    assert raised["error"].endswith("ZeroDivisionError: division by zero")
    assert client.found["after"] == printed("42")


def test_a_line_on_standard_error_is_an_error_to_these_clients(client: Session) -> None:
    assert client.found["warned"] == {**printed("done"), "error": "careful", "has_error": True}


def test_text_arrives_as_it_was_written(client: Session) -> None:
    assert client.found["unicode"] == printed("héllo 你好 🎉 10")
    assert client.found["layout"] == printed("  a\n\n b  ")
    assert client.found["large"] == [20_000, "0 " + "x" * 30, "19999 " + "x" * 30, False]


def test_a_sandbox_is_started_and_stopped_by_whoever_knows_its_name(client: Session) -> None:
    found = client.found
    assert found["before the start"] == found["stopped, and known"] == NOT_STARTED
    for refused, named in (("no such image", "no-such-image"), ("stopped, and unknown", "published-life")):
        kind, text = found[refused]
        assert kind == "RequestFailed"
        assert text.startswith(REFUSED)
        assert named in text
    assert found["started twice"] == printed("kept")
    assert found["started again"] == printed("False")
    assert found["other namespace"] == printed("elsewhere")


def test_a_command_gives_both_streams_and_its_exit_code(client: Session) -> None:
    assert client.found["command"] == ["out", "err", 3, False]
    assert client.found["command asked"] == ["sh", ["-c", "echo out; echo err >&2; exit 3"]]


def test_a_command_that_fails_to_run_is_an_error_and_the_sandbox_lives_on(client: Session) -> None:
    found = client.found
    for refused, words in (("timeout", "command timed out"), ("missing", "no-such-program")):
        kind, text = found[refused]
        assert kind == "RequestFailed"
        assert words in text
    assert 1 <= found["timeout seconds"] < 5
    assert found["command after"] == ["", 0, True, []]
    assert found["state after commands"] == "42"


@pytest.mark.parametrize("client", [SECOND], indirect=True, ids=str)
def test_metrics_are_those_of_the_sandbox_and_whole_numbers(client: Session) -> None:
    running, cpu, memory, disk = client.found["metrics"]
    assert running is True
    assert cpu is None or cpu >= 0
    # Its `as_u64` makes nothing of a number with a fraction.
    assert (type(memory), type(disk)) == (int, int)
    assert memory >= 1
    raw = client.found["raw metrics"]
    assert (raw["namespace"], raw["name"], raw["running"]) == ("default", "published-running", True)


def test_javascript_runs_too(client: Session) -> None:
    language = client.version.javascript
    assert client.found["node"] == printed("Hello from Node.js! 40", language)
    raised = client.found["node raised"]
    assert (raised["has_error"], raised["status"], raised["language"]) == (True, "error", language)
    assert "boom" in raised["error"]
    assert client.found["node after"] == printed("20", language)


def test_it_sends_the_names_of_its_time(client: Session) -> None:
    version, exchanges = client.version, client.exchanges
    methods = {"sandbox.start", "sandbox.repl.run", version.command, "sandbox.stop"}
    if version is SECOND:
        methods.add("sandbox.metrics.get")
    assert {exchange.method for exchange in exchanges} == methods
    images = {each.params["config"]["image"] for each in exchanges if each.method == "sandbox.start"}
    assert images == {*version.images, "no-such-image"}
    languages = {each.params["language"] for each in exchanges if each.method == "sandbox.repl.run"}
    assert languages == {"python", version.javascript}


def test_the_second_start_of_a_running_sandbox_reaches_the_server_and_succeeds(client: Session) -> None:
    calls = [each for each in client.exchanges if each.params["sandbox"] == "published-life"]
    starts = [each for each in calls if each.method == "sandbox.start"]
    asked = [each.params["config"] for each in starts]
    image = client.version.images[0]
    assert asked[1] == asked[2] == {"image": image, "memory": 256, "cpus": 2}
    assert "error" in starts[0].answer.body
    for start in starts[1:]:
        assert start.answer.body["result"].startswith("Sandbox published-life started successfully")


def test_its_key_goes_with_every_call(client: Session) -> None:
    unnamed = {each.params["sandbox"] for each in client.exchanges if each.params["namespace"] == "published"}
    assert len(unnamed) == 1
    assert re.fullmatch("sandbox-[0-9a-f]{8}", *unnamed)
    for exchange in client.exchanges:
        key = "msb_of_its_own" if exchange.params["sandbox"] in unnamed else KEY
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
