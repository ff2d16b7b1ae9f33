# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, as exceptions.

    RuntimeError
    └── MicrosandboxError
        ├── StartTimeoutError         (also a TimeoutError)
        ├── CommandTimeout            (also a TimeoutError)
        └── ServerUnreachableError    (also a ConnectionError)

Code that raises inside a sandbox is no exception here: `Execution.has_error()` tells.
"""

from __future__ import annotations


class MicrosandboxError(RuntimeError):
    """Something that was asked of a sandbox or its server failed.

    Attributes:
        code: The server's error code (for example 4001, unknown sandbox or image); None when no server answered.
        request_id: What the server's log calls the request; None when the server named none.
        cause: What lies behind it, in words; None when the server named none.
        remedy: What to do about it, in a sentence; None when there is none to name.

    Example:
        try:
            async with PythonSandbox.create() as sandbox:
                await sandbox.command.run("no-such-program")
        except MicrosandboxError as error:
            print(error, error.code, error.request_id)
    """

    def __init__(
        self,
        message: str = "",
        *,
        code: int | None = None,
        request_id: str | None = None,
        cause: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.request_id = request_id
        self.cause = cause
        self.remedy = remedy


class StartTimeoutError(MicrosandboxError, TimeoutError):
    """A sandbox did not start within the `timeout` of `start()`; nothing of it is kept."""


class CommandTimeout(MicrosandboxError, TimeoutError):  # noqa: N818 (the name is part of the interface)
    """A command did not end within its `timeout`; its whole process tree is dead, the sandbox can be used on.

    Attributes:
        output: What the command had written to its standard output until then.
        error: What the command had written to its standard error until then.
    """

    output: str = ""
    error: str = ""


class ServerUnreachableError(MicrosandboxError, ConnectionError):
    """The server could not be reached, or the connection to it broke before it answered."""
