"""The OpenStack APIs of a recorded cloud: keystone, nova, glance, neutron, cinder, placement.

The exact answer first, where the same was asked. Else what follows from a recorded list that holds
all that is asked for: OpenStack's APIs are regular enough for one engine (a list, one of it by its
id, filters, pages, fields). Else a refusal. A filter that is not known is refused, never ignored;
that something does not exist is said only where a whole list was recorded.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from hoodsnap.replay.recording import UNREADABLE, NotRecorded, Recording

_QUERY = re.compile(r"GET (?P<path>[^?\s]*)(?:\?(?P<query>\S*))?(?: \[(?P<version>[\d.]+)\])?")

Query = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Service:
    """One API: where its stand-in is reached, and how it spells things."""

    layer: str
    types: tuple[str, ...]
    prefix: str
    """Of its paths here; the recorded path follows."""
    endpoint: str
    """What the catalogue says."""
    header: str | None = None
    """Its name in `OpenStack-API-Version`; None if it has no microversions."""


SERVICES = (
    Service("nova", ("compute",), "/compute", "/compute/v2.1", "compute"),
    Service("glance", ("image",), "/image", "/image"),
    Service("neutron", ("network",), "/network", "/network"),
    Service("cinder", ("block-storage", "volumev3"), "/volume", "/volume/v3", "volume"),
    Service("placement", ("placement",), "/placement", "/placement", "placement"),
)

NO_FILTERS = frozenset(
    (
        *("all_tenants", "all_projects", "limit", "marker", "sort_key", "sort_dir", "sort"),
        *("fields", "deleted", "is_public", "page_reverse", "with_count", "detailed"),
    )
)
"""What a query may say that leaves out nothing of what was recorded. (Deleted ones are in no list,
private flavors and other projects' things in every list that was recorded as such.)"""

CHANGES: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("nova", "servers"): (
        *("2.3", "2.9", "2.16", "2.19", "2.26", "2.47", "2.63", "2.69", "2.71", "2.73", "2.75"),
        *("2.96", "2.98", "2.100"),
    ),
    ("nova", "flavors"): ("2.55", "2.61", "2.75"),
    ("nova", "os-hypervisors"): ("2.28", "2.53", "2.88"),
    ("nova", "os-services"): ("2.11", "2.53", "2.69"),
    ("nova", "os-migrations"): ("2.23", "2.59", "2.80"),
    ("nova", "os-server-groups"): ("2.13", "2.64"),
    ("nova", "os-instance-actions"): ("2.21", "2.51", "2.58", "2.62", "2.84"),
    ("nova", "os-aggregates"): ("2.41",),
}
"""The microversions that changed what is read of each (nova's REST API version history). Two with
none of these between them give the same answer."""

SINCE: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("cinder", "volumes"): {
        "group_id": "3.13",
        "provider_id": "3.21",
        "service_uuid": "3.48",
        "shared_targets": "3.48",
        "cluster_name": "3.61",
        "volume_type_id": "3.63",
        "encryption_key_id": "3.64",
        "consumes_quota": "3.65",
    },
    ("cinder", "snapshots"): {
        "group_snapshot_id": "3.14",
        "user_id": "3.41",
        "consumes_quota": "3.65",
    },
}
"""The microversions that only added a field (cinder's REST API version history): an answer in an
older one is the newer without it."""


