# SPDX-License-Identifier: Apache-2.0
"""Fixtures: one server for the whole run, and sandboxes on it."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from microsandbox import NodeSandbox, PythonSandbox

from base_images import BaseServer
from host import Server, become_subreaper, need_everything

become_subreaper()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give a development server; at the end of the run it must go and leave nothing behind."""
    need_everything()
    server = Server.start(tmp_path_factory.mktemp("home"))
    yield server
    server.end()


@pytest.fixture(autouse=True)
def clean_environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let a test see no setting of whoever runs it, and the server of this run if it uses that."""
    for name in list(os.environ):
        if name.startswith(("MSB_", "MICROSANDBOX_")) and name not in ("MSB_TEST_REQUIRE", "MSB_PROFILE"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    if "server" in request.fixturenames:
        monkeypatch.setenv("MSB_SERVER_URL", request.getfixturevalue("server").url)


@pytest.fixture(scope="session")
def base_server(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseServer]:
    """Give a server with the base images; the common one runs before it, so that neither is a leftover."""
    assert server.url
    own = BaseServer.start(tmp_path_factory.mktemp("base") / "home")
    yield own
    own.server.end()


@pytest.fixture
def base_images(base_server: BaseServer, clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Have the test's sandboxes run in the base images."""
    monkeypatch.setenv("MSB_SERVER_URL", base_server.server.url)
    monkeypatch.setenv("MSB_API_KEY", base_server.key)
    return base_server.server


@pytest.fixture
def name() -> str:
    """Give a name that no other test uses."""
    return f"e2e-{uuid.uuid4().hex[:12]}"


@pytest.fixture
async def python(server: Server, name: str) -> AsyncIterator[PythonSandbox]:
    """Give a started Python sandbox."""
    async with PythonSandbox.create(name=name) as sandbox:
        server.note_cgroups()
        yield sandbox


@pytest.fixture
async def node(server: Server, name: str) -> AsyncIterator[NodeSandbox]:
    """Give a started Node sandbox."""
    async with NodeSandbox.create(name=name) as sandbox:
        server.note_cgroups()
        yield sandbox


@dataclass
class Answer:
    """What came back for one HTTP request."""

    status: int
    body: Any
    text: str
    headers: dict[str, str]


@dataclass
class Wire:
    """Speaks with the server without the SDK."""

    url: str
    session: aiohttp.ClientSession

    async def send(self, method: str = "POST", path: str = "/api/v1/rpc", **request: Any) -> Answer:
        """Send one HTTP request as it is."""
        async with self.session.request(method, self.url + path, **request) as response:
            text = (await response.read()).decode()
            is_json = response.content_type == "application/json"
            body = await response.json() if is_json else None
            return Answer(response.status, body, text, dict(response.headers))

    async def call(self, method: str, params: object) -> Answer:
        """Make one call."""
        return await self.send(json={"jsonrpc": "2.0", "method": method, "params": params, "id": "1"})

    async def result(self, method: str, **params: object) -> Any:
        """Make one call that must succeed."""
        answer = await self.call(method, {"namespace": "default", **params})
        assert answer.status == 200, answer.text
        assert "error" not in answer.body
        return answer.body["result"]


@pytest.fixture
async def wire(server: Server) -> AsyncIterator[Wire]:
    async with aiohttp.ClientSession() as session:
        yield Wire(server.url, session)
