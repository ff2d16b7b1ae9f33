# SPDX-License-Identifier: Apache-2.0
from microsandbox import NodeSandbox

async with NodeSandbox.create(name="js-sandbox") as sb:
    exec = await sb.run("console.log('Hello from Node.js!');")
    print(await exec.output())
