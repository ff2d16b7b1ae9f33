# SPDX-License-Identifier: Apache-2.0
"""Every way in which a call can fail, and what the error says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from conftest import Server
from microsandbox import (
    AccessError,
    CapacityError,
    CommandTimeout,
    MicrosandboxError,
    NotFoundError,
    NotRunningError,
    PythonSandbox,
    ServerUnreachableError,
    StartTimeoutError,
)

Act = Callable[[PythonSandbox], Awaitable[object]]

ACTS: list[tuple[str, str, Act]] = [
    ("sandbox.repl.run", "Failed to execute code: ", lambda s: s.run("1")),
    ("sandbox.command.run", "Failed to execute command: ", lambda s: s.command.run("ls")),
    ("sandbox.metrics.get", "Failed to get sandbox metrics: ", lambda s: s.metrics.all()),
]
acts = pytest.mark.parametrize(("method", "begin", "act"), ACTS, ids=[act[0] for act in ACTS])

SHAPES = {
    "flat": {"error": "no such thing", "code": 4001, "cause": "unknown", "remedy": "start it", "request_id": "r-9"},
    "rpc": {
        "jsonrpc": "2.0",
        "id": "1",
        "error": {"code": 4001, "message": "no such thing"},
        "cause": "unknown",
        "remedy": "start it",
        "request_id": "r-9",
    },
    "rpc with data": {
        "jsonrpc": "2.0",
        "error": {
            "code": 4001,
            "message": "no such thing",
            "data": {"cause": "unknown", "remedy": "start it", "request_id": "r-9"},
        },
    },
}


@acts
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("status", [404, 200])
async def test_both_shapes_of_an_error_are_read(
    server: Server, method: str, begin: str, act: Act, shape: str, status: int
) -> None:
    server.answer_json(method, status, SHAPES[shape])
    async with PythonSandbox.create() as sandbox:
        with pytest.raises(MicrosandboxError) as caught:
            await act(sandbox)
    error = caught.value
    assert str(error) == f"{begin}no such thing (start it)"
    assert (error.code, error.cause, error.remedy, error.request_id) == (4001, "unknown", "start it", "r-9")


async def test_start_and_stop_say_what_they_could_not_do(server: Server) -> None:
    server.answer_json("sandbox.start", 404, {"error": "unknown image", "code": 4001})
    with pytest.raises(RuntimeError, match=r"^Failed to start sandbox: unknown image$"):
        await PythonSandbox().start()
    del server.answers["sandbox.start"]
    sandbox = PythonSandbox()
    await sandbox.start()
    server.answer_json("sandbox.stop", 500, {"error": "stuck", "code": 5002})
    with pytest.raises(RuntimeError, match=r"^Failed to stop sandbox: stuck$"):
        await sandbox.stop()


@acts
@pytest.mark.parametrize(
    ("status", "text", "shown"),
    [
        (413, "length limit exceeded", "HTTP status 413: length limit exceeded"),
        (502, "<html>" + "x" * 5000, "x..."),
        (500, "", "HTTP status 500: (no text)"),
        (200, "not json", "HTTP status 200: not json"),
        (200, "[1]", "HTTP status 200: [1]"),
        (200, "{}", "HTTP status 200: {}"),
        (301, "elsewhere", "HTTP status 301: elsewhere"),
        (201, '{"result": 1}', "HTTP status 201"),
    ],
)
async def test_answers_that_are_not_of_the_protocol_are_errors_that_show_them(
    server: Server, method: str, begin: str, act: Act, status: int, text: str, shown: str
) -> None:
    server.answer_text(method, status, text)
    async with PythonSandbox.create() as sandbox:
        with pytest.raises(MicrosandboxError) as caught:
            await act(sandbox)
    assert str(caught.value).startswith(begin)
    assert shown in str(caught.value)
    assert len(str(caught.value)) < 500
    assert caught.value.code is None


@acts
@pytest.mark.parametrize("result", [None, 7, "text", [], {"output": 5}, {"sandboxes": 5}, {"sandboxes": [5]}])
async def test_results_of_the_wrong_kind_are_errors(
    server: Server, method: str, begin: str, act: Act, result: object
) -> None:
    server.answer_json(method, 200, {"jsonrpc": "2.0", "result": result})
    async with PythonSandbox.create() as sandbox:
        with pytest.raises(MicrosandboxError, match="not what the protocol says") as caught:
            await act(sandbox)
    assert str(caught.value).startswith(begin)


@pytest.mark.parametrize("output", [5, [5], ["text"], [{"stream": "stdout"}]])
async def test_output_that_is_no_list_of_lines_is_an_error(server: Server, output: object) -> None:
    result = {"status": "success", "language": "python", "output": output}
    server.answer_json("sandbox.repl.run", 200, {"jsonrpc": "2.0", "result": result})
    async with PythonSandbox.create() as sandbox:
        with pytest.raises(MicrosandboxError, match="no list of lines"):
            await sandbox.run("1")


async def test_a_command_that_times_out_carries_its_output_and_the_sandbox_goes_on(server: Server) -> None:
    lines = [{"stream": "stdout", "text": "so far"}, {"stream": "stderr", "text": "hm"}]
    answer = {"error": "the command timed out after 1 s", "code": 5002, "timed_out": True, "output": lines}
    server.answer_json("sandbox.command.run", 500, answer)
    async with PythonSandbox.create() as sandbox:
        with pytest.raises(CommandTimeout, match=r"^Failed to execute command: the command timed out") as caught:
            await sandbox.command.run("sleep", ["9"], timeout=1)
        assert isinstance(caught.value, TimeoutError)
        assert (caught.value.output, caught.value.error) == ("so far", "hm")
        assert (await (await sandbox.run("1")).output()) == "Hello, World!"


async def test_a_command_that_times_out_with_unreadable_output_is_still_an_error_of_the_sdk(server: Server) -> None:
    answer = {"error": "late", "code": 5002, "timed_out": True, "output": "text"}
    server.answer_json("sandbox.command.run", 500, answer)
    async with PythonSandbox.create() as sandbox:
        with pytest.raises(MicrosandboxError, match="not what the protocol says"):
            await sandbox.command.run("sleep", ["9"], timeout=1)


async def test_a_command_that_does_not_exist_is_no_timeout(server: Server) -> None:
    server.answer_json("sandbox.command.run", 500, {"error": "no such command", "code": 5002})
    async with PythonSandbox.create() as sandbox:
        with pytest.raises(MicrosandboxError) as caught:
            await sandbox.command.run("nope")
    assert not isinstance(caught.value, TimeoutError)


@acts
@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, 1001, AccessError),
        (401, 1004, AccessError),
        (403, 3001, AccessError),
        (404, 4001, NotFoundError),
        (409, 4009, NotRunningError),
        (429, 4290, CapacityError),
        (400, 2001, MicrosandboxError),
        (500, 5002, MicrosandboxError),
    ],
)
async def test_a_refusal_is_of_the_kind_that_its_code_says(
    server: Server, method: str, begin: str, act: Act, status: int, code: int, kind: type[MicrosandboxError]
) -> None:
    server.answer_json(method, status, {"error": "no", "code": code, "request_id": "r1"})
    async with PythonSandbox.create() as sandbox:
        with pytest.raises(MicrosandboxError) as caught:
            await act(sandbox)
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.request_id) == (code, "r1")
    assert str(caught.value).startswith(begin)


async def test_the_servers_own_start_deadline_is_a_timeout(server: Server) -> None:
    server.answer_json("sandbox.start", 504, {"error": "not ready in 1 s", "code": 5004})
    sandbox = PythonSandbox()
    with pytest.raises(StartTimeoutError, match=r"^Failed to start sandbox: not ready in 1 s$") as caught:
        await sandbox.start(timeout=1)
    assert isinstance(caught.value, RuntimeError)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.code == 5004
    assert not sandbox.is_started


async def test_a_server_that_is_not_there_is_named_with_the_cure(unused_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    sandbox = PythonSandbox(server_url=url)
    with pytest.raises(ServerUnreachableError) as caught:
        await sandbox.start()
    assert isinstance(caught.value, ConnectionError)
    assert isinstance(caught.value, RuntimeError)
    assert str(caught.value).startswith("Failed to start sandbox: ")
    assert url in str(caught.value)
    assert "msb server start" in str(caught.value)
    assert sandbox._session is None
    assert not sandbox.is_started


@pytest.mark.parametrize("url", ["not a url", "http://", "ftp://127.0.0.1:1"])
async def test_a_url_that_is_none_is_an_error_that_shows_it(url: str) -> None:
    with pytest.raises(MicrosandboxError) as caught:
        await PythonSandbox(server_url=url).start()
    assert url.rstrip("/") in str(caught.value)


@asynccontextmanager
async def raw_server(answer: bytes) -> AsyncIterator[tuple[str, list[str]]]:
    """Serve `answer` to every request but a start, and close the connection; also give what was asked for."""
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-le"))
        method = json.loads(await reader.readexactly(length))["method"]
        asked.append(method)
        good = b'{"jsonrpc":"2.0","result":""}'
        usual = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(good), good)
        writer.write(usual if method in ("sandbox.start", "sandbox.stop") else answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{",
        b"nonsense\r\n\r\n",
    ],
    ids=["nothing", "half a body", "half a chunk", "no http"],
)
@acts
async def test_a_connection_that_breaks_midway_is_a_connection_error(
    method: str, begin: str, act: Act, answer: bytes
) -> None:
    async with raw_server(answer) as (url, asked), PythonSandbox.create(server_url=url) as sandbox:
        with pytest.raises(ServerUnreachableError, match="broke before it answered") as caught:
            await act(sandbox)
        assert str(caught.value).startswith(begin)
        assert url in str(caught.value)
        assert asked.count(method) == 1, "a call that may have run is not made again"


async def test_the_first_error_wins_when_run_and_stop_both_fail(server: Server) -> None:
    with pytest.raises(MicrosandboxError, match="Failed to execute code"):
        async with PythonSandbox.create() as sandbox:
            server.answer_text("sandbox.repl.run", 500, "bye")
            server.answer_text("sandbox.stop", 500, "bye too")
            await sandbox.run("1")
    assert server.methods()[-1] == "sandbox.stop"
