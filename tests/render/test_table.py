"""Rows as a table: what a stranger's values may cost."""

from __future__ import annotations

from hoodsnap.render.table import as_table


def test_one_endless_cell_does_not_widen_every_row() -> None:
    rows = [["x" * 100_000, "a"], *([["y", "b"]] * 1_000)]

    found = [*as_table(["name", "state"], rows, None)]

    assert found[1] == f"{'x' * 100_000}  a"
    assert sum(map(len, found)) < 400_000
