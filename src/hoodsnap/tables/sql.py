"""SQL over the tables, by DuckDB in memory, which can reach no file and no network."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from hoodsnap.findings.analysis import Report
from hoodsnap.tables.table import NOT_COLLECTED, TABLES, Table, TableColumn

TYPES: dict[type | None, str] = {
    str: "VARCHAR",
    int: "BIGINT",
    float: "DOUBLE",
    bool: "BOOLEAN",
    None: "JSON",
}
"""Type of a column → DuckDB's type."""

CHUNK = 2000
"""Rows of one insertion."""


class SqlError(Exception):
    """The statement is wrong or needs too much memory. The text is DuckDB's reason, on one line."""


class SqlAnswer(NamedTuple):
    """The result of a statement."""

    columns: tuple[str, ...]
    rows: Iterator[tuple[object, ...]]


def query(statement: str, report: Report, memory_mib: int = 2048) -> SqlAnswer:
    """Run one statement over the tables of a report. Raises `SqlError`."""
    import duckdb

    base = duckdb.connect(":memory:", config={"memory_limit": f"{memory_mib}MiB", "threads": "1"})
    with _errors():
        for table in TABLES.values():
            if table.name in statement.lower():
                _fill(base, table, report)
            else:
                _make(base, table)
        # From here on a statement can't read a file, load an extension or lift these settings.
        base.execute("SET enable_external_access = false")
        base.execute("SET lock_configuration = true")
        done = base.execute(statement)
        columns = tuple(str(column[0]) for column in done.description or ())
        return SqlAnswer(columns, _rows(done, [str(one[1]) for one in done.description or ()]))


@contextmanager
def _errors() -> Iterator[None]:
    """Raise `SqlError` for DuckDB's errors, and `KeyboardInterrupt` for Ctrl-C."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        raise SqlError(" ".join(str(error).split())[:500]) from None
    except RuntimeError as error:
        if "interrupt" in str(error).lower():  # DuckDB's report of Ctrl-C
            raise KeyboardInterrupt from None
        raise


def _make(base: Any, table: Table) -> None:
    columns = ", ".join(f'"{one.name}" {TYPES[one.type]}' for one in table.columns)
    base.execute(f'CREATE TABLE "{table.name}" ({columns})')


def _fill(base: Any, table: Table, report: Report) -> None:
    _make(base, table)
    rows = [*table.rows(report)]
    shape = json.dumps({one.name: TYPES[one.type] for one in table.columns})
    for start in range(0, len(rows), CHUNK):
        # One parameter for all rows: a statement for each row takes a hundred times as long.
        part = json.dumps([_row(row, table.columns) for row in rows[start : start + CHUNK]])
        base.execute(
            f'INSERT INTO "{table.name}" SELECT row.* FROM '  # noqa: S608 (our own names)
            "(SELECT unnest(from_json(?::JSON, ?)) AS row)",
            [part, f"[{shape}]"],
        )


def _row(row: Any, columns: Sequence[TableColumn]) -> dict[str, object]:
    """Return a row that fits the columns; a value that does not fit is not collected."""
    fitted = {one.name: _fitting(row[one.name], one.type) for one in columns}
    lost = [name for name, value in fitted.items() if value is None and row[name] is not None]
    return {**fitted, NOT_COLLECTED: [*row[NOT_COLLECTED], *lost]}


def _fitting(value: object, kind: type | None) -> object:
    """Return a value that fits its column's type; a lone surrogate is no UTF-8."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode() if kind in (str, None) else None
    if kind is str:
        return value if value is None else json.dumps(value)
    if kind is int and isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        return None
    return value


def _rows(done: Any, types: Sequence[str]) -> Iterator[tuple[object, ...]]:
    with _errors():
        while found := done.fetchmany(CHUNK):
            for row in found:
                yield tuple(map(_value, row, types))


def _value(value: object, type: str) -> object:
    """Return JSON as objects; DuckDB returns it as text."""
    return json.loads(value) if type == "JSON" and isinstance(value, str) else value
