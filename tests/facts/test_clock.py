"""Times as they are written."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from hoodsnap.facts.clock import moment


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-11-23 01:11:11", datetime(2026, 11, 23, 1, 11, 11, tzinfo=UTC)),
        ("2026-11-23T01:11:11Z", datetime(2026, 11, 23, 1, 11, 11, tzinfo=UTC)),
        ("2026-11-23 01:11:11.500000", datetime(2026, 11, 23, 1, 11, 11, 500000, tzinfo=UTC)),
        ("0000-00-00 00:00:00", None),
        ("", None),
        (None, None),
    ],
)
def test_a_time_of_the_database_is_utc(written: str | None, read: datetime | None) -> None:
    assert moment(written) == read
