# SPDX-License-Identifier: Apache-2.0
"""Tries, from inside, to reach whom a policy does not name, and from outside, more than a published port.

All of it happens on a machine of the tests' own with an internet of its own, in which every address answers: each
attack has a control that shows the same address answering somebody else.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import textwrap
import urllib.request
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from microsandbox import MicrosandboxError, PythonSandbox

from host import Server, need, need_everything
from internet import BEHIND, FRONT, METADATA
from machines import NAME_SERVER, OWN_ADDRESSES, Machine, own_machine, run
from network_guest import box, fetch_outside, forwarding, found

# One of each kind that nobody may reach.
FORBIDDEN = [
    METADATA,
    "0.0.0.1",
    "10.0.0.5",
    "100.64.0.1",
    "127.0.0.53",
    "169.254.1.1",
    "172.16.0.1",
    "172.31.255.254",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "168.63.129.16",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.251",
    "240.0.0.1",
    "255.255.255.255",
]
# What a C library takes for 169.254.169.254, and for 127.0.0.1.
OTHER_FORMS = [
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "169.254.43518",
    "169.16689662",
    "0xa9.0xfe.0xa9.0xfe",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[64:ff9b::a9fe:a9fe]",
    "[fd00:ec2::254]",
    "[fe80::a9fe:a9fe%25eth0]",
    "[::169.254.169.254]",
]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    need_everything()
    for program in ("ip", "nft"):
        need(shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin"), f"{program} is needed")
    with own_machine(tmp_path_factory.mktemp("machine")) as machine:
        yield machine


@pytest.fixture(scope="module")
def networked(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give a server on the machine; when it has ended, the machine's network must be as it was."""
    before = machine.ruleset(), machine.interfaces(), forwarding()
    server = Server.start(tmp_path_factory.mktemp("home"), inside=machine.inside)
    yield server
    server.end()
    assert (machine.ruleset(), machine.interfaces(), forwarding()) == before


# none


async def test_none_has_no_interface_and_no_name_service(networked: Server, machine: Machine) -> None:
    async with box(networked, network="none") as sandbox:
        assert await found(sandbox, "[name for _, name in socket.if_nameindex()]") == ["lo"]
        assert await found(sandbox, "name_server()") is None
        machine.what_reached_the_internet()
        for host in (FRONT, "web.allowed.example", METADATA, *OWN_ADDRESSES):
            assert (await found(sandbox, f"fetch({host!r})")).startswith("failed")
        for server in (NAME_SERVER, "127.0.0.1", "127.0.0.53", "10.77.0.1", "8.8.8.8"):
            assert "failed" in await found(sandbox, f"ask(['web', 'allowed', 'example'], server={server!r})")
        assert machine.what_reached_the_internet() == []
        assert await sandbox.metrics.network() == "none"
        assert await sandbox.metrics.network_denied() == 0
        await check_loopback(sandbox)


async def check_loopback(sandbox: PythonSandbox) -> None:
    code = """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        client.close()
    """
    execution = await sandbox.run(textwrap.dedent(code))
    assert not execution.has_error(), await execution.error()


# public


async def test_public_is_the_default_and_reaches_the_internet(networked: Server) -> None:
    async with box(networked) as sandbox:
        assert await sandbox.metrics.network() == "public"
        assert await found(sandbox, f"fetch({FRONT!r})") == f"you reached {FRONT}"
        assert await found(sandbox, "fetch('web.allowed.example', 8080)") == f"you reached {FRONT}"
        assert await found(sandbox, "fetch('alias.allowed.example')") == f"you reached {BEHIND}"
        assert await found(sandbox, "echo('9.9.9.9')") == "hello"
        assert (await found(sandbox, "ask(['web', 'allowed', 'example'], server='8.8.8.8')"))["code"] == 0
        await check_loopback(sandbox)


