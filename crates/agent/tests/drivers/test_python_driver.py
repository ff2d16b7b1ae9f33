# SPDX-License-Identifier: Apache-2.0
"""The Python driver against a real interpreter."""

import signal
import time

import pytest
from driver import ERROR, INTERRUPTED, SUCCESS, Died, Driver, python_command


@pytest.fixture
def kernel(tmp_path):
    driver = Driver(python_command(), cwd=tmp_path)
    yield driver
    driver.close()


def check(kernel, code, stdout="", stderr="", status=SUCCESS):
    result = kernel.run(code)
    assert (result.stdout, result.stderr, result.status) == (stdout, stderr, status), result
    return result


def check_alive(kernel):
    """The next execution works: output on both streams in order, echo, no leftovers."""
    result = kernel.run("import sys\nprint('o')\nprint('e', file=sys.stderr)\nprint('p')\n6 * 7")
    assert result.order == [(1, "o\n"), (2, "e\n"), (1, "p\n42\n")], result
    assert result.status == SUCCESS


def version(kernel):
    return tuple(int(part) for part in kernel.version.split()[1].rstrip("+").split(".")[:2])


def test_ready_names_the_version(kernel):
    assert kernel.version.startswith("Python 3.")


# Source text


def test_state_persists(kernel):
    check(kernel, "x = 41")
    check(kernel, "x + 1", "42\n")
    check(kernel, "_ + 1", "43\n")


@pytest.mark.parametrize(
    ("code", "stdout"),
    [
        ("def f():\n    return 1\nprint(f())", "1\n"),
        ("for i in range(2):\n    print(i)\nprint('end')", "0\n1\nend\n"),
        ("def f():\n    a = 1\n\n    return a\n\n\nclass C:\n\n    x = 2\n\n    y = 3\nprint(f(), C.y)", "1 3\n"),
        ("@staticmethod\ndef f(): return 5\nf.__func__()", "5\n"),
        ("x = 1\r\nif x:\r\n    print('crlf')\r\nx", "crlf\n1\n"),
        ("\ufeffprint('bom')", "bom\n"),
        ("", ""),
        ("# only a comment", ""),
        ("1\n2\n3", "3\n"),
        ("None", ""),
        ("x = 5", ""),
        ("'ünï 🦀'", "'ünï 🦀'\n"),
        ("if True:\n    7", ""),
        ("'''doc'''\nx = 1\n__doc__", "'doc'\n"),
        ("print('x' * 3, end='')", "xxx"),
    ],
)
def test_source_is_compiled_as_a_whole(kernel, code, stdout):
    check(kernel, code, stdout)
    check_alive(kernel)


def test_future_imports_persist(kernel):
    check(kernel, "from __future__ import annotations")
    check(kernel, "def f(x: undefined_name): pass\nf.__annotations__", "{'x': 'undefined_name'}\n")


def test_top_level_await_shares_one_loop(kernel):
    check(kernel, "import asyncio\nq = asyncio.Queue()\nawait q.put(3)\nawait q.get()", "3\n")
    check(kernel, "async def g(): return 4\nx = await g()")
    check(kernel, "asyncio.run(g())", "4\n")
    check(kernel, "await g()", "4\n")


def test_main_is_a_real_module(kernel):
    check(kernel, "import sys, pickle\nclass P: pass\ntype(pickle.loads(pickle.dumps(P()))) is P", "True\n")
    check(kernel, "sys.modules['__main__'].P is P, __name__", "(True, '__main__')\n")
    result = kernel.run("print(sorted(name for name in globals() if not name.startswith('__')))")
    assert result.stdout == "['P', 'pickle', 'sys']\n"
    check(
        kernel,
        "def shown():\n    return 1\nimport inspect\nprint(inspect.getsource(shown))",
        "def shown():\n    return 1\n\n",
    )


# Errors


def test_a_statement_that_raises_stops_the_rest(kernel):
    result = kernel.run("print(1)\n1 / 0\nprint(2)")
    assert (result.stdout, result.status) == ("1\n", ERROR)


