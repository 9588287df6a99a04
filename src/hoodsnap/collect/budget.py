"""Budget of characters that many answers share, although each of them is small enough alone.

An account that may start one process may start a thousand, so a limit per process limits nothing.
"""

from __future__ import annotations

import threading
from typing import Any, TypeVar

from hoodsnap.collect.recorder import RefusedError

Value = TypeVar("Value")

OF_A_VALUE = 64
"""Characters charged for a value in addition to its own: the bytes that a Python object takes."""


class TextBudget:
    """Number of characters that may still be kept. May be used from several threads."""

    def __init__(self, characters: int) -> None:
        self._all = self._left = characters
        self._lock = threading.Lock()

    def kept(self, value: Value) -> Value:
        """Return the value and charge for it. Raises `RefusedError` if it does not fit."""
        size = _size(value)
        with self._lock:
            if size > self._left:
                most = self._all >> 20
                raise RefusedError(
                    "too-large",
                    "the answer does not fit: all answers about processes may have"
                    f" {most} MiB together",
                )
            self._left -= size
        return value


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value) + OF_A_VALUE
    if isinstance(value, dict):
        return sum(_size(key) + _size(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return sum(map(_size, value)) + OF_A_VALUE
    return OF_A_VALUE
