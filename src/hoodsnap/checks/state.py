"""What nova believes a guest is doing, and what it does."""

from __future__ import annotations

from collections.abc import Iterator

from hoodsnap.check import Problem, Problems, check
from hoodsnap.checks.legal_states import (
    ASLEEP,
    CRASHED,
    LEGAL,
    PAUSED,
    PAUSED_BY_NOBODY,
    POWER_OF,
    RUNNING,
    SLEEPS,
)
from hoodsnap.checks.traps import TASK, building, job_runs, just_ended, migrating, task_in_flight
from hoodsnap.evidence import Evidence, Severity, says
from hoodsnap.facts.api.server import POWER_STATES, Server
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.domain import OFF, ON, Domain
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.log import Log
from hoodsnap.facts.process.monitor import Monitor
from hoodsnap.facts.process.process import Process
from hoodsnap.facts.quantity import whole

QUICK, SLOW = 600.0, 4 * 3600.0
"""Seconds after which a task is stuck: switching takes moments, copying an image or memory
    hours."""

AFTER_RESTART = {
    **dict.fromkeys(("scheduling", "block_device_mapping", "networking"), "sets it to error"),
    **dict.fromkeys(("spawning", "rebuilding", "rebuild_spawning"), "sets it to error"),
    "rebuild_block_device_mapping": "sets it to error",
    **dict.fromkeys(("image_snapshot", "image_snapshot_pending"), "clears the task"),
    **dict.fromkeys(("image_pending_upload", "image_uploading"), "clears the task"),
    **dict.fromkeys(("resize_prep", "pausing", "unpausing"), "clears the task"),
    **dict.fromkeys(("rebooting", "reboot_pending", "reboot_started"), "reboots it"),
    **dict.fromkeys(("rebooting_hard", "reboot_pending_hard"), "reboots it"),
    "reboot_started_hard": "reboots it",
    "deleting": "deletes it",
    "powering-off": "powers it off",
    "powering-on": "powers it on",
    "resize_migrating": "moves its disks back",
    "migrating": "aborts the migration",
}
"""What a restart of nova-compute does with an instance in each task (nova `_init_instance`)."""

QUICK_TASKS = frozenset(
    [
        "powering-off",
        "powering-on",
        "pausing",
        "unpausing",
        "deleting",
        "soft-deleting",
        "restoring",
        "rebooting",
        "reboot_pending",
        "reboot_started",
        "rebooting_hard",
        "reboot_pending_hard",
        "reboot_started_hard",
        "scheduling",
        "networking",
        "resize_confirming",
    ]
)
"""The tasks that take moments; the others copy an image, or read or write memory."""


@check(Severity.ERROR, traps=[task_in_flight, migrating, just_ended])
def active_but_domain_off(
    guest: Guest, record: Server | Instance, domain: Domain, log: Log | None
) -> Problems:
    """nova says that the server is active or paused, and its guest is switched off.

    Within ten minutes nova notices and stops the server officially; its owner sees a VM that
    "stopped by itself", and what was in the memory of a paused one is gone. libvirt's reason tells
    more, as long as libvirtd has not been restarted since (its log keeps it): `shutdown`, the guest
    shut itself down; `destroyed`, somebody on the host; `crashed`, QEMU died (see its log, and the
    kernel's OOM killer); `saved`, its memory is in a file.

    Authority: libvirt for whether it runs.

    Traps: a task in flight; a host that has just rebooted; a guest that shut itself down less than
    a minute before, which nova hears of with some delay.

    Next: `virsh domstate --reason NAME`, the end of /var/log/libvirt/qemu/NAME.log, `journalctl -k
    | grep -i oom`, `last reboot`.

    Not yet: `openstack server start` before its disks are known to be whole and to be open nowhere
    else.

    Source: nova `_sync_instance_power_state`; nova bugs 1293480, 1443186, 1444630.
    """
    if guest.process is not None:
        return  # it is not off: libvirt has lost sight of it, which qemu-without-domain tells
    on = record.vm_state in ("active", "paused") and not record.deleted
    if guest.is_here and on and domain.state == OFF:
        yield (
            says(record, vm_state=record.vm_state),
            says(domain, state=domain.state_words),
            *_end(log),
        )


def _end(log: Log | None) -> Iterator[Evidence]:
    """What the logs tell of how a guest ended."""
    try:
        if log is not None and log.ended is not None:
            yield says(log, ended=log.ended, end_reason=log.end_reason)
        if log is not None and log.oom_kill is not None:
            yield says(log, oom_kill=log.oom_kill)
    except UnheardError:
        return


