# SPDX-License-Identifier: Apache-2.0
"""The Model Context Protocol at `/mcp`, over plain HTTP: one POST, one answer in JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from conformance.guest import PYTHON, Guest, out
from conformance.rows import case, row
from conftest import Answer, Wire

ACCEPT = {"Accept": "application/json, text/event-stream"}
TARGET = ["sandbox", "namespace"]
CONFIG = ["image", "memory", "cpus", "volumes", "ports", "envs"]


async def post(wire: Wire, message: dict[str, Any]) -> Answer:
    return await wire.send(path="/mcp", json={"jsonrpc": "2.0", **message}, headers=ACCEPT)


async def ask(wire: Wire, method: str, **params: object) -> dict[str, Any]:
    """Make one request, and return the message that answers it."""
    answer = await post(wire, {"id": 1, "method": method, "params": params})
    assert answer.status == 200, answer.text
    assert answer.body["id"] == 1
    return answer.body


async def use(wire: Wire, tool: str, **arguments: object) -> tuple[bool, str]:
    """Call a tool; return whether it says that it failed, and its one text."""
    answer = await ask(wire, "tools/call", name=tool, arguments=arguments)
    result = answer["result"]
    (item,) = result["content"]
    assert item["type"] == "text"
    return result.get("isError", False), item["text"]


async def used(guest: Guest, tool: str, **arguments: object) -> Any:
    """Call a tool about a sandbox, which must succeed; return the result in its text."""
    failed, text = await use(guest.wire, tool, **{**guest.target, **arguments})
    assert not failed, text
    result = json.loads(text)
    assert isinstance(result, str) or text.count("\n") > 1, "it is laid out for reading"
    return result


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18"])
@row("initialize")
async def test_initialize_answers_the_version_that_was_asked_for(wire: Wire, version: str) -> None:
    client = {"name": "conformance", "version": "1"}
    answer = await ask(wire, "initialize", protocolVersion=version, capabilities={}, clientInfo=client)
    result = answer["result"]
    assert result["protocolVersion"] == version
    assert result["serverInfo"]["name"] == "microsandbox-server"
    assert result["serverInfo"]["version"]
    for what in ("tools", "prompts"):
        assert result["capabilities"][what].get("listChanged", False) is False


@row("notifications/initialized")
async def test_a_notification_is_taken_without_a_word(wire: Wire) -> None:
    answer = await post(wire, {"method": "notifications/initialized"})
    assert (answer.status // 100, answer.text) == (2, "")


@row("ping")
async def test_ping(wire: Wire) -> None:
    assert (await ask(wire, "ping"))["result"] == {}


@row("unknown method")
async def test_an_unknown_method(wire: Wire) -> None:
    answer = await post(wire, {"id": 1, "method": "nothing/like/it", "params": {}})
    assert answer.body["error"]["code"] == -32601
    assert "nothing/like/it" in answer.body["error"]["message"]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@row("POST only")
async def test_no_other_method_of_http(wire: Wire, method: str) -> None:
    assert (await wire.send(method, "/mcp", headers=ACCEPT)).status == 405


@row("plain JSON answers")
async def test_an_answer_is_json_and_no_stream_of_events(wire: Wire) -> None:
    for accept in (ACCEPT, {"Accept": "application/json"}, {}):
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        answer = await wire.send(path="/mcp", json=call, headers=accept)
        assert answer.headers["Content-Type"].split(";")[0] == "application/json"


@pytest.mark.parametrize(
    ("tool", "required", "optional"),
    [
        case("tool sandbox_start", "sandbox_start", TARGET, ["config"]),
        case("tool sandbox_stop", "sandbox_stop", TARGET, []),
        case("tool sandbox_run_code", "sandbox_run_code", [*TARGET, "code", "language"], ["timeout"]),
        case("tool sandbox_run_command", "sandbox_run_command", [*TARGET, "command"], ["args", "timeout"]),
        case("tool sandbox_get_metrics", "sandbox_get_metrics", ["namespace"], ["sandbox"]),
    ],
)
async def test_a_tool_says_what_it_needs(wire: Wire, tool: str, required: list[str], optional: list[str]) -> None:
    tools = {one["name"]: one for one in (await ask(wire, "tools/list"))["result"]["tools"]}
    schema = tools[tool]["inputSchema"]
    assert schema["type"] == "object"
    assert set(required) <= set(schema["properties"])
    assert set(optional) <= set(schema["properties"])
    assert set(schema.get("required", [])) - {"namespace"} == set(required) - {"namespace"}
    assert tools[tool]["description"]


@row("config of sandbox_start")
async def test_the_configuration_is_described(wire: Wire) -> None:
    tools = {one["name"]: one for one in (await ask(wire, "tools/list"))["result"]["tools"]}
    described = json.dumps(tools["sandbox_start"])
    for key in CONFIG:
        assert f'"{key}"' in described
    assert "microsandbox/python" in described
    assert "microsandbox/node" in described


@row("tools in use")
async def test_the_tools_in_use(wire: Wire, name: str) -> None:
    guest = Guest(wire, name)
    assert (await used(guest, "sandbox_start", config=PYTHON)).startswith(f"Sandbox {name} started successfully")
    result = await used(guest, "sandbox_run_code", code="print(6 * 7)", language="python")
    assert (result["status"], out(result)) == ("success", "42")
    assert out(await used(guest, "sandbox_run_code", code="6 * 7", language="nodejs")) == "42"
    result = await used(guest, "sandbox_run_command", command="echo", args=["a", "b"])
    assert (result["exit_code"], out(result)) == (0, "a b")
    assert (await used(guest, "sandbox_run_command", command="true"))["args"] == []
    (reading,) = (await used(guest, "sandbox_get_metrics"))["sandboxes"]
    assert (reading["name"], reading["running"]) == (name, True)
    failed, text = await use(wire, "sandbox_get_metrics", namespace="default")
    assert not failed
    assert name in {one["name"] for one in json.loads(text)["sandboxes"]}
    assert await used(guest, "sandbox_stop") == f"Sandbox {name} stopped successfully"


@row("what code does wrong is a result")
async def test_code_that_raises_is_a_result_to_read(shared: Guest) -> None:
    result = await used(shared, "sandbox_run_code", code="1/0", language="python")
    assert result["status"] == "error"
    assert "ZeroDivisionError" in str(result["output"])


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        case("failures are errors of the tool", "sandbox_run_command", {"command": "no-such-program"}, "no-such-prog"),
        case("failures are errors of the tool", "sandbox_stop", {"sandbox": "never-started"}, "sandbox_start"),
        case("failures are errors of the tool", "sandbox_start", {"config": {"image": "no/such"}}, "no/such"),
        case("missing arguments", "sandbox_run_code", {"code": "1"}, "language"),
        case("missing arguments", "sandbox_run_command", {}, "command"),
        case("missing arguments", "sandbox_stop", {"sandbox": None}, "sandbox"),
    ],
)
async def test_failures_say_what_to_do(shared: Guest, tool: str, arguments: dict[str, object], words: str) -> None:
    failed, text = await use(shared.wire, tool, **{**shared.target, **arguments})
    assert failed
    assert text.startswith("Error: ")
    assert words in text
    assert (await ask(shared.wire, "ping"))["result"] == {}


@row("missing arguments")
async def test_a_call_without_any_arguments(wire: Wire) -> None:
    answer = await ask(wire, "tools/call", name="sandbox_stop")
    assert answer["result"]["isError"] is True
    assert "Missing required" in answer["result"]["content"][0]["text"]


@row("unknown tool")
async def test_an_unknown_tool(wire: Wire) -> None:
    answer = await post(wire, {"id": 1, "method": "tools/call", "params": {"name": "sandbox_explode", "arguments": {}}})
    assert "sandbox_start" in answer.body["error"]["message"]


@pytest.mark.parametrize(
    ("prompt", "image"),
    [
        case("prompt create_python_sandbox", "create_python_sandbox", "microsandbox/python"),
        case("prompt create_node_sandbox", "create_node_sandbox", "microsandbox/node"),
    ],
)
async def test_a_prompt(wire: Wire, prompt: str, image: str) -> None:
    prompts = {one["name"]: one for one in (await ask(wire, "prompts/list"))["result"]["prompts"]}
    assert {one["name"] for one in prompts[prompt]["arguments"]} == {"sandbox_name", "namespace"}
    arguments = {"sandbox_name": "mine", "namespace": "default"}
    answer = await ask(wire, "prompts/get", name=prompt, arguments=arguments)
    (message,) = answer["result"]["messages"]
    for word in (image, "mine", "sandbox_start"):
        assert word in message["content"]["text"]
    missing = await post(wire, {"id": 1, "method": "prompts/get", "params": {"name": prompt, "arguments": {}}})
    assert "sandbox_name" in missing.body["error"]["message"]
