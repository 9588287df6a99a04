"""A MariaDB server that knows what was recorded: MySQL's client protocol over recorded tables.

Statements that look are answered from recorded rows, definitions and lists; everything else is
refused as by a server that may only be read. The text protocol is all that clients use for this
(mysql, PyMySQL, SQLAlchemy, MySQL's own connector for Python).

The protocol is described in MariaDB's documentation, "Client/Server Protocol".
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import socket
import sqlite3
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from hoodsnap.replay import sql
from hoodsnap.replay.recording import UNREADABLE, NotRecorded, Recording, plain
from hoodsnap.replay.tables import Column, RecordedTables

# What this server can do, in the protocol's bits.
_LONG_PASSWORD, _FOUND_ROWS, _LONG_FLAG, _WITH_DATABASE = 0x1, 0x2, 0x4, 0x8
_PROTOCOL_41, _TRANSACTIONS, _SECURE, _PLUGINS, _LENGTH_CODED = (
    0x200,
    0x2000,
    0x8000,
    0x80000,
    0x200000,
)
_CAPABILITIES = (
    _LONG_PASSWORD
    | _FOUND_ROWS
    | _LONG_FLAG
    | _WITH_DATABASE
    | _PROTOCOL_41
    | _TRANSACTIONS
    | _SECURE
    | _PLUGINS
    | _LENGTH_CODED
)
_AUTOCOMMIT = 2

LARGEST_PACKET = 0xFFFFFF
LARGEST_STATEMENT = 1 << 24

# Its commands.
_QUIT, _INIT_DB, _QUERY, _FIELD_LIST, _STATISTICS, _PING = 1, 2, 3, 4, 9, 14
_PREPARE, _SET_OPTION, _RESET = 22, 27, 31

_TEXT = "varchar(255)"

# Its types of columns: number, charset (63: binary), length, flags.
_TYPES = {
    "tinyint": (1, 4),
    "smallint": (2, 6),
    "mediumint": (9, 9),
    "int": (3, 11),
    "bigint": (8, 20),
    "float": (4, 12),
    "double": (5, 22),
    "decimal": (246, 20),
    "datetime": (12, 26),
    "timestamp": (7, 26),
    "date": (10, 10),
    "time": (11, 10),
    "text": (252, 65535),
    "mediumtext": (252, 16777215),
    "longtext": (252, 4294967295),
}
_NUMERIC = frozenset(
    ["tinyint", "smallint", "mediumint", "int", "bigint", "float", "double", "decimal"]
)


@dataclass(eq=False)
class Refusal(Exception):
    """An error as a server sends it."""

    number: int
    state: str
    text: str


@dataclass
class Result:
    """Columns and rows."""

    columns: tuple[Column, ...]
    rows: Iterable[Iterable[object]]


async def refuse_on(listener: socket.socket, why: str) -> asyncio.Server:
    """Say to every client that there is no database, and why."""

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = _Session()
        # Before it has said what it speaks a client takes no state of SQL.
        _send(session, b"\xff" + struct.pack("<H", 1105) + f"hoodsnap: {plain(why)}".encode()[:512])
        with contextlib.suppress(ConnectionError):
            writer.write(session.out)
            await writer.drain()
            writer.close()

    return await asyncio.start_server(refuse, sock=listener)


@dataclass
class _Session:
    database: str | None = None
    sequence: int = 0
    out: bytearray = field(default_factory=bytearray)


class Mysqld:
    """Answers for one recorded nova."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._tables = RecordedTables(recording)
        self.version = self._version()
        self._said = {
            answer.query: answer.value
            for answer in recording.asked("nova-db", "SELECT ")
            if _is_table(answer.value)
        }
        sql.teach(self._tables.sqlite, self._now(), self.version)

    async def serve(self, path: str) -> asyncio.Server:
        """Listen on a UNIX socket."""
        return await asyncio.start_unix_server(self._client, path)

    async def serve_on(self, listener: socket.socket) -> asyncio.Server:
        """Answer on a socket that listens already."""
        return await asyncio.start_server(self._client, sock=listener)

    def _version(self) -> str:
        value: Any = self._recording.value("nova-db", "SELECT VERSION()")
        try:
            return plain(str(value["rows"][0][0]))[:60]
        except UNREADABLE:
            raise NotRecorded("what was recorded as the database's version is none") from None

    def _now(self) -> datetime:
        """The database's clock when it was read last; else the end of the recording."""
        try:
            value: Any = self._recording.value("nova-db", "SELECT UTC_TIMESTAMP(6)")
            return datetime.fromisoformat(str(value["rows"][0][0])).replace(tzinfo=UTC)
        except (NotRecorded, *UNREADABLE):
            return self._recording.bundle.ended

    # Statements.

    def ask(self, statement: str, database: str | None) -> Result | str | None:
        """The answer to one statement: rows, the name of the database that is now the current one,
        or None where there is nothing to say. Raises `Refusal`."""
        words = sql.tokens(statement)
        while words and words[-1].text == ";":
            words.pop()
        if any(word.text == ";" for word in words):
            raise Refusal(1064, "42000", "hoodsnap: one statement at a time")
        if not words:
            raise Refusal(1065, "42000", "Query was empty")
        try:
            if (exact := self._exactly(statement)) is not None:
                return exact
            return self._answer(words, statement, database)
        except NotRecorded as reason:
            self._recording.miss("mysql", str(reason))
            raise Refusal(1105, "HY000", f"hoodsnap: {reason}") from None
        except UNREADABLE as error:
            text = f"hoodsnap: this, or what was recorded for it, can't be read ({error})"
            raise Refusal(1105, "HY000", text) from None

    def _exactly(self, statement: str) -> Result | None:
        """What was said to the same words, if what was kept of it are the columns asked for."""
        said = self._said.get(" ".join(statement.split()).rstrip("; "))
        if said is None:
            return None
        columns, rows = said["columns"], said["rows"]
        listed = re.match(r"SELECT (.*?) FROM ", statement)
        names = [name.strip(" `") for name in listed[1].split(",")] if listed else columns
        if names != columns:
            return None
        found = [tuple(row) for row in rows]
        typed = [Column(str(name), "") for name in columns]
        return Result(tuple(map(_guessed, typed, _columnwise(found, len(typed)))), found)

    def _answer(
        self, words: list[sql.Token], statement: str, database: str | None
    ) -> Result | str | None:
        first = words[0].word
        if first == "use":
            return self._use(sql.text_of(words[1]) if len(words) > 1 else "")
        if first in ("set", "begin", "start", "commit", "rollback"):
            return None
        if first == "show":
            return self._show(words, database)
        if first in ("desc", "describe") or (first == "explain" and len(words) < 5):
            return self._describe(words[1:], database)
        if first in ("select", "with") or words[0].text == "(":
            return self._select(sql.labelled(words, statement), database)
        text = (
            "The MariaDB server is running with the --read-only option so it cannot execute"
            f" this statement: hoodsnap: this is a recording, {first.upper()} changes nothing here"
        )
        self._recording.miss("mysql", f"{first.upper()}: a recording can't be changed")
        raise Refusal(1290, "HY000", text)

    def _use(self, name: str) -> str:
        if name not in self._tables.databases:
            raise Refusal(1049, "42000", f"Unknown database '{name}'")
        return name

    def _show(self, words: list[sql.Token], database: str | None) -> Result:
        said = [word.word for word in words[1:] if word.word not in ("full", "global", "session")]
        full = any(word.word == "full" for word in words[1:])
        what = said[0] if said else ""
        if what in ("databases", "schemas"):
            known: Any = self._recording.value("nova-db", "SHOW DATABASES")
            return self._like(words, _column("Database"), [str(row[0]) for row in known["rows"]])
        if what == "tables":
            return self._show_tables(words, database, full)
        if what == "create" and said[1:2] == ["table"]:
            table = self._table(words[3:], database)
            columns = (_column("Table"), _column("Create Table"))
            return Result(columns, [(self._place(words[3:], database)[1], table.definition)])
        if what in ("columns", "fields") and not full:
            start = next((i for i, word in enumerate(words) if word.word in ("from", "in")), 0)
            return self._describe(words[start + 1 :], database)
        if what in ("warnings", "errors"):
            found = ("Level", _TEXT), ("Code", "int"), ("Message", _TEXT)
            return Result(tuple(_column(name, kind) for name, kind in found), [])
        if what == "variables":
            said_of_itself = {name: value.strip("'") for name, value in _SETTINGS.items()}
            known = {**said_of_itself, "version": self.version}
            listed = self._like(words, _column("Variable_name"), [*known], [*known.values()])
            if not listed.rows:
                # An empty list would say that the server has no such variable.
                raise NotRecorded(f"SHOW {' '.join(said).upper()} was not recorded")
            return listed
        raise NotRecorded(f"SHOW {' '.join(said).upper()} was not recorded")

    def _like(
        self,
        words: list[sql.Token],
        column: Column,
        names: list[str],
        values: list[str] | None = None,
    ) -> Result:
        pattern = words[-1] if len(words) > 2 and words[-2].word == "like" else None
        matches = _matcher(sql.text_of(pattern)) if pattern else (lambda name: True)
        columns = [column] if values is None else [column, _column("Value")]
        if pattern is not None and values is None:
            columns = [Column(f"{column.name} ({sql.text_of(pattern)})", column.type, True)]
        rows = zip(names, *([] if values is None else [values]), strict=True)
        return Result(tuple(columns), [row for row in rows if matches(row[0])])

    def _show_tables(self, words: list[sql.Token], database: str | None, full: bool) -> Result:
        for before, word in itertools.pairwise(words):
            if before.word in ("from", "in"):
                database = sql.text_of(word)
        if database is None:
            raise Refusal(1046, "3D000", "No database selected")
        if database not in self._tables.databases:
            raise Refusal(1049, "42000", f"Unknown database '{database}'")
        names = list(self._tables.names(database))
        found = self._like(words, _column(f"Tables_in_{database}"), names)
        if full:
            typed = (*found.columns, _column("Table_type"))
            return Result(typed, [(*row, "BASE TABLE") for row in found.rows])
        return found

    def _describe(self, words: list[sql.Token], database: str | None) -> Result:
        table = self._table(words, database)
        if table.described is None:
            place = ".".join(self._place(words, database))
            raise NotRecorded(f"SHOW COLUMNS FROM {place} was not recorded")
        names = ("Field", "Type", "Null", "Key", "Default", "Extra")
        columns = tuple(Column(name, _TEXT, name != "Default") for name in names)
        return Result(columns, table.described)

    def _place(self, words: list[sql.Token], database: str | None) -> tuple[str, str]:
        names = [sql.text_of(word) for word in words if word.text != "."]
        if len(words) > 1 and words[1].text == "." and len(names) > 1:
            return names[0], names[1]
        if database is None:
            raise Refusal(1046, "3D000", "No database selected")
        return database, names[0] if names else ""

    def _table(self, words: list[sql.Token], database: str | None) -> Any:
        place = self._place(words, database)
        found = self._tables.tables.get(place)
        if found is None:
            raise self._no_table(*place)
        return found

    def _no_table(self, database: str, name: str) -> Refusal | NotRecorded:
        if (why := self._tables.unlike.get((database, name))) is not None:
            return NotRecorded(f"the table {database}.{name} can't be asked: {why}")
        try:
            if name in self._tables.names(database):
                return NotRecorded(f"the table {database}.{name} was not recorded")
        except NotRecorded as reason:
            return reason
        return Refusal(1146, "42S02", f"Table '{database}.{name}' doesn't exist")

    def _select(self, words: list[sql.Token], database: str | None) -> Result:
        words = [*_variables(words, self.version, database)]
        defined = {
            sql.text_of(word).lower()
            for word, after in itertools.pairwise(words)
            if after.word == "as" and words[0].word == "with"
        }

        def place(name: str) -> str | None:
            if name.lower() in defined:
                return None
            if database is None:
                raise Refusal(1046, "3D000", "No database selected")
            if (database, name) not in self._tables.tables:
                raise self._no_table(database, name)
            if (database, name) in self._tables.unlike:
                raise self._no_table(database, name)
            return database

        try:
            statement = sql.translated(words, database, place)
            columns, cursor = self._tables.select(statement)
            rows = cursor.fetchall()
        except sql.NotUnderstood as reason:
            raise Refusal(1064, "42000", f"hoodsnap: {reason} is not understood here") from None
        except sqlite3.Error as error:
            if found := re.match(r"no such table: ([^.]+)\.(.+)", str(error), re.DOTALL):
                raise self._no_table(found[1], found[2]) from None
            raise _refused(error, "SELECT" if "MariaDB" in self.version else "field list") from None
        return Result(tuple(map(_guessed, columns, _columnwise(rows, len(columns)))), rows)

    # The protocol.

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = _Session()
        try:
            await self._greet(session, reader, writer)
            while True:
                packet = await _packet(session, reader)
                if not packet or packet[0] == _QUIT:
                    break
                try:
                    self._command(session, packet[0], packet[1:])
                except Refusal as refusal:
                    _send(session, _error(refusal))
                writer.write(session.out)
                session.out = bytearray()
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, *UNREADABLE):
            pass  # the client has gone, or is none
        finally:
            writer.close()

    async def _greet(
        self, session: _Session, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        salt = b"hoodsnap", b"a recording."
        # Clients take a first digit beyond 5 for a version that they don't speak.
        version = ("5.5.5-" if "MariaDB" in self.version else "") + self.version
        _send(
            session,
            b"\x0a"
            + version.encode()
            + b"\0"
            + struct.pack("<I", 1)
            + salt[0]
            + b"\0"
            + struct.pack("<HBHH", _CAPABILITIES & 0xFFFF, 33, _AUTOCOMMIT, _CAPABILITIES >> 16)
            + bytes([21])
            + b"\0" * 10
            + salt[1]
            + b"\0mysql_native_password\0",
        )
        writer.write(session.out)
        session.out = bytearray()
        await writer.drain()
        packet = await _packet(session, reader)
        name, plugin = _login(packet)
        try:
            if plugin == b"caching_sha2_password":
                _send(session, b"\x01\x03")  # the password is right, whichever it is
            if name:
                session.database = self._use(name)
            _send(session, _OK)
        except Refusal as refusal:
            _send(session, _error(refusal))
        writer.write(session.out)
        session.out = bytearray()
        await writer.drain()

    def _command(self, session: _Session, command: int, rest: bytes) -> None:
        if command == _INIT_DB:
            session.database = self._use(rest.decode(errors="replace"))
            _send(session, _OK)
        elif command in (_PING, _RESET):
            _send(session, _OK)
        elif command == _SET_OPTION:
            _send(session, _EOF)
        elif command == _STATISTICS:
            _send(session, b"hoodsnap: a recording")
        elif command == _FIELD_LIST:
            self._field_list(session, rest.split(b"\0")[0].decode(errors="replace"))
        elif command == _QUERY:
            self._query(session, rest.decode(errors="replace"))
        elif command == _PREPARE:
            text = "hoodsnap: no prepared statements here: let the client put in its parameters"
            raise Refusal(1295, "HY000", text)
        else:
            raise Refusal(1047, "08S01", f"hoodsnap: command {command} is not spoken here")

    def _field_list(self, session: _Session, name: str) -> None:
        table = self._tables.tables.get((session.database or "", name))
        for column in table.columns.values() if table else ():
            _send(session, _definition(column, session.database) + b"\xfb")
        _send(session, _EOF)

    def _query(self, session: _Session, statement: str) -> None:
        found = self.ask(statement, session.database)
        if not isinstance(found, Result):
            session.database = found or session.database
            _send(session, _OK)
            return
        _send(session, _length(len(found.columns)))
        for column in found.columns:
            _send(session, _definition(column, session.database))
        _send(session, _EOF)
        for row in found.rows:
            _send(session, b"".join(b"\xfb" if cell is None else _coded(cell) for cell in row))
        _send(session, _EOF)


_OK = b"\0\0\0" + struct.pack("<HH", _AUTOCOMMIT, 0)
_EOF = b"\xfe" + struct.pack("<HH", 0, _AUTOCOMMIT)


def _send(session: _Session, packet: bytes) -> None:
    while True:
        part, packet = packet[:LARGEST_PACKET], packet[LARGEST_PACKET:]
        session.out += struct.pack("<I", len(part))[:3] + bytes([session.sequence]) + part
        session.sequence = (session.sequence + 1) & 0xFF
        if len(part) < LARGEST_PACKET:
            return


async def _packet(session: _Session, reader: asyncio.StreamReader) -> bytes:
    whole = b""
    while True:
        header = await reader.readexactly(4)
        size = int.from_bytes(header[:3], "little")
        session.sequence = (header[3] + 1) & 0xFF
        whole += await reader.readexactly(size)
        if len(whole) > LARGEST_STATEMENT:
            raise ValueError("the statement is too long")
        if size < LARGEST_PACKET:
            return whole


def _login(packet: bytes) -> tuple[str, bytes]:
    """The database and the method of a client's first packet."""
    (capabilities,) = struct.unpack_from("<I", packet)
    at = packet.index(b"\0", 32) + 1
    at += 1 + packet[at] if capabilities & (_LENGTH_CODED | _SECURE) else packet.index(b"\0", at)
    database = b""
    if capabilities & _WITH_DATABASE:
        database, _, rest = packet[at:].partition(b"\0")
        at = len(packet) - len(rest)
    plugin = packet[at:].split(b"\0")[0] if capabilities & _PLUGINS else b""
    return database.decode(errors="replace"), plugin


def _error(refusal: Refusal) -> bytes:
    return (
        b"\xff"
        + struct.pack("<H", refusal.number)
        + b"#"
        + refusal.state.encode()
        + plain(refusal.text).encode()[:512]
    )


def _length(number: int) -> bytes:
    if number < 251:
        return bytes([number])
    if number < 1 << 16:
        return b"\xfc" + struct.pack("<H", number)
    if number < 1 << 24:
        return b"\xfd" + struct.pack("<I", number)[:3]
    return b"\xfe" + struct.pack("<Q", number)


def _coded(value: object) -> bytes:
    text = _shown(value)
    try:
        data = text.encode(errors="surrogateescape")
    except UnicodeError:
        data = text.encode(errors="replace")
    return _length(len(data)) + data


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.15g}"
    return str(value)


