"""The rows of nova's databases, as the answers hold them: of which table, whose, asked for whom."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from types import NoneType
from typing import NamedTuple

from hoodsnap.bundle import Answer
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.uuids import UUID

_NAME = r"(?:`[^`]+`|[^`.\s]+)"
SELECT = re.compile(
    # It reads SQL, and makes none.
    rf"SELECT .*? FROM (?P<database>{_NAME})\.(?P<table>{_NAME})(?:\s|$)",  # noqa: S608
    re.DOTALL,
)
TABLE_OF_INSTANCES = re.compile(rf"SHOW CREATE TABLE {_NAME}\.`?instances`?(?:\s|$)")
ELSEWHERE = re.compile(r" /\* at (?P<server>\S+) \*/$")
"""How a statement ends that went to another server than the first."""


class Row(NamedTuple):
    """One row, and the answer that held it."""

    cells: Mapping[str, object]
    answer: Answer
    newer: Mapping[str, Answer]
    """For the columns that a later, narrower question brought up to date: its answer."""


class Tables:
    """Every row that was read, newest reading last, by database, table and the instance it belongs
    to."""

    def __init__(self, answers: Iterable[Answer]) -> None:
        self.rows: dict[tuple[str, str], dict[object, dict[object, Row]]] = {}
        """(database, table) → instance UUID → row id → row. Two databases of one name are told
        apart by their servers: the second is called `nova at 10.0.0.5:3306`."""
        self.read: dict[tuple[str, str], list[Answer]] = {}
        """For each table the questions that were answered."""
        self.failures: list[Answer] = []
        self._named: dict[int, frozenset[str]] = {}
        for answer in answers:
            found = SELECT.match(answer.query)
            if found is None:
                # A table whose shape could not be asked is not read either.
                if answer.error is not None and TABLE_OF_INSTANCES.match(answer.query):
                    self.failures.append(answer)
                continue
            if answer.error is not None:
                if answer.error.kind != "absent":  # a table that this release does not have
                    self.failures.append(answer)
                continue
            try:
                self._read(answer, (_database(answer, found), found["table"].strip("`")))
            except UnheardError:
                self.failures.append(answer)

    def _read(self, answer: Answer, table: tuple[str, str]) -> None:
        value = answer.value
        if not isinstance(value, dict):
            raise UnheardError("the rows can't be read")
        columns, rows = value.get("columns"), value.get("rows")
        if not isinstance(columns, list) or not isinstance(rows, list):
            raise UnheardError("the rows can't be read")
        if not all(isinstance(name, str) for name in columns):
            raise UnheardError("the columns can't be read")
        owner_column = _owner_column(table[1], columns)
        found = []
        for row in rows:
            if not isinstance(row, list) or len(row) != len(columns):
                raise UnheardError("a row can't be read")
            cells = dict(zip(columns, row, strict=True))
            owner, number = cells.get(owner_column), _number(table[1], cells)
            if not _is_key(owner) or not _is_key(number):
                raise UnheardError("a row can't be read")
            found.append((owner, number, cells))
        # Not before: the owner of a row that can't be read would seem to have none.
        self.read.setdefault(table, []).append(answer)
        owners = self.rows.setdefault(table, {})
        for owner, number, cells in found:
            kept = owners.setdefault(owner, {})
            before = kept.get(number)
            # A second, narrower reading (the second look) brings a row up to date.
            if before is not None and not before.cells.keys() <= cells.keys():
                newer = dict.fromkeys(cells, answer)
                kept[number] = Row({**before.cells, **cells}, before.answer, newer)
            else:
                kept[number] = Row(cells, answer, {})

    @cached_property
    def _databases(self) -> Mapping[str, Sequence[str]]:
        """For each table the databases that have it."""
        found: dict[str, list[str]] = {}
        for database, table in self.rows:
            found.setdefault(table, []).append(database)
        return found

    def asked(self, table: str, uuid: str) -> Answer | None:
        """The last answer that has every row of one owner in a table, in whatever database."""
        found = None
        for database in self._databases.get(table, ()):
            for answer in self.read[(database, table)]:
                if self.asks_for(answer, uuid):
                    found = answer
        return found

    def database_of(self, cell: Mapping[str, object], table: str = "instances") -> str | None:
        """What the database of a cell (a row of `cell_mappings`) is called here; None if this table
        was not read in it."""
        name, elsewhere = cell.get("database_name"), _elsewhere(cell)
        if (elsewhere, table) in self.read:
            return elsewhere
        same = [row for row in self.of("cell_mappings") if row.cells.get("database_name") == name]
        # Under another address it is still the same database, unless that is another cell's.
        ours = [row for row in same if (_elsewhere(row.cells), table) not in self.read]
        known = isinstance(name, str) and (name, table) in self.read
        return str(name) if known and len(ours) < 2 else None

    def asks_for(self, answer: Answer, uuid: str) -> bool:
        """Whether a question is for every row, or names this UUID."""
        if " WHERE " not in answer.query:
            return True
        if id(answer) not in self._named:  # read once: it may name hundreds
            self._named[id(answer)] = frozenset(UUID.findall(answer.query))
        return uuid in self._named[id(answer)]

    def each(self, table: str, owner: str) -> Iterator[tuple[str, Row]]:
        """Every row of a table that belongs to one owner, and the database that it is in."""
        for database in self._databases.get(table, ()):
            for row in self.rows[(database, table)].get(owner, {}).values():
                yield database, row

    def of(self, table: str, owner: object = None, database: str | None = None) -> Iterator[Row]:
        """Every row of a table in any (or one) database that belongs to one owner, or to any."""
        for its_database in self._databases.get(table, ()):
            if database not in (None, its_database):
                continue
            owners = self.rows[(its_database, table)]
            if owner is None:
                for rows in owners.values():
                    yield from rows.values()
            else:
                yield from owners.get(owner, {}).values()


def _database(answer: Answer, found: re.Match[str]) -> str:
    name = found["database"].strip("`")
    server = ELSEWHERE.search(answer.query)
    return f"{name} at {server['server']}" if server else name


def _elsewhere(cell: Mapping[str, object]) -> str:
    return f"{cell.get('database_name')} at {cell.get('database_host')}"


def _owner_column(table: str, columns: list[str]) -> str:
    if table in ("instances", "shadow_instances"):
        return "uuid"
    return "instance_uuid" if "instance_uuid" in columns else "uuid"


def _number(table: str, cells: Mapping[str, object]) -> object:
    """What tells the rows of one owner apart."""
    if table in ("instances", "shadow_instances"):
        return None  # a UUID has one row, and the markers are read without its id
    return cells.get("id", cells.get("key"))


_KEYS = (NoneType, str, int)


def _is_key(value: object) -> bool:
    return isinstance(value, _KEYS)
