# SPDX-License-Identifier: Apache-2.0
async with PythonSandbox.create(name="files") as sb:
    # Create a file using Python
    await sb.run("""
with open('/tmp/test.txt', 'w') as f:
    f.write('Hello from sandbox!')
    """)

    # Read the file using shell command
    result = await sb.command.run("cat", ["/tmp/test.txt"])
    print("File content:", await result.output())
