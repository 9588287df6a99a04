"""Database client: the address of a MySQL or MariaDB server, and one read-only snapshot of it.

Every statement goes through `Recorder.ask`. Values are kept as the server sends them: integers as
numbers, everything else as text.
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
from hoodsnap.collect.database_login import UNSENT, connect, option_file
from hoodsnap.collect.question import must_go_on
from hoodsnap.collect.recorder import Recorder, RefusedError
from hoodsnap.collect.trusted.ownership import Owners, read_owned
from hoodsnap.collect.trusted.uri import DATABASE_ACCOUNTS, must_be_socket_of
from hoodsnap.keep.secret import OF_A_VALUE
from hoodsnap.keep.tables import Rows

LAYER = "nova-db"

LARGEST = 64 << 20
"""Bytes of rows in one answer."""

# Increasing limits, so that each gives up before the next: the server, the socket, the recorder.
_STATEMENT_TIME = 20
_READ_TIME = 25.0
_PATIENCE = 30.0
_CONNECT_TIME = 5
_LOGIN_TIME = 8.0
"""Seconds for each answer during the login. A frozen server accepts the connection and then stays
silent, and it may have up to three addresses."""

_TOO_SLOW = 3
"""Number of statements that may hit the server's time limit; after that, no more are sent."""

_URL = re.compile(
    r"(?P<dialect>\w+)(?:\+\w+)?://"
    r"(?:(?P<user>[^:/]*)(?::(?P<password>[^@]*))?@)?"
    r"(?:\[(?P<ipv6>[^/?\]]+)\]|(?P<host>[^/:?]*))(?::(?P<port>\d*))?"
    r"(?:/(?P<database>[^?]*))?(?:\?(?P<query>.*))?"
)


