"""The state of the guest in nova compared with its actual state."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from hoodsnap import phrase
from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.legal_states import LEGAL, PAUSED_OUTSIDE_NOVA, POWER_OF
from hoodsnap.checks.traps import TASK, building, job_runs, just_ended, migrating, task_in_flight
from hoodsnap.evidence import Evidence, Severity, says
from hoodsnap.facts.api.server import Server
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.finished_work import finished_work, restarted_since
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.database.action import InstanceAction
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.migration import Migration
from hoodsnap.facts.database.power_state import POWER_STATES, PowerState
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.state import EXECUTING, ON, DomainState, ShutoffReason
from hoodsnap.facts.fact import Fact, UnheardError, known
from hoodsnap.facts.host.log import Log, last_complaint
from hoodsnap.facts.process.monitor import Monitor
from hoodsnap.facts.process.process import Process
from hoodsnap.facts.quantity import whole
from hoodsnap.printable import cut

SLEEPS = "the guest went to sleep by itself; nova treats that as off and stops it"

STARTED = frozenset([1, 2, 3, 4])
"""libvirt's reasons for a running domain that runs since its QEMU started: booted, migrated,
restored, from snapshot."""

LONGEST = 60
"""Longest text of a fault in a headline, in characters."""

_PATH = re.compile(r"(?<![\w./-])/[\w./-]{30,}")

_NOT_STARTED = re.compile(r"internal error: .{1,80} monitor: (?=.)")
"""libvirt's words before those of a QEMU that ended at its start."""

SOON = timedelta(minutes=1)
"""Longest time from an action's request to its task."""

IGNORED = frozenset(["error", "rescued", "resized"])
"""The vm_states that nova's power sync ignores."""

HALTED = frozenset([DomainState.SHUTDOWN, DomainState.SHUTOFF, DomainState.CRASHED])
"""States of a domain that ends or has ended."""

QUICK, SLOW = 600.0, 4 * 3600.0
"""Seconds after which a task is stuck. Power changes take moments; copying an image or memory takes
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
"""Task → the action of nova-compute at its next start (nova `_init_instance`)."""

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
"""Tasks that take moments. The other tasks copy an image, or read or write memory."""


@check(Severity.ERROR, traps=[task_in_flight, migrating, just_ended])
def active_but_domain_off(
    guest: Guest, record: Server | Instance, domain: Domain, log: Log | None
) -> Problems:
    """nova reports the server as active or paused, but its guest is off.

    Within ten minutes nova notices this and stops the server. Its owner sees a VM that "stopped by
    itself", and the memory of a paused VM is lost. libvirt's reason tells more, but only until
    libvirtd is restarted (the log keeps the reason): `shutdown`, the guest shut itself down;
    `destroyed`, it was stopped on the host; `crashed`, QEMU died (see its log and the kernel's OOM
    killer); `saved`, its memory is in a file.

    Authority: libvirt, for whether the guest runs.

    Traps: A task in flight. A host that has just rebooted. A guest that shut itself down less than
    a minute before, because nova learns of it with a delay.

    Next: Find out why the guest is off:

        virsh domstate --reason NAME
        tail /var/log/libvirt/qemu/NAME.log
        journalctl -k | grep -i oom
        last reboot

    Check that its disks exist, and that no other process has them open:

        virsh domblklist --details NAME
        ls -l /proc/[0-9]*/fd | grep UUID

    Then, once nova reports the server as SHUTOFF (within ten minutes), start it, which boots the
    guest:

        openstack server start UUID

    It worked if nova reports the server as ACTIVE and the domain runs:

        openstack server show UUID
        virsh domstate --reason NAME

    Not yet: Do not run `virsh start`, which nova does not notice. Do not start the guest while
    another process has its disks open.

    Source: nova `_sync_instance_power_state`; nova bugs 1293480, 1443186, 1444630.
    """
    if guest.process is not None:
        return  # it is not off: libvirt lost track of it, which qemu-without-domain reports
    on = record.vm_state in ("active", "paused") and not record.deleted
    if guest.is_here and on and domain.state == DomainState.SHUTOFF:
        why = _cause_of_end(domain, log)
        since = since_logged(lambda: log.ended if log is not None else None, domain, "state")
        yield problem(
            f"{guest.title} is {record.vm_state} in nova, but its domain {_is(since)} "
            f"{domain.state_words}{since}{why}",
            says(record, vm_state=record.vm_state),
            says(domain, state=domain.state_words),
            *ending(log),
        )


def _cause_of_end(domain: Domain, log: Log | None) -> str:
    """Return why the guest is off, after a colon; "" if the logs do not show it."""
    if log is not None and known(lambda: log.oom_kill) is not None:
        return ": the kernel's OOM killer ended it"
    said = known(lambda: log.complaint if log is not None else None)
    if said and domain.reason == ShutoffReason.FAILED:
        return f": QEMU did not start ({cut(_with_short_paths(said), LONGEST)})"
    return ""


def ending(log: Log | None) -> Iterator[Evidence]:
    """Yield evidence from the logs of how the guest ended."""
    try:
        if log is not None and log.ended is not None:
            yield says(log, ended=log.ended, end_reason=log.end_reason)
        if log is not None and log.oom_kill is not None:
            yield says(log, oom_kill=log.oom_kill)
        yield from complaint(log)
    except UnheardError:
        return


def complaint(log: Log | None) -> Iterator[Evidence]:
    """Yield evidence from QEMU's log of its last error message."""
    if log is not None and known(lambda: log.complaint) is not None:
        yield says(log, complaint=log.complaint)


