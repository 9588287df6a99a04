"""Stand-in for a MariaDB server: MySQL's client protocol over recorded tables.

It speaks only the text protocol, which is enough for mysql, PyMySQL, SQLAlchemy and MySQL's own
connector for Python.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

from hoodsnap.printable import clean
from hoodsnap.replay.mysqld import packets
from hoodsnap.replay.mysqld.database import QueryResult, ReplayedDatabase
from hoodsnap.replay.mysqld.mysqld_error import MySQLError
from hoodsnap.replay.recording import UNREADABLE, Recording

# Commands of the client protocol.
_QUIT, _INIT_DB, _QUERY, _FIELD_LIST, _STATISTICS, _PING = 1, 2, 3, 4, 9, 14
_PREPARE, _SET_OPTION, _RESET = 22, 27, 31


async def refuse_on(listener: socket.socket, why: str) -> asyncio.Server:
    """Refuse every client with an error that gives the reason."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = packets.Wire(reader, writer)
        # Before the client has sent its capabilities, an error has no SQL state.
        wire.put(b"\xff" + struct.pack("<H", 1105) + f"hoodsnap: {clean(why)}".encode()[:512])
        with contextlib.suppress(ConnectionError):
            await wire.send()
            writer.close()

    return await asyncio.start_server(refuse, sock=listener)


class Mysqld:
    """Stand-in for the database server of one recorded nova."""

    def __init__(self, recording: Recording) -> None:
        self._database = ReplayedDatabase(recording)

    async def serve(self, path: str) -> asyncio.Server:
        """Listen on a UNIX socket."""
        return await asyncio.start_unix_server(self._client, path)

    async def serve_on(self, listener: socket.socket) -> asyncio.Server:
        """Answer on a socket that is already listening."""
        return await asyncio.start_server(self._client, sock=listener)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = _Session(self._database, packets.Wire(reader, writer))
        try:
            await session.run()
        except (asyncio.IncompleteReadError, ConnectionError, *UNREADABLE):
            pass  # the client disconnected, or does not speak the protocol
        finally:
            writer.close()


class _Session:
    """Session of one client, from its login until it quits."""

    def __init__(self, server: ReplayedDatabase, wire: packets.Wire) -> None:
        self._server = server
        self._wire = wire
        self._current: str | None = None
        """Name of the current database; None if none was selected."""

    async def run(self) -> None:
        """Answer commands until the client quits."""
        await self._greet()
        while True:
            packet = await self._wire.receive()
            if not packet or packet[0] == _QUIT:
                return
            try:
                self._command(packet[0], packet[1:])
            except MySQLError as refusal:
                self._wire.put(refusal.encoded)
            except (asyncio.IncompleteReadError, ConnectionError):
                raise
            except Exception as error:  # the net around each command
                what = type(error).__name__
                text = f"hoodsnap: the recorded answer can't be read ({what})"
                self._wire.put(MySQLError(1105, "HY000", text).encoded)
            await self._wire.send()

    async def _greet(self) -> None:
        self._wire.put(packets.greeting(self._server.version))
        await self._wire.send()
        name, plugin = packets.login(await self._wire.receive())
        try:
            if plugin == b"caching_sha2_password":
                self._wire.put(b"\x01\x03")  # accept any password
            if name:
                self._current = self._server.use(name)
            self._wire.put(packets.OK)
        except MySQLError as refusal:
            self._wire.put(refusal.encoded)
        await self._wire.send()

    def _command(self, command: int, rest: bytes) -> None:
        if command == _INIT_DB:
            self._current = self._server.use(rest.decode(errors="replace"))
            self._wire.put(packets.OK)
        elif command in (_PING, _RESET):
            self._wire.put(packets.OK)
        elif command == _SET_OPTION:
            self._wire.put(packets.END)
        elif command == _STATISTICS:
            self._wire.put(b"hoodsnap: a recording")
        elif command == _FIELD_LIST:
            self._field_list(rest.split(b"\0")[0].decode(errors="replace"))
        elif command == _QUERY:
            self._query(rest.decode(errors="replace"))
        elif command == _PREPARE:
            text = (
                "hoodsnap: prepared statements are not supported: let the client insert its"
                " parameters"
            )
            raise MySQLError(1295, "HY000", text)
        else:
            raise MySQLError(1047, "08S01", f"hoodsnap: command {command} is not supported")

    def _field_list(self, table: str) -> None:
        for column in self._server.columns(self._current, table):
            self._wire.put(packets.definition(column, self._current) + b"\xfb")
        self._wire.put(packets.END)

    def _query(self, statement: str) -> None:
        found = self._server.ask(statement, self._current)
        if not isinstance(found, QueryResult):
            self._current = found or self._current
            self._wire.put(packets.OK)
            return
        self._wire.put(packets.count(len(found.columns)))
        for column in found.columns:
            self._wire.put(packets.definition(column, self._current))
        self._wire.put(packets.END)
        for row in found.rows:
            self._wire.put(packets.row(row))
        self._wire.put(packets.END)
