# SPDX-License-Identifier: Apache-2.0
"""What the wire protocol promises to any client, row by row, over plain HTTP.

`rows.py` is the table; every test says which of its rows it is for.
"""
