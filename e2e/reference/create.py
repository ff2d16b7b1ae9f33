# SPDX-License-Identifier: Apache-2.0
async with PythonSandbox.create(name="my-sandbox") as sb:
    # Sandbox automatically started and stopped
    exec = await sb.run("print('Hello!')")
    print(await exec.output())
