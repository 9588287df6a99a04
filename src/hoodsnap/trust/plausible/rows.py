"""Plausibility of database rows and API objects: their times and ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import NamedTuple

from hoodsnap.bundle import Answer
from hoodsnap.facts.clock import moment
from hoodsnap.facts.database.tables import SELECT
from hoodsnap.facts.layer import APIS
from hoodsnap.trust.plausible.visit import SKEW, HostAnswers, rows_of

IN_ORDER = (
    ("created_at", "updated_at"),
    ("created_at", "deleted_at"),
    ("created_at", "launched_at"),
    ("launched_at", "terminated_at"),
    ("start_time", "finish_time"),
    ("created", "updated"),
    ("created", "OS-SRV-USG:launched_at"),
)
"""Pairs of times, of which the first is never later than the second. Different hosts write them, so
they may be off by some seconds."""

PAST = frozenset(name for pair in IN_ORDER for name in pair) | {"attached_at", "detached_at"}

NUMBERED = frozenset(
    [
        "block_device_mapping",
        "instance_actions",
        "instance_faults",
        "instance_mappings",
        "migrations",
        "request_specs",
        "virtual_interfaces",
    ]
)
"""Tables whose rows get their id at created_at. The table `instances` is not among them: its rows
are inserted after scheduling, which may be long after the request."""


class RecordedObject(NamedTuple):
    """A database row, or an object in an API's answer."""

    name: str
    cells: Mapping[str, object]
    answer: Answer


def times_in_order(visit: HostAnswers) -> Iterator[str]:
    """Check that nothing was changed or ended before it was created."""
    for record in _records(visit):
        for first, second in IN_ORDER:
            before, after = moment(record.cells.get(first)), moment(record.cells.get(second))
            if before is not None and after is not None and before - after > SKEW:
                yield (
                    f"{record.name}: {first} is {record.cells[first]}, later than {second},"
                    f" {record.cells[second]}"
                )


def times_before_seen(visit: HostAnswers) -> Iterator[str]:
    """Check that no recorded event is later than the collection."""
    for record in _records(visit):
        for name in PAST & record.cells.keys():
            time = moment(record.cells[name])
            if time is not None and time - visit.latest > SKEW:
                yield (
                    f"{record.name}: {name} is {record.cells[name]}, which was in the future"
                    f" at {visit.latest:%Y-%m-%d %H:%M:%S}"
                )


def numbers_in_order(visit: HostAnswers) -> Iterator[str]:
    """Check that later rows of a table have larger ids."""
    tables: dict[tuple[str, str], dict[int, datetime]] = {}
    for answer in visit.asked("nova-db", "SELECT "):
        table = SELECT.match(answer.query)
        if table is None or table["table"].strip("`") not in NUMBERED:
            continue
        for record in _rows(answer):
            number, created = record.cells.get("id"), moment(record.cells.get("created_at"))
            if type(number) is int and created is not None:
                names = (table["database"].strip("`"), table["table"].strip("`"))
                tables.setdefault(names, {})[number] = created
    for (database, name), rows in tables.items():
        latest = None
        for number, created in sorted(rows.items()):
            if latest is not None and latest[1] - created > SKEW:
                yield (
                    f"{database}.{name}: row {number} was created at {created:%Y-%m-%d %H:%M:%S},"
                    f" but the earlier row {latest[0]} at {latest[1]:%Y-%m-%d %H:%M:%S}"
                )
                break
            if latest is None or created > latest[1]:
                latest = (number, created)


def created_twice(visit: HostAnswers) -> Iterator[str]:
    """Check that the API and the database report the same creation time: they read one cell."""
    rows: dict[str, set[datetime]] = {}
    servers: dict[str, set[datetime]] = {}
    for record in _records(visit):
        if "vm_state" in record.cells and record.answer.layer == "nova-db":
            _add(rows, record.cells.get("uuid"), record.cells.get("created_at"))
        elif record.answer.layer == "nova" and "hostId" in record.cells:
            _add(servers, record.cells.get("id"), record.cells.get("created"))
    for uuid, times in servers.items():
        known = rows.get(uuid, times)
        if known.isdisjoint(times):
            yield (
                f"server {uuid} was created at {min(times):%Y-%m-%d %H:%M:%S} according to the API,"
                f" but at {min(known):%Y-%m-%d %H:%M:%S} according to the database"
            )


def _add(found: dict[str, set[datetime]], uuid: object, text: object) -> None:
    time = moment(text)
    if isinstance(uuid, str) and time is not None:
        found.setdefault(uuid, set()).add(time.replace(microsecond=0))


def _records(visit: HostAnswers) -> Iterator[RecordedObject]:
    for answer in visit.answers:
        if answer.layer == "nova-db" and answer.query.startswith("SELECT "):
            yield from _rows(answer)
        elif answer.layer in APIS:
            yield from _objects(answer)


def _rows(answer: Answer) -> Iterator[RecordedObject]:
    table = SELECT.match(answer.query)
    if table is None:
        return
    for row in rows_of(answer):
        cells = dict(zip(map(str, answer.value["columns"]), row, strict=True))
        of = cells.get("instance_uuid") or cells.get("uuid") or ""
        name = f"{table['database']}.{table['table']} row {cells.get('id')} of {of}"
        yield RecordedObject(name, cells, answer)


def _objects(answer: Answer) -> Iterator[RecordedObject]:
    """Yield the objects in an API's answer: the answer itself, and the objects that it lists."""
    if not isinstance(answer.value, dict):
        return
    whole: dict[str, object] = {answer.layer: answer.value, **answer.value}
    for name, part in whole.items():
        for item in part if isinstance(part, list) else [part]:
            if isinstance(item, dict):
                of = item.get("id") or item.get("uuid") or ""
                yield RecordedObject(f"{answer.layer}: {name} {of}", item, answer)
