"""Daemons of a host: which of them run, whether they work, and their units in systemd."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.facts.clock import moment
from hoodsnap.facts.fact import DocumentedField, UnheardError, integer, text, value_of
from hoodsnap.facts.layer import DAEMONS
from hoodsnap.facts.quantity import whole

CENSUS = DAEMONS.census_query

UNITS = "systemctl list-units --type=service,socket --all --plain --no-legend"

UNIT_FILES = "systemctl list-unit-files --type=service,socket --no-legend"

PROPERTIES = "systemctl show"

NAMESPACES = "readlink /proc/self/ns/*"

FIRST_PID_NAMESPACE = "pid:[4026531836]"
"""The namespace of the host's PID 1, in which all processes are visible: a constant of Linux."""


TICKS = 100
"""Ticks in a second in which the kernel counts the times of processes, on every architecture."""

LATEST = 1 << 36
"""Seconds since 1970 up to which a time is possible."""


class Condition(StrEnum):
    """Condition of a daemon."""

    RUNNING = "running"
    MISSING = "not running"
    TRACED = "stopped by a debugger (state t)"
    STOPPED = "stopped by a signal (state T)"
    PAUSED = "paused with its container (frozen control group)"
    STUCK = "waiting for a device that does not answer (state D)"


class Daemon(NamedTuple):
    """A process of a daemon."""

    name: str
    pid: int
    state: str
    """State of its first thread, as in ps: `S`, `R`, `T`, `D` …"""
    switches: int
    """Number of times that its first thread stopped running; it grows whenever it works."""
    started: int
    """Time of its start in ticks (1/100 s) after the host's boot."""
    unit: str | None
    """System unit that it was started by; None if it runs in a container or in no unit."""
    is_paused: bool
    """True if its control group is frozen."""
    open_files: int | None = None
    """Number of open files, with sockets; None if it was not collected."""
    limit: str | None = None
    """Line about open files in its limits, as the kernel prints it; None if not collected."""
    tracer: int | None = None
    """PID of the program that traces it (gdb, strace); None if none does, or not collected."""
    tracer_name: str | None = None
    """Name of that program; None if it was not collected."""
    lost_sockets: tuple[str, ...] | None = None
    """Paths of unix sockets at which it listens, and that do not exist in its file system; None if
    not collected."""
    umask: int | None = None
    """Permissions that new files and folders do not get; None if not collected."""


