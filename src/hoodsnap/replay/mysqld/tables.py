"""Recorded rows of nova's databases as tables that can be queried: SQLite in memory, read-only.

A column that was not recorded exists by name, but reading it is refused: NULL would be wrong.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hoodsnap.bundle import Answer
from hoodsnap.facts.database.tables import Tables
from hoodsnap.keep.secret import WITHHELD
from hoodsnap.replay.recording import UNREADABLE, NotRecordedError, Recording

_NAME = r"`?([^`.\s]+)`?"
_DEFINITION = re.compile(rf"SHOW CREATE TABLE {_NAME}\.{_NAME}")
_COLUMNS = re.compile(rf"SHOW COLUMNS FROM {_NAME}\.{_NAME}")
_NAMES = re.compile(rf"SHOW TABLES FROM {_NAME}")
_COLUMN = re.compile(r"^ +[`\"](\w+)[`\"] (\w+(?:\([^)]*\))?(?: unsigned)?)(.*?),?$", re.MULTILINE)

LONGEST_TEXT = 64 << 20
"""Largest number of bytes in the value of one expression."""

MOST_STEPS = 1 << 28
"""Largest number of SQLite's steps for one statement: some seconds, in which no other client is
answered. Ten thousand rows joined with a thousand others take half of them."""

_STEPS = 1 << 12
"""Number of steps between two checks of the limit."""

NOT_NULL = "not_null"
"""Mark in the declared type of a column that can't be NULL."""

_WHOLE = re.compile(r"(tiny|small|medium|big)?int", re.IGNORECASE)
_REAL = re.compile(r"float|double", re.IGNORECASE)


@dataclass(frozen=True)
class Column:
    """One column of a result."""

    name: str
    type: str
    """MySQL's type: `varchar(255)`; empty for an expression."""
    required: bool = False
    """True if it is never NULL."""


@dataclass(frozen=True)
class ReplayedTable:
    """One recorded table."""

    definition: str
    """The CREATE TABLE statement, verbatim."""
    columns: Mapping[str, Column]
    recorded: frozenset[str]
    """Names of the columns whose values were recorded."""
    described: tuple[tuple[str | None, ...], ...] | None
    """The rows of SHOW COLUMNS; None if they were not recorded."""


class RecordedTables:
    """All recorded tables of one nova."""

    def __init__(self, recording: Recording) -> None:
        self._answers = list(recording.asked("nova-db", ""))
        self._names = _listed(self._answers)
        self.tables = _read(recording, self._answers)
        """Tables by database and name."""
        self.sqlite = sqlite3.connect(":memory:", check_same_thread=False)
        self.sqlite.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_TEXT)
        self._denied: str | None = None
        self.unlike: dict[tuple[str, str], str] = {}
        """Reasons why a table can't be queried, by database and name."""
        rows = Tables(recording.bundle.by_layer.get("nova-db", ()))
        attached = {database for database in self.databases if self._attach(database)}
        for place, table in self.tables.items():
            try:
                if place[0] not in attached:
                    raise ValueError("there are too many databases")
                self._fill(*place, table, rows)
            except (sqlite3.Error, *UNREADABLE) as error:
                self.unlike[place] = str(error)
        self.sqlite.commit()
        self.sqlite.set_authorizer(self._authorize)
        self._steps = 0
        self.sqlite.set_progress_handler(self._is_too_long, _STEPS)

    def _is_too_long(self) -> bool:
        self._steps += _STEPS
        return self._steps > MOST_STEPS

    def _attach(self, database: str) -> bool:
        try:
            self.sqlite.execute(f"ATTACH ':memory:' AS {quoted(database)}")
        except sqlite3.Error:
            return False  # SQLite attaches ten at most, and none named main
        return True

    @property
    def databases(self) -> tuple[str, ...]:
        """Names of the databases with a recorded table, sorted."""
        return tuple(sorted({database for database, _ in self.tables}))

    def names(self, database: str) -> tuple[str, ...]:
        """Return the names of all tables of a database, even of those without recorded rows.

        Raises `NotRecordedError`.
        """
        if database not in self._names:
            raise NotRecordedError(f"the list of the tables of {database} was not recorded")
        return self._names[database]

    def select(self, statement: str) -> tuple[tuple[Column, ...], sqlite3.Cursor]:
        """Run a SELECT in SQLite's SQL. Raises `NotRecordedError` and `sqlite3.Error`."""
        self._denied, self._steps = None, 0
        try:
            cursor = self.sqlite.execute(statement)
        except sqlite3.DatabaseError:
            if self._denied is not None:
                raise NotRecordedError(self._denied) from None
            raise
        names = [column[0] for column in cursor.description or ()]
        return tuple(self._columns(statement, names)), cursor

    def _columns(self, statement: str, names: list[str]) -> Iterator[Column]:
        """Yield the columns of a result with their declared types.

        SQLite reports the types of a view's columns through all joins and aliases, but has no types
        for expressions.
        """
        self.sqlite.set_authorizer(None)
        try:
            self.sqlite.execute(f"CREATE TEMP VIEW result AS {statement}")
            declared = [row[2] for row in self.sqlite.execute("PRAGMA temp.table_info(result)")]
        except sqlite3.DatabaseError:
            declared = []
        finally:
            self.sqlite.execute("DROP VIEW IF EXISTS temp.result")
            self.sqlite.set_authorizer(self._authorize)
        for number, name in enumerate(names):
            words = declared[number] if number < len(declared) else ""
            kind = words.removeprefix("text ").removesuffix(NOT_NULL).strip()
            yield Column(name, kind, words.endswith(NOT_NULL))

    def _fill(self, database: str, name: str, table: ReplayedTable, rows: Tables) -> None:
        if not table.columns:
            return
        declared = ", ".join(f"{quoted(c.name)} {_declared(c)}" for c in table.columns.values())
        where = f"{quoted(database)}.{quoted(name)}"
        self.sqlite.execute(f"CREATE TABLE {where} ({declared})")
        found = [_with_url(row.cells) for row in rows.of(name, None, database)]
        columns = [column for column in table.columns if column in table.recorded]
        if not columns:
            return
        if all(isinstance(cells.get("id"), int) for cells in found):
            found.sort(key=lambda cells: cells["id"])  # type: ignore[arg-type,return-value]
        names, marks = ", ".join(map(quoted, columns)), ", ".join("?" * len(columns))
        self.sqlite.executemany(
            f"INSERT INTO {where} ({names}) VALUES ({marks})",  # noqa: S608 (quoted)
            ([_storable(cells.get(column)) for column in columns] for cells in found),
        )

    def _authorize(
        self,
        action: int,
        first: str | None,
        second: str | None,
        database: str | None,
        _: str | None,
    ) -> int:
        if action == sqlite3.SQLITE_READ:
            table = self.tables.get((database or "", first or ""))
            if table is not None and not table.recorded:
                self._denied = f"the rows of {database}.{first} were not recorded"
                return sqlite3.SQLITE_DENY
            if table is not None and second and second not in table.recorded:
                self._denied = f"the column {second} of {database}.{first} was not recorded"
                return sqlite3.SQLITE_DENY
        allowed = (
            sqlite3.SQLITE_SELECT,
            sqlite3.SQLITE_READ,
            sqlite3.SQLITE_FUNCTION,
            sqlite3.SQLITE_RECURSIVE,
        )
        return sqlite3.SQLITE_OK if action in allowed else sqlite3.SQLITE_DENY