def since_logged(written: Callable[[], str | None], fact: Fact, part: str) -> str:
    """Return ` since 09:02 (5 h 49 min)`, up to the time of a fact's answer; "" if unknown."""
    then = known(lambda: moment(written()))
    asked = fact.said.get(part)
    if then is None or asked is None or then > asked.at:
        return ""
    return f" {phrase.since(then, asked.at)}"


def _is(since: str) -> str:
    """Return the verb before a state and its ` since 09:02`."""
    return "has been" if since else "is"


@check(Severity.ERROR, traps=[task_in_flight, migrating])
def stopped_but_domain_on(guest: Guest, record: Server | Instance, domain: Domain) -> Problems:
    """nova reports the server as stopped, suspended or paused, but its guest runs.

    If the server is `stopped`, nova's next power sync (every ten minutes) forces the guest off
    without a shutdown. Either the guest was started outside nova (`virsh start`, autostart, the
    libvirt-guests service), or nova's record was changed.

    If the guest of a suspended server was started, its saved memory has been used up, and `resume`
    fails. A guest that nova paused and that was resumed on the host is left alone (a warning), but
    its owner expects it to be paused.

    Authority: libvirt, for whether the guest runs; its owner, for whether it should.

    Traps: A server that is being started or stopped.

    Next: Ask the owner whether the guest should run, and check the Autostart line and the server's
    history:

        virsh dominfo NAME
        openstack server event list UUID

    Then, if the guest should run, an administrator can keep it from being forced off, which changes
    nova's record of its state and nothing else:

        openstack server set --state active UUID

    If it should not run, ask the guest to shut down:

        virsh shutdown NAME

    It worked if nova and libvirt report the same:

        openstack server show UUID
        virsh domstate --reason NAME

    Not yet: Do not wait for the next power sync if the guest should keep running. Do not run
    `openstack server start`, which reboots the guest hard.

    Source: nova `_sync_instance_power_state` (the stopped branch); nova bug 1097806.
    """
    rests = record.vm_state in ("stopped", "suspended", "soft-delete", "shelved")
    resumed = record.vm_state == "paused" and domain.state in EXECUTING
    if not guest.is_here or record.deleted:
        return
    if resumed or (rests and domain.state in ON):
        sync = LEGAL[record.vm_state].sync
        log = guest.log if domain.reason in STARTED else None
        since = since_logged(lambda: log.started if log is not None else None, domain, "state")
        what = "soft-deleted" if record.vm_state == "soft-delete" else record.vm_state
        doomed = ", and nova will force it off" if record.vm_state == "stopped" else ""
        yield problem(
            f"{guest.title} is {what} in nova, but its domain {_is(since)} {domain.state_words}"
            f"{since}{doomed}",
            says(record, vm_state=record.vm_state).and_so(next_power_sync=sync),
            says(domain, state=domain.state_words),
            severity=Severity.WARNING if resumed else Severity.ERROR,
        )


