"""Every format that was ever written is read, and none from the future."""

from __future__ import annotations

import pytest

from hoodsnap.compat import FORMAT, STEPS, UnknownFormatError, upgrade


def test_there_is_a_step_from_every_old_format() -> None:
    assert set(STEPS) == set(range(1, FORMAT))


def test_todays_format_is_left_as_it_is() -> None:
    assert upgrade({"format": FORMAT, "answers": []}) == {"format": FORMAT, "answers": []}


@pytest.mark.parametrize("number", [None, 0, -1, True, "1", 1.0, []])
def test_a_bundle_without_a_format_number_is_none(number: object) -> None:
    with pytest.raises(UnknownFormatError, match="no hoodsnap bundle"):
        upgrade({"format": number})


def test_a_newer_format_says_what_to_do() -> None:
    with pytest.raises(UnknownFormatError, match="please update"):
        upgrade({"format": FORMAT + 1})