@pytest.mark.parametrize("policy", ["public", "allow"])
async def test_forbidden_addresses_are_out_of_reach(networked: Server, machine: Machine, policy: str) -> None:
    network = "public" if policy == "public" else {"allow": ["*.allowed.example", "93.184.216.0/24"]}
    for address in (METADATA, "10.0.0.5", "192.0.2.1", "100.64.0.1"):
        assert fetch_outside(address) == f"you reached {address}", "the control"
    async with box(networked, network=network) as sandbox:
        machine.what_reached_the_internet()
        before = await sandbox.metrics.network_denied()
        for address in FORBIDDEN:
            for port in (80, 53, 443):
                told = await found(sandbox, f"connect({address!r}, {port})")
                assert told.startswith("failed"), (address, port)
            assert (await found(sandbox, f"echo({address!r})")).startswith("failed"), address
        for host in OTHER_FORMS:
            assert (await found(sandbox, f"fetch({host!r})")).startswith("failed"), host
        assert [line for line in machine.what_reached_the_internet() if not line.startswith("name")] == []
        assert await sandbox.metrics.network_denied() > before + len(FORBIDDEN)
        assert await found(sandbox, f"fetch({FRONT!r})") == f"you reached {FRONT}"
    log = networked.log.read_text()
    assert f"to={METADATA}" in log
    assert "a packet was refused" in log


async def test_a_redirect_to_metadata_leads_nowhere(networked: Server, machine: Machine) -> None:
    url = f"http://{FRONT}/redirect?http://{METADATA}/latest/meta-data/"
    assert urllib.request.urlopen(url, timeout=5).read().decode() == f"you reached {METADATA}", "the control"
    async with box(networked, network="public") as sandbox:
        machine.what_reached_the_internet()
        told = await found(sandbox, f"fetch({FRONT!r}, path='/redirect?http://{METADATA}/latest/meta-data/')")
        assert told.startswith("failed")
        assert not any(METADATA in line for line in machine.what_reached_the_internet())


async def test_the_machines_own_addresses_are_out_of_reach(networked: Server, machine: Machine) -> None:
    """Those it had, those it gets, those of the way between; also where it leads a port on to somebody else."""
    listener = socket.create_server(("0.0.0.0", 8099))
    try:
        run("ip", "addr", "add", "93.184.200.9/32", "dev", "host0")
        run("nft", "add table ip docker; add chain ip docker pre { type nat hook prerouting priority dstnat; }")
        run("nft", "add rule ip docker pre fib daddr type local tcp dport 8098 dnat to 172.17.0.9:80")
        uplink = json.loads(run("ip", "-j", "addr", "show", "dev", uplink_of(machine)))[0]["addr_info"][0]
        own = [*OWN_ADDRESSES, "93.184.200.9", uplink["local"], uplink["address"], "10.77.0.1"]
        for address in (*OWN_ADDRESSES, "93.184.200.9", uplink["local"]):
            socket.create_connection((address, 8099), timeout=5).close()  # the control
        port = int(networked.url.rpartition(":")[2])
        async with box(networked, network="public") as sandbox:
            machine.what_reached_the_internet()
            for address in own:
                for target in (8099, 8098, port, 22, 853):
                    told = await found(sandbox, f"connect({address!r}, {target})")
                    assert told.startswith("failed"), (address, target)
                assert (await found(sandbox, f"echo({address!r})")).startswith("failed"), address
            assert machine.what_reached_the_internet() == []
            assert await found(sandbox, f"fetch({FRONT!r})") == f"you reached {FRONT}"
    finally:
        listener.close()
        run("nft", "delete table ip docker")
        run("ip", "addr", "del", "93.184.200.9/32", "dev", "host0")


def uplink_of(machine: Machine) -> str:
    return next(name for name in machine.interfaces() if name.startswith("msb"))


async def test_sandboxes_never_reach_each_other(networked: Server) -> None:
    async with box(networked, network="public") as one, box(networked, network="public") as other:
        serve = """
        import threading
        listener = socket.create_server(("0.0.0.0", 8080))
        own = own_address()
        reached = []
        def accept():
            while True:
                reached.append(listener.accept()[1][0])
        threading.Thread(target=accept, daemon=True).start()
        """
        await one.run(textwrap.dedent(serve))
        own = await found(one, "own")
        assert await found(one, "connect(own, 8080)") == "connected", "the control"
        assert (await found(other, f"connect({own!r}, 8080)")).startswith("failed")
        assert (await found(other, f"echo({own!r}, 8080)")).startswith("failed")
        assert await found(one, "reached") == [own]


async def test_nobody_sends_as_somebody_else(networked: Server, machine: Machine) -> None:
    async with box(networked, network="public") as one, box(networked, network="public") as other:
        mine, theirs = await found(one, "own_address()"), await found(other, "own_address()")
        assert mine != theirs
        machine.what_reached_the_internet()
        for address in (theirs, "93.184.216.99", "10.77.0.1"):
            assert (await found(one, f"echo('9.9.9.9', source={address!r})")).startswith("failed")
        assert machine.what_reached_the_internet() == []
        assert await found(one, f"echo('9.9.9.9', source={mine!r})") == "hello", "the control"
        for kind in ("socket.AF_INET, socket.SOCK_RAW, 255", "socket.AF_PACKET, socket.SOCK_RAW, 3"):
            told = await one.run(f"socket.socket({kind})")
            assert "PermissionError" in await told.error() or "Operation not permitted" in await told.error()


