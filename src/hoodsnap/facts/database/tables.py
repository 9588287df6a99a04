"""Rows of nova's databases by table and instance, and the UUIDs that each query selected."""

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
    # This pattern reads SQL; it builds none.
    rf"SELECT .*? FROM (?P<database>{_NAME})\.(?P<table>{_NAME})(?:\s|$)",  # noqa: S608
    re.DOTALL,
)
TABLE_OF_INSTANCES = re.compile(rf"SHOW CREATE TABLE {_NAME}\.`?instances`?(?:\s|$)")
ELSEWHERE = re.compile(r" /\* at (?P<server>\S+) \*/$")
"""End of a statement that was sent to another server than the first one."""


class Row(NamedTuple):
    """One row, and the answer that contains it."""

    cells: Mapping[str, object]
    answer: Answer
    newer: Mapping[str, Answer]
    """Column → the later answer that updated it by reading fewer columns."""


class Tables:
    """All collected rows by database, table and the instance that they belong to.

    If a row was read twice, the later values count.
    """

    def __init__(self, answers: Iterable[Answer]) -> None:
        self.rows: dict[tuple[str, str], dict[object, dict[object, Row]]] = {}
        """(database, table) → instance UUID → row id → row.

        If two servers have databases of the same name, the second is called
        `nova at 10.0.0.5:3306`.
        """
        self.read: dict[tuple[str, str], list[Answer]] = {}
        """(database, table) → its successful answers."""
        self.failures: list[Answer] = []
        self._named: dict[int, frozenset[str]] = {}
        self._numbered: dict[int, frozenset[str]] = {}
        for answer in answers:
            found = SELECT.match(answer.query)
            if found is None:
                # If its columns are not known, the table was not read either.
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
            if owner_column == "action_id" and not _is_key(owner):
                owner = None  # a step of an unknown action; the other steps still count
            if not _is_key(owner) or not _is_key(number):
                raise UnheardError("a row can't be read")
            found.append((owner, number, cells))
        # Only now: otherwise the owner of an unreadable row would seem to have no row.
        self.read.setdefault(table, []).append(answer)
        owners = self.rows.setdefault(table, {})
        for owner, number, cells in found:
            kept = owners.setdefault(owner, {})
            before = kept.get(number)
            # The second look reads fewer columns. They update the row.
            if before is not None and not before.cells.keys() <= cells.keys():
                newer = dict.fromkeys(cells, answer)
                kept[number] = Row({**before.cells, **cells}, before.answer, newer)
            else:
                kept[number] = Row(cells, answer, {})

    @cached_property
    def _databases(self) -> Mapping[str, Sequence[str]]:
        """Table → the databases that have it."""
        found: dict[str, list[str]] = {}
        for database, table in self.rows:
            found.setdefault(table, []).append(database)
        return found

    def asked(self, table: str, uuid: str) -> Answer | None:
        """Return the last answer that has all rows of an owner in a table; None without one."""
        found = None
        for database in self._databases.get(table, ()):
            for answer in self.read[(database, table)]:
                if self.asks_for(answer, uuid):
                    found = answer
        return found

    def database_of(self, cell: Mapping[str, object], table: str = "instances") -> str | None:
        """Return the name used here for the database of a cell (a row of `cell_mappings`).

        None if the table was not read in that database.
        """
        name, elsewhere = cell.get("database_name"), _elsewhere(cell)
        if (elsewhere, table) in self.read:
            return elsewhere
        same = [row for row in self.of("cell_mappings") if row.cells.get("database_name") == name]
        # A database of this name at another address is this cell's, unless it may be another's.
        ours = [row for row in same if (_elsewhere(row.cells), table) not in self.read]
        known = isinstance(name, str) and (name, table) in self.read
        return str(name) if known and len(ours) < 2 else None

    def asks_for(self, answer: Answer, uuid: str) -> bool:
        """True if a query selects all rows, or names this UUID."""
        if " WHERE " not in answer.query:
            return True
        if id(answer) not in self._named:  # parsed once: a query may name hundreds
            self._named[id(answer)] = frozenset(UUID.findall(answer.query))
        return uuid in self._named[id(answer)]

    def asks_for_number(self, answer: Answer, number: int) -> bool:
        """True if a query selects all rows, or names this number in its `IN (…)`."""
        if " WHERE " not in answer.query:
            return True
        if id(answer) not in self._numbered:
            listed = answer.query.rpartition(" IN (")[2].partition(")")[0]
            self._numbered[id(answer)] = frozenset(listed.replace(" ", "").split(","))
        return str(number) in self._numbered[id(answer)]

    def each(self, table: str, owner: str) -> Iterator[tuple[str, Row]]:
        """Yield each row of an owner in a table, with the name of its database."""
        for database in self._databases.get(table, ()):
            for row in self.rows[(database, table)].get(owner, {}).values():
                yield database, row

    def current(self, table: str, owner: str) -> Iterator[Row]:
        """Yield the rows of an owner that the last question about the owner still returned."""
        for database, row in self.each(table, owner):
            asked = [one for one in self.read[(database, table)] if self.asks_for(one, owner)]
            if not asked or asked[-1] in (row.answer, *row.newer.values()):
                yield row

    def of(self, table: str, owner: object = None, database: str | None = None) -> Iterator[Row]:
        """Yield a table's rows of one owner, or all; in one database, or in all."""
        for its_database in self._databases.get(table, ()):
            if database not in (None, its_database):
                continue
            owners = self.rows[(its_database, table)]
            if owner is None:
                for rows in owners.values():
                    yield from rows.values()
            else:
                yield from owners.get(owner, {}).values()


def plain_name(database: str) -> str | None:
    """Return the name of a database for an SQL statement; None if it is not a plain word.

    A second database of the same name has its server's address in its name here.
    """
    return database if re.fullmatch(r"\w{1,64}", database, re.ASCII) else None


def _database(answer: Answer, found: re.Match[str]) -> str:
    name = found["database"].strip("`")
    server = ELSEWHERE.search(answer.query)
    return f"{name} at {server['server']}" if server else name


def _elsewhere(cell: Mapping[str, object]) -> str:
    return f"{cell.get('database_name')} at {cell.get('database_host')}"


def _owner_column(table: str, columns: list[str]) -> str:
    if table in ("instances", "shadow_instances"):
        return "uuid"
    if table == "instance_actions_events":
        return "action_id"  # a step belongs to an action
    return "instance_uuid" if "instance_uuid" in columns else "uuid"


def _number(table: str, cells: Mapping[str, object]) -> object:
    """Return the key that distinguishes the rows of one owner."""
    if table in ("instances", "shadow_instances"):
        return None  # a UUID has one row, and the second look does not read its id
    return cells.get("id", cells.get("key"))


_KEYS = (NoneType, str, int)


def _is_key(value: object) -> bool:
    return isinstance(value, _KEYS)
