# SPDX-License-Identifier: Apache-2.0
"""Fixtures: sandboxes on the server of the whole run."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from conformance.guest import Guest
from conftest import Wire
from host import Server


@pytest.fixture
async def guest(server: Server, wire: Wire, name: str) -> AsyncIterator[Guest]:
    """Give a started sandbox that no other test sees."""
    guest = Guest(wire, name)
    await guest.start()
    yield guest
    await guest.stop()


@pytest.fixture
async def shared(server: Server, wire: Wire) -> Guest:
    """Give the sandbox of all tests that leave nothing behind in it; the end of the server stops it."""
    guest = Guest(wire, "conformance-shared")
    if "already" not in await guest.start():
        server.note_cgroups()
    return guest
