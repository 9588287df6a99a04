"""Stand-in for a recorded cloud's APIs: keystone, nova, glance, neutron, cinder, placement.

A request gets the recorded answer to the same request, if there is one; else an answer derived from
a recorded list that covers the request; else a refusal. An unknown filter is refused, never
ignored. A 404 is returned only if an unfiltered list was recorded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from hoodsnap.replay.apis import microversions
from hoodsnap.replay.apis.collection import (
    Collection,
    Query,
    Recorded,
    UnknownFilterError,
    UnknownMarkerError,
    id_of,
    name_of,
)
from hoodsnap.replay.apis.keystone import Keystone
from hoodsnap.replay.apis.services import SERVICES, ReplayedApi
from hoodsnap.replay.recording import UNREADABLE, Recording

_QUERY = re.compile(r"GET (?P<path>[^?\s]*)(?:\?(?P<query>\S*))?(?: \[(?P<version>[\d.]+)\])?")

_CUT_OFF = 1000
"""Largest number of items in one list of nova (`max_limit`): a list this long may be incomplete."""

Reply = tuple[int, Any, str]
"""Status, body, and microversion of the body (empty: none)."""


class ApiError(Exception):
    """An HTTP error, with the text that clients show."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class OpenStack:
    """Stand-in for the APIs of one recorded cloud."""

    def __init__(self, recording: Recording, base: str) -> None:
        self._recording = recording
        self._base = base
        self._keystone = Keystone(recording, base)
        self._exact: dict[tuple[str, str], list[Recorded]] = {}
        self._collections: dict[tuple[str, str], Collection] = {}
        for service in SERVICES:
            for answer in recording.asked(service.layer, "GET "):
                if (found := _QUERY.fullmatch(answer.query)) is not None:
                    recorded = Recorded(
                        unquote(found["path"]),
                        _parsed(found["query"] or ""),
                        found["version"] or microversions.DEFAULTS.get(service.layer, ""),
                        answer.value,
                    )
                    with suppress(*UNREADABLE):
                        self._note(service, recorded)

    def _note(self, service: ReplayedApi, recorded: Recorded) -> None:
        self._exact.setdefault((service.layer, recorded.path), []).append(recorded)
        if not isinstance(recorded.body, dict):
            return
        path = recorded.path.removesuffix("/detail")
        listed = recorded.body.get(name_of(path))
        if isinstance(listed, list):
            self._collection(service, path).add_list(recorded, listed)
            return
        above, _, key = path.rpartition("/")
        item = recorded.body
        if len(item) == 1 and isinstance(inner := next(iter(item.values())), dict):
            item = inner
        if id_of(item) == key:
            self._collection(service, above).add_item(recorded, item)

    def _collection(self, service: ReplayedApi, path: str) -> Collection:
        return self._collections.setdefault((service.layer, path), Collection(service, path))

    def answer(self, method: str, target: str, headers: Mapping[str, str]) -> Reply:
        """Return the reply to one request. Raises `ApiError`."""
        url = urlsplit(target)
        path, query = unquote(url.path).rstrip("/"), _parsed(url.query)
        if path in ("", "/v3") and method in ("GET", "HEAD"):
            return self._keystone.discovery(path)
        if path == "/v3/auth/tokens":
            return (201 if method == "POST" else 200), self._keystone.token(), ""
        for service in SERVICES:
            if path == service.prefix or path.startswith(service.prefix + "/"):
                if method not in ("GET", "HEAD"):
                    text = f"hoodsnap: {method} can't change a recording"
                    raise ApiError(403, text)
                wanted = microversions.wanted_by(service, headers)
                return self._get(service, path.removeprefix(service.prefix), query, wanted)
        raise self._not_recorded("openstack", f"{method} {path}")

    def _get(self, service: ReplayedApi, path: str, query: Query, wanted: str) -> Reply:
        path = _without_project(path)
        if (found := self._discovery(service, path)) is not None:
            return found
        if (exact := self._exactly(service, path, query, wanted)) is not None:
            return 200, exact.body, exact.version
        collection = self._collections.get((service.layer, path.removesuffix("/detail")))
        if collection is not None and collection.lists:
            return self._list(path, collection, query, wanted)
        above, _, key = path.rpartition("/")
        if key == "os-extra_specs" and (specs := self._specs(service, above)) is not None:
            return 200, {"extra_specs": specs}, wanted
        collection = self._collections.get((service.layer, above))
        if collection is not None:
            return self._one(key, collection, wanted)
        raise self._not_recorded(service.layer, f"GET {path}")

    def _exactly(
        self, service: ReplayedApi, path: str, query: Query, wanted: str
    ) -> Recorded | None:
        for recorded in self._exact.get((service.layer, path), ()):
            same = microversions.same(service, path, recorded.version, wanted)
            if recorded.query == query and same:
                return recorded
        return None

    def _list(self, path: str, collection: Collection, query: Query, wanted: str) -> Reply:
        layer, name = collection.service.layer, collection.name
        pages = collection.covering(query, wanted)
        if pages is None:
            asked = ", ".join(f"{key}={','.join(values)}" for key, values in query.items())
            raise self._not_recorded(layer, f"the list {path} ({asked or 'all'})")
        try:
            chosen = collection.chosen(pages, query, self._keystone.project.get("id"))
        except UnknownFilterError as unknown:
            raise self._not_recorded(layer, f"{name} by {unknown}") from None
        except UnknownMarkerError as unknown:
            raise ApiError(400, f"marker [{unknown}] not found") from None
        fields = query.get("fields", ())
        if layer == "nova" and name in ("servers", "flavors") and not path.endswith("/detail"):
            fields = ("id", "name", "links")
        if fields:
            chosen = [{key: item[key] for key in item if key in fields} for item in chosen]
        return 200, {name: chosen}, pages[-1].version

    def _one(self, key: str, collection: Collection, wanted: str) -> Reply:
        service, path = collection.service, collection.path
        kind = path.rpartition("/")[2]
        found = collection.items.get(key)
        if found is not None:
            same = [each for each in found if microversions.same(service, path, each, wanted)]
            if not same:
                text = f"GET {path}/{key} in microversion {wanted} (only in {', '.join(found)})"
                raise self._not_recorded(service.layer, text)
            version = microversions.newest(same)
            item = microversions.as_of(service, path, found[version], wanted)
            if (service.layer, kind) == ("nova", "servers"):
                item = {**self._groups_of(key, path, version), **item}
            if service.layer in ("glance", "placement"):
                return 200, item, version
            return 200, {_singular(kind.replace("-", "_").removeprefix("os_")): item}, version
        if collection.is_whole:
            raise ApiError(404, f"hoodsnap: the recorded list {path} has no {key}")
        raise self._not_recorded(service.layer, f"GET {path}/{key}")

    def _groups_of(self, uuid: str, path: str, version: str) -> Mapping[str, Any]:
        """Return the field with a server's groups, derived from the list of all groups.

        Lists of servers lack this field; nova shows it only for a single server.
        """
        groups = self._collections.get(("nova", path.replace("servers", "os-server-groups")))
        if groups is None or not groups.is_whole or not microversions.since(version, "2.71"):
            return {}
        listed = {key: shown[microversions.newest(shown)] for key, shown in groups.items.items()}
        if len(listed) >= _CUT_OFF:
            return {}
        theirs = [key for key, group in listed.items() if uuid in group.get("members", ())]
        return {"server_groups": theirs}

    def _specs(self, service: ReplayedApi, path: str) -> Any:
        """Return a flavor's extra specs, which newer microversions include in the flavor."""
        above, _, key = path.rpartition("/")
        collection = self._collections.get((service.layer, above))
        shown = collection.items.get(key, {}) if collection is not None else {}
        return next((item["extra_specs"] for item in shown.values() if "extra_specs" in item), None)

    def _not_recorded(self, client: str, what: str) -> ApiError:
        self._recording.miss(client, what)
        return ApiError(501, f"hoodsnap: {what} was not recorded")

    def _discovery(self, service: ReplayedApi, path: str) -> Reply | None:
        """Return a document that lists versions; None if the path is not that of one."""
        roots = {
            "nova": ("/v2.1",),
            "cinder": ("", "/v3"),
            "glance": ("", "/v2"),
            "neutron": ("", "/v2.0"),
            "placement": ("",),
        }
        if path not in roots[service.layer]:
            return None
        for recorded_path in (path + "/", path):
            for recorded in self._exact.get((service.layer, recorded_path), ()):
                return 200, self._moved(service, recorded.body), ""
        version = {
            "glance": ("v2.9", "/image/v2/"),
            "neutron": ("v2.0", "/network/v2.0/"),
        }.get(service.layer)
        if version is None:
            found = self._exact.get((service.layer, "/v3/"), ())
            if path == "" and found:
                return 300, self._moved(service, found[0].body), ""
            raise self._not_recorded(service.layer, f"GET {path or '/'}")
        number, href = version
        links = [{"rel": "self", "href": self._base + href}]
        return 200, {"versions": [{"id": number, "status": "CURRENT", "links": links}]}, ""

    def _moved(self, service: ReplayedApi, body: Any) -> Any:
        """Rewrite the links of a discovery document to lead here, because clients follow them."""
        text = json.dumps(body)
        where = self._base + service.prefix
        return json.loads(
            re.sub(r'https?://[^/"]+(?::\d+)?(?:/(?!v\d)[\w-]+)?(?=/|")', where, text)
        )


def _parsed(query: str) -> Query:
    found: dict[str, tuple[str, ...]] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        found[key] = (*found.get(key, ()), value)
    return found


def _singular(name: str) -> str:
    return {"networks": "network", "policies": "policy"}.get(name, name.removesuffix("s"))


def _without_project(path: str) -> str:
    """Remove the project's id, which older endpoints have in their paths."""
    return re.sub(r"^(/v\d(?:\.\d)?)/[0-9a-f]{32}(?=/|$)", r"\1", path)
