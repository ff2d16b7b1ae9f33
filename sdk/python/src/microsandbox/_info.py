# SPDX-License-Identifier: Apache-2.0
"""What comes back from `sandbox.get_info()`: the sandbox, and how strong its wall is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional, cast


@dataclass(frozen=True)
class Protection:
    """One protection of a sandbox, as the server found it to be.

    `why` says why it is off; `mend` is the command or change on the server's machine that would switch it on.
    """

    name: str
    on: bool
    why: Optional[str] = None  # noqa: UP045 (here and below: the reference's spelling)
    mend: Optional[str] = None  # noqa: UP045


@dataclass(frozen=True)
class Isolation:
    """How strong the wall around a sandbox is.

    Example:
        info = await sandbox.get_info()
        for protection in info.isolation.protections:
            print(protection.name, "on" if protection.on else f"off: {protection.why}")
    """

    kind: str
    protections: tuple[Protection, ...]

    def has(self, name: str) -> bool:
        """Return whether the protection of that name is on."""
        return any(protection.on for protection in self.protections if protection.name == name)


@dataclass(frozen=True)
class SandboxInfo:
    """What a sandbox is.

    `image_source` is "store", "registry" (pulled for this), "host" (the server's own machine) or "directory", and
    `image_reference` the image in full if it came from the store or a registry. `memory` is in MiB.
    `isolation` is None while the sandbox does not run.
    """

    name: str
    namespace: str
    running: bool
    image: str
    image_source: str
    image_reference: Optional[str]  # noqa: UP045
    memory: int
    cpus: float
    isolation: Optional[Isolation]  # noqa: UP045


def info_from_wire(answer: Mapping[str, Any]) -> SandboxInfo:
    """Read the answer to `sandbox.get`.

    Raises:
        ValueError: When it is something else.
    """
    try:
        return SandboxInfo(
            name=answer["name"],
            namespace=answer["namespace"],
            running=bool(answer["running"]),
            image=answer["image"],
            image_source=answer["image_source"],
            image_reference=answer.get("image_reference"),
            memory=int(answer["memory"]),
            cpus=float(answer["cpus"]),
            isolation=_isolation(answer.get("isolation")),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"it does not describe a sandbox: {error!r}") from error


def _isolation(value: object) -> Isolation | None:
    if value is None:
        return None
    read = cast("Mapping[str, Any]", value)
    protections = cast("list[Mapping[str, Any]]", read["protections"])
    return Isolation(
        kind=read["kind"],
        protections=tuple(
            Protection(one["name"], bool(one["on"]), one.get("why"), one.get("mend")) for one in protections
        ),
    )
