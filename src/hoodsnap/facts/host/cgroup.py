"""Control groups of a guest: the groups of its QEMU process, their limits and their use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

from hoodsnap.bundle import Answer
from hoodsnap.facts.domain.hardware import percent_of
from hoodsnap.facts.fact import Documented, Fact, UnheardError, unheard, value_of
from hoodsnap.facts.layer import CGROUP, Layer
from hoodsnap.facts.quantity import whole

CENSUS = CGROUP.census_query

UNITS = "systemctl list-units 'machine-*.scope' --all --plain --no-legend"

MACHINE = re.compile(r"machine-qemu.*\.scope|.*\.libvirt-qemu")
"""Names of the groups that libvirt makes for guests, with and without systemd."""

_NAMED = re.compile(r"(?:machine-)?qemu-(\d{1,9})-(.+?)(?:\.scope|\.libvirt-qemu)")
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")

_OF_PROCESS = re.compile(r"/proc/\d+/cgroup")

_MARKS = {
    "cpu": ("cpu.max", "cpu.cfs_quota_us"),
    "memory": ("memory.max", "memory.limit_in_bytes"),
    "cpuset": ("cpuset.cpus.effective", "cpuset.effective_cpus"),
    "pressure": ("cpu.pressure",),
    "freezer": ("cgroup.events", "freezer.state"),
    "soft": ("memory.high", "memory.soft_limit_in_bytes"),
    "io": (
        *("io.max", "blkio.throttle.read_bps_device"),
        *("io.weight", "io.bfq.weight", "blkio.weight", "blkio.bfq.weight"),
    ),
}
"""Files that show which part an answer holds, in version 2 and version 1."""

_OF_VERSION_2 = {
    "rbps": "read_bytes_sec",
    "wbps": "write_bytes_sec",
    "riops": "read_iops_sec",
    "wiops": "write_iops_sec",
}
_OF_VERSION_1 = {
    "blkio.throttle.read_bps_device": "read_bytes_sec",
    "blkio.throttle.write_bps_device": "write_bytes_sec",
    "blkio.throttle.read_iops_device": "read_iops_sec",
    "blkio.throttle.write_iops_device": "write_iops_sec",
}
"""The kernel's words for the limits of a disk → libvirt's."""

_DISK = re.compile(r"\d{1,8}:\d{1,8}")

USUAL_WEIGHTS: Mapping[str, frozenset[int]] = {
    "io.weight": frozenset([100]),
    "io.bfq.weight": frozenset([100]),
    "blkio.bfq.weight": frozenset([100]),
    "blkio.weight": frozenset([500, 1000]),
}
"""File of a weight → the kernel's own value, which was raised to 1000 and lowered to 500 again."""

_VCPU = re.compile(r"(?:libvirt/)?vcpu\d+/")
_WHOLE = re.compile(r"\A(?:libvirt/)?[^/]*\Z")

NO_LIMIT = 1 << 62
"""Bytes. In version 1, a limit this high means no limit: the kernel rounds the maximum."""


class MachineGroup(NamedTuple):
    """One guest's group in one hierarchy."""

    path: str
    pids: tuple[int, ...]
    """Processes in the group and its subgroups."""
    machine: tuple[int, str] | None
    """Id and name of the domain in the group's name; None if the name has another form."""


