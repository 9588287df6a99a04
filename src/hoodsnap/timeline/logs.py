"""Times in logs: starts and ends of QEMU, nova-compute's lines, and the kernel's.

libvirt and the kernel write times with a zone. nova-compute writes local time without one: the
host's offset is used where the service runs outside of a container. Otherwise the time's zone is
unknown, and it is not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import timezone

from hoodsnap.bundle import Answer
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.host.nova_log import moment_in, writer_zone
from hoodsnap.facts.layer import LOGS
from hoodsnap.timeline.event import Event

_LINE = re.compile(r"(?P<time>\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[\d.,]*+(?:Z|[+-]\d\d:?\d\d)?):? ")
_NOVA = re.compile(r"(?P<level>[A-Z]{1,10}) \[instance: (?P<uuid>[0-9a-f-]{36})\] ")
_START = re.compile(
    r"starting up libvirt version: (?P<libvirt>[\d.]+).{0,200}? qemu version: "
    r"(?P<qemu>[\d.]+)"
)
_VARIES = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d+")


def events(cloud: Cloud) -> Iterator[Event]:
    """Yield an event for each line with a time in the collected logs."""
    for host in cloud.hosts:
        killed = {line: uuid for uuid, log in host.logs.items() for line in log.oom_kills}
        for answer in _newest(cloud, host):
            if answer.subject is not None:
                yield from _of_qemu(answer, answer.subject.lower())
            elif answer.query.startswith(("dmesg", "journalctl -k")):
                yield from _of_kernel(answer, killed)
            else:
                yield from _of_nova(answer, writer_zone(cloud.bundle, answer))


def _newest(cloud: Cloud, host: Host) -> Iterable[Answer]:
    """Return the newest answer of each log of a host."""
    found = {
        answer.query: answer
        for answer in cloud.bundle.by_layer.get(LOGS.id, ())
        if answer.host == host.name and isinstance(answer.value, str)
    }
    return found.values()


def _of_qemu(answer: Answer, uuid: str) -> Iterator[Event]:
    for line in _own_lines(answer.value.splitlines(), uuid):
        if (found := _LINE.match(line)) is not None:
            rest = line[found.end() :]
            start = _START.match(rest)
            what = (
                f"QEMU starting up (libvirt {start['libvirt']}, QEMU {start['qemu']})"
                if start
                else rest
            )
            yield _event(
                answer,
                found["time"],
                None,
                what,
                server=uuid,
                failed="reason=crashed" in rest or "reason=failed" in rest,
            )


def _own_lines(lines: list[str], uuid: str) -> Iterator[str]:
    """Yield the lines of this guest's runs. A log is named after its domain, and domain names are
    used again: the line `-uuid` after each start tells whose run it is."""
    runs: list[list[str]] = [[]]
    for line in lines:
        if ": starting up" in line:
            runs.append([])
        runs[-1].append(line)
    owners = [_owner_of(run) for run in runs]
    only_ours = all(owner in (None, uuid) for owner in owners)
    for run, owner in zip(runs, owners, strict=True):
        if owner == uuid or (owner is None and only_ours):
            yield from run


def _owner_of(run: Iterable[str]) -> str | None:
    named = [line.split()[-1].lower() for line in run if line.startswith("-uuid ")]
    return named[0] if named else None


def _of_kernel(answer: Answer, killed: Mapping[str, str]) -> Iterator[Event]:
    for line in answer.value.splitlines():
        time, _, rest = line.partition(" ")
        yield _event(answer, time, None, rest, server=killed.get(line), failed=True)


def _of_nova(answer: Answer, zone: timezone | None) -> Iterator[Event]:
    for line in answer.value.splitlines():
        found = _LINE.match(line)
        said = _NOVA.match(line, found.end()) if found else None
        if found is not None and said is not None and line[said.end() :].strip():
            is_error = said["level"] in ("ERROR", "CRITICAL")
            level = f"{said['level'].lower()}: " if said["level"] != "INFO" else ""
            what = f"nova-compute: {level}{line[said.end() :]}"
            yield _event(
                answer, found["time"], zone, what, server=said["uuid"].lower(), failed=is_error
            )


def _event(
    answer: Answer,
    written: str,
    zone: timezone | None,
    what: str,
    *,
    server: str | None,
    failed: bool,
) -> Event:
    at = moment_in(written, zone)
    return Event(
        at,
        LOGS.id,
        what,
        answer,
        server=server,
        host=answer.host,
        written=written if at is None else "",
        is_failure=failed,
        kind=_VARIES.sub("#", what),
    )
