# SPDX-License-Identifier: Apache-2.0
"""Starting, stopping, and cleaning up whatever happens in between."""

from __future__ import annotations

import asyncio
import logging
import time

import aiohttp
import pytest
from aiohttp import web

import microsandbox._sandbox as sandbox_module
from conftest import Request, Server
from microsandbox import MicrosandboxError, NodeSandbox, PythonSandbox, ServerUnreachableError, StartTimeoutError


class BodyError(Exception):
    """What the body of a test's `async with` raises."""


async def test_create_starts_and_stops(server: Server) -> None:
    async with PythonSandbox.create(name="box") as sandbox:
        assert isinstance(sandbox, PythonSandbox)
        assert (sandbox.name, sandbox.is_started) == ("box", True)
        assert server.running == {("default", "box")}
        session = sandbox._session
    assert server.running == set()
    assert not sandbox.is_started
    assert session is not None
    assert session.closed
    assert sandbox._session is None


async def test_create_of_node_yields_a_node_sandbox(server: Server) -> None:
    async with NodeSandbox.create() as sandbox:
        assert isinstance(sandbox, NodeSandbox)
    assert server.methods() == ["sandbox.start", "sandbox.stop"]


async def test_the_manual_life_cycle_uses_and_keeps_the_users_session(server: Server) -> None:
    sandbox = PythonSandbox(name="my-sandbox")
    sandbox._session = session = aiohttp.ClientSession(headers={"X-Mine": "1"})
    try:
        await sandbox.start(memory=1024, cpus=2.0)
        execution = await sandbox.run("print('Hello, World!')")
        assert await execution.output() == "Hello, World!"
    finally:
        await sandbox.stop()
        assert sandbox._session is session
        assert not session.closed
        await sandbox._session.close()
    assert [request.headers["X-Mine"] for request in server.requests] == ["1"] * 3


async def test_start_without_a_session_opens_one_and_stop_closes_it(server: Server) -> None:
    sandbox = PythonSandbox()
    await sandbox.start()
    session = sandbox._session
    assert session is not None
    await sandbox.stop()
    assert session.closed
    assert sandbox._session is None
    await sandbox.start()
    await sandbox.stop()
    assert server.methods() == ["sandbox.start", "sandbox.stop"] * 2


async def test_starting_twice_and_stopping_twice_do_nothing_more(server: Server) -> None:
    sandbox = PythonSandbox()
    await sandbox.stop()
    await sandbox.start()
    await sandbox.start(memory=1)
    await asyncio.gather(sandbox.start(), sandbox.start())
    await sandbox.stop()
    await sandbox.stop()
    assert server.methods() == ["sandbox.start", "sandbox.stop"]


async def test_two_starts_at_once_are_one(server: Server) -> None:
    sandbox = PythonSandbox()
    await asyncio.gather(sandbox.start(), sandbox.start(), sandbox.start())
    await asyncio.gather(sandbox.stop(), sandbox.stop())
    assert server.methods() == ["sandbox.start", "sandbox.stop"]


async def test_methods_before_the_start_say_what_to_do(server: Server) -> None:
    sandbox = PythonSandbox(name="early")
    calls = [
        sandbox.run("1"),
        sandbox.command.run("ls"),
        sandbox.metrics.cpu(),
        sandbox.metrics.memory(),
        sandbox.metrics.disk(),
        sandbox.metrics.is_running(),
        sandbox.metrics.all(),
    ]
    for call in calls:
        with pytest.raises(
            RuntimeError, match=r"'early' is not started: call `await sandbox\.start\(\)` first.*create"
        ):
            await call
    assert server.requests == []


async def test_methods_after_the_stop_say_what_to_do(server: Server) -> None:
    async with PythonSandbox.create() as sandbox:
        pass
    with pytest.raises(RuntimeError, match="not started"):
        await sandbox.run("1")
    assert server.methods() == ["sandbox.start", "sandbox.stop"]


