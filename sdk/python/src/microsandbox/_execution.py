# SPDX-License-Identifier: Apache-2.0
"""What comes back from `sandbox.run()`, and how output lines look on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast


@dataclass(frozen=True)
class OutputLine:
    """One line of output, without its line end."""

    stream: str
    text: str


def output_lines(value: object) -> tuple[OutputLine, ...]:
    """Read the `output` member of an answer.

    Raises:
        ValueError: When it is no list of lines.
    """
    if value is None:
        return ()
    try:
        lines = cast("list[Mapping[str, Any]]", value)
        return tuple(OutputLine(line["stream"], line["text"]) for line in lines)
    except (TypeError, KeyError) as error:
        raise ValueError("its output is no list of lines") from error


def join_lines(lines: tuple[OutputLine, ...], stream: Literal["stdout", "stderr"]) -> str:
    """Return one stream's lines as a text, without white space at its end."""
    return "\n".join(line.text for line in lines if line.stream == stream).rstrip()


class Execution:
    """The result of `sandbox.run()`.

    Example:
        execution = await sandbox.run("print(6 * 7)")
        assert await execution.output() == "42"
        assert not execution.has_error()
    """

    def __init__(
        self,
        *,
        status: str,
        language: str,
        lines: tuple[OutputLine, ...] = (),
        background_lines: tuple[OutputLine, ...] = (),
        truncated: bool = False,
    ) -> None:
        self._status = status
        self._language = language
        self._lines = lines
        self._background_lines = background_lines
        self._truncated = truncated

    async def output(self) -> str:
        """Return what the code wrote to standard output.

        Returns:
            The lines joined by newlines, without white space at the end.
        """
        return join_lines(self._lines, "stdout")

    async def error(self) -> str:
        """Return what the code wrote to standard error, tracebacks included.

        Returns:
            The lines joined by newlines, without white space at the end.
        """
        return join_lines(self._lines, "stderr")

    async def background_output(self) -> str:
        """Return what threads and children wrote between the execution before and this one.

        Returns:
            The lines of both streams joined by newlines, without white space at the end.
        """
        return "\n".join(line.text for line in self._background_lines).rstrip()

    def has_error(self) -> bool:
        """Return whether the code did not run to its end.

        A line on standard error alone, such as a warning, is no error.
        """
        return self._status != "success"

    @property
    def status(self) -> str:
        """How the execution ended.

        One of `success`, `error` (the code raised), `timeout`, `interrupted`, `out_of_memory` and `crashed`
        (the interpreter died).
        """
        return self._status

    @property
    def language(self) -> str:
        """The language that the code was executed as: `python` or `nodejs`."""
        return self._language

    @property
    def truncated(self) -> bool:
        """Whether output was left out because there was too much of it."""
        return self._truncated

    def __repr__(self) -> str:
        return f"Execution(status={self._status!r}, language={self._language!r}, lines={len(self._lines)})"


def execution_from_wire(answer: Mapping[str, Any]) -> Execution:
    """Read the answer to `sandbox.repl.run`.

    Raises:
        ValueError: When a member is missing or of the wrong kind.
    """
    status, language = answer.get("status"), answer.get("language")
    if not isinstance(status, str) or not isinstance(language, str):
        raise ValueError("its status or language is missing")
    return Execution(
        status=status,
        language=language,
        lines=output_lines(answer.get("output")),
        background_lines=output_lines(answer.get("background_output")),
        truncated=answer.get("truncated") is True,
    )
