"""Bodies of OpenStack API responses: one object, or a list of objects, under a name."""

from __future__ import annotations

from typing import Any

from hoodsnap.bundle import Answer
from hoodsnap.facts.fact import UnheardError, value_of


def item_of(answer: Answer | None, name: str, what: str) -> dict[str, Any]:
    """Return the object under a name.

    Raises `UnheardError`, which names `what`, if there is no such object.
    """
    item = value_of(answer, what, dict[str, object]).get(name)
    if not isinstance(item, dict):
        raise UnheardError(f"{what} can't be read")
    return item


def items_of(answer: Answer | None, name: str, what: str) -> list[dict[str, Any]]:
    """Return the list of objects under a name.

    Raises `UnheardError`, which names `what`, if there is no such list. A list with an item that is
    not an object is rejected, because absence from it would prove nothing.
    """
    items = value_of(answer, what, dict[str, object]).get(name)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise UnheardError(f"{what} can't be read")
    return items
