"""Log lines about a VM: QEMU's starts and ends, nova-compute's messages, OOM kills."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import ClassVar

from hoodsnap.bundle import Answer
from hoodsnap.facts.clock import moment
from hoodsnap.facts.fact import Fact, UnheardError, value_of
from hoodsnap.facts.layer import LOGS, Layer

_TAIL = re.compile(r"tail -c \d+ \S*/(?P<name>[^/]+)\.log$")
_NOVA = re.compile(r"\[instance: (?P<uuid>[0-9a-f-]{36})\]")
_START = re.compile(r"(?P<time>\S+ \S+): starting up")
_END = re.compile(r"(?P<time>\S+ \S+): shutting down(?:, reason=(?P<reason>\S+))?")

_QEMU = re.compile(r"(?<!\S)qemu-(?:system-[\w.-]+|kvm): (?P<text>.+)")
"""A line that QEMU wrote itself, with or without a time, or that libvirt repeats."""

_SIGNAL = re.compile(r"(?P<time>\S+) \S+: terminating on signal ")

_OPTION = re.compile(r"-[\w-]+ .*?: (?P<text>.+)")
"""A complaint about an option, which QEMU repeats first: `-drive file=/disk: Could not open`."""

_ROUTINE = ("terminating on signal", "warning: ", "info: ", "char device redirected", "-")
"""Beginnings of what QEMU writes although nothing is wrong, and of options without a complaint."""

# With systemd the cgroup is machine-qemu\x2d12\x2dNAME.scope, without it qemu-12-NAME.libvirt-qemu.
_OOM_GROUP = re.compile(r"qemu-\d{1,10}-(?P<name>[^./,]{1,255})\.(?:scope|libvirt)")


@dataclass(frozen=True, eq=False, kw_only=True)
class Log(Fact):
    """The ends of the logs, limited to the lines about one VM.

    A log line proves that something happened. A missing line proves nothing: only the ends of logs
    are collected, and logs rotate.
    """

    layer: ClassVar[Layer] = LOGS
    noun: ClassVar[str] = "log"
    uuid: str
    """UUID of the VM, lower case."""
    nova: tuple[str, ...] = ()
    """nova-compute's last lines about it."""
    oom_kills: tuple[str, ...] = ()
    """The kernel's OOM lines that name its domain, also from before its last start."""

    places: ClassVar[Mapping[str, tuple[str, str]]] = {
        "owner": ("qemu", "-uuid"),
        "started": ("qemu", "starting up"),
        "start": ("qemu", "starting up"),
        "ended": ("qemu", "shutting down"),
        "told_to_end_at": ("qemu", "terminating on signal"),
        "end_reason": ("qemu", "reason="),
        "complaint": ("qemu", "qemu-system"),
        "nova": ("nova", ""),
        "trouble": ("nova", "ERROR"),
        "oom_kill": ("kernel", "oom-kill"),
    }

    @classmethod
    def read_all(cls, answers: Iterable[Answer]) -> dict[str, Log]:
        """Return UUID → log, from one host's answers."""
        said: dict[str, dict[str, Answer]] = {}
        names: dict[str, str] = {}
        spoken: dict[str, list[str]] = {}
        killed: dict[str, list[str]] = {}
        whole: dict[str, Answer] = {}
        for answer in answers:
            tail = _TAIL.match(answer.query)
            if answer.subject is not None and tail is not None:
                said.setdefault(answer.subject.lower(), {})["qemu"] = answer
                names[answer.subject.lower()] = tail["name"]
            elif answer.error is None and answer.query.startswith(("dmesg", "journalctl -k")):
                whole["kernel"], killed = answer, _by_name(answer)
            elif answer.error is None and answer.query.startswith(("tail", "journalctl")):
                whole["nova"], spoken = answer, _by_uuid(answer)
        for uuid in spoken:
            said.setdefault(uuid, {})["nova"] = whole["nova"]
        for uuid, name in names.items():
            if name in killed:
                said[uuid]["kernel"] = whole["kernel"]
        return {
            uuid: cls(
                uuid=uuid,
                nova=tuple(spoken.get(uuid, ())),
                oom_kills=tuple(killed.get(names.get(uuid, ""), ())),
                said=parts,
            )
            for uuid, parts in said.items()
        }

    @cached_property
    def owner(self) -> str | None:
        """UUID of the VM whose start QEMU's log shows last; None if it shows no start."""
        started = (line for line in reversed(self._all_lines) if line.startswith("-uuid "))
        return next((line.split()[-1].lower() for line in started), None)

    @cached_property
    def _all_lines(self) -> list[str]:
        return value_of(self.said.get("qemu"), "QEMU's log", str).splitlines()

    @cached_property
    def _lines(self) -> list[str] | UnheardError:
        try:
            lines, owner = self._all_lines, self.owner
        except UnheardError as reason:
            return reason
        if owner not in (None, self.uuid):
            # A log file is named after its domain, and domain names are reused.
            return UnheardError("the log file with this domain's name belongs to another guest")
        return lines

    @property
    def lines(self) -> list[str]:
        """Lines at the end of QEMU's log."""
        if isinstance(self._lines, UnheardError):
            raise UnheardError(str(self._lines))
        return self._lines

    @property
    def started(self) -> str | None:
        """Time of QEMU's last start, `2026-11-25 13:15:33.726+0000`; None if no line shows it."""
        return next((found["time"] for found in map(_START.match, self._backwards) if found), None)

    @property
    def started_at(self) -> datetime | None:
        """`started` as a datetime; None if there is no such time."""
        return moment(self.started)

    @cached_property
    def start(self) -> Mapping[str, str]:
        """libvirt's notes at QEMU's last start: `qemu version`, `kernel`, `hostname`.

        Empty before libvirt 1.3, or if no line shows the start.
        """
        line = next((line for line in self._backwards if _START.match(line)), "")
        parts = (part.partition(": ") for part in line.split(", "))
        return {name.strip(): value.strip() for name, colon, value in parts if colon}

    @property
    def ended(self) -> str | None:
        """Time at which QEMU ended after its last start; None if libvirt logged no end."""
        return self._end["time"] if self._end else None

    @property
    def ended_at(self) -> datetime | None:
        """`ended` as a datetime; None if there is no such time."""
        return moment(self.ended)

    @property
    def told_to_end_at(self) -> datetime | None:
        """Time at which QEMU got the signal to end since its last start; None if it got none."""
        told = (_SIGNAL.match(line) for line in reversed(self._since_start))
        return next((moment(found["time"]) for found in told if found), None)

    @property
    def end_reason(self) -> str | None:
        """Reason of the end: `shutdown`, `destroyed`, `crashed`, `migrated`, `saved`, `failed`;
        None if it has not ended, or before libvirt 3.1, which logs no reason."""
        return self._end["reason"] if self._end else None

    @property
    def complaint(self) -> str | None:
        """QEMU's last error message since its last start; None if it logged none."""
        return last_complaint(self._since_start)

    @property
    def oom_kill(self) -> str | None:
        """The kernel's last line about an OOM kill of it since its last start; None without one."""
        started = moment(self.started)
        for line in reversed(self.oom_kills):
            killed = moment(line.split(" ", 1)[0])
            if started is not None and killed is not None and killed >= started:
                return line
        return None

    @property
    def trouble(self) -> str | None:
        """nova-compute's last error line about it; None without one."""
        return next((line for line in reversed(self.nova) if " ERROR [" in line), None)

    @property
    def _backwards(self) -> Iterator[str]:
        return reversed(self.lines)

    @cached_property
    def _since_start(self) -> list[str]:
        lines = self.lines
        starts = (at for at in reversed(range(len(lines))) if _START.match(lines[at]))
        return lines[next(starts, 0) :]

    @cached_property
    def _end(self) -> re.Match[str] | None:
        ends = (_END.match(line) for line in reversed(self._since_start))
        return next((found for found in ends if found is not None), None)


