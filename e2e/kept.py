# SPDX-License-Identifier: Apache-2.0
"""Calls over one kept connection, with nothing of a client in between that would be measured too."""

from __future__ import annotations

import json
import socket
import time
from typing import Any
from urllib.parse import urlsplit

ANSWER_SECONDS_MAX = 120


class Kept:
    """One connection to a server."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        assert address.hostname
        assert address.port
        self._host = address.netloc
        self._socket = socket.create_connection((address.hostname, address.port), ANSWER_SECONDS_MAX)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call(self, method: str, **params: Any) -> Any:
        """Make one call that must succeed."""
        return self.timed(method, **params)[1]

    def timed(self, method: str, **params: Any) -> tuple[float, Any]:
        """Make one call that must succeed, and return how many seconds it took too."""
        request = {"jsonrpc": "2.0", "method": method, "params": {"namespace": "default", **params}, "id": 1}
        body = json.dumps(request).encode()
        head = f"POST /api/v1/rpc HTTP/1.1\r\nhost: {self._host}\r\ncontent-type: application/json\r\n"
        message = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
        began = time.perf_counter()
        self._socket.sendall(message)
        status, text = self._answer()
        taken = time.perf_counter() - began
        answer = json.loads(text)
        assert status == 200, f"{method}: {status} {text!r}"
        assert "error" not in answer, f"{method}: {answer}"
        return taken, answer["result"]

    def _answer(self) -> tuple[int, bytes]:
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._more()
        head, _, body = received.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        while len(body) < int(fields["content-length"]):
            body += self._more()
        return int(first.split()[1]), body

    def _more(self) -> bytes:
        more = self._socket.recv(65536)
        assert more, "the server closed the connection"
        return more

    def close(self) -> None:
        self._socket.close()
