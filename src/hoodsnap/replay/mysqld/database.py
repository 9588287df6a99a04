"""The recorded database, which answers SQL statements.

Statements that read are answered from recorded rows, definitions and lists. All others are refused,
as by a read-only server.
"""

from __future__ import annotations

import itertools
import re
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hoodsnap.facts.clock import moment
from hoodsnap.printable import clean
from hoodsnap.replay.mysqld import functions, sql, variables
from hoodsnap.replay.mysqld.mysqld_error import (
    MySQLError,
    no_database,
    no_table,
    none_selected,
    of_sqlite,
)
from hoodsnap.replay.mysqld.tables import Column, RecordedTables
from hoodsnap.replay.recording import UNREADABLE, NotRecordedError, Recording

_TEXT = "varchar(255)"

_WRITES = frozenset(
    (
        *("alter", "analyze", "call", "create", "delete", "do", "drop", "flush", "grant"),
        *("insert", "kill", "load", "lock", "optimize", "purge", "rename", "repair", "replace"),
        *("reset", "revoke", "truncate", "unlock", "update"),
    )
)
"""First words of statements that change a server. Statements with other first words than these and
those that are answered are not supported."""

MOST_ROWS = 1_000_000
"""Largest number of rows in one answer."""


@dataclass
class QueryResult:
    """Columns and rows of an answer."""

    columns: tuple[Column, ...]
    rows: Iterable[Iterable[object]]


