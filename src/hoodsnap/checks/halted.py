"""Guests that stand still in states that nova's power sync ignores, and QEMUs that do not end."""

from __future__ import annotations

from datetime import timedelta

from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.state import complaint, ending, fault, since_logged
from hoodsnap.checks.traps import just_ended, migrating, task_in_flight
from hoodsnap.evidence import Severity, says
from hoodsnap.facts.api.server import Server
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.state import ON, DomainState, ShutoffReason
from hoodsnap.facts.fact import UnheardError, known
from hoodsnap.facts.host.log import Log
from hoodsnap.facts.process.process import Process

OFF = frozenset([DomainState.SHUTOFF, DomainState.CRASHED])
"""States in which a domain has no QEMU that could run."""

BY_ITSELF = (DomainState.SHUTOFF, ShutoffReason.SHUTDOWN)
"""State and reason of a guest that shut itself down."""


MOMENTS = timedelta(minutes=1)
"""Time in which a QEMU that is about to end may write its last data."""


@check(Severity.ERROR, heard=["kernel"], traps=[task_in_flight, migrating, just_ended])
def rescued_or_resized_but_off(
    guest: Guest, record: Server | Instance, domain: Domain, log: Log | None
) -> Problems:
    """nova reports the server as in rescue or as resized, but its guest is off.

    nova's power sync ignores both states, so nothing ever changes the record: the owner sees RESCUE
    or VERIFY_RESIZE, and nobody answers. A guest that shut itself down is a warning.

    Authority: libvirt, for whether the guest runs.

    Traps: A server that was stopped before its resize stays off. A guest that shut itself down less
    than a minute before.

    Next: Find out why the guest is off:

        virsh domstate --reason NAME
        tail /var/log/libvirt/qemu/NAME.log
        journalctl -k | grep -i oom

    Check that its disks exist, and that no other process has them open:

        virsh domblklist --details NAME
        ls -l /proc/[0-9]*/fd | grep UUID

    Then, if the server is in rescue and its own disk is sound, end the rescue, which boots the
    guest from its own disk:

        openstack server unrescue RESCUED

    Or, if the server waits for the confirmation of its resize, let its owner choose. Confirming
    keeps the new size and removes the copy on the old host; then start the server, which boots the
    guest:

        openstack server resize confirm RESIZED
        openstack server start RESIZED

    It worked if nova reports the server as ACTIVE and its domain runs:

        openstack server show UUID
        virsh domstate --reason UUID

    Not yet: Do not run `virsh start`: nova does not notice it. Do not run `openstack server reboot
    --hard` or `openstack server set --state active`, which end neither the rescue nor the resize.

    Source: nova `_sync_instance_power_state` (it knows neither RESCUED nor RESIZED),
    `_confirm_resize` (a guest that is off becomes `stopped`), `unrescue_instance`.
    """
    if not guest.is_here or record.deleted or guest.process is not None:
        return
    if record.vm_state not in ("rescued", "resized") or domain.state not in OFF:
        return
    if record.vm_state == "resized" and not _was_on(record):
        return
    since = since_logged(lambda: log.ended if log is not None else None, domain, "state")
    itself = (domain.state, domain.reason) == BY_ITSELF
    waits = "rescued" if record.vm_state == "rescued" else "waiting for its resize's confirmation"
    yield problem(
        f"{guest.title} is {waits} in nova, but its domain {'has been' if since else 'is'} "
        f"{domain.state_words}{since}",
        says(record, vm_state=record.vm_state),
        says(domain, state=domain.state_words),
        *ending(log),
        severity=Severity.WARNING if itself else Severity.ERROR,
        RESCUED=guest.uuid if record.vm_state == "rescued" else "",
        RESIZED=guest.uuid if record.vm_state == "resized" else "",
    )


def _was_on(record: Server | Instance) -> bool:
    """True if a resized server was on before its resize."""
    if not isinstance(record, Instance):
        raise UnheardError("the server's state before its resize is only in nova's database")
    return record.old_vm_state == "active"