def test_traceback_is_the_users_alone(kernel):
    result = kernel.run("def f():\n    return 1 / 0\n\nf()\n")
    lines = [line for line in result.stderr.splitlines() if set(line.strip()) - set("~^")]
    assert lines == [
        "Traceback (most recent call last):",
        '  File "<run-1>", line 4, in <module>',
        "    f()",
        '  File "<run-1>", line 2, in f',
        "    return 1 / 0",
        "ZeroDivisionError: division by zero",
    ]
    check_alive(kernel)
    result = kernel.run("f()")
    assert '"<run-1>", line 2' in result.stderr
    assert "return 1 / 0" in result.stderr


def test_traceback_is_complete_every_time(kernel):
    for _ in range(100):
        result = kernel.run("raise ValueError('boom')")
        assert result.stderr.startswith("Traceback")
        assert result.stderr.endswith("ValueError: boom\n")
        assert result.status == ERROR


def test_source_lines_are_known_even_when_the_first_run_prints_a_traceback(tmp_path):
    for _ in range(5):
        driver = Driver(python_command(), cwd=tmp_path)
        result = driver.run("import traceback\ntry:\n    1 / 0\nexcept Exception:\n    traceback.print_exc()")
        assert "    1 / 0" in result.stderr
        assert result.status == SUCCESS
        driver.close()


@pytest.mark.parametrize("code", ["x = (1,\ny ==", "def f(:\n pass", "return 1", "await = 3", "x = '", "a b", "\x00"])
def test_syntax_errors_name_the_place(kernel, code):
    result = kernel.run("print('never')\n" + code)
    assert (result.stdout, result.status) == ("", ERROR)
    assert "SyntaxError: " in result.stderr or "null bytes" in result.stderr
    if code != "\x00":
        assert "line" in result.stderr
        assert "^" in result.stderr
    assert "<driver>" not in result.stderr
    check_alive(kernel)


def test_chained_exceptions(kernel):
    result = kernel.run("try:\n    {}['k']\nexcept KeyError as e:\n    raise ValueError('v') from e")
    assert "KeyError: 'k'" in result.stderr
    assert "direct cause" in result.stderr
    assert result.stderr.endswith("ValueError: v\n")


def test_exception_group(kernel):
    if version(kernel) < (3, 11):
        pytest.skip("no exception groups before Python 3.11")
    result = kernel.run("raise ExceptionGroup('both', [ValueError(1), TypeError(2)])")
    assert "| ValueError: 1" in result.stderr
    assert "| TypeError: 2" in result.stderr


def test_recursion_error(kernel):
    result = kernel.run("def f(): return f()\nf()")
    assert "RecursionError" in result.stderr
    assert "more times" in result.stderr
    assert len(result.stderr) < 5000
    check_alive(kernel)


def test_await_errors_have_no_frames_of_asyncio(kernel):
    result = kernel.run("async def g():\n    return 1 / 0\nawait g()")
    assert result.stderr.count("File") == 2
    assert result.stderr.endswith("ZeroDivisionError: division by zero\n")
    assert kernel.background() == []


@pytest.mark.parametrize(
    "code",
    [
        "class R:\n    def __repr__(self): raise ValueError('repr')\nR()",
        "class E(Exception):\n    def __str__(self): raise ValueError('str')\nraise E",
        "class E(Exception):\n    def __str__(self): raise SystemExit(1)\n    __repr__ = __str__\nraise E",
        "class E(Exception):\n    def __getattribute__(self, name): raise KeyError(name)\nraise E",
        "class S:\n    def __str__(self): raise ValueError\nimport sys\nsys.exit(S())",
        "class M(type):\n    __name__ = property(lambda self: 1 / 0)\nclass E(Exception, metaclass=M): pass\nraise E",
        "import sys\nsys.excepthook = lambda *a: 1 / 0\n1 / 0",
        "import traceback\ntraceback.print_exception = traceback.TracebackException = None\n1 / 0",
        "import linecache\nlinecache.getline = linecache.getlines = linecache.checkcache = None\n1 / 0",
    ],
)
def test_hostile_errors_are_contained(kernel, code):
    result = kernel.run(code)
    assert result.status == ERROR
    assert result.stderr.strip()
    assert "<driver>" not in result.stderr
    result = kernel.run("print('next')")
    assert (result.stdout, result.status) == ("next\n", SUCCESS)


