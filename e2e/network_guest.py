# SPDX-License-Identifier: Apache-2.0
"""A sandbox with a policy about the network, and what it can try."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from microsandbox import PythonSandbox

from host import Server

# Inside, these are at hand.
TOOLS = """
import json, socket, struct, urllib.request

def fetch(host, port=80, path="/"):
    url = "http://" + host + ("" if port == 80 else ":%d" % port) + path
    try:
        return urllib.request.urlopen(url, timeout=8).read().decode()
    except Exception as error:
        return "failed: " + repr(getattr(error, "reason", error))

def connect(address, port):
    try:
        with socket.create_connection((address, port), timeout=8) as stream:
            return "connected"
    except Exception as error:
        return "failed: " + repr(error)

def echo(address, port=7, source=None):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.settimeout(1)
        try:
            if source:
                sender.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND
                sender.bind((source, 0))
            sender.connect((address, port))
            sender.send(b"hello")
            return sender.recv(100).decode()
        except Exception as error:
            return "failed: " + repr(error)

def own_address():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("9.9.9.9", 7))
        return sender.getsockname()[0]

def encode(labels, kind=1):
    name = b"".join(bytes([len(label)]) + label for label in labels) + bytes(1)
    return struct.pack(">HHHHHH", 4660, 256, 1, 0, 0, 0) + name + struct.pack(">HH", kind, 1)

def name_server():
    lines = [line.split() for line in open("/etc/resolv.conf")]
    return next((words[1] for words in lines if words[:1] == ["nameserver"]), None)

def ask(labels, kind=1, server=None, way="datagram", port=53):
    labels = [label if isinstance(label, bytes) else label.encode() for label in labels]
    server = server or name_server()
    question = encode(labels, kind)
    try:
        if way == "datagram":
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
                asker.settimeout(5)
                asker.connect((server, port))
                asker.send(question)
                told = asker.recv(65535)
        else:
            with socket.create_connection((server, port), timeout=5) as asker:
                asker.sendall(struct.pack(">H", len(question)) + question)
                length = struct.unpack(">H", asker.recv(2))[0]
                told = b""
                while len(told) < length:
                    told += asker.recv(65535)
    except Exception as error:
        return "failed: " + repr(error)
    return {"code": told[3] & 15, "cut": bool(told[2] & 2), "answers": struct.unpack(">H", told[6:8])[0]}
"""


@asynccontextmanager
async def box(server: Server, **options: Any) -> AsyncIterator[PythonSandbox]:
    async with PythonSandbox.create(server.url, **options) as sandbox:
        execution = await sandbox.run(TOOLS)
        assert not execution.has_error(), await execution.error()
        yield sandbox


async def found(sandbox: PythonSandbox, expression: str) -> Any:
    execution = await sandbox.run(f"print(json.dumps({expression}))")
    assert not execution.has_error(), await execution.error()
    return json.loads(await execution.output())


def forwarding() -> str:
    return Path("/proc/sys/net/ipv4/ip_forward").read_text()


def fetch_outside(host: str) -> str:
    return urllib.request.urlopen(f"http://{host}/", timeout=5).read().decode()
