from __future__ import annotations

import re

import pytest

from hoodsnap.keep import tables
from hoodsnap.keep.tables import ReadableTable

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


def test_these_tests_cover_all_tables() -> None:
    assert {"instances", "request_specs", "flavors", "console_auth_tokens"} <= {t.name for t in ALL}


@pytest.mark.parametrize("table", ALL, ids=lambda table: table.name)
def test_no_column_is_read_that_holds_a_secret(table: ReadableTable) -> None:
    assert [column for column in table.columns if NEVER.search(column)] == []
    assert len(set(table.columns)) == len(table.columns)