def test_warning_is_no_error(kernel):
    result = kernel.run("import warnings\nfor _ in range(3):\n    warnings.warn('careful')\nprint('ok')")
    assert (result.stdout, result.status) == ("ok\n", SUCCESS)
    assert result.stderr.count("UserWarning: careful") == 1


# Exits and input


@pytest.mark.parametrize(
    ("code", "stderr"),
    [
        ("import sys; sys.exit()", ""),
        ("import sys; sys.exit(0)", ""),
        ("exit()", ""),
        ("quit()", ""),
        ("raise SystemExit", ""),
        ("import sys; sys.exit(3)", "SystemExit: 3\n"),
        ("exit(2)", "SystemExit: 2\n"),
        ("import sys; sys.exit('bad end')", "SystemExit: bad end\n"),
        ("async def f(): exit(4)\nawait f()", "SystemExit: 4\n"),
    ],
)
def test_exit_ends_only_the_execution(kernel, code, stderr):
    check(kernel, "kept = 1")
    check(kernel, "print('before')\n" + code + "\nprint('after')", "before\n", stderr, ERROR if stderr else SUCCESS)
    check(kernel, "kept", "1\n")
    result = kernel.run("input()")
    assert result.stderr.endswith("EOFError: EOF when reading a line\n")
    check_alive(kernel)
    assert kernel.background() == []


def test_input_is_at_its_end(kernel):
    result = kernel.run("name = input('name? ')\nprint('never')")
    assert result.stdout == "name? "
    assert (result.stderr.splitlines()[-1], result.status) == ("EOFError: EOF when reading a line", ERROR)
    check(kernel, "import sys\nsys.stdin.read()", "''\n")


def test_os_exit_ends_the_process(kernel):
    with pytest.raises(Died) as died:
        kernel.run("import os\nprint('last', flush=True)\nos._exit(7)")
    assert died.value.code == 7
    assert died.value.output == "last\n"


def test_end_of_requests_ends_the_process(kernel):
    kernel.run("import atexit\natexit.register(print, 'bye')")
    assert kernel.end_of_requests() == 0


# Output


def test_order_of_both_streams(kernel):
    code = "import sys\nfor i in range(200):\n    print(i)\n    print(i, file=sys.stderr)"
    result = kernel.run(code)
    assert result.order == [(channel, f"{i}\n") for i in range(200) for channel in (1, 2)]


def test_order_without_line_ends(kernel):
    result = kernel.run(
        "from sys import stdout as o, stderr as e\nfor i in range(3):\n    o.write('o'); e.write('e')\n    o.buffer.write(b'O'); e.buffer.write(b'E')"
    )
    assert [text for _, text in result.order] == ["o", "e", "O", "E"] * 3


def test_one_stream_needs_no_barrier(kernel):
    result = kernel.run("for i in range(1000): print(i)")
    assert result.barriers == 0
    assert len(result.stdout.splitlines()) == 1000


def test_bytes_that_are_not_utf8(kernel):
    result = kernel.run(
        r"import sys, os; sys.stdout.buffer.write(b'\xff\xfe\n'); print('\udcff'); os.write(1, b'\x80') and None"
    )
    assert result.stdout_bytes == b"\xff\xfe\n\xff\n\x80"
    result = kernel.run(r"print('\ud800')")
    assert "UnicodeEncodeError" in result.stderr
    check_alive(kernel)


def test_stdout_is_a_real_text_stream(kernel):
    code = (
        "import sys, io\nassert isinstance(sys.stdout, io.TextIOWrapper)\n"
        "print(sys.stdout.fileno(), sys.stderr.fileno(), sys.stdout.encoding, sys.stdout.errors, sys.stdout.line_buffering,"
        " sys.stdout.name, sys.stdout.mode, sys.stdout.isatty(), sys.stdout.writable())"
    )
    check(kernel, code, "1 2 utf-8 surrogateescape True <stdout> w False True\n")


def test_megabytes_on_one_line(kernel):
    result = kernel.run("print('x' * 20_000_000)")
    assert len(result.stdout_bytes) == 20_000_001
    result = kernel.run("import sys\nsys.stdout.write('y' * 5_000_000); sys.stderr.write('z' * 5_000_000); None")
    assert (len(result.stdout), len(result.stderr)) == (5_000_000, 5_000_000)