@check(Severity.ERROR, traps=[task_in_flight, migrating])
def stopped_but_domain_on(guest: Guest, record: Server | Instance, domain: Domain) -> Problems:
    """nova says that the server is stopped (or paused), and its guest runs.

    For `stopped` nova's next power sync (ten minutes) *forces it off*, without a shutdown.
    Somebody started it behind nova's back: `virsh start`, autostart, the libvirt-guests service.

    Of a suspended one the memory that was saved is used up then, and `resume` fails. One that nova
    paused and somebody resumed is let be (a warning): its owner believes that it stands still.

    Authority: libvirt for whether it runs; its owner for whether it should.

    Traps: a server that is just being started or stopped.

    Next: ask its owner whether it should run. `virsh dominfo NAME` (Autostart), `openstack server
    event list UUID`. If it should, an administrator's `openstack server set --state active UUID`
    keeps it from being forced off.

    Not yet: waiting, if it should go on running.

    Source: nova `_sync_instance_power_state` (the stopped branch); nova bug 1097806.
    """
    rests = record.vm_state in ("stopped", "suspended", "soft-delete", "shelved")
    resumed = record.vm_state == "paused" and domain.state in RUNNING
    if not guest.is_here or record.deleted:
        return
    if resumed or (rests and domain.state in ON):
        sync = LEGAL[record.vm_state].sync
        evidence = (
            says(record, vm_state=record.vm_state).and_so(its_power_sync=sync),
            says(domain, state=domain.state_words),
        )
        yield Problem(Severity.WARNING if resumed else Severity.ERROR, evidence)


@check(Severity.WARNING, heard=["kernel"], traps=[task_in_flight, migrating, building])
def power_state_stale(guest: Guest, record: Server | Instance, domain: Domain) -> Problems:
    """nova's copy of the guest's power state is old.

    nova-compute copies it from libvirt at every event and every ten minutes, whatever the server's
    state. Where it stays wrong, nova-compute does not run, has lost libvirt, or works for another
    host name.

    Authority: libvirt. nova copies this way and never back.

    Traps: a server that was never on any host has none; 0 ("pending") stays where the domain was
    not found once, and nova started it anew; a shelved server keeps its last.

    Next: `openstack compute service list --service nova-compute`, the end of nova-compute.log on
    the host. With a service that is well, wait ten minutes.

    Not yet: anything else for this alone.

    Source: nova compute/manager.py `_sync_instance_power_state` ("power_state is always updated
    from hypervisor to db"), `handle_lifecycle_event`.
    """
    legal = LEGAL.get(record.vm_state)
    if legal is None or not guest.is_here or record.deleted or record.power_state is None:
        return
    if legal.domain is not None and domain.state not in legal.domain:
        return  # then the states themselves differ, and not just this copy
    if (domain.state in ON) != (guest.process is not None):
        return  # libvirt itself is mistaken
    power = POWER_OF.get(domain.state)
    if power is None or record.power_state == power or (power == 4 and record.power_state == 0):
        return
    yield (
        says(record, power_state=_power(record.power_state)),
        says(domain, state=domain.state_words),
    )


def _power(number: int) -> str:
    return f"{number} ({POWER_STATES.get(number, 'unknown')})"


@check(Severity.ERROR, traps=[task_in_flight, migrating, job_runs])
def paused_or_crashed_guest(
    guest: Guest, record: Server | Instance, domain: Domain, monitor: Monitor | None
) -> Problems:
    """nova says that the server is active, and its guest stands still: nova did not pause it.

    Somebody on the host did (`virsh suspend`, a backup that broke off), or QEMU stopped it: its
    watchdog fired, its kernel panicked, libvirt gave up. nova shows it as active for
    ever, and does nothing. One that put itself to sleep (a warning) it stops within ten minutes.

    Authority: libvirt's reason for the pause.

    Traps: a pause for a snapshot, a dump or a migration lasts a moment, and a job of libvirt's is
    seen with it; an I/O error and a migration that broke off have checks of their own.

    Next: `virsh domstate --reason NAME`, `virsh domjobinfo NAME`, and the end of
    /var/log/libvirt/qemu/NAME.log. Then, of one that was paused by hand or for a snapshot, `virsh
    resume NAME` loses nothing.

    Not yet: `virsh resume` of one that was left by a migration: it may run on the other host.
    `openstack server reboot --hard` of one that crashed, before `virsh dump` has kept its memory.

    Source: nova bug 1097806 (the power sync ignores PAUSED); libvirt qemu_monitor.c; QEMU's
    RunState.
    """
    if not guest.is_here or record.deleted or record.vm_state not in ("active", "rescued"):
        return
    if monitor is not None and _status(monitor) == "io-error":
        return
    if domain.state == PAUSED and domain.reason in PAUSED_BY_NOBODY:
        paused = says(domain, state=domain.state_words).and_so(
            that_is=PAUSED_BY_NOBODY[domain.reason]
        )
        yield says(record, vm_state=record.vm_state), paused, *_asked(monitor)
    elif domain.state == ASLEEP and record.vm_state == "active":
        asleep = says(domain, state=domain.state_words).and_so(that_is=SLEEPS)
        yield Problem(Severity.WARNING, (says(record, vm_state=record.vm_state), asleep))
    elif domain.state == CRASHED:
        yield (
            says(record, vm_state=record.vm_state),
            says(domain, state=domain.state_words),
            *_asked(monitor),
        )


