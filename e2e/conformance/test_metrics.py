# SPDX-License-Identifier: Apache-2.0
"""`sandbox.metrics.get`: what is listed, and the kind of each field."""

from __future__ import annotations

import pytest

from conformance.guest import Guest, check_flat
from conformance.rows import case, row
from conftest import Wire

KINDS: dict[str, type] = {"namespace": str, "name": str, "running": bool, "memory_usage": int, "disk_usage": int}


@pytest.mark.parametrize("field", [case(field, field) for field in KINDS])
async def test_a_field_is_of_its_kind(shared: Guest, field: str) -> None:
    """Clients decode sizes as whole numbers without a sign."""
    value = (await shared.metrics())[field]
    assert type(value) is KINDS[field]
    assert KINDS[field] is not int or value >= 0


@row("cpu_usage")
async def test_cpu_is_a_number_or_null(shared: Guest) -> None:
    cpu = (await shared.metrics())["cpu_usage"]
    assert cpu is None or (isinstance(cpu, (int, float)) and cpu >= 0)


@row("no other field is needed")
async def test_all_six_fields_are_there(shared: Guest) -> None:
    reading = await shared.metrics()
    assert {*KINDS, "cpu_usage"} <= set(reading)
    assert (reading["namespace"], reading["name"], reading["running"]) == ("default", shared.name, True)


@row("a stopped one has nulls")
async def test_a_stopped_sandbox_that_is_named(guest: Guest) -> None:
    await guest.stop()
    assert await guest.metrics() == {
        "namespace": "default",
        "name": guest.name,
        "running": False,
        "cpu_usage": None,
        "memory_usage": None,
        "disk_usage": None,
    }


@row("namespace *")
async def test_a_star_means_every_namespace(wire: Wire, name: str) -> None:
    one, two, other = Guest(wire, name, "ns-a"), Guest(wire, name, "ns-b"), Guest(wire, f"{name}-x", "ns-b")
    for guest in (one, two, other):
        await guest.start()
    found = await wire.result("sandbox.metrics.get", namespace="*")
    assert {("ns-a", one.name), ("ns-b", two.name), ("ns-b", other.name)} <= names(found)
    await other.stop()
    await two.stop()
    await one.stop()


@row("* and a name")
async def test_a_name_in_every_namespace(wire: Wire, name: str) -> None:
    one, two = Guest(wire, name, "ns-a"), Guest(wire, name, "ns-b")
    await one.start()
    await two.start()
    assert names(await wire.result("sandbox.metrics.get", namespace="*", sandbox=name)) == {
        ("ns-a", name),
        ("ns-b", name),
    }
    assert names(await wire.result("sandbox.metrics.get", namespace="*", sandbox="never-started")) == set()
    await one.stop()
    await two.stop()


@row("sandbox may be null")
async def test_a_sandbox_that_is_null_means_all(guest: Guest, shared: Guest) -> None:
    found = names(await guest.wire.result("sandbox.metrics.get", namespace="default", sandbox=None))
    assert {("default", guest.name), ("default", shared.name)} <= found


@row("a named one that is unknown")
async def test_an_unknown_sandbox(wire: Wire, name: str) -> None:
    check_flat(await Guest(wire, name).call("sandbox.metrics.get"), 404, 4001, name)


def names(result: dict[str, list[dict[str, str]]]) -> set[tuple[str, str]]:
    return {(one["namespace"], one["name"]) for one in result["sandboxes"]}
