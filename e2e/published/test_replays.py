# SPDX-License-Identifier: Apache-2.0
"""What those published clients send that neither registry has, and the shapes of the answers that they look for."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from conftest import Answer, Wire
from host import Server

# What a client sends that thinks of seconds and writes nanoseconds: half a minute.
HALF_A_MINUTE_NS = 30_000_000_000
LARGEST_U64 = 2**64 - 1

METRICS_KEYS = {"namespace", "name", "running", "cpu_usage", "memory_usage", "disk_usage"}


@dataclass
class Dialect:
    """How one client writes its calls."""

    wire: Wire
    name: str
    headers: dict[str, str]
    sends_id: bool

    async def send(self, method: str, **params: Any) -> Answer:
        """Send one call; what is `...` is left out."""
        params = {"namespace": "default", "sandbox": self.name, **params}
        call: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        call["params"] = {key: value for key, value in params.items() if value is not ...}
        if self.sends_id:
            call["id"] = str(uuid.uuid4())
        answer = await self.wire.send(data=json.dumps(call), headers=self.headers)
        if answer.status == 200:
            assert answer.headers["Content-Type"].split(";")[0] == "application/json"
            assert {key: value for key, value in answer.body.items() if key != "result"} == {
                key: value for key, value in call.items() if key not in {"method", "params"}
            }
        return answer

    async def result(self, method: str, **params: Any) -> Any:
        """Send one call that must succeed."""
        answer = await self.send(method, **params)
        assert answer.status == 200, answer.text
        return answer.body["result"]

    async def start(self, image: str) -> None:
        result = await self.result("sandbox.start", config={"image": image, "memory": 512, "cpus": 1})
        assert result.startswith(f"Sandbox {self.name} started successfully")

    async def run(self, code: str, language: str = "python", **params: Any) -> str:
        """Run code that must succeed, and give what it printed."""
        result = await self.result("sandbox.repl.run", language=language, code=code, **params)
        assert set(result) == {"status", "language", "output"}
        assert (result["status"], result["language"]) == ("success", language)
        assert all(set(line) == {"stream", "text"} for line in result["output"])
        return "\n".join(line["text"] for line in result["output"] if line["stream"] == "stdout")


def go(wire: Wire, name: str) -> Dialect:
    headers = {
        "User-Agent": "Go-http-client/1.1",
        "Content-Type": "application/json",
        "Authorization": "Bearer msb_any",
    }
    return Dialect(wire, name, headers, sends_id=False)


def javascript(wire: Wire, name: str) -> Dialect:
    headers = {"User-Agent": "node", "Content-Type": "application/json", "Accept": "*/*", "Accept-Language": "*"}
    return Dialect(wire, name, {**headers, "Sec-Fetch-Mode": "cors"}, sends_id=True)


def old_python(wire: Wire, name: str) -> Dialect:
    headers = {"User-Agent": "Python/3.11 aiohttp/3.10.11", "Content-Type": "application/json"}
    return Dialect(wire, name, headers, sends_id=True)


@pytest.fixture(params=[go, javascript, old_python], ids=lambda dialect: dialect.__name__)
async def any_client(request: pytest.FixtureRequest, server: Server, wire: Wire, name: str) -> AsyncIterator[Dialect]:
    """Give each client, with a Python sandbox that it has started under the image's name of its time."""
    client: Dialect = request.param(wire, name)
    await client.start("appcypher/msb-python" if request.param is old_python else "microsandbox/python")
    server.note_cgroups()
    yield client
    assert await client.result("sandbox.stop") == f"Sandbox {name} stopped successfully"


def only(*dialects: object) -> pytest.MarkDecorator:
    """Run a test for some of the clients."""
    return pytest.mark.parametrize("any_client", dialects, indirect=True, ids=lambda dialect: dialect.__name__)


async def test_code_keeps_its_variables(any_client: Dialect) -> None:
    assert not await any_client.run("x = 20")
    assert await any_client.run("print('ünïcode', x * 2)") == "ünïcode 40"


async def test_code_that_raises_is_an_answer_with_a_line_on_standard_error(any_client: Dialect) -> None:
    result = await any_client.result("sandbox.repl.run", language="python", code="1/0")
    assert result["status"] == "error"
    assert any(line["stream"] == "stderr" and line["text"] for line in result["output"])


