"""MySQL's errors (mysqld_error.h), as a server sends them."""

from __future__ import annotations

import re
import sqlite3
import struct
from dataclasses import dataclass

from hoodsnap.printable import clean


@dataclass(eq=False)
class MySQLError(Exception):
    """An error as a server sends it."""

    number: int
    state: str
    """The SQL state: five letters or digits."""
    text: str

    @property
    def encoded(self) -> bytes:
        """The error as a packet."""
        return (
            b"\xff"
            + struct.pack("<H", self.number)
            + b"#"
            + self.state.encode()
            + clean(self.text).encode()[:512]
        )


def none_selected() -> MySQLError:
    """Return the error for a table name without a database, when no database is selected."""
    return MySQLError(1046, "3D000", "No database selected")


def no_database(name: str) -> MySQLError:
    """Return the error for an unknown database."""
    return MySQLError(1049, "42000", f"Unknown database '{name}'")


def no_table(name: str) -> MySQLError:
    """Return the error for an unknown table; its name may include the database."""
    return MySQLError(1146, "42S02", f"Table '{name}' doesn't exist")


def of_sqlite(error: sqlite3.Error, clause: str) -> MySQLError:
    """Translate an error of SQLite to MySQL's. `clause`: the clause to name in "unknown column"."""
    text = str(error)
    if found := re.match(r"no such column: (\S+)", text):
        return MySQLError(1054, "42S22", f"Unknown column '{found[1]}' in '{clause}'")
    if found := re.match(r"no such function: (\S+)", text):
        return MySQLError(1305, "42000", f"hoodsnap: the function {found[1]} is not supported")
    if found := re.match(r"no such table: (\S+)", text):
        return no_table(found[1])
    if found := re.match(r"unknown database (\S+)", text):
        return no_database(found[1])
    if text == "interrupted":
        return MySQLError(1969, "70100", "hoodsnap: the statement takes too long")
    if "ambiguous column name" in text:
        name = text.rpartition(" ")[2]
        return MySQLError(1052, "23000", f"Column '{name}' in field list is ambiguous")
    return MySQLError(1064, "42000", f"hoodsnap: {text}")
