# SPDX-License-Identifier: Apache-2.0
"""The wire: one JSON-RPC call as one HTTP POST, and every way in which it can fail as an exception.

The server answers errors in two shapes, `{"error": "<text>", "code": n, ...}` and
`{"error": {"code": n, "message": "<text>"}, ...}`; both end up as `MicrosandboxError`, as does anything that is no
answer of this protocol at all.
"""

from __future__ import annotations

import io
import json
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import aiohttp

from ._errors import (
    AccessError,
    CapacityError,
    CommandTimeout,
    MicrosandboxError,
    NotFoundError,
    NotRunningError,
    ServerUnreachableError,
    StartTimeoutError,
)
from ._execution import join_lines, output_lines

T = TypeVar("T")

DEFAULT_SERVER_URL = "http://127.0.0.1:5555"

# Error codes of the server that the SDK acts on.
UNKNOWN = 4001
NOT_RUNNING = 4009
START_TIMED_OUT = 5004

# The error codes that have a class of their own.
_KINDS: dict[int, type[MicrosandboxError]] = {
    1001: AccessError,
    1004: AccessError,
    3001: AccessError,
    UNKNOWN: NotFoundError,
    NOT_RUNNING: NotRunningError,
    4290: CapacityError,
}

# How long a connection to the server may take to open, in seconds.
_CONNECT_SECONDS = 10.0
# No total: a run or a command takes as long as it takes, whatever the session's own limit says.
_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=None, sock_read=None, sock_connect=_CONNECT_SECONDS)
# Above this many bytes aiohttp wants a body as a file, so that it is sent in pieces.
_BYTES_BODY_MAX = 1 << 20
# How much of an answer that is not of this protocol an error shows, in characters.
_EXCERPT_CHARS_MAX = 300
# How much of a `.env` file is read for the key, in characters.
_DOTENV_CHARS_MAX = 64 * 1024

_ACTS = {
    "sandbox.start": "start sandbox",
    "sandbox.stop": "stop sandbox",
    "sandbox.repl.run": "execute code",
    "sandbox.command.run": "execute command",
    "sandbox.metrics.get": "get sandbox metrics",
    "sandbox.get": "describe the sandbox",
}


class Caller(Protocol):
    """Makes a call about one started sandbox and reads its answer."""

    async def __call__(self, method: str, params: dict[str, Any], read: Callable[[Mapping[str, Any]], T]) -> T:
        """Call `method`; `read` turns the result into what the caller wants, or raises ValueError."""
        ...


@dataclass(frozen=True)
class Server:
    """Where the server is and how to identify to it."""

    url: str
    api_key: str | None

    async def call(self, session: aiohttp.ClientSession, method: str, params: Mapping[str, Any]) -> object:
        """Make one call and return its result.

        Raises:
            ServerUnreachableError: No answer came.
            MicrosandboxError: The answer is an error, or none of this protocol.
        """
        body = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": str(uuid.uuid4())}).encode()
        headers = {"Content-Type": "application/json"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        try:
            async with session.post(
                f"{self.url}/api/v1/rpc",
                data=body if len(body) <= _BYTES_BODY_MAX else io.BytesIO(body),
                headers=headers,
                timeout=_TIMEOUT,
                allow_redirects=False,
                raise_for_status=False,
            ) as response:
                status, answer = response.status, await response.read()
        except aiohttp.InvalidURL as error:
            raise MicrosandboxError(f"{failed(method)}: {self.url!r} is not the URL of a server") from error
        except aiohttp.ClientError as error:
            raise ServerUnreachableError(
                f"{failed(method)}: {self._why_unreachable(error)}",
                remedy="start a server with `msb server start`, or set MSB_SERVER_URL to the one you mean",
            ) from error
        return _result(method, status, answer)

    def _why_unreachable(self, error: aiohttp.ClientError) -> str:
        if never_sent(error):
            return (
                f"cannot reach the microsandbox server at {self.url} ({error}): start one with "
                "`msb server start`, or set MSB_SERVER_URL to the one you mean"
            )
        why = str(error) or type(error).__name__
        return (
            f"the connection to the microsandbox server at {self.url} broke before it answered ({why}): "
            "if it ended, start it again with `msb server start`"
        )


def never_sent(error: BaseException | None) -> bool:
    """Return whether a request failed before any of it reached a server."""
    return isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError))