@check(Severity.WARNING, heard=["kernel"], traps=[task_in_flight, migrating, building])
def power_state_stale(guest: Guest, record: Server | Instance, domain: Domain) -> Problems:
    """nova's copy of the guest's power state is out of date.

    nova-compute copies it from libvirt at every event and every ten minutes, whatever the server's
    state. If it stays wrong, nova-compute does not run, has lost libvirt, or works for another host
    name.

    Authority: libvirt. nova only copies in this direction.

    Traps: A server that was never on a host has no power state. 0 ("pending") stays if the domain
    was once not found and nova started it again. A shelved server keeps its last power state.

    Next: Check the service, and read the end of nova-compute.log on the host:

        openstack compute service list --service nova-compute
        tail -n 50 /var/log/nova/nova-compute.log

    If the service is healthy, wait ten minutes.

    Not yet: Do nothing else because of this finding alone.

    Source: nova compute/manager.py `_sync_instance_power_state` ("power_state is always updated
    from hypervisor to db"), `handle_lifecycle_event`.
    """
    legal = LEGAL.get(record.vm_state)
    if legal is None or not guest.is_here or record.deleted or record.power_state is None:
        return
    if legal.domain is not None and domain.state not in legal.domain:
        return  # the states themselves differ, not just this copy
    if (domain.state in ON) != (guest.process is not None):
        return  # libvirt's own state is wrong
    if record.vm_state in IGNORED and domain.state in HALTED:
        return  # server-in-error, rescued-or-resized-but-off or qemu-does-not-end reports it
    process = guest.process
    if domain.state == DomainState.SHUTDOWN and process is not None and process.state == "D":
        return  # qemu-does-not-end reports it
    power = POWER_OF.get(domain.state)
    if power is None or record.power_state == power:
        return
    if power == PowerState.SHUTDOWN and record.power_state == PowerState.NOSTATE:
        return  # the domain was not found once
    yield problem(
        f"nova's power state of {guest.title} is {POWER_STATES.get(record.power_state, 'unknown')},"
        f" but its domain is {domain.state_words}",
        says(record, power_state=_power(record.power_state)),
        says(domain, state=domain.state_words),
    )


def _power(number: int) -> str:
    return f"{number} ({POWER_STATES.get(number, 'unknown')})"