def test_output_streams_while_it_runs(kernel):
    kernel.start("import time\nprint('early')\ntime.sleep(30)")
    kernel.wait_output("early")
    kernel.interrupt()
    assert kernel.finish().status == INTERRUPTED


def test_children_print_in_place(kernel):
    code = (
        "import subprocess, os\nprint('a')\nsubprocess.run(['echo', 'b'])\nprint('c')\nos.system('echo d')\nprint('e')"
    )
    check(kernel, code, "a\nb\nc\nd\ne\n")


def test_a_child_that_makes_the_pipe_non_blocking(kernel):
    code = "import os, sys\nos.set_blocking(1, False)\nprint('x' * 5_000_000)\nos.set_blocking(1, False)"
    result = kernel.run(code)
    assert (len(result.stdout), result.stderr, result.status) == (5_000_001, "", SUCCESS)
    check_alive(kernel)


@pytest.mark.parametrize(
    "code",
    [
        "import os; os.close(1)",
        "import os; os.close(1); os.close(2); os.close(0)",
        "import os; n = os.open('/dev/null', os.O_RDWR); os.dup2(n, 1); os.dup2(n, 2)",
        "import sys, io; sys.stdout = io.StringIO()",
        "import sys; sys.stdout.close(); sys.stderr.close()",
        "import sys; sys.stdout = sys.stderr = None",
        "import sys; sys.stdout.detach(); sys.stderr.detach()",
        "import sys, io; sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='latin-1')",
        "import sys; del sys.stdout, sys.__stderr__, sys.stdin, sys.displayhook",
        "import sys, codecs; sys.stdout = codecs.getwriter('utf-8')(sys.stdout.detach())",
        "import sys; sys.stdin.close(); sys.__stdout__.close()",
        "open(1, 'w').close()",
    ],
)
def test_streams_are_restored(kernel, code):
    kernel.run(code)
    check_alive(kernel)
    assert kernel.run("input()").stderr.endswith("EOFError: EOF when reading a line\n")
    check(kernel, "import subprocess; subprocess.run(['echo', 'child'], check=True) and None", "child\n")


def test_replaced_stdout_reaches_its_end(kernel):
    code = "import sys, io\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8')\nprint('wrapped')"
    assert kernel.run(code).stdout == "wrapped\n"
    check_alive(kernel)


def test_threads_print_late_without_disturbing(kernel):
    code = (
        "import threading, time, sys\ndef late():\n    for i in range(200):\n        print('t', i)\n        print('t', i, file=sys.stderr)\n"
        "        time.sleep(0.001)\nt = threading.Thread(target=late); t.start()"
    )
    kernel.run(code)
    for _ in range(20):
        result = kernel.run("import sys\nprint('mine')\nprint('mine', file=sys.stderr)")
        assert "mine\n" in result.stdout
        assert "mine\n" in result.stderr
        assert result.status == SUCCESS
    kernel.run("t.join()")
    check_alive(kernel)


def test_many_threads_on_both_streams(kernel):
    code = (
        "import threading, sys\ndef work(n):\n    for i in range(300):\n        print(f'{n}-{i}', file=(sys.stdout, sys.stderr)[(n + i) % 2])\n"
        "ts = [threading.Thread(target=work, args=(n,)) for n in range(6)]\n[t.start() for t in ts]\n[t.join() for t in ts] and None"
    )
    result = kernel.run(code)
    assert result.status == SUCCESS
    assert result.stdout.count("-") + result.stderr.count("-") == 1800


def test_a_signal_handler_that_prints_in_a_barrier(kernel):
    code = (
        "import signal, sys\ndef tick(*_):\n    try:\n        print('tick', file=sys.stderr)\n"
        "    except RuntimeError: pass  # reentrant call, as in any Python\nsignal.signal(signal.SIGALRM, tick)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)\n"
        "for i in range(500):\n    print(i)\n    print(i, file=sys.stderr)\nsignal.setitimer(signal.ITIMER_REAL, 0) and None"
    )
    result = kernel.run(code)
    assert result.status == SUCCESS, result
    assert result.stdout.splitlines()[-1] == "499"
    check_alive(kernel)


