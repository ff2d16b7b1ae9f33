# SPDX-License-Identifier: Apache-2.0
"""Runs every code block of the SDK's reference as it stands there.

`reference/*.py` are the blocks, each verbatim below one line for the licence; `reference/signatures.txt` holds the
signatures, each below a line that says whose it is. Fragments get the names that the reference takes for granted.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import microsandbox
import pytest
from microsandbox import NodeSandbox, PythonSandbox

from base_images import BUILDS_TIMEOUT
from host import REPO, Server

BLOCKS = Path(__file__).parent / "reference"
REFERENCE = REPO.parent / "shared" / "python-sdk-reference.md"
TOP_LEVEL_AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


def text_of(block: str) -> str:
    licence, _, text = (BLOCKS / f"{block}.py").read_text(encoding="utf-8").partition("\n")
    assert licence == "# SPDX-License-Identifier: Apache-2.0"
    return text


def signatures() -> dict[str, str]:
    text = (BLOCKS / "signatures.txt").read_text(encoding="utf-8")
    parts = re.split(r"^== (\S+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@dataclass
class Block:
    """One block that ran: what it printed, and the names it left."""

    printed: str
    names: dict[str, Any]
    seconds: float


class Runner:
    """Runs blocks, with a started sandbox as `sb` where they take one for granted."""

    def __init__(self, capsys: pytest.CaptureFixture[str], name: str) -> None:
        self._capsys = capsys
        self._name = name

    def run(self, block: str) -> Block:
        """Run a block that brings its own sandbox."""
        return self._run(block, None)

    def run_within(self, block: str) -> Block:
        """Run a block that uses a sandbox of others; it must still work afterwards."""
        return self._run(block, self._name)

    def _run(self, block: str, sandbox_name: str | None) -> Block:
        code = compile(text_of(block), f"{block}.py", "exec", flags=TOP_LEVEL_AWAIT)
        names: dict[str, Any] = {
            "__name__": "__main__",
            "PythonSandbox": PythonSandbox,
            "NodeSandbox": NodeSandbox,
            "aiohttp": aiohttp,
        }
        began = time.monotonic()
        self._capsys.readouterr()
        if code.co_flags & inspect.CO_COROUTINE:
            asyncio.run(self._drive(code, names, sandbox_name))
        else:
            exec(code, names)
        captured = self._capsys.readouterr()
        assert captured.err == ""
        return Block(captured.out, names, time.monotonic() - began)

    async def _drive(self, code: Any, names: dict[str, Any], sandbox_name: str | None) -> None:
        if sandbox_name is None:
            await eval(code, names)
            if (sandbox := names.get("sandbox")) is not None:
                await self._end(sandbox)
            return
        async with PythonSandbox.create(name=sandbox_name) as names["sb"]:
            try:
                await eval(code, names)
            finally:
                assert await (await names["sb"].run("print('next')")).output() == "next"

    async def _end(self, sandbox: PythonSandbox) -> None:
        """End a sandbox that a block leaves to its reader, after a look at it."""
        if sandbox.is_started:
            assert await (await sandbox.run("print(6 * 7)")).output() == "42"
            assert await sandbox.metrics.is_running()
            await sandbox.stop()
        if sandbox._session is not None:
            await sandbox._session.close()


@pytest.fixture(params=["server", pytest.param("base_images", marks=BUILDS_TIMEOUT)])
def runner(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> Iterator[Runner]:
    """Run blocks on this machine's own programs as the image, and on the base images."""
    server: Server = request.getfixturevalue(request.param)
    monkeypatch.setenv("MSB_SERVER_URL", server.url)
    yield Runner(capsys, name)
    server.note_cgroups()


def test_quick_start(runner: Runner) -> None:
    assert runner.run("quick_start").printed == "Hello, World!\n"


def test_create(runner: Runner) -> None:
    block = runner.run("create")
    assert block.printed == "Hello!\n"
    assert not block.names["sb"].is_started


def test_start(runner: Runner) -> None:
    assert runner.run("start").names["sandbox"].name == "resource-limited"


def test_run(runner: Runner) -> None:
    assert runner.run_within("run_print").printed == "Hello, World!\n"
    block = runner.run_within("run_text")
    assert asyncio.run(block.names["exec"].output()) == "Square root of 16 is: 4.0"
    assert not block.names["exec"].has_error()


def test_command_property(runner: Runner) -> None:
    printed = runner.run_within("command_property").printed
    assert printed.startswith("total ")
    names = {line.split()[8] for line in printed.splitlines()[1:]}
    assert {".", "..", "usr", "etc", "tmp", "proc", "dev"} <= names


def test_metrics_property(runner: Runner) -> None:
    block = runner.run_within("metrics_property")
    assert re.fullmatch(r"CPU: (None|\d+(\.\d+)?)%, Memory: [1-9]\d* MiB\n", block.printed)


def test_node(runner: Runner) -> None:
    assert runner.run("node").printed == "Hello from Node.js!\n"


def test_commands(runner: Runner) -> None:
    assert runner.run_within("command").names["result"].exit_code == 0
    result = runner.run_within("command_args").names["result"]
    assert (result.success, result.command, result.args) == (True, "ls", ["-la", "/tmp"])
    assert asyncio.run(result.output()).startswith("total ")