@check(Severity.ERROR, traps=[task_in_flight, migrating, job_runs])
def paused_or_crashed_guest(
    guest: Guest, record: Server | Instance, domain: Domain, monitor: Monitor | None
) -> Problems:
    """nova has not paused the server, but its guest is paused, asleep or crashed.

    nova did not pause it. It was paused on the host (`virsh suspend`, a backup that stopped half
    way), or QEMU stopped it: its watchdog fired, its kernel panicked, libvirt gave up. nova keeps
    showing it as active and does nothing. A guest that went to sleep by itself (a warning) is
    stopped by nova within ten minutes.

    Authority: libvirt's reason for the pause.

    Traps: A pause for a snapshot, a dump or a migration lasts a moment, and libvirt reports a job
    with it. An I/O error and a migration that stopped half way have checks of their own.

    Next: Find out why the guest is paused:

        virsh domstate --reason NAME
        virsh domjobinfo NAME
        tail /var/log/libvirt/qemu/NAME.log

    Check that no migration left it behind, because it may then run on the other host:

        openstack server migration list --server UUID

    Then, if it was paused by hand or for a snapshot, resume it, which loses nothing:

        virsh resume NAME

    If the server is in error, an administrator can clear the error once the guest runs, which
    changes nova's record of its state and nothing else:

        openstack server set --state active IN_ERROR

    It worked if the domain runs, and nova reports the server as before:

        virsh domstate --reason NAME
        openstack server show UUID

    Not yet: Do not run `openstack server reboot --hard` on a guest that crashed, before `virsh
    dump` has saved its memory.

    Source: nova bug 1097806 (the power sync ignores PAUSED); libvirt qemu_monitor.c; QEMU's
    RunState.
    """
    on = ("active", "rescued", "resized", "error")
    if not guest.is_here or record.deleted or record.vm_state not in (*on, "paused"):
        return
    if monitor is not None and _status(monitor) == "io-error":
        return
    paused = domain.state == DomainState.PAUSED and domain.reason in PAUSED_OUTSIDE_NOVA
    if paused and record.vm_state in on:
        yield _stands_still(guest, record, domain, PAUSED_OUTSIDE_NOVA[domain.reason])
    elif domain.state == DomainState.PMSUSPENDED and record.vm_state == "active":
        yield problem(
            f"{guest.title} put itself to sleep ({domain.state_words}), and nova will stop it",
            says(record, vm_state=record.vm_state),
            says(domain, state=domain.state_words).and_so(cause=SLEEPS),
            severity=Severity.WARNING,
        )
    elif domain.state == DomainState.CRASHED:
        yield _stands_still(guest, record, domain, None)


def _stands_still(
    guest: Guest, record: Server | Instance, domain: Domain, cause: str | None
) -> Problem:
    state = says(domain, state=domain.state_words)
    return problem(
        f"{guest.title} is {phrase.state(record.vm_state)} in nova, but its domain is "
        f"{domain.state_words}{'' if cause is None else f': {cause}'}",
        says(record, vm_state=record.vm_state),
        state if cause is None else state.and_so(cause=cause),
        *(fault(guest.instance or record) if record.vm_state == "error" else ()),
        *_asked(guest.monitor),
        *complaint(guest.log),
        IN_ERROR=guest.uuid if record.vm_state == "error" else "",
    )


def _asked(monitor: Monitor | None) -> Iterator[Evidence]:
    if monitor is not None and (status := _status(monitor)) is not None:
        yield says(monitor, status=status)


def _status(monitor: Monitor) -> str | None:
    """Return QEMU's status; None if it was not collected, because libvirt's state is enough."""
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
    """nova reports the server as in error, but its guest runs.

    The error belongs to the last operation that nova tried (a resize, a volume, the ports after a
    restart of nova-compute), not to the guest. Until it is cleared, nova refuses most commands for
    the server.

    Authority: libvirt and the kernel, for the guest; nova's last fault, for what failed.

    Traps: After a failed resize or migration the guest may run on the other host. Check first that
    this is the only one. A guest that is shutting down (`in shutdown`) is reported by
    `server-in-error`.

    Next: Check the fault and the server's history, and check that its volumes and ports are intact:

        openstack server show UUID
        openstack server event list UUID
        openstack server volume list UUID
        openstack port list --server UUID

    Then an administrator can clear the error, which changes nova's record of its state and nothing
    else:

        openstack server set --state active RUNNING_SERVER

    It worked if nova reports the server as ACTIVE:

        openstack server show UUID

    Not yet: Do not run `openstack server reboot --hard` or `rebuild` to repair it. Do not delete
    it.

    Source: nova admin guide, "reset the state of an instance"; nova `_init_instance`; nova bugs
    1784579, 1809136, 1659062.
    """
    if not guest.is_here or record.deleted or record.vm_state != "error":
        return
    if domain.state in EXECUTING:
        yield problem(
            f"{guest.title} is in error in nova{after_a_fault(instance or record)}, but its domain "
            f"is {domain.state_words}",
            says(record, vm_state=record.vm_state),
            *fault(instance or record),
            *failed_action(instance),
            says(domain, state=domain.state_words),
            says(process, pid=process.pid),
            *([says(log, trouble=log.trouble)] if log is not None and log.trouble else []),
            RUNNING_SERVER=guest.uuid,
        )


