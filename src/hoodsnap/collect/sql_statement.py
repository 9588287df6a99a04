"""SQL statements that read what `hoodsnap.keep.tables` allows, for every release of MySQL."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hoodsnap.keep.tables import ReadableTable

_RESERVED = frozenset({"key", "binary", "usage", "groups", "rank", "system"})


def named(*parts: str) -> str:
    """Return a name in SQL, with parts quoted only where necessary."""
    return ".".join(
        part
        if re.fullmatch(r"[A-Za-z_]\w*", part, re.ASCII) and part.lower() not in _RESERVED
        else "`" + part.replace("`", "``") + "`"
        for part in parts
    )


def quoted(value: str | int) -> str:
    """Return an SQL literal. Every value from outside must be quoted by this function."""
    if isinstance(value, int):
        return str(value)
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def select(database: str, table: ReadableTable, columns: Sequence[str], where: str = "") -> str:
    """Return the statement that reads these columns of a table."""
    asked = ", ".join(map(named, columns))
    condition = f" WHERE {where}" if where else ""
    return f"SELECT {asked} FROM {named(database, table.name)}{condition}"  # noqa: S608 (see `quoted`)


def about(database: str, table: ReadableTable, keys: Sequence[str | int]) -> str:
    """Return the condition for the rows that belong to these keys (UUIDs or ids)."""
    condition = f"{named(table.key)} IN ({', '.join(map(quoted, keys))})"
    only = table.only.replace("{database}", named(database))
    return f"{condition} AND {only}" if only else condition
