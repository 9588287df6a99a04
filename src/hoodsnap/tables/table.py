"""The tables of a report: a row for each server, domain, disk, finding …

Columns are the documented fields of the facts, so a new fact has a table as soon as its fields are
documented. A value that does not exist is None. A value that was not collected is None too, and
the row's last column, `not_collected`, names it: unknown is not absent.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any, NamedTuple

from hoodsnap.facts.cloud.guest import NOUNS, Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.domain.disk import DOCUMENTED_DISK
from hoodsnap.facts.domain.domain_xml import DOCUMENTED_INTERFACE
from hoodsnap.facts.fact import DocumentedField, UnheardError, caught
from hoodsnap.facts.host.daemon import DOCUMENTED_DAEMON, Daemon
from hoodsnap.facts.layer import LAYER_OF
from hoodsnap.findings.analysis import Report
from hoodsnap.findings.finding import Finding
from hoodsnap.grading.sheet_view import HOST, MANY, ONE

NOT_COLLECTED = "not_collected"
"""Name of the last column: names of the row's columns that were not collected."""

Row = Mapping[str, object]
"""TableColumn → value: text, a number, a boolean, a list, an object or None."""


class TableColumn(NamedTuple):
    """One column of a table."""

    name: str
    help: str
    type: type | None = None
    """`str`, `int`, `float` or `bool`; None for a list or an object."""


_Cells = Iterable[tuple[str, Callable[[], object]]]
"""Names of columns, each with a function that reads the value, and may raise `UnheardError`."""


@dataclass(frozen=True, eq=False)
class Table:
    """One table: its name, its columns, and the function that makes its rows."""

    name: str
    help: str
    own: tuple[TableColumn, ...]
    cells: Callable[[Report], Iterator[_Cells]]

    @cached_property
    def columns(self) -> tuple[TableColumn, ...]:
        """The columns in order; the last is `not_collected`."""
        last = TableColumn(NOT_COLLECTED, "Names of the row's columns that were not collected.")
        return (*self.own, last)

    def rows(self, report: Report) -> Iterator[Row]:
        """Yield the rows. Each has every column."""
        for cells in self.cells(report):
            row: dict[str, object] = {}
            unknown: list[str] = []
            for name, read in cells:
                try:
                    row[name] = plain(read())
                except Exception as error:  # the net around each value
                    caught(error)
                    row[name] = None
                    unknown.append(name)
            yield {**row, NOT_COLLECTED: unknown}