def after_a_fault(record: Server | Instance | None) -> str:
    """Return ` after a fault (No valid host was found.)`; "" without a known fault."""
    said = known(lambda: record.fault_message if record is not None else None)
    return in_words(said) if said else ""


def in_words(fault: str) -> str:
    """Return a fault for a headline: ` after a fault (No valid host was found.)`.

    If QEMU did not start, libvirt's message ends in QEMU's own, which has the cause.
    """
    said = last_complaint(fault.splitlines()) or _NOT_STARTED.sub("", fault.strip())
    return f" after a fault ({cut(_with_short_paths(said), LONGEST)})"


def _with_short_paths(text: str) -> str:
    """Return a message whose long paths are as short as in headlines: `…/3970aa18/disk`."""
    return _PATH.sub(lambda found: phrase.place(found[0]), text)


def fault(record: Server | Instance | None) -> Iterator[Evidence]:
    """Yield evidence of the server's last fault: its time, HTTP status, text and host."""
    try:
        if record is None or record.fault_message is None:
            return
        told: dict[str, object] = {
            "fault_at": record.fault_at,
            "fault_message": record.fault_message,
        }
        told |= {"fault_code": known(lambda: record.fault_code)}
        if isinstance(record, Instance):
            told |= {"fault_host": known(lambda: record.fault_host)}
        yield says(record, **{name: value for name, value in told.items() if value is not None})
    except UnheardError:
        return


def failed_action(instance: Instance | None) -> Iterator[Evidence]:
    """Yield evidence of the server's last action if it failed, and of the step that failed."""
    if instance is None or not known(lambda: instance.action_failed):
        return
    yield _action(instance)
    actions = known(lambda: instance.actions) or ()
    step = actions[-1].failed_step if actions else None
    if step is not None:
        host = known(lambda: step.host)
        yield says(step, event=step.event, result=step.result, host=host)


def _action(instance: Instance) -> Evidence:
    """Evidence of the last action: what was requested, when, by which user, in which request."""
    return says(
        instance,
        action=instance.action,
        action_at=instance.action_at,
        action_by=instance.action_by,
        request=instance.request,
    )