class ReplayedDatabase:
    """Recorded databases of one nova, which answer SQL statements."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._tables = RecordedTables(recording)
        self.version = self._version()
        self._recorded = {
            answer.query: answer.value
            for answer in recording.asked("nova-db", "SELECT ")
            if _is_table(answer.value)
        }
        functions.teach(self._tables.sqlite, self._now(), self.version)

    def _version(self) -> str:
        value: Any = self._recording.value("nova-db", "SELECT VERSION()")
        try:
            return clean(str(value["rows"][0][0]))[:60]
        except UNREADABLE:
            raise NotRecordedError("the recorded database version can't be read") from None

    def _now(self) -> datetime:
        """Return the last recorded time of the database's clock, else the end of the recording."""
        try:
            value: Any = self._recording.value("nova-db", "SELECT UTC_TIMESTAMP(6)")
            return moment(value["rows"][0][0]) or self._recording.bundle.ended
        except (NotRecordedError, *UNREADABLE):
            return self._recording.bundle.ended

    def ask(self, statement: str, database: str | None) -> QueryResult | str | None:
        """Answer one statement: return rows, the name of the new current database, or None if the
        answer is empty. Raises `MySQLError`."""
        words = sql.tokens(statement)
        while words and words[-1].text == ";":
            words.pop()
        if any(word.text == ";" for word in words):
            raise MySQLError(1064, "42000", "hoodsnap: send one statement at a time")
        if not words:
            raise MySQLError(1065, "42000", "Query was empty")
        try:
            if (exact := self._exactly(statement)) is not None:
                return exact
            return self._answer(words, statement, database)
        except NotRecordedError as reason:
            self._recording.miss("mysql", str(reason))
            raise MySQLError(1105, "HY000", f"hoodsnap: {reason}") from None
        except UNREADABLE as error:
            text = f"hoodsnap: the statement, or its recorded answer, can't be read ({error})"
            raise MySQLError(1105, "HY000", text) from None

    def _exactly(self, statement: str) -> QueryResult | None:
        """Return the recorded answer to the same statement, if all columns it names were kept."""
        answer = self._recorded.get(" ".join(statement.split()).rstrip("; "))
        if answer is None:
            return None
        columns, rows = answer["columns"], answer["rows"]
        listed = re.match(r"SELECT (.*?) FROM ", statement)
        names = [name.strip(" `") for name in listed[1].split(",")] if listed else columns
        if names != columns:
            return None
        found = [tuple(row) for row in rows]
        typed = [Column(str(name), "") for name in columns]
        return QueryResult(tuple(map(_guessed, typed, _columnwise(found, len(typed)))), found)

    def _answer(
        self, words: list[sql.Token], statement: str, database: str | None
    ) -> QueryResult | str | None:
        first = words[0].word
        if first == "use":
            return self.use(sql.text_of(words[1]) if len(words) > 1 else "")
        if first in ("set", "begin", "start", "commit", "rollback"):
            return None
        if first == "show":
            return self._show(words, database)
        if first in ("desc", "describe") or (first == "explain" and len(words) < 5):
            return self._describe(words[1:], database)
        if first in ("select", "with") or words[0].text == "(":
            return self._select(sql.labeled(words, statement), database)
        if first not in _WRITES:
            self._recording.miss("mysql", f"{first.upper()}, which is not supported")
            raise MySQLError(1064, "42000", f"hoodsnap: {first.upper()} is not supported")
        text = (
            "The MariaDB server is running with the --read-only option so it cannot execute"
            f" this statement: hoodsnap: {first.upper()} can't change a recording"
        )
        self._recording.miss("mysql", f"{first.upper()}, which can't change a recording")
        raise MySQLError(1290, "HY000", text)

    def use(self, name: str) -> str:
        """Return the name if it is a database that can become the current one.

        Raises `MySQLError`.
        """
        if name not in self._tables.databases:
            raise no_database(name)
        return name

    def _show(self, words: list[sql.Token], database: str | None) -> QueryResult:
        asked = [word.word for word in words[1:] if word.word not in ("full", "global", "session")]
        full = any(word.word == "full" for word in words[1:])
        what = asked[0] if asked else ""
        if what in ("databases", "schemas"):
            known: Any = self._recording.value("nova-db", "SHOW DATABASES")
            return self._like(words, _column("Database"), [str(row[0]) for row in known["rows"]])
        if what == "tables":
            return self._show_tables(words, database, full)
        if what == "create" and asked[1:2] == ["table"]:
            table = self._table(words[3:], database)
            columns = (_column("Table"), _column("Create Table"))
            return QueryResult(columns, [(self._place(words[3:], database)[1], table.definition)])
        if what in ("columns", "fields") and not full:
            start = next((i for i, word in enumerate(words) if word.word in ("from", "in")), 0)
            return self._describe(words[start + 1 :], database)
        if what in ("warnings", "errors"):
            found = ("Level", _TEXT), ("Code", "int"), ("Message", _TEXT)
            return QueryResult(tuple(_column(name, kind) for name, kind in found), [])
        if what == "variables":
            settings = {name: value.strip("'") for name, value in variables.SETTINGS.items()}
            known = {**settings, "version": self.version}
            listed = self._like(words, _column("Variable_name"), [*known], [*known.values()])
            if not listed.rows:
                # An empty list would mean that the server has no such variable.
                raise NotRecordedError(f"SHOW {' '.join(asked).upper()} was not recorded")
            return listed
        raise NotRecordedError(f"SHOW {' '.join(asked).upper()} was not recorded")

    def _like(
        self,
        words: list[sql.Token],
        column: Column,
        names: list[str],
        values: list[str] | None = None,
    ) -> QueryResult:
        pattern = words[-1] if len(words) > 2 and words[-2].word == "like" else None
        matches = _matcher(sql.text_of(pattern)) if pattern else (lambda name: True)
        columns = [column] if values is None else [column, _column("Value")]
        if pattern is not None and values is None:
            columns = [Column(f"{column.name} ({sql.text_of(pattern)})", column.type, True)]
        rows = zip(names, *([] if values is None else [values]), strict=True)
        return QueryResult(tuple(columns), [row for row in rows if matches(row[0])])

    def _show_tables(self, words: list[sql.Token], database: str | None, full: bool) -> QueryResult:
        for before, word in itertools.pairwise(words):
            if before.word in ("from", "in"):
                database = sql.text_of(word)
        if database is None:
            raise none_selected()
        if database not in self._tables.databases:
            raise no_database(database)
        names = list(self._tables.names(database))
        found = self._like(words, _column(f"Tables_in_{database}"), names)
        if full:
            typed = (*found.columns, _column("Table_type"))
            return QueryResult(typed, [(*row, "BASE TABLE") for row in found.rows])
        return found

    def _describe(self, words: list[sql.Token], database: str | None) -> QueryResult:
        table = self._table(words, database)
        if table.described is None:
            place = ".".join(self._place(words, database))
            raise NotRecordedError(f"SHOW COLUMNS FROM {place} was not recorded")
        names = ("Field", "Type", "Null", "Key", "Default", "Extra")
        columns = tuple(Column(name, _TEXT, name != "Default") for name in names)
        return QueryResult(columns, table.described)

    def _place(self, words: list[sql.Token], database: str | None) -> tuple[str, str]:
        names = [sql.text_of(word) for word in words if word.text != "."]
        if len(words) > 1 and words[1].text == "." and len(names) > 1:
            return names[0], names[1]
        if database is None:
            raise none_selected()
        return database, names[0] if names else ""

    def _table(self, words: list[sql.Token], database: str | None) -> Any:
        place = self._place(words, database)
        found = self._tables.tables.get(place)
        if found is None:
            raise self._no_table(*place)
        return found

    def _no_table(self, database: str, name: str) -> MySQLError | NotRecordedError:
        if (why := self._tables.unlike.get((database, name))) is not None:
            return NotRecordedError(f"the table {database}.{name} can't be queried: {why}")
        try:
            if name in self._tables.names(database):
                return NotRecordedError(f"the table {database}.{name} was not recorded")
        except NotRecordedError as reason:
            return reason
        return no_table(f"{database}.{name}")

    def _select(self, words: list[sql.Token], database: str | None) -> QueryResult:
        words = [*variables.put_in(words, self.version, database)]
        defined = {
            sql.text_of(word).lower()
            for word, after in itertools.pairwise(words)
            if after.word == "as" and words[0].word == "with"
        }

        def place(name: str) -> str | None:
            if name.lower() in defined:
                return None
            if database is None:
                raise none_selected()
            if (database, name) not in self._tables.tables:
                raise self._no_table(database, name)
            if (database, name) in self._tables.unlike:
                raise self._no_table(database, name)
            return database

        try:
            statement = sql.translated(words, place)
            columns, cursor = self._tables.select(statement)
            rows = cursor.fetchmany(MOST_ROWS + 1)
        except sql.UnsupportedSqlError as reason:
            raise MySQLError(1064, "42000", f"hoodsnap: {reason} is not supported") from None
        except sqlite3.Error as error:
            if found := re.match(r"no such table: ([^.]+)\.(.+)", str(error), re.DOTALL):
                raise self._no_table(found[1], found[2]) from None
            clause = "SELECT" if "MariaDB" in self.version else "field list"
            raise of_sqlite(error, clause) from None
        if len(rows) > MOST_ROWS:
            raise MySQLError(1104, "42000", f"hoodsnap: the result has more than {MOST_ROWS} rows")
        return QueryResult(tuple(map(_guessed, columns, _columnwise(rows, len(columns)))), rows)

    def columns(self, database: str | None, name: str) -> tuple[Column, ...]:
        """Return the columns of a table; empty if the table does not exist."""
        table = self._tables.tables.get((database or "", name))
        return tuple(table.columns.values()) if table is not None else ()


