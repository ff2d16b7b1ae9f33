# SPDX-License-Identifier: Apache-2.0
"""Starts a kernel driver as the agent does, and plays the agent's side of its protocol."""

import os
import pathlib
import select
import signal
import struct
import time

KERNELS = pathlib.Path(__file__).resolve().parents[2] / "src" / "kernels"
RUN, READY, BARRIER, DONE = 1, 16, 17, 18
SUCCESS, ERROR, INTERRUPTED = 0, 1, 2
WAIT_S = 20.0
HEAD = struct.Struct("<BQI")


def python_command():
    return [os.environ.get("DRIVER_PYTHON", "/usr/bin/python3"), "-c"], ["python.py"]


def node_command():
    return [os.environ.get("DRIVER_NODE", "node"), "-e"], ["node.mjs", "errors.mjs", "imports.mjs"]


def bootstrap(text):
    """The bootstrap that the driver's own text names."""
    for line in text.splitlines():
        if " BOOTSTRAP: " in line:
            return line.partition(" BOOTSTRAP: ")[2]
    raise AssertionError("the driver names no bootstrap")


def memory_file(text):
    """A descriptor from which the text can be read, as the agent makes it."""
    descriptor = os.memfd_create("driver")
    os.write(descriptor, text.encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


class Result:
    """The output of one execution in order of arrival, and its status."""

    def __init__(self, status, chunks, barriers):
        self.status = status
        self.chunks = chunks
        self.barriers = barriers

    def _bytes(self, channel):
        return b"".join(data for source, data in self.chunks if source == channel)

    @property
    def stdout_bytes(self):
        return self._bytes(1)

    @property
    def stdout(self):
        return self._bytes(1).decode("utf-8", "surrogateescape")

    @property
    def stderr(self):
        return self._bytes(2).decode("utf-8", "surrogateescape")

    @property
    def order(self):
        """(channel, text) with neighbours of the same channel joined."""
        joined = []
        for channel, data in self.chunks:
            if joined and joined[-1][0] == channel:
                joined[-1] = (channel, joined[-1][1] + data)
            else:
                joined.append((channel, data))
        return [(channel, data.decode()) for channel, data in joined]

    def __repr__(self):
        return f"Result(status={self.status}, stdout={self.stdout[:2000]!r}, stderr={self.stderr[:2000]!r})"


class Died(Exception):
    """The interpreter ended; carries what it printed and its exit status."""

    def __init__(self, code, chunks):
        self.code = code
        self.output = b"".join(data for _, data in chunks).decode("utf-8", "replace")
        super().__init__(f"exit status {code}: {self.output[-2000:]}")


class Driver:
    """A running driver."""

    def __init__(self, command, cwd=None, env=None):
        program, files = command
        source = "".join((KERNELS / name).read_text("utf-8") for name in files)
        requests_out, self._requests = os.pipe()
        self._replies, replies_in = os.pipe()
        acks_out, self._acks = os.pipe()
        self._out, out_in = os.pipe()
        self._err, err_in = os.pipe()
        text = memory_file(source)
        null = os.open(os.devnull, os.O_RDWR)
        places = {0: null, 1: out_in, 2: err_in, 200: requests_out, 201: replies_in, 202: acks_out, 203: text}
        environment = {"PATH": os.environ["PATH"], "HOME": str(cwd or "/tmp"), "LANG": "C.UTF-8", **(env or {})}
        arguments = [*program, bootstrap(source)]
        self.pid = os.fork()
        if self.pid == 0:
            try:
                if cwd:
                    os.chdir(cwd)
                for target, origin in places.items():
                    os.dup2(origin, target)
                os.closerange(3, 200)
                os.closerange(204, 4096)
                signal.signal(signal.SIGPIPE, signal.SIG_DFL)
                os.execvpe(arguments[0], arguments, environment)
            finally:
                os._exit(127)
        for descriptor in places.values():
            os.close(descriptor)
        self._poll = select.poll()
        for descriptor in (self._replies, self._out, self._err):
            os.set_blocking(descriptor, False)
            self._poll.register(descriptor, select.POLLIN)
        self._buffer = b""
        self._chunks = []
        self._number = 0x1234_5678_9ABC_DE00
        self.version = self._wait(READY, 0)[0].decode()

    def start(self, code):
        """Sends a RUN and does not wait for its end."""
        self._number += 1
        payload = code if isinstance(code, bytes) else code.encode()
        os.write(self._requests, HEAD.pack(RUN, self._number, len(payload)))
        view = memoryview(payload)
        while view:
            view = view[os.write(self._requests, view) :]

    def finish(self, wait_s=WAIT_S):
        """Waits for the end of the execution."""
        payload, barriers = self._wait(DONE, self._number, wait_s)
        assert len(payload) == 1
        chunks, self._chunks = self._chunks, []
        return Result(payload[0], chunks, barriers)

    def run(self, code, wait_s=WAIT_S):
        """Executes code; returns its Result. Output that came before it counts as background and is dropped."""
        self.background()
        self.start(code)
        return self.finish(wait_s)

    def background(self):
        """Takes the output that came since the last execution."""
        self._drain()
        chunks, self._chunks = self._chunks, []
        return chunks

    def wait_output(self, text, wait_s=WAIT_S):
        """Waits until the text has been printed; acknowledges barriers meanwhile."""
        deadline = time.monotonic() + wait_s
        while text.encode() not in b"".join(data for _, data in self._chunks):
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} was not printed: {self._chunks}"
            self._poll.poll(left * 1000)
            self._drain()
            for frame in self._frames():
                assert frame[0] == BARRIER, frame
                self._acknowledge(frame[1])

    def idle(self, seconds):
        """Lets time pass between two executions, and acknowledges barriers meanwhile."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._poll.poll(left * 1000)
            self._drain()
            for frame in self._frames():
                assert frame[0] == BARRIER, frame
                self._acknowledge(frame[1])

    def interrupt(self):
        os.kill(self.pid, signal.SIGINT)

    def close(self):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self._forget()

    def end_of_requests(self, wait_s=WAIT_S):
        """Closes the requests and returns the driver's wait status."""
        os.close(self._requests)
        self._requests = os.open(os.devnull, os.O_WRONLY)
        deadline = time.monotonic() + wait_s
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._forget()
                return status
            assert time.monotonic() < deadline, "the driver outlives its requests"
            time.sleep(0.005)

    def _forget(self):
        self.pid = 0
        for descriptor in (self._requests, self._replies, self._acks, self._out, self._err):
            os.close(descriptor)

    def _wait(self, kind, number, wait_s=WAIT_S):
        deadline = time.monotonic() + wait_s
        barriers = 0
        while True:
            for frame_kind, frame_number, payload in self._frames():
                if frame_kind == BARRIER:
                    barriers += 1
                    self._acknowledge(frame_number)
                    continue
                assert (frame_kind, frame_number) == (kind, number), (frame_kind, frame_number, payload)
                self._drain()
                return payload, barriers
            left = deadline - time.monotonic()
            assert left > 0, f"no answer; output so far {self._chunks!r:.3000}"
            events = dict(self._poll.poll(left * 1000))
            if set(events) - {self._replies}:
                self._drain()

    def _frames(self):
        """Yields the whole frames that have arrived."""
        while True:
            while len(self._buffer) >= HEAD.size:
                kind, number, length = HEAD.unpack_from(self._buffer)
                if len(self._buffer) < HEAD.size + length:
                    break
                payload = self._buffer[HEAD.size : HEAD.size + length]
                self._buffer = self._buffer[HEAD.size + length :]
                yield kind, number, payload
            try:
                data = os.read(self._replies, 65536)
            except BlockingIOError:
                return
            if not data:
                self._drain()
                _, status = os.waitpid(self.pid, 0)
                self._forget()
                raise Died(os.waitstatus_to_exitcode(status), self._chunks)
            self._buffer += data

    def _acknowledge(self, number):
        self._drain()
        os.write(self._acks, struct.pack("<Q", number))

    def _drain(self):
        for channel, descriptor in ((1, self._out), (2, self._err)):
            while True:
                try:
                    data = os.read(descriptor, 1 << 16)
                except BlockingIOError:
                    break
                if not data:
                    self._poll_forget(descriptor)
                    break
                self._chunks.append((channel, data))

    def _poll_forget(self, descriptor):
        try:
            self._poll.unregister(descriptor)
        except KeyError:
            pass
