"""An answer is right in any usual spelling, and a different value is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoodsnap.grading.answer import is_same, share


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("28051", 28051),
        (" 28_051 ", 28051),
        ("28,051", 28051),
        ("0x6d93", 28051),
        ("512.0", 512),
        ("ACTIVE", "active"),
        ("  fa:16:3E:31:93:0F ", "fa:16:3e:31:93:0f"),
        ('"vda"', "vda"),
        ("`vda`", "vda"),
        ("shut   off", "shut off"),
        ("/var/lib//nova/instances/./x/disk", "/var/lib/nova/instances/x/disk"),
        ("/var/lib/nova/", "/var/lib/nova"),
        ("/var/lib/a/../nova", "/var/lib/nova"),
        ("none", None),
        ("-", None),
        ("yes", True),
        ("No", False),
    ],
)
def test_the_same_value_in_another_spelling(written: str, expected: object) -> None:
    assert is_same(written, expected)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("28052", 28051),
        ("", 0),
        ("", """ x"""),
        ("1", True),
        ("0", None),
        ("/var/lib/nova/Disk", "/var/lib/nova/disk"),
        ("/", "/var"),
        ("fa:16:3e:31:93:0f", "fe:16:3e:31:93:0f"),
        ("1" * 5_000, 1),
        ("²", 2),
        ("1e3", 1000),
        ("nan", 1.0),
    ],
)
def test_a_different_value(written: str, expected: object) -> None:
    assert not is_same(written, expected)


@pytest.mark.parametrize(
    ("written", "expected", "partial", "got"),
    [
        ("b, a", ["a", "b"], False, 1.0),
        (["b", "a"], ["a", "b"], False, 1.0),
        ("a", ["a", "b"], False, 0.0),
        ("a", ["a", "b"], True, 0.5),
        ("a a", ["a", "b"], True, 0.5),
        ("a b c d", ["a", "b"], True, 0.5),
        ("c", ["a", "b"], True, 0.0),
        (["a"], "a", False, 1.0),
        (["a", "b"], "a", False, 0.0),
    ],
)
def test_a_list_is_right_in_any_order(
    written: str | list[str], expected: object, partial: bool, got: float
) -> None:
    assert share(written, expected, partial=partial) == got


@given(st.text() | st.lists(st.text()), st.none() | st.integers() | st.text() | st.booleans())
def test_no_answer_breaks_the_comparison(written: str | list[str], expected: object) -> None:
    assert 0.0 <= share(written, expected, partial=True) <= 1.0


@given(st.integers())
def test_a_number_is_itself(number: int) -> None:
    assert is_same(str(number), number) == (len(str(number)) <= 40)
