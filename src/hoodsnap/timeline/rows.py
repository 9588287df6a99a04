"""Times in the rows of nova's databases: actions, migrations, faults and records.

All of them are UTC, by the clocks of nova's services.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.database.tables import Row, Tables
from hoodsnap.facts.fact import caught
from hoodsnap.facts.layer import NOVA_DB
from hoodsnap.timeline.event import Event
from hoodsnap.timeline.people import People

Cells = Mapping[str, object]


class _Context(NamedTuple):
    """The tables beside the row, for columns that refer to other rows."""

    tables: Tables
    database: str
    people: People


Words = Callable[[Cells, _Context], str]


def _plain(words: str) -> Words:
    return lambda cells, context: words


def _began(cells: Cells, context: _Context) -> str:
    who = context.people.who(cells.get("user_id"), cells.get("project_id"))
    return " ".join(filter(None, [f"{cells.get('action')} requested", who, _request(cells)]))


def _request(cells: Cells) -> str:
    return f"({cells['request_id']})" if cells.get("request_id") else ""


def _action_failed(cells: Cells, context: _Context) -> str:
    return f"{cells.get('action')} failed: {cells.get('message')}"


def _step_began(cells: Cells, context: _Context) -> str:
    return f"{_step(cells)} started; no end was recorded"


def _step_ended(cells: Cells, context: _Context) -> str:
    began, ended = moment(cells.get("start_time")), moment(cells.get("finish_time"))
    took = f" after {(ended - began).total_seconds():.0f} s" if began and ended else ""
    return f"{_step(cells)} ended{took}: {cells.get('result') or 'no result was recorded'}"


def _step(cells: Cells) -> str:
    name = str(cells.get("event")).removeprefix("compute__do_").removeprefix("compute_")
    host = cells.get("host")
    return f"{name} on {host}" if host else name


def _move_began(cells: Cells, context: _Context) -> str:
    who = context.people.who(cells.get("user_id"), cells.get("project_id"))
    return " ".join(filter(None, [f"{_move(cells)} created", who]))


def _move_updated(cells: Cells, context: _Context) -> str:
    return f"{_move(cells)} last updated: {cells.get('status')}"


def _move(cells: Cells) -> str:
    kind = cells.get("migration_type") or "migration"
    source, target = cells.get("source_compute"), cells.get("dest_compute")
    where = f" on {source}" if source == target else f" from {source} to {target or 'no host yet'}"
    return f"{kind} {cells.get('id')}{where}"


def _fault(cells: Cells, context: _Context) -> str:
    host = f" on {cells['host']}" if cells.get("host") else ""
    return f"fault {cells.get('code')}{host}: {cells.get('message')}"


def _state(cells: Cells, context: _Context) -> str:
    task = f", task_state {cells['task_state']}" if cells.get("task_state") else ""
    return f"record last updated: vm_state {cells.get('vm_state')}{task}"


def _mapping(words: str) -> Words:
    def told(cells: Cells, context: _Context) -> str:
        volume = cells.get("volume_id")
        what = f"volume {volume}" if volume else str(cells.get("destination_type") or "disk")
        return f"mapping of {what} as {cells.get('device_name') or 'no device yet'} {words}"

    return told


def _service(words: str) -> Words:
    return lambda cells, context: f"{cells.get('binary')} on {cells.get('host')}: {words}"


def _node(words: str) -> Words:
    return lambda cells, context: f"compute node {cells.get('hypervisor_hostname')}: {words}"


_RECORD: Mapping[str, Words] = {
    "created_at": _plain("record created"),
    "updated_at": _state,
    "deleted_at": _plain("record deleted"),
}

TIMES: Mapping[str, Mapping[str, Words]] = {
    "instances": {
        **_RECORD,
        "scheduled_at": _plain("scheduled"),
        "launched_at": _plain("launched"),
        "terminated_at": _plain("terminated"),
    },
    "shadow_instances": _RECORD,
    "instance_actions": {
        "start_time": _began,
        "finish_time": lambda cells, context: f"{cells.get('action')} finished",
        "updated_at": _action_failed,
    },
    "instance_actions_events": {"start_time": _step_began, "finish_time": _step_ended},
    "migrations": {"created_at": _move_began, "updated_at": _move_updated},
    "instance_faults": {"created_at": _fault},
    "instance_extra": {"updated_at": _plain("flavor or topology record last updated")},
    "instance_info_caches": {"updated_at": _plain("network info cache last updated")},
    "block_device_mapping": {
        "created_at": _mapping("created"),
        "updated_at": _mapping("last updated"),
        "deleted_at": _mapping("deleted"),
    },
    "virtual_interfaces": {
        "created_at": lambda cells, context: f"network card {cells.get('address')} recorded",
        "deleted_at": lambda cells, context: f"network card {cells.get('address')} removed",
    },
    "console_auth_tokens": {
        "created_at": lambda cells, context: f"{cells.get('console_type')} console opened"
    },
    "pci_devices": {
        "updated_at": lambda cells, context: (
            f"PCI device {cells.get('address')} last updated: {cells.get('status')}"
        )
    },
    "services": {
        "created_at": _service("registered"),
        "last_seen_up": _service("last heartbeat"),
        "updated_at": _service("record last updated"),
        "deleted_at": _service("deleted"),
    },
    "compute_nodes": {
        "created_at": _node("created"),
        "updated_at": _node("resources last reported"),
        "deleted_at": _node("deleted"),
    },
    "instance_mappings": {
        "created_at": _plain("accepted by the API"),
        "updated_at": _plain("mapped to its cell"),
    },
    "request_specs": {
        "created_at": _plain("scheduling request created"),
        "updated_at": _plain("scheduling request last updated"),
    },
    "build_requests": {
        "created_at": _plain("build request created"),
        "updated_at": _plain("build request last updated"),
    },
    "host_mappings": {
        "created_at": lambda cells, context: f"host {cells.get('host')} mapped to a cell",
        "updated_at": lambda cells, context: f"mapping of host {cells.get('host')} last updated",
    },
    "instance_group_member": {"created_at": _plain("added to a server group")},
}
"""Table → column with a time → its description."""

LEFT_OUT: Mapping[str, str] = {
    "instance_actions.created_at": "the same time as start_time, but for the write to the database",
    "console_auth_tokens.expires": "a time in the future",
}
"""`table.column` with a time that is not in the timeline → the reason."""


def events(cloud: Cloud) -> Iterator[Event]:
    """Yield an event for each time in the rows of nova's databases."""
    tables = cloud.instances.tables
    people = People(cloud.bundle)
    for database, table in tables.rows:
        if table not in TIMES:
            continue
        context = _Context(tables, database, people)
        owner = _owner(table, context)
        for row in tables.of(table, database=database):
            try:
                yield from _of_row(table, row, owner(row.cells), context)
            except Exception as error:  # a net: a value of an unexpected type costs its row
                caught(error)


