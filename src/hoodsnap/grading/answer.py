"""Comparison of a student's answer with the value in the bundle, tolerant of how it is written."""

from __future__ import annotations

import posixpath
import re

NOTHING = frozenset(["none", "null", "nothing", "nil", "-", "no", "n/a"])
YES = frozenset(["yes", "true", "y", "on"])
NO = frozenset(["no", "false", "n", "off"])


def share(given: str | list[str], expected: object, *, partial: bool = False) -> float:
    """Return the share of the expected answer that was given, from 0 to 1.

    With `partial`, each right item of a list counts; otherwise it is all or nothing.
    """
    if not isinstance(expected, list):
        words = given if isinstance(given, str) else given[0] if len(given) == 1 else ""
        return float(is_same(words, expected))
    left = list(given) if isinstance(given, list) else _split(given)
    total, right = max(len(left), len(expected)), 0
    for one in expected:
        found = next((word for word in left if is_same(word, one)), None)
        if found is not None:
            left.remove(found)
            right += 1
    if right == total:
        return 1.0
    return right / total if partial else 0.0


def is_same(given: str, expected: object) -> bool:
    """True if a student's text means this value."""
    words = _tidy(given)
    if expected is None:
        return words in NOTHING
    if isinstance(expected, bool):
        return words in (YES if expected else NO)
    if isinstance(expected, int | float):
        return _number(words) == expected
    wanted = _tidy(str(expected))
    if wanted.startswith("/"):
        return _path(given) == _path(str(expected))
    number = _number(wanted)
    return words == wanted or (number is not None and number == _number(words))


def _split(words: str) -> list[str]:
    return [word for word in re.split(r"[\s,;]+", words) if word]


def _tidy(words: str) -> str:
    return " ".join(words.strip().strip("\"'`").split()).casefold()


def _path(words: str) -> str:
    # Paths are case-sensitive, so unlike other answers a path keeps its case.
    path = words.strip().strip("\"'`")
    return posixpath.normpath(path).replace("//", "/") if path else ""


def _number(words: str) -> int | float | None:
    if len(words) > 40:
        return None
    digits = words.replace("_", "")
    if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+", digits):
        digits = digits.replace(",", "")
    try:
        if re.fullmatch(r"0x[0-9a-f]+", digits):
            return int(digits, 16)
        if re.fullmatch(r"[+-]?\d+", digits, re.ASCII):
            return int(digits)
        if re.fullmatch(r"[+-]?\d+\.\d+", digits, re.ASCII):
            return float(digits)
    except ValueError:
        pass
    return None
