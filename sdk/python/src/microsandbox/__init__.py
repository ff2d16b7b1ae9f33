# SPDX-License-Identifier: Apache-2.0
"""Run untrusted code in isolated sandboxes of a microsandbox server.

Example:
    import asyncio
    from microsandbox import PythonSandbox

    async def main():
        async with PythonSandbox.create() as sandbox:
            execution = await sandbox.run("print('Hello, World!')")
            print(await execution.output())

    asyncio.run(main())
"""

from ._command import Command, CommandExecution
from ._errors import (
    AccessError,
    CapacityError,
    CommandTimeout,
    MicrosandboxError,
    NotFoundError,
    NotRunningError,
    ServerUnreachableError,
    StartTimeoutError,
)
from ._execution import Execution
from ._info import Isolation, Protection, SandboxInfo
from ._metrics import Metrics
from ._sandbox import NodeSandbox, PythonSandbox

__all__ = [
    "AccessError",
    "CapacityError",
    "Command",
    "CommandExecution",
    "CommandTimeout",
    "Execution",
    "Isolation",
    "Metrics",
    "MicrosandboxError",
    "NodeSandbox",
    "NotFoundError",
    "NotRunningError",
    "Protection",
    "PythonSandbox",
    "SandboxInfo",
    "ServerUnreachableError",
    "StartTimeoutError",
]

for _public in (globals()[_name] for _name in __all__):
    _public.__module__ = __name__  # tracebacks and `repr` show where it is imported from, not the private module
