"""What nova believes a guest is doing, and what it does."""

from __future__ import annotations

from hoodsnap.check import Problems, check
from hoodsnap.checks.traps import migrating, task_in_flight
from hoodsnap.facts.domain import OFF, ON, Domain
from hoodsnap.facts.fact import Unheard
from hoodsnap.facts.guest import Guest
from hoodsnap.facts.instance import Instance, moment
from hoodsnap.facts.server import Server
from hoodsnap.finding import Severity, says

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
        "resuming",
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
"""The tasks that take moments; the others copy an image or memory."""


@check(Severity.ERROR, traps=[task_in_flight, migrating])
def active_but_domain_off(guest: Guest, record: Server | Instance, domain: Domain) -> Problems:
    """nova says that the server is active, and its guest is switched off.

    Within ten minutes nova notices and stops the server officially; its owner sees a VM that
    "stopped by itself". libvirt's reason tells more, as long as libvirtd has not been restarted
    since: `shutdown`, the guest shut itself down; `destroyed`, somebody on the host; `crashed`,
    QEMU died (see its log, and the kernel's OOM killer); `saved`, its memory is in a file.

    Authority: libvirt for whether it runs.

    Traps: a task in flight; a host that has just rebooted.

    Next: `virsh domstate --reason NAME`, the end of /var/log/libvirt/qemu/NAME.log, `journalctl -k
    | grep -i oom`, `last reboot`.

    Not yet: `openstack server start` before its disks are known to be whole and to be open nowhere
    else.

    Source: nova `_sync_instance_power_state`; nova bugs 1293480, 1443186, 1444630.
    """
    if guest.process is not None:
        return  # it is not off: libvirt has lost sight of it, which qemu-without-domain tells
    if guest.is_here and record.vm_state == "active" and domain.state == OFF and not record.deleted:
        yield says(record, vm_state=record.vm_state), says(domain, state=domain.state_words)


@check(Severity.ERROR, traps=[task_in_flight, migrating])
def stopped_but_domain_on(guest: Guest, record: Server | Instance, domain: Domain) -> Problems:
    """nova says that the server is stopped, and its guest runs.

    For `stopped` nova's next power sync (ten minutes) *forces it off*, without a shutdown.
    Somebody started it behind nova's back: `virsh start`, autostart, the libvirt-guests service.

    Authority: libvirt for whether it runs; its owner for whether it should.

    Traps: a server that is just being started or stopped.

    Next: ask its owner whether it should run. `virsh dominfo NAME` (Autostart), `openstack server
    event list UUID`. If it should, an administrator's `openstack server set --state active UUID`
    keeps it from being forced off.

    Not yet: waiting, if it should go on running.

    Source: nova `_sync_instance_power_state` (the stopped branch); nova bug 1097806.
    """
    stopped = record.vm_state in ("stopped", "soft-delete", "shelved")
    if guest.is_here and stopped and domain.state in ON and not record.deleted:
        yield says(record, vm_state=record.vm_state), says(domain, state=domain.state_words)


@check(Severity.ERROR)
def stuck_task_state(guest: Guest, record: Server | Instance) -> Problems:
    """nova has been doing the same thing with it for too long: nobody is working on it any more.

    While a task is set, nova refuses most commands for this server and skips it in its power sync.

    Authority: nova's own record; whether work is going on is seen in migrations, block jobs and
    growing files.

    Traps: uploading a large snapshot, shelving, migrating much memory take hours rightly.

    Next: `openstack server event list UUID`, `openstack server migration list --server UUID`,
    `virsh domjobinfo NAME`. The evidence says what a restart of nova-compute would do to *this*
    server.

    Not yet: restarting nova-compute before you know what that does; `openstack server set --state
    active` on one that is deleting, migrating or rebuilding.

    Source: nova compute/manager.py `_init_instance`; nova admin guide, support-compute.
    """
    task = record.task_state
    if not task or record.deleted:
        return
    since, (asked, *_) = moment(record.updated_at), record.said.values()
    if since is None:
        raise Unheard("when the task began can't be read")
    age = (asked.at - since).total_seconds()
    if age > (QUICK if task in QUICK_TASKS else SLOW):
        restart = AFTER_RESTART.get(task, "plugs its ports and leaves the task")
        since_then = says(record, task_state=task, updated_at=record.updated_at)
        yield (since_then.and_so(after_a_restart_nova_compute=restart),)
