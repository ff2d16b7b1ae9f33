# SPDX-License-Identifier: Apache-2.0
async with PythonSandbox.create(name="my-sandbox") as sb:
    exec = await sb.run("print('Hello, World!')")
    print(await exec.output())
# Sandbox automatically stopped and cleaned up
