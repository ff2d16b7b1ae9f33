# SPDX-License-Identifier: Apache-2.0
"""Two ways to wait: bounded in time without losing a cancellation, and to the end in spite of one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_log = logging.getLogger("microsandbox")


class TimeIsUp(Exception):  # noqa: N818 (no error by itself)
    """What `within` waited for was not done in time."""


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Do `work`, or cancel it and raise `TimeIsUp`. Unlike `asyncio.wait_for`, it loses no cancellation."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if task.done():
            return task.result()
        raise TimeIsUp
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


async def to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Do `work`, which is bounded in time, to its end; a cancellation meanwhile is raised after it."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled() and (failure := task.exception()) is not None:
            _log.warning("%s (while being cancelled)", failure)
        raise cancelled
    task.result()