def plain(value: object) -> object:
    """Return a value as JSON has it: lists for tuples and sets, text for times."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, frozenset | set):
        return sorted(map(plain, value), key=str)
    if isinstance(value, Sequence):
        return [plain(inner) for inner in value]
    return str(value)


OF_GUEST = (
    TableColumn("host", "Host of the row; null if the server is on no collected host.", str),
    TableColumn("server", "Name of the server.", str),
    TableColumn("server_id", "UUID of the server, lower case.", str),
)
"""First columns of every table about a part of a guest."""


def _of_guest(guest: Guest) -> _Cells:
    yield "host", lambda: guest.host.name if guest.host else None
    yield "server", lambda: guest.name or None
    yield "server_id", lambda: guest.uuid


def _noun(name: str, noun: str, entries: Sequence[DocumentedField]) -> Table:
    """Return the table of a noun: a row for each of its facts."""

    def cells(report: Report) -> Iterator[_Cells]:
        for guest in report.cloud.guests:
            found = getattr(guest, noun)
            for fact in (found or ()) if noun in MANY else (found,):
                if fact is not None:
                    yield [*_of_guest(guest), *_fields(entries, fact)]

    layer = LAYER_OF[noun]
    own = (*OF_GUEST, *_columns(entries, NOUNS[noun].fact))
    return Table(name, f"{layer.nouns[noun]} (layer {layer.id}).", own, cells)


def _inside(name: str, help: str, entries: Sequence[DocumentedField]) -> Table:
    """Return the table of a list in the domains: `disks`."""

    def cells(report: Report) -> Iterator[_Cells]:
        for guest in report.cloud.guests:
            try:
                parts = getattr(guest.domain, name, ())
            except Exception as error:  # reported by silent()
                caught(error)
                continue
            for part in parts:
                yield [*_of_guest(guest), *_fields(entries, part)]

    return Table(name, help, (*OF_GUEST, *_columns(entries, None)), cells)


def _fields(entries: Iterable[DocumentedField], part: Any) -> _Cells:
    for entry in entries:
        yield _named(entry.name), partial(_value, entry, part)


def _value(entry: DocumentedField, part: Any) -> object:
    value: Any = entry.read(part) if entry.read is not None else getattr(part, entry.name)
    if not entry.inside:
        return value
    return [{inner.name: _value(inner, one) for inner in entry.inside} for one in value]


def _columns(entries: Iterable[DocumentedField], kind: type | None) -> Iterator[TableColumn]:
    for entry in entries:
        typed = None if entry.inside else _type(kind, entry)
        yield TableColumn(_named(entry.name), entry.help, typed)


def _named(name: str) -> str:
    return "on_host" if name == "host" else name


TYPED: Mapping[str, type] = {
    **dict.fromkeys(("uuid", "state", "power", "flavor", "network", "backend", "machine"), str),
    **dict.fromkeys(("target", "bus", "device", "source", "format", "serial", "protocol"), str),
    **dict.fromkeys(("mac", "tap", "type", "bridge", "model", "base", "base_name", "name"), str),
    **dict.fromkeys(("instances_path", "address", "port", "link", "network_id"), str),
    **dict.fromkeys(("read_only", "shareable", "transient"), bool),
    "mtu": int,
}
"""Types of the fields that a function reads, which has no annotation."""


def _type(kind: type | None, entry: DocumentedField) -> type | None:
    """Return the type of a field by its annotation; None for a list or an object."""
    hint: object = TYPED.get(entry.name)
    if kind is not None and entry.read is None:
        hint = _hints(kind).get(entry.name, hint)
    names = {getattr(part, "__name__", "") for part in _parts(hint)} - {"NoneType"}
    for simple in (str, int, float, bool):
        if names == {simple.__name__}:
            return simple
    return str if names and names <= {"datetime", "date", "str"} else None


def _parts(hint: object) -> tuple[object, ...]:
    import types

    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,) if hint is not None else ()


@cache
def _hints(kind: type) -> Mapping[str, object]:
    found: dict[str, object] = dict(typing.get_type_hints(kind))
    for base in reversed(kind.__mro__):
        for name, member in vars(base).items():
            read = getattr(member, "fget", None) or getattr(member, "func", None)
            if read is not None:
                found[name] = typing.get_type_hints(read).get("return")
    return found


def _servers(report: Report) -> Iterator[_Cells]:
    worst: dict[str, Finding] = {}
    counts: dict[str, int] = {}
    for finding in report.everything():
        for guest in finding.guests if finding.shared is None else ():
            counts[guest.uuid] = counts.get(guest.uuid, 0) + 1
            if guest.uuid not in worst or finding.severity > worst[guest.uuid].severity:
                worst[guest.uuid] = finding
    for guest in report.cloud.guests:
        yield [
            *_of_guest(guest),
            *_of_record(guest),
            ("domain", partial(_known, guest, "domain", "name")),
            ("domain_state", partial(_known, guest, "domain", "state_words")),
            ("pid", partial(_known, guest, "process", "pid")),
            ("findings", partial(counts.get, guest.uuid, 0)),
            ("severity", partial(_severity, worst.get(guest.uuid))),
            ("finding", partial(_check, worst.get(guest.uuid))),
        ]


def _of_record(guest: Guest) -> _Cells:
    yield "nova_host", lambda: guest.host_name
    yield "status", lambda: _known(guest, "server", "status")
    for name in ("vm_state", "task_state"):
        yield name, partial(_recorded, guest, name)


def _recorded(guest: Guest, name: str) -> object:
    """Return a field of nova's record; None if nova has no such server."""
    if guest.record is None:
        reasons = [guest.unheard[layer] for layer in ("nova-db", "nova") if layer in guest.unheard]
        if reasons:
            raise UnheardError(reasons[0])
        return None
    return getattr(guest.record, name)


def _known(guest: Guest, noun: str, name: str) -> object:
    """Return a field of a noun; None if the guest has no such thing."""
    fact = getattr(guest, noun)
    if fact is None:
        reason = guest.unheard.get(LAYER_OF[noun].id)
        if reason is not None and not guest.is_nowhere:
            raise UnheardError(reason)
        return None
    return getattr(fact, name)


def _severity(finding: Finding | None) -> str | None:
    return finding.severity.word if finding is not None else None


def _check(finding: Finding | None) -> str | None:
    return finding.check.name if finding is not None else None


def _findings(report: Report) -> Iterator[_Cells]:
    for root in report.findings:
        for finding in root.everything():
            guest = finding.guest
            evidence = [str(piece) for piece in finding.evidence]
            values = {
                "host": finding.host,
                "server": guest.name or None if guest is not None else None,
                "server_id": guest.uuid if guest is not None else None,
                "check": finding.check.name,
                "severity": finding.severity.word,
                "headline": finding.title,
                "evidence": evidence,
                "explained_by": root.check.name if finding is not root else None,
                "servers": len(finding.guests),
            }
            yield [(name, partial(_same, value)) for name, value in values.items()]


def _same(value: object) -> object:
    return value


def _count(report: Report, host: Host) -> int:
    return len(report.cloud.guests_of(host))


def _hosts(report: Report) -> Iterator[_Cells]:
    for host in report.cloud.hosts:
        yield [
            *_fields(HOST, host),
            ("guests", partial(_count, report, host)),
        ]


def _daemons(report: Report) -> Iterator[_Cells]:
    for host in report.cloud.hosts:
        try:
            found = host.daemons.by_name.items()
        except Exception as error:  # reported by silent()
            caught(error)
            continue
        for name, processes in found:
            for one in processes:
                yield [
                    ("host", partial(_same, host.name)),
                    *_fields(DOCUMENTED_DAEMON, one),
                    ("condition", partial(_condition, host, name)),
                    ("started_at", partial(host.daemons.since, one)),
                ]


