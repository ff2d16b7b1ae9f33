# SPDX-License-Identifier: Apache-2.0
"""Output: one element for each line, tagged by stream, in the order in which it came."""

from __future__ import annotations

from typing import Any

import pytest

from conformance.guest import Guest, out
from conformance.rows import case, row

TEXTS = ["", "a", "> b", ".. c", "  d  ", ">>> e"]


async def print_with(guest: Guest, how: str, text: str) -> dict[str, Any]:
    """Print a text and a line end."""
    if how == "command":
        return await guest.command("printf", "%s\\n", text)
    if how == "python":
        return await guest.run(f"print({text!r})")
    return await guest.run(f"console.log({text!r})", "nodejs")


@pytest.mark.parametrize("how", ["python", "nodejs", "command"])
@row("one element for each line")
async def test_lines_have_no_newline_and_a_stream(shared: Guest, how: str) -> None:
    result = await print_with(shared, how, "a\nb\nc")
    assert result["output"] == [{"stream": "stdout", "text": text} for text in "abc"]


@pytest.mark.parametrize("how", ["python", "nodejs", "command"])
@row("no line is dropped")
async def test_blank_lines_and_lines_like_prompts_are_kept(shared: Guest, how: str) -> None:
    result = await print_with(shared, how, "\n".join(TEXTS))
    assert [line["text"] for line in result["output"]] == TEXTS


@pytest.mark.parametrize(
    ("language", "code"),
    [
        case(
            "streams in order of arrival: Python",
            "python",
            "import sys\nfor i in range(50): print('o', i); print('e', i, file=sys.stderr)",
        ),
        case(
            "streams in order of arrival: Node",
            "nodejs",
            "for (let i = 0; i < 50; i++) { console.log('o', i); console.error('e', i) }",
        ),
    ],
)
async def test_order_of_a_run(shared: Guest, language: str, code: str) -> None:
    expected = [
        {"stream": stream, "text": f"{stream[3]} {number}"} for number in range(50) for stream in ("stdout", "stderr")
    ]
    assert (await shared.run(code, language))["output"] == expected


@row("streams in order of arrival: commands")
async def test_order_of_a_command(shared: Guest) -> None:
    result = await shared.sh("for i in 1 2 3; do echo out$i; sleep 0.05; echo err$i >&2; sleep 0.05; done")
    assert [line["text"] for line in result["output"]] == ["out1", "err1", "out2", "err2", "out3", "err3"]


@pytest.mark.parametrize("how", ["python", "nodejs", "command"])
@row("unicode")
async def test_unicode(shared: Guest, how: str) -> None:
    text = "é世🦀\u200d\u0301"
    assert out(await print_with(shared, how, text)) == text


@pytest.mark.parametrize(
    ("language", "code"),
    [
        case("CRLF source", "python", "def f():\r\n    return 'cr'\r\n\r\nprint(f())\r\n"),
        case("CRLF source", "nodejs", "{ const cr = 'cr'\r\nconsole.log(cr)\r\n }"),
    ],
)
async def test_source_with_carriage_returns(shared: Guest, language: str, code: str) -> None:
    assert (await shared.run(code, language))["output"] == [{"stream": "stdout", "text": "cr"}]
