# SPDX-License-Identifier: Apache-2.0
"""What a user of the SDK sees of bad input; every way in which input can be bad is in `conformance`."""

from __future__ import annotations

import pytest
from microsandbox import PythonSandbox

from host import Server, descendants


async def test_the_sdk_shows_the_servers_text_and_nothing_is_started(server: Server) -> None:
    before = descendants(server.process.pid)
    with pytest.raises(RuntimeError, match=r"^Failed to start sandbox: Sandbox name cannot exceed 63 characters"):
        await PythonSandbox(name="x" * 64).start()
    with pytest.raises(RuntimeError, match=r"^Failed to start sandbox: .*no/such/image"):
        await PythonSandbox().start(image="no/such/image")
    with pytest.raises(RuntimeError, match=r"^Failed to start sandbox: .*memory"):
        await PythonSandbox().start(memory=-1)
    assert descendants(server.process.pid) <= before