class Refused(Exception):
    """An HTTP error, with the text that clients print."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class _Recorded:
    path: str
    query: Query
    version: str
    body: Any


@dataclass
class _Collection:
    """What was recorded of one kind of things."""

    lists: list[_Recorded] = field(default_factory=list)
    items: dict[str, dict[str, Mapping[str, Any]]] = field(default_factory=dict)
    """Id → microversion → the newest that was shown."""


class OpenStack:
    """Answers for one recorded cloud."""

    def __init__(self, recording: Recording, base: str) -> None:
        self._recording = recording
        self._base = base
        self._exact: dict[tuple[str, str], list[_Recorded]] = {}
        self._collections: dict[tuple[str, str], _Collection] = {}
        for service in SERVICES:
            for answer in recording.asked(service.layer, "GET "):
                if (found := _QUERY.fullmatch(answer.query)) is not None:
                    recorded = _Recorded(
                        unquote(found["path"]),
                        _parsed(found["query"] or ""),
                        found["version"] or _DEFAULTS.get(service.layer, ""),
                        answer.value,
                    )
                    with suppress(*UNREADABLE):
                        self._note(service, recorded)

    def _note(self, service: Service, recorded: _Recorded) -> None:
        self._exact.setdefault((service.layer, recorded.path), []).append(recorded)
        if not isinstance(recorded.body, dict):
            return
        path = recorded.path.removesuffix("/detail")
        name = _name_of(path)
        listed = recorded.body.get(name)
        if isinstance(listed, list):
            collection = self._collections.setdefault((service.layer, path), _Collection())
            collection.lists.append(recorded)
            for item in listed:
                if isinstance(item, dict) and (key := _id(item)):
                    collection.items.setdefault(key, {})[recorded.version] = item
        else:
            above = path.rpartition("/")[0]
            item = recorded.body
            if len(item) == 1 and isinstance(inner := next(iter(item.values())), dict):
                item = inner
            if _id(item) == path.rpartition("/")[2]:
                collection = self._collections.setdefault((service.layer, above), _Collection())
                collection.items.setdefault(_id(item), {})[recorded.version] = item

    # Requests.

    def answer(self, method: str, target: str, headers: Mapping[str, str]) -> tuple[int, Any, str]:
        """Status, body, and the microversion that it is in (empty: none)."""
        url = urlsplit(target)
        path, query = unquote(url.path).rstrip("/"), _parsed(url.query)
        if path in ("", "/v3") and method in ("GET", "HEAD"):
            return self._identity(path)
        if path == "/v3/auth/tokens":
            return (201 if method == "POST" else 200), self._token(), ""
        for service in SERVICES:
            if path == service.prefix or path.startswith(service.prefix + "/"):
                if method not in ("GET", "HEAD"):
                    text = f"hoodsnap: this is a recording, {method} changes nothing here"
                    raise Refused(403, text)
                wanted = _wanted(service, headers)
                return self._get(service, path.removeprefix(service.prefix), query, wanted)
        raise self._not_recorded("openstack", f"{method} {path}")

    def _get(self, service: Service, path: str, query: Query, wanted: str) -> tuple[int, Any, str]:
        path = _without_project(path)
        if (found := self._discovery(service, path)) is not None:
            return found
        if (exact := self._exactly(service, path, query, wanted)) is not None:
            return 200, exact.body, exact.version
        collection = self._collections.get((service.layer, path.removesuffix("/detail")))
        if collection is not None and collection.lists:
            return self._list(service, path, collection, query, wanted)
        above, _, key = path.rpartition("/")
        if key == "os-extra_specs" and (specs := self._specs(service, above)) is not None:
            return 200, {"extra_specs": specs}, wanted
        collection = self._collections.get((service.layer, above))
        if collection is not None:
            return self._one(service, above, key, collection, wanted)
        raise self._not_recorded(service.layer, f"GET {path}")

    def _exactly(self, service: Service, path: str, query: Query, wanted: str) -> _Recorded | None:
        for recorded in self._exact.get((service.layer, path), ()):
            if recorded.query == query and _same(service, path, recorded.version, wanted):
                return recorded
        return None

    def _list(
        self, service: Service, path: str, collection: _Collection, query: Query, wanted: str
    ) -> tuple[int, Any, str]:
        name = _name_of(path)
        whole = self._covering(service, collection, query, wanted)
        if whole is None:
            asked = ", ".join(f"{key}={','.join(said)}" for key, said in query.items())
            raise self._not_recorded(service.layer, f"the list {path} ({asked or 'all'})")
        items = {_id(item): item for page in whole for item in page.body[name]}
        chosen = [item for item in items.values() if self._is_chosen(service, name, item, query)]
        chosen = _paged(chosen, query)
        brief = (
            service.layer == "nova" and name in ("servers", "flavors") and path[-7:] != "/detail"
        )
        fields = query.get("fields", ())
        if brief:
            fields = ("id", "name", "links")
        if fields:
            chosen = [{key: item[key] for key in item if key in fields} for item in chosen]
        return 200, {name: chosen}, whole[-1].version

    def _covering(
        self, service: Service, collection: _Collection, query: Query, wanted: str
    ) -> list[_Recorded] | None:
        """The recorded pages that together hold everything that the query could choose."""
        for recorded in collection.lists:
            filters = {key: said for key, said in recorded.query.items() if key not in NO_FILTERS}
            narrower = all(
                key in query and _is_within(key, query[key], said) for key, said in filters.items()
            )
            if (
                narrower
                and "marker" not in recorded.query
                and _same(service, recorded.path, recorded.version, wanted)
            ):
                return [
                    other
                    for other in collection.lists
                    if {k: v for k, v in other.query.items() if k != "marker"} == recorded.query
                    and other.version == recorded.version
                    and other.path == recorded.path
                ]
        return None

    def _is_chosen(
        self, service: Service, name: str, item: Mapping[str, Any], query: Query
    ) -> bool:
        if (service.layer, name) in _PROJECTS and not _says_yes(query, "all_tenants"):
            # Without it an API shows what belongs to the project that asks.
            project = item.get(_PROJECTS[service.layer, name])
            if project is not None and project != self._project().get("id"):
                return False
        for key, said in query.items():
            if key == "changes-since":
                changed = item.get("updated_at") or item.get("updated") or item.get("start_time")
                if _moment(changed) < _moment(said[-1]):
                    return False
                continue
            if key in NO_FILTERS:
                continue
            if not self._agrees(service, name, item, key, said):
                return False
        return True

    def _agrees(
        self, service: Service, name: str, item: Mapping[str, Any], key: str, said: tuple[str, ...]
    ) -> bool:
        field_name = _ALIASES.get((service.layer, name, key), key)
        if field_name not in item:
            raise self._not_recorded(service.layer, f"{name} by {key}")
        value = item[field_name]
        if service.layer == "nova" and name == "servers" and key == "name":
            return any(re.search(pattern, str(value)) is not None for pattern in said)
        wanted: Iterable[str] = said
        if service.layer == "glance":
            wanted = [one for text in said for one in text.removeprefix("in:").split(",")]
        return any(_equal(value, text) for text in wanted)

    def _one(
        self, service: Service, above: str, key: str, collection: _Collection, wanted: str
    ) -> tuple[int, Any, str]:
        found = collection.items.get(key)
        if found is not None:
            same = [version for version in found if _same(service, above, version, wanted)]
            if not same:
                text = f"GET {above}/{key} in {wanted} (only in {', '.join(found)})"
                raise self._not_recorded(service.layer, text)
            version = same[-1]
            item = _as_of(service, above, found[version], wanted)
            if service.layer in ("glance", "placement"):
                return 200, item, version
            singular = above.rpartition("/")[2].replace("-", "_").removeprefix("os_")
            return 200, {_singular(singular): item}, version
        if any(not set(one.query) - NO_FILTERS for one in collection.lists):
            raise Refused(404, f"No {above.rpartition('/')[2]} with the id {key} was recorded")
        raise self._not_recorded(service.layer, f"GET {above}/{key}")

    def _specs(self, service: Service, path: str) -> Any:
        """The extra specs of a flavor, which newer microversions show with the flavor itself."""
        above, _, key = path.rpartition("/")
        collection = self._collections.get((service.layer, above))
        shown = collection.items.get(key, {}) if collection is not None else {}
        return next((item["extra_specs"] for item in shown.values() if "extra_specs" in item), None)

    def _not_recorded(self, client: str, what: str) -> Refused:
        self._recording.miss(client, what)
        return Refused(501, f"hoodsnap: {what} was not recorded")

    # Who asks, and what there is.

    def _identity(self, path: str) -> tuple[int, Any, str]:
        version = {
            "id": "v3.14",
            "status": "stable",
            "updated": "2020-04-07T00:00:00Z",
            "links": [{"rel": "self", "href": f"{self._base}/v3/"}],
            "media-types": [],
        }
        if path:
            return 200, {"version": version}, ""
        return 300, {"versions": {"values": [version]}}, ""

    def _project(self) -> Mapping[str, Any]:
        found = self._access().get("project")
        return found if isinstance(found, dict) else {}

    def _access(self) -> Mapping[str, Any]:
        """Who collected, as keystone told it."""
        try:
            value = self._recording.value("keystone", "GET /v3/auth/tokens")
        except NotRecorded:
            return {}
        token = value.get("token") if isinstance(value, dict) else None
        return token if isinstance(token, dict) else {}

    def _token(self) -> Any:
        """A token of this stand-in: it opens nothing else. Its owner is who collected."""
        access = self._access()
        domain = {"id": "default", "name": "Default"}
        catalog = [
            {
                "type": kind,
                "name": kind,
                "id": kind,
                "endpoints": [
                    {
                        "id": f"{kind}-{interface}",
                        "interface": interface,
                        "region": region,
                        "region_id": region,
                        "url": self._base + service.endpoint,
                    }
                    for interface in ("public", "internal", "admin")
                ],
            }
            for region in ("RegionOne",)
            for service in SERVICES
            for kind in service.types
        ]
        return {
            "token": {
                "methods": ["password"],
                "user": {
                    "domain": domain,
                    **(access.get("user") or {"id": "recorded", "name": "recorded"}),
                },
                "project": {
                    "domain": domain,
                    **(access.get("project") or {"id": "recorded", "name": "recorded"}),
                },
                "roles": access.get("roles") or [{"id": "reader", "name": "reader"}],
                "audit_ids": ["hoodsnap"],
                "is_domain": False,
                "issued_at": "2000-01-01T00:00:00.000000Z",
                "expires_at": "2999-01-01T00:00:00.000000Z",
                "catalog": catalog,
            }
        }

    def _discovery(self, service: Service, path: str) -> tuple[int, Any, str] | None:
        """The documents from which clients learn what versions there are."""
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

    def _moved(self, service: Service, body: Any) -> Any:
        """A discovery document with links that lead here: clients follow them."""
        text = json.dumps(body)
        where = self._base + service.prefix
        return json.loads(
            re.sub(r'https?://[^/"]+(?::\d+)?(?:/(?!v\d)[\w-]+)?(?=/|")', where, text)
        )


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


def server(recording: Recording, listener: socket.socket) -> ThreadingHTTPServer:
    """Keystone, with the others behind it, on a socket that listens; `serve_forever` answers."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                status, body, version = stand_in.answer(
                    self.command, self.path, dict(self.headers.items())
                )
            except Refused as refusal:
                status, version = refusal.status, ""
                body = {"error": {"message": str(refusal), "code": status, "title": "recording"}}
            except UNREADABLE as error:
                status, version = 501, ""
                text = f"hoodsnap: what was recorded can't be read: {error!r}"
                body = {"error": {"message": text, "code": status, "title": "recording"}}
            data = b"" if body is None else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            if self.path.startswith("/v3/auth/tokens"):
                self.send_header("X-Subject-Token", "recorded")
            if version:
                for service in SERVICES:
                    if service.header and self.path.startswith(service.prefix):
                        self.send_header("OpenStack-API-Version", f"{service.header} {version}")
                        if service.layer == "nova":
                            self.send_header("X-OpenStack-Nova-API-Version", version)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = _answer

        def log_message(self, format: str, *args: object) -> None:
            pass  # nobody asked for a list of requests

    host, port = listener.getsockname()
    found = ThreadingHTTPServer((host, port), Handler, bind_and_activate=False)
    found.socket.close()
    found.socket, found.server_name, found.server_port = listener, host, port
    stand_in = OpenStack(recording, f"http://127.0.0.1:{found.server_port}")
    return found


