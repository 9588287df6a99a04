"""Daemons of a host: which of them run, whether they work, and their units in systemd."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.facts.clock import moment
from hoodsnap.facts.fact import UnheardError, integer, text, value_of
from hoodsnap.facts.layer import DAEMONS
from hoodsnap.facts.quantity import whole

CENSUS = DAEMONS.census_query

UNITS = "systemctl list-units --type=service,socket --all --plain --no-legend"

UNIT_FILES = "systemctl list-unit-files --type=service,socket --no-legend"

PROPERTIES = "systemctl show"

NAMESPACES = "readlink /proc/self/ns/*"

FIRST_PID_NAMESPACE = "pid:[4026531836]"
"""The namespace of the host's PID 1, in which all processes are visible: a constant of Linux."""


class Condition(StrEnum):
    """Condition of a daemon."""

    RUNNING = "running"
    MISSING = "not running"
    STOPPED = "stopped by a signal (T)"
    PAUSED = "paused with its control group"
    STUCK = "waiting for a device (D)"


class Daemon(NamedTuple):
    """A process of a daemon that is not the child of another process of the same daemon."""

    name: str
    pid: int
    state: str
    """State of its first thread, as in ps: `S`, `R`, `T`, `D` …"""
    switches: int
    """Number of times that its first thread stopped running; it grows whenever it works."""
    unit: str | None
    """System unit that it was started by; None if it runs in a container or in no unit."""
    is_paused: bool
    """True if its control group is frozen."""


class Unit(NamedTuple):
    """A service or socket of systemd."""

    name: str
    active: str
    """`active`, `inactive`, `failed`, `activating` …"""
    sub: str
    """`running`, `dead`, `listening`, `auto-restart` …"""
    file: str | None
    """State of its file: `enabled`, `disabled`, `static`, `masked` …; None if not collected."""
    result: str | None
    """Result of its last run: `success`, `exit-code`, `oom-kill` …; None if not collected."""
    exit_status: int | None
    """Exit status, or number of the signal, of its last run."""
    restarts: int | None
    """Number of automatic restarts."""
    since: datetime | None
    """Time of its last change of state; None if not collected."""

    @property
    def has_failed(self) -> bool:
        """True if systemd gave it up, or starts it again and again."""
        return self.active == "failed" or self.sub == "auto-restart"


