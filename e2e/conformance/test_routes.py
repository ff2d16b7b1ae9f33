# SPDX-License-Identifier: Apache-2.0
"""Routes, methods of HTTP, and what is said to a body that is no call."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
from typing import Any

import pytest

from conformance.guest import PING, check_flat
from conformance.rows import case, row
from conftest import Wire
from host import PROGRAMS, Server

JSON = {"Content-Type": "application/json"}


@row("health")
async def test_health(wire: Wire) -> None:
    answer = await wire.send("GET", "/api/v1/health")
    assert (answer.status, answer.body) == (200, {"message": "Service is healthy"})


@row("rpc")
async def test_rpc(wire: Wire) -> None:
    answer = await wire.send(json=PING)
    assert answer.status == 200
    assert answer.headers["Content-Type"].split(";")[0] == "application/json"
    assert (answer.body["jsonrpc"], answer.body["id"]) == ("2.0", 1)
    assert "sandboxes" in answer.body["result"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        case("no root page", "GET", "/", 404),
        case("no trailing slash", "POST", "/api/v1/rpc/", 404),
        case("GET on rpc", "GET", "/api/v1/rpc", 405),
        case("POST on health", "POST", "/api/v1/health", 405),
        case("no proxy to ports of a sandbox", "GET", "/proxy/default/conformance-shared/8080/", 404),
        case("no proxy to ports of a sandbox", "GET", "/default/conformance-shared/8080", 404),
        case("no files", "GET", "/etc/passwd", 404),
        case("no files", "GET", "/../../etc/passwd", 404),
    ],
)
async def test_wrong_paths_and_methods(wire: Wire, method: str, path: str, status: int) -> None:
    answer = await wire.send(method, path)
    check_flat(answer, status, 4001 if status == 404 else 2001)


@row("no proxy to other servers")
async def test_a_request_for_another_address_is_not_passed_on(server: Server) -> None:
    async def refuse(_: Any, writer: asyncio.StreamWriter) -> None:
        reached.set()
        writer.close()

    reached = asyncio.Event()
    other = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        f"GET http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode()
    )
    answer = await reader.read()
    writer.close()
    other.close()
    assert answer.startswith(b"HTTP/1.1 404")
    assert not reached.is_set()


@row("OPTIONS")
async def test_no_browser_is_allowed_anything(wire: Wire) -> None:
    for origin in ("http://evil.example", wire.url):
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        answer = await wire.send("OPTIONS", headers=headers)
        assert not any(name.lower().startswith("access-control-") for name in answer.headers)
        assert answer.status >= 400


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "text/json"])
@row("wrong content type")
async def test_a_body_of_another_type(wire: Wire, content_type: str) -> None:
    answer = await wire.send(data=json.dumps(PING), headers={"Content-Type": content_type})
    check_flat(answer, 415, 2001, "application/json")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        case("broken JSON", b"{", 400),
        case("broken JSON", b"", 400),
        case("broken JSON", b"\xff\xfe", 400),
        case("broken JSON", b'{"jsonrpc": "2.0", "method"', 400),
        case("broken JSON", b"[" * 100_000, 400),
        case("JSON that is no call", b'"text"', 422),
        case("JSON that is no call", b"7", 422),
        case("JSON that is no call", b"null", 422),
        case("no jsonrpc member", b'{"method": "sandbox.start"}', 422),
        case("no jsonrpc member", b'{"jsonrpc": 2.0, "method": "sandbox.start"}', 422),
        case("no method member", b'{"jsonrpc": "2.0", "id": 1}', 422),
        case("no method member", b'{"jsonrpc": "2.0", "method": 5}', 422),
    ],
)
async def test_bodies_that_are_no_call(wire: Wire, body: bytes, status: int) -> None:
    check_flat(await wire.send(data=body, headers=JSON), status, 2001)


@row("body too large")
async def test_a_body_over_the_limit(wire: Wire) -> None:
    body = io.BytesIO(b'{"jsonrpc": "2.0", "method": "x", "params": "' + b"x" * (2 * 1024 * 1024) + b'"}')
    check_flat(await wire.send(data=body, headers=JSON), 413, 2001)


@row("body too large")
async def test_a_body_over_the_limit_that_does_not_say_so(wire: Wire) -> None:
    async def chunks() -> Any:
        yield json.dumps(PING).encode()
        for _ in range(48):
            yield b" " * 65536

    check_flat(await wire.send(data=chunks(), headers=JSON), 413, 2001)


@row("default address")
def test_the_default_address() -> None:
    shown = subprocess.run([PROGRAMS / "msb", "server", "start", "--help"], capture_output=True, text=True, check=True)
    assert "[default: 127.0.0.1]" in shown.stdout
    assert "[default: 5555]" in shown.stdout