def _parsed(query: str) -> Query:
    found: dict[str, tuple[str, ...]] = {}
    for key, said in parse_qsl(query, keep_blank_values=True):
        found[key] = (*found.get(key, ()), said)
    return found


def _name_of(path: str) -> str:
    """What the list is called in the body."""
    name = path.removesuffix("/detail").rpartition("/")[2].replace("-", "_").removeprefix("os_")
    return {"instance_actions": "instanceActions"}.get(name, name)


def _id(item: Mapping[str, Any]) -> str:
    key = item.get("id", item.get("uuid", item.get("request_id")))
    return str(key) if isinstance(key, str | int) else ""


def _singular(name: str) -> str:
    return {"networks": "network", "policies": "policy"}.get(name, name.removesuffix("s"))


def _wanted(service: Service, headers: Mapping[str, str]) -> str:
    """The microversion that is asked for; without one, what the API speaks then."""
    named = {key.lower(): value for key, value in headers.items()}
    said = named.get("openstack-api-version") or ""
    name, _, number = said.partition(" ")
    if name == service.header and number:
        return number.strip()
    if service.layer == "nova":
        return headers.get("X-OpenStack-Nova-API-Version") or "2.1"
    return _DEFAULTS.get(service.layer, "")


_DEFAULTS = {"nova": "2.1", "cinder": "3.0", "placement": "1.0"}
"""What an API speaks to clients that name no microversion."""


