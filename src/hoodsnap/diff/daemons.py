"""Changes of a host's daemons: those that ended, froze or were restarted, and their units."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from hoodsnap.diff.change import Change, Gap
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.daemon import Condition, Daemon, Daemons, Unit
from hoodsnap.facts.layer import DAEMONS
from hoodsnap.keep.daemon import HELPERS, daemon_of_unit


def changes_of(before: Host, after: Host) -> Iterator[Change]:
    """Yield the change of each daemon's condition, and each restart, once.

    Helpers of single QEMUs come and go with their guests, which are compared.
    Raises `UnheardError` if a bundle does not have the daemons.
    """
    old, new = before.daemons, after.daemons
    idle = _on_demand(old) | _on_demand(new)
    for name in dict.fromkeys((*old.by_name, *new.by_name)):
        one, other = _condition(old, name), _condition(new, name)
        if name in HELPERS or one is None or other is None:
            continue
        comes_and_goes = name in idle and Condition.MISSING in (one, other)
        if one != other and not comes_and_goes:
            at = _started(new, name) if one is Condition.MISSING else None
            yield Change((DAEMONS.id,), f"daemons[{name}]", str(one), str(other), at)
        if Condition.MISSING not in (one, other) and name not in idle:
            yield from _restart(old, new, name)


def _condition(daemons: Daemons, name: str) -> Condition | None:
    """Return the condition of a daemon; None if it is unknown whether it runs."""
    try:
        return daemons.condition(name)[0]
    except UnheardError:
        return None


def _on_demand(daemons: Daemons) -> frozenset[str]:
    """Return the daemons that a socket starts when a client connects, and that end when idle."""
    sockets = [unit for unit in _units(daemons).values() if unit.name.endswith(".socket")]
    return frozenset(daemon_of_unit(one.name) or "" for one in sockets if one.active == "active")


def _restart(old: Daemons, new: Daemons, name: str) -> Iterator[Change]:
    """Yield the restart of a daemon, all of whose processes are new."""
    before, after = (
        {(one.pid, one.started): one for one in side.by_name.get(name, ())} for side in (old, new)
    )
    if before and after and before.keys().isdisjoint(after):
        one, other = _first(old, name), _first(new, name)
        pids = f"pid {one.pid if one else ''}", f"pid {other.pid if other else ''}"
        field = f"daemons[{name}].restarted"
        yield Change((DAEMONS.id,), field, *pids, _started(new, name))


def _first(daemons: Daemons, name: str) -> Daemon | None:
    """Return the process of a daemon that started first; the others are its workers."""
    return min(daemons.by_name.get(name, ()), key=lambda one: one.started, default=None)


def _started(daemons: Daemons, name: str) -> datetime | None:
    first = _first(daemons, name)
    return daemons.since(first) if first is not None else None


def _units(daemons: Daemons) -> Mapping[str, Unit]:
    try:
        return daemons.units
    except UnheardError:
        return {}


def units_of(host: Host) -> Mapping[str, Unit]:
    """Return name → service of systemd, without those that a socket starts on demand.

    Raises `UnheardError` if the bundle does not have the units.
    """
    daemons = host.daemons
    daemons.units_answer  # noqa: B018 (raises if the host was not asked, or has no systemd)
    idle = _on_demand(daemons)
    return {
        name: unit
        for name, unit in daemons.units.items()
        if name.endswith(".service") and (daemon_of_unit(name) not in idle or unit.has_failed)
    }


def gaps_of(before: Host, after: Host) -> Iterator[Gap]:
    """Yield the gap if only one of the two bundles has the host's daemons."""
    reasons = [_reason(side) for side in (before, after)]
    if (reasons[0] is None) != (reasons[1] is None):
        side = "before" if reasons[0] is not None else "after"
        yield Gap(DAEMONS.id, str(reasons[0] or reasons[1]), side)


def _reason(host: Host) -> str | None:
    try:
        host.daemons.census  # noqa: B018 (raises if it was not collected)
    except UnheardError as reason:
        return str(reason)
    return None
