from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from hoodsnap.collect.sql_statement import about, named, quoted, select
from hoodsnap.keep.tables import ReadableTable


def test_a_statement_can_be_typed_into_a_client() -> None:
    table = ReadableTable("services", ("id", "binary", "host"), key="host")

    statement = select("nova", table, ["id", "binary"], about("nova", table, ["vm", "it's"]))

    assert statement == "SELECT id, `binary` FROM nova.services WHERE host IN ('vm', 'it''s')"


def test_names_are_quoted_only_where_necessary() -> None:
    assert named("nova-cell1", "key") == "`nova-cell1`.`key`"
    assert named("a`b") == "`a``b`"


@given(st.text())
def test_no_value_can_end_its_quotes(text: str) -> None:
    inside = quoted(text)[1:-1]

    assert not re.search(r"'|\\", re.sub(r"''|\\\\", "", inside))
    assert inside.replace("''", "'").replace("\\\\", "\\") == text
