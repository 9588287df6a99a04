"""A MySQL or MariaDB server: where it is, and one read-only snapshot of it.

Every statement goes through `Recorder.ask`; values are kept as the server sends them, which is text
for everything but whole numbers.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

from hoodsnap.bundle import Answer
from hoodsnap.collect.login import UNSENT, connect, option_file
from hoodsnap.collect.ownership import Owners, read_owned
from hoodsnap.collect.question import must_go_on
from hoodsnap.collect.recorder import Recorder, RefusedError
from hoodsnap.collect.uri import DATABASE_ACCOUNTS, must_be_socket_of
from hoodsnap.keep.secret import OF_A_VALUE
from hoodsnap.keep.tables import Rows

LAYER = "nova-db"

LARGEST = 64 << 20
"""Bytes of rows in one answer."""

# Each gives up before the next one would: the server, the socket, the recorder.
_STATEMENT_TIME = 20
_READ_TIME = 25.0
_PATIENCE = 30.0
_CONNECT_TIME = 5
_LOGIN_TIME = 8.0
"""Seconds for each answer at the login. A server that is frozen takes the connection and no more,
and has up to three addresses."""

_TOO_SLOW = 3
"""Statements that may run into the server's time limit before no more are sent."""

_URL = re.compile(
    r"(?P<dialect>\w+)(?:\+\w+)?://"
    r"(?:(?P<user>[^:/]*)(?::(?P<password>[^@]*))?@)?"
    r"(?:\[(?P<ipv6>[^/?\]]+)\]|(?P<host>[^/:?]*))(?::(?P<port>\d*))?"
    r"(?:/(?P<database>[^?]*))?(?:\?(?P<query>.*))?"
)


@dataclass(frozen=True)
class Address:
    """Where a database is and who may read it."""

    host: str = "localhost"
    port: int = 3306
    socket: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    database: str = ""
    tls: Mapping[str, str] = field(default_factory=dict)
    named: bool = False
    """The operator named this server, so that the password of ~/.my.cnf may go there."""

    @classmethod
    def parse(cls, url: str, *, named: bool = False) -> Address:
        """Read SQLAlchemy's form of it: `mysql+pymysql://user:password@host:3306/nova?charset=utf8`.

        Raises `RefusedError` (`missing`) whose text never holds the URL, since that holds the
        password.
        """
        match = _URL.fullmatch(url.strip())
        if match is None or "@" in (match["host"] or ""):  # what follows may be half a password
            raise RefusedError(
                "missing", "the database URL can't be read: want mysql://user@host/name"
            )
        if match["dialect"] not in ("mysql", "mariadb"):
            raise RefusedError(
                "missing",
                f"the database is {match['dialect']}: only MySQL and MariaDB can be read",
            )
        options = dict(parse_qsl(match["query"] or ""))
        return cls(
            host=(match["ipv6"] or match["host"] or "localhost").lower(),
            port=int(match["port"] or 3306),
            socket=options.get("unix_socket", ""),
            user=unquote(match["user"] or ""),
            password=unquote(match["password"] or ""),
            database=match["database"] or "",
            tls={
                name: options[name] for name in ("ssl_ca", "ssl_cert", "ssl_key") if name in options
            },
            named=named,
        )

    def require_own_files(self, owners: Owners) -> None:
        """Raise `RefusedError` unless the files that a configuration's or a cell's URL names are
        the
        service's: a socket of root or the database's account, keys that only `owners` can write."""
        if self.socket and os.path.lexists(self.socket):  # else no server listens there
            must_be_socket_of(self.socket, DATABASE_ACCOUNTS)
        for path in self.tls.values():
            read_owned(path, owners)

    @property
    def server(self) -> str:
        """The server that it is on, as a person would name it."""
        return self.socket or f"{self.host}:{self.port}"