def last_complaint(lines: Sequence[str]) -> str | None:
    """Return QEMU's last error message in these lines, without the option that it is about.

    None if there is none.
    """
    for line in reversed(lines):
        if (found := _QEMU.search(line)) is None:
            continue
        about_an_option = _OPTION.fullmatch(found["text"])
        text: str = (about_an_option or found)["text"]
        if not text.startswith(_ROUTINE):
            return text
    return None


def listing_of(answers: Iterable[Answer]) -> Answer | None:
    """Return the answer of one host that lists its QEMU logs; None if it was not collected."""
    found = None
    for answer in answers:
        if answer.query.startswith("ls -l ") and answer.error is None:
            found = answer if isinstance(answer.value, list) else found
    return found


def _by_uuid(answer: Answer) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in _text(answer):
        if about := _NOVA.search(line):
            found.setdefault(about["uuid"], []).append(line)
    return found


def _by_name(answer: Answer) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in _text(answer):
        time, _, event = line.replace("\\x2d", "-").partition(" ")
        # The last group on the line is that of the killed process.
        groups = list(_OOM_GROUP.finditer(event.partition("oom-kill:")[2])) if time else []
        if groups:
            found.setdefault(groups[-1]["name"], []).append(line)
    return found


def _text(answer: Answer) -> list[str]:
    try:
        return value_of(answer, "a log", str).splitlines()
    except UnheardError:
        return []
