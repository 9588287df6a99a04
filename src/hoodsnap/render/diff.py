"""The difference of two bundles as text and as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import date, datetime
from typing import NamedTuple

from hoodsnap.bundle import Bundle
from hoodsnap.diff.change import Change
from hoodsnap.diff.difference import Difference, HostDifference, ServerDifference
from hoodsnap.diff.findings import FindingChange
from hoodsnap.diff.guests import BARE
from hoodsnap.facts.layer import TABLE
from hoodsnap.facts.uuids import UUID
from hoodsnap.printable import clean, cut
from hoodsnap.render.line import LONGEST_WRAPPED, Line, line

FORMAT = 1
"""Number of the JSON format; it changes when a field is removed or changes its meaning."""

_NAME = 20
"""Columns of a name at most."""

_ALONE = 5
"""Servers up to which a change that all of them share is printed for each one."""

_NAMED = 3
"""Names to print at most of the servers that share a change."""

_LONG = 200
"""Characters of a value at most."""

_TITLES: Mapping[str, str] = {layer.id: layer.title for layer in TABLE}


class _Row(NamedTuple):
    """One line of the report: the subject, the layer, what changed, and when."""

    name: str
    layer: str
    what: str
    style: str
    key: object
    """Rows with the same key are the same change of several servers."""
    common: str = ""
    """The words for all servers with this change, if it is not what each has."""


def render(difference: Difference, *, width: int | None = 80) -> Iterator[Line]:
    """Yield the lines of a difference; `width`: None for lines of any length."""
    for word, report in (("before", difference.before), ("after", difference.after)):
        yield line((f"{word:6}  {clean(_heading(report.cloud.bundle))}", "dim"))
    if difference.after.cloud.bundle.started < difference.before.cloud.bundle.started:
        yield line(("note: the first bundle was collected later than the second", "yellow"))
    rows = _grouped([*_rows(difference)])
    if rows:
        yield line()
    name = max((len(row.name) for row in rows), default=0)
    layer = max((len(row.layer) for row in rows), default=0)
    left = name + 2 + layer + 2
    shown = ""
    for row in rows:
        parts = [row.what]
        if width is not None:
            what = cut(row.what, LONGEST_WRAPPED)
            parts = textwrap.wrap(what, max(width - left, 24), break_on_hyphens=False) or [""]
        subject = row.name if row.name != shown else ""
        shown = row.name
        yield line((f"{subject:{name}}  ", "bold"), f"{row.layer:{layer}}  ", (parts[0], row.style))
        for part in parts[1:]:
            yield line(" " * left, (part, row.style))
    yield line()
    for gap in difference.gaps:
        title = _TITLES.get(gap.layer, gap.layer)
        reason = gap.reason if gap.reason.startswith(title) else f"{title}: {gap.reason}"
        words = f"not compared, not collected {gap.side}: {reason}"
        yield line((clean(words), "yellow"))
    yield line((_verdict(difference), "bold"))


def _heading(bundle: Bundle) -> str:
    hosts = sorted({answer.host for answer in bundle.answers})
    where = ", ".join(hosts[:_NAMED]) + (" …" if len(hosts) > _NAMED else "")
    return f"{bundle.started:%Y-%m-%d %H:%M:%S} UTC, {where}, {len(bundle.answers)} answers"


def _verdict(difference: Difference) -> str:
    changed = sum(server.counts for server in difference.servers)
    same = difference.same + len(difference.servers) - changed
    new = sum(one.is_new and one.undecided is None for one in difference.findings)
    gone = sum(not one.is_new and one.undecided is None for one in difference.findings)
    what = f"{changed} {'server' if changed == 1 else 'servers'} changed, {same} as before"
    return f"{what} · {new} new {'finding' if new == 1 else 'findings'}, {gone} gone"


def _rows(difference: Difference) -> Iterator[_Row]:
    day = difference.after.cloud.bundle.started.date()
    for server in difference.servers:
        name = cut(clean(server.name or server.uuid), _NAME)
        if server.fate != "changed":
            style = "green" if server.fate == "appeared" else "red"
            what = f"{'+' if server.fate == 'appeared' else '-'} {server.fate}"
            guest = server.pair.guest
            host = guest.host.name if guest.host is not None else guest.believed
            where = f" on {host}" if host else ""
            yield _Row(name, "server", clean(f"{what}{where} ({server.uuid})"), style, server.uuid)
        yield from _of(name, server, day)
    for part in difference.hosts:
        yield from _of(cut(clean(part.name or "control plane"), _NAME), part, day)


def _of(name: str, part: ServerDifference | HostDifference, day: date) -> Iterator[_Row]:
    for change in part.changes:
        key: object = (change.layers, change.field, change.before, change.after)
        common = ""
        if change.field == "restarted":
            key = common = "restarted"
        yield _Row(name, ", ".join(change.layers), _change(change, day), "", key, common)
    for finding in part.findings:
        style = "" if finding.undecided else "red" if finding.is_new else "green"
        common = _finding(finding)
        key = (finding.check, finding.is_new, finding.undecided)
        what = common if finding.undecided else f"{common}: {clean(finding.title)}"
        yield _Row(name, "finding", what, style, key, common)


def _change(change: Change, day: date) -> str:
    when = f" at {_time(change.at, day)}" if change.at is not None else ""
    field = UUID.sub(lambda found: f"{found[0][:8]}…", change.field)
    label = "" if field in BARE else f"{field}: "
    if change.field == "rebooted":
        return clean(f"rebooted{when}")
    if change.before is None:
        return clean(f"+ {field}: {cut(change.after or '', _LONG)}{when}")
    if change.after is None:
        return clean(f"- {field}: {cut(change.before, _LONG)}{when}")
    before, after = cut(change.before, _LONG), cut(change.after, _LONG)
    return clean(f"{label}{before or '(empty)'} → {after or '(empty)'}{when}")


def _time(at: datetime, day: date) -> str:
    return f"{at:%H:%M:%S}" if at.date() == day else f"{at:%Y-%m-%d %H:%M:%S}"


def _finding(finding: FindingChange) -> str:
    sign = "+" if finding.is_new else "-"
    if finding.undecided is None:
        return clean(f"{sign} {finding.check} ({finding.severity})")
    side = "before" if finding.is_new else "after"
    return clean(f"? {finding.check} ({finding.severity}), not decided {side}: {finding.undecided}")


def _grouped(rows: Sequence[_Row]) -> list[_Row]:
    """Return the rows; a change that many servers share becomes one row with their names."""
    shared: dict[object, list[_Row]] = {}
    for row in rows:
        shared.setdefault((row.layer, row.key), []).append(row)
    found = []
    for row in rows:
        same = shared[(row.layer, row.key)]
        if len(same) <= _ALONE:
            found.append(row)
        elif same[0] is row:
            names = [*dict.fromkeys(one.name for one in same)]
            words = f"{', '.join(names[:_NAMED])} and {len(names) - _NAMED} more"
            what = f"{row.common or row.what} ({words})"
            found.append(row._replace(name=f"{len(names)} servers", what=what))
    return sorted(found, key=lambda row: row.name.endswith(" servers"))


def as_json(difference: Difference) -> str:
    """Return the difference as one JSON document."""
    document = {
        "format": FORMAT,
        "changed": difference.counts,
        "before": _side(difference.before.cloud.bundle),
        "after": _side(difference.after.cloud.bundle),
        "servers": [
            {
                "uuid": server.uuid,
                "name": server.name,
                "fate": server.fate,
                **_part(server),
            }
            for server in difference.servers
        ],
        "hosts": [{"name": host.name, **_part(host)} for host in difference.hosts],
        "same_servers": difference.same,
        "same_findings": difference.same_findings,
        "not_compared": [asdict(gap) for gap in difference.gaps],
    }
    return json.dumps(document, indent=1) + "\n"


def _side(bundle: Bundle) -> Mapping[str, object]:
    return {
        "started": _written(bundle.started),
        "ended": _written(bundle.ended),
        "hosts": sorted({answer.host for answer in bundle.answers}),
    }


def _part(part: ServerDifference | HostDifference) -> Mapping[str, object]:
    return {
        "changes": [
            {
                "layers": list(change.layers),
                "field": change.field,
                "before": change.before,
                "after": change.after,
                "at": _written(change.at) if change.at is not None else None,
            }
            for change in part.changes
        ],
        "findings": [
            {
                "check": finding.check,
                "severity": finding.severity,
                "title": finding.title,
                "host": finding.host,
                "is": "new" if finding.is_new else "gone",
                "undecided": finding.undecided,
            }
            for finding in part.findings
        ],
    }


def _written(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
