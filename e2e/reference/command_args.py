# SPDX-License-Identifier: Apache-2.0
result = await sb.command.run("ls", ["-la", "/tmp"])
