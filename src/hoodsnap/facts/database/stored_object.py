"""Objects that nova stores as JSON in a column. Since Kilo their fields are wrapped."""

from __future__ import annotations

import json
from collections.abc import Mapping

from hoodsnap.facts.fact import UnheardError, mapping

DATA = "nova_object.data"
"""Key under which a stored object has its fields."""


def read_object(written: str | None, what: str) -> Mapping[str, object]:
    """Return a stored object, still wrapped. Raises `UnheardError`, which names `what`."""
    try:
        stored = json.loads(written or "")
    except (ValueError, RecursionError):
        raise UnheardError(f"{what} can't be read") from None
    if not isinstance(stored, dict):
        raise UnheardError(f"{what} can't be read")
    return stored


def fields_of(stored: Mapping[str, object], name: str) -> Mapping[str, object]:
    """Return the fields of the object stored under a name.

    Raises `UnheardError` if there is no such object.
    """
    return mapping(mapping(stored, name), DATA)


def fields_if_wrapped(stored: Mapping[str, object]) -> Mapping[str, object]:
    """Return the fields of a stored object, wrapped or, from older releases, not."""
    data = stored.get(DATA, stored)
    return data if isinstance(data, dict) else {}