def _asked(monitor: Monitor | None) -> Iterator[Evidence]:
    if monitor is not None and (status := _status(monitor)) is not None:
        yield says(monitor, status=status)


def _status(monitor: Monitor) -> str | None:
    """What QEMU said, if it did: libvirt's word is enough without it."""
    try:
        return monitor.status
    except UnheardError:
        return None


@check(Severity.WARNING, traps=[task_in_flight, migrating])
def error_but_running(
    guest: Guest,
    record: Server | Instance,
    instance: Instance | None,
    domain: Domain,
    process: Process,
    log: Log | None,
) -> Problems:
    """nova says that the server is in error, and its guest runs as if nothing had been.

    The error is of the last thing that nova tried (a resize, a volume, the ports after a restart
    of nova-compute), not of the guest. nova refuses most commands for it meanwhile.

    Authority: libvirt and the kernel for the guest; nova's last fault for what failed.

    Traps: after a resize or a migration that failed it may run on the other host: see first that
    this is the only one.

    Next: `openstack server show UUID` (fault), `openstack server event list UUID`, and see that
    its volumes and ports are whole. Then an administrator's `openstack server set --state active
    UUID` ends it.

    Not yet: `openstack server reboot --hard` or `rebuild` to repair it, `delete`.

    Source: nova admin guide, "reset the state of an instance"; nova `_init_instance`; nova bugs
    1784579, 1809136, 1659062.
    """
    if not guest.is_here or record.deleted or record.vm_state != "error":
        return
    if domain.state in RUNNING:
        yield (
            says(record, vm_state=record.vm_state),
            *_fault(instance),
            says(domain, state=domain.state_words),
            says(process, pid=process.pid),
            *([says(log, trouble=log.trouble)] if log is not None and log.trouble else []),
        )


def _fault(instance: Instance | None) -> Iterator[Evidence]:
    try:
        if instance is not None and instance.fault is not None:
            yield says(instance, fault_at=instance.fault_at, fault_message=instance.fault_message)
    except UnheardError:
        return


@check(Severity.ERROR)
def stuck_task_state(guest: Guest, record: Server | Instance) -> Problems:
    """nova has been doing the same thing with it for too long: nobody is working on it any more.

    While a task is set, nova refuses most commands for this server and skips it in its power sync.

    Authority: nova's own record; whether work is going on is seen in migrations, block jobs and
    growing files.

    Traps: uploading a large snapshot, shelving, migrating or resuming much memory take hours
    rightly, and a migration may wait for others: a warning, until a day is over; a guest that is
    being shut down is given the time that nova.conf or its image says.

    Next: `openstack server event list UUID`, `openstack server migration list --server UUID`,
    `virsh domjobinfo NAME`. The evidence says what a restart of nova-compute would do to *this*
    server.

    Not yet: restarting nova-compute before you know what that does; `openstack server set --state
    active` on one that is deleting, migrating or rebuilding.

    Source: nova compute/manager.py `_init_instance`; nova admin guide, support-compute.
    """
    task = record.task_state
    if not task or record.deleted or task == "deleting":
        return  # a deletion that never finished has a check of its own
    since, (asked, *_) = moment(record.updated_at), record.said.values()
    if since is None:
        raise UnheardError("when the task began can't be read")
    age = (asked.at - since).total_seconds()
    patience = QUICK if task in QUICK_TASKS else SLOW
    if task == "powering-off":
        patience += _shutdown_timeout(guest)
    if age > patience:
        restart = AFTER_RESTART.get(task, "plugs its ports and leaves the task")
        since_then = says(record, task_state=task, updated_at=record.updated_at)
        # Much memory, or a large image, may take longer still; nothing takes longer than a day.
        sure = task in QUICK_TASKS or age > TASK.total_seconds()
        evidence = since_then.and_so(after_a_restart_nova_compute=restart)
        yield Problem(Severity.ERROR if sure else Severity.WARNING, (evidence,))


def _shutdown_timeout(guest: Guest) -> float:
    """Seconds that nova waits for a guest to shut itself down: its image may say so, too."""
    try:
        said = guest.instance.shutdown_timeout if guest.instance is not None else None
        if said is None and guest.host is not None:
            said = whole(guest.host.option("DEFAULT", "shutdown_timeout"))
    except UnheardError:
        return 0.0
    return float(said or 0)