DOCUMENTED_DAEMON = (
    DocumentedField("name", "Name of the daemon: `nova-compute`."),
    DocumentedField("pid", "Process id."),
    DocumentedField("state", "State of its first thread, as in ps: `S`, `R`, `T`, `D` …"),
    DocumentedField("is_paused", "True if its control group is frozen."),
    DocumentedField("unit", "System unit that started it; null in a container or in no unit."),
)


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
    end: str | None
    """End of its last run: `exit status 3`, `signal 9`; None if it did not, or not collected."""
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
        """Name → its processes, in order of their PIDs."""
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
        """Return the condition of a daemon that may have any of these names, and the process that
        shows it; None if the daemon is missing.

        A process is stopped, paused or stuck only if it was so each time that the daemons were
        listed, and a daemon is missing only if it was missing each time. Raises `UnheardError` if
        that is not known.
        """
        looks = [
            {one.pid: one for name in names for one in look.get(name, ())} for look in self._looks
        ]
        if not any(looks):
            self._must_see(names)
            return Condition.MISSING, None
        for condition in (Condition.PAUSED, Condition.TRACED, Condition.STOPPED, Condition.STUCK):
            for one in looks[-1].values():
                earlier = [look.get(one.pid) for look in looks]
                same = all(before is not None and _is(condition, before) for before in earlier)
                if same and (condition is not Condition.STUCK or _never_ran(earlier)):
                    return condition, one
        running = looks[-1] or next(filter(None, looks))
        return Condition.RUNNING, next(iter(running.values()))

    def looks_at(self, name: str) -> Mapping[int, tuple[Daemon, ...]]:
        """PID → process, as it was each time that the daemons were listed, the newest last.

        Processes that were missing at one of these times are left out.
        """
        looks = [{one.pid: one for one in look.get(name, ())} for look in self._looks]
        return {
            pid: tuple(look[pid] for look in looks)
            for pid in sorted(looks[-1])
            if all(pid in look for look in looks)
        }

    def lasting(self, name: str) -> Daemon | None:
        """Return a process of a daemon that ran each time that the daemons were listed.

        None if it has none: it does not run, or it was started or ended meanwhile.
        """
        return next((looks[-1] for looks in self.looks_at(name).values()), None)

    @cached_property
    def conditions(self) -> Mapping[str, Condition]:
        """Name → condition, for the daemons in the newest list, by name."""
        return {name: self.condition(name)[0] for name in sorted(self.by_name)}

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
        if spaces.get("pid") != FIRST_PID_NAMESPACE and not self.has_systemd:
            raise UnheardError("the collector's PID namespace may not contain all daemons")

    @property
    def has_systemd(self) -> bool:
        """True if the host's systemd listed its units."""
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
                end=_end(whole(shown.get("ExecMainCode")), whole(shown.get("ExecMainStatus"))),
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

    def since(self, daemon: Daemon) -> datetime | None:
        """Return the time at which a process was started; None if the boot's time is unknown."""
        answer = self.bundle.last("kernel", "grep btime /proc/stat", self.host)
        words = str(answer.value).split() if answer is not None and answer.error is None else []
        boot = whole(words[-1]) if words else None
        if boot is None or boot + daemon.started / TICKS > LATEST:
            return None
        return datetime.fromtimestamp(boot + daemon.started / TICKS, UTC)

    def _time(self, monotonic: int | None) -> datetime | None:
        """Return the time of an event, given in µs of the kernel's monotonic clock."""
        answer = self.bundle.last("host", "date --utc", self.host)
        if not monotonic or answer is None or not isinstance(answer.value, dict):
            return None
        now, clock = moment(str(answer.value.get("utc"))), answer.value.get("monotonic")
        if now is None or not isinstance(clock, int | float):
            return None
        return now - timedelta(seconds=clock - monotonic / 1e6)


def _end(code: int | None, status: int | None) -> str | None:
    """Return how a process ended, from its code (1: it exited, 2 and 3: a signal) and status."""
    words = {1: "exit status", 2: "signal", 3: "signal"}.get(code or 0)
    return f"{words} {status}" if words is not None and status is not None else None


def _is(condition: Condition, daemon: Daemon) -> bool:
    if condition is Condition.PAUSED:
        return daemon.is_paused
    states = {Condition.TRACED: "t", Condition.STOPPED: "Tt", Condition.STUCK: "D"}
    return daemon.state in states[condition]


def _never_ran(looks: Sequence[Daemon | None]) -> bool:
    """True if a process was seen at least twice, and never ran between the two times."""
    return len(looks) > 1 and len({one.switches for one in looks if one is not None}) == 1


def _umask(row: Mapping[str, object]) -> int | None:
    digits = row.get("umask")
    return (
        int(digits, 8) if isinstance(digits, str) and re.fullmatch("[0-7]{1,4}", digits) else None
    )


def _read(rows: Iterable[Mapping[str, object]]) -> Mapping[str, tuple[Daemon, ...]]:
    found: dict[str, list[Daemon]] = {}
    for row in rows:
        numbers = [whole(row.get(key)) for key in ("pid", "switches", "started")]
        pid, switches, started = (number if number is not None else -1 for number in numbers)
        if -1 in (pid, switches, started):
            raise UnheardError("the list of daemons can't be read")
        name, state = text(row, "name") or "", text(row, "state") or ""
        paused, unit = row.get("frozen") is True, text(row, "unit")
        files = whole(row.get("open_files"))
        limit = text(row, "limit") if "limit" in row else None
        tracer, its_name = whole(row.get("tracer")), row.get("tracer_name")
        program = its_name if isinstance(its_name, str) else None
        paths = row.get("lost_sockets")
        lost = tuple(str(one) for one in paths) if isinstance(paths, list) else None
        daemon = Daemon(
            *(name, pid, state, switches, started, unit, paused, files, limit, tracer, program),
            lost_sockets=lost,
            umask=_umask(row),
        )
        found.setdefault(name, []).append(daemon)
    return {name: tuple(same) for name, same in found.items()}