async def test_a_session_closed_too_early_is_named_and_the_stop_still_happens(server: Server) -> None:
    sandbox = PythonSandbox()
    sandbox._session = aiohttp.ClientSession()
    await sandbox.start()
    await sandbox._session.close()
    with pytest.raises(RuntimeError, match=r"session of sandbox .* is closed"):
        await sandbox.run("1")
    await sandbox.stop()
    assert server.methods() == ["sandbox.start", "sandbox.stop"]
    assert server.running == set()


@pytest.mark.parametrize("total", [0.05, None])
async def test_no_total_of_the_session_cuts_a_call(server: Server, total: float | None) -> None:
    sandbox = PythonSandbox()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=total)) as sandbox._session:

        async def late(request: Request) -> web.Response:
            await asyncio.sleep(0.3)
            return server.usual_answer(request)

        for method in ("sandbox.start", "sandbox.repl.run", "sandbox.command.run", "sandbox.stop"):
            server.answers[method] = late
        await sandbox.start()
        assert await (await sandbox.run("1")).output() == "Hello, World!"
        assert (await sandbox.command.run("ls")).success
        await sandbox.stop()


def test_calls_have_no_total_timeout_but_a_bounded_connect() -> None:
    from microsandbox._client import _TIMEOUT  # noqa: PLC0415

    assert (_TIMEOUT.total, _TIMEOUT.connect, _TIMEOUT.sock_read) == (None, None, None)
    assert _TIMEOUT.sock_connect is not None
    assert 0 < _TIMEOUT.sock_connect <= 30


async def test_a_session_that_raises_for_status_changes_nothing(server: Server) -> None:
    server.answer_json("sandbox.repl.run", 404, {"error": "lost", "code": 4001})
    sandbox = PythonSandbox()
    async with aiohttp.ClientSession(raise_for_status=True) as sandbox._session:
        await sandbox.start()
        with pytest.raises(MicrosandboxError, match="Failed to execute code: lost"):
            await sandbox.run("1")
        await sandbox.stop()


async def test_a_body_that_raises_is_cleaned_up_after(server: Server) -> None:
    with pytest.raises(BodyError, match="mine"):
        async with PythonSandbox.create():
            raise BodyError("mine")
    assert server.running == set()
    assert server.methods() == ["sandbox.start", "sandbox.stop"]


@pytest.mark.parametrize("kind", ["refused", "not json", "unreachable"])
async def test_a_failing_stop_does_not_hide_the_bodys_error(
    server: Server, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    with pytest.raises(BodyError, match="mine"), caplog.at_level(logging.WARNING, "microsandbox"):
        async with PythonSandbox.create() as sandbox:
            if kind == "refused":
                server.answer_json("sandbox.stop", 500, {"error": "stuck", "code": 5002})
            elif kind == "not json":
                server.answer_text("sandbox.stop", 502, "gateway")
            else:
                sandbox._server_url = "http://127.0.0.1:1"
            raise BodyError("mine")
    assert "Failed to stop sandbox" in caplog.text


async def test_a_failing_stop_after_a_good_body_is_an_error(server: Server) -> None:
    server.answer_json("sandbox.stop", 500, {"error": "stuck", "code": 5002})
    with pytest.raises(MicrosandboxError, match="Failed to stop sandbox: stuck"):
        async with PythonSandbox.create():
            pass


async def test_a_failed_stop_can_be_called_again(server: Server) -> None:
    sandbox = PythonSandbox()
    await sandbox.start()
    server.answer_json("sandbox.stop", 500, {"error": "stuck", "code": 5002})
    with pytest.raises(MicrosandboxError):
        await sandbox.stop()
    assert sandbox.is_started
    del server.answers["sandbox.stop"]
    await sandbox.stop()
    assert not sandbox.is_started
    assert server.running == set()


async def test_a_sandbox_that_the_server_forgot_is_stopped_with_an_error_once(server: Server) -> None:
    sandbox = PythonSandbox()
    await sandbox.start()
    server.answer_json("sandbox.stop", 404, {"error": "unknown sandbox", "code": 4001})
    with pytest.raises(MicrosandboxError, match="unknown sandbox"):
        await sandbox.stop()
    assert not sandbox.is_started
    await sandbox.stop()
    assert server.methods() == ["sandbox.start", "sandbox.stop"]


async def test_a_cancelled_body_is_cleaned_up_after(server: Server) -> None:
    entered = asyncio.Event()

    async def use() -> None:
        async with PythonSandbox.create():
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(use())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert server.running == set()
    assert server.methods() == ["sandbox.start", "sandbox.stop"]


async def test_a_run_that_is_cancelled_leads_to_the_stop(server: Server) -> None:
    server.hold("sandbox.repl.run")

    async def use() -> None:
        async with PythonSandbox.create() as sandbox:
            await sandbox.run("while True: pass")

    task = asyncio.create_task(use())
    await server.wait_for("sandbox.repl.run")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert server.methods() == ["sandbox.start", "sandbox.repl.run", "sandbox.stop"]


async def test_a_stop_that_is_cancelled_goes_to_its_end_and_the_cancellation_on(server: Server) -> None:
    release = server.hold("sandbox.stop")
    sandbox = PythonSandbox()
    await sandbox.start()
    session = sandbox._session
    task = asyncio.create_task(sandbox.stop())
    await server.wait_for("sandbox.stop")
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.02)
    assert not task.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert server.running == set()
    assert not sandbox.is_started
    assert session is not None
    assert session.closed