@pytest.mark.parametrize("method", ["sandbox.command.run", "sandbox.command.execute"])
@pytest.mark.parametrize("arguments", [[], None, ...], ids=["empty", "null", "absent"])
async def test_a_command_without_arguments(any_client: Dialect, method: str, arguments: Any) -> None:
    result = await any_client.result(method, command="true", args=arguments)
    assert result == {"command": "true", "args": [], "exit_code": 0, "success": True, "output": []}


@pytest.mark.parametrize("timeout", [..., None, 30, HALF_A_MINUTE_NS, LARGEST_U64])
async def test_a_command_with_the_timeouts_that_clients_send(any_client: Dialect, timeout: Any) -> None:
    arguments = ["-c", "echo out; echo err >&2; exit 3"]
    result = await any_client.result("sandbox.command.run", command="sh", args=arguments, timeout=timeout)
    lines = sorted((line["stream"], line["text"]) for line in result.pop("output"))
    assert lines == [("stderr", "err"), ("stdout", "out")]
    assert result == {"command": "sh", "args": arguments, "exit_code": 3, "success": False}


async def test_a_command_that_cannot_be_run_is_a_flat_error_at_500(any_client: Dialect) -> None:
    for params in ({"command": "no-such-program"}, {"command": "sleep", "args": ["10"], "timeout": 1}):
        answer = await any_client.send("sandbox.command.run", **params)
        assert (answer.status, answer.body["code"]) == (500, 5002)
        assert isinstance(answer.body["error"], str)
        assert "result" not in answer.body
    assert await any_client.run("print('next')") == "next"


@pytest.mark.parametrize("method", ["sandbox.metrics.get", "sandbox.getStatus"])
@pytest.mark.parametrize("whole_namespace", [False, True])
async def test_metrics_are_whole_numbers_where_clients_decode_such(
    any_client: Dialect, method: str, whole_namespace: bool
) -> None:
    asked = {"sandbox": ...} if whole_namespace else {}
    result = await any_client.result(method, **asked)
    assert set(result) == {"sandboxes"}
    own = [sandbox for sandbox in result["sandboxes"] if sandbox["name"] == any_client.name]
    assert len(own) == 1
    if not whole_namespace:
        assert result["sandboxes"] == own
    for sandbox in result["sandboxes"]:
        assert set(sandbox) == METRICS_KEYS
        assert isinstance(sandbox["running"], bool)
        for key in ("memory_usage", "disk_usage"):
            assert sandbox[key] is None or (type(sandbox[key]) is int and sandbox[key] >= 0)
        assert sandbox["cpu_usage"] is None or type(sandbox["cpu_usage"]) in {int, float}
    assert (own[0]["namespace"], own[0]["running"]) == ("default", True)


async def test_the_second_start_and_the_second_stop_succeed(any_client: Dialect) -> None:
    await any_client.run("x = 'kept'")
    await any_client.start("microsandbox/python")
    assert await any_client.run("print(x)") == "kept"
    for _ in range(2):
        await any_client.result("sandbox.stop")
    answer = await any_client.send("sandbox.repl.run", language="python", code="1")
    assert (answer.status, answer.body["code"]) == (409, 4009)


@only(javascript)
async def test_the_timeout_of_a_run_is_in_its_result(any_client: Dialect) -> None:
    assert await any_client.run("print('in time')", timeout=30) == "in time"
    result = await any_client.result("sandbox.repl.run", language="python", code="while True: pass", timeout=1)
    assert result["status"] == "timeout"
    assert {"stream": "stderr", "text": "Error: Execution timed out after 1 second"} in result["output"]
    assert await any_client.run("print('next')") == "next"


@only(old_python)
async def test_code_without_a_namespace_runs_in_the_default_one(any_client: Dialect) -> None:
    await any_client.run("x = 'default'")
    assert await any_client.run("print(x)", namespace=...) == "default"


@pytest.mark.parametrize("image", ["microsandbox/node", "appcypher/msb-nodejs"])
async def test_every_name_of_javascript_is_one_engine_and_comes_back(wire: Wire, name: str, image: str) -> None:
    client = javascript(wire, name)
    await client.start(image)
    assert not await client.run("const x = 20", "nodejs")
    for language in ("nodejs", "node", "javascript"):
        assert await client.run("console.log('Hello', x * 2)", language) == "Hello 40"
    await client.result("sandbox.stop")
