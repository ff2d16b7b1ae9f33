# SPDX-License-Identifier: Apache-2.0
exec = await sb.run("print('Hello, World!')")
print(await exec.output())
