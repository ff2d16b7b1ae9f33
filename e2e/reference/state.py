# SPDX-License-Identifier: Apache-2.0
async with PythonSandbox.create(name="stateful") as sb:
    await sb.run("x = 42")
    await sb.run("y = x * 2")
    exec = await sb.run("print(f'Result: {y}')")
    print(await exec.output())  # Output: Result: 84