# Children


def test_fork_falls_out_of_the_code(kernel):
    code = "import os, sys\nprint('start', end='')\npid = os.fork()\nif pid:\n    print('', os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if hasattr(os, 'waitstatus_to_exitcode') else os.waitpid(pid, 0)[1] >> 8)\nelse:\n    print('child', file=sys.stderr)\n    print('out', end='')"
    result = kernel.run(code)
    assert result.stdout.startswith("start")
    assert "out" in result.stdout
    assert result.stdout.endswith(" 0\n")
    assert (result.stderr, result.status) == ("child\n", SUCCESS)
    check_alive(kernel)


def test_forked_children_that_outlive_the_execution(kernel):
    kernel.run(
        "import os, time, sys\nif os.fork() == 0:\n    time.sleep(0.2)\n    for i in range(5):\n        print('child', i); print('child', i, file=sys.stderr)\n    sys.exit(3)"
    )
    check_alive(kernel)
    time.sleep(0.5)
    check(kernel, "os.wait()[1] >> 8", "3\n")


def test_a_forked_child_that_raises(kernel):
    result = kernel.run("import os\npid = os.fork()\nif pid == 0:\n    1 / 0\nos.waitpid(pid, 0)[1] >> 8")
    assert (result.stdout, result.status) == ("1\n", SUCCESS)
    assert result.stderr.count("ZeroDivisionError") == 1
    check_alive(kernel)


def test_multiprocessing(kernel):
    code = "import multiprocessing as m\ndef f(x):\n    print('in', x)\n    return x * x\nwith m.get_context('fork').Pool(2) as p:\n    print(p.map(f, [1, 2, 3]))"
    result = kernel.run(code)
    assert "[1, 4, 9]\n" in result.stdout
    assert result.status == SUCCESS
    check_alive(kernel)


def test_fork_while_a_thread_is_in_a_barrier(kernel):
    code = (
        "import os, sys, threading\nstop = False\ndef noise():\n    while not stop:\n        print('o'); print('e', file=sys.stderr)\n"
        "t = threading.Thread(target=noise); t.start()\nbad = 0\n"
        "for _ in range(30):\n    pid = os.fork()\n    if pid == 0:\n        print('c'); print('c', file=sys.stderr); os._exit(0)\n    bad += os.waitpid(pid, 0)[1]\nstop = True\nt.join()\nbad"
    )
    result = kernel.run(code)
    assert result.stdout.splitlines()[-1] == "0"
    check_alive(kernel)


def test_control_descriptors_are_not_inherited(kernel):
    code = (
        "import os, subprocess\nsubprocess.run(['ls', '/proc/self/fd'], close_fds=False)\nos.system('ls /proc/self/fd')"
    )
    result = kernel.run(code)
    assert {int(line) for line in result.stdout.split()} <= {0, 1, 2, 3}, result
    inside = kernel.run("sorted(int(n) for n in os.listdir('/proc/self/fd'))")
    assert not {200, 201, 202, 203} & set(eval(inside.stdout))


# Interrupts


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time\ntime.sleep(60)",
        "import asyncio\nawait asyncio.sleep(60)",
        "import asyncio\nasync def f():\n    while True:\n        await asyncio.sleep(0.001)\nawait f()",
        "async def f():\n    while True: pass\nawait f()",
        "import asyncio\nasync def f():\n    await asyncio.sleep(60)\nasyncio.run(f())",
        "import threading\nthreading.Event().wait()",
        "import sys\nwhile True:\n    print('o' * 100); print('e', file=sys.stderr)",
        "class R:\n    def __repr__(self):\n        while True: pass\nR()",
        "class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E",
        "import subprocess\nsubprocess.run(['sleep', '60'])",
    ],
)
def test_interrupt_keeps_the_state(kernel, code):
    check(kernel, "kept = 5")
    kernel.start("print('going', flush=True)\n" + code)
    kernel.wait_output("going")
    time.sleep(0.15)
    kernel.interrupt()
    result = kernel.finish()
    assert result.status == INTERRUPTED
    assert "KeyboardInterrupt" in result.stderr or "raise E" in code
    assert "<driver>" not in result.stderr
    check(kernel, "kept", "5\n")
    check_alive(kernel)