class DatabaseClient:
    """One connection to one server. May be used from several threads, one statement at a time."""

    def __init__(self, recorder: Recorder, address: Address, *, note: str = "") -> None:
        """Connects to nothing yet. `note` ends each statement, to tell one server from another."""
        self.address = address
        self._recorder = recorder
        self._note = note
        self._lock = threading.Lock()
        self._connection: Any = None  # pymysql.Connection; its types leave out what is needed
        self._given_up = ""
        self._slow = 0
        self._unused: RefusedError | None = None

    def open(self) -> bool:
        """Connect, and take the snapshot that all statements see. Asks for the server's version."""

        def version() -> object:
            self._connection = self._connected()
            self._begin()
            return self._read("SELECT VERSION()")

        found = self._ask("SELECT VERSION()", version)
        if (unused := self._unused) is not None:
            self._recorder.refuse("host", "ls -ld ~/.my.cnf", unused)
        return found.error is None

    def ask(self, statement: str, keep: Callable[[Rows], Rows] = lambda rows: rows) -> Answer:
        """Ask one statement. `keep` takes out of the rows what must not be kept."""
        return self._ask(statement, lambda: keep(self._read(statement)))

    def look_again(self) -> Answer:
        """Take a new snapshot, on a new connection if the old one was lost. Asks for the time."""
        statement = "SELECT UTC_TIMESTAMP(6)"

        def now() -> object:
            if self._connection is None:
                self._connection = self._connected()
            self._begin()
            return self._read(statement)

        with self._lock:
            if self._given_up:
                self._connection, self._given_up, self._slow = None, "", 0
        return self._ask(statement, now)

    def close(self) -> None:
        """End the snapshot and the connection, unless an abandoned statement still uses it."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None and not self._given_up:
                self._given_up = "it was closed"
                connection.close()

    def _ask(self, statement: str, how: Callable[[], object]) -> Answer:
        ended = False

        def guarded() -> object:
            nonlocal ended
            try:
                if self._given_up:
                    raise RefusedError("unreachable", f"not asked: {self._given_up}")
                return how()
            finally:
                ended = True

        with self._lock:
            answer = self._recorder.ask(LAYER, statement + self._note, guarded, patience=_PATIENCE)
            if not ended:  # the statement still runs, and the connection is its own now
                self._given_up = f"the database at {self.address.server} did not answer in time"
        return answer

    def _connected(self) -> Any:
        import pymysql

        where = self.address
        own = self._option_file()
        tls = {name.replace("-", "_"): own[name] for name in own if name.startswith("ssl-")}
        try:
            connection = connect(
                host=where.host,
                port=where.port,
                unix_socket=where.socket or None,
                user=where.user or own.get("user") or None,
                password=where.password or own.get("password", ""),
                connect_timeout=_CONNECT_TIME,
                read_timeout=_LOGIN_TIME,
                write_timeout=_READ_TIME,
                charset="utf8mb4",
                use_unicode=False,  # bytes come, and `_plain` decides
                conv={},
                autocommit=None,
                **{**tls, **where.tls},
            )
            connection._read_timeout = _READ_TIME
            return connection
        except (pymysql.MySQLError, OSError, RuntimeError) as error:
            refusal = self._refusal(error)
            self._given_up = str(refusal)
            raise refusal from None

    def _option_file(self) -> Mapping[str, str]:
        """Return the settings of ~/.my.cnf, if they may be used for this server."""
        if self.address.password or not self.address.named:
            return {}
        try:
            return option_file()
        except RefusedError as refusal:
            self._unused = refusal
            return {}

    def _begin(self) -> None:
        """Begin the snapshot, under limits of time as far as this server knows them."""
        self._try("ROLLBACK")
        self._try("SET SESSION lock_wait_timeout = 5")
        # A collector that stopped must not keep its snapshot, for which a schema's change waits.
        self._try("SET SESSION wait_timeout = 300")
        self._try("SET SESSION sql_quote_show_create = 1")
        if not self._try(f"SET SESSION max_statement_time = {_STATEMENT_TIME}"):  # MariaDB 10.1
            self._try(f"SET SESSION max_execution_time = {_STATEMENT_TIME * 1000}")  # MySQL 5.7
        self._try("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        self._try("SET SESSION TRANSACTION READ ONLY")  # MySQL 5.6, MariaDB 10.0
        if not self._try("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"):
            self._try("START TRANSACTION WITH CONSISTENT SNAPSHOT")

    def _try(self, statement: str) -> bool:
        """Whether the server knows this statement."""
        try:
            self._read(statement)
        except RefusedError as refusal:
            if refusal.kind in ("unreachable", "timeout"):
                raise
            return False
        return True

    def _read(self, statement: str) -> Rows:
        import pymysql
        from pymysql.cursors import SSCursor

        connection = self._connection
        if connection is None:
            raise RefusedError("unreachable", "not asked: there is no connection")
        cursor = connection.cursor(SSCursor)
        try:
            cursor.execute(statement)
            rows = _rows(cursor)
            cursor.close()
            return rows
        except (pymysql.MySQLError, OSError, RuntimeError) as error:
            # PyMySQL raises a RuntimeError where the server asks for a file of ours.
            raise self._refusal(error, connection) from None
        except RefusedError:
            self._skip_the_rest(cursor, connection)
            raise

    def _skip_the_rest(self, cursor: Any, connection: Any) -> None:
        """Read to the end what the server still sends, or the next statement would get it."""
        import pymysql

        try:
            cursor.close()
        except (pymysql.MySQLError, OSError) as error:
            self._refusal(error, connection)

    def _refusal(self, error: Exception, connection: Any = None) -> RefusedError:
        """What an error of the driver means; a lost connection is not used again."""
        code, text = _said(error)
        where = self.address.server
        if code in _DENIED:
            return RefusedError("denied", text)
        if code in _ABSENT:
            return RefusedError("absent", text)
        if text == UNSENT:
            return RefusedError("denied", f"{where}: {text}")
        if code in _TIMEOUT:
            self._slow += 1
            if self._slow >= _TOO_SLOW:
                self._given_up = f"{where} ran into its limit of time {self._slow} times"
            return RefusedError("timeout", text)
        if (1000 <= code < 2000 or code >= 3000) and code not in _LOST:
            return RefusedError("failed", f"{text} (error {code})")
        if connection is self._connection:
            self._given_up = f"the connection to {where} was lost"
        if connection is not None and (unread := connection._result) is not None:
            # Or the driver looks for the rest of the rows on a socket that is gone.
            unread.unbuffered_active = False
        kind = "timeout" if "timed out" in text else "unreachable"
        return RefusedError(kind, f"{where}: {text}")


# Error numbers of MySQL and MariaDB. 2000 to 2999 are the driver's own, and mean a lost connection.
_DENIED = frozenset({1044, 1045, 1129, 1130, 1142, 1143, 1227, 1370, 1698})
_ABSENT = frozenset({1049, 1051, 1109, 1146})
_TIMEOUT = frozenset({1205, 1969, 3024})
_LOST = frozenset({1040, 1053, 1152, 1158, 1159, 1160, 1161, 1184, 1927, 4031})


def _said(error: Exception) -> tuple[int, str]:
    """The number (0: none) and the text of an error of the driver."""
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    text = str(error.args[1]) if len(error.args) > 1 else str(error)
    return code, text or type(error).__name__


_WHOLE = frozenset({1, 2, 3, 8, 9, 13})
"""MySQL's numbers for TINY, SHORT, LONG, LONGLONG, INT24 and YEAR."""
_BIT = 16


def _rows(cursor: Any) -> Rows:
    """All rows, as long as they are fewer than `LARGEST` bytes."""
    if cursor.description is None:
        return {"columns": [], "rows": []}
    types = [column[1] for column in cursor.description]
    rows, size = [], 0
    while (row := cursor.fetchone()) is not None:
        must_go_on()
        size += sum(OF_A_VALUE + len(value or b"") for value in row) + OF_A_VALUE
        if size > LARGEST:
            raise RefusedError("too-large", f"the rows have more than {LARGEST >> 20} MiB")
        rows.append([_plain(value, kind) for value, kind in zip(row, types, strict=True)])
    return {"columns": [column[0] for column in cursor.description], "rows": rows}


def _plain(value: bytes | None, kind: int) -> int | str | None:
    if value is None:
        return None
    if kind in _WHOLE:
        return int(value)
    if kind == _BIT:
        return int.from_bytes(value)
    return value.decode("utf-8", "surrogateescape")
