# SPDX-License-Identifier: Apache-2.0
"""Every defect of the old guest has a defined, better answer, and the next run works.

Each case has a plain run before and after it, so that it shows whether variables are kept.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import pytest

from conformance.guest import Guest, check_flat, err, out, processes
from conformance.rows import case, row

# How long a run with a timeout of a second may take, its interpreter killed and started again.
LOOP_SECONDS_MAX = 8


@dataclass(frozen=True)
class Defect:
    """What is run, and what must come of it."""

    code: str
    output: str | None = ""
    status: str = "success"
    error: str = ""
    timeout: int | None = None
    keeps: bool = True
    language: str = "python"


DEFECTS = [
    case("a block, then a dedented line", Defect("for i in range(2):\n    print(i)\nprint('end')", "0\n1\nend")),
    case("a block, then a dedented line", Defect("def f(x):\n    return x * 2\nprint(f(21))", "42")),
    case("a blank line in def or class", Defect("def f():\n    a = 1\n\n    return a\n\nprint(f())", "1")),
    case(
        "a blank line in def or class",
        Defect("class A:\n    x = 1\n\n    def f(self):\n\n        return self.x\nprint(A().f())", "1"),
    ),
    case(
        "statements after one that raises",
        Defect("print(1)\nraise ValueError('boom')\nprint(2)", "1", "error", "ValueError: boom"),
    ),
    case(
        "statements after one that raises",
        Defect("console.log(1)\nthrow new Error('boom')\nconsole.log(2)", "1", "error", "boom", language="nodejs"),
    ),
    case("print without a line end", Defect("print('x', end='')", "x")),
    case("print without a line end", Defect("print('x', end='')\nwhile True: pass", "x", "timeout", "1 s", timeout=1)),
    case("print without a line end", Defect("process.stdout.write('x'); undefined", "x", language="nodejs")),
    case("input()", Defect("input()", "", "error", "EOFError")),
    case("input()", Defect("print(input('name? '))\nprint(2)", "name?", "error", "EOFError")),
    case("exits: sys.exit()", Defect("import sys\nprint('bye')\nsys.exit()\nprint('no')", "bye")),
    case("exits: sys.exit()", Defect("import sys\nsys.exit(3)", "", "error", "3")),
    case(
        "exits: os._exit()",
        Defect("import os\nprint('bye', flush=True)\nos._exit(7)", "bye", "crashed", "code 7", keeps=False),
    ),
    case(
        "exits: process.exit()",
        Defect("console.log('bye')\nprocess.exit()\nconsole.log('no')", "bye", language="nodejs"),
    ),
    case("exits: process.exit()", Defect("process.exit(3)", "", "error", "3", language="nodejs")),
    case("an infinite loop", Defect("print('in')\nwhile True: pass", "in", "timeout", "after 1 second", timeout=1)),
    case(
        "an infinite loop",
        Defect("console.log('in')\nwhile (true);", "in", "timeout", "after 1 second", timeout=1, language="nodejs"),
    ),
    # No bytecode runs in it, so no signal handler either: only a kill ends it.
    case("an infinite loop", Defect("sum(iter(int, 1))", "", "timeout", "killed", timeout=1, keeps=False)),
    case(
        "invalid UTF-8 from a run",
        Defect("import sys\nsys.stdout.buffer.write(b'a\\xff\\xfeb\\nc\\n') and None", "a\ufffd\ufffdb\nc"),
    ),
    case(
        "invalid UTF-8 from a run",
        Defect(
            "process.stdout.write(Buffer.from([97, 255, 254, 98, 10, 99])); undefined",
            "a\ufffd\ufffdb\nc",
            language="nodejs",
        ),
    ),
    case("Node: an uncaught error", Defect("throw new Error('boom')", "", "error", "Error: boom", language="nodejs")),
    case(
        "Node: an uncaught error",
        Defect("Promise.reject(new Error('alone')); undefined", "", "error", "Error: alone", language="nodejs"),
    ),
    case(
        "Node: a method chain on new lines",
        Defect("const r = [1, 2]\n  .map((x) => x * 2)\n  .join(',')\nconsole.log(r)", "2,4", language="nodejs"),
    ),
    case(
        "Node: else on a new line",
        Defect("if (false) {\n  console.log(1)\n}\nelse {\n  console.log(2)\n}", "2", language="nodejs"),
    ),
    case("Node: promises and timers are not shown", Defect("setTimeout(() => {}, 1)", "", language="nodejs")),
    case("Node: promises and timers are not shown", Defect("Promise.resolve(7)", "7", language="nodejs")),
    case("Node: const twice", Defect("const kept = 1\nconsole.log(kept)", "1", language="nodejs")),
    case(
        "Node: top-level await",
        Defect("await new Promise((r) => setTimeout(r, 20))\nconsole.log('awaited')", "awaited", language="nodejs"),
    ),
    case(
        "Node: import",
        Defect("import fs from 'node:fs'\nconsole.log(typeof fs.readFileSync)", "function", language="nodejs"),
    ),
    case(
        "Node: import",
        Defect("const os = await import('node:os')\nconsole.log(typeof os.cpus)", "function", language="nodejs"),
    ),
    case("a timeout of 0 is over at once", Defect("while True: pass", "", "timeout", "after 0 seconds", timeout=0)),
    case(
        "a timeout is a result with a line",
        Defect("import time\ntime.sleep(60)", "", "timeout", "Error: Execution timed out after 1 second", timeout=1),
    ),
]


@pytest.mark.parametrize("defect", DEFECTS)
async def test_a_defect_and_the_runs_around_it(shared: Guest, defect: Defect) -> None:
    prepare, ask = {
        "python": ("kept = 1", "print('next', globals().get('kept', 'undefined'))"),
        "nodejs": ("const kept = 1", "console.log('next', typeof kept === 'undefined' ? 'undefined' : kept)"),
    }[defect.language]
    await shared.run(prepare, defect.language)
    began = time.monotonic()
    result = await shared.run(defect.code, defect.language, timeout=defect.timeout)
    assert time.monotonic() - began < LOOP_SECONDS_MAX
    assert result["status"] == defect.status, result
    assert out(result).rstrip() == defect.output, result
    assert defect.error in err(result)
    assert (err(result) == "") is (defect.status == "success")
    after = await shared.run(ask, defect.language)
    kept = "next 1" if defect.keeps else "next undefined"
    assert after["output"] == [{"stream": "stdout", "text": kept}]


@row("tracebacks are complete")
async def test_python_tracebacks_are_always_complete(shared: Guest) -> None:
    for number in range(60):
        error = err(await shared.run(f"print('out')\nraise ValueError('boom {number}')"))
        assert error.startswith("Traceback (most recent call last):")
        assert error.endswith(f"ValueError: boom {number}")


@row("console.error is not lost")
async def test_node_errors_are_never_lost(shared: Guest) -> None:
    for number in range(60):
        result = await shared.run(f"console.log('out'); console.error('err {number}')", "nodejs")
        assert (out(result), err(result)) == ("out", f"err {number}")


@row("output of echo is not lost")
async def test_the_output_of_echo_is_never_lost(shared: Guest) -> None:
    for number in range(100):
        assert out(await shared.command("echo", str(number))) == str(number)


@row("both streams of a shell are complete")
async def test_the_output_of_a_shell_on_both_streams_is_never_incomplete(shared: Guest) -> None:
    for _ in range(50):
        result = await shared.sh("for i in 1 2 3 4 5; do echo out$i; echo err$i >&2; done")
        assert out(result) == "out1\nout2\nout3\nout4\nout5"
        assert err(result) == "err1\nerr2\nerr3\nerr4\nerr5"


@row("invalid UTF-8 from a command")
async def test_bytes_that_are_no_text_are_replaced(shared: Guest) -> None:
    assert out(await shared.sh(r"printf 'a\377\376b\nc\n'")) == "a\ufffd\ufffdb\nc"


TICKING = {
    "python": "import time\nn = 0\nwhile True:\n    n += 1; print('tick', n); time.sleep(0.05)",
    "nodejs": "var n = 0; while (true) { n++; console.log('tick', n); await new Promise((r) => setTimeout(r, 50)) }",
}


@pytest.mark.parametrize("language", [case("nothing runs on after a timeout", one) for one in TICKING])
async def test_nothing_of_a_timed_out_run_goes_on(guest: Guest, language: str) -> None:
    """The code that was declared ended prints nothing more, neither into the next run nor behind it."""
    result = await guest.run(TICKING[language], language, timeout=1)
    assert result["status"] == "timeout"
    assert out(result).startswith("tick 1\ntick 2")
    first = await guest.run("n", language)
    await asyncio.sleep(0.3)
    second = await guest.run("n", language)
    assert out(first) == out(second)
    assert "tick" not in out(first)
    assert "background_output" not in second


@pytest.mark.parametrize(
    ("language", "code"),
    [
        case("late output of threads", "python", "import threading\nthreading.Timer(0.3, print, ['late']).start()"),
        case("late output of timers", "nodejs", "setTimeout(() => console.log('late'), 300); undefined"),
    ],
)
async def test_late_output_is_no_part_of_the_next_run(guest: Guest, language: str, code: str) -> None:
    assert out(await guest.run(code, language)) == ""
    await asyncio.sleep(0.6)
    second = await guest.run("1", language)
    assert out(second) == "1"
    assert second["background_output"] == [{"stream": "stdout", "text": "late"}]
    assert "background_output" not in await guest.run("1", language)


@pytest.mark.parametrize(
    ("language", "loop"),
    [
        case("a client that leaves ends its run", "python", "while True: pass"),
        case("a client that leaves ends its run", "nodejs", "while (true);"),
    ],
)
async def test_a_client_that_leaves_ends_its_run(guest: Guest, language: str, loop: str) -> None:
    await guest.run("1", language)
    await leave(guest.run(loop, language), after=0.5)
    began = time.monotonic()
    assert out(await guest.run("7", language)) == "7"
    assert time.monotonic() - began < LOOP_SECONDS_MAX


@row("a client that leaves ends its command")
async def test_a_client_that_leaves_ends_its_command(guest: Guest) -> None:
    await leave(guest.command("sleep", "7104"), after=0.5)
    deadline = time.monotonic() + 5
    while "sleep 7104" in await processes(guest):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def leave(call: Coroutine[Any, Any, object], after: float) -> None:
    """Make a call, and close its connection while it is under way."""
    task = asyncio.create_task(call)
    await asyncio.sleep(after)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("timeout", [-1, 0.5, "1"])
@row("timeouts that are none")
async def test_timeouts_that_are_no_whole_seconds_are_refused(shared: Guest, timeout: object) -> None:
    answer = await shared.call("sandbox.repl.run", language="python", code="1", timeout=timeout)
    check_flat(answer, 400, 2001, "timeout")
