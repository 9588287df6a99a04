"""Every format that was ever written can be read; newer formats are refused."""

from __future__ import annotations

import pytest

from hoodsnap.compat import FORMAT, STEPS, UnknownFormatError, upgrade


def test_there_is_a_step_from_every_old_format() -> None:
    assert set(STEPS) == set(range(1, FORMAT))


def test_the_current_format_is_left_unchanged() -> None:
    assert upgrade({"format": FORMAT, "answers": []}) == {"format": FORMAT, "answers": []}


@pytest.mark.parametrize("number", [None, 0, -1, True, "1", 1.0, []])
def test_without_a_format_number_it_is_not_a_bundle(number: object) -> None:
    with pytest.raises(UnknownFormatError, match="not a hoodsnap bundle"):
        upgrade({"format": number})


def test_a_newer_format_says_what_to_do() -> None:
    with pytest.raises(UnknownFormatError, match="update hoodsnap"):
        upgrade({"format": FORMAT + 1})
