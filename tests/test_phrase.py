"""How times, sizes and lists are written in headlines."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoodsnap.phrase import UNITS, brief, counted, lasting, place, several, since, size, sizes

NOW = datetime(2026, 11, 29, 14, 51, 30, tzinfo=UTC)


def test_a_start_on_the_same_day_has_no_date() -> None:
    assert since(datetime(2026, 11, 29, 9, 2, tzinfo=UTC), NOW) == "since 09:02 (5 h 49 min)"
    assert since(datetime(2026, 11, 27, 9, 2, tzinfo=UTC), NOW) == (
        "since 2026-11-27 09:02 (2 d 5 h)"
    )


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (3600, "1 h"), (86_400, "1 d"), (90_000, "1 d 1 h"),
     (86_460, "1 d"), (-5, "0 s")],
)  # fmt: skip
def test_a_span_has_at_most_two_units(seconds: float, shown: str) -> None:
    assert lasting(seconds) == shown


def test_both_sizes_of_a_comparison_have_one_unit() -> None:
    assert sizes(64 << 20, 98304 << 10) == ("64 MiB", "96 MiB")
    assert sizes(1 << 30, (1 << 30) + 512) == ("1073741824 bytes", "1073742336 bytes")
    assert size(0) == "0 bytes"


@given(st.lists(st.integers(0, 1 << 62), min_size=1, max_size=4))
def test_a_size_loses_nothing(counts: list[int]) -> None:
    for count, shown in zip(counts, sizes(*counts), strict=True):
        *digits, unit = shown.split()
        assert int("".join(digits)) * 1024 ** UNITS.index(unit) == count


def test_a_long_list_is_cut_and_counted() -> None:
    assert several([]) == ""
    assert several(["vm-a"]) == "vm-a"
    assert several(["vm-a", "vm-b"]) == "vm-a and vm-b"
    assert several(f"vm-{letter}" for letter in "abcde") == "vm-a, vm-b, vm-c and 2 more"


def test_a_long_identifier_is_cut_to_eight_characters() -> None:
    uuid, sha1 = "7251a12e-a67f-40c9-84e0-35a728d5539f", "6b069ff17bbc9dcf65dedf4bb2ff93d0d763d727"

    assert brief(f"{uuid}_resize of {sha1}.lab-moved") == "7251a12e_resize of 6b069ff1.lab-moved"
    assert place(f"/var/lib/nova/instances/{uuid}/disk") == "…/7251a12e/disk"
    assert place(f"/var/lib/nova/instances/_base/{sha1}") == "…/_base/6b069ff1"
    assert place("/etc/shadow") == "/etc/shadow"


def test_a_number_of_things_has_a_plural() -> None:
    assert [counted(number, "server") for number in (0, 1, 2)] == [
        "0 servers", "1 server", "2 servers",
    ]  # fmt: skip
