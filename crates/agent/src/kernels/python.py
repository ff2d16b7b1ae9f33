# SPDX-License-Identifier: Apache-2.0
# BOOTSTRAP: exec(compile(open(203, encoding="utf-8").read(), "<driver>", "exec"), {"__name__": "__driver__"})
"""The Python kernel driver: it executes source text for the agent and keeps the variables.

The agent starts `python3 -c BOOTSTRAP`. Descriptors: 0 is `/dev/null`; 1 and 2 are pipes that the agent reads; 200
requests, 201 replies, 202 acknowledgements; 203 this text. A frame is kind u8, id u64, length u32 (little endian), payload.

    agent                      driver
                           <-- READY(0, version)
      RUN(id, source) -------->
                           <-- BARRIER(n)          before output changes between stdout and stderr
      n as 8 bytes, on 202 --->                    once the agent has drained both pipes
                           <-- DONE(id, status)    0 success, 1 raised, 2 interrupted; all output is in the pipes

Choices:
- Output is raw bytes on 1 and 2, never framed: what a thread, a child or C code prints takes the same way. Only the order
  between the two streams needs help, and that is what the barrier is for. Line buffering, no work per character.
- SIGINT raises KeyboardInterrupt while user code runs ("armed"), and does nothing at any other time.
- User code may break whatever it can reach. What the driver needs is captured here at the start (its builtins too), and
  `restore` mends descriptors, streams and signal handling around every execution.
- A child that user code forks never speaks for the kernel: the process id decides.
- Start-up is the user's waiting time: only modules that the interpreter has loaded anyway; `traceback` comes when idle.
- Tasks of top-level `await` live in one event loop that stands still between executions.
"""

import _ast
import _signal
import _thread
import builtins
import io
import os
import sys

__builtins__ = dict(vars(builtins))  # functions below see this copy, whatever user code does to the module

RUN, READY, BARRIER, DONE = 1, 16, 17, 18
SUCCESS, ERROR, INTERRUPTED = 0, 1, 2
# ast.PyCF_ONLY_AST and PyCF_ALLOW_TOP_LEVEL_AWAIT, inspect.CO_COROUTINE: those modules load slowly.
AST_ONLY, TOP_LEVEL_AWAIT, COROUTINE = 0x400, 0x2000, 0x80
SOURCE_CHARS_MAX = 8 * 1024 * 1024  # of earlier executions, kept for tracebacks
IDLE_MS = 20  # without a request for so long, what only errors need is loaded
CHAIN_MAX = 100  # exceptions in a chain whose tracebacks are cleaned
RECURSION_LIMIT = sys.getrecursionlimit()

os_close, os_dup2, os_exit, os_fstat, os_getpid = os.close, os.dup2, os._exit, os.fstat, os.getpid
os_read, os_set_blocking, os_write = os.read, os.set_blocking, os.write
get_signal, set_signal, set_signal_mask = _signal.getsignal, _signal.signal, _signal.pthread_sigmask
SIGINT, SIG_UNBLOCK = _signal.SIGINT, _signal.SIG_UNBLOCK
get_ident = _thread.get_ident
new_lock = _thread.RLock  # signal handlers of user code come back into `claim` at any instruction
set_trace, set_profile = sys.settrace, sys.setprofile
get_recursion_limit, set_recursion_limit = sys.getrecursionlimit, sys.setrecursionlimit
original_excepthook, original_displayhook = sys.excepthook, sys.displayhook
BufferedReader, BufferedWriter, FileIO, TextIOWrapper = (
    io.BufferedReader,
    io.BufferedWriter,
    io.FileIO,
    io.TextIOWrapper,
)
buffer_write, buffer_flush, text_write = BufferedWriter.write, BufferedWriter.flush, TextIOWrapper.write

