"""The instances directory: whose folders are in it, and whether it is the right one."""

from __future__ import annotations

from datetime import timedelta

from hoodsnap.check import Problems, check
from hoodsnap.checks.traps import disks_are_not_files, migrating, task_in_flight
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.image import Folder

FEW = 2
"""So many servers that all miss their folders are no coincidence."""

CLEANED_UP = timedelta(hours=1)
"""How long nova may take to remove the files of a server that was deleted: it tries five times."""


@check(Severity.ERROR)
def instances_path_not_mounted(host: Host) -> Problems:
    """The instances directory is not the one that the guests' files are in: it is not mounted.

    All servers of this host miss their folders at once, or running guests have files open below a
    folder that is not to be seen there. Then the filesystem with the disks is not mounted, or
    another one lies on top of it. A nova-compute that starts in this state makes everything anew in
    the wrong place.

    Authority: the kernel for the files that guests have open; the nova database for whose folders
    should be there.

    Traps: a container, whose directory is another one; disks in rbd or LVM; one server alone, which
    may have lost its folder for another reason.

    Next: `findmnt -T` of the directory, `cat /etc/fstab`, `ls -l` of it, and `grep instances
    /proc/PID/mountinfo`. Then stop nova-compute, mount the filesystem, and compare.

    Not yet: starting or hard-rebooting any server: new bases would be downloaded into the wrong
    directory, and hide the right ones later; removing what lies below the mount point.

    Source: nova virt/libvirt/driver.py `_get_instance_disk_info`; mountinfo in Linux proc(5).
    """
    if host.images.listing is None or host.images.failures:
        reasons = [host.unheard.get("images"), *host.images.failures.values()]
        raise UnheardError(next((reason for reason in reasons if reason), "nothing was listed"))
    listing = host.images.listing
    for guest in host.guests:
        evidence = _hidden(host, guest)
        if evidence is not None:
            yield evidence, hears(listing, "images", guest.uuid, folder=None)
            return
    expected = [guest for guest in host.guests if _has_a_folder(guest)]
    if len(expected) < FEW or any(guest.uuid in host.images.folders for guest in expected):
        return
    if host.keeps_disks_elsewhere:
        return
    if any(host.in_container(process) for process in host.processes.values()):
        return
    some = [guest.record for guest in expected[:FEW] if guest.record is not None]
    servers = [says(record, uuid=record.uuid, vm_state=record.vm_state) for record in some]
    found = hears(listing, "images", "", folders=f"none of {len(expected)}")
    yield (*servers, found)


def _hidden(host: Host, guest: Guest) -> Evidence | None:
    """A file that a guest has open in a folder of its own, which is not to be seen."""
    process = guest.process
    if process is None or guest.uuid in host.images.folders or guest.moving:
        return None
    for top in host.images.tops:
        for file in process.files:
            if file.path.startswith(f"{top}/{guest.uuid}/") and not file.deleted:
                there = host.images.entry(top)
                # In a container the same path is another folder's.
                if there is not None and file.dev != there.dev and not host.in_container(process):
                    return says(process, pid=process.pid, files=f"{file.path} ({file.dev})")
    return None


def _has_a_folder(guest: Guest) -> bool:
    record = guest.record
    if record is None or record.deleted or not guest.is_here or guest.moving or record.task_state:
        return False
    states = ("active", "paused", "stopped", "suspended", "rescued", "resized")
    return record.vm_state in states and bool(record.launched_at)


