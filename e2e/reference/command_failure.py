# SPDX-License-Identifier: Apache-2.0
result = await sb.command.run("ls", ["/nonexistent"])
if result.success:
    print("Output:", await result.output())
else:
    print("Error:", await result.error())
    print("Exit code:", result.exit_code)
