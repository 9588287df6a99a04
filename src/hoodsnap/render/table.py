"""Rows as a table for people, as CSV, and as JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from hoodsnap.printable import clean, cut

WIDEST = 60
"""Characters of a cell in a table on a terminal; a pipe, CSV and JSON have the whole value."""

WIDEST_PADDED = 200
"""Columns of a table's column in a pipe: a longer cell only pushes the rest of its own row."""

UNKNOWN = "?"
"""It stands in a table for a value that was not collected; an empty cell does not exist."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def as_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], widest: int | None = WIDEST
) -> Iterator[str]:
    """Yield the lines: a heading, and a line for each row. `widest` None cuts nothing."""
    cells = [[_cell(value, widest) for value in row] for row in rows]
    widths = [
        max(len(name), min(WIDEST_PADDED, max((len(row[number]) for row in cells), default=0)))
        for number, name in enumerate(columns)
    ]
    for line in ([*columns], *cells):
        padded = (f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        yield "  ".join(padded).rstrip()


def as_csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return RFC 4180's CSV. No cell is a formula of a spreadsheet."""
    made = io.StringIO()
    writer = csv.writer(made, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_safe(value) for value in row])
    return made.getvalue()


def as_json(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a list of objects. It is ASCII only."""
    return json.dumps([dict(zip(columns, row, strict=True)) for row in rows], indent=1) + "\n"


def tabular(value: object) -> tuple[list[str], list[list[object]]]:
    """Return columns and rows for any JSON value.

    A list of objects has a column for each field; any other list has one column, `value`; a single
    value is one row.
    """
    items: list[object] = value if isinstance(value, list) else [] if value is None else [value]
    objects = [item for item in items if isinstance(item, Mapping)]
    if items and len(objects) == len(items):
        columns = [*dict.fromkeys(str(name) for item in objects for name in item)]
        return columns, [[item.get(name) for name in columns] for item in objects]
    lists = [item for item in items if isinstance(item, list)]
    if items and len(lists) == len(items):
        width = max(map(len, lists))
        rows = [[*item, *[None] * (width - len(item))] for item in lists]
        return [f"value{number}" for number in range(1, width + 1)], rows
    return ["value"], [[item] for item in items]


def _cell(value: object, widest: int | None) -> str:
    text = clean(_text(value))
    return text if widest is None else cut(text, widest)


def _safe(value: object) -> str:
    """Return a cell of CSV; text that a spreadsheet would evaluate gets an apostrophe."""
    text = clean(_text(value))
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list) and all(isinstance(one, str | int) for one in value):
        return ", ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
