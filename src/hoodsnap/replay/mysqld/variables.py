"""System variables of the stand-in for the MariaDB server."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hoodsnap.replay.mysqld import sql
from hoodsnap.replay.recording import NotRecordedError

SETTINGS = {
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
"""Settings of this stand-in, which clients ask for; those of the real server were not recorded."""


def put_in(words: list[sql.Token], version: str, database: str | None) -> Iterator[sql.Token]:
    """Replace the variables of a statement, and DATABASE(), by their values.

    Raises `NotRecordedError`.
    """
    index = 0
    while index < len(words):
        word = words[index]
        after = words[index + 1] if index + 1 < len(words) else sql.Token("sign", "")
        if word.kind == "variable" and word.text.startswith("@@"):
            name = re.sub(r"@@(?:(?:global|session)\.)?", "", word.text.lower())
            if name == "version":
                value = "'" + version.replace("'", "''") + "'"
            elif name in SETTINGS:
                value = SETTINGS[name]
            else:
                raise NotRecordedError(f"the variable {name} was not recorded")
            yield sql.Token("number", value)
            if after.word != "as" and after.kind not in ("word", "name"):
                yield sql.Token("word", "AS")
                yield sql.Token("name", f"`{word.text}`")
        elif word.word in ("database", "schema") and after.text == "(":
            value = "NULL" if database is None else "'" + database.replace("'", "''") + "'"
            yield sql.Token("number", value)
            index += 2  # skip the parentheses
            if index + 1 >= len(words) or words[index + 1].text in (",",):
                yield sql.Token("word", "AS")
                yield sql.Token("name", f"`{word.text.upper()}()`")
        else:
            yield word
        index += 1
