"""Movement: instances and domains that changed while they were captured.

A few cheap queries (the markers) run first and again at the end. An object that differs between the
last two snapshots was captured in the middle of a change, so its answers prove nothing. Objects
that disappeared between two snapshots are not queried again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from hoodsnap.bundle import Answer
from hoodsnap.facts.api.server import LISTS, ONE

INSTANCE_MARKERS = (
    "host",
    "node",
    "vm_state",
    "task_state",
    "power_state",
    "updated_at",
    "deleted",
)
"""Columns of `instances` that change when nova acts on an instance."""

MIGRATION_MARKERS = ("status", "updated_at")
"""Columns of `migrations` that change during a migration."""

MAPPING_MARKERS = ("updated_at", "volume_id", "attachment_id", "deleted")
"""Columns of `block_device_mapping` that change; attaching a volume changes nothing else."""

SERVER_MARKERS = ("status", "OS-EXT-STS:task_state", "OS-EXT-STS:power_state", "updated")
"""The corresponding fields in the API, which are visible without a database password."""

_ROWS = re.compile(
    # Before Queens a migration has no UUID.
    r"SELECT (?:uuid|status|updated_at), .* FROM \S+\."
    r"`?(?P<table>instances|migrations|block_device_mapping)`?(?:\s|$)",
    re.DOTALL,
)

_NUMBERED = {
    "migrations": ("migration", MIGRATION_MARKERS),
    "block_device_mapping": ("block device", MAPPING_MARKERS),
}
"""Table with several rows per instance → name of a row, and the columns that change in it."""

_Snapshot = dict[str, dict[str, object]]
"""UUID → marker → value."""


def moved(answers: Iterable[Answer]) -> dict[str, str]:
    """Return UUID → change between the last two snapshots: `vm_state active → stopped`."""
    series_of: dict[str, list[_Snapshot]] = {}
    for answer in answers:
        for source, snapshot in _snapshots(answer):
            series_of.setdefault(source, []).append(snapshot)
    found: dict[str, str] = {}
    for series in series_of.values():
        if len(series) < 2:
            continue
        before, after = series[-2:]
        # A UUID that is missing in the later snapshot is gone: both cover the same objects.
        for uuid in sorted(before.keys() | after.keys()):
            change = _change(before.get(uuid), after.get(uuid))
            if change:
                found.setdefault(uuid, change)
    return found


def gone(answers: Iterable[Answer]) -> dict[str, str]:
    """Return the UUIDs of servers that one snapshot contains, but neither the next nor a later one.

    Their rows were archived or purged; without a database, the API no longer lists them.
    """
    before: dict[str, set[str]] = {}
    rows: set[str] = set()
    missed: dict[str, set[str]] = {"nova-db": set(), "nova": set()}
    for answer in answers:
        for source, snapshot in _lists(answer):
            missed[answer.layer] |= before.get(source, set()) - snapshot
            missed[answer.layer] -= snapshot
            before[source] = snapshot
            rows |= snapshot if answer.layer == "nova-db" else set()
    return dict.fromkeys(sorted(missed["nova-db"] | (missed["nova"] - rows)), "it disappeared")


def _lists(answer: Answer) -> Iterator[tuple[str, set[str]]]:
    if answer.error is not None:
        return
    if answer.layer == "nova-db" and (found := _ROWS.match(answer.query)):
        if found["table"] == "instances":
            for source, snapshot in _rows(answer.query, found["table"], answer.value):
                yield f"{answer.host} {source}", {*snapshot}
    elif (
        answer.layer == "nova"
        and LISTS.match(answer.query)
        and (servers := _servers(answer.value)) is not None
    ):
        found_there = {str(server.get("id")).lower() for server in servers}
        yield f"{answer.host} {answer.query}", found_there


def _snapshots(answer: Answer) -> Iterator[tuple[str, _Snapshot]]:
    if answer.error is not None and answer.error.kind != "absent":
        return
    value, query = answer.value, answer.query
    if answer.layer == "nova-db" and (found := _ROWS.match(query)):
        yield from _rows(f"{answer.host} {answer.layer} {query}", found["table"], value)
    elif answer.layer == "libvirt" and query == "virsh list --all":
        if (domains := _domains(value)) is not None:
            yield f"{answer.host} {query}", domains
    elif answer.layer == "libvirt" and query.startswith("virsh domstate "):
        snapshot: _Snapshot = {} if answer.error else {answer.subject or "": {"state": str(value)}}
        if answer.error or isinstance(value, dict):
            yield f"{answer.host} {query}", snapshot
    elif answer.layer == "nova" and (LISTS.match(query) or ONE.match(query)):
        for server in _servers(value) or ():
            uuid = str(server.get("id")).lower()
            # A tenant sees less of a server than an administrator.
            seen = {name: server[name] for name in SERVER_MARKERS if name in server}
            yield f"{answer.host} nova {uuid}", {uuid: seen}


def _rows(source: str, table: str, value: object) -> Iterator[tuple[str, _Snapshot]]:
    if not isinstance(value, dict):
        return
    columns, rows = value.get("columns"), value.get("rows")
    if not isinstance(columns, list) or not isinstance(rows, list):
        return
    snapshot: _Snapshot = {}
    for row in rows:
        if not isinstance(row, list) or len(row) != len(columns):
            return  # absence from a partially readable snapshot would prove nothing
        cells = {str(name): cell for name, cell in zip(columns, row, strict=True)}
        if table in ("migrations", "block_device_mapping"):
            uuid, number = cells.get("instance_uuid"), cells.get("id")
            what, names = _NUMBERED[table]
            markers = {f"{what} {number} {name}": cells.get(name) for name in names}
        else:
            uuid, markers = (
                cells.get("uuid"),
                {name: cells.get(name) for name in INSTANCE_MARKERS},
            )
        if isinstance(uuid, dict | list):
            return
        seen = snapshot.setdefault(str(uuid).lower(), {})
        seen.update(markers)
        if table == "block_device_mapping":  # an added or removed row is a change, too
            seen["block devices"] = f"{seen.get('block devices', '')} {number}".lstrip()
    yield source, snapshot


def _domains(value: object) -> _Snapshot | None:
    """Return the domains of a list; None if it can't be read as a whole, because absence from a
    partial list would prove nothing."""
    if not isinstance(value, list):
        return None
    snapshot: _Snapshot = {}
    for domain in value:
        if not isinstance(domain, dict) or not isinstance(domain.get("uuid"), str):
            return None
        snapshot[domain["uuid"]] = {"id": domain.get("id")}
    return snapshot


def _servers(value: object) -> list[dict[str, object]] | None:
    """Return the servers of an answer; None if they can't be read as a whole."""
    servers = value.get("servers", [value.get("server")]) if isinstance(value, dict) else None
    if not isinstance(servers, list):
        return None
    if not all(isinstance(one, dict) and isinstance(one.get("id"), str) for one in servers):
        return None
    return servers


def _change(before: dict[str, object] | None, after: dict[str, object] | None) -> str:
    if before is None or after is None:
        return "it appeared" if before is None else "it disappeared"
    for name, value in after.items():
        if name in before and before[name] != value:
            return f"{name} {_word(before.get(name))} → {_word(value)}"
    return ""


def _word(value: object) -> str:
    return "nothing" if value is None else str(value)
