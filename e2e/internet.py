# SPDX-License-Identifier: Apache-2.0
"""A whole internet in one network namespace: every address answers, so that a leak is seen wherever it goes.

Run inside a fresh network namespace, this serves on all addresses there are:

- HTTP on ports 80, 443, 8080: says which address was called; `/redirect?URL` leads elsewhere;
- names on port 53, over datagrams and connections, and on 853 over connections; the names are in `zone`;
- an echo of datagrams on port 7.

It writes a line to standard output when it is ready, and then one for each thing that reached it.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

_RECVDSTADDR = 8  # IP_PKTINFO of ip(7)

FRONT = "93.184.216.34"
BEHIND = "93.184.216.35"
METADATA = "169.254.169.254"

_lock = threading.Lock()
_asked: dict[str, int] = {}


def zone(name: str, turn: int) -> list[tuple[str, int, str]]:
    """Return the records of a name, the `turn`th time that it is asked for: kind, seconds, value."""
    if name == "rebind.allowed.example":
        return [("A", 0, FRONT if turn == 0 else METADATA)]
    if name == "many.example":
        return [("A", 60, f"93.184.1.{number}") for number in range(120)]
    return {
        "web.allowed.example": [("A", 60, FRONT)],
        "short.allowed.example": [("A", 1, FRONT)],
        "other.example": [("A", 60, BEHIND)],
        "alias.allowed.example": [("CNAME", 60, "other.example")],
        "inside.allowed.example": [("A", 60, "10.0.0.5"), ("A", 60, METADATA), ("A", 60, "127.0.0.1")],
        "alias-inside.allowed.example": [("CNAME", 60, "inside.allowed.example")],
        "circle.allowed.example": [("CNAME", 60, "circle2.allowed.example")],
        "circle2.allowed.example": [("CNAME", 60, "circle.allowed.example")],
    }.get(name, [])


def say(line: str) -> None:
    with _lock:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def encode(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def answer(question: bytes, way: str) -> bytes:
    """Answer one question for a name."""
    labels, at = [], 12
    while question[at]:
        labels.append(question[at + 1 : at + 1 + question[at]].decode("latin-1"))
        at += 1 + question[at]
    name, kind = ".".join(labels).lower(), struct.unpack(">H", question[at + 1 : at + 3])[0]
    asked = question[12 : at + 5]
    with _lock:
        turn = _asked[name] = _asked.get(name, -1) + (kind == 1)
    say(f"name {name} {kind} {way}")
    records: list[bytes] = []
    of: str | None = name
    for _ in range(4):
        following = None
        for sort, seconds, value in zone(of, max(turn, 0)) if of else []:
            data = socket.inet_aton(value) if sort == "A" else encode(value)
            number = 1 if sort == "A" else 5
            if number in (kind, 5):
                records.append(encode(of or "") + struct.pack(">HHIH", number, 1, seconds, len(data)) + data)
            following = value if sort == "CNAME" else None
        of = following
    cut = way == "datagram" and len(records) > 40
    flags, code = 0x8180 | (0x0200 if cut else 0), 0 if zone(name, 0) else 3
    head = question[:2] + struct.pack(">HHHHH", flags | code, 1, 0 if cut else len(records), 0, 0)
    return head + asked + (b"" if cut else b"".join(records))


def serve_names() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.setsockopt(socket.IPPROTO_IP, _RECVDSTADDR, 1)
        listener.bind(("", 53))
        while True:
            question, control, _, asker = listener.recvmsg(4096, 256)
            to = socket.inet_ntoa(control[0][2][8:12])
            # The answer comes from the address that was asked.
            info = struct.pack("=I4s4s", 0, socket.inet_aton(to), b"\0" * 4)
            listener.sendmsg([answer(question, "datagram")], [(socket.IPPROTO_IP, _RECVDSTADDR, info)], 0, asker)


def echo() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.setsockopt(socket.IPPROTO_IP, _RECVDSTADDR, 1)
        listener.bind(("", 7))
        while True:
            data, control, _, sender = listener.recvmsg(4096, 256)
            to = socket.inet_ntoa(control[0][2][8:12])
            say(f"datagram to {to} from {sender[0]}")
            info = struct.pack("=I4s4s", 0, socket.inet_aton(to), b"\0" * 4)
            listener.sendmsg([data], [(socket.IPPROTO_IP, _RECVDSTADDR, info)], 0, sender)


def accept(port: int, serve: Callable[[socket.socket], None]) -> None:
    listener = socket.create_server(("", port), backlog=512)

    def one(stream: socket.socket) -> None:
        with stream:
            stream.settimeout(20)
            with suppress(OSError, IndexError, struct.error):
                serve(stream)

    while True:
        stream, _ = listener.accept()
        threading.Thread(target=one, args=(stream,), daemon=True).start()


def http(stream: socket.socket) -> None:
    line = stream.recv(4096).decode("latin-1").split("\r\n")[0]
    to = stream.getsockname()[0]
    say(f"call to {to} from {stream.getpeername()[0]}")
    where = line.split(" ")[1] if line.count(" ") > 1 else "/"
    body = f"you reached {to}"
    head = "HTTP/1.0 200 OK\r\n"
    if where.startswith("/redirect?"):
        head = f"HTTP/1.0 302 Found\r\nLocation: {where.partition('?')[2]}\r\n"
    stream.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())


def names_at_length(stream: socket.socket) -> None:
    length = struct.unpack(">H", stream.recv(2))[0]
    told = answer(stream.recv(length), "connection")
    stream.sendall(struct.pack(">H", len(told)) + told)


def main() -> None:
    """Serve until standard input ends."""
    sys.stdin.readline()  # until the interface is there
    for command in (
        "ip link set lo up",
        "ip addr add 185.5.5.1/24 dev net0",
        "ip link set net0 up",
        "ip route add local 0.0.0.0/0 dev lo",
    ):
        subprocess.run(command.split(), check=True)
    for port in (80, 443, 8080):
        threading.Thread(target=accept, args=(port, http), daemon=True).start()
    for port in (53, 853):
        threading.Thread(target=accept, args=(port, names_at_length), daemon=True).start()
    threading.Thread(target=serve_names, daemon=True).start()
    threading.Thread(target=echo, daemon=True).start()
    say("ready")
    sys.stdin.read()


if __name__ == "__main__":
    main()