@dataclass(frozen=True, eq=False)
class Daemons:
    """The daemons of one host. What was not collected raises `UnheardError`."""

    bundle: Bundle
    host: str

    @cached_property
    def census(self) -> Answer:
        """The newest list of the daemons that run."""
        answer = self.bundle.last(DAEMONS.id, CENSUS, self.host)
        if answer is None:
            raise UnheardError(DAEMONS.silence)
        value_of(answer, "the list of daemons", list[dict[str, object]])
        return answer

    @cached_property
    def _looks(self) -> tuple[Mapping[str, tuple[Daemon, ...]], ...]:
        """Name → its processes, for each time that they were listed; the newest is the last."""
        self.census  # noqa: B018 (raises if it was not collected)
        found = []
        for answer in self.bundle.asked(DAEMONS.id, CENSUS, self.host):
            if answer.error is None:
                rows = value_of(answer, "the list of daemons", list[dict[str, object]])
                found.append(_read(row for row in rows if row.get("doubt") is None))
        return tuple(found)

    @property
    def by_name(self) -> Mapping[str, tuple[Daemon, ...]]:
        """Name → its processes, without the workers that they started."""
        return self._looks[-1]

    @cached_property
    def doubts(self) -> Mapping[str, str]:
        """Name → reason why a process of that name may be another program."""
        rows = value_of(self.census, "the list of daemons", list[dict[str, object]])
        return {
            text(row, "name") or "": f"process {integer(row, 'pid')} is called {row['name']},"
            f" but {text(row, 'doubt')}"
            for row in rows
            if row.get("doubt") is not None
        }

    def condition(self, *names: str) -> tuple[Condition, Daemon | None]:
        """Return the condition of a daemon that may have any of these names, and its process.

        A daemon is missing, stuck or stopped only if it was so each time that the daemons were
        listed. Raises `UnheardError` if that is not known.
        """
        states = [self._condition_at(look, names) for look in range(len(self._looks))]
        conditions = {condition for condition, _ in states}
        if len(conditions) > 1:
            running = (state for state in states if state[0] is Condition.RUNNING)
            return next(running, (Condition.RUNNING, states[-1][1]))
        [condition] = conditions
        if condition is Condition.MISSING:
            self._must_see(names)
        if condition is Condition.STUCK and not self._is_stuck([one for _, one in states if one]):
            return Condition.RUNNING, states[-1][1]
        return states[-1]

    def _condition_at(self, look: int, names: tuple[str, ...]) -> tuple[Condition, Daemon | None]:
        running = [one for name in names for one in self._looks[look].get(name, ())]
        order = list(Condition)
        states = [(_condition(one), one) for one in running]
        return min(
            states, key=lambda state: order.index(state[0]), default=(Condition.MISSING, None)
        )

    @staticmethod
    def _is_stuck(looks: list[Daemon]) -> bool:
        """True if the same process never ran between two looks."""
        return len(looks) > 1 and len({(one.pid, one.switches) for one in looks}) == 1

    def _must_see(self, names: tuple[str, ...]) -> None:
        """Raise `UnheardError` if a daemon may run although no process of its name was found."""
        for name in names:
            if name in self.doubts:
                raise UnheardError(self.doubts[name])
        identity = value_of(self.bundle.last("host", "id", self.host), "the collector's id", str)
        if not identity.startswith("uid=0("):
            raise UnheardError("the collector was not root, so it may not see all daemons")
        answer = self.bundle.last("host", NAMESPACES, self.host)
        spaces = value_of(answer, "the collector's namespaces", dict[str, str])
        if spaces.get("pid") != FIRST_PID_NAMESPACE and not self._has_systemd:
            raise UnheardError("the collector's PID namespace may not contain all daemons")

    @property
    def _has_systemd(self) -> bool:
        answer = self.bundle.last(DAEMONS.id, UNITS, self.host)
        return answer is not None and answer.error is None

    @cached_property
    def units(self) -> Mapping[str, Unit]:
        """Name → unit of systemd. Empty if the host has no systemd."""
        answer = self.bundle.last(DAEMONS.id, UNITS, self.host)
        if answer is None:
            self.census  # noqa: B018 (raises if nothing was collected)
            return {}
        rows = [row.split() for row in value_of(answer, UNITS, str).splitlines()]
        found = {}
        for row in rows:
            if len(row) != 4:
                raise UnheardError(f"{UNITS}: a line can't be read")
            name, _, active, sub = row
            shown = self._shown.get(name, {})
            found[name] = Unit(
                name=name,
                active=active,
                sub=sub,
                file=self._files.get(name),
                result=shown.get("Result"),
                exit_status=whole(shown.get("ExecMainStatus")),
                restarts=whole(shown.get("NRestarts")),
                since=self._time(whole(shown.get("StateChangeTimestampMonotonic"))),
            )
        return found

    @property
    def units_answer(self) -> Answer:
        """The list of units. Raises `UnheardError` if it was not collected."""
        answer = self.bundle.last(DAEMONS.id, UNITS, self.host)
        value_of(answer, "the list of systemd's units", str)
        assert answer is not None  # noqa: S101 (value_of raises for None)
        return answer

    @cached_property
    def _files(self) -> Mapping[str, str]:
        answer = self.bundle.last(DAEMONS.id, UNIT_FILES, self.host)
        if answer is None or answer.error is not None:
            return {}
        rows = [row.split() for row in value_of(answer, UNIT_FILES, str).splitlines()]
        return {row[0]: row[1] for row in rows if len(row) > 1}

    @cached_property
    def _shown(self) -> Mapping[str, Mapping[str, str]]:
        answer = self.bundle.last(DAEMONS.id, PROPERTIES, self.host)
        if answer is None or answer.error is not None:
            return {}
        units = value_of(answer, PROPERTIES, list[dict[str, str]])
        return {unit["Id"]: unit for unit in units if "Id" in unit}

    def _time(self, monotonic: int | None) -> datetime | None:
        """Return the time of an event, given in µs of the kernel's monotonic clock."""
        answer = self.bundle.last("host", "date --utc", self.host)
        if not monotonic or answer is None or not isinstance(answer.value, dict):
            return None
        now, clock = moment(str(answer.value.get("utc"))), answer.value.get("monotonic")
        if now is None or not isinstance(clock, int | float):
            return None
        return now - timedelta(seconds=clock - monotonic / 1e6)


def _condition(daemon: Daemon) -> Condition:
    if daemon.is_paused:
        return Condition.PAUSED
    return {"T": Condition.STOPPED, "t": Condition.STOPPED, "D": Condition.STUCK}.get(
        daemon.state, Condition.RUNNING
    )


def _read(rows: Iterable[Mapping[str, object]]) -> Mapping[str, tuple[Daemon, ...]]:
    found: dict[str, list[Daemon]] = {}
    parents: dict[int, int] = {}
    for row in rows:
        pid, switches = whole(row.get("pid")), whole(row.get("switches"))
        if pid is None or switches is None:
            raise UnheardError("the list of daemons can't be read")
        name, paused = text(row, "name") or "", row.get("frozen") is True
        state, unit = text(row, "state") or "", text(row, "unit")
        found.setdefault(name, []).append(Daemon(name, pid, state, switches, unit, paused))
        parents[pid] = whole(row.get("ppid")) or 0
    return {
        name: tuple(one for one in same if parents[one.pid] not in {other.pid for other in same})
        for name, same in found.items()
    }
