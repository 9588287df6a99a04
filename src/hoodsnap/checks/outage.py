"""One event that ended many guests of a host at once: a reboot, a restart, an outage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from hoodsnap import phrase
from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.traps import building, migrating, task_in_flight
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.state import DomainState
from hoodsnap.facts.fact import UnheardError, caught, known
from hoodsnap.facts.host.log import Log

FEWEST = 3
"""Guests that must be off to call it one event."""

TOGETHER = timedelta(minutes=1)
"""Time within which the guests of one event end."""

BOOTING = timedelta(minutes=15)
"""Time that a host takes at most from the end of its guests until it has booted again."""

LIBVIRT = ("libvirtd", "virtqemud")
"""The daemons that answer for libvirt's domains."""


class _Event(NamedTuple):
    """What ended guests."""

    words: str
    """A clause: `vm booted at 18:34, and none of them has started since`."""
    guests: Sequence[Guest]
    """The guests that it ended."""
    evidence: Sequence[Evidence]


@check(Severity.ERROR)
def guests_ended_at_once(host: Host, cloud: Cloud) -> Problems:
    """One event ended many guests of the host at once, and nova still reports them as running.

    The host was rebooted, its power or its storage failed, or a service was stopped together with
    its QEMUs. Each guest is a consequence; the event is what to look for. After a reboot nova
    starts guests again only with `resume_guests_state_on_host_boot`; otherwise it stops the servers
    in its records within ten minutes, and they stay off.

    Authority: libvirt and the kernel, for what runs; the host's boot time and QEMU's logs, for the
    event.

    Traps: Fewer than three guests, or fewer than half of those that should run. Guests whose ends
    are minutes apart.

    Next: Find the event: the boots, the kernel's last messages, and the ends of the guests:

        last -x -F reboot shutdown
        journalctl --boot -1 --lines 50
        journalctl -k | grep -iE 'oom|i/o error|nfs|scsi'
        tail -n 3 /var/log/libvirt/qemu/*.log

    Check that what the guests need is back: the file systems, the volumes' storage, the network
    agent and nova-compute:

        findmnt -T INSTANCES_PATH
        openstack compute service list --host HOST
        openstack network agent list --host HOST

    List the servers, and wait until nova reports them as SHUTOFF (within ten minutes):

        openstack server list --all-projects --host HOST

    Then start each of them, which boots the guest:

        openstack server start STOPPED_SERVER

    It worked if the domains run:

        virsh list --all

    Not yet: Do not run `virsh start`, which nova does not notice. Do not start servers before the
    storage answers. Do not repair the servers one by one.

    Source: nova `_resume_guests_state`, `resume_guests_state_on_host_boot`,
    `_sync_instance_power_state`.
    """
    wanted, off = _wanted_and_off(cloud.guests_of(host))
    if len(off) < FEWEST or len(off) * 2 < len(wanted):
        return
    event = _boot(host, off) or _end(host, off)
    if event is None or len(event.guests) < FEWEST or len(event.guests) * 2 < len(wanted):
        return
    yield problem(
        f"{len(event.guests)} of the {len(wanted)} guests that nova has running on {host.name} are "
        f"off: {event.words}",
        *event.evidence,
        *_ended(event.guests),
    )


def _wanted_and_off(guests: Sequence[Guest]) -> tuple[list[Guest], list[Guest]]:
    """Return the guests that nova has running on the host, and those of them that are off."""
    wanted, off = [], []
    for guest in guests:
        try:
            if not _should_run(guest):
                continue
            wanted.append(guest)
            domain = guest.domain
            ended = guest.process is None and "kernel" not in guest.unheard
            if ended and domain is not None and domain.state == DomainState.SHUTOFF:
                off.append(guest)
        except Exception as error:  # a net: this guest's state is unknown
            caught(error)
    return wanted, off


def _should_run(guest: Guest) -> bool:
    record = guest.record
    if record is None or record.deleted or not guest.is_here or guest.moving:
        return False
    if task_in_flight(guest) or migrating(guest) or building(guest):
        return False
    if record.vm_state == "resized":
        return isinstance(record, Instance) and record.old_vm_state == "active"
    return record.vm_state in ("active", "paused", "rescued")


def _boot(host: Host, off: Sequence[Guest]) -> _Event | None:
    """Return the host's boot if these guests have not been started since."""
    found = known(lambda: host.booted)
    if found is None:
        return None
    boot, answer = found
    before = [guest for guest in off if _ended_by(guest, boot)]
    if not before:
        return None
    ago = phrase.lasting(answer.at - boot)
    words = f"{host.name} booted at {boot:%Y-%m-%d %H:%M} UTC ({ago} ago), which ended them"
    return _Event(words, before, [hears(answer, "host", booted=f"{boot:%Y-%m-%d %H:%M:%S}")])


def _ended_by(guest: Guest, boot: datetime) -> bool:
    """True if a guest's log agrees that it ran until the host went down."""
    log = guest.log
    if log is None:
        return False
    started, ended = known(lambda: log.started_at), known(lambda: log.ended_at)
    if started is None or started >= boot:
        return False  # whether it ran before the boot is not known, or it was started since
    return ended is None or ended >= boot - BOOTING


def _end(host: Host, off: Sequence[Guest]) -> _Event | None:
    """Return the ends of these guests if most of them lie within one minute."""
    ends = sorted(_ends(off), key=lambda end: end[0])
    together: list[tuple[datetime, Guest]] = []
    for first, _ in ends:
        same = [end for end in ends if first <= end[0] <= first + TOGETHER]
        together = max(together, same, key=len)
    if len(together) < FEWEST:
        return None
    when = together[0][0]
    logs = [guest.log for _, guest in together if guest.log is not None]
    reasons = dict.fromkeys(filter(None, map(_reason, logs)))
    why = f" ({phrase.several(reasons)})" if reasons else ""
    restarted = _restart_of_libvirt(host, when)
    return _Event(
        f"they ended within one minute at {when:%Y-%m-%d %H:%M} UTC{why}{restarted}",
        [guest for _, guest in together],
        (),
    )


def _end_of(guest: Guest) -> datetime | None:
    log = guest.log
    return known(lambda: log.ended_at if log is not None else None)


def _reason(log: Log) -> str | None:
    return known(lambda: log.end_reason)


def _ends(guests: Sequence[Guest]) -> Iterator[tuple[datetime, Guest]]:
    for guest in guests:
        if (ended := _end_of(guest)) is not None:
            yield ended, guest


def _restart_of_libvirt(host: Host, when: datetime) -> str:
    try:
        condition, daemon = host.daemons.condition(*LIBVIRT)
        started = host.daemons.since(daemon) if daemon is not None else None
    except UnheardError:
        return ""
    if daemon is None:
        return f", and libvirt's daemon is {condition}"
    near = started is not None and abs(started - when) <= TOGETHER
    return f", when {daemon.name} was started" if near else ""


def _ended(guests: Sequence[Guest]) -> Iterator[Evidence]:
    for guest in guests:
        if guest.record is not None:
            yield says(guest.record, vm_state=guest.record.vm_state)
        if guest.domain is not None:
            yield says(guest.domain, state=guest.domain.state_words)
        log = guest.log
        if log is not None and _end_of(guest) is not None:
            yield says(log, ended=log.ended, end_reason=log.end_reason)
