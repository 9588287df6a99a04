"""The objects that nova stores as JSON in a column: since Kilo their fields are wrapped."""

from __future__ import annotations

import json
from collections.abc import Mapping

from hoodsnap.facts.fact import UnheardError, mapping

DATA = "nova_object.data"
"""Where a stored object has its fields."""


def read_object(written: str | None, what: str) -> Mapping[str, object]:
    """A stored object, its fields still wrapped. Raises `UnheardError` with `what` in it."""
    try:
        stored = json.loads(written or "")
    except (ValueError, RecursionError):
        raise UnheardError(f"{what} can't be read") from None
    if not isinstance(stored, dict):
        raise UnheardError(f"{what} can't be read")
    return stored


def fields_of(stored: Mapping[str, object], name: str) -> Mapping[str, object]:
    """The fields of an object that is stored under a name. Raises `UnheardError` if there is
    none."""
    return mapping(mapping(stored, name), DATA)


def fields_if_wrapped(stored: Mapping[str, object]) -> Mapping[str, object]:
    """The fields of an object that is wrapped, or was stored by a release that did not wrap."""
    data = stored.get(DATA, stored)
    return data if isinstance(data, dict) else {}
