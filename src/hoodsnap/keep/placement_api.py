"""Allow-list for placement's API: its numbers, and the names of what they count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hoodsnap.keep.secret import WITHHELD
from hoodsnap.keep.shape import Names, Shape, words

_LINKS = Shape(words("rel href"))
_PROVIDER = words("uuid name generation parent_provider_uuid root_provider_uuid")
_PLACEMENT = Shape(
    _PROVIDER
    | words(
        "traits aggregates resource_provider_generation consumer_generation consumer_type"
        " project_id user_id"
    ),
    {
        # The links of each provider, which take most of the list, are dropped.
        "resource_providers": Shape(_PROVIDER),
        "versions": Shape(words("id status max_version min_version"), {"links": _LINKS}),
        "inventories": Names(
            Shape(words("total reserved min_unit max_unit step_size allocation_ratio"))
        ),
        "usages": Names(),
        "mappings": Names(),
        "allocations": Names(
            Shape(words("generation consumer_generation"), {"resources": Names()})
        ),
    },
)


def placement_body(body: Any) -> Any:
    """Keep the numbers of a body of placement's API, and the names of what they count."""
    return _PLACEMENT.kept(body) if isinstance(body, Mapping) else WITHHELD
