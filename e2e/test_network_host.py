# SPDX-License-Identifier: Apache-2.0
"""What a server does to the network of its machine, and what it says when the machine cannot do what is needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from microsandbox import MicrosandboxError, PythonSandbox

from host import Server, need_everything
from internet import FRONT
from machines import OWN_ADDRESSES, Machine, own_machine, run
from network_guest import box, forwarding, found


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    need_everything()
    with own_machine(tmp_path) as machine:
        yield machine


async def test_a_firewall_that_drops_is_found_and_said(machine: Machine, tmp_path: Path) -> None:
    run(
        "nft",
        "add table ip firewall; add chain ip firewall forward { type filter hook forward priority 0; policy drop; }",
    )
    try:
        server = Server.start(tmp_path / "home", inside=machine.inside)
        with pytest.raises(MicrosandboxError, match=r"firewall of this host drops.*iptables -I FORWARD -i msb"):
            await PythonSandbox(server.url).start(network="public")
        async with PythonSandbox.create(server.url) as sandbox:
            assert await sandbox.metrics.network() == "none"
        assert "sandboxes have no network" in server.log.read_text()
        assert not any(name.startswith("msb") for name in machine.interfaces())
        server.end()
    finally:
        run("nft", "delete table ip firewall")
    assert "msb" not in machine.ruleset()


async def test_without_a_network_the_machine_stays_untouched(machine: Machine, tmp_path: Path) -> None:
    before = machine.ruleset(), machine.interfaces(), forwarding()
    server = Server.start(tmp_path / "home", "--no-network", inside=machine.inside)
    assert (machine.ruleset(), machine.interfaces(), forwarding()) == before
    with pytest.raises(MicrosandboxError, match="switched off"):
        await PythonSandbox(server.url).start(network={"allow": []})
    async with PythonSandbox.create(server.url, network="none", ports=["0:1"]) as sandbox:
        assert len(await sandbox.metrics.ports()) == 1
    server.end()


async def test_what_a_killed_server_left_is_cleared_by_the_next(machine: Machine, tmp_path: Path) -> None:
    before = machine.ruleset(), machine.interfaces(), forwarding()
    killed = Server.start(tmp_path / "home", inside=machine.inside)
    sandbox = PythonSandbox(killed.url)
    await sandbox.start(network="public")
    tables = machine.ruleset().count("table inet")
    killed.kill()
    with pytest.raises(MicrosandboxError):
        await sandbox.stop()
    server = Server.start(tmp_path / "home", inside=machine.inside)
    assert machine.ruleset().count("table inet") == tables
    async with box(server, network="public") as sandbox:
        assert await found(sandbox, f"fetch({FRONT!r})") == f"you reached {FRONT}"
    server.end()
    assert (machine.ruleset(), machine.interfaces(), forwarding()) == before


async def test_two_servers_share_a_machine(machine: Machine, tmp_path: Path) -> None:
    before = machine.ruleset(), machine.interfaces(), forwarding()
    one = Server.start(tmp_path / "one", inside=machine.inside)
    other = Server.start(tmp_path / "other", inside=machine.inside)
    async with box(other, network="public") as sandbox:
        assert await found(sandbox, f"fetch({FRONT!r})") == f"you reached {FRONT}"
        one.process.terminate()
        one.wait()
        assert await found(sandbox, f"fetch({FRONT!r})") == f"you reached {FRONT}"
    other.process.terminate()
    other.wait()
    assert (machine.ruleset(), machine.interfaces(), forwarding()) == before


async def test_a_machine_that_was_no_router_is_none_for_others(machine: Machine, tmp_path: Path) -> None:
    """Forwarding is switched on for sandboxes: nobody else may use the machine as a router because of it."""
    assert forwarding() == "0\n"
    server = Server.start(tmp_path / "home", inside=machine.inside)
    assert forwarding() == "1\n"
    neighbour = ["nsenter", "--net", "--target", str(machine.internet.pid)]
    send = "import socket; s = socket.socket(2, 2); s.bind(('185.5.5.1', 0)); s.sendto(b'x', ('192.168.7.99', 7))"
    run(*neighbour, "ip", "route", "add", "192.168.7.0/24", "via", OWN_ADDRESSES[0], "dev", "net0", "table", "77")
    run(*neighbour, "ip", "rule", "del", "priority", "0")
    run(*neighbour, "ip", "rule", "add", "lookup", "local", "priority", "10")
    run(*neighbour, "ip", "rule", "add", "to", "192.168.7.99", "lookup", "77", "priority", "5")
    run("nft", "add table ip seen; add chain ip seen out { type filter hook forward priority 300; }")
    run("nft", "add rule ip seen out ip daddr 192.168.7.99 counter")
    run(*neighbour, "python3", "-c", send)
    assert "packets 0 " in machine.ruleset().partition("192.168.7.99")[2]
    run("nft", "delete table inet msb_guard")
    run(*neighbour, "python3", "-c", send)
    assert "packets 1 " in machine.ruleset().partition("192.168.7.99")[2], "the control"
    run("nft", "delete table ip seen")
    server.process.terminate()
    server.wait()
