# SPDX-License-Identifier: Apache-2.0
"""Bad input gets the status and shape of the wire protocol, a text that helps, and starts nothing."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from microsandbox import PythonSandbox

from conftest import Answer, Wire
from host import Server, descendants

IMAGE = {"image": "microsandbox/python"}
TARGET = {"namespace": "default", "sandbox": "bad-input"}
JSON = {"Content-Type": "application/json"}
PING = {"jsonrpc": "2.0", "method": "sandbox.metrics.get", "params": {"namespace": "default"}, "id": 1}


@pytest.fixture(autouse=True)
def nothing_started(server: Server) -> Any:
    """Check that no process came into being."""
    before = descendants(server.process.pid)
    yield
    assert descendants(server.process.pid) <= before


def check_flat(answer: Answer, status: int, code: int, *words: str) -> None:
    """Check an error of the flat shape, and that its text says what it must."""
    assert answer.status == status, answer.text
    assert answer.body["code"] == code, answer.text
    assert isinstance(answer.body["error"], str)
    assert "result" not in answer.body
    for word in words:
        assert word in answer.body["error"], answer.text


def check_rpc(answer: Answer, status: int, code: int, *words: str) -> None:
    """Check an error of the JSON-RPC shape."""
    assert answer.status == status, answer.text
    assert answer.body["jsonrpc"] == "2.0"
    assert answer.body["error"]["code"] == code
    assert "result" not in answer.body
    for word in words:
        assert word in answer.body["error"]["message"], answer.text


async def test_an_unknown_method(wire: Wire) -> None:
    check_rpc(await wire.call("sandbox.explode", TARGET), 404, -32601, "Method not found: sandbox.explode")


@pytest.mark.parametrize("version", ["1.0", "", 2.0])
async def test_a_wrong_version_of_the_envelope(wire: Wire, version: object) -> None:
    answer = await wire.send(json={**PING, "jsonrpc": version})
    if isinstance(version, str):
        check_rpc(answer, 400, -32600, "jsonrpc")
    else:
        assert answer.status in (400, 422)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"", 400),
        (b"\xff\xfe", 400),
        (b'{"jsonrpc": "2.0", "method"', 400),
        (b'"text"', 422),
        (b"7", 422),
        (b"null", 422),
        (b'{"method": "sandbox.start"}', 422),
        (b'{"jsonrpc": "2.0", "id": 1}', 422),
        (b'{"jsonrpc": "2.0", "method": 5}', 422),
        (b"[" * 100_000, 400),
    ],
)
async def test_bodies_that_are_no_call(wire: Wire, body: bytes, status: int) -> None:
    answer = await wire.send(data=body, headers=JSON)
    assert answer.status == status, answer.text
    assert answer.text


async def test_a_body_over_the_limit(wire: Wire) -> None:
    body = io.BytesIO(b'{"jsonrpc": "2.0", "method": "x", "params": "' + b"x" * (2 * 1024 * 1024) + b'"}')
    answer = await wire.send(data=body, headers=JSON)
    assert answer.status == 413
    assert answer.text


async def test_a_body_over_the_limit_that_does_not_say_so(wire: Wire) -> None:
    async def chunks() -> Any:
        yield json.dumps(PING).encode()
        for _ in range(48):
            yield b" " * 65536

    answer = await wire.send(data=chunks(), headers=JSON)
    assert answer.status == 413


async def test_a_body_of_another_type(wire: Wire) -> None:
    answer = await wire.send(data=json.dumps(PING), headers={"Content-Type": "text/plain"})
    assert answer.status == 415


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/api/v1/rpc", 405),
        ("POST", "/api/v1/rpc/", 404),
        ("POST", "/api/v1/health", 405),
        ("GET", "/etc/passwd", 404),
        ("GET", "/../../etc/passwd", 404),
    ],
)
async def test_wrong_paths_and_methods(wire: Wire, method: str, path: str, status: int) -> None:
    assert (await wire.send(method, path)).status == status


async def test_health(wire: Wire) -> None:
    answer = await wire.send("GET", "/api/v1/health")
    assert (answer.status, answer.body) == (200, {"message": "Service is healthy"})


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}])
async def test_foreign_origins_and_hosts_are_refused(wire: Wire, headers: dict[str, str]) -> None:
    check_flat(await wire.send(json=PING, headers=headers), 403, 3001)


async def test_no_browser_is_allowed_anything(wire: Wire) -> None:
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    answer = await wire.send("OPTIONS", headers=headers)
    assert not any(name.lower().startswith("access-control-") for name in answer.headers)
    assert answer.status >= 400


NAMES: list[tuple[object, str]] = [
    ("", "Sandbox name cannot be empty"),
    ("a" * 64, "Sandbox name cannot exceed 63 characters"),
    ("a/b", "Sandbox name can only contain alphanumeric characters, hyphens, or underscores"),
    ("../../etc", "Sandbox name can only contain"),
    ("a b", "Sandbox name can only contain"),
    ("é", "Sandbox name can only contain"),
    ("a\x00", "Sandbox name can only contain"),
    ("-a", "Sandbox name must start with an alphanumeric character"),
    ("_a", "Sandbox name must start with an alphanumeric character"),
    (5, "sandbox"),
    (["a"], "sandbox"),
]


@pytest.mark.parametrize(("bad", "text"), NAMES)
async def test_bad_sandbox_names(wire: Wire, bad: object, text: str) -> None:
    for method in ("sandbox.start", "sandbox.stop"):
        params = {"namespace": "default", "sandbox": bad, "config": IMAGE}
        check_flat(await wire.call(method, params), 400, 2001, text)


@pytest.mark.parametrize(("bad", "text"), [row for row in NAMES if isinstance(row[0], str)])
async def test_bad_namespaces(wire: Wire, bad: str, text: str) -> None:
    params = {"namespace": bad, "sandbox": "x", "config": IMAGE}
    check_flat(await wire.call("sandbox.start", params), 400, 2001, text.replace("Sandbox", "Namespace"))


async def test_every_namespace_is_none_to_start_in(wire: Wire) -> None:
    answer = await wire.call("sandbox.start", {"namespace": "*", "sandbox": "x", "config": IMAGE})
    check_flat(answer, 400, 2001, "Wildcard namespace (*) is not valid for sandbox creation")


@pytest.mark.parametrize("params", [None, 5, "text", [], ["default", "x"]])
async def test_params_that_are_no_object(wire: Wire, params: object) -> None:
    for method in ("sandbox.start", "sandbox.stop", "sandbox.repl.run", "sandbox.command.run", "sandbox.metrics.get"):
        check_flat(await wire.call(method, params), 400, 2001, "must be an object")


@pytest.mark.parametrize(
    ("method", "params", "words"),
    [
        ("sandbox.start", {"namespace": "default"}, "sandbox"),
        ("sandbox.start", {"sandbox": "x"}, "namespace"),
        ("sandbox.stop", {"sandbox": "x"}, "namespace"),
        ("sandbox.repl.run", {"namespace": "default"}, "Missing required 'sandbox' parameter"),
        ("sandbox.command.run", {"sandbox": "x"}, "Missing required 'namespace' parameter"),
        ("sandbox.repl.run", {**TARGET, "language": "python"}, "code"),
        ("sandbox.repl.run", {**TARGET, "code": "1"}, "language"),
        ("sandbox.repl.run", {**TARGET, "code": "1", "language": "cobol"}, "python"),
        ("sandbox.repl.run", {**TARGET, "code": 1, "language": "python"}, "code"),
        ("sandbox.repl.run", {**TARGET, "code": "1", "language": "python", "timeout": -1}, "timeout"),
        ("sandbox.repl.run", {**TARGET, "code": "1", "language": "python", "timeout": "1"}, "timeout"),
        ("sandbox.command.run", {**TARGET}, "command"),
        ("sandbox.command.run", {**TARGET, "command": ""}, "command"),
        ("sandbox.command.run", {**TARGET, "command": "a\0b"}, "command"),
        ("sandbox.command.run", {**TARGET, "command": "ls", "args": "-l"}, "args"),
        ("sandbox.command.run", {**TARGET, "command": "ls", "args": [1]}, "args"),
        ("sandbox.command.run", {**TARGET, "command": "ls", "timeout": 0.5}, "timeout"),
        ("sandbox.metrics.get", {"sandbox": "x"}, "namespace"),
        ("sandbox.start", {**TARGET, "config": 5}, "config"),
        ("sandbox.start", {**TARGET, "config": {"image": 5}}, "image"),
        ("sandbox.start", {**TARGET, "config": IMAGE, "timeout_ms": -1}, "timeout_ms"),
    ],
)
async def test_missing_and_wrong_parameters(wire: Wire, method: str, params: object, words: str) -> None:
    check_flat(await wire.call(method, params), 400, 2001, words)


@pytest.mark.parametrize("memory", [0, -1, 1, 4_294_967_295, 10**9, 10**30, 512.5, "512", True, [512]])
async def test_bad_memory(wire: Wire, memory: object) -> None:
    answer = await wire.call("sandbox.start", {**TARGET, "config": {**IMAGE, "memory": memory}})
    check_flat(answer, 400, 2001, "memory")
    assert any(digit in answer.body["error"] for digit in "0123456789"), "it says what is allowed"


@pytest.mark.parametrize("cpus", [0, -1, 256, 10**30, 1.5, "1", True])
async def test_bad_cpus(wire: Wire, cpus: object) -> None:
    answer = await wire.call("sandbox.start", {**TARGET, "config": {**IMAGE, "cpus": cpus}})
    check_flat(answer, 400, 2001, "cpus")


@pytest.mark.parametrize(
    ("key", "value"),
    [("volumes", ["/etc:/etc"]), ("ports", ["80:80"]), ("envs", ["NOT AN ASSIGNMENT"]), ("workdir", "relative")],
)
async def test_what_cannot_be_given_is_refused_and_never_ignored(wire: Wire, key: str, value: object) -> None:
    answer = await wire.call("sandbox.start", {**TARGET, "config": {**IMAGE, key: value}})
    check_flat(answer, 400, 2001, key.removesuffix("s"))


@pytest.mark.parametrize("image", ["no/such/image", "", "/etc", "../..", "microsandbox/python/../x", "a b"])
async def test_an_unknown_image(wire: Wire, image: str) -> None:
    answer = await wire.call("sandbox.start", {**TARGET, "config": {"image": image}})
    assert (answer.status, answer.body["code"]) in ((404, 4001), (400, 2001)), answer.text
    if image == "no/such/image":
        check_flat(answer, 404, 4001, image)


async def test_a_start_without_an_image(wire: Wire) -> None:
    answer = await wire.call("sandbox.start", {"namespace": "default", "sandbox": "never-configured"})
    check_flat(answer, 400, 2001, "No configuration provided", "never-configured")


async def test_an_unknown_sandbox(wire: Wire) -> None:
    calls: list[tuple[str, dict[str, object]]] = [
        ("sandbox.stop", {}),
        ("sandbox.repl.run", {"language": "python", "code": "1"}),
        ("sandbox.command.run", {"command": "true"}),
        ("sandbox.metrics.get", {}),
    ]
    for method, params in calls:
        answer = await wire.call(method, {"namespace": "default", "sandbox": "never-started", **params})
        check_flat(answer, 404, 4001, "never-started")


async def test_the_sdk_shows_the_servers_text(server: Server) -> None:
    with pytest.raises(RuntimeError, match=r"^Failed to start sandbox: Sandbox name cannot exceed 63 characters"):
        await PythonSandbox(name="x" * 64).start()
    with pytest.raises(RuntimeError, match=r"^Failed to start sandbox: .*no/such/image"):
        await PythonSandbox().start(image="no/such/image")
    with pytest.raises(RuntimeError, match=r"^Failed to start sandbox: .*memory"):
        await PythonSandbox().start(memory=-1)


async def test_more_cpus_than_the_host_has_are_fewer_and_said(wire: Wire, name: str) -> None:
    answer = await wire.call(
        "sandbox.start", {"namespace": "default", "sandbox": name, "config": {**IMAGE, "cpus": 255}}
    )
    assert answer.status == 200, answer.text
    assert f"Sandbox {name} started successfully" in answer.body["result"]
    assert "cpu" in answer.text
    await wire.result("sandbox.stop", sandbox=name)


@pytest.mark.parametrize("call_id", ["text", 7, None, {"any": ["json"]}])
async def test_the_id_comes_back_as_it_was_sent(wire: Wire, call_id: object) -> None:
    answer = await wire.send(json={**PING, "id": call_id})
    assert answer.status == 200
    assert "error" not in answer.body
    if call_id is None:
        assert "id" not in answer.body
    else:
        assert answer.body["id"] == call_id


async def test_a_call_without_an_id_is_answered_in_full(wire: Wire) -> None:
    answer = await wire.send(json={key: value for key, value in PING.items() if key != "id"})
    assert answer.status == 200
    assert "result" in answer.body
    assert "id" not in answer.body


async def test_a_batch_is_served_and_its_errors_are_of_one_shape(wire: Wire) -> None:
    silent = {key: value for key, value in PING.items() if key != "id"}
    unknown = {"jsonrpc": "2.0", "method": "nope", "id": 2}
    bad = {"jsonrpc": "2.0", "method": "sandbox.stop", "params": {"namespace": "default", "sandbox": ""}, "id": 3}
    answer = await wire.send(json=[PING, silent, unknown, bad])
    assert answer.status == 200, answer.text
    by_id = {one["id"]: one for one in answer.body}
    assert set(by_id) == {1, 2, 3}
    assert "result" in by_id[1]
    assert by_id[2]["error"]["code"] == -32601
    assert by_id[3]["error"]["code"] == 2001
    assert "message" in by_id[3]["error"]
