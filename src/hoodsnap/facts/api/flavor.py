"""Flavors that nova offers now. An instance keeps its own copy of its flavor: see stored_flavor."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.facts.fact import UnheardError, value_of
from hoodsnap.facts.quantity import whole

LIST = re.compile(r"GET /v2(?:\.1)?(?:/[0-9a-f]+)?/flavors/detail(?:\?\S*)?(?: |$)")

FIELDS = {
    "memory_mb": "ram",
    "vcpus": "vcpus",
    "root_gb": "disk",
    "ephemeral_gb": "OS-FLV-EXT-DATA:ephemeral",
    "swap": "swap",
}
"""Name of a field in the database → its name in the API."""


class OfferedFlavor(NamedTuple):
    """A flavor that nova offers."""

    answer: Answer
    sizes: Mapping[str, int]
    """Sizes by their names in the database; a size that was not collected is left out."""


def read_flavors(bundle: Bundle) -> Mapping[str, OfferedFlavor]:
    """Return the listed flavors by name; flavors that share a name are left out."""
    found: dict[str, list[OfferedFlavor]] = {}
    for answer in bundle.by_layer.get("nova", ()):
        if LIST.match(answer.query) and answer.error is None:
            found = {}  # the newest list counts
            for raw in _listed(answer):
                name = raw.get("name")
                if isinstance(name, str):
                    found.setdefault(name, []).append(OfferedFlavor(answer, _sizes(raw)))
    return {name: offers[0] for name, offers in found.items() if len(offers) == 1}


def _listed(answer: Answer) -> Iterator[Mapping[str, object]]:
    try:
        body = value_of(answer, answer.query, dict[str, object])
    except UnheardError:
        return
    flavors = body.get("flavors")
    for raw in flavors if isinstance(flavors, list) else ():
        if isinstance(raw, dict):
            yield raw


def _sizes(raw: Mapping[str, object]) -> dict[str, int]:
    # Older APIs return an empty text for no swap.
    numbers = ((field, whole(raw.get(key) or 0)) for field, key in FIELDS.items() if key in raw)
    return {field: number for field, number in numbers if number is not None}
