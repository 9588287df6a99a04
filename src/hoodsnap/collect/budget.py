"""Room for the answers to many questions together, each of which is small enough alone.

An account that may start one process may start a thousand, so a limit for each limits nothing.
"""

from __future__ import annotations

import threading
from typing import Any, TypeVar

from hoodsnap.collect.recorder import RefusedError

Value = TypeVar("Value")

OF_A_VALUE = 64
"""Characters that a value takes beside its own: an object in Python takes as many bytes."""


class TextBudget:
    """Characters that are left. For several threads."""

    def __init__(self, characters: int) -> None:
        self._all = self._left = characters
        self._lock = threading.Lock()

    def kept(self, value: Value) -> Value:
        """Return the value. Raises `RefusedError` (`too-large`) if there is no room for it."""
        size = _size(value)
        with self._lock:
            if size > self._left:
                most = self._all >> 20
                raise RefusedError(
                    "too-large", f"the processes before it have filled the {most} MiB for them all"
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