@check(Severity.ERROR)
def resize_source_copy_missing(host: Host) -> Problems:
    """A resize waits for its confirmation, and the copy to go back to is gone.

    Until a resize or cold migration is confirmed, the old disk stays on the source host in
    `UUID_resize`, and reverting puts it back. Without it, a revert leaves the server with no disk
    at all; what it has now is on the other side, untouched.

    Authority: the disk images of the source host; the nova database for the migration.

    Traps: disks in rbd or LVM, where a snapshot takes the place of the folder; a server that boots
    from a volume; a confirmation that is under way (resize_confirm_window).

    Next: `openstack server migration list --server UUID`, `ls -ld *_resize` on the source host.
    If it really is gone, `openstack server resize confirm UUID` is the only way on.

    Not yet: `openstack server resize revert`; removing any `*_resize` to make space.

    Source: nova virt/libvirt/driver.py `finish_revert_migration`, `_cleanup_resize`; nova bugs
    1728603, 1769131, 1666831.
    """
    if not host.images.folders:
        return  # the directory itself is not there, which is told by instances-path-not-mounted
    undecided: UnheardError | None = None
    for instance in host.instances.by_uuid.values():
        try:
            lacks = _waits_here(host, instance) and not host.keeps_disks_elsewhere
            copy = f"{instance.uuid}_resize"
            if lacks and host.images.size_of(copy, "disk") is None:
                waits = says(instance, uuid=instance.uuid, vm_state=instance.vm_state)
                yield waits, hears(host.listing, "images", f"{copy}/disk", copy=None)
        except UnheardError as reason:
            undecided = undecided or reason
    if undecided is not None:
        raise undecided


def _waits_here(host: Host, instance: Instance) -> bool:
    """Whether an instance waits for the confirmation of a move away from this host, with a disk of
    its own."""
    if instance.archived or instance.vm_state != "resized" or instance.deleted:
        return False
    if instance.task_state or instance.boots_from_volume:
        return False
    if instance.migrations is None:
        raise UnheardError("the migrations were not read")
    finished = [moved for moved in instance.migrations if moved.status == "finished"]
    newest = max(finished, key=lambda moved: moved.id or 0, default=None)
    return newest is not None and newest.source_compute == host.nova_name


@check(
    Severity.WARNING,
    heard=["nova-db", "libvirt", "kernel"],
    traps=[task_in_flight, migrating, disks_are_not_files],
)
def orphan_instance_dir(guest: Guest, host: Host) -> Problems:
    """A folder in the instances directory belongs to no server.

    It takes space, and its disk keeps a base image in use that nova no longer counts. It may also
    be the last copy of a server whose record was lost. A deletion, a resize or a migration that
    broke off leaves such folders behind.

    Authority: the nova databases, all of them, for whose it is; libvirt and the kernel for whether
    anybody uses it.

    Traps: a directory that several hosts share; a cell that was not read; a deletion that goes on;
    a copy that waits for a resize to be confirmed; a domain that still has it, which
    domain-without-server tells.

    Next: `ls -l --full-time` of it, `qemu-img info -U` of its disk, and search every cell's
    `instances` and `shadow_instances` for the UUID. Then move it aside on the same filesystem; a
    month later nobody will have missed it.

    Not yet: `rm -rf` of what is "not in the list" of nova: the API shows neither the deleted nor
    other cells, nor what a tenant may not see.

    Source: nova bugs 1392527, 1960230, 1761062, 1414895; OSSA-2015-017, OSSA-2016-011.
    """
    for folder in host.images.folders.get(guest.uuid, ()):
        why = _is_orphan(guest, folder)
        if why is not None:
            listing = host.listing
            files = host.images.size_of(guest.uuid + folder.suffix, "disk")
            found = hears(listing, "images", folder.path, folder=folder.path, disk_bytes=files)
            yield why, found


def _is_orphan(guest: Guest, folder: Folder) -> Evidence | None:
    """What speaks against a folder; None if it has an owner."""
    record = guest.instance
    if record is None:
        if guest.domain is not None or guest.process is not None or guest.server is not None:
            return None
        searched = guest.census.get("nova-db")
        if searched is None:
            raise UnheardError("the nova database was not asked for this UUID")
        return hears(searched, "nova-db", guest.uuid, instance=None)
    if record.deleted:
        gone = moment(record.deleted_at)
        if guest.domain is not None or guest.process is not None or gone is None:
            return None
        asked = record.said["row"].at
        return says(record, deleted_at=record.deleted_at) if asked - gone > CLEANED_UP else None
    if folder.suffix == "_resize" and record.vm_state != "resized":
        return says(record, vm_state=record.vm_state)
    return None