async def test_a_sandbox_cannot_change_its_network(networked: Server) -> None:
    async with box(networked, network="public") as sandbox:
        for path in ("ipv4/ip_forward", "ipv4/conf/eth0/accept_local", "ipv6/conf/eth0/disable_ipv6"):
            told = await sandbox.run(f"open('/proc/sys/net/{path}', 'w').write('1')")
            assert told.has_error()
        code = """
        link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        link.bind((0, 0))
        address = struct.pack("=HH4s", 8, 2, socket.inet_aton("93.184.216.99"))
        message = struct.pack("=BBBBI", 2, 32, 0, 0, 1000) + address
        link.send(struct.pack("=IHHII", 16 + len(message), 20, 0x605, 1, 0) + message)
        print(json.dumps(struct.unpack("=i", link.recv(4096)[16:20])[0]))
        """
        execution = await sandbox.run(textwrap.dedent(code))
        assert await execution.output() == "-1"  # EPERM


async def test_ipv6_leads_nowhere(networked: Server) -> None:
    async with box(networked, network="public") as sandbox:
        code = "[line.split()[5] for line in open('/proc/net/if_inet6')]"
        assert set(await found(sandbox, code)) <= {"lo"}
        assert await found(sandbox, "ask(['web', 'allowed', 'example'], kind=28)") == {
            "code": 0,
            "cut": False,
            "answers": 0,
        }


# allow-lists


async def test_an_allow_list_opens_what_it_names_and_nothing_else(networked: Server, machine: Machine) -> None:
    allow = ["web.allowed.example:80", "*.allowed.example:8080", "93.184.1.0/24:443", "93.184.2.7"]
    assert fetch_outside(BEHIND) == f"you reached {BEHIND}", "the control"
    async with box(networked, network={"allow": allow}) as sandbox:
        assert (await found(sandbox, f"fetch({FRONT!r})")).startswith("failed"), "no name has led there yet"
        assert await found(sandbox, "fetch('web.allowed.example')") == f"you reached {FRONT}"
        assert await found(sandbox, "fetch('web.allowed.example', 8080)") == f"you reached {FRONT}"
        assert (await found(sandbox, "fetch('web.allowed.example', 443)")).startswith("failed")
        assert await found(sandbox, "fetch('alias.allowed.example', 8080)") == f"you reached {BEHIND}"
        assert (await found(sandbox, "fetch('alias.allowed.example')")).startswith("failed")
        assert await found(sandbox, "fetch('93.184.1.200', 443)") == "you reached 93.184.1.200"
        assert (await found(sandbox, "fetch('93.184.1.200')")).startswith("failed")
        assert await found(sandbox, "fetch('93.184.2.7', 8080)") == "you reached 93.184.2.7"
        machine.what_reached_the_internet()
        for host in ("93.184.2.8", "other.example", "allowed.example", "web.allowed.example.other.example", "9.9.9.9"):
            assert (await found(sandbox, f"fetch({host!r})")).startswith("failed"), host
        assert machine.what_reached_the_internet() == [], "names that are not allowed are not even asked for"
        assert await sandbox.metrics.network() == "allow"


async def test_an_empty_allow_list_is_nobody(networked: Server, machine: Machine) -> None:
    async with box(networked, network={"allow": []}) as sandbox:
        machine.what_reached_the_internet()
        for host in (FRONT, "web.allowed.example", METADATA):
            assert (await found(sandbox, f"fetch({host!r})")).startswith("failed")
        assert machine.what_reached_the_internet() == []