get_type_name = type.__dict__["__name__"].__get__
get_exit_code = SystemExit.code.__get__
# Exceptions are read by these and not by attribute: their classes may be hostile.
get_traceback, set_traceback = BaseException.__traceback__.__get__, BaseException.__traceback__.__set__
get_cause, get_context = BaseException.__cause__.__get__, BaseException.__context__.__get__

PID = os_getpid()
MAIN = sys.modules["__main__"]
ESSENTIAL = {"__main__": MAIN, "builtins": builtins, "sys": sys}  # the interpreter itself looks for them there
IMPORT_PATH = [entry for entry in sys.path if entry]


class Kernel:
    """What the driver knows; one instance."""

    def __init__(self):
        self.armed = False  # user code runs: SIGINT raises
        self.interrupted = False  # SIGINT has raised during this execution
        self.channel = None  # the stream, 1 or 2, that wrote last; None once everything is drained
        self.speaker = None  # the thread that is changing the channel
        self.sequence = 0  # of the last barrier
        self.runs = 0
        self.future_flags = 0  # of `from __future__` in earlier executions
        self.loop = None
        self.print_exception = None
        self.lock = new_lock()
        self.streams = {}
        self.sources = {}  # name -> entry of linecache.cache


kernel = Kernel()


def private(descriptor, number):
    """Returns a copy of a descriptor that children do not inherit, at an unlikely number."""
    try:
        return os_dup2(descriptor, number, inheritable=False)
    except OSError:  # the number is beyond the limit on open files
        return os.dup(descriptor)


def take_descriptors():
    base = 300 + 2 * os.urandom(1)[0]
    control = [private(200 + index, base + index) for index in range(3)]
    for descriptor in (200, 201, 202, 203):
        try:
            os_close(descriptor)
        except OSError:  # 203: the bootstrap has closed it already
            pass
    saved = [private(descriptor, base + 3 + descriptor) for descriptor in range(3)]
    return control, saved


(REQUESTS, REPLIES, ACKS), SAVED = take_descriptors()


def identity(descriptor):
    status = os_fstat(descriptor)
    return status.st_dev, status.st_ino


IDENTITY = [identity(descriptor) for descriptor in range(3)]


def send(kind, number, payload=b""):
    # One write below PIPE_BUF is atomic: threads never mix their frames, and an interrupt never leaves half of one.
    head = bytes((kind,)) + number.to_bytes(8, "little") + len(payload).to_bytes(4, "little")
    os_write(REPLIES, head + payload)


def receive(length):
    """Returns exactly so many bytes of the requests, or None at their end."""
    chunks = []
    while length:
        chunk = os_read(REQUESTS, min(length, 1 << 20))
        if not chunk:
            return None
        chunks.append(chunk)
        length -= len(chunk)
    return b"".join(chunks)


def claim(channel):
    """Makes `channel` the stream that writes: whatever the other one holds reaches the agent first."""
    me = get_ident()
    if kernel.speaker == me:  # a signal handler or finaliser prints in the midst of this very function
        return
    with kernel.lock:
        if kernel.channel == channel:
            return
        kernel.speaker = me
        try:
            if kernel.channel is not None:
                flush(kernel.streams[kernel.channel])
                if os_getpid() == PID:
                    barrier()
            kernel.channel = channel
        finally:
            kernel.speaker = None


def barrier():
    kernel.sequence = number = kernel.sequence + 1
    send(BARRIER, number)
    while True:
        ack = os_read(ACKS, 8)
        # An earlier barrier that was interrupted leaves its ack behind: skip it.
        if not ack or int.from_bytes(ack, "little") >= number:
            return


def flush(stream):
    try:
        stream.flush()
    except (OSError, ValueError, RuntimeError):
        # Closed, detached, its descriptor gone (`restore` mends that), or a signal handler came into the midst of a write.
        pass