def _column(name: str, kind: str = _TEXT) -> Column:
    return Column(name, kind, True)


def _matcher(pattern: str) -> Any:
    expression = "".join(
        {"%": ".*", "_": "."}.get(char, re.escape(char)) for char in pattern.replace("\\_", "_")
    )
    compiled = re.compile(expression, re.IGNORECASE | re.DOTALL)
    return compiled.fullmatch


def _is_table(value: object) -> bool:
    """True if a recorded answer has columns, and rows with as many cells."""
    if not isinstance(value, dict):
        return False
    columns, rows = value.get("columns"), value.get("rows")
    return (
        isinstance(columns, list)
        and isinstance(rows, list)
        and all(isinstance(row, list) and len(row) == len(columns) for row in rows)
    )


def _columnwise(rows: list[tuple[object, ...]], count: int) -> list[list[object]]:
    sample = rows[:50]
    return [[row[number] for row in sample] for number in range(count)]


def _guessed(column: Column, values: list[object]) -> Column:
    """Return the column with a type; the type of an expression is derived from its values."""
    if column.type:
        return column
    if re.match(r"avg\s*\(", column.name, re.IGNORECASE):
        return Column(column.name, "decimal")
    present = [value for value in values if value is not None]
    counts = bool(present) and len(present) == len(values)
    if present and all(isinstance(value, int) for value in present):
        return Column(column.name, "bigint", counts)
    if present and all(isinstance(value, int | float) for value in present):
        return Column(column.name, "double")
    return Column(column.name, _TEXT)
