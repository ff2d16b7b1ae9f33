# SPDX-License-Identifier: Apache-2.0
try:
    async with PythonSandbox.create(name="error-test") as sb:
        exec = await sb.run("potentially_failing_code()")

        if exec.has_error():
            print("Execution error:", await exec.error())
        else:
            print("Success:", await exec.output())

except RuntimeError as e:
    print(f"SDK error: {e}")
except Exception as e:
    print(f"Unexpected error: {e}")
