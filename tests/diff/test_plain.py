"""Plain values, and the differences of two of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoodsnap.bundle import Answer
from hoodsnap.diff.plain import NotAValueError, Unknown, differences, plain, words
from hoodsnap.facts.domain.disk import Disk, DiskImage

ATOMS = st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "b"])
VALUES: st.SearchStrategy[Any] = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3)
    ),
    max_leaves=8,
)


def disk(target: str, source: str) -> Disk:
    image = DiskImage("file", source, "qcow2")
    return Disk(target, "virtio", "disk", image, None, None, False, False, False, None)


def test_a_disk_that_is_added_does_not_change_the_others() -> None:
    before = plain((disk("vda", "/a"), disk("vdb", "/b")))
    after = plain((disk("vdc", "/c"), disk("vda", "/a"), disk("vdb", "/new")))

    found = {path: (one, other) for path, one, other in differences(before, after, "disks")}

    assert found.keys() == {"disks[vdb].image.source", "disks[vdc]"}
    assert found["disks[vdb].image.source"] == ("/b", "/new")
    assert found["disks[vdc]"][0] is None


def test_what_is_unknown_on_one_side_is_no_difference() -> None:
    unknown = Unknown("not collected")

    assert [*differences({"a": unknown}, {"a": 1})] == []
    assert [*differences({"a": 1}, {"a": unknown})] == []


@given(VALUES)
def test_a_value_does_not_differ_from_itself(value: Any) -> None:
    assert [*differences(plain(value), plain(value))] == []


@given(VALUES, VALUES)
def test_two_values_differ_alike_in_both_directions(one: Any, other: Any) -> None:
    one, other = plain(one), plain(other)

    there = {(path, str(a), str(b)) for path, a, b in differences(one, other)}
    back = {(path, str(b), str(a)) for path, a, b in differences(other, one)}

    assert there == back
    assert bool(there) == (one != other)


@given(VALUES)
def test_words_are_text_or_none(value: Any) -> None:
    found = words(plain(value))

    assert found is None if value is None else isinstance(found, str)


def test_a_verbatim_answer_is_no_value() -> None:
    answer = Answer.model_validate(
        {
            "layer": "l",
            "host": "h",
            "query": "q",
            "at": "2026-01-01T00:00:00Z",
            "took": 0,
            "value": 1,
        }
    )

    with pytest.raises(NotAValueError):
        plain(answer)
