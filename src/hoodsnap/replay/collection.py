"""What was recorded of one kind of things in an API: lists, and single ones.

OpenStack's APIs are regular enough for one engine: a list, one of it by its id, filters, pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hoodsnap.replay import microversions
from hoodsnap.replay.services import ReplayedApi

Query = Mapping[str, tuple[str, ...]]
"""What stands behind the question mark: each name with all that was given for it."""

NO_FILTERS = frozenset(
    (
        *("all_tenants", "all_projects", "limit", "marker", "sort_key", "sort_dir", "sort"),
        *("fields", "deleted", "is_public", "page_reverse", "with_count", "detailed"),
    )
)
"""What a query may say that leaves out nothing of what was recorded. (Deleted ones are in no list,
private flavors and other projects' things in every list that was recorded as such.)"""

_PROJECTS = {
    ("nova", "servers"): "tenant_id",
    ("cinder", "volumes"): "os-vol-tenant-attr:tenant_id",
    ("cinder", "snapshots"): "os-extended-snapshot-attributes:project_id",
}
"""Where each thing says whose it is."""

_ALIASES = {
    ("nova", "servers", "host"): "OS-EXT-SRV-ATTR:host",
    ("nova", "servers", "tenant_id"): "tenant_id",
    ("nova", "servers", "project_id"): "tenant_id",
    ("cinder", "volumes", "project_id"): "os-vol-tenant-attr:tenant_id",
    ("neutron", "ports", "tenant_id"): "project_id",
}
"""The filters that have another name than the field that they look at."""


class UnknownFilterError(Exception):
    """A filter that looks at a field that was not recorded. The text is its name."""


class UnknownMarkerError(Exception):
    """A page after something that is not in the list. The text is its id."""


@dataclass(frozen=True)
class Recorded:
    """One answer."""

    path: str
    query: Query
    version: str
    body: Any


@dataclass
class Collection:
    """All that was recorded under one path."""

    service: ReplayedApi
    path: str
    """Without `/detail`."""
    lists: list[Recorded] = field(default_factory=list)
    items: dict[str, dict[str, Mapping[str, Any]]] = field(default_factory=dict)
    """Id → microversion → the newest that was shown."""

    @property
    def name(self) -> str:
        """What its list is called in a body."""
        return name_of(self.path)

    @property
    def is_whole(self) -> bool:
        """Whether a list of all that there are was recorded."""
        return any(not set(recorded.query) - NO_FILTERS for recorded in self.lists)

    def add_list(self, recorded: Recorded, listed: Iterable[Any]) -> None:
        """A list, or a page of one."""
        self.lists.append(recorded)
        for item in listed:
            if isinstance(item, dict) and (key := id_of(item)):
                self.items.setdefault(key, {})[recorded.version] = item

    def add_item(self, recorded: Recorded, item: Mapping[str, Any]) -> None:
        """A single one."""
        self.items.setdefault(id_of(item), {})[recorded.version] = item

    def covering(self, query: Query, wanted: str) -> list[Recorded] | None:
        """The recorded pages that together hold everything that the query could choose."""
        for recorded in self.lists:
            filters = {key: said for key, said in recorded.query.items() if key not in NO_FILTERS}
            narrower = all(
                key in query and _is_within(key, query[key], said) for key, said in filters.items()
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
        """What a query of a project's user chooses. Raises `UnknownFilterError`,
        `UnknownMarkerError`."""
        items = {id_of(item): item for page in pages for item in page.body[self.name]}
        found = [item for item in items.values() if self._is_chosen(item, query, project)]
        return _paged(found, query)

    def _is_chosen(self, item: Mapping[str, Any], query: Query, project: object) -> bool:
        owner = None
        if not _says_yes(query, "all_tenants"):
            # Without it an API shows what belongs to the project that asks.
            owner = _PROJECTS.get((self.service.layer, self.name))
        if owner is not None and item.get(owner) not in (None, project):
            return False
        for key, said in query.items():
            if key == "changes-since":
                changed = item.get("updated_at") or item.get("updated") or item.get("start_time")
                if _moment(changed) < _moment(said[-1]):
                    return False
                continue
            if key in NO_FILTERS:
                continue
            if not self._agrees(item, key, said):
                return False
        return True

    def _agrees(self, item: Mapping[str, Any], key: str, said: tuple[str, ...]) -> bool:
        field_name = _ALIASES.get((self.service.layer, self.name, key), key)
        if field_name not in item:
            raise UnknownFilterError(key)
        value = item[field_name]
        if (self.service.layer, self.name, key) == ("nova", "servers", "name"):
            return any(re.search(pattern, str(value)) is not None for pattern in said)
        wanted: Iterable[str] = said
        if self.service.layer == "glance":
            wanted = [one for text in said for one in text.removeprefix("in:").split(",")]
        return any(_equal(value, text) for text in wanted)


def name_of(path: str) -> str:
    """What the list is called in the body."""
    name = path.removesuffix("/detail").rpartition("/")[2].replace("-", "_").removeprefix("os_")
    return {"instance_actions": "instanceActions"}.get(name, name)


def id_of(item: Mapping[str, Any]) -> str:
    """Its id, whatever that is called; empty if it has none."""
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


def _is_within(key: str, wanted: tuple[str, ...], said: tuple[str, ...]) -> bool:
    """Whether what one value of a filter chooses is among what another has chosen."""
    if key == "changes-since":
        return _moment(wanted[-1]) >= _moment(said[-1])
    return set(wanted) <= set(said)


def _moment(written: object) -> str:
    """A time in a form that can be compared: APIs differ in blanks, zones and fractions."""
    return str(written or "").replace("T", " ").rstrip("Z").partition(".")[0].partition("+")[0]


def _says_yes(query: Query, key: str) -> bool:
    return query.get(key, ("",))[-1].lower() in ("1", "true", "yes")


def _equal(value: object, text: str) -> bool:
    if isinstance(value, bool):
        return str(value).lower() == text.lower()
    return str(value) == text or (value is None and text == "")
