# SPDX-License-Identifier: Apache-2.0
import asyncio
from microsandbox import PythonSandbox

async def main():
    async with PythonSandbox.create(name="my-sandbox") as sb:
        exec = await sb.run("print('Hello, World!')")
        print(await exec.output())

asyncio.run(main())
