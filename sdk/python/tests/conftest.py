# SPDX-License-Identifier: Apache-2.0
"""A small real HTTP server in the test's own process: it answers as the protocol says, or as a test tells it to."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

Answer = Callable[["Request"], Awaitable[web.StreamResponse]]


@dataclass
class Request:
    """One call as it arrived."""

    method: str
    params: dict[str, Any]
    body: dict[str, Any]
    headers: dict[str, str]
    path: str


@dataclass
class Server:
    """What a test sees of the server."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)
    arrived: dict[str, asyncio.Event] = field(default_factory=dict)
    running: set[tuple[str, str]] = field(default_factory=set)

    def methods(self) -> list[str]:
        return [request.method for request in self.requests]

    def calls(self, method: str) -> list[Request]:
        return [request for request in self.requests if request.method == method]

    def answer_json(self, method: str, status: int, body: object) -> None:
        """Answer `method` with this JSON from now on."""
        self.answer_text(method, status, json.dumps(body), "application/json")

    def answer_text(self, method: str, status: int, text: str, content_type: str = "text/plain") -> None:
        """Answer `method` with this text from now on."""

        async def answer(_request: Request) -> web.Response:
            return web.Response(status=status, text=text, content_type=content_type)

        self.answers[method] = answer

    def hold(self, method: str) -> asyncio.Event:
        """Answer `method` only once the returned event is set."""
        release = asyncio.Event()

        async def answer(request: Request) -> web.Response:
            await release.wait()
            return self.usual_answer(request)

        self.answers[method] = answer
        return release

    async def wait_for(self, method: str) -> None:
        """Wait until a call of `method` has arrived."""
        await asyncio.wait_for(self.arrived.setdefault(method, asyncio.Event()).wait(), 10)

    async def handle(self, http: web.Request) -> web.StreamResponse:
        body = json.loads(await http.read())
        request = Request(body["method"], body["params"], body, dict(http.headers), http.path)
        self.requests.append(request)
        self.arrived.setdefault(request.method, asyncio.Event()).set()
        if request.method in self.answers:
            return await self.answers[request.method](request)
        return self.usual_answer(request)

    def usual_answer(self, request: Request) -> web.Response:
        params = request.params
        key = (params["namespace"], params["sandbox"])
        result: object
        if request.method == "sandbox.start":
            self.running.add(key)
            result = f"Sandbox {params['sandbox']} started successfully"
        elif request.method == "sandbox.stop":
            self.running.discard(key)
            result = f"Sandbox {params['sandbox']} stopped successfully"
        elif request.method == "sandbox.repl.run":
            lines = [{"stream": "stdout", "text": "Hello, World!"}]
            result = {"status": "success", "language": params["language"], "output": lines}
        elif request.method == "sandbox.command.run":
            lines = [{"stream": "stdout", "text": "a"}, {"stream": "stderr", "text": "b"}]
            result = {
                "command": params["command"],
                "args": params["args"],
                "exit_code": 0,
                "success": True,
                "output": lines,
            }
        elif request.method == "sandbox.get":
            result = description(name=params["sandbox"], namespace=params["namespace"], running=key in self.running)
        else:
            result = {"sandboxes": [reading(name=params["sandbox"], running=key in self.running)]}
        return web.json_response({"jsonrpc": "2.0", "result": result, "id": request.body["id"]})


def reading(**changes: object) -> dict[str, object]:
    """Return one sandbox's metrics."""
    usual = {
        "name": "x",
        "namespace": "default",
        "running": True,
        "cpu_usage": 12.5,
        "memory_usage": 33,
        "disk_usage": 4096,
        "uptime": 5,
    }
    return {**usual, **changes}


def description(**changes: object) -> dict[str, object]:
    """Return what a server tells of one sandbox."""
    off = {"name": "swap_limit", "on": False, "why": "not counted", "mend": "swapaccount=1"}
    usual = {
        "name": "x",
        "namespace": "default",
        "running": True,
        "image": "microsandbox/python",
        "image_source": "store",
        "image_reference": "docker.io/microsandbox/python:latest@sha256:0",
        "memory": 512,
        "cpus": 1.5,
        "isolation": {"kind": "container", "protections": [{"name": "seccomp", "on": True}, off]},
    }
    return {**usual, **changes}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in ("MSB_SERVER_URL", "MSB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    state = Server()
    app = web.Application(client_max_size=16 << 20)
    app.router.add_post("/api/v1/rpc", state.handle)
    async with TestServer(app) as http:
        state.url = str(http.make_url("")).rstrip("/")
        monkeypatch.setenv("MSB_SERVER_URL", state.url)
        yield state


@pytest.fixture
def unused_tcp_port() -> int:
    """Give a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def server_in_thread() -> Iterator[Server]:
    """Give a server for a test that runs an event loop of its own."""
    state = Server()
    ready, finish = threading.Event(), threading.Event()

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/api/v1/rpc", state.handle)
        async with TestServer(app) as http:
            state.url = str(http.make_url("")).rstrip("/")
            ready.set()
            await asyncio.get_running_loop().run_in_executor(None, finish.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(10)
    yield state
    finish.set()
    thread.join(10)


@pytest.fixture(autouse=True)
async def nothing_left() -> AsyncIterator[None]:
    """Fail a test that leaves a task of its own behind."""
    before = asyncio.all_tasks()
    yield
    mine = {task for task in asyncio.all_tasks() - before if "microsandbox" in repr(task)}
    assert not mine
