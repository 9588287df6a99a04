"""The threat model names the test that holds each of its rows, and that test exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs/explanation/threat-model.md"


def rows(page: str) -> Iterator[list[str]]:
    """The cells of each row of the page's tables, without their heads."""
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and cells[-1] != "test":
            yield cells


def missing(cell: str, folder: Path = TESTS) -> list[str]:
    """The tests that a cell names and that do not exist; all of it if it names none."""
    named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", cell)
    if not named or re.sub(r"`[^`]*`", "", cell).strip(" ,"):
        return [cell]
    return [f"{file}::{test}" for file, test in named if not exists(folder / file, test)]


def exists(file: Path, test: str) -> bool:
    return (
        file.is_file()
        and re.search(rf"def {test}\b" if test else "def test_", file.read_text()) is not None
    )


@pytest.mark.parametrize("row", [*rows(PAGE.read_text())], ids=lambda row: row[0][:40])
def test_each_row_names_a_test_that_exists(row: list[str]) -> None:
    assert len(row) == 3
    assert missing(row[2]) == []


@pytest.mark.parametrize(
    ("cell", "named"),
    [
        ("`test_cli.py::test_no_such`", ["test_cli.py::test_no_such"]),
        ("`test_no_such.py`", ["test_no_such.py::"]),
        ("", [""]),
        ("a test", ["a test"]),
        ("`test_cli.py`, `test_cli.py::test_version`", []),
    ],
)  # fmt: skip
def test_a_test_that_does_not_exist_is_noticed(cell: str, named: list[str]) -> None:
    assert missing(cell) == named
