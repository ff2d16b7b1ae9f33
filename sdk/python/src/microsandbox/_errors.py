# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, as exceptions."""

from __future__ import annotations


class MicrosandboxError(RuntimeError):
    """Something that was asked of a sandbox or its server failed.

        RuntimeError
        └── MicrosandboxError
            ├── AccessError               the key is missing, not valid, or for another namespace
            ├── NotFoundError             no such sandbox or image
            ├── NotRunningError           the sandbox is known, but does not run
            ├── CapacityError             the server or its machine is full
            ├── StartTimeoutError         (also a TimeoutError)
            ├── CommandTimeout            (also a TimeoutError)
            └── ServerUnreachableError    (also a ConnectionError)

    What the server refuses for another reason, such as a wrong parameter, is a plain `MicrosandboxError`.

    Code that raises inside a sandbox is no exception here: `Execution.has_error()` tells.

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


class AccessError(MicrosandboxError):
    """The server asks for a key, and none came, or one that is not valid or is made for another namespace.

    Keys are made with `msb server keygen`; the SDK takes them from `api_key` or MSB_API_KEY.
    """


class NotFoundError(MicrosandboxError):
    """There is no sandbox of that name in the namespace, or no such image."""


class NotRunningError(MicrosandboxError):
    """The sandbox was started once, but does not run any more; the message says how it ended."""


class CapacityError(MicrosandboxError):
    """The server or its machine is full: nothing was done, and the same can be tried again later."""


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