class IoLimit(NamedTuple):
    """A limit of access to one disk of the host."""

    disk: str
    """Its numbers: `254:0`."""
    name: str
    """The limit in libvirt's words: `read_bytes_sec`."""
    value: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Cgroup(Fact):
    """The groups of one QEMU process. A field that was not collected raises `UnheardError`."""

    layer: ClassVar[Layer] = CGROUP
    noun: ClassVar[str] = "cgroup"
    pid: int

    places: ClassVar[Mapping[str, tuple[str, str]]] = {
        "machine": ("cgroup", ""),
        "groups": ("cgroup", ""),
        "hierarchies": ("cgroup", ""),
        "vcpu_percent": ("cpu", "vcpu*/"),
        "global_percent": ("cpu", ""),
        "throttled_percent": ("cpu", "vcpu*/cpu.stat"),
        "memory_limit_kib": ("memory", ""),
        "memory_used_kib": ("memory", ""),
        "memory_soft_limit_kib": ("soft", ""),
        "frozen": ("freezer", ""),
        "io_limits": ("io", ""),
        "io_weights": ("io", ""),
        "oom_kills": ("memory", ""),
        "waits_for_memory": ("memory", "memory.oom_control"),
        "cpus": ("cpuset", "emulator/"),
        "cpu_pressure": ("pressure", "cpu.pressure"),
    }

    documented: ClassVar[Documented] = (
        *("machine", "vcpu_percent", "throttled_percent", "memory_limit_kib", "cpus"),
    )

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """Paths of the groups as /proc/PID/cgroup shows them, without duplicates."""
        lines = value_of(self.said.get("cgroup"), f"/proc/{self.pid}/cgroup", str).splitlines()
        paths = [line.split(":", 2)[2] for line in lines if line.count(":") > 1]
        return tuple(dict.fromkeys(paths))

    @cached_property
    def hierarchies(self) -> Mapping[str, str]:
        """Controllers of each hierarchy → path of the group in it; "" is version 2."""
        lines = value_of(self.said.get("cgroup"), f"/proc/{self.pid}/cgroup", str).splitlines()
        fields = (line.split(":", 2) for line in lines if line.count(":") > 1)
        return {controllers: path for _, controllers, path in fields}

    @cached_property
    def machine(self) -> str | None:
        """Name of the guest's group, made by libvirt; None if the process is in no such group."""
        parts = (part for path in self.groups for part in path.split("/"))
        return next((part for part in parts if MACHINE.fullmatch(part)), None)

    @cached_property
    def vcpu_percent(self) -> int | None:
        """Limit of each vCPU's CPU time, in percent of a host CPU; None if unlimited.

        The lowest, if the vCPUs differ.
        """
        settings = self._settings("cpu")
        limits = [*_limits(settings)]
        if not limits:
            raise UnheardError("no control groups exist for the vCPUs")
        return min((limit for limit in limits if limit is not None), default=None)

    @cached_property
    def global_percent(self) -> int | None:
        """Limit of the whole group's CPU time, in percent of a host CPU; None if unlimited."""
        settings = self._settings("cpu")
        limits = [*_limits(settings, _WHOLE)]
        if not limits:
            raise UnheardError("the CPU limit of the whole control group was not collected")
        return min((limit for limit in limits if limit is not None), default=None)

    @cached_property
    def throttled_percent(self) -> int | None:
        """Share of periods in which the limit held vCPUs back, in percent; None if unlimited."""
        periods = throttled = 0
        for name, text in self._settings("cpu").items():
            if name.endswith("cpu.stat"):
                counts = _counts(text)
                periods += counts.get("nr_periods", 0)
                throttled += counts.get("nr_throttled", 0)
        return throttled * 100 // periods if periods else None

    @cached_property
    def memory_limit_kib(self) -> int | None:
        """Memory limit of the group, in KiB; None if unlimited."""
        text = self._first("memory", "memory.max", "memory.limit_in_bytes").strip()
        limit = None if text == "max" else _number(text)
        return None if limit is None or limit >= NO_LIMIT else limit >> 10

    @cached_property
    def memory_soft_limit_kib(self) -> int | None:
        """Memory above which the kernel takes memory away from the group, in KiB; None if
        unlimited. The lowest, if libvirt made a group inside of the guest's."""
        values = [
            text.strip()
            for name, text in self._settings("soft").items()
            if _WHOLE.match(name) and name.rpartition("/")[2] in _MARKS["soft"]
        ]
        limits = [_number(text) for text in values if text != "max"]
        least = min(limits, default=NO_LIMIT)
        return None if least >= NO_LIMIT else least >> 10

    @cached_property
    def frozen(self) -> bool:
        """True if the kernel lets no process of the group run, because the group or one above it is
        frozen."""
        found = _frozen(self._settings("freezer"))
        return found if found is not None else unheard("frozen was not collected")

    @property
    def frozen_by_version_1(self) -> bool:
        """True if `frozen` is the state of version 1's freezer; both versions may be mounted."""
        return any(name.endswith("freezer.state") for name in self._settings("freezer"))

    @property
    def holds_back(self) -> bool:
        """True if the kernel stops a group above its soft limit (version 2); version 1 takes memory
        away only if the host has none left."""
        return any(name.endswith("memory.high") for name in self._settings("soft"))

    @cached_property
    def io_limits(self) -> tuple[IoLimit, ...]:
        """Limits of the group's access to disks of the host."""
        found: dict[IoLimit, None] = {}
        for name, text in self._settings("io").items():
            file = name.rpartition("/")[2]
            if _WHOLE.match(name) and (file == "io.max" or file in _OF_VERSION_1):
                found |= dict.fromkeys(_io_limits(file, text))
        return tuple(found)

    @cached_property
    def io_weights(self) -> Mapping[str, int]:
        """Share of the host's disks that the group gets when they are busy, by the file of each of
        the kernel's schedulers: `blkio.bfq.weight` → 100."""
        found = {}
        for name, text in self._settings("io").items():
            file = name.rpartition("/")[2]
            words = text.split()
            if _WHOLE.match(name) and file in USUAL_WEIGHTS and words:
                # A group inside of the guest's has the weight that libvirt set, if there is one.
                number = _number(words[1] if words[0] == "default" and words[1:] else words[0])
                if file not in found or number not in USUAL_WEIGHTS[file]:
                    found[file] = number
        return found

    @cached_property
    def memory_used_kib(self) -> int:
        """Memory that the group uses, in KiB, including cached files."""
        return _number(self._first("memory", "memory.current", "memory.usage_in_bytes")) >> 10

    @cached_property
    def oom_kills(self) -> int:
        """Processes of the group that the kernel killed at the limit. Linux 4.13 and later."""
        counts = _counts(self._first("memory", "memory.events", "memory.oom_control"))
        return counts["oom_kill"] if "oom_kill" in counts else unheard("oom_kill was not collected")

    @cached_property
    def waits_for_memory(self) -> bool:
        """True if the group is at its limit and its processes wait for memory, because killing them
        is switched off (`oom_kill_disable`). Only version 1 of control groups can do that."""
        try:
            counts = _counts(self._first("memory", "memory.oom_control"))
        except UnheardError:
            return False  # version 2, or a kernel that does not tell
        return bool(counts.get("under_oom") and counts.get("oom_kill_disable"))

    @cached_property
    def cpus(self) -> str:
        """Host CPUs that QEMU's own threads may run on: `0-3,8`."""
        names = ("cpuset.cpus.effective", "cpuset.effective_cpus")
        inner = [f"{group}{name}" for group in ("libvirt/emulator/", "emulator/") for name in names]
        return self._first("cpuset", *inner, *names).strip()

    @cached_property
    def cpu_pressure(self) -> float:
        """Share of the last 10 s in which the group waited for a CPU, in percent."""
        found = re.search(
            r"^some avg10=(\d{1,3}\.\d\d) ", self._first("pressure", "cpu.pressure"), re.M
        )
        return float(found[1]) if found else unheard("cpu.pressure can't be read")

    def _settings(self, part: str) -> Mapping[str, str]:
        return value_of(self.said.get(part), f"the control group's {part} data", dict[str, str])

    def _first(self, part: str, *names: str) -> str:
        settings = self._settings(part)
        found = next((settings[name] for name in names if name in settings), None)
        return found if found is not None else unheard(f"{names[0]} was not collected")