def _of_row(table: str, row: Row, server: object, context: _Context) -> Iterator[Event]:
    host = row.cells.get("host") if table in _OF_HOSTS else None
    for column, words in TIMES[table].items():
        at = moment(row.cells.get(column))
        if at is None or _repeats_another(table, column, row.cells):
            continue
        yield Event(
            at,
            NOVA_DB.id,
            words(row.cells, context),
            row.newer.get(column, row.answer),
            server=server.lower() if isinstance(server, str) else None,
            host=host if isinstance(host, str) else None,
            is_failure=_is_failure(table, column, row.cells),
            is_detail=table in _DETAILS or (table, column) in _DETAILS,
            kind="last heartbeat"
            if column in ("last_seen_up", "updated_at") and table == "services"
            else "",
        )


_DETAILS = (
    *("instance_extra", "instance_info_caches", "virtual_interfaces", "instance_mappings"),
    *("request_specs", "build_requests", "instance_group_member", "host_mappings"),
    ("instances", "created_at"),
    ("block_device_mapping", "updated_at"),
    ("services", "created_at"),
)
"""Tables, and columns of tables, whose times other events imply."""

_OF_HOSTS = ("services", "compute_nodes", "host_mappings")


def _owner(table: str, context: _Context) -> Callable[[Cells], object]:
    """Return the function that finds the server of a row."""
    if table == "instance_actions_events":
        actions = {
            str(row.cells.get("id")): row.cells.get("instance_uuid")  # a damaged id may be a list
            for row in context.tables.of("instance_actions", database=context.database)
        }
        return lambda cells: actions.get(str(cells.get("action_id")))
    key = "uuid" if table in ("instances", "shadow_instances") else "instance_uuid"
    return lambda cells: cells.get(key)


def _is_failure(table: str, column: str, cells: Cells) -> bool:
    if table == "instance_faults" or cells.get("result") == "Error":
        return True
    if column != "updated_at":
        return False
    return table == "instance_actions" or cells.get("status") in ("error", "failed")


def _repeats_another(table: str, column: str, cells: Cells) -> bool:
    """True if another column of the row has the same event."""
    if table == "instance_actions_events" and column == "start_time":
        return bool(cells.get("finish_time"))  # the event of its end has both
    if table == "services" and column == "updated_at":
        return bool(cells.get("last_seen_up"))
    if table == "instance_actions" and column == "updated_at":
        return not cells.get("message")
    return column == "updated_at" and cells.get("updated_at") == cells.get("created_at")
