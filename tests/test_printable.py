"""What a stranger's text may hold, and a terminal never gets."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoodsnap.printable import clean, cut, escaped


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    assert clean(text).isprintable()
    assert clean(text, "?").isprintable()
    assert escaped(text).isprintable()
    assert escaped(text, newlines=True).replace("\n", "").isprintable()


@given(st.text())
def test_what_can_be_shown_stays(text: str) -> None:
    assert [a for a, b in zip(clean(text), text, strict=True) if a == b or b.isprintable()] == [
        char for char in text if char.isprintable() or char == "�"
    ]


@given(st.dictionaries(st.text(), st.text()))
def test_a_json_document_stays_one(value: dict[str, str]) -> None:
    document = json.dumps(value, ensure_ascii=False, indent=1)

    assert json.loads(escaped(document, newlines=True)) == json.loads(document)


@pytest.mark.parametrize(("text", "most", "shown"), [("abc", 3, "abc"), ("abcd", 3, "ab…")])
def test_a_long_text_is_cut(text: str, most: int, shown: str) -> None:
    assert cut(text, most) == shown
