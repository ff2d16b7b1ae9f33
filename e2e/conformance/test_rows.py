# SPDX-License-Identifier: Apache-2.0
"""Every row of the table has a test, and every test of the folder is for rows of the table."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from conformance.rows import ROWS

HERE = Path(__file__).parent
FILES = sorted(path.name for path in HERE.glob("test_*.py") if path.name != Path(__file__).name)


def test_the_table_names_the_files_there_are() -> None:
    assert sorted(ROWS) == FILES


@pytest.mark.parametrize("file", FILES)
def test_each_row_has_a_test_and_no_test_is_for_none(file: str) -> None:
    source = (HERE / file).read_text(encoding="utf-8")
    assert set(re.findall(r'\b(?:row|case)\(\s*"([^"]+)"', source)) == set(ROWS[file])
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)) and function.name.startswith("test_"):
            marks = " ".join(ast.unparse(decorator) for decorator in function.decorator_list)
            assert re.search(r"\b(row|case|parametrize)\(", marks), f"{function.name} is for no row"
