# SPDX-License-Identifier: Apache-2.0
"""One kind of hostile client, in a process of its own: ``hostile_client.py KIND HOST PORT SECONDS [SANDBOX]``.

It prints ``ready`` when its attack stands, goes on for the seconds it was given, and prints as JSON what it saw.
Everything is bounded: connections, bytes and time.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import random
import resource
import sys
import time
from collections.abc import AsyncIterator

HEAD = "POST /api/v1/rpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
MIB = 1024 * 1024

seen: collections.Counter[str] = collections.Counter()
kinds = {}


def kind(function):
    kinds[function.__name__] = function
    return function


class Target:
    def __init__(self, host: str, port: int, seconds: float, sandbox: str) -> None:
        self.host, self.port, self.sandbox = host, port, sandbox
        self.seconds = seconds
        self.until = 0.0

    def stand(self) -> None:
        """Say that the attack stands; its time begins."""
        print("ready", flush=True)
        self.until = time.monotonic() + self.seconds

    def goes_on(self) -> bool:
        return time.monotonic() < self.until

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def send(self, data: bytes) -> int:
        """Send something on a connection of its own and return the status of the answer, 0 for none."""
        status = 0
        with contextlib.suppress(ConnectionError):
            async with self.connect() as (reader, writer):
                writer.write(data)
                await writer.drain()
                line = await asyncio.wait_for(reader.readline(), 30)
                status = int(line.split()[1]) if line else 0
                await self.drain(reader)
        seen[str(status)] += 1
        return status

    async def drain(self, reader: asyncio.StreamReader) -> None:
        """Read the rest of an answer, as an honest client does."""
        length = 0
        while (line := await reader.readline()).strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        while length > 0 and (piece := await reader.read(length)):
            length -= len(piece)

    async def keep_sending(self, data: bytes, clients: int) -> None:
        async def one() -> None:
            while self.goes_on():
                await self.send(data)

        self.stand()
        await asyncio.gather(*(one() for _ in range(clients)))

    async def crowd(self, clients: int, first: bytes, then: bytes) -> None:
        """Open connections that send a beginning, and then one byte after the other."""
        streams = []
        for _ in range(clients):
            with contextlib.suppress(ConnectionError):
                streams.append(await asyncio.open_connection(self.host, self.port))
                streams[-1][1].write(first)
        self.stand()
        position = 0
        while self.goes_on():
            for _, writer in streams:
                with contextlib.suppress(ConnectionError):
                    if then:
                        writer.write(then[position % len(then) : position % len(then) + 1])
            position += 1
            await asyncio.sleep(0.1)
        for reader, writer in streams:
            seen["closed by the server" if reader.at_eof() or reader.exception() else "open"] += 1
            writer.transport.abort()

    def call(self, method: str, params: dict[str, object]) -> bytes:
        call = {"jsonrpc": "2.0", "method": method, "params": {"namespace": "default", **params}, "id": 1}
        return request(json.dumps(call).encode())


def request(body: bytes, headers: str = "") -> bytes:
    return f"{HEAD}{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


@kind
async def idle(target: Target) -> None:
    await target.crowd(10_000, b"", b"")


@kind
async def slow_heads(target: Target) -> None:
    await target.crowd(1000, b"POST /api/v1/rpc HTTP/1.1\r\nX-Slow: ", b"x")


@kind
async def slow_bodies(target: Target) -> None:
    await target.crowd(1000, f"{HEAD}Content-Length: 1000000\r\n\r\n".encode(), b" ")


@kind
async def stalled_bodies(target: Target) -> None:
    await target.crowd(400, f"{HEAD}Content-Length: {2 * MIB}\r\n\r\n".encode() + b" " * (2 * MIB - 64), b"")


@kind
async def head_flood(target: Target) -> None:
    await target.keep_sending(f"{HEAD}X-Flood: {'x' * 100_000}\r\n\r\n".encode(), 8)


@kind
async def body_flood(target: Target) -> None:
    await target.keep_sending(request(b"[" + b"1," * (MIB - 8) + b"1]"), 4)


@kind
async def deep_json(target: Target) -> None:
    await target.keep_sending(request(b"[" * 100_000), 8)


@kind
async def garbage(target: Target) -> None:
    bodies = [
        request(b'{"jsonrpc":"2.0","method":"sandbox.stop","params":{"namespace":NaN}}'),
        request(b'{"jsonrpc":"2.0","method":"sandbox.stop","params":{"timeout":1e999999}}'),
        request(b'{"jsonrpc":"2.0","jsonrpc":"2.0","method":"sandbox.stop","params":{}}'),
        request(b'{"jsonrpc":"2.0","method":"\xff\xfe"}'),
        request(b"\x1f\x8b" + bytes(1000), "Content-Encoding: gzip\r\n"),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x08" * 1000,
        b"\x16\x03\x01\x02\x00" + bytes(512),
    ]

    async def one(number: int) -> None:
        while target.goes_on():
            await target.send(bodies[number % len(bodies)])
            number += 1

    target.stand()
    await asyncio.gather(*(one(number) for number in range(len(bodies))))


@kind
async def pipelining(target: Target) -> None:
    request = b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n"

    async def one() -> None:
        while target.goes_on():
            with contextlib.suppress(ConnectionError):
                async with target.connect() as (reader, writer):
                    writer.write(request * 500)
                    for _ in range(500):
                        seen[(await reader.readline()).split()[1].decode()] += 1
                        await reader.readuntil(b"}")

    target.stand()
    await asyncio.gather(*(one() for _ in range(4)))


@kind
async def discover_batches(target: Target) -> None:
    one = b'{"jsonrpc":"2.0","method":"rpc.discover","id":1}'
    await target.keep_sending(request(b"[" + b",".join([one] * 100) + b"]"), 4)


@kind
async def big_answers(target: Target) -> None:
    code = "print('x' * (7 << 20))"
    run = {"sandbox": target.sandbox, "language": "python", "code": code}
    await target.keep_sending(target.call("sandbox.repl.run", run), 2)


@kind
async def big_answers_to_models(target: Target) -> None:
    arguments = {
        "namespace": "default",
        "sandbox": target.sandbox,
        "language": "python",
        "code": "print('x' * (7 << 20))",
    }
    params = {"name": "sandbox_run_code", "arguments": arguments}
    body = json.dumps({"jsonrpc": "2.0", "method": "tools/call", "params": params, "id": 1}).encode()
    await target.keep_sending(request(body).replace(b"/api/v1/rpc", b"/mcp"), 2)


@kind
async def stalled_readers(target: Target) -> None:
    code = "print('\\x01' * (7 << 20))"
    run = target.call("sandbox.repl.run", {"sandbox": target.sandbox, "language": "python", "code": code})
    streams = []
    for _ in range(100):
        streams.append(await asyncio.open_connection(target.host, target.port, limit=1))
        streams[-1][1].write(run)
    target.stand()
    await asyncio.sleep(target.seconds)
    for _, writer in streams:
        writer.transport.abort()
    seen["asked and did not read"] = len(streams)


@kind
async def vanishing(target: Target) -> None:
    chance = random.Random(7)
    run = target.call("sandbox.repl.run", {"sandbox": target.sandbox, "language": "python", "code": "while True: pass"})

    async def one() -> None:
        while target.goes_on():
            with contextlib.suppress(ConnectionError):
                async with target.connect() as (_, writer):
                    writer.write((run + b"G")[: chance.randrange(len(run) + 40)])
                    await asyncio.sleep(chance.random() / 20)
            seen["vanished"] += 1

    target.stand()
    await asyncio.gather(*(one() for _ in range(8)))


async def main() -> None:
    name, host, port, seconds, *sandbox = sys.argv[1:]
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    await kinds[name](Target(host, int(port), float(seconds), *sandbox, *[""][len(sandbox) :]))
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
