# SPDX-License-Identifier: Apache-2.0
"""What a user of a published Python client does, with the version that is installed; prints what came of it as JSON.

The arguments: how that version calls a sandbox's name, then what it can do besides running Python: `node`, `command`,
`status` (metrics as one object), `metrics` (one call for each).
"""

import asyncio
import importlib.metadata
import json
import os
import sys
import time
import warnings

import aiohttp
import microsandbox
from microsandbox import PythonSandbox

NAME, *CAN = sys.argv[1:]
found = {"version": importlib.metadata.version("microsandbox")}


async def seen(execution):
    """Give all that an execution says of itself."""
    return {
        "output": await execution.output(),
        "error": await execution.error(),
        "has_error": execution.has_error(),
        "status": execution.status,
        "language": execution.language,
    }


async def refusal(call):
    """Give the type and the words of the RuntimeError that a call must end with."""
    try:
        result = await call
    except RuntimeError as error:
        return [type(error).__name__, str(error)]
    raise AssertionError(f"no RuntimeError, but {result!r}")


async def running():
    async with PythonSandbox.create(**{NAME: "published-running"}) as sb:
        found["hello"] = await seen(await sb.run("print('Hello, World!')"))
        await sb.run("x = 42")
        await sb.run("y = x * 2")
        found["state"] = await seen(await sb.run("print(f'Result: {y}')\n"))
        found["raised"] = await seen(await sb.run("print('before')\n1/0\nprint('never')"))
        found["syntax"] = await seen(await sb.run("def broken(:"))
        found["warned"] = await seen(await sb.run("import sys\nprint('careful', file=sys.stderr)\nprint('done')"))
        found["after"] = await seen(await sb.run("print(x)"))
        found["silent"] = await seen(await sb.run("z = 1"))
        found["unicode"] = await seen(await sb.run("s = 'héllo 你好 🎉'\nprint(s, len(s))"))
        found["layout"] = await seen(await sb.run("print('  a\\n\\n b  ')"))
        large = await sb.run("for i in range(20_000): print(i, 'x' * 30)")
        lines = (await large.output()).split("\n")
        found["large"] = [len(lines), lines[0], lines[-1], large.has_error()]
        if "command" in CAN:
            await commands(sb)
        if "status" in CAN:
            await status(sb)
        if "metrics" in CAN:
            await metrics(sb)


async def commands(sb):
    result = await sb.command.run("sh", ["-c", "echo out; echo err >&2; exit 3"])
    found["command"] = [await result.output(), await result.error(), result.exit_code, result.success]
    found["command asked"] = [result.command, result.args]
    began = time.monotonic()
    found["timeout"] = await refusal(sb.command.run("sleep", ["10"], timeout=1))
    found["timeout seconds"] = time.monotonic() - began
    found["missing"] = await refusal(sb.command.run("no-such-program"))
    result = await sb.command.run("pwd", timeout=30)
    found["command after"] = [await result.error(), result.exit_code, result.success, result.args]
    found["state after commands"] = await (await sb.run("print(x)")).output()


async def status(sb):
    told = await sb.metrics.get()
    found["metrics"] = [told.running, told.cpu_usage, told.memory_usage, told.disk_usage]
    found["raw metrics"] = told.raw_data


async def metrics(sb):
    cpu, memory, disk = await sb.metrics.cpu(), await sb.metrics.memory(), await sb.metrics.disk()
    found["metrics"] = [await sb.metrics.is_running(), cpu, memory, disk]
    found["raw metrics"] = await sb.metrics.all()


async def node():
    async with microsandbox.NodeSandbox.create(**{NAME: "published-node"}) as sb:
        await sb.run("const x = 20")
        found["node"] = await seen(await sb.run("console.log('Hello from Node.js!', x * 2)"))
        found["node raised"] = await seen(await sb.run("throw new Error('boom')"))
        found["node after"] = await seen(await sb.run("console.log(x)"))


async def life_cycle():
    """Two objects of one name: the second cannot know that the first has started the sandbox, or stopped it."""
    async with aiohttp.ClientSession() as session:
        first, second = (PythonSandbox(**{NAME: "published-life"}) for _ in range(2))
        first._session = second._session = session
        found["before the start"] = await refusal(first.run("1"))
        found["no such image"] = await refusal(first.start(image="no-such-image"))
        await first.start(memory=256, cpus=2.0)
        await first.run("x = 'kept'")
        await first.start()
        await second.start(memory=256, cpus=2.0)
        found["started twice"] = await seen(await second.run("print(x)"))
        await first.stop()
        await first.stop()
        found["stopped, and known"] = await refusal(first.run("1"))
        found["stopped, and unknown"] = await refusal(second.run("1"))
        await second.stop()
        await first.start()
        found["started again"] = await seen(await first.run("print('x' in globals())"))
        await first.stop()


async def own_key():
    async with PythonSandbox.create(namespace="published", api_key=os.environ["OWN_KEY"]) as sb:
        found["other namespace"] = await seen(await sb.run("print('elsewhere')"))


async def main():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # the clients' own: the start is said to have timed out
        await running()
        await life_cycle()
        await own_key()
        if "node" in CAN:
            await node()


asyncio.run(main())
json.dump(found, sys.stdout)
