# SPDX-License-Identifier: Apache-2.0
"""Stands between a client and the server, passes every byte on as it is, and remembers the exchanges."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

_CHUNK_BYTES = 65536
# How long a connection may stay open after its client is gone, in seconds.
_CLOSE_SECONDS = 20


@dataclass
class Message:
    """One HTTP message: its first line, its headers by lower-case name, its body."""

    first_line: str
    headers: dict[str, str]
    body: Any


@dataclass
class Exchange:
    """One request, and what the server answered."""

    request: Message
    answer: Message

    @property
    def method(self) -> str:
        return self.request.body["method"]

    @property
    def params(self) -> dict[str, Any]:
        return self.request.body["params"]


class Tee:
    """Listens on a port of its own for clients of a server."""

    def __init__(self, url: str) -> None:
        target = urlsplit(url)
        self._server = (target.hostname, target.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[tuple[bytearray, bytearray]] = []
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def exchanges(self) -> list[Exchange]:
        """Give all exchanges so far, connection by connection; only whole when the client has ended."""
        found: list[Exchange] = []
        for asked, answered in self._connections:
            pairs = zip(_messages(bytes(asked)), _messages(bytes(answered)), strict=True)
            found += [Exchange(request, answer) for request, answer in pairs]
        return found

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            server = socket.create_connection(self._server)
            self._sockets += [client, server]
            asked, answered = bytearray(), bytearray()
            self._connections.append((asked, answered))
            self._start(_pass_on, client, server, asked)
            self._start(_pass_on, server, client, answered)

    def _start(self, work: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def open(self) -> None:
        self._start(self._accept)

    def close(self) -> None:
        """Take no more clients, and wait until those there were are done."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(_CLOSE_SECONDS)
        for each in self._sockets:
            each.close()


@contextmanager
def tee(url: str) -> Iterator[Tee]:
    """Give something that listens for the clients of a server for the length of a block."""
    between = Tee(url)
    between.open()
    try:
        yield between
    finally:
        between.close()


def _pass_on(source: socket.socket, sink: socket.socket, seen: bytearray) -> None:
    """Copy until one side has no more; the other direction learns of it from the half that is closed."""
    try:
        while chunk := source.recv(_CHUNK_BYTES):
            seen += chunk
            sink.sendall(chunk)
    except OSError:  # reset by one side: it will have no more
        pass
    finally:
        with suppress(OSError):  # gone already
            sink.shutdown(socket.SHUT_WR)


def _messages(data: bytes) -> Iterator[Message]:
    """Take the HTTP messages of one direction apart."""
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers["content-length"])
        assert len(rest) >= length, f"cut off: {first}"
        yield Message(first, headers, json.loads(rest[:length]))
        data = rest[length:]
