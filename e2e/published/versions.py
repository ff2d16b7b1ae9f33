# SPDX-License-Identifier: Apache-2.0
"""What was published: what each version of a client calls things, and what it can do."""

from __future__ import annotations

from dataclasses import dataclass, field

OLD_IMAGES = ("appcypher/msb-python", "appcypher/msb-nodejs")
NEW_IMAGES = ("microsandbox/python", "microsandbox/node")

# What a version imports that is neither in it nor among what it asks for: as they come, these cannot even be imported.
# The first two work with what their users had to install by hand; the third has lost a part of itself.
MISSING = {"0.1.2": "dotenv", "0.1.3": "dotenv", "0.1.7": "microsandbox.metrics"}


@dataclass(frozen=True)
class Kind:
    """What all versions of one client have in common."""

    name: str
    # The type of the error when the server refuses, and how its text begins: for a start, for code, for a command.
    refused: str
    prefixes: tuple[str, str, str]
    # The type of the error when a sandbox was not started.
    not_started: str
    # What becomes of white space at the end of what was printed.
    layout: str


@dataclass(frozen=True)
class Version:
    """One version of one client."""

    kind: Kind
    number: str
    images: tuple[str, str]
    javascript: str
    command: str | None = None
    metrics: str | None = None
    options: tuple[str, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        return f"{self.kind.name}-{self.number}"


_FAILED = ("Failed to start sandbox: ", "Failed to execute code: ", "Failed to execute command: ")
PYTHON = Kind("python", "RuntimeError", _FAILED, "RuntimeError", "  a\n\n b")
RUST = Kind(
    "rust", "RequestFailed", ("Failed to communicate with Microsandbox server: ",) * 3, "NotStarted", "  a\n\n b  "
)

_EXECUTE, _STATUS = "sandbox.command.execute", "sandbox.getStatus"
_RUN, _METRICS = "sandbox.command.run", "sandbox.metrics.get"

WORKING = (
    Version(PYTHON, "0.1.2", OLD_IMAGES, "", options=("sandbox_name",)),
    Version(PYTHON, "0.1.3", OLD_IMAGES, "", options=("sandbox_name",)),
    Version(PYTHON, "0.1.4", OLD_IMAGES, "", _EXECUTE, _STATUS, ("sandbox_name", "command", "status")),
    Version(PYTHON, "0.1.5", OLD_IMAGES, "nodejs", _EXECUTE, _STATUS, ("sandbox_name", "command", "status", "node")),
    Version(PYTHON, "0.1.6", OLD_IMAGES, "nodejs", _EXECUTE, _STATUS, ("name", "command", "status", "node")),
    Version(PYTHON, "0.1.8", NEW_IMAGES, "nodejs", _RUN, _METRICS, ("name", "command", "metrics", "node")),
    Version(RUST, "0.1.1", OLD_IMAGES, "node", _EXECUTE),
    Version(RUST, "0.1.2", NEW_IMAGES, "javascript", _RUN, _METRICS),
)