def _condition(host: Host, name: str) -> str:
    return host.daemons.condition(name)[0].value


def _silent(report: Report) -> Iterator[_Cells]:
    for host in report.cloud.hosts:
        for layer, reason in host.unheard.items():
            values = {"host": host.name, "layer": layer, "reason": reason}
            yield [(name, partial(_same, value)) for name, value in values.items()]


SERVERS = Table(
    "servers",
    "Every server, domain or QEMU process with one UUID: the six layers in a row.",
    (
        *OF_GUEST,
        TableColumn("nova_host", "Host in nova's records; null if it is on no host.", str),
        TableColumn("status", "Status in nova's API: `ACTIVE`.", str),
        TableColumn("vm_state", "State in nova's records: `active`.", str),
        TableColumn("task_state", "Task in nova's records; null without a task.", str),
        TableColumn("domain", "Name of the domain in libvirt; null without a domain.", str),
        TableColumn("domain_state", "State of the domain, with its reason.", str),
        TableColumn("pid", "Process id of QEMU; null without a process.", int),
        TableColumn("findings", "Number of findings about it.", int),
        TableColumn("severity", "Severity of the worst finding; null without a finding.", str),
        TableColumn("finding", "Check that reported the worst finding.", str),
    ),
    _servers,
)

FINDINGS = Table(
    "findings",
    "Every finding, including those that another one explains.",
    (
        *OF_GUEST,
        TableColumn("check", "Name of the check.", str),
        TableColumn("severity", "`error`, `warning` or `note`.", str),
        TableColumn("headline", "The finding in one sentence.", str),
        TableColumn("evidence", "What each layer reports."),
        TableColumn(
            "explained_by", "Check whose finding explains this one; null for the others.", str
        ),
        TableColumn("servers", "Number of servers that it is about.", int),
    ),
    _findings,
)

NAMES: Mapping[str, str] = {
    **{noun: f"{noun}s" for noun in ONE if noun != "process"},
    "process": "processes",
    "server": "api_servers",
    **{noun: noun for noun in MANY},
}
"""Noun → name of its table. `servers` is the table of everything with one UUID."""

INSIDE: Mapping[str, tuple[str, tuple[DocumentedField, ...]]] = {
    "disks": ("Disks of the domains (layer libvirt).", DOCUMENTED_DISK),
    "interfaces": ("Network cards of the domains (layer libvirt).", DOCUMENTED_INTERFACE),
}
"""Lists in a domain that have tables of their own: description and fields."""

TABLES: Mapping[str, Table] = {
    table.name: table
    for table in (
        SERVERS,
        *(_noun(NAMES[noun], noun, entries) for noun, entries in ONE.items()),
        *(_inside(name, help, entries) for name, (help, entries) in INSIDE.items()),
        *(_noun(NAMES[noun], noun, entries) for noun, entries in MANY.items()),
        FINDINGS,
        Table(
            "hosts",
            "Every collected host.",
            (*_columns(HOST, Host), TableColumn("guests", "Number of guests on it.", int)),
            _hosts,
        ),
        Table(
            "daemons",
            "Every process of a known daemon of a host (layer daemons).",
            (
                TableColumn("host", "Host of the daemon.", str),
                *_columns(DOCUMENTED_DAEMON, Daemon),
                TableColumn("condition", "Condition of the daemon: `running`.", str),
                TableColumn("started_at", "Time of its start; null if unknown.", str),
            ),
            _daemons,
        ),
        Table(
            "silent_layers",
            "Layers of a host that can't prove that something does not exist.",
            (
                TableColumn("host", "Host of the layer.", str),
                TableColumn("layer", "Id of the layer.", str),
                TableColumn("reason", "Why it was not collected.", str),
            ),
            _silent,
        ),
    )
}
"""Every table by name, in the order of `hoodsnap list`."""


def silent(table: Table, report: Report) -> list[str]:
    """Return why rows of a table may be missing: reasons why a layer of a guest is unknown."""
    inside = table.name if table.name in INSIDE else None
    nouns = ["domain"] if inside else [noun for noun, name in NAMES.items() if name == table.name]
    reasons: dict[str, None] = {}
    for host in report.cloud.hosts if table.name == "daemons" else ():
        try:
            host.daemons.by_name  # noqa: B018 (raises if the daemons were not collected)
        except Exception as error:
            reasons[str(caught(error))] = None
    for guest in report.cloud.guests:
        for noun in nouns:
            fact = getattr(guest, noun)
            if not fact and not guest.is_nowhere and LAYER_OF[noun].id in guest.unheard:
                reasons[guest.unheard[LAYER_OF[noun].id]] = None
            if inside and fact:
                try:
                    getattr(fact, inside)
                except Exception as error:
                    reasons[str(caught(error))] = None
    return list(reasons)