def test_interrupt_names_the_line_that_was_waiting(kernel):
    kernel.start("import asyncio\nasync def f():\n    print('in')\n    await asyncio.sleep(60)\nawait f()")
    kernel.wait_output("in")
    time.sleep(0.1)
    kernel.interrupt()
    result = kernel.finish()
    if version(kernel) >= (3, 11):  # earlier ones lose the traceback of a cancelled task
        assert "await asyncio.sleep(60)" in result.stderr
    assert result.stderr.endswith("KeyboardInterrupt\n")


def test_interrupts_at_any_moment(kernel):
    code = "import sys\nfor i in range(30):\n    print(i); print(i, file=sys.stderr)"
    statuses = set()
    for attempt in range(150):
        kernel.start(code)
        time.sleep(attempt * 0.00005)
        kernel.interrupt()
        statuses.add(kernel.finish().status)
        kernel.interrupt()
    assert statuses <= {SUCCESS, INTERRUPTED}
    assert INTERRUPTED in statuses
    check_alive(kernel)


def test_idle_interrupts_do_nothing(kernel):
    for _ in range(20):
        kernel.interrupt()
    check_alive(kernel)


def test_code_that_catches_the_interrupt(kernel):
    kernel.start(
        "import time\ntry:\n    print('in')\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('caught')"
    )
    kernel.wait_output("in")
    kernel.interrupt()
    result = kernel.finish()
    assert (result.stdout, result.status) == ("in\ncaught\n", SUCCESS)
    assert kernel.run("raise KeyboardInterrupt").status == ERROR


@pytest.mark.parametrize(
    "code",
    [
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)",
        "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL)",
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})",
        "import os; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')",
        "import builtins; builtins.compile = builtins.exec = builtins.eval = builtins.len = builtins.isinstance = None",
        "import builtins; builtins.range = builtins.getattr = builtins.setattr = builtins.type = builtins.BaseException = None",
        "import os; os.write = os.read = os.getpid = os.fstat = os.dup2 = os.close = None",
        "import io; io.TextIOWrapper = io.FileIO = io.BufferedWriter = None",
        "import sys; sys.settrace(lambda *a: 1 / 0)",
        "import sys; sys.setprofile(lambda *a: None)",
        "import sys; sys.setrecursionlimit(60)",
        "import sys; sys.modules['__main__'] = None",
        "import sys; sys.modules.pop('linecache', None); sys.modules.pop('traceback', None)",
        "import sys; sys.path[:] = []; sys.meta_path[:] = []",
        "open('traceback.py', 'w').write('1 / 0'); open('linecache.py', 'w').write('1 / 0')",
        "import asyncio; asyncio.set_event_loop(None); await asyncio.sleep(0); asyncio.get_running_loop().stop()",
        "import asyncio\ntry:\n    asyncio.get_event_loop().close()\nexcept RuntimeError: pass",
        "globals().clear()",
    ],
)
def test_what_user_code_breaks_is_mended(kernel, code):
    kernel.run(code)
    check_alive(kernel)
    result = kernel.run("1 / 0")
    assert "ZeroDivisionError" in result.stderr
    kernel.start("print('on')\nwhile True: pass")
    kernel.wait_output("on")
    kernel.interrupt()
    assert kernel.finish().status == INTERRUPTED
    kernel.interrupt()
    check_alive(kernel)


def test_patched_print_is_the_users_business(kernel):
    kernel.run("import builtins\nbuiltins.print = lambda *a, **k: None")
    check(kernel, "6 * 7", "42\n")


def test_a_large_source(kernel):
    check(kernel, "x = '" + "a" * 3_000_000 + "'\nlen(x)", "3000000\n")
    check(kernel, "\n" * 100_000 + "1", "1\n")


def test_killed_by_a_signal(kernel):
    with pytest.raises(Died) as died:
        kernel.run("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    assert died.value.code == -signal.SIGSEGV


def test_runs_are_fast(kernel):
    kernel.run("1")
    times = []
    for _ in range(100):
        start = time.perf_counter()
        kernel.run("1")
        times.append(time.perf_counter() - start)
    assert sorted(times)[50] < 0.02
