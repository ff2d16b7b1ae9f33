# SPDX-License-Identifier: Apache-2.0
"""What a program with the official client of MCP does, `mcp` 1.x or 2.x; prints what it saw as JSON.

Arguments: the address of `/mcp`, a sandbox name, and how to begin: `handshake` (every version of the protocol up to
2025-11-25) or `discover` (without one, from 2026-07-28 on; `mcp` 2.x only).
"""

import asyncio
import importlib.metadata
import json
import sys
import time

import mcp
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

URL, NAME, BEGINNING = sys.argv[1:]
TARGET = {"sandbox": NAME, "namespace": "mcp"}
VERSION = importlib.metadata.version("mcp")
ENDLESS_SECONDS = 2
# The two versions of the client call it differently.
ERROR = mcp.McpError if VERSION.startswith("1.") else mcp.MCPError
found = {"version": VERSION}


def plain(model):
    """Return an answer as it was on the wire: the two versions of the client call its members differently."""
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


async def tool(session, name, **arguments):
    result = plain(await session.call_tool(name, {**TARGET, **arguments}))
    assert [content["type"] for content in result["content"]] == ["text"], result
    return {"text": result["content"][0]["text"], "isError": result["isError"]}


async def begin(session):
    if BEGINNING == "discover":
        found["begin"] = plain(await session.discover())
    else:
        found["begin"] = plain(await session.initialize())
        found["ping"] = plain(await session.send_ping())


async def failing(act):
    """Return what the client raises."""
    try:
        await act
    except (ERROR, asyncio.TimeoutError) as error:
        return str(error)
    return None


async def give_up(session):
    """Stop waiting for code that never ends; returns how long the next run took."""
    code = "while True: pass"
    found["given up"] = await failing(
        asyncio.wait_for(tool(session, "sandbox_run_code", language="python", code=code), ENDLESS_SECONDS)
    )
    began = time.monotonic()
    found["after giving up"] = await tool(session, "sandbox_run_code", language="python", code="print('free')")
    found["after giving up seconds"] = time.monotonic() - began


async def use(session):
    await begin(session)
    found["tools"] = plain(await session.list_tools())["tools"]
    found["prompts"] = plain(await session.list_prompts())["prompts"]
    prompt = await session.get_prompt("create_python_sandbox", {"sandbox_name": NAME, "namespace": "mcp"})
    found["prompt"] = plain(prompt)["messages"][0]["content"]["text"]
    found["resources"] = await failing(session.list_resources())
    found["too early"] = await tool(session, "sandbox_run_code", language="python", code="1")
    config = {"image": "microsandbox/python", "memory": 256, "cpus": 1}
    found["start"] = await tool(session, "sandbox_start", config=config)
    found["run"] = await tool(session, "sandbox_run_code", language="python", code="x = 6 * 7\nprint('x is', x)")
    found["state"] = await tool(session, "sandbox_run_code", language="python", code="print(x + 1)")
    found["raised"] = await tool(session, "sandbox_run_code", language="python", code="1/0")
    found["command"] = await tool(session, "sandbox_run_command", command="sh", args=["-c", "echo out; exit 3"])
    found["missing"] = await tool(session, "sandbox_run_command", command="no-such-program")
    found["no code"] = await tool(session, "sandbox_run_code", language="python")
    found["unknown tool"] = await failing(session.call_tool("no_such_tool", {}))
    found["metrics"] = await tool(session, "sandbox_get_metrics")
    if VERSION.startswith("2."):
        await give_up(session)
    found["stop"] = await tool(session, "sandbox_stop")


async def main():
    async with streamable_http_client(URL) as streams, ClientSession(streams[0], streams[1]) as session:
        await use(session)
    print(json.dumps(found))


asyncio.run(main())