@check(Severity.ERROR)
def qemu_does_not_end(guest: Guest, domain: Domain, process: Process, log: Log | None) -> Problems:
    """The guest was ended, but its QEMU waits in the kernel and can't end.

    libvirt sent the process a signal. In state D no signal has an effect until the device or file
    server for which the process waits answers; it may be only one of its threads that waits. Until
    then, libvirt refuses every command for the guest, nova fails with "Failed to terminate
    process", and no time-out ends it.

    Authority: The kernel, for the state of the process.

    Traps: A guest that shuts down writes its last data, which takes moments; it is judged only a
    minute after the signal to end, if its process is in state D, or if nova has given up.

    Next: Check for what the process waits, and whether the storage of its disks answers:

        ps -L -o pid,tid,stat,lstart,wchan:24 -p PID
        cat /proc/PID/stack
        virsh domblklist --details NAME
        multipath -ll

    If a path, an iSCSI session or a file server does not answer, bring it back: the process then
    ends by itself.

    Then, if the domain is shut off and nova reports an error, stop the server in nova, which ends
    the error, and start it, which boots the guest:

        openstack server stop UUID
        openstack server start UUID

    It worked if the process is gone, and nova reports the server as ACTIVE:

        ps -o pid,stat,lstart -p PID
        openstack server show UUID

    Not yet: Do not run `kill -9`: it was sent already, and waits too. Do not evacuate the server
    and do not start it elsewhere: the process still has its disks open. Do not restart libvirtd.

    Source: libvirt qemu_process.c, virProcessKillPainfully; Linux, proc(5), state D.
    """
    record = guest.record
    gave_up = _nova_gave_up(record, log)
    ending = domain.state == DomainState.SHUTDOWN
    told = _told_to_end(domain, log)
    stuck = ending and (process.state == "D" or told is not None)
    if not stuck and not (gave_up and domain.state in ON):
        return
    if not gave_up and told is not None and told < MOMENTS:
        return
    waits = " and waits in the kernel (state D)" if process.state == "D" else ""
    yield problem(
        f"{guest.title}'s domain is {domain.state_words}, but its QEMU (PID {process.pid}) does "
        f"not end{waits}",
        says(domain, state=domain.state_words),
        says(process, pid=process.pid, state=process.state),
        *fault(record),
        *complaint(log),
    )


@check(Severity.ERROR)
def qemu_crashed(guest: Guest, domain: Domain, process: Process) -> Problems:
    """QEMU crashed, and the kernel is still writing its core dump: the guest stands still.

    Until the dump is written, the process exists and libvirt reports the guest as running. A core
    dump holds what QEMU had in memory, which may be all of the guest's memory, so it takes minutes
    on a slow disk and fills a small file system. Afterwards libvirt and nova notice the end of the
    guest.

    Authority: The kernel.

    Traps: A dump of a small process takes a moment. `virsh dump` and gcore write a dump too, but of
    a process that goes on.

    Next: Check the process, where the dump is written to, and whether that place has room:

        grep -E 'State|CoreDumping' /proc/PID/status
        cat /proc/sys/kernel/core_pattern
        df -h /var/lib/systemd/coredump /var/crash

    If the room suffices, wait until the process is gone; then keep the dump for those who mend
    QEMU. It holds the guest's memory: treat it as the guest's disk. If the room does not suffice,
    end the dump, which loses it and ends the process:

        kill -9 PID

    nova notices the end within ten minutes. Then boot the guest again:

        openstack server start UUID

    It worked if the guest runs:

        virsh domstate --reason UUID
        openstack server show UUID

    Not yet: Do not evacuate the server or start it elsewhere while the process exists: it still
    holds its disks.

    Source: Linux proc(5), CoreDumping; core(5).
    """
    if domain.state in ON and process.is_dumping_core:
        yield problem(
            f"{guest.title}'s QEMU (PID {process.pid}) crashed, and its core dump is being written,"
            f" but its domain is {domain.state_words}",
            says(process, pid=process.pid, is_dumping_core=True),
            says(domain, state=domain.state_words),
        )


def _told_to_end(domain: Domain, log: Log | None) -> timedelta | None:
    """Return the time since libvirt sent QEMU the signal to end; None if no log tells."""
    at = known(lambda: log.told_to_end_at if log is not None else None)
    asked = domain.said.get("state")
    return asked.at - at if at is not None and asked is not None else None


def _nova_gave_up(record: Server | Instance | None, log: Log | None) -> bool:
    """True if nova's last fault is that this QEMU could not be ended, not an earlier one."""
    said = known(lambda: record.fault_message if record is not None else None) or ""
    if "Failed to terminate process" not in said or record is None:
        return False
    failed, started = known(lambda: moment(record.fault_at)), known(lambda: log and log.started_at)
    return failed is None or not started or started < failed
