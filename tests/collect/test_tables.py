from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoodsnap.collect import tables
from hoodsnap.collect.tables import ReadableTable, named, quoted

NEVER = re.compile(
    "user_data|key_data|keypairs|device_metadata|traceback|details|password|token|transport_url"
    "|access_url|internal_access_path|trusted_certs|tags"
)
ALL = [
    table
    for value in vars(tables).values()
    for table in (value if isinstance(value, tuple) else [value])
    if isinstance(table, ReadableTable)
]


def test_all_tables_are_looked_at_here() -> None:
    assert {"instances", "request_specs", "flavors", "console_auth_tokens"} <= {t.name for t in ALL}


@pytest.mark.parametrize("table", ALL, ids=lambda table: table.name)
def test_no_column_is_read_that_holds_a_secret(table: ReadableTable) -> None:
    assert [column for column in table.columns if NEVER.search(column)] == []
    assert len(set(table.columns)) == len(table.columns)


def test_a_statement_can_be_typed() -> None:
    table = ReadableTable("services", ("id", "binary", "host"), key="host")

    statement = table.select("nova", ["id", "binary"], table.about("nova", ["vm", "it's"]))

    assert statement == "SELECT id, `binary` FROM nova.services WHERE host IN ('vm', 'it''s')"


def test_names_are_quoted_where_they_must_be() -> None:
    assert named("nova-cell1", "key") == "`nova-cell1`.`key`"
    assert named("a`b") == "`a``b`"


@given(st.text())
def test_no_text_leaves_its_quotes(text: str) -> None:
    inside = quoted(text)[1:-1]

    assert not re.search(r"'|\\", re.sub(r"''|\\\\", "", inside))
    assert inside.replace("''", "'").replace("\\\\", "\\") == text
