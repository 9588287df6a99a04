"""Plausibility of QEMU processes: the kernel, libvirt and libvirt's logs about the same process."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property, lru_cache

from hoodsnap.bundle import Answer
from hoodsnap.facts.clock import moment
from hoodsnap.facts.process.command_line import read_command_line
from hoodsnap.facts.process.process import LIST_PROCESSES
from hoodsnap.trust.plausible.visit import SKEW, HostAnswers, rows_of

TICKS = 100
"""Clock ticks per second in /proc, on every architecture that compute hosts use."""

SLACK = 2.0
"""Seconds by which times of one host may differ."""

DOMAIN = re.compile(r"/domain-(\d{1,9})-")
"""The domain's id in a path that libvirt puts on the command line of QEMU."""

STARTED = re.compile(
    r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\+0000): starting up", re.M | re.ASCII
)


@dataclass(frozen=True)
class Qemu:
    """A QEMU process whose /proc/PID/stat was collected."""

    visit: HostAnswers
    pid: str
    stat: Answer

    @cached_property
    def fields(self) -> list[str]:
        """The fields after the process name, beginning with the third."""
        text = self.stat.value if isinstance(self.stat.value, str) else ""
        return text.rpartition(")")[2].split()

    def count(self, number: int) -> int | None:
        """Return a field by its number in proc(5); None if it is missing or not a number."""
        text = self.fields[number - 3] if len(self.fields) > number - 3 else ""
        return int(text) if re.fullmatch(r"\d{1,18}", text, re.ASCII) else None

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The command line; a single empty word if it was not collected."""
        return tuple(self.visit.text("kernel", f"/proc/{self.pid}/cmdline").split("\0"))

    @cached_property
    def uuid(self) -> str | None:
        """The UUID given by `-uuid`."""
        return read_command_line(self.words).uuid

    @cached_property
    def domain_id(self) -> int | None:
        """The domain id under which libvirt started it; None if it is missing or ambiguous. The ids
        don't show the order of starts, because a restarted libvirt begins with 1 again."""
        found = {int(number) for word in self.words for number in DOMAIN.findall(word)}
        return found.pop() if len(found) == 1 else None

    @property
    def after_boot(self) -> float | None:
        """Seconds from the host's boot to the start of the process."""
        ticks = self.count(22)
        return ticks / TICKS if ticks is not None and ticks < 1e12 else None

    @property
    def start(self) -> datetime | None:
        """Start time of the process, by the clock of the collection."""
        if self.after_boot is None or self.visit.boot is None:
            return None
        return self.visit.boot + timedelta(seconds=self.after_boot)


def numbered_alike(visit: HostAnswers) -> Iterator[str]:
    """Check that stat and status show the PID under which they were read."""
    for answer in visit.answers:
        asked = re.fullmatch(r"/proc/(\d+)/(stat|status)", answer.query, re.ASCII)
        if answer.layer != "kernel" or asked is None or not isinstance(answer.value, str):
            continue
        own = r"(\d+) \(" if asked[2] == "stat" else r"(?s:.*?)^Pid:\t(\d+)$"
        found = re.match(own, answer.value, re.M | re.ASCII)
        if found is not None and found[1] != asked[1]:
            yield f"{answer.query} belongs to process {found[1]}"


def started_before_seen(visit: HostAnswers) -> Iterator[str]:
    """Check that no process started after its stat was read."""
    for qemu in _qemus(visit):
        uptime = visit.uptime(qemu.stat.at)
        if uptime is None or qemu.after_boot is None:
            continue
        if qemu.after_boot > uptime + qemu.stat.took + SLACK:
            yield (
                f"{qemu.stat.query} shows that the process started {qemu.after_boot:.0f} s after"
                f" boot, but was read {uptime:.0f} s after boot"
            )


def busy_no_longer_than_alive(visit: HostAnswers) -> Iterator[str]:
    """Check that no process used more CPU time than its age and the host's CPUs allow."""
    cpus = len(re.findall(r"^cpu\d+ ", visit.text("kernel", "/proc/stat"), re.M | re.ASCII))
    for qemu in _qemus(visit):
        uptime, user, system = visit.uptime(qemu.stat.at), qemu.count(14), qemu.count(15)
        if uptime is None or qemu.after_boot is None or user is None or system is None:
            continue
        age, busy = uptime - qemu.after_boot, (user + system) / TICKS
        if cpus and busy > (max(age, 0) + SLACK + qemu.stat.took) * cpus:
            yield (
                f"{qemu.stat.query} shows {busy:.0f} s of CPU time, but the process had started"
                f" only {age:.0f} s before ({cpus} CPUs)"
            )


def command_line_twice(visit: HostAnswers) -> Iterator[str]:
    """Check that ps and /proc show the same command line."""
    listed = visit.text("kernel", "pgrep qemu | xargs ps ww")
    shown = dict(re.findall(r"^ *(\d+) \S+ +\S+ +\S+ (.*)$", listed, re.M | re.ASCII))
    for qemu in _qemus(visit):
        line, whole = shown.get(qemu.pid, ""), " ".join(qemu.words).strip()
        both = line.strip() and whole and (line + whole).isascii() and (line + whole).isprintable()
        if both and not (whole.startswith(line.strip()) or line.strip().startswith(whole)):
            place = next(n for n, (a, b) in enumerate(zip(line, whole, strict=False)) if a != b)
            start = max(whole.rfind(" ", 0, place), 0)
            yield (
                f"ps shows the argument {_first(line[start:])} of process {qemu.pid}, but"
                f" /proc/{qemu.pid}/cmdline shows {_first(whole[start:])}"
            )


