# SPDX-License-Identifier: Apache-2.0
"""An image that comes slowly: the start is out of time, the pull is not."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from microsandbox import PythonSandbox, StartTimeoutError

from host import Server, need, need_everything
from registries import layout, tree

BUSYBOX = Path("/bin/busybox")
# How long what was asked for may take to arrive, in seconds.
ARRIVED_SECONDS = 60


class SlowRegistry:
    """Has one image, sends each part of it once only, and its layers not before it is told to."""

    def __init__(self, folder: Path) -> None:
        (top,) = json.loads((folder / "index.json").read_text())["manifests"]
        blobs = {f"sha256:{path.name}": path.read_bytes() for path in (folder / "blobs" / "sha256").iterdir()}
        self.layers = {layer["digest"] for layer in json.loads(blobs[top["digest"]])["layers"]}
        self.asked: Counter[str] = Counter()
        self.sent: set[str] = set()
        self.sending, self.sent_all = threading.Event(), threading.Event()
        lock, registry = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                part = self.path.rpartition("/")[2]
                with lock:
                    registry.asked[part] += 1
                    first = registry.asked[part] == 1
                content = blobs[top["digest"]] if "/manifests/" in self.path else blobs.get(part)
                if content is None or not first:
                    self.send_error(404)
                    return
                if part in registry.layers:
                    registry.sending.wait(ARRIVED_SECONDS)
                self.send_response(200)
                self.send_header("Content-Type", top["mediaType"])
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                with lock:
                    registry.sent.add(part)
                    if registry.layers <= registry.sent:
                        registry.sent_all.set()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name is part of the interface)
                """Say nothing: its first client always asks whether it speaks TLS, which it does not."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = False  # the end waits for what is being sent
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()
        self.address = f"127.0.0.1:{self._http.server_port}"

    def send(self) -> None:
        """Send what it was asked for, and end: whoever asks again is refused by the machine itself."""
        self.sending.set()
        assert self.sent_all.wait(ARRIVED_SECONDS), f"nobody waits for the layers any more: {self.asked}"
        self.end()

    def end(self) -> None:
        self.sending.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[SlowRegistry]:
    """Give a slow registry whose image has two layers."""
    need(BUSYBOX.exists(), "/bin/busybox is needed: Debian's package busybox-static")
    lower = tree({"bin": "", "bin/sh": BUSYBOX.read_bytes(), "bin/cat": "->sh"})
    layout(tmp_path / "image", [lower, tree({"word": b"arrived"})], {})
    registry = SlowRegistry(tmp_path / "image")
    yield registry
    registry.end()


@pytest.fixture
def own_server(slow: SlowRegistry, tmp_path: Path) -> Iterator[Server]:
    need_everything()
    server = Server.start(tmp_path / "home", "--trusted-registry", slow.address)
    yield server
    server.end()


async def test_a_start_out_of_time_leaves_its_pull_to_the_next_start(
    slow: SlowRegistry, own_server: Server, name: str
) -> None:
    image = f"{slow.address}/slow:1"
    sandbox = PythonSandbox(server_url=own_server.url, name=name)
    for _ in range(2):  # the second one joins the pull of the first
        with pytest.raises(StartTimeoutError, match="not up within 1000 ms") as caught:
            await sandbox.start(image=image, timeout=1)
        assert "longer timeout" in str(caught.value.remedy)
        error: Exception = caught.value
        assert isinstance(error, TimeoutError)
        assert not sandbox.is_started
    assert not slow.sent_all.is_set()
    # Nobody waits for it now, and after this nobody can be asked for anything any more.
    await asyncio.to_thread(slow.send)
    await sandbox.start(image=image)
    assert await (await sandbox.command.run("sh", ["-c", "cat /word"])).output() == "arrived"
    await sandbox.stop()
    assert set(slow.asked.values()) == {1}, slow.asked
    assert len(slow.asked) == 4, "a manifest, a configuration, two layers"


async def test_a_start_that_waits_gets_what_an_earlier_one_gave_up(
    slow: SlowRegistry, own_server: Server, name: str
) -> None:
    image = f"{slow.address}/slow:1"
    with pytest.raises(StartTimeoutError):
        await PythonSandbox(server_url=own_server.url, name=name).start(image=image, timeout=0.5)
    sandbox = PythonSandbox(server_url=own_server.url, name=name)
    starting = asyncio.create_task(sandbox.start(image=image))
    await asyncio.to_thread(slow.send)
    await starting
    assert (await sandbox.command.run("sh", ["-c", "true"])).success
    await sandbox.stop()
    assert set(slow.asked.values()) == {1}, slow.asked
