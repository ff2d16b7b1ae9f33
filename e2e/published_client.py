# SPDX-License-Identifier: Apache-2.0
"""What a user of the published client does; runs with microsandbox 0.1.8 from the package index, and prints JSON."""

import asyncio
import importlib.metadata
import json
import sys
import time

import aiohttp
from microsandbox import NodeSandbox, PythonSandbox

found = {"version": importlib.metadata.version("microsandbox")}


async def quick_start():
    async with PythonSandbox.create(name="published-quick") as sb:
        execution = await sb.run("print('Hello, World!')")
        found["hello"] = await execution.output()
        found["hello has_error"] = execution.has_error()
        found["status"] = execution.status
        found["language"] = execution.language


async def state():
    async with PythonSandbox.create(name="published-state") as sb:
        await sb.run("x = 42")
        await sb.run("y = x * 2")
        found["state"] = await (await sb.run("print(f'Result: {y}')")).output()


async def errors():
    async with PythonSandbox.create(name="published-errors") as sb:
        execution = await sb.run("1/0")
        found["error has_error"] = execution.has_error()
        found["error"] = await execution.error()
        found["after"] = await (await sb.run("print('next')")).output()


async def commands():
    async with PythonSandbox.create(name="published-commands") as sb:
        result = await sb.command.run("sh", ["-c", "echo out; echo err >&2; exit 3"])
        found["command"] = [await result.output(), await result.error(), result.exit_code, result.success]
        found["command asked"] = [result.command, result.args]
        began = time.monotonic()
        try:
            await sb.command.run("sleep", ["10"], timeout=1)
        except RuntimeError as error:
            found["timeout"] = str(error)
        found["timeout seconds"] = time.monotonic() - began
        try:
            await sb.command.run("no-such-program")
        except RuntimeError as error:
            found["missing"] = str(error)
        found["command after"] = await (await sb.command.run("echo", ["next"])).output()


async def metrics():
    async with PythonSandbox.create(name="published-metrics") as sb:
        found["cpu"] = await sb.metrics.cpu()
        found["memory"] = await sb.metrics.memory()
        found["disk"] = await sb.metrics.disk()
        found["running"] = await sb.metrics.is_running()
        found["all"] = await sb.metrics.all()


async def node():
    async with NodeSandbox.create(name="published-node") as sb:
        await sb.run("const x = 20")
        found["node"] = await (await sb.run("console.log('Hello from Node.js!', x * 2)")).output()
        execution = await sb.run("throw new Error('boom')")
        found["node error"] = [execution.has_error(), await execution.error()]


async def manual():
    sandbox = PythonSandbox(name="published-manual")
    sandbox._session = aiohttp.ClientSession()
    try:
        await sandbox.start(memory=256, cpus=2.0)
        found["manual"] = await (await sandbox.run("print('manual')")).output()
    finally:
        await sandbox.stop()
        await sandbox._session.close()


async def main():
    for part in (quick_start, state, errors, commands, metrics, node, manual):
        await part()


asyncio.run(main())
json.dump(found, sys.stdout)
