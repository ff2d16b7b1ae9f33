# SPDX-License-Identifier: Apache-2.0
"""A sandbox that is spoken with over HTTP alone, and what its answers are checked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from conftest import Answer, Wire

PYTHON = {"image": "microsandbox/python"}
PING = {"jsonrpc": "2.0", "method": "sandbox.metrics.get", "params": {"namespace": "default"}, "id": 1}


@dataclass(frozen=True)
class Guest:
    """One started sandbox."""

    wire: Wire
    name: str
    namespace: str = "default"

    @property
    def target(self) -> dict[str, object]:
        return {"namespace": self.namespace, "sandbox": self.name}

    async def call(self, method: str, **params: object) -> Answer:
        """Make one call about this sandbox."""
        return await self.wire.call(method, {**self.target, **params})

    async def start(self, **config: object) -> str:
        """Start it, which must succeed; return what the server says."""
        return await self.result("sandbox.start", config={**PYTHON, **config})

    async def stop(self) -> str:
        return await self.result("sandbox.stop")

    async def result(self, method: str, **params: object) -> Any:
        """Make one call that must succeed."""
        return await self.wire.result(method, **{**self.target, **params})

    async def run(self, code: str, language: str = "python", **params: object) -> dict[str, Any]:
        """Run code; return the result whatever became of it."""
        return await self.result("sandbox.repl.run", language=language, code=code, **params)

    async def command(self, command: str, *args: str, **params: object) -> dict[str, Any]:
        """Run a command that can be started and comes to its end."""
        return await self.result("sandbox.command.run", command=command, args=list(args), **params)

    async def sh(self, script: str, **params: object) -> dict[str, Any]:
        return await self.command("sh", "-c", script, **params)

    async def metrics(self) -> dict[str, Any]:
        """Return the one reading of this sandbox."""
        (reading,) = (await self.result("sandbox.metrics.get"))["sandboxes"]
        return reading


async def processes(guest: Guest) -> str:
    """Return the command lines of what runs in a sandbox, one in a line; what asks is not among them."""
    script = "for f in /proc/[0-9]*/cmdline; do [ $f = /proc/$$/cmdline ] || tr '\\0' ' ' <$f; echo; done 2>/dev/null"
    return out(await guest.sh(script))


def out(body: dict[str, Any]) -> str:
    """Return what came on standard output."""
    return _of(body, "stdout")


def err(body: dict[str, Any]) -> str:
    """Return what came on standard error."""
    return _of(body, "stderr")


def _of(body: dict[str, Any], stream: str) -> str:
    return "\n".join(line["text"] for line in body["output"] if line["stream"] == stream)


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
    assert answer.body["error"]["code"] == code, answer.text
    assert "result" not in answer.body
    for word in words:
        assert word in answer.body["error"]["message"], answer.text
