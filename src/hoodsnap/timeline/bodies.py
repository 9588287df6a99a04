"""Times in the bodies of the APIs: servers, actions, ports, agents, volumes and images.

All of them are UTC, by the clocks of the services. What nova's databases have too is taken from
there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from hoodsnap.bundle import Answer
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.fact import caught
from hoodsnap.facts.layer import CINDER, GLANCE, NEUTRON, NOVA
from hoodsnap.timeline.event import Event
from hoodsnap.timeline.people import People

Body = Mapping[str, object]


class _Kind(NamedTuple):
    """One kind of object in an API's lists."""

    layer: str
    words: Callable[[Body], str]
    """Name of the object in sentences."""
    times: Mapping[str, Callable[[Body], str]]
    """Field with a time → what happened then."""
    servers: Callable[[Body], tuple[object, ...]] = lambda body: ()
    """UUIDs of the servers that it belongs to."""
    of_host: bool = False
    """True if its `host` is the host that it runs on."""


def _plain(words: str) -> Callable[[Body], str]:
    return lambda body: words


def _status(body: Body) -> str:
    return f"last updated: {body.get('status')}"


def _port(body: Body) -> str:
    return f"port {_short(body.get('id'))}"


def _short(id: object) -> str:
    return f"{str(id)[:8]}…"


def _floating(body: Body) -> str:
    return f"floating IP {body.get('floating_ip_address')}"


def _service(body: Body) -> str:
    return f"{body.get('binary')} on {body.get('host')}"


def _server_of_port(body: Body) -> tuple[object, ...]:
    mine = str(body.get("device_owner")).startswith("compute:")
    return (body.get("device_id"),) if mine else ()


def _server_of_floating(body: Body) -> tuple[object, ...]:
    port = body.get("port_details")
    return _server_of_port(port) if isinstance(port, dict) else ()


def _servers_of_volume(body: Body) -> tuple[object, ...]:
    attached = body.get("attachments")
    entries = attached if isinstance(attached, list) else []
    return tuple(entry.get("server_id") for entry in entries if isinstance(entry, dict))


_KINDS: Mapping[tuple[str, str], _Kind] = {
    (NEUTRON.id, "ports"): _Kind(
        NEUTRON.id,
        _port,
        {"created_at": _plain("created"), "updated_at": _status},
        _server_of_port,
    ),
    (NEUTRON.id, "floatingips"): _Kind(
        NEUTRON.id,
        _floating,
        {"created_at": _plain("created"), "updated_at": _status},
        _server_of_floating,
    ),
    (NEUTRON.id, "agents"): _Kind(
        NEUTRON.id,
        _service,
        {"started_at": _plain("started"), "heartbeat_timestamp": _plain("last heartbeat")},
        of_host=True,
    ),
    (CINDER.id, "volumes"): _Kind(
        CINDER.id,
        lambda body: f"volume {body.get('name') or _short(body.get('id'))}",
        {"created_at": _plain("created"), "updated_at": _status},
        _servers_of_volume,
    ),
    (CINDER.id, "snapshots"): _Kind(
        CINDER.id,
        lambda body: f"snapshot {body.get('name') or _short(body.get('id'))}",
        {"created_at": _plain("created"), "updated_at": _status},
    ),
    (CINDER.id, "attachments"): _Kind(
        CINDER.id,
        lambda body: f"volume {_short(body.get('volume_id'))}",
        {"attached_at": _plain("attached"), "detached_at": _plain("detached")},
        lambda body: (body.get("instance"),),
    ),
    (CINDER.id, "services"): _Kind(
        CINDER.id, _service, {"updated_at": _plain("last heartbeat")}, of_host=True
    ),
    (GLANCE.id, "images"): _Kind(
        GLANCE.id,
        lambda body: f"image {body.get('name') or body.get('id')}",
        {"created_at": _plain("created"), "updated_at": _status},
    ),
}
"""(layer, key of the list) → the kind of its objects."""

