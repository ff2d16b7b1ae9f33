# SPDX-License-Identifier: Apache-2.0
async with PythonSandbox.create(name="error-handling") as sb:
    try:
        exec = await sb.run("1/0")  # Division by zero
        if exec.has_error():
            print("Error occurred:", await exec.error())
    except RuntimeError as e:
        print("Runtime error:", e)