def _definition(column: Column, database: str | None) -> bytes:
    base = re.match(r"\w*", column.type)
    name = base[0].lower() if base else ""
    kind, length = _TYPES.get(name, (253, 765))
    numeric = name in _NUMERIC
    flags = int(column.required) | (0x8000 if numeric else 0)
    charset = 33 if kind in (252, 253) else 63
    decimals = 31 if name in ("float", "double") else 0
    names = (
        b"def",
        (database or "").encode(errors="replace"),
        b"",
        b"",
        column.name.encode(errors="replace"),
        column.name.encode(errors="replace"),
    )
    return (
        b"".join(_length(len(part)) + part for part in names)
        + b"\x0c"
        + struct.pack("<HIBHBH", charset, length, kind, flags, decimals, 0)
    )


def _column(name: str, kind: str = _TEXT) -> Column:
    return Column(name, kind, True)


def _matcher(pattern: str) -> Any:
    expression = "".join(
        {"%": ".*", "_": "."}.get(char, re.escape(char)) for char in pattern.replace("\\_", "_")
    )
    compiled = re.compile(expression, re.IGNORECASE | re.DOTALL)
    return compiled.fullmatch


_SETTINGS = {
    "version_comment": "'hoodsnap: a recording'",
    "max_allowed_packet": "16777216",
    "read_only": "1",
    "lower_case_table_names": "0",
    "transaction_isolation": "'REPEATABLE-READ'",
    "tx_isolation": "'REPEATABLE-READ'",
    "sql_mode": "''",
    "autocommit": "1",
    "character_set_connection": "'utf8mb3'",
    "collation_connection": "'utf8mb3_general_ci'",
    "default_storage_engine": "'InnoDB'",
    "session.transaction_isolation": "'REPEATABLE-READ'",
}
"""What this server itself is: it was not recorded of the other one, and clients want to know it."""