def _as_of(service: Service, path: str, item: Mapping[str, Any], wanted: str) -> Mapping[str, Any]:
    """One thing as an older microversion shows it: without the fields that came later."""
    since = SINCE.get((service.layer, path.removesuffix("/detail").rpartition("/")[2]), {})
    later = {name for name, number in since.items() if _number(wanted) < _number(number)}
    return {name: value for name, value in item.items() if name not in later}


def _same(service: Service, path: str, recorded: str, wanted: str) -> bool:
    """Whether an answer in one microversion is that in another."""
    if recorded == wanted or wanted == "latest" or not recorded:
        return True
    changes = CHANGES.get((service.layer, path.removesuffix("/detail").rpartition("/")[2]))
    if changes is None:
        return service.layer != "nova"
    low, high = sorted((_number(recorded), _number(wanted)))
    return not any(low < _number(change) <= high for change in changes)


def _number(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)


def _without_project(path: str) -> str:
    """Older endpoints have the project's id in their paths."""
    return re.sub(r"^(/v\d(?:\.\d)?)/[0-9a-f]{32}(?=/|$)", r"\1", path)


def _paged(items: list[Mapping[str, Any]], query: Query) -> list[Mapping[str, Any]]:
    if marker := query.get("marker"):
        at = next((n for n, item in enumerate(items) if _id(item) == marker[-1]), None)
        if at is None:
            raise Refused(400, f"marker [{marker[-1]}] not found")
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