def quoted(name: str) -> str:
    """Return a name quoted for SQLite."""
    return '"' + name.replace('"', '""').replace("\0", "") + '"'


def _declared(column: Column) -> str:
    """Return a declared type that SQLite keeps, and that makes it store and compare like MySQL."""
    if _WHOLE.match(column.type) or _REAL.match(column.type):
        kind = column.type
    else:
        kind = f"text {column.type}"
    kind = quoted(f"{kind} {NOT_NULL}" if column.required else kind)
    return f"{kind} COLLATE NOCASE"


def _storable(value: object) -> object:
    if isinstance(value, str):
        try:
            return value.encode(errors="surrogateescape").decode(errors="replace")
        except UnicodeError:
            return value.encode(errors="replace").decode()
    if isinstance(value, int) and abs(value) >= 1 << 63:
        return str(value)
    return value if isinstance(value, int | float) else None


def _listed(answers: list[Answer]) -> dict[str, tuple[str, ...]]:
    found = {}
    for answer in answers:
        if named := _NAMES.match(answer.query):
            found[named[1]] = tuple(str(row[0]) for row in _rows(answer))
    return found


def _read(recording: Recording, answers: list[Answer]) -> dict[tuple[str, str], ReplayedTable]:
    rows = Tables(recording.bundle.by_layer.get("nova-db", ()))
    described = {}
    for answer in answers:
        if named := _COLUMNS.match(answer.query):
            described[named[1], named[2]] = tuple(
                tuple(None if cell is None else str(cell) for cell in row) for row in _rows(answer)
            )
    found = {}
    for answer in answers:
        if (named := _DEFINITION.match(answer.query)) is None:
            continue
        place = (named[1], named[2])
        cells = _rows(answer)
        definition = str(cells[0][1]) if cells and len(cells[0]) > 1 else ""
        columns = {
            name: Column(name, kind, "NOT NULL" in rest)
            for name, kind, rest in _COLUMN.findall(definition)
        }
        found[place] = ReplayedTable(
            definition, columns, _recorded(rows, place) & columns.keys(), described.get(place)
        )
    return found


def _recorded(rows: Tables, place: tuple[str, str]) -> frozenset[str]:
    """Return the columns that every recorded row has."""
    database, name = place
    read = [frozenset(_with_url(row.cells)) for row in rows.of(name, None, database)]
    if read:
        return frozenset.intersection(*read)
    asked = [answer.value["columns"] for answer in rows.read.get(place, ())]
    return frozenset().union(*asked)


def _with_url(cells: Mapping[str, object]) -> Mapping[str, object]:
    """Rebuild a cell's URL: the collector keeps its host and database, but not its credentials."""
    if "database_host" not in cells or "database_name" not in cells:
        return cells
    url = f"mysql+pymysql://{WITHHELD}@{cells['database_host']}/{cells['database_name']}"
    return {**cells, "database_connection": url}


def _rows(answer: Answer) -> list[list[Any]]:
    value = answer.value.get("rows") if isinstance(answer.value, dict) else None
    return (
        [row for row in value if isinstance(row, list) and row] if isinstance(value, list) else []
    )
