# SPDX-License-Identifier: Apache-2.0
"""`sandbox.command`: programs run inside a sandbox, and what comes back from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, List, Optional  # noqa: UP035 (the reference's spelling)

from ._client import Caller
from ._execution import OutputLine, join_lines, output_lines


class CommandExecution:
    """The result of `sandbox.command.run()`.

    Example:
        result = await sandbox.command.run("ls", ["/nonexistent"])
        if not result.success:
            print(result.exit_code, await result.error())
    """

    def __init__(
        self,
        *,
        command: str,
        args: list[str],
        exit_code: int,
        lines: tuple[OutputLine, ...] = (),
        truncated: bool = False,
    ) -> None:
        self._command = command
        self._args = args
        self._exit_code = exit_code
        self._lines = lines
        self._truncated = truncated

    async def output(self) -> str:
        """Return what the command wrote to standard output.

        Returns:
            The lines joined by newlines, without white space at the end.
        """
        return join_lines(self._lines, "stdout")

    async def error(self) -> str:
        """Return what the command wrote to standard error.

        Returns:
            The lines joined by newlines, without white space at the end.
        """
        return join_lines(self._lines, "stderr")

    @property
    def exit_code(self) -> int:
        """The command's exit code, 0 to 255; 1 if a signal ended it."""
        return self._exit_code

    @property
    def success(self) -> bool:
        """True if the exit code is 0."""
        return self._exit_code == 0

    @property
    def command(self) -> str:
        """The command that was executed."""
        return self._command

    @property
    def args(self) -> List[str]:  # noqa: UP006 (the reference's spelling)
        """The arguments that the command was given."""
        return self._args

    @property
    def truncated(self) -> bool:
        """Whether output was left out because there was too much of it."""
        return self._truncated

    def __repr__(self) -> str:
        return f"CommandExecution(command={self._command!r}, args={self._args!r}, exit_code={self._exit_code})"


class Command:
    """Runs programs inside a sandbox; found as `sandbox.command`."""

    def __init__(self, call: Caller) -> None:
        self._call = call

    async def run(
        self,
        command: str,
        args: Optional[List[str]] = None,  # noqa: UP006, UP045 (the reference's spelling)
        timeout: Optional[int] = None,  # noqa: UP045
    ) -> CommandExecution:
        """Run a program and wait for its end.

        There is no shell in between: for pipes and wildcards run `sh` with `["-c", "..."]`. Standard input is empty.

        Args:
            command: A path, or a name that is looked up in the sandbox's PATH.
            args: The program's arguments; none by default.
            timeout: Seconds after which the program and all its descendants are killed; by default none are.
                Fractions are rounded up.

        Returns:
            The exit code and the output. An exit code other than 0 is a result, no exception.

        Raises:
            CommandTimeout: The time was up. It carries the output so far; the sandbox can be used on.
            MicrosandboxError: There is no such program, or the sandbox does not run.
            ServerUnreachableError: The server does not answer.

        Example:
            listing = await sandbox.command.run("ls", ["-la", "/tmp"], timeout=5)
            print(await listing.output())
        """
        params: dict[str, Any] = {"command": command, "args": list(args) if args is not None else []}
        if timeout is not None:
            params["timeout"] = math.ceil(timeout)
        return await self._call("sandbox.command.run", params, _from_wire)


def _from_wire(answer: Mapping[str, Any]) -> CommandExecution:
    command, args, code = answer.get("command"), answer.get("args"), answer.get("exit_code")
    if not isinstance(command, str) or not isinstance(args, list) or not isinstance(code, int):
        raise ValueError("its command, args or exit_code is missing")
    return CommandExecution(
        command=command,
        args=args,  # pyright: ignore[reportUnknownArgumentType] (strings, as they were sent)
        exit_code=code,
        lines=output_lines(answer.get("output")),
        truncated=answer.get("truncated") is True,
    )