_SERVER = _Kind(
    NOVA.id,
    lambda body: "server",
    {
        "created": _plain("created"),
        "updated": _status,
        "OS-SRV-USG:launched_at": _plain("launched"),
        "OS-SRV-USG:terminated_at": _plain("terminated"),
    },
    lambda body: (body.get("id"),),
)
_MIGRATION = _Kind(
    NOVA.id,
    lambda body: (
        f"{body.get('migration_type') or 'migration'} {body.get('id')} from"
        f" {body.get('source_compute')} to {body.get('dest_compute')}"
    ),
    {"created_at": _plain("created"), "updated_at": _status},
    lambda body: (body.get("instance_uuid"),),
)
_SERVICE = _Kind(NOVA.id, _service, {"updated_at": _plain("last heartbeat")}, of_host=True)


def events(cloud: Cloud) -> Iterator[Event]:
    """Yield an event for each time in the newest body of each object."""
    people = People(cloud.bundle)
    known = cloud.instances
    kinds = dict(_KINDS)
    kinds[(NOVA.id, "servers")] = _SERVER
    if not any(table == "migrations" for _, table in known.tables.rows):
        kinds[(NOVA.id, "migrations")] = _MIGRATION
    if not any(table == "services" for _, table in known.tables.rows):
        kinds[(NOVA.id, "services")] = _SERVICE
    asked_actions = any(table == "instance_actions" for _, table in known.tables.rows)
    newest: dict[tuple[str, str, str], tuple[Answer, _Kind, Body]] = {}
    for answer, key, body in _bodies(cloud):
        if key == "instanceActions" and answer.layer == NOVA.id:
            if not asked_actions:
                yield from _netted(_Kind(NOVA.id, _action(people), _ACTION, _OWNER), body, answer)
        elif (kind := kinds.get((answer.layer, key))) is not None:
            if kind is _SERVER and str(body.get("id")).lower() in known.by_uuid:
                continue
            newest[(answer.layer, key, _id(body))] = answer, kind, body
    for answer, kind, body in newest.values():
        yield from _netted(kind, body, answer)


def _id(body: Body) -> str:
    """Return the key of an object; services have no id in old releases, others no binary."""
    return f"{body.get('id') or ''} {body.get('binary') or ''} {body.get('host') or ''}"


_OWNER: Callable[[Body], tuple[object, ...]] = lambda body: (body.get("instance_uuid"),)  # noqa: E731
_ACTION: Mapping[str, Callable[[Body], str]] = {"start_time": _plain("requested")}


def _action(people: People) -> Callable[[Body], str]:
    def words(body: Body) -> str:
        who = people.who(body.get("user_id"), body.get("project_id"))
        return f"{body.get('action')} {who} ({body.get('request_id')})"

    return words


def _bodies(cloud: Cloud) -> Iterator[tuple[Answer, str, Body]]:
    for answer in cloud.bundle.answers:
        if answer.layer in (NOVA.id, NEUTRON.id, CINDER.id, GLANCE.id):
            value = answer.value if isinstance(answer.value, dict) else {}
            for key, items in value.items():
                for body in items if isinstance(items, list) else ():
                    if isinstance(body, dict):
                        yield answer, key, body


def _netted(kind: _Kind, body: Body, answer: Answer) -> Iterator[Event]:
    try:
        yield from tuple(_of(kind, body, answer))
    except Exception as error:  # a net: a value of an unexpected type costs its object
        caught(error)


def _of(kind: _Kind, body: Body, answer: Answer) -> Iterator[Event]:
    host = body.get("host") if kind.of_host else None
    servers = [one.lower() for one in kind.servers(body) if isinstance(one, str) and one]
    for field, words in kind.times.items():
        at = moment(body.get(field))
        if at is None or (field == "updated_at" and body.get(field) == body.get("created_at")):
            continue
        what = f"{kind.words(body)} {words(body)}"
        for server in servers or (None,):
            yield Event(
                at,
                kind.layer,
                what,
                answer,
                server=server,
                host=host if isinstance(host, str) else None,
                is_detail=field == "created_at" and kind.layer == NEUTRON.id,
                kind="last heartbeat" if "heartbeat" in words(body) else "",
                is_failure=str(body.get("status")).lower() == "error" and words is _status,
            )
