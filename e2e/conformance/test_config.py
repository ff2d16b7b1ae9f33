# SPDX-License-Identifier: Apache-2.0
"""`sandbox.start`: each key of the configuration, its kind and its default."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from conformance.guest import PYTHON, Guest, check_flat, out
from conformance.rows import case, row
from conftest import Wire
from host import Server


@pytest.fixture
async def unstarted(server: Server, wire: Wire, name: str) -> AsyncIterator[Guest]:
    """Give a sandbox that the test itself starts."""
    guest = Guest(wire, name)
    yield guest
    await guest.call("sandbox.stop")


@row("image")
async def test_an_image_is_needed(unstarted: Guest) -> None:
    for params in ({}, {"config": None}, {"config": {}}, {"config": {"image": None}}, {"config": {"memory": 512}}):
        answer = await unstarted.call("sandbox.start", **params)
        text = f"No configuration provided and no existing configuration found for sandbox '{unstarted.name}'"
        check_flat(answer, 400, 2001, text)


@row("image")
async def test_images_bring_their_interpreters(unstarted: Guest) -> None:
    await unstarted.start(image="microsandbox/node")
    assert out(await unstarted.run("1 + 1", "nodejs")) == "2"


@pytest.mark.parametrize(
    ("default", "other"),
    [case("memory", {"memory": 512}, {"memory": 511}), case("cpus", {"cpus": 1}, {"cpu_millis": 500})],
)
async def test_what_is_not_said_is_the_default(
    unstarted: Guest, default: dict[str, int], other: dict[str, int]
) -> None:
    """A start of what runs says what differs: so the default is what a start can name without that."""
    await unstarted.start()
    assert "other values" not in await unstarted.start(**default)
    assert "other values" in await unstarted.start(**other)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(case("memory is whole MiB", "memory", bad) for bad in (0, -1, 512.5, 512.0, "512", True, [512])),
        *(case("memory within the host", "memory", bad) for bad in (1, 2**32 - 1, 10**9, 10**30)),
        *(case("cpus are whole and at most 255", "cpus", bad) for bad in (0, -1, 256, 10**30, 1.0, 1.5, "1", True)),
        *(case("cpu_millis", "cpu_millis", bad) for bad in (0, -1, 0.5, "500")),
        *(case("image is text", "image", bad) for bad in (5, ["microsandbox/python"], {})),
        *(case("envs", "envs", bad) for bad in (["NOT AN ASSIGNMENT"], ["=x"], ["A=\x00"], [5], "A=1", {"A": "1"})),
        *(case("volumes", "volumes", bad) for bad in (["/etc:/etc"], ["x"], "a:b", [5])),
        *(case("ports", "ports", bad) for bad in (["80"], ["x"], ["80:0"], 80, [80])),
        *(case("workdir", "workdir", bad) for bad in ("relative", "", 5, "/a\x00")),
    ],
)
async def test_what_a_key_cannot_be(unstarted: Guest, key: str, value: object) -> None:
    answer = await unstarted.call("sandbox.start", config={**PYTHON, key: value})
    check_flat(answer, 400, 2001, key)
    check_flat(await unstarted.call("sandbox.metrics.get"), 404, 4001, unstarted.name)


@row("memory within the host")
async def test_a_refused_size_says_what_is_allowed(unstarted: Guest) -> None:
    answer = await unstarted.call("sandbox.start", config={**PYTHON, "memory": 10**9})
    check_flat(answer, 400, 2001, "from 32 to ", " MiB", "1000000000")


@row("memory")
async def test_memory_is_a_limit(unstarted: Guest) -> None:
    await unstarted.start(memory=64)
    result = await unstarted.run("b = b'x' * 200_000_000")
    assert result["status"] in ("out_of_memory", "error")
    assert "64 MiB" in str(result["output"]) or "MemoryError" in str(result["output"])


@row("cpu_millis")
async def test_a_fraction_of_a_processor(unstarted: Guest) -> None:
    await unstarted.start(cpu_millis=200)
    code = "import time\na, b = time.monotonic(), time.process_time()\nwhile time.monotonic() < a + 1: pass"
    await unstarted.run(code)
    assert float(out(await unstarted.run("time.process_time() - b"))) < 0.6


@row("envs")
async def test_variables_of_the_environment(unstarted: Guest) -> None:
    await unstarted.start(envs=["A=1", "B=x=y z", "C=", "A=2"])
    code = "import os\nprint(*(os.environ[name] for name in 'ABC'), sep='|')"
    assert out(await unstarted.run(code)) == "2|x=y z|"
    assert out(await unstarted.sh('echo "$A|$B|$C"')) == "2|x=y z|"


@row("workdir")
async def test_the_directory_to_start_in(unstarted: Guest) -> None:
    await unstarted.start(workdir="/var/tmp")
    assert out(await unstarted.run("import os\nprint(os.getcwd())")) == "/var/tmp"
    assert out(await unstarted.command("pwd")) == "/var/tmp"


@row("shell")
async def test_a_shell_is_the_images(unstarted: Guest) -> None:
    await unstarted.start(shell="/bin/sh")
    assert out(await unstarted.sh("echo shell")) == "shell"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        case("depends_on has no effect", "depends_on", ["another"]),
        case("exec has no effect", "exec", "exit 1"),
        case("scripts", "scripts", {"start": "exit 1"}),
    ],
)
async def test_what_has_no_effect_over_the_wire(unstarted: Guest, key: str, value: object) -> None:
    said = await unstarted.start(**{key: value})
    assert said.startswith(f"Sandbox {unstarted.name} started successfully")
    assert out(await unstarted.run("1")) == "1"


@row("config is an object")
async def test_a_configuration_that_is_no_object(unstarted: Guest) -> None:
    for config in (5, "microsandbox/python", [], True):
        check_flat(await unstarted.call("sandbox.start", config=config), 400, 2001, "config")


@row("timeout_ms")
async def test_a_deadline_that_is_none(unstarted: Guest) -> None:
    for timeout_ms in (-1, 0.5, "1"):
        answer = await unstarted.call("sandbox.start", config=PYTHON, timeout_ms=timeout_ms)
        check_flat(answer, 400, 2001, "timeout_ms")
