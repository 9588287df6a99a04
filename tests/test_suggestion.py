"""Suggestions for mistyped names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoodsnap.suggestion import MOST, did_you_mean

SERVERS = ("vm-plain", "vm-linux", "vm-snap", "vm-resized", "instance-00000001")


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("vm-pl", "; did you mean vm-plain?"),
        ("vm-plian", "; did you mean vm-plain?"),
        ("VM-Plain", "; did you mean vm-plain?"),
        ("vm-", "; did you mean vm-snap, vm-plain or vm-linux?"),
        ("database", ""),
        ("", ""),
    ],
)
def test_names_like_the_given_one_are_suggested(wrong: str, meant: str) -> None:
    assert did_you_mean(wrong, SERVERS) == meant


@given(st.text(), st.lists(st.text()))
def test_only_known_names_are_suggested_and_few(wrong: str, known: list[str]) -> None:
    suggested = did_you_mean(wrong, known)

    assert suggested == "" or any(name and name in suggested for name in known)
    assert suggested.count(" or ") <= 1 + sum(name.count(" or ") for name in known)
    assert MOST == 3


def test_ten_thousand_names_and_a_long_word_take_no_time() -> None:
    known = [f"server-{number}" for number in range(10_000)]

    assert did_you_mean("server-" * 100_000, known) == ""
