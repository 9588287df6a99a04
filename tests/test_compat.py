"""Every format that was ever written can be read; newer formats are refused."""

from __future__ import annotations

from typing import Any

import pytest

from hoodsnap import compat
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


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_old_format_goes_through_every_step_after_it(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """There is one format so far. These three are made up: the second renamed a key, the third
    gave each answer a number."""

    def renamed(raw: dict[str, Any]) -> dict[str, Any]:
        return {"format": 2, "answers": raw["replies"]}

    def numbered(raw: dict[str, Any]) -> dict[str, Any]:
        return {"format": 3, "answers": [*enumerate(raw["answers"])]}

    written: dict[int, dict[str, Any]] = {
        1: {"format": 1, "replies": ["a", "b"]},
        2: {"format": 2, "answers": ["a", "b"]},
        3: {"format": 3, "answers": [(0, "a"), (1, "b")]},
    }
    monkeypatch.setattr(compat, "FORMAT", 3)
    monkeypatch.setattr(compat, "STEPS", {1: renamed, 2: numbered})

    assert upgrade(written[number]) == written[3]
    with pytest.raises(UnknownFormatError, match="it has format 4, and this release reads up to 3"):
        upgrade({"format": 4})
