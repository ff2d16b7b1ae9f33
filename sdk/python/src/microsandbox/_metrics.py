# SPDX-License-Identifier: Apache-2.0
"""`sandbox.metrics`: what a sandbox uses, as the server measures it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Dict, Optional, cast  # noqa: UP035 (the reference's spelling)

from ._client import NOT_RUNNING, UNKNOWN, Caller
from ._errors import MicrosandboxError

_KEYS = ("name", "namespace", "running", "cpu_usage", "memory_usage", "disk_usage")


class Metrics:
    """Reads what a sandbox uses; found as `sandbox.metrics`.

    Every method asks the server anew. All raise MicrosandboxError before `start()`, and ServerUnreachableError when
    the server does not answer.

    Example:
        memory = await sandbox.metrics.memory()
        print("Memory: not available" if memory is None else f"Memory: {memory} MiB")
    """

    def __init__(self, call: Caller) -> None:
        self._call = call

    async def cpu(self) -> Optional[float]:  # noqa: UP045
        """Return the processor use, in percent of one core.

        Returns:
            None until there is a first sample, and when the sandbox does not run.
        """
        return (await self.all())["cpu_usage"]

    async def memory(self) -> Optional[int]:  # noqa: UP045
        """Return the memory use, in MiB rounded up.

        Returns:
            None when the sandbox does not run.
        """
        return (await self.all())["memory_usage"]

    async def disk(self) -> Optional[int]:  # noqa: UP045
        """Return the size of what the sandbox has written, in bytes.

        Returns:
            None when it is not known.
        """
        return (await self.all())["disk_usage"]

    async def network(self) -> Optional[str]:  # noqa: UP045
        """Return whom its programs may reach: "none", "public" or "allow".

        Returns:
            None when the sandbox does not run.
        """
        reading = await self._call("sandbox.metrics.get", {}, _first)
        return reading.get("network", "none") if reading.get("running") else None

    async def network_denied(self) -> int:
        """Return how many packets and questions for names were refused because of that."""
        return (await self._call("sandbox.metrics.get", {}, _first)).get("network_denied") or 0

    async def ports(self) -> Dict[int, int]:  # noqa: UP006
        """Return the published ports: for each of the sandbox's, that of the server's loopback interface.

        Example:
            async with PythonSandbox.create(ports=["0:8000"]) as sandbox:
                print(f"http://127.0.0.1:{(await sandbox.metrics.ports())[8000]}")
        """
        return await self._call("sandbox.metrics.get", {}, _ports_from_wire)

    async def is_running(self) -> bool:
        """Return whether the sandbox runs; False too if it died without `stop()`."""
        try:
            return bool((await self.all())["running"])
        except MicrosandboxError as error:
            if error.code in (UNKNOWN, NOT_RUNNING):
                return False
            raise

    async def all(self) -> Dict[str, Any]:  # noqa: UP006
        """Return all metrics of one reading.

        Returns:
            A dictionary with the keys `name`, `namespace`, `running`, `cpu_usage` (percent of one core),
            `memory_usage` (MiB) and `disk_usage` (bytes); the last three can be None.
        """
        return await self._call("sandbox.metrics.get", {}, _from_wire)


def _from_wire(answer: Mapping[str, Any]) -> dict[str, Any]:
    reading = _first(answer)
    return {key: reading.get(key) for key in _KEYS}


def _ports_from_wire(answer: Mapping[str, Any]) -> dict[int, int]:
    pairs = [str(text).split(":") for text in _first(answer).get("ports", [])]
    return {int(guest): int(host) for host, guest in pairs}


def _first(answer: Mapping[str, Any]) -> dict[str, Any]:
    sandboxes = answer.get("sandboxes")
    if not isinstance(sandboxes, list):
        raise ValueError("it holds no list of sandboxes")
    if not sandboxes:
        raise MicrosandboxError("the server does not know the sandbox", code=UNKNOWN)
    first = cast("object", sandboxes[0])
    if not isinstance(first, dict):
        raise ValueError("its sandbox is no object")
    return cast("dict[str, Any]", first)