async def test_names_by_other_roads(networked: Server, machine: Machine) -> None:
    async with box(networked, network={"allow": ["web.allowed.example"]}) as sandbox:
        assert (await found(sandbox, "ask(['web', 'allowed', 'example'])"))["code"] == 0, "the control"
        machine.what_reached_the_internet()
        for server in (NAME_SERVER, "8.8.8.8", "9.9.9.9"):
            for way, port in (("datagram", 53), ("connection", 53), ("connection", 853)):
                call = f"ask(['other', 'example'], server={server!r}, way={way!r}, port={port})"
                assert "failed" in await found(sandbox, call), (server, way, port)
        assert "failed" in await found(sandbox, "ask(['other', 'example'], way='connection', port=853)")
        assert machine.what_reached_the_internet() == []
        for way in ("datagram", "connection"):
            assert (await found(sandbox, f"ask(['other', 'example'], way={way!r})"))["code"] == 3
            assert (await found(sandbox, f"ask(['web', 'allowed', 'example'], way={way!r})"))["answers"] == 1
        assert [line for line in machine.what_reached_the_internet() if "other" in line] == []


async def test_names_with_odd_bytes(networked: Server, machine: Machine) -> None:
    async with box(networked, network={"allow": ["web.allowed.example", "*.allowed.example"]}) as sandbox:
        machine.what_reached_the_internet()
        for label in (r"web\0", r"web\r\nother", "web.other", "web other", r"\xff", "*", "a/b", r"a\\b"):
            told = await found(sandbox, f"ask([b'{label}', b'allowed', b'example'])")
            assert told["code"] == 1, label
            assert told["answers"] == 0
        for labels in (["a" * 63] * 5, [""], ["localhost"], ["metadata", "google", "internal"]):
            told = await found(sandbox, f"ask({labels!r})")
            assert "failed" in told or told["answers"] == 0
        assert machine.what_reached_the_internet() == []
        assert (await found(sandbox, "ask(['WEB', 'aLLowed', 'example'])"))["answers"] == 1, "the control"


async def test_names_that_lead_inside(networked: Server, machine: Machine) -> None:
    """Rebinding: an allowed name whose owner leads it to where the sandbox must not go."""
    for network in ("public", {"allow": ["*.allowed.example"]}):
        async with box(networked, network=network) as sandbox:
            machine.what_reached_the_internet()
            for name in ("inside", "alias-inside", "circle"):
                told = await found(sandbox, f"fetch('{name}.allowed.example')")
                assert told.startswith("failed"), name
            for address in ("10.0.0.5", METADATA, "127.0.0.1"):
                assert (await found(sandbox, f"connect({address!r}, 80)")).startswith("failed")
            reached = machine.what_reached_the_internet()
            assert any(line.startswith("name inside.allowed.example 1") for line in reached)
            assert not any(line.startswith("call") for line in reached)


async def test_a_name_that_changes_its_mind(networked: Server, machine: Machine) -> None:
    async with box(networked, network={"allow": ["rebind.allowed.example"]}) as sandbox:
        assert await found(sandbox, "fetch('rebind.allowed.example')") == f"you reached {FRONT}"
        told = await found(sandbox, "fetch('rebind.allowed.example')")
        assert told.startswith("failed"), "it leads to metadata now"
        assert any("rebind" in line for line in machine.what_reached_the_internet())


async def test_an_answer_too_large_for_a_datagram_comes_over_a_connection(networked: Server, machine: Machine) -> None:
    async with box(networked, network="public") as sandbox:
        assert (await found(sandbox, "ask(['many', 'example'])"))["cut"] is True
        told = await found(sandbox, "ask(['many', 'example'], way='connection')")
        assert told == {"code": 0, "cut": False, "answers": 32}
        assert any("name many.example 1 connection" in line for line in machine.what_reached_the_internet())


async def test_what_one_sandbox_may_is_not_open_for_another(networked: Server) -> None:
    async with (
        box(networked, network={"allow": ["web.allowed.example"]}) as one,
        box(networked, network={"allow": ["other.example"]}) as other,
    ):
        assert await found(one, "fetch('web.allowed.example')") == f"you reached {FRONT}"
        assert (await found(other, f"fetch({FRONT!r})")).startswith("failed")
        assert (await found(one, f"fetch({BEHIND!r})")).startswith("failed")


async def test_a_flood_of_connections_ends_at_its_bound_and_hurts_nobody_else(networked: Server) -> None:
    async with box(networked, network="public") as one, box(networked, network="public") as other:
        code = """
        import resource
        kept, refused = [], 0
        for number in range(1500):
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                sender.connect(("9.9.9.9", 2000 + number))
                sender.send(b"x")
                kept.append(sender)
            except OSError:
                refused += 1
        """
        await one.run(textwrap.dedent(code))
        assert await one.metrics.network_denied() >= 300
        assert await found(other, f"fetch({FRONT!r})") == f"you reached {FRONT}"
        assert (await found(other, "ask(['web', 'allowed', 'example'])"))["answers"] == 1