def failed(method: str) -> str:
    """Return how the text of an error about `method` begins."""
    return f"Failed to {_ACTS[method]}"


def unexpected(method: str, why: object) -> MicrosandboxError:
    """Return the error for an answer that is none of this protocol."""
    return MicrosandboxError(f"{failed(method)}: the server's answer is not what the protocol says: {why}")


def find_server_url(given: str | None) -> str:
    """Return the server's URL: the one given, else that of MSB_SERVER_URL, else the default."""
    return (given or os.environ.get("MSB_SERVER_URL") or DEFAULT_SERVER_URL).rstrip("/")


def find_api_key(given: str | None) -> str | None:
    """Return the key: the one given, else that of MSB_API_KEY, else that of a `.env` file in the working directory."""
    return given or os.environ.get("MSB_API_KEY") or _api_key_of_dotenv()


def _api_key_of_dotenv() -> str | None:
    try:
        with Path(".env").open(encoding="utf-8", errors="replace") as file:
            text = file.read(_DOTENV_CHARS_MAX)
    except OSError:
        return None
    for line in text.splitlines():
        name, _, value = line.strip().removeprefix("export ").partition("=")
        if name.strip() == "MSB_API_KEY":
            return value.strip().strip("\"'") or None
    return None


def _result(method: str, status: int, body: bytes) -> object:
    try:
        answer = cast("object", json.loads(body))
    except ValueError:  # no JSON, or bytes that are no text
        answer = None
    if not isinstance(answer, dict):
        raise _foreign_answer(method, status, body)
    members = cast("dict[str, Any]", answer)
    if "error" in members:
        raise _refusal(method, members)
    if status != 200 or "result" not in members:
        raise _foreign_answer(method, status, body)
    return members["result"]


def _foreign_answer(method: str, status: int, body: bytes) -> MicrosandboxError:
    text = body.decode("utf-8", "replace").strip()
    excerpt = text[:_EXCERPT_CHARS_MAX] + ("..." if len(text) > _EXCERPT_CHARS_MAX else "")
    return MicrosandboxError(f"{failed(method)}: HTTP status {status}: {excerpt or '(no text)'}")


def _refusal(method: str, members: Mapping[str, Any]) -> MicrosandboxError:
    """Read both shapes of an error; the additional members stand beside the text in either."""
    found = cast("object", members["error"])
    inner = cast("dict[str, Any]", found) if isinstance(found, dict) else {"message": found}
    fields = {**members, **inner}
    data = cast("object", fields.get("data"))
    if isinstance(data, dict):
        fields.update(cast("dict[str, Any]", data))
    code, message, remedy = fields.get("code"), fields.get("message"), _text(fields.get("remedy"))
    text = message if isinstance(message, str) and message else "the server gives no reason"
    if remedy and remedy not in text:
        text = f"{text} ({remedy})"
    error = _kind(method, fields)(
        f"{failed(method)}: {text}",
        code=code if isinstance(code, int) else None,
        request_id=_text(fields.get("request_id")),
        cause=_text(fields.get("cause")),
        remedy=remedy,
    )
    if isinstance(error, CommandTimeout):
        try:
            lines = output_lines(fields.get("output"))
        except ValueError as wrong:
            raise unexpected(method, wrong) from error
        error.output, error.error = join_lines(lines, "stdout"), join_lines(lines, "stderr")
    return error


def _kind(method: str, fields: Mapping[str, Any]) -> type[MicrosandboxError]:
    if method == "sandbox.start" and fields.get("code") == START_TIMED_OUT:
        return StartTimeoutError
    if method == "sandbox.command.run" and fields.get("timed_out") is True:
        return CommandTimeout
    code = fields.get("code")
    return _KINDS.get(code, MicrosandboxError) if isinstance(code, int) else MicrosandboxError


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
