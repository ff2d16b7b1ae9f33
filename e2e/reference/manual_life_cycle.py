# SPDX-License-Identifier: Apache-2.0
import aiohttp

sandbox = PythonSandbox(name="my-sandbox")
sandbox._session = aiohttp.ClientSession()

try:
    await sandbox.start(memory=1024, cpus=2.0)
    exec = await sandbox.run("print('Hello, World!')")
    print(await exec.output())
finally:
    await sandbox.stop()
    await sandbox._session.close()
