"""MySQL's packets, as described in MariaDB's documentation ("Client/Server Protocol")."""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import Iterable

from hoodsnap.replay.mysqld.tables import Column

# Capabilities of this server, as the protocol's bits.
_LONG_PASSWORD, _FOUND_ROWS, _LONG_FLAG, _WITH_DATABASE = 0x1, 0x2, 0x4, 0x8
_PROTOCOL_41, _TRANSACTIONS, _SECURE = 0x200, 0x2000, 0x8000
_PLUGINS, _LENGTH_CODED = 0x80000, 0x200000
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

# Column types: number and length.
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


class Wire:
    """Connection of one client. Packets are numbered in both directions."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._sequence = 0
        self._out = bytearray()

    def put(self, packet: bytes) -> None:
        """Queue a packet, in several parts if it is too long for one."""
        while True:
            part, packet = packet[:LARGEST_PACKET], packet[LARGEST_PACKET:]
            self._out += struct.pack("<I", len(part))[:3] + bytes([self._sequence]) + part
            self._sequence = (self._sequence + 1) & 0xFF
            if len(part) < LARGEST_PACKET:
                return

    async def send(self) -> None:
        """Send the queued packets."""
        self._writer.write(self._out)
        self._out = bytearray()
        await self._writer.drain()

    async def receive(self) -> bytes:
        """Return the next packet, joined from its parts. Raises `ValueError` if it is too long."""
        whole = b""
        while True:
            header = await self._reader.readexactly(4)
            size = int.from_bytes(header[:3], "little")
            self._sequence = (header[3] + 1) & 0xFF
            whole += await self._reader.readexactly(size)
            if len(whole) > LARGEST_STATEMENT:
                raise ValueError("the statement is too long")
            if size < LARGEST_PACKET:
                return whole


OK = b"\0\0\0" + struct.pack("<HH", _AUTOCOMMIT, 0)
END = b"\xfe" + struct.pack("<HH", 0, _AUTOCOMMIT)
"""Packet after the column definitions, and after the rows."""


def greeting(version: str) -> bytes:
    """Return a server's first packet."""
    salt = b"hoodsnap", b"a recording."
    # Clients reject a version whose first digit is greater than 5.
    prefix = b"5.5.5-" if "MariaDB" in version else b""
    return (
        b"\x0a"
        + prefix
        + version.encode()
        + b"\0"
        + struct.pack("<I", 1)
        + salt[0]
        + b"\0"
        + struct.pack("<HBHH", _CAPABILITIES & 0xFFFF, 33, _AUTOCOMMIT, _CAPABILITIES >> 16)
        + bytes([21])
        + b"\0" * 10
        + salt[1]
        + b"\0mysql_native_password\0"
    )


def login(packet: bytes) -> tuple[str, bytes]:
    """Return the database and the authentication method in a client's first packet."""
    (capabilities,) = struct.unpack_from("<I", packet)
    at = packet.index(b"\0", 32) + 1
    at += 1 + packet[at] if capabilities & (_LENGTH_CODED | _SECURE) else packet.index(b"\0", at)
    database = b""
    if capabilities & _WITH_DATABASE:
        database, _, rest = packet[at:].partition(b"\0")
        at = len(packet) - len(rest)
    plugin = packet[at:].split(b"\0")[0] if capabilities & _PLUGINS else b""
    return database.decode(errors="replace"), plugin


def count(number: int) -> bytes:
    """Return the packet with the number of columns of a result."""
    return _length(number)


def definition(column: Column, database: str | None) -> bytes:
    """Return the packet that defines one column of a result."""
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


def row(cells: Iterable[object]) -> bytes:
    """Return the packet of one row; every value is sent as text."""
    return b"".join(b"\xfb" if cell is None else _coded(cell) for cell in cells)


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


def _length(number: int) -> bytes:
    if number < 251:
        return bytes([number])
    if number < 1 << 16:
        return b"\xfc" + struct.pack("<H", number)
    if number < 1 << 24:
        return b"\xfd" + struct.pack("<I", number)[:3]
    return b"\xfe" + struct.pack("<Q", number)
