"""Times on a host: its boot, the starts of its processes, its files, and the collection."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from datetime import timedelta

from hoodsnap.bundle import Answer
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.fact import UnheardError, caught
from hoodsnap.facts.layer import DAEMONS, IMAGES, KERNEL, LIBVIRT
from hoodsnap.facts.process.process import Process
from hoodsnap.facts.uuids import UUID
from hoodsnap.keep.daemon import HELPERS
from hoodsnap.timeline.event import Event
from hoodsnap.trust.plausible.processes import Qemu
from hoodsnap.trust.plausible.visit import HostAnswers

CAPTURE = "capture"
"""Layer of the events of the collection itself."""


def events(cloud: Cloud) -> Iterator[Event]:
    """Yield the events of every captured host."""
    for host in cloud.hosts:
        visit = HostAnswers(cloud.bundle, host.name)
        yield from _collection(visit)
        yield from _boot(visit)
        for uuid, processes in host.processes.by_uuid.items():
            for process in processes:
                yield from _start(visit, uuid, process)
        yield from _daemons(host)
        yield from _definitions(host)
        yield from _files(cloud, host)


def _collection(visit: HostAnswers) -> Iterator[Event]:
    if visit.answers:
        first = min(visit.answers, key=lambda answer: answer.at)
        last = max(visit.answers, key=lambda answer: answer.at)
        yield Event(first.at, CAPTURE, "collection began", first, host=visit.host)
        ended = last.at + timedelta(seconds=max(0.0, min(last.took, 86400.0)))
        what = f"collection ended, {len(visit.answers)} answers"
        yield Event(ended, CAPTURE, what, last, host=visit.host)


def _boot(visit: HostAnswers) -> Iterator[Event]:
    date = visit.last("host", "date --utc")
    if visit.boot is not None and date is not None:
        yield Event(visit.boot, KERNEL.id, "host booted", date, host=visit.host)


def _start(visit: HostAnswers, uuid: str, process: Process) -> Iterator[Event]:
    stat = process.said.get("stat")
    if stat is None:
        return
    try:
        at = Qemu(visit, str(process.pid), stat).start
    except (OverflowError, ValueError):  # of a process number or a time that no kernel shows
        return
    if at is not None:
        what = f"QEMU process {process.pid} started"
        yield Event(
            at, KERNEL.id, what, stat, server=uuid, host=visit.host, kind="QEMU process started"
        )


def _daemons(host: Host) -> Iterator[Event]:
    """Yield the starts of the daemons that run. A daemon's other processes are its workers, but
    each helper serves another QEMU."""
    try:
        daemons = host.daemons
        found, census = daemons.by_name.items(), daemons.census
    except UnheardError:
        return
    for name, processes in found:
        ordered = sorted(processes, key=lambda one: one.started)
        for one in ordered if name in HELPERS else ordered[:1]:
            if (at := daemons.since(one)) is not None:
                what, kind = f"{name} started (process {one.pid})", f"{name} started"
                yield Event(at, DAEMONS.id, what, census, host=host.name, kind=kind)


def _definitions(host: Host) -> Iterator[Event]:
    for uuid, domain in host.domains.items():
        try:
            note = domain.nova_note
            at = moment(note.created) if note is not None else None
            answer = domain.where("nova_note")[0] or domain.said.get("inactive")
        except Exception as error:  # a net: an unreadable domain costs its own event
            caught(error)
            continue
        if at is not None and answer is not None:
            what = "nova wrote the domain's definition"
            yield Event(at, LIBVIRT.id, what, answer, server=uuid, host=host.name, kind=what)


def _files(cloud: Cloud, host: Host) -> Iterator[Event]:
    owners = _owners(cloud, host)
    seen: set[str] = set()
    for answer in reversed(cloud.bundle.by_layer.get(IMAGES.id, ())):
        if answer.host != host.name or not answer.query.startswith(("find ", "stat -L ")):
            continue
        top = answer.query.removeprefix("find ").removesuffix(" -ls")
        entries = answer.value if isinstance(answer.value, list) else [answer.value]
        for entry in entries:
            path = entry.get("path") if isinstance(entry, dict) else None
            if not isinstance(path, str) or path in seen or not _is_shown(entry, top):
                continue
            seen.add(path)
            yield from _file(entry, path, owners, answer)


def _is_shown(entry: Mapping[str, object], top: str) -> bool:
    """True for a file, and for a folder in the instances directory, which changes when a file in
    it appears or goes."""
    path = str(entry["path"])
    return entry.get("type") == "f" or (entry.get("type") == "d" and path.startswith(f"{top}/"))


def _file(
    entry: Mapping[str, object], path: str, owners: Mapping[str, str], answer: Answer
) -> Iterator[Event]:
    name = posixpath.basename(path)
    found = UUID.search(path)
    key = next((key for key in (found[0] if found else "", name) if key in owners), None)
    server = owners[key] if key is not None else None
    is_file = entry.get("type") == "f"
    own = server is not None and found is not None and found[0] == server and is_file
    shown = name if own else path
    for field, words in _TIMES[str(entry.get("type"))].items():
        at = moment(entry.get(field))
        if at is not None:
            what = f"{shown} {words}"
            yield Event(
                at,
                IMAGES.id,
                what,
                answer,
                server=server,
                host=answer.host,
                is_detail=server is not None or "/_base" not in path,
            )


_TIMES: Mapping[str, Mapping[str, str]] = {
    "f": {"btime": "created", "mtime": "last written"},
    "d": {"mtime": "last gained or lost a file"},
}
"""Kind of file → field with a time → description. Access times are not collected, and ctime
changes with every write."""


def _owners(cloud: Cloud, host: Host) -> Mapping[str, str]:
    """Return UUID of a server or volume, or name of a saved domain's file → UUID of the server."""
    found: dict[str, str] = {}
    for guest in cloud.guests:
        found[guest.uuid] = guest.uuid
        try:
            found.update(dict.fromkeys(guest.volume_ids or (), guest.uuid))
        except Exception as error:
            caught(error)
        if guest.host is host and guest.domain_name is not None:
            found[f"{guest.domain_name}.save"] = guest.uuid
    return found


def clock_remarks(cloud: Cloud) -> Iterator[str]:
    """Yield a remark for each clock that differs from the collector's."""
    clock = cloud.instances.clock
    if clock is not None:
        answer, shown = clock
        ahead = (shown - answer.at).total_seconds()
        if abs(ahead) > SKEW:
            direction = "ahead of" if ahead > 0 else "behind"
            yield (
                f"the database's clock is {abs(ahead):.0f} s {direction} the clock of"
                f" {answer.host}; times are shown as recorded"
            )
    for host in cloud.hosts:
        if len(host.boot_ids) > 1:
            yield f"{host.name} rebooted between two collections, or is several hosts"


SKEW = 2.0
"""Seconds by which two clocks may differ without a remark."""