def _first(words: str) -> str:
    return next(iter(words.split()), "no argument")


def domain_id_twice(visit: HostAnswers) -> Iterator[str]:
    """Check that a running domain has the id under which libvirt started its QEMU."""
    listed, shown = _listed_ids(visit), _shown_ids(visit)
    for qemu in _qemus(visit):
        uuid = qemu.uuid or ""
        ids = {
            "virsh list": listed.get(uuid),
            "virsh dumpxml": shown.get(uuid),
            f"the command line of process {qemu.pid}": qemu.domain_id,
        }
        known = {place: number for place, number in ids.items() if number is not None}
        if listed.get(uuid) is not None and len(set(known.values())) > 1:
            places = ", ".join(f"{number} in {place}" for place, number in known.items())
            yield f"domain {uuid} has id {places}"


def started_as_logged(visit: HostAnswers) -> Iterator[str]:
    """Check that the last start in a running domain's log is the start of its process."""
    logs = {
        answer.subject: (answer, STARTED.findall(answer.value))
        for answer in visit.asked("logs", "tail -c 65536 ")
        if isinstance(answer.value, str)
    }
    for qemu in _qemus(visit):
        answer, starts = logs.get(qemu.uuid, (None, []))
        logged = moment(starts[-1]) if starts and qemu.domain_id is not None else None
        if answer is None or logged is None or qemu.start is None:
            continue
        if abs(logged - qemu.start) > SKEW:
            yield (
                f"process {qemu.pid} started at {qemu.start:%Y-%m-%d %H:%M:%S}, but"
                f" {answer.query.rpartition('/')[2]} shows a start at {logged:%Y-%m-%d %H:%M:%S}"
            )


def younger_than_its_row(visit: HostAnswers) -> Iterator[str]:
    """Check that no guest started before its instance was created."""
    created: dict[str, datetime] = {}
    for answer in visit.asked("nova-db", "SELECT "):
        columns = answer.value.get("columns") if isinstance(answer.value, dict) else None
        if not isinstance(columns, list) or not {"uuid", "created_at", "vm_state"} <= set(
            map(str, columns)
        ):
            continue
        for row in rows_of(answer):
            cells = dict(zip(map(str, columns), row, strict=True))
            uuid, time = cells["uuid"], moment(cells["created_at"])
            if isinstance(uuid, str) and time is not None:
                created[uuid] = min(time, created.get(uuid, time))
    for qemu in _qemus(visit):
        made = created.get(qemu.uuid or "")
        if made is not None and qemu.start is not None and made - qemu.start > SKEW:
            yield (
                f"process {qemu.pid} started at {qemu.start:%Y-%m-%d %H:%M:%S}, before instance"
                f" {qemu.uuid} was created at {made:%Y-%m-%d %H:%M:%S}"
            )


@lru_cache(maxsize=1)
def _qemus(visit: HostAnswers) -> tuple[Qemu, ...]:
    """Return the running QEMU processes of guests that did not change during the collection."""
    stats: dict[str, Answer] = {}
    for answer in visit.asked("kernel", "/proc/"):
        asked = re.fullmatch(r"/proc/(\d{1,10})/stat", answer.query, re.ASCII)
        if asked is not None:
            stats[asked[1]] = answer
    running = _running(visit)
    found = (Qemu(visit, pid, answer) for pid, answer in stats.items() if pid in running)
    return tuple(qemu for qemu in found if qemu.uuid and qemu.uuid not in visit.moved)


def _running(visit: HostAnswers) -> set[str]:
    """Return the PIDs in the newest list of QEMU processes; other processes have ended since."""
    listed = visit.last("kernel", LIST_PROCESSES)
    lines = listed.value if listed is not None and isinstance(listed.value, list) else []
    return {str(line.get("pid")) for line in lines if isinstance(line, dict)}


def _listed_ids(visit: HostAnswers) -> dict[str, int]:
    """Return the ids of running domains by UUID, from libvirt's newest list."""
    listed = visit.last("libvirt", "virsh list --all")
    lines = listed.value if listed is not None and isinstance(listed.value, list) else []
    return {
        str(line.get("uuid")).lower(): line["id"]
        for line in lines
        if isinstance(line, dict) and type(line.get("id")) is int
    }


def _shown_ids(visit: HostAnswers) -> dict[str, int]:
    """Return the ids of running domains by UUID, from each domain's newest XML."""
    found: dict[str, int] = {}
    for answer in visit.asked("libvirt", "virsh dumpxml "):
        text = answer.value if isinstance(answer.value, str) else ""
        number = re.match(r"<domain [^>]*\bid=['\"](\d{1,9})['\"]", text, re.ASCII)
        if number is not None and answer.subject is not None:
            found[answer.subject.lower()] = int(number[1])
    return found
