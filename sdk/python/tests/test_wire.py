# SPDX-License-Identifier: Apache-2.0
"""What goes over the wire, and what is read out of the answers."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

import aiohttp
import pytest

from conftest import Server, description, reading
from microsandbox import Isolation, MicrosandboxError, NodeSandbox, Protection, PythonSandbox, SandboxInfo


async def test_a_start_says_what_the_protocol_says(server: Server) -> None:
    async with PythonSandbox.create(name="box", namespace="team"):
        pass
    start, stop = server.requests
    assert start.path == "/api/v1/rpc"
    assert start.body["jsonrpc"] == "2.0"
    assert str(uuid.UUID(start.body["id"])) == start.body["id"]
    assert start.params == {
        "sandbox": "box",
        "namespace": "team",
        "config": {"image": "microsandbox/python", "memory": 512, "cpus": 1},
        "timeout_ms": 180_000,
    }
    assert (stop.method, stop.params) == ("sandbox.stop", {"sandbox": "box", "namespace": "team"})
    assert start.headers["Content-Type"] == "application/json"
    assert "Authorization" not in start.headers
    assert start.body["id"] != stop.body["id"]


async def test_create_passes_on_what_start_takes(server: Server) -> None:
    async with NodeSandbox.create(image="own", memory=1024, cpus=2.0, timeout=1.5):
        pass
    params = server.requests[0].params
    assert params["config"] == {"image": "own", "memory": 1024, "cpus": 2}
    assert params["timeout_ms"] == 1500


@pytest.mark.parametrize(
    ("cpus", "sent"), [(1.0, 1), (1.4, 1), (1.5, 2), (2.5, 3), (0.5, 1), (0.1, 1), (0, 1), (-3, 1), (4, 4)]
)
async def test_cpus_are_rounded_half_up_and_are_at_least_one(server: Server, cpus: float, sent: int) -> None:
    async with PythonSandbox.create(cpus=cpus):
        pass
    found = server.requests[0].params["config"]["cpus"]
    assert found == sent
    assert type(found) is int


@pytest.mark.parametrize("arguments", [{"cpus": float("nan")}, {"cpus": float("inf")}, {"timeout": float("nan")}])
async def test_numbers_that_cannot_be_meant_are_refused_before_anything_is_sent(
    server: Server, arguments: dict[str, float]
) -> None:
    with pytest.raises(ValueError, match="must be a number"):
        await PythonSandbox().start(**arguments)  # type: ignore[arg-type]
    assert server.requests == []


@pytest.mark.parametrize(("timeout", "sent"), [(float("inf"), 86_400_000), (0, 0), (-1, 0), (0.0001, 1)])
async def test_a_start_deadline_is_sent_within_the_protocols_range(server: Server, timeout: float, sent: int) -> None:
    async with PythonSandbox.create(timeout=timeout):
        pass
    assert server.requests[0].params["timeout_ms"] == sent


@pytest.mark.parametrize(
    ("kind", "image", "language"),
    [(PythonSandbox, "microsandbox/python", "python"), (NodeSandbox, "microsandbox/node", "nodejs")],
)
async def test_each_language_sends_its_own_image_and_name(
    server: Server, kind: type[PythonSandbox], image: str, language: str
) -> None:
    async with kind.create() as sandbox:
        execution = await sandbox.run("code")
    start, run, _ = server.requests
    assert start.params["config"]["image"] == image
    assert run.method == "sandbox.repl.run"
    assert (run.params["language"], run.params["code"]) == (language, "code")
    assert "timeout" not in run.params
    assert execution.language == language


async def test_timeouts_are_sent_in_whole_seconds_only_when_given(server: Server) -> None:
    async with PythonSandbox.create() as sandbox:
        await sandbox.run("1", timeout=3)
        await sandbox.command.run("ls")
        await sandbox.command.run("sleep", ["10"], timeout=5)
        await sandbox.command.run("sleep", ["10"], 0.2)  # type: ignore[arg-type]
    _, run, plain, limited, fraction, _ = server.requests
    assert run.params["timeout"] == 3
    assert plain.params["args"] == []
    assert "timeout" not in plain.params
    assert (limited.params["args"], limited.params["timeout"]) == (["10"], 5)
    assert fraction.params["timeout"] == 1


async def test_made_up_names_are_the_published_ones(server: Server) -> None:
    first, second = PythonSandbox(), NodeSandbox()
    assert re.fullmatch(r"sandbox-[0-9a-f]{8}", first.name)
    assert first.name != second.name
    assert PythonSandbox(name="").name == ""
    assert server.requests == []


async def test_a_key_goes_as_a_bearer_token(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSB_API_KEY", "msb_env")
    async with PythonSandbox.create():
        pass
    async with PythonSandbox.create(api_key="msb_given"):
        pass
    assert [r.headers["Authorization"] for r in server.requests] == ["Bearer msb_env"] * 2 + ["Bearer msb_given"] * 2


async def test_a_key_is_found_in_a_dotenv_file_when_the_environment_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("# keys\nOTHER=1\nexport MSB_API_KEY = 'msb_file'\n", encoding="utf-8")
    assert PythonSandbox()._api_key == "msb_file"
    monkeypatch.setenv("MSB_API_KEY", "msb_env")
    assert PythonSandbox()._api_key == "msb_env"


def test_a_dotenv_that_names_no_key_or_is_no_file_is_no_matter() -> None:
    Path(".env").write_bytes(b"\xff\xfe=\nMSB_API_KEY=\nMSB_API_KEYS=x\n")
    assert PythonSandbox()._api_key is None
    Path(".env").unlink()
    Path(".env").mkdir()
    assert PythonSandbox()._api_key is None


def test_the_url_comes_from_the_argument_then_the_environment_then_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert PythonSandbox()._server_url == "http://127.0.0.1:5555"
    monkeypatch.setenv("MSB_SERVER_URL", "http://other:1/")
    assert PythonSandbox()._server_url == "http://other:1"
    assert PythonSandbox(server_url="http://given:2")._server_url == "http://given:2"


def run_result(status: str, *lines: tuple[str, str]) -> dict[str, object]:
    output = [{"stream": stream, "text": text} for stream, text in lines]
    return {"jsonrpc": "2.0", "id": "1", "result": {"status": status, "language": "python", "output": output}}


async def test_streams_are_told_apart_and_blank_lines_kept(server: Server) -> None:
    lines = [("stdout", "a"), ("stderr", "oops"), ("stdout", ""), ("stdout", "  b "), ("stdout", "")]
    server.answer_json("sandbox.repl.run", 200, run_result("success", *lines))
    async with PythonSandbox.create() as sandbox:
        execution = await sandbox.run("code")
    assert await execution.output() == "a\n\n  b"
    assert await execution.error() == "oops"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("success", False),
        ("error", True),
        ("timeout", True),
        ("interrupted", True),
        ("out_of_memory", True),
        ("crashed", True),
    ],
)
async def test_has_error_is_what_the_status_says(server: Server, status: str, expected: bool) -> None:
    server.answer_json("sandbox.repl.run", 200, run_result(status, ("stderr", "a warning")))
    async with PythonSandbox.create() as sandbox:
        execution = await sandbox.run("code")
    assert execution.has_error() is expected
    assert execution.status == status
    assert await execution.error() == "a warning"


async def test_a_commands_result_is_read_whole(server: Server) -> None:
    answer = {"command": "sh", "args": ["-c", "exit 3"], "exit_code": 3, "success": False, "output": []}
    server.answer_json("sandbox.command.run", 200, {"jsonrpc": "2.0", "result": answer})
    async with PythonSandbox.create() as sandbox:
        result = await sandbox.command.run("sh", ["-c", "exit 3"])
    assert (result.command, result.args, result.exit_code, result.success) == ("sh", ["-c", "exit 3"], 3, False)
    assert (await result.output(), await result.error()) == ("", "")


async def test_a_commands_output_is_read_by_stream(server: Server) -> None:
    async with PythonSandbox.create() as sandbox:
        result = await sandbox.command.run("x", ["1"])
    assert (await result.output(), await result.error(), result.success, result.exit_code) == ("a", "b", True, 0)


async def test_what_was_left_out_and_what_came_late_is_told(server: Server) -> None:
    answer = run_result("success", ("stdout", "now"))
    result = answer["result"]
    assert isinstance(result, dict)
    late = [{"stream": "stdout", "text": "late"}, {"stream": "stderr", "text": "later"}]
    result.update(truncated=True, background_output=late)
    server.answer_json("sandbox.repl.run", 200, answer)
    command = {"command": "yes", "args": [], "exit_code": 1, "success": False, "output": [], "truncated": True}
    server.answer_json("sandbox.command.run", 200, {"jsonrpc": "2.0", "result": command})
    async with PythonSandbox.create() as sandbox:
        execution = await sandbox.run("code")
        assert execution.truncated
        assert await execution.output() == "now"
        assert await execution.background_output() == "late\nlater"
        assert (await sandbox.command.run("yes")).truncated
        del server.answers["sandbox.repl.run"]
        del server.answers["sandbox.command.run"]
        assert not (await sandbox.run("code")).truncated
        assert await (await sandbox.run("code")).background_output() == ""
        assert not (await sandbox.command.run("yes")).truncated


async def test_metrics_are_read_one_by_one_and_all_at_once(server: Server) -> None:
    async with PythonSandbox.create(name="m") as sandbox:
        assert await sandbox.metrics.cpu() == 12.5
        assert await sandbox.metrics.memory() == 33
        assert await sandbox.metrics.disk() == 4096
        assert await sandbox.metrics.is_running() is True
        assert await sandbox.metrics.all() == {
            "name": "m",
            "namespace": "default",
            "running": True,
            "cpu_usage": 12.5,
            "memory_usage": 33,
            "disk_usage": 4096,
        }
    assert server.calls("sandbox.metrics.get")[0].params == {"sandbox": "m", "namespace": "default"}


async def test_metrics_that_are_not_there_are_none(server: Server) -> None:
    answer = {"sandboxes": [reading(running=False, cpu_usage=None, memory_usage=None, disk_usage=None)]}
    server.answer_json("sandbox.metrics.get", 200, {"jsonrpc": "2.0", "result": answer})
    async with PythonSandbox.create() as sandbox:
        metrics = sandbox.metrics
        assert (await metrics.cpu(), await metrics.memory(), await metrics.disk()) == (None, None, None)
        assert await metrics.is_running() is False


@pytest.mark.parametrize("code", [4001, 4009])
async def test_a_sandbox_that_the_server_lost_does_not_run(server: Server, code: int) -> None:
    server.answer_json("sandbox.metrics.get", 404, {"error": "gone", "code": code})
    async with PythonSandbox.create() as sandbox:
        assert await sandbox.metrics.is_running() is False
        with pytest.raises(RuntimeError, match="gone"):
            await sandbox.metrics.cpu()


async def test_an_empty_list_of_sandboxes_means_that_it_does_not_run(server: Server) -> None:
    server.answer_json("sandbox.metrics.get", 200, {"jsonrpc": "2.0", "result": {"sandboxes": []}})
    async with PythonSandbox.create() as sandbox:
        assert await sandbox.metrics.is_running() is False
        with pytest.raises(RuntimeError, match="does not know"):
            await sandbox.metrics.all()


async def test_code_of_more_than_a_megabyte_is_sent_whole_and_without_a_warning(server: Server) -> None:
    code = "#" + "é" * (1 << 20)
    async with PythonSandbox.create() as sandbox:
        await sandbox.run(code)
    assert server.calls("sandbox.repl.run")[0].params["code"] == code


async def test_one_connection_is_kept_for_all_calls(server: Server) -> None:
    opened: list[object] = []
    trace = aiohttp.TraceConfig()

    async def on_open(*_: object) -> None:
        opened.append(None)

    trace.on_connection_create_end.append(on_open)
    sandbox = PythonSandbox()
    async with aiohttp.ClientSession(trace_configs=[trace]) as sandbox._session:
        await sandbox.start()
        for _ in range(5):
            await sandbox.run("1")
        await sandbox.stop()
    assert len(opened) == 1


async def test_a_sandbox_is_described_with_its_wall(server: Server) -> None:
    async with PythonSandbox.create(name="box", namespace="team") as sandbox:
        info = await sandbox.get_info()
        server.answer_json("sandbox.get", 200, {"jsonrpc": "2.0", "id": "1", "result": description(isolation=None)})
        without = await sandbox.get_info()
    assert server.calls("sandbox.get")[0].params == {"sandbox": "box", "namespace": "team"}
    off = Protection("swap_limit", on=False, why="not counted", mend="swapaccount=1")
    assert info == SandboxInfo(
        name="box",
        namespace="team",
        running=True,
        image="microsandbox/python",
        image_source="store",
        image_reference="docker.io/microsandbox/python:latest@sha256:0",
        memory=512,
        cpus=1.5,
        isolation=Isolation("container", (Protection("seccomp", on=True), off)),
    )
    assert info.isolation is not None
    assert [info.isolation.has(name) for name in ("seccomp", "swap_limit", "other")] == [True, False, False]
    assert without.isolation is None


@pytest.mark.parametrize("wrong", [{}, {"isolation": {"kind": "x"}}, {"isolation": []}, {"memory": None}])
async def test_a_description_that_is_none_is_an_error(server: Server, wrong: dict[str, object]) -> None:
    result = description(**wrong) if wrong else {}
    server.answer_json("sandbox.get", 200, {"jsonrpc": "2.0", "id": "1", "result": result})
    async with PythonSandbox.create() as sandbox:
        with pytest.raises(MicrosandboxError, match="does not describe a sandbox"):
            await sandbox.get_info()
