# SPDX-License-Identifier: Apache-2.0
"""What this server decided where the old one had defects: status of a run, start and stop, metrics, batches."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from conformance.guest import PING, PYTHON, Guest, check_flat, err, out
from conformance.rows import case, row
from conftest import Wire


@pytest.mark.parametrize(
    ("status", "code", "timeout"),
    [
        case("status success", "success", "1", None),
        case("status error", "error", "1/0", None),
        case("status error", "error", "if", None),
        case("status timeout", "timeout", "while True: pass", 1),
        case("status interrupted", "interrupted", "import os, signal\nos.kill(os.getpid(), signal.SIGINT)", None),
        case("status out_of_memory", "out_of_memory", "b = []\nwhile True: b.append(b'x' * 10_000_000)", None),
        case("status crashed", "crashed", "import os\nos._exit(7)", None),
        case("status crashed", "crashed", "import os\nos.kill(os.getpid(), 9)", None),
    ],
)
async def test_the_status_tells_the_truth(shared: Guest, status: str, code: str, timeout: int | None) -> None:
    answer = await shared.call("sandbox.repl.run", language="python", code=code, timeout=timeout)
    assert answer.status == 200, answer.text
    result = answer.body["result"]
    assert result["status"] == status, answer.text
    assert (err(result).strip() == "") is (status == "success"), "old clients know an error only by a line on stderr"


@row("a warning is no error")
async def test_standard_error_alone_is_no_error(shared: Guest) -> None:
    for code in ("import sys\nprint('note', file=sys.stderr)", "import warnings\nwarnings.warn('note')"):
        result = await shared.run(code)
        assert result["status"] == "success"
        assert "note" in err(result)


@row("errors say what to do")
async def test_errors_carry_an_id_and_a_remedy(wire: Wire) -> None:
    target = {"namespace": "default", "sandbox": "never-started"}
    flat = await wire.call("sandbox.stop", target)
    unknown = await wire.call("sandbox.explode", target)
    for members in (flat.body, unknown.body["error"]["data"]):
        assert members["request_id"]
        assert "sandbox.start" in members["remedy"]
    assert flat.body["request_id"] != unknown.body["error"]["data"]["request_id"]


@row("an unknown namespace is empty")
async def test_an_unknown_namespace_is_empty(wire: Wire) -> None:
    assert await wire.result("sandbox.metrics.get", namespace="nobody-here") == {"sandboxes": []}


@row("metrics list what runs")
async def test_metrics_list_what_runs(guest: Guest) -> None:
    async def listed() -> set[tuple[str, bool]]:
        answer = await guest.wire.result("sandbox.metrics.get")
        return {(one["name"], one["running"]) for one in answer["sandboxes"]}

    assert (guest.name, True) in await listed()
    await guest.stop()
    assert guest.name not in {name for name, _ in await listed()}, "no files of it were kept"


@row("start of what runs changes nothing")
async def test_a_start_of_a_running_sandbox_changes_nothing(guest: Guest) -> None:
    await guest.run("x = 42")
    said = await guest.start()
    assert said.startswith(f"Sandbox {guest.name} started successfully")
    assert "other values" not in said
    assert out(await guest.run("x")) == "42"


@row("start of what runs says what differs")
async def test_a_start_of_a_running_sandbox_says_what_differs(guest: Guest) -> None:
    said = await guest.start(memory=256, envs=["A=1"])
    assert said.startswith(f"Sandbox {guest.name} started successfully")
    assert "memory" in said
    assert "envs" in said
    assert "cpus" not in said
    assert out(await guest.run("import os\nos.environ.get('A', 'none')")) == "'none'"


@row("start never says timed out waiting")
async def test_a_start_at_its_deadline_fails_and_leaves_nothing(wire: Wire, name: str) -> None:
    guest = Guest(wire, name)
    answer = await guest.call("sandbox.start", config=PYTHON, timeout_ms=0)
    check_flat(answer, 504, 5004, name)
    assert "timed out waiting" not in answer.text
    deadline = time.monotonic() + 5
    while (stopped := await guest.call("sandbox.stop")).status == 200:  # what had begun is still being undone
        assert time.monotonic() < deadline
    check_flat(stopped, 404, 4001, name)
    check_flat(await guest.call("sandbox.metrics.get"), 404, 4001, name)


@row("stop cleans up")
async def test_a_stop_cleans_up(guest: Guest) -> None:
    await guest.run("x = 1\nopen('/tmp/kept', 'w').write('x')\nopen('kept', 'w').write('x')")
    await guest.stop()
    await guest.start()
    assert out(await guest.run("import os\nprint('x' in globals(), os.path.exists('/tmp/kept'))")) == "False False"
    assert (await guest.sh("test -e kept"))["exit_code"] == 1


@row("stop twice")
async def test_a_stop_of_what_was_stopped_succeeds(guest: Guest) -> None:
    for _ in range(3):
        assert await guest.stop() == f"Sandbox {guest.name} stopped successfully"


@row("stop of what never was")
async def test_a_stop_of_what_never_was_is_not_found(guest: Guest) -> None:
    check_flat(await guest.wire.call("sandbox.stop", {**guest.target, "sandbox": "never-was"}), 404, 4001, "never-was")
    check_flat(await guest.wire.call("sandbox.stop", {**guest.target, "namespace": "elsewhere"}), 404, 4001, guest.name)


@row("memory is rounded up")
async def test_memory_is_at_least_one(shared: Guest) -> None:
    reading = await shared.metrics()
    assert type(reading["memory_usage"]) is int
    assert reading["memory_usage"] >= 1


@row("cpu is null until there is a sample")
async def test_cpu_is_null_at_first(guest: Guest) -> None:
    assert (await guest.metrics())["cpu_usage"] is None
    await reading_of(guest, lambda cpu: cpu is not None)


@row("cpu is the percent of one core")
async def test_cpu_is_the_percent_of_one_core(guest: Guest) -> None:
    run = guest.run("import os\nwhile not os.path.exists('/tmp/enough'): pass")
    busy = asyncio.create_task(run)
    await reading_of(guest, lambda cpu: cpu is not None and 50 < cpu < 160)
    await guest.command("touch", "/tmp/enough")
    assert (await busy)["status"] == "success"
    await reading_of(guest, lambda cpu: cpu is not None and cpu < 20)


async def reading_of(guest: Guest, what: Any) -> None:
    """Wait for a sample of which something is true: they are taken every second."""
    deadline = time.monotonic() + 10
    while not what(cpu := (await guest.metrics())["cpu_usage"]):
        assert time.monotonic() < deadline, cpu
        await asyncio.sleep(0.1)


@row("two readers see the same")
async def test_two_readers_see_the_same_cpu(shared: Guest) -> None:
    await reading_of(shared, lambda cpu: cpu is not None)
    readings = await asyncio.gather(*(shared.metrics() for _ in range(10)))
    assert len({reading["cpu_usage"] for reading in readings}) <= 2, "at most one new sample came in between"


@row("args null")
async def test_null_arguments_are_none(shared: Guest) -> None:
    result = await shared.result("sandbox.command.run", command="echo", args=None)
    assert (result["exit_code"], result["args"], out(result)) == (0, [], "")


@pytest.mark.parametrize("seconds", [86_400, 86_401, 30_000_000_000, 2**64 - 1])
@row("timeouts beyond a day")
async def test_a_timeout_beyond_a_day_is_a_day(shared: Guest, seconds: int) -> None:
    assert (await shared.run("1", timeout=seconds))["status"] == "success"
    assert (await shared.command("true", timeout=seconds))["success"]


@pytest.mark.parametrize(
    ("key", "value"),
    [case("volumes are refused", "volumes", ["/etc:/etc"]), case("ports are pairs", "ports", ["8080"])],
)
async def test_what_cannot_be_given_is_refused_and_never_ignored(
    wire: Wire, name: str, key: str, value: list[str]
) -> None:
    guest = Guest(wire, name)
    check_flat(await guest.call("sandbox.start", config={**PYTHON, key: value}), 400, 2001, key)
    check_flat(await guest.call("sandbox.metrics.get"), 404, 4001)
    assert "started successfully" in await guest.start(**{key: []})
    await guest.stop()


@row("unknown config keys are ignored")
async def test_unknown_keys_are_ignored(wire: Wire, name: str) -> None:
    guest = Guest(wire, name)
    await guest.result("sandbox.start", config={**PYTHON, "scope": "any", "wings": 2}, color="green")
    await guest.stop()


@row("a batch is served")
async def test_a_batch_is_served_and_its_errors_are_of_one_shape(wire: Wire) -> None:
    unknown = {"jsonrpc": "2.0", "method": "nope", "id": 2}
    bad = {"jsonrpc": "2.0", "method": "sandbox.stop", "params": {"namespace": "default", "sandbox": ""}, "id": 3}
    answer = await wire.send(json=[PING, unknown, bad])
    assert answer.status == 200, answer.text
    by_id = {one["id"]: one for one in answer.body}
    assert set(by_id) == {1, 2, 3}
    assert "sandboxes" in by_id[1]["result"]
    assert by_id[2]["error"]["code"] == -32601
    assert by_id[3]["error"]["code"] == 2001
    assert by_id[3]["error"]["message"] == "Sandbox name cannot be empty"


@row("in a batch no id is silence")
async def test_a_call_without_an_id_is_silent_in_a_batch(wire: Wire) -> None:
    silent = {key: value for key, value in PING.items() if key != "id"}
    answer = await wire.send(json=[silent, PING, {**silent, "method": "nope"}])
    assert [one["id"] for one in answer.body] == [1]
    nothing = await wire.send(json=[silent, silent])
    assert (nothing.status // 100, nothing.text) == (2, "")


@pytest.mark.parametrize(
    "headers",
    [
        case("foreign Origin is refused", {"Origin": "http://evil.example"}),
        case("foreign Origin is refused", {"Origin": "null"}),
        case("foreign Host is refused", {"Host": "evil.example"}),
        case("foreign Host is refused", {"Host": "localhost.evil.example:5555"}),
    ],
)
async def test_foreign_origins_and_hosts_are_refused(wire: Wire, headers: dict[str, str]) -> None:
    check_flat(await wire.send(json=PING, headers=headers), 403, 3001, "Access denied")
    upgrade = {**headers, "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    check_flat(await wire.send("GET", headers=upgrade), 403, 3001, "Access denied")


@row("no WebSocket")
async def test_no_upgrade_is_made(wire: Wire) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    assert (await wire.send("GET", headers={**upgrade, "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="})).status == 405


@row("the server's own address is allowed")
async def test_our_own_origin_and_hosts_pass(wire: Wire) -> None:
    for headers in ({"Origin": wire.url}, {"Host": "localhost:1"}, {"Host": "[::1]:5555"}):
        assert (await wire.send(json=PING, headers=headers)).status == 200