@pytest.mark.parametrize(
    "network",
    [
        "open",
        "PUBLIC",
        "",
        True,
        5,
        ["web.allowed.example"],
        {},
        {"deny": []},
        {"allow": []} | {"public": True},
        {"allow": "web.allowed.example"},
        {"allow": None},
        {"allow": [5]},
        {"allow": ["*"]},
        {"allow": ["0.0.0.0/0"]},
        {"allow": ["169.254.169.254"]},
        {"allow": ["10.0.0.0/8"]},
        {"allow": ["[::1]:80"]},
        {"allow": ["a.example\x00"]},
        {"allow": ["a.example"] * 65},
    ],
)
async def test_a_policy_that_is_none_starts_nothing(networked: Server, network: object) -> None:
    config = {"image": "microsandbox/python", "network": network}
    params = {"sandbox": "malformed", "namespace": "default", "config": config}
    async with aiohttp.ClientSession() as session:
        call = {"jsonrpc": "2.0", "method": "sandbox.start", "params": params, "id": 1}
        async with session.post(f"{networked.url}/api/v1/rpc", json=call) as response:
            answer = await response.json()
    assert (response.status, answer["code"]) == (400, 2001)
    assert "network" in answer["error"]


# published ports

SERVE = """
import threading
listener = socket.create_server(("127.0.0.1", 8000), backlog=64)
def one(stream):
    with stream:
        data = b""
        while part := stream.recv(65536):
            data += part
        stream.sendall(b"got %d: " % len(data) + data[:100])
def accept():
    while True:
        threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()
threading.Thread(target=accept, daemon=True).start()
"""


async def exchange(port: int, data: bytes, host: str = "127.0.0.1") -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(data)
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return answer


@pytest.mark.parametrize("network", ["none", "public"])
async def test_a_published_port_leads_into_the_sandbox(networked: Server, network: Any) -> None:
    async with box(networked, network=network, ports=["0:8000", "0:8001"]) as sandbox:
        await sandbox.run(SERVE)
        ports = await sandbox.metrics.ports()
        assert set(ports) == {8000, 8001}
        assert await exchange(ports[8000], b"hello") == b"got 5: hello"
        large = b"x" * 5_000_000
        assert (await exchange(ports[8000], large)).startswith(b"got 5000000: xxx")
        answers = await asyncio.gather(*(exchange(ports[8000], b"%d" % number) for number in range(50)))
        assert [answer.rpartition(b" ")[2] for answer in answers] == [b"%d" % number for number in range(50)]
        assert await exchange(ports[8001], b"") == b"", "nobody listens there"
        with pytest.raises(ConnectionRefusedError):
            await exchange(ports[8000], b"", OWN_ADDRESSES[0])
    with pytest.raises(ConnectionRefusedError):
        await exchange(ports[8000], b"")


async def test_a_published_port_is_no_proxy(networked: Server, machine: Machine) -> None:
    """Whatever a client asks for, the bytes go to the program inside and to nobody else."""
    async with box(networked, network="none", ports=["0:8000"]) as sandbox:
        await sandbox.run(SERVE)
        port = (await sandbox.metrics.ports())[8000]
        machine.what_reached_the_internet()
        for request in (
            f"CONNECT {METADATA}:80 HTTP/1.1\r\n\r\n".encode(),
            f"GET http://{METADATA}/ HTTP/1.1\r\nHost: {METADATA}\r\n\r\n".encode(),
            b"\x05\x01\x00" + b"\x05\x01\x00\x01" + socket.inet_aton(METADATA) + b"\x00\x50",
            b"PROXY TCP4 1.1.1.1 169.254.169.254 1 80\r\n",
        ):
            assert await exchange(port, request) == b"got %d: " % len(request) + request[:100]
        assert machine.what_reached_the_internet() == []


async def test_two_sandboxes_cannot_have_one_port(networked: Server) -> None:
    async with box(networked, ports=["0:8000"]) as sandbox:
        port = (await sandbox.metrics.ports())[8000]
        with pytest.raises(MicrosandboxError, match=f"port {port} of the host is in use"):
            await PythonSandbox(networked.url).start(ports=[f"{port}:8000"])
    async with box(networked, ports=[f"{port}:8000"]) as sandbox:
        assert await sandbox.metrics.ports() == {8000: port}
