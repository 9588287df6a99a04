"""Collections of an API: the recorded lists and single items of one kind.

OpenStack's APIs are regular enough for one engine: lists, single items by id, filters and pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hoodsnap.replay.apis import microversions
from hoodsnap.replay.apis.services import ReplayedApi

Query = Mapping[str, tuple[str, ...]]
"""The query string of a URL: each name with all its values."""

NO_FILTERS = frozenset(
    (
        *("all_tenants", "all_projects", "limit", "marker", "sort_key", "sort_dir", "sort"),
        *("fields", "deleted", "is_public", "page_reverse", "with_count", "detailed"),
    )
)
"""Query parameters that exclude no recorded item. (Deleted items are in no recorded list; private
flavors and other projects' items are in every list that was recorded with these parameters.)"""

_PROJECTS = {
    ("nova", "servers"): "tenant_id",
    ("cinder", "volumes"): "os-vol-tenant-attr:tenant_id",
    ("cinder", "snapshots"): "os-extended-snapshot-attributes:project_id",
}
"""The field that holds an item's project, by layer and kind."""

_ALIASES = {
    ("nova", "servers", "host"): "OS-EXT-SRV-ATTR:host",
    ("nova", "servers", "tenant_id"): "tenant_id",
    ("nova", "servers", "project_id"): "tenant_id",
    ("cinder", "volumes", "project_id"): "os-vol-tenant-attr:tenant_id",
    ("neutron", "ports", "tenant_id"): "project_id",
}
"""The field that a filter examines, for filters with a name of their own."""


class UnknownFilterError(Exception):
    """The filter examines a field that was not recorded. The text is the filter's name."""


class UnknownMarkerError(Exception):
    """The marker of a page is not in the list. The text is the marker."""


@dataclass(frozen=True)
class Recorded:
    """One recorded answer of an API."""

    path: str
    query: Query
    version: str
    body: Any


@dataclass
class Collection:
    """Everything that was recorded under one path."""

    service: ReplayedApi
    path: str
    """The path, without `/detail`."""
    lists: list[Recorded] = field(default_factory=list)
    items: dict[str, dict[str, Mapping[str, Any]]] = field(default_factory=dict)
    """The newest recorded form of each item, by id and microversion."""

    @property
    def name(self) -> str:
        """The key of the list in a body."""
        return name_of(self.path)

    @property
    def is_whole(self) -> bool:
        """True if an unfiltered list was recorded."""
        return any(not set(recorded.query) - NO_FILTERS for recorded in self.lists)

    def add_list(self, recorded: Recorded, listed: Iterable[Any]) -> None:
        """Add a list, or a page of one."""
        self.lists.append(recorded)
        for item in listed:
            if isinstance(item, dict) and (key := id_of(item)):
                self.items.setdefault(key, {})[recorded.version] = item

    def add_item(self, recorded: Recorded, item: Mapping[str, Any]) -> None:
        """Add a single item."""
        self.items.setdefault(id_of(item), {})[recorded.version] = item

    def covering(self, query: Query, wanted: str) -> list[Recorded] | None:
        """Return recorded pages that together hold everything the query could select.

        None if no recorded list covers the query.
        """
        for recorded in self.lists:
            filters = {k: values for k, values in recorded.query.items() if k not in NO_FILTERS}
            narrower = all(
                key in query and _is_within(key, query[key], values)
                for key, values in filters.items()
            )
            if (
                narrower
                and "marker" not in recorded.query
                and microversions.same(self.service, recorded.path, recorded.version, wanted)
            ):
                return [
                    other
                    for other in self.lists
                    if {k: v for k, v in other.query.items() if k != "marker"} == recorded.query
                    and other.version == recorded.version
                    and other.path == recorded.path
                ]
        return None

    def chosen(
        self, pages: Iterable[Recorded], query: Query, project: object
    ) -> list[Mapping[str, Any]]:
        """Return the items that a query selects for a user of this project.

        Raises `UnknownFilterError` and `UnknownMarkerError`.
        """
        items = {id_of(item): item for page in pages for item in page.body[self.name]}
        found = [item for item in items.values() if self._is_chosen(item, query, project)]
        return _paged(found, query)

    def _is_chosen(self, item: Mapping[str, Any], query: Query, project: object) -> bool:
        owner = None
        if not _is_true(query, "all_tenants"):
            # Without all_tenants an API shows only the items of the caller's project.
            owner = _PROJECTS.get((self.service.layer, self.name))
        if owner is not None and item.get(owner) not in (None, project):
            return False
        for key, values in query.items():
            if key == "changes-since":
                changed = item.get("updated_at") or item.get("updated") or item.get("start_time")
                if _moment(changed) < _moment(values[-1]):
                    return False
                continue
            if key in NO_FILTERS:
                continue
            if not self._agrees(item, key, values):
                return False
        return True

    def _agrees(self, item: Mapping[str, Any], key: str, values: tuple[str, ...]) -> bool:
        field_name = _ALIASES.get((self.service.layer, self.name, key), key)
        if field_name not in item:
            raise UnknownFilterError(key)
        value = item[field_name]
        if (self.service.layer, self.name, key) == ("nova", "servers", "name"):
            return any(re.search(pattern, str(value)) is not None for pattern in values)
        wanted: Iterable[str] = values
        if self.service.layer == "glance":
            wanted = [one for text in values for one in text.removeprefix("in:").split(",")]
        return any(_equal(value, text) for text in wanted)


def name_of(path: str) -> str:
    """Return the key of a path's list in a body."""
    name = path.removesuffix("/detail").rpartition("/")[2].replace("-", "_").removeprefix("os_")
    return {"instance_actions": "instanceActions"}.get(name, name)


def id_of(item: Mapping[str, Any]) -> str:
    """Return an item's id, under whichever key it is; empty if it has none."""
    key = item.get("id", item.get("uuid", item.get("request_id")))
    return str(key) if isinstance(key, str | int) else ""


def _paged(items: list[Mapping[str, Any]], query: Query) -> list[Mapping[str, Any]]:
    if marker := query.get("marker"):
        at = next((n for n, item in enumerate(items) if id_of(item) == marker[-1]), None)
        if at is None:
            raise UnknownMarkerError(marker[-1])
        items = items[at + 1 :]
    limit = query.get("limit", ("",))[-1]
    return items[: int(limit)] if limit.isdigit() and int(limit) else items


def _is_within(key: str, wanted: tuple[str, ...], recorded: tuple[str, ...]) -> bool:
    """True if a filter with the wanted values selects a part of what was recorded with others."""
    if key == "changes-since":
        return _moment(wanted[-1]) >= _moment(recorded[-1])
    return set(wanted) <= set(recorded)


def _moment(written: object) -> str:
    """Return a time in a form that can be compared: APIs differ in blanks, zones and fractions."""
    return str(written or "").replace("T", " ").rstrip("Z").partition(".")[0].partition("+")[0]


def _is_true(query: Query, key: str) -> bool:
    return query.get(key, ("",))[-1].lower() in ("1", "true", "yes")


def _equal(value: object, text: str) -> bool:
    if isinstance(value, bool):
        return str(value).lower() == text.lower()
    return str(value) == text or (value is None and text == "")