@dataclass(frozen=True)
class Address:
    """Address of a database, and the account to log in with."""

    host: str = "localhost"
    port: int = 3306
    socket: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    database: str = ""
    tls: Mapping[str, str] = field(default_factory=dict)
    named: bool = False
    """True if the operator named this server, so the password of ~/.my.cnf may be sent to it."""

    @classmethod
    def parse(cls, url: str, *, named: bool = False) -> Address:
        """Parse SQLAlchemy's form: `mysql+pymysql://user:password@host:3306/nova?charset=utf8`.

        Raises `RefusedError` (`missing`). Its text never contains the URL, which may contain a
        password.
        """
        match = _URL.fullmatch(url.strip())
        if match is None or "@" in (match["host"] or ""):  # the host may be half a password
            raise RefusedError(
                "missing", "the database URL can't be read: it must be like mysql://user@host/name"
            )
        if match["dialect"] not in ("mysql", "mariadb"):
            raise RefusedError(
                "missing",
                f"the database is {match['dialect']}: only MySQL and MariaDB are supported",
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
        """Raise `RefusedError` if other accounts could have written the files that the URL names.

        The socket must belong to root or to the database's account, and only `owners` may be able
        to write the certificates and keys. For URLs in a configuration or in cell_mappings.
        """
        if self.socket and os.path.lexists(self.socket):  # without it, no server listens there
            must_be_socket_of(self.socket, DATABASE_ACCOUNTS)
        for path in self.tls.values():
            read_owned(path, owners)

    @property
    def server(self) -> str:
        """Name of the database server: its socket, or host and port."""
        return self.socket or f"{self.host}:{self.port}"


class DatabaseClient:
    """One connection to one server. May be used from several threads, one statement at a time."""

    def __init__(self, recorder: Recorder, address: Address, *, note: str = "") -> None:
        """Open no connection yet. `note` is appended to each statement, to tell servers apart."""
        self.address = address
        self._recorder = recorder
        self._note = note
        self._lock = threading.Lock()
        self._connection: Any = None  # pymysql.Connection, whose type hints are incomplete
        self._given_up = ""
        self._slow = 0
        self._unused: RefusedError | None = None

    def open(self) -> bool:
        """Connect, begin the snapshot that all statements see, and ask for the server's version.

        Return False if that failed; the reason is recorded.
        """

        def version() -> object:
            self._connection = self._connected()
            self._begin()
            return self._read("SELECT VERSION()")

        found = self._ask("SELECT VERSION()", version)
        if (unused := self._unused) is not None:
            self._recorder.refuse("host", "ls -ld ~/.my.cnf", unused)
        return found.error is None

    def ask(self, statement: str, keep: Callable[[Rows], Rows] = lambda rows: rows) -> Answer:
        """Send one statement. `keep` removes from the rows what must not be kept."""
        return self._ask(statement, lambda: keep(self._read(statement)))

    def look_again(self) -> Answer:
        """Begin a new snapshot and ask for the time; reconnect if the connection was lost."""
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
                self._given_up = f"the connection to {self.address.server} was closed"
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
            if not ended:  # the statement still runs and uses the connection
                self._given_up = (
                    f"the database server at {self.address.server} did not answer in time"
                )
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
                use_unicode=False,  # the driver returns bytes, which `_plain` converts
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
        """Return the settings in ~/.my.cnf, or none if they must not be used for this server."""
        if self.address.password or not self.address.named:
            return {}
        try:
            return option_file()
        except RefusedError as refusal:
            self._unused = refusal
            return {}

    def _begin(self) -> None:
        """Begin the snapshot, with the time limits that this server supports."""
        self._try("ROLLBACK")
        self._try("SET SESSION lock_wait_timeout = 5")
        # The snapshot of a stopped collector must end, because schema changes wait for it.
        self._try("SET SESSION wait_timeout = 300")
        self._try("SET SESSION sql_quote_show_create = 1")
        if not self._try(f"SET SESSION max_statement_time = {_STATEMENT_TIME}"):  # MariaDB 10.1
            self._try(f"SET SESSION max_execution_time = {_STATEMENT_TIME * 1000}")  # MySQL 5.7
        self._try("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        self._try("SET SESSION TRANSACTION READ ONLY")  # MySQL 5.6, MariaDB 10.0
        if not self._try("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"):
            self._try("START TRANSACTION WITH CONSISTENT SNAPSHOT")

    def _try(self, statement: str) -> bool:
        """Execute a statement. Return False if the server does not support it."""
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
            raise RefusedError("unreachable", f"not asked: no connection to {self.address.server}")
        cursor = connection.cursor(SSCursor)
        try:
            cursor.execute(statement)
            rows = _rows(cursor)
            cursor.close()
            return rows
        except (pymysql.MySQLError, OSError, RuntimeError) as error:
            # PyMySQL raises a RuntimeError if the server asks for one of our files.
            raise self._refusal(error, connection) from None
        except RefusedError:
            self._skip_the_rest(cursor, connection)
            raise

    def _skip_the_rest(self, cursor: Any, connection: Any) -> None:
        """Read the remaining rows to the end; otherwise the next statement would receive them."""
        import pymysql

        try:
            cursor.close()
        except (pymysql.MySQLError, OSError) as error:
            self._refusal(error, connection)

    def _refusal(self, error: Exception, connection: Any = None) -> RefusedError:
        """Return the refusal for an error of the driver. A lost connection is not used again."""
        code, text = _code_and_text(error)
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
                self._given_up = f"statements to {where} hit the time limit {self._slow} times"
            return RefusedError("timeout", text)
        if (1000 <= code < 2000 or code >= 3000) and code not in _LOST:
            return RefusedError("failed", f"{text} (error {code})")
        if connection is self._connection:
            self._given_up = f"the connection to {where} was lost"
        if connection is not None and (unread := connection._result) is not None:
            # Otherwise the driver looks for the remaining rows on a closed socket.
            unread.unbuffered_active = False
        kind = "timeout" if "timed out" in text else "unreachable"
        return RefusedError(kind, f"{where}: {text}")


# Error numbers of MySQL and MariaDB. 2000 to 2999 come from the driver and mean a lost connection.
_DENIED = frozenset({1044, 1045, 1129, 1130, 1142, 1143, 1227, 1370, 1698})
_ABSENT = frozenset({1049, 1051, 1109, 1146})
_TIMEOUT = frozenset({1205, 1969, 3024})
_LOST = frozenset({1040, 1053, 1152, 1158, 1159, 1160, 1161, 1184, 1927, 4031})


def _code_and_text(error: Exception) -> tuple[int, str]:
    """Return the number (0: none) and the text of an error of the driver."""
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    text = str(error.args[1]) if len(error.args) > 1 else str(error)
    return code, text or type(error).__name__


_WHOLE = frozenset({1, 2, 3, 8, 9, 13})
"""MySQL's type numbers for TINY, SHORT, LONG, LONGLONG, INT24 and YEAR."""
_BIT = 16


def _rows(cursor: Any) -> Rows:
    """Return all rows. Raises `RefusedError` if they have more than `LARGEST` bytes."""
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
