"""Common parts of the nova, neutron, cinder, placement and glance APIs: endpoints, microversions,
paged lists.

A body may hold anything. Values of the wrong type are left out, and a body that is not an object
makes its question fail; nothing in this file raises any other error.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit
from urllib.parse import quote as percent_encoded

from hoodsnap.bundle import Answer
from hoodsnap.collect.recorder import RefusedError

LIST_PATIENCE = 60.0
"""Seconds for a page of a list: nova may take long for a thousand servers."""

MOST_PAGES = 1000

Microversion = tuple[int, int]
"""Major and minor version, such as (2, 96)."""

quote: Callable[[str], str] = partial(percent_encoded, errors="replace")
"""Percent-encode a text. Half of a surrogate pair, which JSON can hold, is replaced."""


def unversioned(endpoint: str) -> tuple[str, str]:
    """Split a catalog endpoint into its URL without the version, and the `/PROJECT` after it.

    The project is empty if the endpoint has none.
    """
    match = re.fullmatch(r"(.*?)(?:/v\d+(?:\.\d+)?(/[^/]+)?)?", endpoint.rstrip("/"))
    return (match[1], match[2] or "") if match else (endpoint, "")


def negotiated(highest: object, ours: Microversion) -> Microversion | None:
    """Return the highest microversion that both sides know; None if `highest` can't be parsed.

    `highest`: the API's highest microversion, as the API writes it, such as `2.100`.
    """
    theirs = re.fullmatch(r"(\d{1,6})\.(\d{1,6})", highest) if isinstance(highest, str) else None
    return min(ours, (int(theirs[1]), int(theirs[2]))) if theirs is not None else None


def written(microversion: Microversion) -> str:
    """Format a microversion for a header: `2.96`."""
    return f"{microversion[0]}.{microversion[1]}"


def object_of(body: Any, service: str) -> dict[str, Any]:
    """Return the body if it is a JSON object. Raises `RefusedError` if it is not."""
    if not isinstance(body, dict):
        raise RefusedError(
            "failed", f"the answer is not a JSON object, so it is not from {service}"
        )
    return body


def objects(value: object, key: str = "id") -> list[dict[str, Any]]:
    """Return those objects of a JSON list that have a string under this key."""
    listed = value if isinstance(value, list) else []
    return [item for item in listed if isinstance(item, dict) and isinstance(item.get(key), str)]


def items(answer: Answer, name: str, key: str = "id") -> list[dict[str, Any]]:
    """Return the objects of the list `name` in an answer; none if the question failed."""
    if answer.error is not None or not isinstance(answer.value, dict):
        return []
    return objects(answer.value.get(name), key)


def next_marker(page: Answer, name: str) -> str | None:
    """Return the id after which the next page begins; None if this page is the last."""
    if not items(page, name):
        return None
    for link in items(page, f"{name}_links", "href"):
        if link.get("rel") == "next":
            try:
                markers = parse_qs(urlsplit(link["href"]).query).get("marker")
            except ValueError:  # such as an address with an unclosed bracket
                return None
            return markers[0] if markers else None
    return None


def pages(
    ask: Callable[[str], Answer],
    refuse: Callable[[str, str], object],
    query: str,
    name: str,
    following: Callable[[Answer, str], str | None] = next_marker,
) -> list[Answer]:
    """Ask for all pages of a list.

    `ask` gets the query with the marker of the page. If the list does not end, `refuse` gets that
    query and the reason, to record a failure.
    """
    found = [ask(query)]
    seen: set[str] = set()
    while (marker := following(found[-1], name)) is not None:
        further = f"{query}&marker={quote(marker)}".lstrip("&")
        if marker in seen or len(found) == MOST_PAGES:
            refuse(further, "not asked: the API returned the list's pages without end")
            break
        seen.add(marker)
        found.append(ask(further))
    return found
