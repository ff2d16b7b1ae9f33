# SPDX-License-Identifier: Apache-2.0
"""The sandboxes: their life cycle, and the running of code.

    created ── start() ──▶ started ── stop() ──▶ created
        ▲                     │
        └── start() failed,   └── stop() failed: stop() can be called again
            timed out or was cancelled (the server is asked to stop, in case something stands)

Cleaning up is never cut short by a cancellation and never takes longer than a named bound; the cancellation goes on
once it is done.
"""

from __future__ import annotations

import asyncio
import logging
import math
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar, List, Literal, Optional, TypedDict, TypeVar, Union, cast  # noqa: UP035

import aiohttp

from ._client import UNKNOWN, Server, failed, find_api_key, find_server_url, never_sent, unexpected
from ._command import Command
from ._errors import MicrosandboxError, StartTimeoutError
from ._execution import Execution, execution_from_wire
from ._info import SandboxInfo, info_from_wire
from ._metrics import Metrics
from ._waiting import TimeIsUp, to_its_end, within

T = TypeVar("T")
SandboxT = TypeVar("SandboxT", bound="BaseSandbox")


class AllowedNetwork(TypedDict):
    """A network of those who are named, and nobody else."""

    allow: List[str]  # noqa: UP006


Network = Optional[Union[Literal["none", "public"], AllowedNetwork]]  # noqa: UP007, UP045

_log = logging.getLogger("microsandbox")

# The most that is waited for the server to stop a sandbox, in seconds.
_STOP_SECONDS = 30.0
# How much longer than its deadline a start is waited for: the server keeps the deadline itself, this guards against
# one that does not answer. In seconds.
_START_MARGIN_SECONDS = 5.0
# A start's deadline beyond this is shortened to it, in seconds.
_START_SECONDS_MAX = 24 * 60 * 60