class OutputBuffer(BufferedWriter):
    # The file below is plain C: an interrupt between its write and the count of it would print the bytes twice.

    def write(self, data):
        if kernel.channel != self.channel:
            claim(self.channel)
        written = 0
        while True:
            try:
                return written + buffer_write(self, data)
            except BlockingIOError as error:  # a child that shares the pipe made it non-blocking
                os_set_blocking(self.channel, True)
                written += error.characters_written
                data = memoryview(data).cast("B")[error.characters_written :]

    def flush(self):
        while True:
            try:
                return buffer_flush(self)
            except BlockingIOError:
                os_set_blocking(self.channel, True)

    def close(self):
        # Stays open: wrappers that user code drops would close it when they are collected.
        flush(self)


class OutputText(TextIOWrapper):
    def write(self, text):
        if kernel.channel != self.channel:
            claim(self.channel)
        return text_write(self, text)


def open_output(channel):
    raw = FileIO(channel, "w", closefd=False)
    raw.name = "<stdout>" if channel == 1 else "<stderr>"
    buffer = OutputBuffer(raw)
    errors = "surrogateescape" if channel == 1 else "backslashreplace"
    text = OutputText(buffer, encoding="utf-8", errors=errors, newline="\n", line_buffering=True)
    text.mode = "w"
    buffer.channel = text.channel = channel
    return text


def open_input():
    raw = FileIO(0, "r", closefd=False)
    raw.name = "<stdin>"
    return TextIOWrapper(BufferedReader(raw), encoding="utf-8", errors="surrogateescape")


def usable(stream):
    try:
        return stream is not None and not stream.closed
    except ValueError:  # detached
        return False


def restore():
    """Mends what user code may have broken, as far as the next execution depends on it."""
    if get_recursion_limit() < RECURSION_LIMIT:
        set_recursion_limit(RECURSION_LIMIT)
    if get_signal(SIGINT) is not on_interrupt:
        set_signal(SIGINT, on_interrupt)
    set_signal_mask(SIG_UNBLOCK, (SIGINT,))
    for descriptor in range(3):
        restore_descriptor(descriptor)
    for name, descriptor in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        stream = kernel.streams.get(descriptor)
        if not usable(stream):
            stream = kernel.streams[descriptor] = open_output(descriptor) if descriptor else open_input()
        setattr(sys, name, stream)
        setattr(sys, "__" + name + "__", stream)
    if not callable(getattr(sys, "displayhook", None)):
        sys.displayhook = original_displayhook
    sys.modules.update(ESSENTIAL)


def restore_descriptor(descriptor):
    try:
        if identity(descriptor) == IDENTITY[descriptor]:
            if descriptor:
                os_set_blocking(descriptor, True)
            return
    except OSError:  # closed
        pass
    try:
        os_dup2(SAVED[descriptor], descriptor)
    except OSError:  # user code closed the saved one too
        pass


def on_interrupt(_signal_number, _frame):
    if kernel.armed:
        kernel.interrupted = True
        raise KeyboardInterrupt


def guarded(act, *args):
    """Calls what may run user code, open to interrupts; returns the exception that ended it, or None."""
    try:
        try:
            kernel.armed = True
            act(*args)
        finally:
            kernel.armed = False
            set_trace(None)
            set_profile(None)
    except BaseException as raised:  # noqa: BLE001 - whatever user code raises
        kernel.armed = False
        if os_getpid() != PID:
            leave_child(raised)
        return raised
    if os_getpid() != PID:
        leave_child(None)
    return None


def leave_child(raised):
    """Ends a process that user code forked and that has come to the end of that code."""
    code = 0
    try:
        if is_a(raised, SystemExit):
            code = (
                get_exit_code(raised) if type(get_exit_code(raised)) is int else int(get_exit_code(raised) is not None)
            )
        elif raised is not None:
            code = 1
            report(raised)
        for stream in (sys.stdout, sys.stderr):
            flush(stream)
    finally:
        os_exit(code & 0xFF)