def _variables(words: list[sql.Token], version: str, database: str | None) -> Iterator[sql.Token]:
    """With what this server says of itself in the place of its variables."""
    index = 0
    while index < len(words):
        word = words[index]
        after = words[index + 1] if index + 1 < len(words) else sql.Token("sign", "")
        if word.kind == "variable" and word.text.startswith("@@"):
            name = re.sub(r"@@(?:(?:global|session)\.)?", "", word.text.lower())
            if name == "version":
                value = "'" + version.replace("'", "''") + "'"
            elif name in _SETTINGS:
                value = _SETTINGS[name]
            else:
                raise NotRecorded(f"the variable {name} was not recorded")
            yield sql.Token("number", value)
            if after.word != "as" and after.kind not in ("word", "name"):
                yield sql.Token("word", "AS")
                yield sql.Token("name", f"`{word.text}`")
        elif word.word in ("database", "schema") and after.text == "(":
            value = "NULL" if database is None else "'" + database.replace("'", "''") + "'"
            yield sql.Token("number", value)
            index += 2  # its parentheses
            if index + 1 >= len(words) or words[index + 1].text in (",",):
                yield sql.Token("word", "AS")
                yield sql.Token("name", f"`{word.text.upper()}()`")
        else:
            yield word
        index += 1


def _is_table(value: object) -> bool:
    """Whether a recorded answer has columns and rows of as many cells."""
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
    """A type for an expression, by what came out of it."""
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


def _refused(error: sqlite3.Error, clause: str) -> Refusal:
    text = str(error)
    if found := re.match(r"no such column: (\S+)", text):
        return Refusal(1054, "42S22", f"Unknown column '{found[1]}' in '{clause}'")
    if found := re.match(r"no such function: (\S+)", text):
        return Refusal(1305, "42000", f"hoodsnap: the function {found[1]} is not known here")
    if found := re.match(r"no such table: (\S+)", text):
        return Refusal(1146, "42S02", f"Table '{found[1]}' doesn't exist")
    if found := re.match(r"unknown database (\S+)", text):
        return Refusal(1049, "42000", f"Unknown database '{found[1]}'")
    if "ambiguous column name" in text:
        name = text.rpartition(" ")[2]
        return Refusal(1052, "23000", f"Column '{name}' in field list is ambiguous")
    return Refusal(1064, "42000", f"hoodsnap: {text}")