async def test_a_body_error_and_a_cancelled_stop_end_as_a_cancellation(server: Server) -> None:
    release = server.hold("sandbox.stop")

    seen: list[BaseException | None] = []

    async def use() -> None:
        try:
            async with PythonSandbox.create():
                raise BodyError("mine")
        except asyncio.CancelledError as error:
            seen.append(error.__context__)
            raise

    task = asyncio.create_task(use())
    await server.wait_for("sandbox.stop")
    task.cancel()
    await asyncio.sleep(0.02)
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert isinstance(seen[0], BodyError)
    assert server.running == set()


async def test_a_stop_that_is_never_answered_is_bounded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_module, "_STOP_SECONDS", 0.2)
    server.hold("sandbox.stop")
    sandbox = PythonSandbox()
    await sandbox.start()
    began = time.monotonic()
    with pytest.raises(MicrosandboxError, match=r"^Failed to stop sandbox: .*call `stop\(\)` again"):
        await sandbox.stop()
    assert time.monotonic() - began < 5
    assert sandbox._session is None
    assert sandbox.is_started


async def test_a_cancelled_stop_that_is_never_answered_is_bounded(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox_module, "_STOP_SECONDS", 0.2)
    server.hold("sandbox.stop")
    sandbox = PythonSandbox()
    await sandbox.start()
    task = asyncio.create_task(sandbox.stop())
    await server.wait_for("sandbox.stop")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.shield(task), 5)
    assert task.cancelled()


async def test_a_cancelled_start_asks_for_a_stop(server: Server) -> None:
    server.hold("sandbox.start")

    async def use() -> None:
        async with PythonSandbox.create():
            pytest.fail("the body must not be entered")

    task = asyncio.create_task(use())
    await server.wait_for("sandbox.start")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert server.methods() == ["sandbox.start", "sandbox.stop"]


async def test_a_start_that_is_cancelled_again_while_it_is_taken_back_still_takes_it_back(server: Server) -> None:
    server.hold("sandbox.start")
    release = server.hold("sandbox.stop")
    sandbox = PythonSandbox()
    task = asyncio.create_task(sandbox.start())
    await server.wait_for("sandbox.start")
    task.cancel()
    await server.wait_for("sandbox.stop")
    task.cancel()
    await asyncio.sleep(0.02)
    assert not task.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not sandbox.is_started
    assert sandbox._session is None


async def test_a_start_that_the_server_never_answers_times_out_and_asks_for_a_stop(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox_module, "_START_MARGIN_SECONDS", 0.2)
    server.hold("sandbox.start")
    sandbox = PythonSandbox(name="slow")
    with pytest.raises(
        StartTimeoutError, match=r"^Failed to start sandbox: 'slow' did not start within 0\.1 s"
    ) as caught:
        await sandbox.start(timeout=0.1)
    assert isinstance(caught.value, RuntimeError)
    assert isinstance(caught.value, TimeoutError)
    assert server.methods() == ["sandbox.start", "sandbox.stop"]
    assert server.requests[0].params["timeout_ms"] == 100
    assert not sandbox.is_started
    assert sandbox._session is None