@dataclass(frozen=True, eq=False)
class ControlGroups:
    """The control groups of all guests of one host."""

    by_pid: Mapping[int, Cgroup]
    machines: tuple[MachineGroup, ...]
    """Every guest's groups, in the order of the list; empty if the list was not collected."""
    units: Mapping[str, str]
    """Scope of a machine → its state in systemd (`active`, `failed`)."""

    @classmethod
    def read(cls, answers: Iterable[Answer]) -> ControlGroups:
        """Read one host's answers; the last answer to each query counts."""
        said: dict[int, dict[str, Answer]] = {}
        failed: dict[int, Answer] = {}
        machines: tuple[MachineGroup, ...] = ()
        units: dict[str, str] = {}
        for answer in answers:
            pid = whole(answer.subject)
            if answer.query == CENSUS and answer.error is None:
                machines = tuple(_machines(answer))
            elif answer.query == UNITS and answer.error is None:
                rows = [row.split() for row in value_of(answer, UNITS, str).splitlines()]
                units = {row[0]: row[2] for row in rows if len(row) > 2}
            elif pid is None:
                continue
            elif _OF_PROCESS.fullmatch(answer.query):
                said.setdefault(pid, {})["cgroup"] = answer
            elif answer.error is not None:
                failed[pid] = answer
            else:
                mine = said.setdefault(pid, {})
                shown = [part for part in _parts_of(answer) if not _hides(answer, part, mine)]
                mine.update(dict.fromkeys(shown, answer))
        for pid, parts in said.items():
            if pid in failed:
                said[pid] = {**dict.fromkeys(_MARKS, failed[pid]), **parts}
        facts = {pid: Cgroup(pid=pid, said=parts) for pid, parts in said.items()}
        return cls(facts, machines, units)

    @cached_property
    def of_machines(self) -> Mapping[tuple[int, str], tuple[MachineGroup, ...]]:
        """Id and name of a domain → its groups, one in each hierarchy."""
        found: dict[tuple[int, str], list[MachineGroup]] = {}
        for group in self.machines:
            if group.machine is not None:
                found.setdefault(group.machine, []).append(group)
        return {machine: tuple(groups) for machine, groups in found.items()}

    def of(self, pid: int) -> Cgroup:
        """Return the groups of one process; without answers, every field raises `UnheardError`."""
        return self.by_pid.get(pid) or Cgroup(pid=pid)


