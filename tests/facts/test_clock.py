"""Reading of times in all formats that databases, APIs and logs write."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from hoodsnap.facts.clock import http_moment, moment


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-11-23 01:11:11", datetime(2026, 11, 23, 1, 11, 11, tzinfo=UTC)),
        ("2026-11-23T01:11:11Z", datetime(2026, 11, 23, 1, 11, 11, tzinfo=UTC)),
        ("2026-11-23 01:11:11.500000", datetime(2026, 11, 23, 1, 11, 11, 500000, tzinfo=UTC)),
        ("2026-11-25 13:15:33.726+0000", datetime(2026, 11, 25, 13, 15, 33, 726000, tzinfo=UTC)),
        ("2026-11-25T13:15:33,5+00:00", datetime(2026, 11, 25, 13, 15, 33, 500000, tzinfo=UTC)),
        ("2026-11-25T14:15:33+01:00", datetime(2026, 11, 25, 13, 15, 33, tzinfo=UTC)),
        ("0000-00-00 00:00:00", None),
        ("0001-01-01T00:00:00+05:00", None),
        ("9999-12-31 23:59:59", None),
        (20261123, None),
        ("", None),
        (None, None),
    ],
)
def test_a_time_is_read_as_utc(written: object, read: datetime | None) -> None:
    assert moment(written) == read


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Wed, 25 Nov 2026 13:15:33 GMT", datetime(2026, 11, 25, 13, 15, 33, tzinfo=UTC)),
        ("Wed, 25 Nov 2026 14:15:33 +0100", datetime(2026, 11, 25, 13, 15, 33, tzinfo=UTC)),
        ("Wed, 25 Nov 1700 13:15:33 +0000", None),
        ("yesterday", None),
        (None, None),
    ],
)
def test_an_http_date_is_read_as_utc(written: object, read: datetime | None) -> None:
    assert http_moment(written) == read
