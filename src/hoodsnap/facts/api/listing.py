"""Lists of nova's API that repeat rows of its databases: services, hypervisors, groups.

They are read as they are: a check compares them with the rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.facts.api.body import items_of
from hoodsnap.facts.layer import NOVA

Item = Mapping[str, object]

_V2 = r"GET /v2(?:\.1)?(?:/[0-9a-f]+)?"
_OPTIONS = r"(?:\?\S*)?"


class ApiList(NamedTuple):
    """The newest answer to one question for a list, and its items."""

    answer: Answer
    items: tuple[Item, ...]


def read_listing(bundle: Bundle, path: str, name: str) -> ApiList | None:
    """Return a list of nova's API: `read_listing(bundle, "os-hypervisors/detail", "hypervisors")`.

    None if it was not collected, or not permitted. An answer with a microversion is preferred: it
    has more fields. Raises `UnheardError` if the list can't be read.
    """
    query = re.compile(rf"{_V2}/{re.escape(path)}{_OPTIONS}(?P<version> \[.*)?")
    newest: Answer | None = None
    for answer in bundle.by_layer.get(NOVA.id, ()):
        found = query.fullmatch(answer.query)
        if found is None or answer.error is not None:
            continue
        if newest is None or found["version"] or " [" not in newest.query:
            newest = answer
    if newest is None:
        return None
    return ApiList(newest, tuple(items_of(newest, name, f"nova API: the list of {name}")))