class BaseSandbox:
    """What the sandboxes of all languages share."""

    _LANGUAGE: ClassVar[str]
    _IMAGE: ClassVar[str]

    def __init__(
        self,
        server_url: Optional[str] = None,  # noqa: UP045 (here and below: the reference's spelling)
        namespace: str = "default",
        name: Optional[str] = None,  # noqa: UP045
        api_key: Optional[str] = None,  # noqa: UP045
    ) -> None:
        self._server_url = find_server_url(server_url)
        self._namespace = namespace
        self._name = f"sandbox-{uuid.uuid4().hex[:8]}" if name is None else name
        self._api_key = find_api_key(api_key)
        self._session: aiohttp.ClientSession | None = None
        self._owned_session: aiohttp.ClientSession | None = None
        self._is_started = False
        self._life_cycle = asyncio.Lock()
        self._command = Command(self._call)
        self._metrics = Metrics(self._call)

    @classmethod
    @asynccontextmanager
    async def create(
        cls: type[SandboxT],
        server_url: Optional[str] = None,  # noqa: UP045
        namespace: str = "default",
        name: Optional[str] = None,  # noqa: UP045
        api_key: Optional[str] = None,  # noqa: UP045
        *,
        image: Optional[str] = None,  # noqa: UP045
        memory: int = 512,
        cpus: float = 1.0,
        timeout: float = 180.0,
        disk: Optional[int] = None,  # noqa: UP045
        volumes: Sequence[str] = (),
        network: Network = None,
        ports: Sequence[str] = (),
    ) -> AsyncGenerator[SandboxT, None]:
        """Make a sandbox, start it, and stop it at the end of the `async with` block, however that ends.

        Args:
            server_url: URL of the server; MSB_SERVER_URL or "http://127.0.0.1:5555" by default.
            namespace: Namespace of the sandbox.
            name: Name of the sandbox; made up by default.
            api_key: Key for the server; MSB_API_KEY by default.
            image: As in `start()`.
            memory: Memory limit in MiB, as in `start()`.
            cpus: Processor cores, as in `start()`.
            timeout: Deadline of the start in seconds, as in `start()`.
            disk: What the sandbox may write, in MiB, as in `start()`.
            volumes: Directories of the server's machine, as in `start()`.
            network: Whom its programs may reach, as in `start()`.
            ports: Ports to publish, as in `start()`.

        Raises:
            MicrosandboxError: As `start()` and `stop()` do. When the block raises, its own error is the one that
                comes out, and one of `stop()` is only logged.

        Example:
            async with PythonSandbox.create(name="my-sandbox", memory=1024) as sandbox:
                execution = await sandbox.run("print('Hello!')")
                print(await execution.output())
        """
        sandbox = cls(server_url, namespace, name, api_key)
        await sandbox.start(
            image=image,
            memory=memory,
            cpus=cpus,
            timeout=timeout,
            disk=disk,
            volumes=volumes,
            network=network,
            ports=ports,
        )
        try:
            yield sandbox
        except BaseException:
            try:
                await sandbox.stop()
            except MicrosandboxError as error:
                _log.warning("%s (while another error is on its way)", error)
            raise
        await sandbox.stop()

    async def start(
        self,
        image: Optional[str] = None,  # noqa: UP045
        memory: int = 512,
        cpus: float = 1.0,
        timeout: float = 180.0,
        *,
        disk: Optional[int] = None,  # noqa: UP045
        volumes: Sequence[str] = (),
        network: Network = None,
        ports: Sequence[str] = (),
    ) -> None:
        """Start the sandbox; does nothing if it is started already.

        Opens an `aiohttp.ClientSession`, which `stop()` closes, unless one was set as `_session`.

        Args:
            image: Image to use; by default the one of the language.
            memory: Memory limit in MiB.
            cpus: Processor cores; rounded to the nearest whole number, at least 1.
            timeout: Deadline in seconds.
            disk: What the sandbox may write, in MiB; by default 4096, or less where the server has less. Keyword only.
            volumes: Directories of the server's machine that the sandbox shall have, each as `"host:guest"`, which can
                be read, or `"host:guest:rw"`, which can be written to. The server's operator says which there can be.
                Keyword only.
            network: Whom its programs may reach. "none" is nobody, with no name service either. "public" is the
                internet, but never a private, link-local or metadata address, nor one of the server's machine. A
                dictionary {"allow": [...]} is who is named in it and nobody else: domains ("pypi.org"), everything
                below one ("*.pythonhosted.org"), addresses and ranges ("8.8.8.0/24"), each with a port (":443") or with
                all. By default it is "public" where the server can enforce that, else "none". Keyword only.
            ports: Ports of the server's loopback interface that lead to ports of the sandbox, as "host:sandbox". With 0
                as the first a free one is taken, which `metrics.ports()` tells. Keyword only.

        Raises:
            StartTimeoutError: The deadline passed; nothing of the sandbox is kept.
            MicrosandboxError: The server refused, for example because the image is unknown.
            ServerUnreachableError: The server does not answer.
            ValueError: `cpus` or `timeout` is not a number that can be meant, or `volumes` is a string.

        Example:
            sandbox = PythonSandbox(name="resource-limited")
            await sandbox.start(memory=1024, cpus=2.0)
        """
        params = self._start_params(image, memory, cpus, timeout)
        params["config"].update(_disk_params(disk, volumes))
        params["config"].update(_network_params(network, ports))
        async with self._life_cycle:
            if self._is_started:
                return
            call = self._server().call(self._open_session(), "sandbox.start", params)
            try:
                await within(timeout + _START_MARGIN_SECONDS, call)
            except TimeIsUp:
                await self._give_up_start(in_doubt=True)
                raise StartTimeoutError(
                    f"{failed('sandbox.start')}: {self._name!r} did not start within {timeout:g} seconds and the "
                    "server does not answer: give it a longer timeout, or see what the server's log says",
                ) from None
            except BaseException as error:
                await self._give_up_start(in_doubt=_may_stand(error))
                raise
            self._is_started = True

    async def stop(self) -> None:
        """Stop the sandbox and clean up; does nothing if it is not started.

        A cancellation meanwhile takes effect once the sandbox is stopped, at most 30 seconds later.

        Raises:
            MicrosandboxError: The server could not stop it, or does not know it any more.
            ServerUnreachableError: The server does not answer. `stop()` can be called again.

        Example:
            sandbox = PythonSandbox()
            try:
                await sandbox.start()
            finally:
                await sandbox.stop()
        """
        async with self._life_cycle:
            if self._is_started:
                await to_its_end(self._stop_and_close())
            else:
                await to_its_end(self._close_owned_session())

    async def run(self, code: str, *, timeout: Optional[int] = None) -> Execution:  # noqa: UP045
        """Execute code; what it defines is there for the next run.

        Args:
            code: The source. The value of a last expression is printed, as in an interactive interpreter.
            timeout: Seconds after which the execution is interrupted, and killed if that does not help; by default it
                never is. Fractions are rounded up. Keyword only.

        Returns:
            The output and how the execution ended. Code that raises is a result too: see `Execution.has_error()`.

        Raises:
            MicrosandboxError: The sandbox is not started or does not run any more.
            ServerUnreachableError: The server does not answer.

        Example:
            execution = await sandbox.run("x = 42; print(x)")
            print(await execution.output())
        """
        params: dict[str, Any] = {"language": self._LANGUAGE, "code": code}
        if timeout is not None:
            params["timeout"] = math.ceil(timeout)
        return await self._call("sandbox.repl.run", params, execution_from_wire)

    async def get_info(self) -> SandboxInfo:
        """Ask the server what the sandbox is: its image, its limits, and how strong its wall is.

        Returns:
            The description, in which each protection of the wall is on or off, with the reason where it is off.

        Raises:
            MicrosandboxError: The sandbox is not started, or the server does not know it.
            ServerUnreachableError: The server does not answer.

        Example:
            info = await sandbox.get_info()
            print(info.image, info.memory, info.cpus)
        """
        return await self._call("sandbox.get", {}, info_from_wire)

    @property
    def command(self) -> Command:
        """Runs programs inside the sandbox."""
        return self._command

    @property
    def metrics(self) -> Metrics:
        """Reads what the sandbox uses."""
        return self._metrics

    @property
    def is_started(self) -> bool:
        """Whether the sandbox was started and not yet stopped; `metrics.is_running()` asks the server."""
        return self._is_started

    @property
    def name(self) -> str:
        """The sandbox's name."""
        return self._name

    def __repr__(self) -> str:
        state = "started" if self._is_started else "not started"
        return f"<{type(self).__name__} {self._name!r} in {self._namespace!r} at {self._server_url}, {state}>"

    def _server(self) -> Server:
        return Server(self._server_url, self._api_key)

    def _names(self) -> dict[str, Any]:
        return {"sandbox": self._name, "namespace": self._namespace}

    def _start_params(self, image: str | None, memory: int, cpus: float, timeout: float) -> dict[str, Any]:
        if not math.isfinite(cpus):
            raise ValueError(f"cpus must be a number of processor cores, not {cpus}")
        if math.isnan(timeout):
            raise ValueError(f"timeout must be a number of seconds, not {timeout}")
        seconds = min(max(timeout, 0), _START_SECONDS_MAX)
        config = {"image": image or self._IMAGE, "memory": memory, "cpus": max(1, math.floor(cpus + 0.5))}
        return {**self._names(), "config": config, "timeout_ms": math.ceil(seconds * 1000)}

    async def _call(self, method: str, params: dict[str, Any], read: Callable[[Mapping[str, Any]], T]) -> T:
        if not self._is_started:
            raise MicrosandboxError(
                f"Sandbox {self._name!r} is not started: call `await sandbox.start()` first, or use "
                f"`async with {type(self).__name__}.create() as sandbox:`"
            )
        if self._session is None or self._session.closed:
            raise MicrosandboxError(
                f"The session of sandbox {self._name!r} is closed: set `sandbox._session = aiohttp.ClientSession()`, "
                "and close that one only after `await sandbox.stop()`"
            )
        answer = await self._server().call(self._session, method, {**self._names(), **params})
        if not isinstance(answer, dict):
            raise unexpected(method, "its result is no object")
        try:
            return read(cast("dict[str, Any]", answer))
        except ValueError as error:
            raise unexpected(method, error) from error

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            # The server bounds how many calls run at once; cookies have no place here.
            connector = aiohttp.TCPConnector(limit=0)
            self._owned_session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
            self._session = self._owned_session
        return self._session

    async def _close_owned_session(self) -> None:
        owned, self._owned_session = self._owned_session, None
        if owned is None:
            return
        if self._session is owned:
            self._session = None
        await owned.close()

    async def _stop_and_close(self) -> None:
        try:
            await self._stop_on_server()
            self._is_started = False
        except MicrosandboxError as error:
            if error.code == UNKNOWN:  # the server was restarted, or somebody removed it: nothing to stop again
                self._is_started = False
            raise
        finally:
            await self._close_owned_session()

    async def _give_up_start(self, *, in_doubt: bool) -> None:
        await to_its_end(self._take_back_start() if in_doubt else self._close_owned_session())

    async def _take_back_start(self) -> None:
        try:
            await self._stop_on_server()
        except MicrosandboxError as error:
            _log.debug("%s (after a start that did not succeed)", error)
        finally:
            await self._close_owned_session()

    async def _stop_on_server(self) -> None:
        call = self._server().call(self._open_session(), "sandbox.stop", self._names())
        try:
            await within(_STOP_SECONDS, call)
        except TimeIsUp:
            raise MicrosandboxError(
                f"{failed('sandbox.stop')}: the server does not answer within {_STOP_SECONDS:g} seconds: call "
                "`stop()` again, or see what the server's log says"
            ) from None