def test_a_command_that_times_out(runner: Runner) -> None:
    began = time.monotonic()
    with pytest.raises(RuntimeError, match=r"^Failed to execute command: ") as caught:
        runner.run_within("command_timeout")
    assert isinstance(caught.value, TimeoutError)
    assert 5 <= time.monotonic() - began < 9


def test_a_command_that_fails(runner: Runner) -> None:
    printed = runner.run_within("command_failure").printed
    assert re.fullmatch(r"Error: ls: .*/nonexistent.*: No such file or directory\nExit code: 2\n", printed)


def test_metrics(runner: Runner) -> None:
    block = runner.run_within("metrics_single")
    cpu, memory, disk, running = block.printed.splitlines()
    assert re.fullmatch(r"CPU: (Not available|\d+(\.\d+)?%)", cpu)
    assert re.fullmatch(r"Memory: [1-9]\d* MiB", memory)
    assert re.fullmatch(r"Disk: (Not available|\d+ bytes)", disk)
    assert running == "Running: True"
    assert isinstance(block.names["memory"], int)
    assert isinstance(block.names["disk"], int)
    head, _, reading = runner.run_within("metrics_all").printed.partition(": ")
    assert head == "All metrics"
    keys = ["name", "namespace", "running", "cpu_usage", "memory_usage", "disk_usage"]
    assert sorted(ast.literal_eval(reading)) == sorted(keys)


def test_usage_patterns(runner: Runner) -> None:
    assert runner.run("context_manager").printed == "Hello, World!\n"
    assert runner.run("manual_life_cycle").printed == "Hello, World!\n"
    assert runner.run("state").printed == "Result: 84\n"
    assert runner.run("files").printed == "File content: Hello from sandbox!\n"


def test_error_handling(runner: Runner) -> None:
    printed = runner.run("error_handling").printed
    assert printed.startswith("Error occurred: Traceback (most recent call last):\n")
    assert printed.endswith("ZeroDivisionError: division by zero\n")
    assert "1/0" in printed


def test_best_practices(runner: Runner) -> None:
    printed = runner.run("best_practices").printed
    assert printed.startswith("Execution error: Traceback")
    assert printed.endswith("NameError: name 'potentially_failing_code' is not defined\n")


@pytest.mark.parametrize("owner", signatures())
def test_signature(owner: str) -> None:
    text = signatures()[owner]
    class_name, _, member = owner.partition(".")
    shown = getattr(microsandbox, class_name)
    if not member:
        tree = ast.parse(f"def {text.strip()}: ...")
    else:
        shown = inspect.getattr_static(shown, member)
        tree = ast.parse(f"{text.strip()}: ...")
    declared = tree.body[0]
    assert isinstance(declared, (ast.FunctionDef, ast.AsyncFunctionDef))
    decorators = [decorator.id for decorator in declared.decorator_list if isinstance(decorator, ast.Name)]
    assert isinstance(shown, property) == ("property" in decorators)
    assert isinstance(shown, classmethod) == ("classmethod" in decorators)
    function = shown.fget if isinstance(shown, property) else getattr(shown, "__func__", shown)
    assert function is not None
    if isinstance(declared, ast.AsyncFunctionDef) and "classmethod" not in decorators:
        assert inspect.iscoroutinefunction(function)
    assert _parameters_declared(declared) == _parameters_of(function)


def _parameters_declared(declared: ast.FunctionDef | ast.AsyncFunctionDef) -> list[tuple[str, object]]:
    names = [argument.arg for argument in declared.args.args]
    defaults = [ast.literal_eval(default) for default in declared.args.defaults]
    without: list[object] = [inspect.Parameter.empty] * (len(names) - len(defaults))
    return [pair for pair in zip(names, without + defaults, strict=True) if pair[0] not in ("self", "cls")]


def _parameters_of(function: Any) -> list[tuple[str, object]]:
    """Return what can be passed by position: what the SDK adds to the reference is by keyword only."""
    parameters = inspect.signature(function).parameters.values()
    positional = [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
    return [(p.name, p.default) for p in positional if p.name not in ("self", "cls")]


CODE = re.compile(
    r"""^\s*(async\s|await\s|import\s|from\s\w+\simport\s|def\s|@\w|print\(|with\s|try:|except[\s:]|finally:
    |if\s.*:$|else:$|\w+(\.\w+)*\s=\s)|\bawait\s""",
    re.VERBOSE,
)


def test_no_block_of_the_reference_was_changed_or_forgotten() -> None:
    if not REFERENCE.exists():
        pytest.skip(f"the reference itself is not part of a clone: {REFERENCE}")
    rest = reference = REFERENCE.read_text(encoding="utf-8")
    blocks = [text_of(path.stem) for path in BLOCKS.glob("*.py")] + list(signatures().values())
    for text in sorted(blocks, key=len, reverse=True):
        assert text in reference, text
        rest = rest.replace(text, "\n", 1)
    forgotten = [line for line in rest.splitlines() if CODE.search(line)]
    assert forgotten == []


def test_every_block_is_run() -> None:
    """A block that no test names would be there for nothing."""
    source = Path(__file__).read_text(encoding="utf-8")
    run = set(re.findall(r'runner\.run(?:_within)?\("(\w+)"\)', source))
    assert run == {path.stem for path in BLOCKS.glob("*.py")}