@check(Severity.ERROR)
def stuck_task_state(guest: Guest, record: Server | Instance) -> Problems:
    """The server has had the same task for too long; nova is no longer working on it.

    While a task is set, nova refuses most commands for this server and skips it in its power sync.

    Authority: nova's own record. Migrations, block jobs and growing files show whether work is in
    progress.

    Traps: Uploading a large snapshot, shelving, migrating or resuming a large memory may take
    hours, and a migration may wait for others: a warning until a day has passed. A guest that is
    being shut down has the time that nova.conf or its image allows. If the migration or the action
    behind the task has ended, or nova-compute was started since, nothing works on it any more.

    Next: Check for work in progress:

        openstack server event list UUID
        openstack server migration list --server UUID
        virsh domjobinfo NAME

    For a deletion, a rebuild, or a migration that has not ended, read in the evidence what a
    restart of nova-compute does to this server; only the restart ends the task.

    Then, for any other task, if nothing is in progress, an administrator can clear the task. This
    changes nova's record and nothing else: the server is ACTIVE in it, whatever its guest is. nova
    stops the server again if its guest is off:

        openstack server set --state active UUID

    If the server was paused, pause it again once nova-compute runs, which sets the record right and
    leaves the guest as it is:

        openstack server pause PAUSED_SERVER

    It worked if nova reports no task for the server:

        openstack server show UUID

    Not yet: Do not restart nova-compute before you know what the restart does to this server. Do
    not clear the task of a server that is deleting or rebuilding, or whose migration has not ended.

    Source: nova compute/manager.py `_init_instance`; nova admin guide, support-compute.
    """
    task = record.task_state
    if not task or record.deleted or task == "deleting":
        return  # partial-deletion reports it
    since, (asked, *_) = moment(record.updated_at), record.said.values()
    if since is None:
        raise UnheardError("the start time of the task can't be read")
    age = (asked.at - since).total_seconds()
    patience = QUICK if task in QUICK_TASKS else SLOW
    shutdown = _shutdown_timeout(guest) if task == "powering-off" else 0.0
    patience += shutdown or 0.0
    proof = finished_work(guest)
    restarted = restarted_since(guest)
    over = proof is not None or restarted is not None
    if shutdown is None and patience < age < SLOW and not over:
        raise UnheardError("how long nova waits for the guest's shutdown was not collected")
    if age > patience or over:
        restart = AFTER_RESTART.get(task, "plugs its ports and leaves the task set")
        since_then = says(record, task_state=task, updated_at=record.updated_at)
        # A large memory or image may take longer, but nothing takes longer than a day.
        sure = task in QUICK_TASKS or age > TASK.total_seconds() or over
        if isinstance(proof, Migration):
            restart = "clears the task"  # it aborts only a migration that runs
        yield problem(
            f"{guest.title} has been stuck in {task} {phrase.since(since, asked.at)}"
            f"{_over(guest, proof, restarted)}",
            since_then.and_so(restart_of_nova_compute=restart),
            *_proof(proof),
            *_action_behind(guest.instance, since),
            PAUSED_SERVER=guest.uuid if record.vm_state == "paused" else "",
            severity=Severity.ERROR if sure else Severity.WARNING,
        )


def _over(
    guest: Guest, proof: Migration | InstanceAction | None, restarted: datetime | None
) -> str:
    """Return why nova no longer works on the task: `, but its migration has ended (error)`."""
    if isinstance(proof, Migration):
        return f", but its live migration has ended ({proof.status})"
    if proof is not None:
        return f", but its {proof.action} has ended"
    if restarted is not None and guest.host is not None:
        return f", but nova-compute on {guest.host.name} was started at {restarted:%Y-%m-%d %H:%M}"
    return ""


def _proof(proof: Migration | InstanceAction | None) -> Iterator[Evidence]:
    """Yield evidence that the work behind a task is over."""
    if isinstance(proof, Migration):
        yield says(
            proof,
            status=proof.status,
            updated_at=proof.updated_at,
            source_compute=proof.source_compute,
            dest_compute=proof.dest_compute,
        )
    elif proof is not None:
        last = proof.steps[-1] if proof.steps else None
        if last is not None:
            yield says(last, event=last.event, result=last.result, finish_time=last.finish_time)


def _action_behind(instance: Instance | None, since: datetime) -> Iterator[Evidence]:
    """Yield the action that began the task: the last one, if nova set the task soon after it."""
    if instance is None:
        return
    asked = known(lambda: moment(instance.action_at))
    if asked is not None and timedelta(0) <= since - asked <= SOON:
        yield _action(instance)


def _shutdown_timeout(guest: Guest) -> float | None:
    """Return the seconds that nova waits for a shutdown, from the image or nova.conf; None if
    neither was collected."""
    instance, host = guest.instance, guest.host
    try:
        if instance is None:
            return None  # the image's setting is only in the database
        said = instance.shutdown_timeout
        if said is None:
            said = whole(host.option("DEFAULT", "shutdown_timeout")) if host is not None else None
            return float(said or 0) if host is not None else None
    except UnheardError:
        return None
    return float(said)