class PythonSandbox(BaseSandbox):
    """A sandbox that runs Python.

    Args:
        server_url: URL of the server; MSB_SERVER_URL or "http://127.0.0.1:5555" by default.
        namespace: Namespace of the sandbox; "default" by default.
        name: Name of the sandbox, 1 to 63 letters, digits, hyphens and underscores; made up by default.
        api_key: Key for the server; MSB_API_KEY by default, else that of a `.env` file in the working directory.

    Example:
        async with PythonSandbox.create(name="my-sandbox") as sandbox:
            execution = await sandbox.run("print('Hello, World!')")
            print(await execution.output())
    """

    _LANGUAGE = "python"
    _IMAGE = "microsandbox/python"


class NodeSandbox(BaseSandbox):
    """A sandbox that runs JavaScript on Node.js.

    Args:
        server_url: URL of the server; MSB_SERVER_URL or "http://127.0.0.1:5555" by default.
        namespace: Namespace of the sandbox; "default" by default.
        name: Name of the sandbox, 1 to 63 letters, digits, hyphens and underscores; made up by default.
        api_key: Key for the server; MSB_API_KEY by default, else that of a `.env` file in the working directory.

    Example:
        async with NodeSandbox.create(name="js-sandbox") as sandbox:
            execution = await sandbox.run("console.log('Hello from Node.js!');")
            print(await execution.output())
    """

    _LANGUAGE = "nodejs"
    _IMAGE = "microsandbox/node"


def _disk_params(disk: int | None, volumes: Sequence[str]) -> dict[str, Any]:
    if isinstance(volumes, str):
        raise ValueError(f'volumes must be a list such as ["{volumes}"], not a string')
    params: dict[str, Any] = {}
    if disk is not None:
        params["disk"] = disk
    if volumes:
        params["volumes"] = list(volumes)
    return params


def _network_params(network: Network, ports: Sequence[str]) -> dict[str, Any]:
    params: dict[str, Any] = {}
    if network is not None:
        params["network"] = network if isinstance(network, str) else dict(network)
    if ports:
        params["ports"] = list(ports)
    return params


def _may_stand(error: BaseException) -> bool:
    """Return whether a sandbox may stand although its start failed with `error`."""
    if isinstance(error, MicrosandboxError):
        refused = error.code is not None and error.code < 5000
        return not refused and not never_sent(error.__cause__)
    return True
