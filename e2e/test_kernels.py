# SPDX-License-Identifier: Apache-2.0
"""Every defect of the old guest (wire protocol, 2.4) has a defined, better answer, and the next run works.

A case is one source text and what a user sees of it. Each has a fresh sandbox, and a plain run before and after it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import pytest
from microsandbox import Execution, NodeSandbox, PythonSandbox

from conftest import Wire


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
    Case("block then dedented line", "for i in range(2):\n    print(i)\nprint('end')", "0\n1\nend"),
    Case("def then call", "def f(x):\n    return x * 2\nprint(f(21))", "42"),
    Case("blank line in def", "def f():\n    a = 1\n\n    return a\n\nprint(f())", "1"),
    Case(
        "blank line in class", "class A:\n    x = 1\n\n    def f(self):\n\n        return self.x\nprint(A().f())", "1"
    ),
    Case("decorator", "import functools\n@functools.lru_cache\ndef f(x):\n    return x\nprint(f(3))", "3"),
    Case("statements after a raise do not run", "print(1)\nraise ValueError('boom')\nprint(2)", "1", "error", "boom"),
    Case("a syntax error runs nothing", "print(1)\nif", "", "error", "SyntaxError"),
    Case("no newline at the end", "print('x', end='')", "x"),
    Case("empty lines are kept", "print('a\\n\\n\\nb')", "a\n\n\nb"),
    Case("lines that look like prompts are kept", "print('> a\\n.. b\\n>>> c\\n... d')", "> a\n.. b\n>>> c\n... d"),
    Case("last expression", "x = 20\nx * 2 + 2", "42"),
    Case("last expression as an interpreter shows it", "'a' + 'b'", "'ab'"),
    Case("none is not shown", "None", ""),
    Case("only the last expression", "1\n2\n3", "3"),
    Case("unicode", "print('é世🦀')", "é世🦀"),
    Case("carriage returns in the source", "def f():\r\n    return 'cr'\r\n\r\nprint(f())\r\n", "cr"),
    Case("empty source", "", ""),
    Case("only a comment", "# nothing", ""),
    Case("top-level await", "import asyncio\nawait asyncio.sleep(0.01)\nprint('awaited')", "awaited"),
    Case("a warning is no error", "import warnings\nwarnings.warn('careful')", "", "success", "careful"),
    Case("stderr alone is no error", "import sys\nprint('note', file=sys.stderr)", "", "success", "note"),
    Case("input", "input()", "", "error", "EOFError"),
    Case("sys.exit()", "import sys\nprint('bye')\nsys.exit()\nprint('no')", "bye"),
    Case("sys.exit(3)", "import sys\nsys.exit(3)", "", "error", "3"),
    Case("exit()", "exit()", ""),
    Case("os._exit", "import os\nprint('bye', flush=True)\nos._exit(7)", None, "crashed", keeps=False),
    Case("a segmentation fault", "import ctypes\nctypes.string_at(0)", None, "crashed", keeps=False),
    Case("kill of itself", "import os\nos.kill(os.getpid(), 9)", None, "crashed", keeps=False),
    Case("an endless loop", "print('in')\nwhile True: pass", "in", "timeout", "1 second", timeout=1),
    Case("an endless sleep", "import time\ntime.sleep(1000)", "", "timeout", "1 second", timeout=1),
    Case("an endless await", "import asyncio\nawait asyncio.sleep(1000)", "", "timeout", "1 second", timeout=1),
    Case("a timeout of zero", "while True: pass", "", "timeout", timeout=0),
    Case(
        "a loop that hears no interrupt",
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
        "",
        "timeout",
        timeout=1,
        keeps=False,
    ),
    # No bytecode runs in it, so no signal handler either: only a kill ends it.
    Case("a loop in C", "sum(iter(int, 1))", "", "timeout", timeout=1, keeps=False),
    Case("bytes that are no text", "import sys\nsys.stdout.buffer.write(b'a\\xff\\xfeb\\n') and None", None),
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
    Case(
        "method chain on new lines", "const r = [1, 2, 3]\n  .map((x) => x * 2)\n  .join(',')\nconsole.log(r)", "2,4,6"
    ),
    Case("else on a new line", "if (false) {\n  console.log(1)\n}\nelse {\n  console.log(2)\n}", "2"),
    Case("blank lines in a function", "function f() {\n\n  return 5\n\n}\nconsole.log(f())", "5"),
    Case("blank lines and prompts are kept", "console.log('a\\n\\n> b\\n.. c')", "a\n\n> b\n.. c"),
    Case("const twice", "const twice = 1\nconsole.log(twice)", "1"),
    Case("top-level await", "await new Promise((r) => setTimeout(r, 20))\nconsole.log('awaited')", "awaited"),
    Case("import statement", "import fs from 'node:fs'\nconsole.log(typeof fs.readFileSync)", "function"),
    Case("import expression", "const os = await import('node:os')\nconsole.log(typeof os.cpus)", "function"),
    Case("require", "console.log(typeof require('path').join)", "function"),
    Case("last expression", "const x = 20\nx * 2 + 2", "42"),
    Case("undefined is not shown", "undefined", ""),
    Case("a timer is not shown", "setTimeout(() => {}, 1)", ""),
    Case("a promise is awaited, not shown", "Promise.resolve(7)", "7"),
    Case("console.error", "console.error('oops')", "", "success", "oops"),
    Case(
        "statements after a throw do not run",
        "console.log(1)\nthrow new Error('boom')\nconsole.log(2)",
        "1",
        "error",
        "boom",
    ),
    Case("an error is on stderr only", "throw new TypeError('boom')", "", "error", "TypeError: boom"),
    Case("a rejection", "await Promise.reject(new Error('refused'))", "", "error", "refused"),
    Case("a rejection that nobody handles", "Promise.reject(new Error('alone')); undefined", "", "error", "alone"),
    Case("a syntax error runs nothing", "console.log(1)\nconst = 2", "", "error", "SyntaxError"),
    Case("no newline at the end", "process.stdout.write('x'); undefined", "x"),
    Case("unicode", "console.log('é世🦀')", "é世🦀"),
    Case("carriage returns in the source", "const cr = 'cr'\r\nconsole.log(cr)\r\n", "cr"),
    Case("empty source", "", ""),
    Case("process.exit()", "console.log('bye')\nprocess.exit()\nconsole.log('no')", "bye"),
    Case("process.exit(3)", "process.exit(3)", "", "error", "3"),
    Case("process.abort()", "process.abort()", None, "crashed", keeps=False),
    Case("kill of itself", "process.kill(process.pid, 'SIGKILL')\nfor (;;);", None, "crashed", keeps=False),
    Case("an endless loop", "console.log('in')\nwhile (true);", "in", "timeout", "1 second", timeout=1),
    Case("an endless await", "await new Promise((r) => setTimeout(r, 1e6))", "", "timeout", "1 second", timeout=1),
    Case("bytes that are no text", "process.stdout.write(Buffer.from([97, 255, 254, 98, 10])); undefined", None),
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


async def test_python_tracebacks_are_always_complete(python: PythonSandbox) -> None:
    for number in range(60):
        error = await (await python.run(f"print('out')\nraise ValueError('boom {number}')")).error()
        assert error.startswith("Traceback (most recent call last):")
        assert error.endswith(f"ValueError: boom {number}")


async def test_node_errors_are_never_lost(node: NodeSandbox) -> None:
    for number in range(60):
        execution = await node.run(f"console.log('out'); console.error('err {number}')")
        assert (await execution.output(), await execution.error()) == ("out", f"err {number}")


async def test_node_stacks_show_the_users_lines_and_not_the_drivers(node: NodeSandbox) -> None:
    error = await (await node.run("function bad() {\n  throw new Error('deep')\n}\nbad()")).error()
    assert "Error: deep" in error
    assert "at bad" in error
    assert "<driver>" not in error


async def test_output_keeps_its_order_between_the_streams(python: PythonSandbox, wire: Wire) -> None:
    programs = {
        "python": "import sys\nfor i in range(50): print('o', i); print('e', i, file=sys.stderr)",
        "nodejs": "for (let i = 0; i < 50; i++) { console.log('o', i); console.error('e', i) }",
    }
    for language, code in programs.items():
        result = await wire.result("sandbox.repl.run", sandbox=python.name, language=language, code=code)
        expected = [
            {"stream": stream, "text": f"{stream[3]} {number}"}
            for number in range(50)
            for stream in ("stdout", "stderr")
        ]
        assert result["output"] == expected


async def test_output_of_threads_that_print_late_is_no_part_of_the_next_run(python: PythonSandbox) -> None:
    code = "import threading\nthreading.Timer(0.3, print, ['late']).start()\nprint('now')"
    first = await python.run(code)
    assert await first.output() == "now"
    await asyncio.sleep(0.8)
    second = await python.run("print('next')")
    assert await second.output() == "next"
    assert await second.background_output() == "late"
    assert await (await python.run("1")).background_output() == ""


async def test_output_of_timers_that_print_late_is_no_part_of_the_next_run(node: NodeSandbox) -> None:
    first = await node.run("setTimeout(() => console.log('late'), 300); console.log('now')")
    assert await first.output() == "now"
    await asyncio.sleep(0.8)
    second = await node.run("console.log('next')")
    assert await second.output() == "next"
    assert await second.background_output() == "late"


@pytest.mark.parametrize("kind", ["python", "node"])
async def test_nothing_of_a_timed_out_run_goes_on(python: PythonSandbox, node: NodeSandbox, kind: str) -> None:
    """The code that was declared ended prints nothing more, neither into the next run nor behind it."""
    programs = {
        "python": "import time\nn = 0\nwhile True:\n    n += 1; print('tick', n); time.sleep(0.05)",
        "node": "var n = 0; while (true) { n++; console.log('tick', n); await new Promise((r) => setTimeout(r, 50)) }",
    }
    sandbox: PythonSandbox | NodeSandbox = {"python": python, "node": node}[kind]
    execution = await sandbox.run(programs[kind], timeout=1)
    assert execution.status == "timeout"
    assert (await execution.output()).startswith("tick 1\ntick 2")
    await asyncio.sleep(0.3)
    ask = "n" if kind == "python" else "typeof n === 'undefined' ? 0 : n"
    first = await sandbox.run(ask)
    await asyncio.sleep(0.3)
    second = await sandbox.run(ask)
    assert await first.output() == await second.output()
    assert "tick" not in await first.output()
    assert await second.background_output() == ""


@pytest.mark.parametrize(
    ("kind", "loop", "ask"),
    [("python", "while True: pass", "print('next')"), ("node", "while (true);", "console.log('next')")],
)
async def test_a_client_that_leaves_ends_its_run(
    python: PythonSandbox, node: NodeSandbox, kind: str, loop: str, ask: str
) -> None:
    sandbox: PythonSandbox | NodeSandbox = {"python": python, "node": node}[kind]
    await sandbox.run("1")
    task = asyncio.create_task(sandbox.run(loop))
    await asyncio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    began = time.monotonic()
    assert await (await sandbox.run(ask)).output() == "next"
    assert time.monotonic() - began < LOOP_SECONDS_MAX


async def test_runs_of_one_sandbox_wait_for_one_another(python: PythonSandbox) -> None:
    await python.run("import time\nseen = []")
    code = "seen.append({0}); time.sleep(0.1); assert seen[-1] == {0}; print({0})"
    executions = await asyncio.gather(*(python.run(code.format(number)) for number in range(10)))
    assert [await execution.output() for execution in executions] == [str(number) for number in range(10)]


async def test_the_timeout_of_a_run_stays_a_result_on_the_wire(python: PythonSandbox, wire: Wire) -> None:
    params = {"namespace": "default", "sandbox": python.name, "language": "python", "code": "while True: pass"}
    answer = await wire.call("sandbox.repl.run", {**params, "timeout": 1})
    assert answer.status == 200
    assert answer.body["result"]["status"] == "timeout"
    lines = answer.body["result"]["output"]
    assert any(line["stream"] == "stderr" and "timed out after 1 second" in line["text"] for line in lines)


@pytest.mark.parametrize("language", ["nodejs", "node", "javascript"])
async def test_the_language_is_echoed_as_it_was_asked_for(node: NodeSandbox, wire: Wire, language: str) -> None:
    result = await wire.result("sandbox.repl.run", sandbox=node.name, language=language, code="1 + 1")
    assert result["language"] == language
    assert result["output"] == [{"stream": "stdout", "text": "2"}]
    assert result["status"] == "success"