async def test_the_servers_own_deadline_has_a_margin(server: Server) -> None:
    assert sandbox_module._START_MARGIN_SECONDS >= 1

    async def late(_request: Request) -> web.Response:
        await asyncio.sleep(0.3)
        return web.json_response({"error": "said by the server", "code": 5004}, status=504)

    server.answers["sandbox.start"] = late
    with pytest.raises(StartTimeoutError, match="said by the server"):
        await PythonSandbox().start(timeout=0.1)


@pytest.mark.parametrize(
    ("status", "body", "asks_for_stop"),
    [
        (400, {"error": "bad memory", "code": 2001}, False),
        (404, {"error": "unknown image", "code": 4001}, False),
        (404, {"error": {"code": -32601, "message": "Method not found"}}, False),
        (500, {"error": "boom", "code": 5002}, True),
        (504, {"error": "late", "code": 5004}, True),
        (502, "no protocol", True),
    ],
)
async def test_a_refused_start_asks_for_a_stop_only_when_in_doubt(
    server: Server, status: int, body: object, asks_for_stop: bool
) -> None:
    server.answer_json("sandbox.start", status, body)
    sandbox = PythonSandbox()
    with pytest.raises(MicrosandboxError, match="Failed to start sandbox"):
        await sandbox.start()
    assert server.methods() == ["sandbox.start", *(["sandbox.stop"] if asks_for_stop else [])]
    assert not sandbox.is_started
    assert sandbox._session is None


async def test_a_failed_start_keeps_the_users_session_open(server: Server) -> None:
    server.answer_json("sandbox.start", 404, {"error": "unknown image", "code": 4001})
    sandbox = PythonSandbox()
    async with aiohttp.ClientSession() as sandbox._session:
        with pytest.raises(MicrosandboxError):
            await sandbox.start()
        assert not sandbox._session.closed
        del server.answers["sandbox.start"]
        await sandbox.start()
        await sandbox.stop()


async def test_a_failing_stop_does_not_hide_why_the_start_failed(server: Server) -> None:
    server.answer_json("sandbox.start", 500, {"error": "boom", "code": 5002})
    server.answer_text("sandbox.stop", 500, "worse")
    with pytest.raises(MicrosandboxError, match="Failed to start sandbox: boom"):
        await PythonSandbox().start()


async def test_a_start_with_nobody_there_ends_at_once(unused_tcp_port: int) -> None:
    began = time.monotonic()
    with pytest.raises(ServerUnreachableError):
        async with PythonSandbox.create(server_url=f"http://127.0.0.1:{unused_tcp_port}"):
            pytest.fail("the body must not be entered")
    assert time.monotonic() - began < 5


async def test_a_generator_that_is_closed_within_the_block_cleans_up(server: Server) -> None:
    async def lines():  # type: ignore[no-untyped-def]
        async with PythonSandbox.create() as sandbox:
            while True:
                yield await (await sandbox.run("1")).output()

    generator = lines()
    assert await anext(generator) == "Hello, World!"
    await generator.aclose()
    assert server.running == set()


def test_an_interrupt_by_the_keyboard_cleans_up(server_in_thread: Server) -> None:
    async def use() -> None:
        async with PythonSandbox.create(server_url=server_in_thread.url):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(use())
    assert server_in_thread.methods() == ["sandbox.start", "sandbox.stop"]


async def test_more_than_a_hundred_runs_go_out_together(server: Server) -> None:
    release = asyncio.Event()
    all_there = asyncio.Event()

    async def answer(request: Request) -> web.Response:
        if len(server.calls("sandbox.repl.run")) == 150:
            all_there.set()
        await release.wait()
        return server.usual_answer(request)

    server.answers["sandbox.repl.run"] = answer
    async with PythonSandbox.create() as sandbox:
        tasks = [asyncio.create_task(sandbox.run(str(n))) for n in range(150)]
        await asyncio.wait_for(all_there.wait(), 20)
        release.set()
        await asyncio.gather(*tasks)
