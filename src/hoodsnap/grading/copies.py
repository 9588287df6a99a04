"""Find submissions that are copies of one another, and submissions from the same host.

A bundle contains traces that renaming does not change. *Passing* traces change all the time as the
machine works: kernel counters, CPU times, ages of flows, the clock. Two honest bundles share hardly
any of them, even if they come from one host or from two machines restored from one snapshot.
*Lasting* traces (process start times, inodes with their times, times of records) stay the same as
long as the machine exists. They identify the host, and are no sign of cheating.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any
from zlib import crc32

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.grading.result import Copy, Grade, Sure, Traces
from hoodsnap.trust.fingerprint import LAYER, fingerprint

LEAST = 1000
"""Smallest number that counts as a trace; smaller ones are equal by chance."""

COUNTERS = "kernel counters"
CPU = "CPU times"
FLOWS = "flow ages and counters"
SPACE = "free space"
CLOCK = "clock readings"
ASKED = "times of asking"
PASSING = (ASKED, CLOCK, COUNTERS, FLOWS, CPU, SPACE)

STARTS = "process start times"
INODES = "inodes with their times"
RECORDS = "times of records"
LASTING = (STARTS, INODES, RECORDS)

_NUMBER = re.compile(r"[0-9]{4,20}")
_FLOW = re.compile(r"duration=([0-9.]{4,24})s, table=([0-9]{1,3}), n_packets=([0-9]{1,20})")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?")
_RECORDS = frozenset(["nova", "nova-db", "cinder", "glance", "neutron"])
_COUNTING = frozenset(["/proc/stat", "/proc/meminfo", "/proc/uptime", "/proc/loadavg"])

_MOST_HOLDERS = 32
"""Number of groups remembered for one trace; a trace in more groups identifies none of them."""

_MOST_COMPARED = 4
"""Number of groups, and of members of each, that a bundle is compared with."""


def traces(bundle: Bundle) -> Traces:
    """Return the traces by which this bundle can be recognized."""
    found: dict[str, set[int]] = {}
    for answer in bundle.answers:
        if answer.layer == LAYER:
            continue
        for kind, mark in _marks(answer):
            found.setdefault(kind, set()).add(_mark(mark))
    return Traces(
        fingerprints=frozenset([fingerprint(bundle)]),
        boots=frozenset(_boots(bundle)),
        hosts=frozenset(answer.host for answer in bundle.answers),
        servers=frozenset(_servers(bundle)),
        marks={kind: frozenset(marks) for kind, marks in found.items()},
        started=bundle.started,
    )


def _boots(bundle: Bundle) -> Iterator[str]:
    for answer in bundle.asked("kernel", "/proc/sys/kernel/random/boot_id"):
        if answer.error is None:
            yield str(answer.value).strip()


def _servers(bundle: Bundle) -> Iterator[str]:
    for answer in bundle.asked("libvirt", "virsh list --all"):
        for line in answer.value if isinstance(answer.value, list) else ():
            if isinstance(line, dict) and (uuid := str(line.get("uuid", ""))):
                yield uuid.lower()


def _mark(text: str) -> int:
    raw = text.encode(errors="replace")
    return crc32(raw) << 32 | crc32(raw, 0x5EED)


def _marks(answer: Answer) -> Iterator[tuple[str, str]]:
    """Yield the traces of one answer, each after its kind."""
    # Round to two grids of milliseconds: a shift by some microseconds leaves one of them equal.
    micros = round(answer.at.timestamp() * 1e6)
    yield ASKED, f"{answer.layer} {answer.query[:8]} {micros // 1000}"
    yield ASKED, f"{answer.layer} {answer.query[:8]} half {(micros + 500) // 1000}"
    value, query = answer.value, answer.query
    if answer.error is not None:
        return
    if answer.layer == "kernel" and isinstance(value, str):
        yield from _of_kernel(query, value)
    elif answer.layer == "network" and "dump-flows" in query and isinstance(value, str):
        yield from ((FLOWS, " ".join(parts)) for parts in _FLOW.findall(value))
    elif answer.layer == "images":
        yield from _of_files(query, value)
    elif answer.layer in _RECORDS:
        for moment in set(_TIME.findall(json.dumps(value))):
            yield RECORDS, moment
    elif query == "date --utc":
        yield from ((CLOCK, number) for number in _NUMBER.findall(json.dumps(value)))
    elif query.startswith("virsh dominfo") and isinstance(value, dict):
        yield from _large(CPU, value.get("cpu_time_ns"))


def _of_kernel(query: str, text: str) -> Iterator[tuple[str, str]]:
    if query in _COUNTING:
        for line in text.splitlines():
            label = line.split(" ", 1)[0]
            yield from ((COUNTERS, f"{label} {number}") for number in _NUMBER.findall(line))
    elif query.endswith("/stat") and ")" in text:
        fields = text.rpartition(")")[2].split()
        if len(fields) > 20:
            start = fields[19]
            yield from ((STARTS, start),) if len(start) > 2 else ()
            yield CPU, f"{start} {fields[11]} {fields[12]}"
            yield from _large(CPU, fields[7])


def _of_files(query: str, value: Any) -> Iterator[tuple[str, str]]:
    if query.startswith("stat -f") and isinstance(value, dict):
        yield from _large(SPACE, value.get("bfree"))
    for line in value if isinstance(value, list) else [value]:
        if isinstance(line, dict) and "ino" in line and "ctime" in line:
            yield INODES, f"{line['ino']} {line['ctime']}"


def _large(kind: str, number: object) -> Iterator[tuple[str, str]]:
    if str(number).isdigit() and int(str(number)) >= LEAST:
        yield kind, str(number)


class _Link:
    """Traces that two submissions have in common."""

    def __init__(self, one: Traces, other: Traces) -> None:
        self.same_bundle = bool(one.fingerprints & other.fingerprints)
        self.boots = one.boots & other.boots
        self.servers = one.servers & other.servers
        self.equal = {
            kind: (len(one.marks[kind] & other.marks[kind]), least)
            for kind in (*PASSING, *LASTING)
            if kind in one.marks
            and kind in other.marks
            and (least := min(len(one.marks[kind]), len(other.marks[kind])))
        }

    def _is(self, kind: str, share: float, least: int) -> bool:
        """True if at least this share, and this number, of a kind of traces are equal."""
        same, count = self.equal.get(kind, (0, 0))
        return same >= least and same >= share * count

    @property
    def copied(self) -> Sure | None:
        """Certainty that both were recorded at one moment; None if they were not. Honest bundles of
        one host, recorded minutes apart, have at most 36 % of kernel counters, 53 % of CPU times,
        5 % of flow ages and none of the times of asking in common."""
        if self.same_bundle or self._is(ASKED, 0.4, 10) or self._is(FLOWS, 0.5, 12):
            return Sure.CERTAIN
        counters, busy = self._is(COUNTERS, 0.6, 12), self._is(CPU, 0.7, 5)
        if counters and (busy or self._is(SPACE, 1, 1)):
            return Sure.CERTAIN
        return Sure.LIKELY if counters or self._is(ASKED, 0.15, 20) else None

    @property
    def is_one_host(self) -> bool:
        """True if both come from one machine, or from one snapshot of it."""
        return bool(self.boots) or (self._is(STARTS, 0.5, 3) and self._is(INODES, 0.3, 5))

    @property
    def is_related(self) -> bool:
        """True if both show the same machine, or servers of the same cloud."""
        return self.is_one_host or bool(self.servers)

    def evidence(self, kinds: Sequence[str], more: str) -> Iterator[str]:
        """Yield numbers that a person can check, the strongest evidence first."""
        if self.same_bundle:
            return
        shared = [(kind, *self.equal[kind]) for kind in kinds if kind in self.equal]
        for kind, same, count in shared:
            if same >= 3 and 3 * same >= count:
                yield f"{more}{same} of {count} {kind} are equal"

    @property
    def strength(self) -> int:
        """Number of equal traces, by which the weakest link of a group is found."""
        return sum(same for same, _ in self.equal.values())


def copies(grades: Sequence[Grade]) -> Iterator[Copy]:
    """Yield groups of submissions: first those that are copies, then those from one host.

    Each group is reported once, however large it is.
    """
    reported: list[frozenset[int]] = []
    for members, links in _groups(grades, PASSING, lambda link: link.copied is not None):
        reported.append(frozenset(members))
        sure = {link.copied for link in links}
        likely = Sure.LIKELY in sure
        weakest = min(links, key=lambda link: link.strength)
        if all(link.same_bundle for link in links):
            shared = ["the same bundle"]
        else:
            shared = [
                "likely copies of one bundle" if likely else "certain copies of one bundle",
                *weakest.evidence(PASSING, "at least " if len(members) > 2 else ""),
            ]
        students = tuple(grades[member].student for member in members)
        yield Copy(students, tuple(shared), Sure.LIKELY if likely else Sure.CERTAIN)
    for members, links in _groups(grades, LASTING, lambda link: link.is_related):
        if not any(frozenset(members) <= group for group in reported):
            yield _one_host([grades[member] for member in members], links)


def _one_host(members: Sequence[Grade], links: Sequence[_Link]) -> Copy:
    students = tuple(one.student for one in members)
    weakest = min(links, key=lambda link: link.strength)
    more = "at least " if len(members) > 2 else ""
    shared = []
    one = all(link.is_one_host for link in links)
    if one:
        moments = [f"{its.traces.started:%m-%d %H:%M}" for its in members if its.traces.started]
        times = ", ".join(moments[:3]) + (", …" if len(moments) > 3 else "")
        shared.append(
            f"the same host, or one snapshot of it, recorded at different times ({times} UTC);"
            " this is not a copy"
        )
    if servers := min(len(link.servers) for link in links):
        shared.append(f"{more}{servers} servers with the same ids")
    if one:
        shared += weakest.evidence((STARTS, INODES), more)
    return Copy(students, tuple(shared) or ("one host or cloud",), Sure.SAME_HOST)


def _groups(
    grades: Sequence[Grade], kinds: Sequence[str], belong: Callable[[_Link], bool]
) -> Iterator[tuple[list[int], list[_Link]]]:
    """Yield groups of submissions that belong together, each with the links between its members.

    To save time, a submission is compared with only a few of those that share a trace with it.
    """
    leader = list(range(len(grades)))
    members: dict[int, list[int]] = {}
    links: dict[int, list[_Link]] = {}
    holders: dict[object, list[int]] = {}
    for number, grade in enumerate(grades):
        if not grade.traces.fingerprints:
            continue
        members[number], links[number] = [number], []
        keys = list(_keys(grade.traces, kinds))
        seen: Counter[int] = Counter()
        for key in keys:
            found = {_leader(leader, one) for one in holders.get(key, ())}
            if found:
                holders[key] = sorted(found)
                seen.update(found)
        for group, _ in seen.most_common(_MOST_COMPARED):
            for other in members[group][:_MOST_COMPARED]:
                link = _Link(grade.traces, grades[other].traces)
                own = _leader(leader, number)
                if belong(link):
                    if own != group:
                        first, second = sorted((own, group))
                        leader[second] = first
                        members[first] = sorted(members[first] + members.pop(second))
                        links[first] += [*links.pop(second), link]
                    break
        own = _leader(leader, number)
        for key in keys:
            held = holders.setdefault(key, [])
            if own not in held and len(held) < _MOST_HOLDERS:
                held.append(own)
    for group in sorted(members):
        if len(members[group]) > 1:
            yield members[group], links[group]


def _leader(leader: list[int], number: int) -> int:
    while leader[number] != number:
        leader[number] = leader[leader[number]]
        number = leader[number]
    return number


def _keys(traces: Traces, kinds: Iterable[str]) -> Iterator[object]:
    yield from traces.fingerprints
    for kind in kinds:
        yield from traces.marks.get(kind, ())
    if kinds == LASTING:
        yield from traces.boots
        yield from traces.servers
