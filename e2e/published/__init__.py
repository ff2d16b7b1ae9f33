# SPDX-License-Identifier: Apache-2.0
"""Clients of this protocol that were published, unchanged, against the real programs.

`test_clients.py` runs those that the registries still have; `installs.py` gets them, `python_client.py` and
`rust_client.rs` are what a user would write with them, `tee.py` sees what goes over the wire. `test_replays.py` sends
what those clients sent that have no such registry.
"""
