# SPDX-License-Identifier: Apache-2.0
"""What kernels make of source text that is difficult, hostile, or wants more than there is.

A case is one source text and what a user sees of it. Each has a fresh sandbox, and a plain run before and after it. The
defects of the old guest, and the order of output, have their cases in `conformance`.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import pytest
from microsandbox import Execution, NodeSandbox, PythonSandbox


@dataclass(frozen=True)
class Case:
    """What is run, and what must come of it."""

    name: str
    code: str
    output: str | None = ""
    status: str = "success"
    error: str = ""
    timeout: int | None = None
    keeps: bool = True


LOOP_SECONDS_MAX = 8

PYTHON = [
    Case("decorator", "import functools\n@functools.lru_cache\ndef f(x):\n    return x\nprint(f(3))", "3"),
    Case("a syntax error runs nothing", "print(1)\nif", "", "error", "SyntaxError"),
    Case("last expression", "x = 20\nx * 2 + 2", "42"),
    Case("last expression as an interpreter shows it", "'a' + 'b'", "'ab'"),
    Case("none is not shown", "None", ""),
    Case("only the last expression", "1\n2\n3", "3"),
    Case("empty source", "", ""),
    Case("only a comment", "# nothing", ""),
    Case("top-level await", "import asyncio\nawait asyncio.sleep(0.01)\nprint('awaited')", "awaited"),
    Case("exit()", "exit()", ""),
    Case("a segmentation fault", "import ctypes\nctypes.string_at(0)", None, "crashed", keeps=False),
    Case("kill of itself", "import os\nos.kill(os.getpid(), 9)", None, "crashed", keeps=False),
    Case("an endless sleep", "import time\ntime.sleep(1000)", "", "timeout", "1 second", timeout=1),
    Case("an endless await", "import asyncio\nawait asyncio.sleep(1000)", "", "timeout", "1 second", timeout=1),
    Case(
        "a loop that hears no interrupt",
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
        "",
        "timeout",
        timeout=1,
        keeps=False,
    ),
    Case("closing descriptor 1", "import os\nos.close(1)", None),
    Case("closing stdout", "import sys\nsys.stdout.close()", None),
    Case("replacing stdout", "import sys, io\nsys.stdout = io.StringIO()\nprint('lost')", None),
    Case("deep recursion", "def f(): f()\nf()", "", "error", "RecursionError"),
    Case(
        "a child that holds the pipe",
        "import subprocess\nsubprocess.Popen(['sleep', '60'])\nprint('done')",
        "done",
    ),
    Case("a child's output", "import subprocess\nsubprocess.run(['echo', 'from a child']) and None", "from a child"),
    Case("fork", "import os\npid = os.fork()\nif pid: os.waitpid(pid, 0); print('parent')", "parent"),
    Case("a thread", "import threading\nt = threading.Thread(target=print, args=('t',))\nt.start(); t.join()", "t"),
    Case("megabytes in one line", "print('x' * 3_000_000)", "x" * 3_000_000),
    Case("many lines", "for i in range(100_000): print(i)", "\n".join(map(str, range(100_000)))),
    Case("deleting what the kernel might use", "import sys, builtins\nsys.modules.clear()\ndel builtins.compile", None),
    Case(
        "more memory than there is",
        "b = []\nwhile True: b.append(bytearray(b'x') * 10_000_000)",
        None,
        "out_of_memory",
        "memory",
        keeps=False,
    ),
]

NODE = [
    Case("blank lines in a function", "function f() {\n\n  return 5\n\n}\nconsole.log(f())", "5"),
    Case("require", "console.log(typeof require('path').join)", "function"),
    Case("last expression", "const x = 20\nx * 2 + 2", "42"),
    Case("undefined is not shown", "undefined", ""),
    Case("a rejection", "await Promise.reject(new Error('refused'))", "", "error", "refused"),
    Case("a syntax error runs nothing", "console.log(1)\nconst = 2", "", "error", "SyntaxError"),
    Case("empty source", "", ""),
    Case("process.abort()", "process.abort()", None, "crashed", keeps=False),
    Case("kill of itself", "process.kill(process.pid, 'SIGKILL')\nfor (;;);", None, "crashed", keeps=False),
    Case("an endless await", "await new Promise((r) => setTimeout(r, 1e6))", "", "timeout", "1 second", timeout=1),
    Case("closing descriptor 1", "require('fs').closeSync(1)", None),
    Case("replacing console.log", "console.log = () => {}\nconsole.log('lost')", None),
    Case("deep recursion", "function f() { f() }\nf()", "", "error", "RangeError"),
    Case(
        "a child that holds the pipe",
        "require('child_process').spawn('sleep', ['60'], {stdio: 'inherit'})\nconsole.log('done')",
        "done",
    ),
    Case("megabytes in one line", "console.log('x'.repeat(3_000_000))", "x" * 3_000_000),
    Case("many lines", "for (let i = 0; i < 50_000; i++) console.log(i)", "\n".join(map(str, range(50_000)))),
]


def check(case: Case, execution: Execution, output: str, error: str) -> None:
    said = f"{execution!r}: {output[:500]!r} {error[:500]!r}"
    assert execution.status == case.status, said
    assert execution.has_error() is (case.status != "success")
    if case.output is not None:
        assert output == case.output, said
    assert case.error in error, said
    if case.status != "success":
        assert error, "published clients know an error only by a line on stderr"


async def run_case(sandbox: PythonSandbox | NodeSandbox, case: Case, prepare: str, ask: str) -> None:
    assert not (await sandbox.run(prepare)).has_error()
    began = time.monotonic()
    execution = await sandbox.run(case.code, timeout=case.timeout)
    if case.timeout is not None:
        assert time.monotonic() - began < LOOP_SECONDS_MAX
    check(case, execution, await execution.output(), await execution.error())
    after = await sandbox.run(ask)
    assert not after.has_error(), await after.error()
    kept = await after.output()
    assert kept == ("next 1" if case.keeps else "next undefined")
    assert await after.error() == ""


@pytest.mark.parametrize("case", PYTHON, ids=lambda case: case.name)
async def test_python(python: PythonSandbox, case: Case) -> None:
    await run_case(python, case, "kept = 1", "print('next', globals().get('kept', 'undefined'))")


@pytest.mark.parametrize("case", NODE, ids=lambda case: case.name)
async def test_node(node: NodeSandbox, case: Case) -> None:
    ask = "console.log('next', typeof kept === 'undefined' ? 'undefined' : kept)"
    await run_case(node, case, "const kept = 1", ask)


async def test_python_keeps_state_between_runs(python: PythonSandbox) -> None:
    await python.run("import math\nx = 42\ndef f(y): return x + y\nclass A: pass")
    assert await (await python.run("print(f(1), math.floor(2.5), A.__name__)")).output() == "43 2 A"
    assert (await python.run("1/0")).has_error()
    assert await (await python.run("x")).output() == "42"


async def test_node_keeps_state_between_runs(node: NodeSandbox) -> None:
    await node.run("const x = 42; let y = 1; function f(z) { return x + z }; class A {}")
    await node.run("const x = 43; y += 1")
    assert await (await node.run("console.log(f(1), y, A.name, x)")).output() == "44 2 A 43"


async def test_python_tracebacks_show_the_users_lines_and_not_the_drivers(python: PythonSandbox) -> None:
    await python.run("def outer(n):\n    inner(n)\n\ndef inner(n):\n    return 1 / n\n")
    error = await (await python.run("x = 0\nouter(x)")).error()
    assert error.startswith("Traceback (most recent call last):")
    for line in ("outer(x)", "inner(n)", "return 1 / n"):
        assert line in error
    assert error.endswith("ZeroDivisionError: division by zero")
    assert "<driver>" not in error
    assert "exec(" not in error


async def test_node_stacks_show_the_users_lines_and_not_the_drivers(node: NodeSandbox) -> None:
    error = await (await node.run("function bad() {\n  throw new Error('deep')\n}\nbad()")).error()
    assert "Error: deep" in error
    assert "at bad" in error
    assert "<driver>" not in error


async def test_runs_of_one_sandbox_wait_for_one_another(python: PythonSandbox) -> None:
    await python.run("import time\nseen = []")
    code = "seen.append({0}); time.sleep(0.1); assert seen[-1] == {0}; print({0})"
    executions = await asyncio.gather(*(python.run(code.format(number)) for number in range(10)))
    assert [await execution.output() for execution in executions] == [str(number) for number in range(10)]
