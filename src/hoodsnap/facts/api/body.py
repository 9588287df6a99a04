"""The bodies that OpenStack's APIs answer with: one thing, or a list of things, under its name."""

from __future__ import annotations

from typing import Any

from hoodsnap.bundle import Answer
from hoodsnap.facts.fact import UnheardError, value_of


def item_of(answer: Answer | None, name: str, what: str) -> dict[str, Any]:
    """The object under a name. Raises `UnheardError` with `what` in it if that was not told, or is
    none."""
    item = value_of(answer, what, dict[str, object]).get(name)
    if not isinstance(item, dict):
        raise UnheardError(f"{what} can't be read")
    return item


def items_of(answer: Answer | None, name: str, what: str) -> list[dict[str, Any]]:
    """The list of objects under a name. Raises `UnheardError` likewise, also if one of them is
    none: a list of which a part can't be read proves nothing."""
    items = value_of(answer, what, dict[str, object]).get(name)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise UnheardError(f"{what} can't be read")
    return items