def machine_of(name: str) -> tuple[int, str] | None:
    """Return the id and name of the domain in a group's name; None if the name has another form."""
    if "\\" in name:
        name = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), name)
    found = _NAMED.fullmatch(name)
    return (int(found[1]), found[2]) if found is not None else None


def _machines(answer: Answer) -> Iterator[MachineGroup]:
    for row in value_of(answer, CENSUS, list[dict[str, object]]):
        path, pids = row.get("path"), row.get("pids")
        if not isinstance(path, str) or not isinstance(pids, list):
            raise UnheardError(f"{CENSUS} can't be read")
        known = tuple(pid for pid in map(whole, pids) if pid is not None)
        yield MachineGroup(path, known, machine_of(path.rpartition("/")[2]))


def _hides(answer: Answer, part: str, others: Mapping[str, Answer]) -> bool:
    """True if an answer of one hierarchy hides that another one has frozen the group."""
    other = others.get(part)
    if part != "freezer" or other is None or other.query == answer.query:
        return False
    return not _frozen(value_of(answer, "the control group's freezer data", dict[str, str]))


def _frozen(settings: Mapping[str, str]) -> bool | None:
    """Return whether the whole group is frozen by the files of one hierarchy; None if unknown."""
    states = {
        name.rpartition("/")[2]: text for name, text in settings.items() if _WHOLE.match(name)
    }
    if "freezer.state" in states:
        return states["freezer.state"].strip() != "THAWED"
    counts = _counts(states.get("cgroup.events", ""))
    return counts["frozen"] == 1 if "frozen" in counts else None


def _parts_of(answer: Answer) -> Iterator[str]:
    names = {name.rpartition("/")[2] for name in value_of(answer, answer.query, dict[str, str])}
    for part, marks in _MARKS.items():
        if names.intersection(marks):
            yield part


def _limits(settings: Mapping[str, str], groups: re.Pattern[str] = _VCPU) -> Iterator[int | None]:
    """Yield the limit of each group, of vCPUs if not told, in percent; None if unlimited."""
    for name, text in settings.items():
        folder, _, file = name.rpartition("/")
        if not groups.match(name) or file not in _MARKS["cpu"]:
            continue
        quota, _, period = text.strip().partition(" ")
        if file == "cpu.cfs_quota_us":
            period = settings.get(f"{folder}/cpu.cfs_period_us".lstrip("/"), "")
        yield None if quota in ("max", "-1") else percent_of(_number(quota), _number(period))


def _io_limits(file: str, text: str) -> Iterator[IoLimit]:
    """Read `254:0 rbps=1048576 wbps=max …` (version 2) or `254:0 1048576` (version 1)."""
    for line in text.splitlines():
        disk, *words = line.split() or [""]
        if not _DISK.fullmatch(disk) or not words:
            raise UnheardError("a limit in the control group can't be read")
        if file != "io.max":
            yield IoLimit(disk, _OF_VERSION_1[file], _number(words[0]))
            continue
        for word in words:
            name, _, value = word.partition("=")
            if value != "max" and name in _OF_VERSION_2:
                yield IoLimit(disk, _OF_VERSION_2[name], _number(value))


def _counts(text: str) -> dict[str, int]:
    """Read lines that consist of a name and a number: `nr_periods 12`."""
    rows = (line.split() for line in text.splitlines())
    return {row[0]: _number(row[1]) for row in rows if len(row) == 2}


def _number(text: str) -> int:
    plain = text.strip()
    if not plain.isascii() or not plain.isdecimal() or len(plain) > 20:
        raise UnheardError("a number in the control group can't be read")
    return int(plain)