def compile_source(source, name):
    """Returns the code of all statements and, if the last one is an expression, the code that echoes its value."""
    tree = compile(source, name, "exec", AST_ONLY | TOP_LEVEL_AWAIT | kernel.future_flags, True)
    last = tree.body.pop() if tree.body and type(tree.body[-1]) is _ast.Expr else None
    body = compile(tree, name, "exec", TOP_LEVEL_AWAIT | kernel.future_flags, True)
    if "__future__" in source:
        import __future__

        for feature in __future__.all_feature_names:
            kernel.future_flags |= body.co_flags & getattr(__future__, feature).compiler_flag
    if last is None:
        return [body]
    echo = compile(_ast.Interactive([last]), name, "single", TOP_LEVEL_AWAIT | kernel.future_flags, True)
    return [body, echo]


def run_source(source, name):
    try:
        codes = compile_source(source, name)
    except SyntaxError as error:
        if error.text is None and error.filename == name and error.lineno:  # found after parsing, without its line
            error.text = "".join(kernel.sources[name][2][error.lineno - 1 : error.lineno])
        raise
    for code in codes:
        if code.co_flags & COROUTINE:
            run_coroutine(code)
        else:
            exec(code, MAIN.__dict__)  # noqa: S102 - what a kernel is for


def run_coroutine(code):
    import asyncio

    loop = kernel.loop
    if loop is None or loop.is_closed() or loop.is_running():
        loop = kernel.loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    task = loop.create_task(eval(code, MAIN.__dict__))
    try:
        loop.run_until_complete(task)
    except KeyboardInterrupt as interrupt:
        if task.done():  # it was executing, and has raised this itself
            raise
        task.cancel()
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError as cancelled:  # its traceback names the user's line that was waiting
            raise interrupt.with_traceback(cancelled.__traceback__) from None
    finally:
        if task.done() and not task.cancelled():
            task.exception()  # counts as seen: no complaint when the task is collected


def remember_source(source, name):
    lines = source.splitlines(True)
    kernel.sources[name] = (len(source), None, lines, name)
    while len(kernel.sources) > 1 and sum(entry[0] for entry in kernel.sources.values()) > SOURCE_CHARS_MAX:
        forgotten = next(iter(kernel.sources))
        del kernel.sources[forgotten]
        if "linecache" in sys.modules:
            sys.modules["linecache"].cache.pop(forgotten, None)
    show_sources()


def show_sources():
    """Lets `linecache`, and by it traceback, inspect and warnings, find the user's lines."""
    linecache = sys.modules.get("linecache")
    if linecache is not None:
        linecache.cache.update(kernel.sources)


class LinecacheFinder:
    """Waits for the first import of `linecache`, whoever needs it, to hand it the sources."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name != "linecache":
            return None
        sys.meta_path.remove(cls)
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                spec.loader.exec_module = cls.then_show_sources(spec.loader.exec_module)
                return spec
        return None

    @staticmethod
    def then_show_sources(execute):
        def exec_module(module):
            execute(module)
            show_sources()

        return exec_module


def load_traceback():
    path, sys.path = (sys.path, IMPORT_PATH)  # not a file of the user's that has the same name
    try:
        import traceback
    finally:
        sys.path = path
    kernel.print_exception = traceback.print_exception


def strip(raised, names):
    """Takes the driver's frames off an exception: those before the user's first one, and those after the last one."""
    trace = get_traceback(raised)
    while trace is not None and trace.tb_frame.f_code.co_filename not in names:
        trace = trace.tb_next
    set_traceback(raised, trace)
    for _ in range(CHAIN_MAX):
        strip_end(get_traceback(raised))
        raised = get_cause(raised) or get_context(raised)
        if raised is None:
            return


def strip_end(trace):
    last = None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename != "<driver>":
            last = trace
        trace = trace.tb_next
    if last is not None:
        last.tb_next = None


def report(raised):
    strip(raised, kernel.sources)
    trace = get_traceback(raised)
    if is_a(raised, SystemExit):
        kernel.streams[2].write(f"SystemExit: {get_exit_code(raised)}\n")
        return
    sys.last_type, sys.last_value, sys.last_traceback = type(raised), raised, trace
    hook = sys.excepthook
    if hook is not original_excepthook:
        hook(type(raised), raised, trace)
    else:
        report_plainly(raised)


def report_plainly(raised):
    if kernel.print_exception is None:
        load_traceback()
    show_sources()
    kernel.print_exception(type(raised), raised, get_traceback(raised), file=kernel.streams[2])


def is_a(raised, kind):
    return issubclass(type(raised), kind)  # isinstance asks the object too, which may be hostile


def status_of(raised):
    if raised is None:
        return SUCCESS
    if is_a(raised, SystemExit):
        code = get_exit_code(raised)
        return SUCCESS if code is None or (type(code) in (int, bool) and code == 0) else ERROR
    if kernel.interrupted and is_a(raised, KeyboardInterrupt):
        return INTERRUPTED
    return ERROR


def flush_replaced():
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and stream not in (kernel.streams[1], kernel.streams[2]):
            stream.flush()


def execute(source):
    """Executes one source text; returns its status."""
    restore()
    kernel.channel, kernel.interrupted = None, False
    kernel.runs += 1
    name = f"<run-{kernel.runs}>"
    source = source.decode("utf-8", "replace").lstrip("\ufeff")
    remember_source(source, name)
    raised = guarded(run_source, source, name)
    guarded(flush_replaced)
    restore()
    status = status_of(raised)
    if status != SUCCESS:
        kernel.interrupted = False
        if guarded(report, raised) is not None and (kernel.interrupted or guarded(report_plainly, raised) is not None):
            kernel.streams[2].write(f"{get_type_name(type(raised))}: <it cannot be printed>\n")
        if kernel.interrupted:  # the exception's own code went on for ever
            status = INTERRUPTED
    for channel in (1, 2):
        flush(kernel.streams[channel])
    return status


def wait_idle():
    """Waits for a request; if none comes soon, uses the time to load what the first error will need."""
    from select import POLLIN, poll

    requests = poll()
    requests.register(REQUESTS, POLLIN)
    if not requests.poll(IDLE_MS) and guarded(load_traceback):
        kernel.print_exception = None


def before_fork():
    for channel in (1, 2):
        flush(kernel.streams[channel])


def after_fork_in_child():
    kernel.lock, kernel.speaker = new_lock(), None
    for descriptor in (REQUESTS, REPLIES, ACKS):
        try:
            os_close(descriptor)
        except OSError:  # closed by user code
            pass
    # Another thread may have been writing: the locks inside its streams stay taken here for ever.
    for name, channel in (("stdout", 1), ("stderr", 2)):
        former, stream = kernel.streams[channel], open_output(channel)
        kernel.streams[channel] = stream
        kernel.streams[-channel] = former  # not collected, as that would flush it
        for attribute in (name, "__" + name + "__"):
            if getattr(sys, attribute, None) is former:
                setattr(sys, attribute, stream)


def serve():
    send(READY, 0, ("Python " + sys.version.split()[0]).encode())
    while True:
        if kernel.print_exception is None:
            wait_idle()
        head = receive(13)
        if head is None:
            return
        number = int.from_bytes(head[1:9], "little")
        source = receive(int.from_bytes(head[9:13], "little"))
        if source is None:
            return
        if head[0] != RUN:
            continue
        try:
            status = execute(source)
        except KeyboardInterrupt:  # a second one, in the few instructions in which the first one was being caught
            kernel.armed, status = False, INTERRUPTED
        send(DONE, number, bytes((status,)))


restore()
sys.argv = [""]
sys.meta_path.insert(0, LinecacheFinder)
os.register_at_fork(before=before_fork, after_in_child=after_fork_in_child)
# Before Python 3.10 a function takes its caller's builtins if both have the same globals: so not from this very module.
exec("serve()", {"serve": serve})  # noqa: S102
