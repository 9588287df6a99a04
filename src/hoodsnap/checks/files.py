"""The instances directory: is it the right one, and does each folder belong to a server?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import partial

from hoodsnap import phrase
from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.traps import disks_are_not_files, migrating, task_in_flight
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.fact import UnheardError, known
from hoodsnap.facts.host.access import PASS, READ, WRITE, User
from hoodsnap.facts.host.device import Mount
from hoodsnap.facts.host.instances_directory import Folder, FolderEntry

FEW = 2
"""Number of servers without their folders that rules out a coincidence."""

MOUNTINFO = "/proc/self/mountinfo"

CLEANED_UP = timedelta(hours=1)
"""Longest time until nova has removed a deleted server's files: it tries five times."""


@check(Severity.ERROR)
def instances_path_not_mounted(host: Host, cloud: Cloud) -> Problems:
    """The instances directory does not hold the guests' files: the file system is not mounted.

    The disks' file system is not mounted, or covered by another one.

    Either the folders of all servers on this host are missing at once, or running guests have files
    open in a folder that is not visible there. A nova-compute that runs or is started in this state
    makes `_base`, and the disks of servers that it builds or reboots hard, in the folder below the
    mount point. The mount later hides those disks: list the folder before.

    Authority: The kernel, for the files that guests have open; the nova database, for the servers
    whose folders should exist.

    Traps: A container may have another instances directory. Disks may be in rbd or LVM. A single
    server may have lost its folder for another reason.

    Next: Check which file system a guest has there, and which one the host has:

        grep instances /proc/PID/mountinfo /proc/self/mountinfo

    Stop nova-compute; guests keep running:

        systemctl stop nova-compute

    If the file system that is mounted there is not the one of /etc/fstab, unmount it:

        umount COVERED

    If none is mounted there, mount the one of /etc/fstab:

        mount UNMOUNTED

    If each server has a folder there, start nova-compute:

        ls -l INSTANCES_PATH
        systemctl start nova-compute

    It worked if the service is up:

        openstack compute service list --service nova-compute

    Not yet: Do not start or reboot anything before, or remove anything there.

    Source: nova virt/libvirt/driver.py `_get_instance_disk_info`; mountinfo in Linux proc(5).
    """
    if host.images.listing is None or host.images.failures:
        reasons = [host.unheard.get("images"), *host.images.failures.values()]
        raise UnheardError(next((reason for reason in reasons if reason), "nothing was collected"))
    listing = host.images.listing
    top = host.images.tops[0]
    cover = known(partial(_cover, host, top))
    covered = f"; {phrase.brief(cover.source)} ({cover.type}) is mounted over it" if cover else ""
    mounted = [] if cover is None else [_in_mountinfo(host, cover)]
    for guest in cloud.guests_of(host):
        evidence = _hidden(host, guest)
        if evidence is not None:
            yield problem(
                f"{top} on {host.name} lacks {guest.title}'s folder, open in PID "
                f"{guest.process.pid if guest.process is not None else 'unknown'}{covered}",
                evidence,
                hears(listing, "images", guest.uuid, folder=None),
                *mounted,
                PID=guest.process.pid if guest.process is not None else None,
                INSTANCES_PATH=top,
                COVERED=top if cover is not None else "",
                UNMOUNTED=top if cover is None else "",
            )
            return
    expected = [guest for guest in cloud.guests_of(host) if _has_a_folder(guest)]
    if len(expected) < FEW or any(guest.uuid in host.images.folders for guest in expected):
        return
    if host.keeps_disks_elsewhere:
        return
    if any(host.in_container(process) for process in host.processes.own.values()):
        return
    some = [guest.record for guest in expected[:FEW] if guest.record is not None]
    servers = [says(record, uuid=record.uuid, vm_state=record.vm_state) for record in some]
    found = hears(listing, "images", "", folders=f"none of {len(expected)}")
    pids = (guest.process.pid for guest in expected if guest.process is not None)
    yield problem(
        f"{top} on {host.name} has none of the folders of {len(expected)} servers"
        f" ({phrase.several(guest.title for guest in expected)}){covered}",
        *servers,
        found,
        *mounted,
        PID=next(pids, None),
        INSTANCES_PATH=top,
        COVERED=top if cover is not None else "",
        UNMOUNTED=top if cover is None else "",
    )


def _cover(host: Host, top: str) -> Mount | None:
    """Return the file system that is mounted at the instances directory itself; None without."""
    mount = host.devices.mount_of(f"{top}/")
    return mount if mount is not None and mount.folder == top else None


def _in_mountinfo(host: Host, mount: Mount) -> Evidence:
    table = host.bundle.last("kernel", MOUNTINFO, host.name)
    assert table is not None  # noqa: S101 (the mount was read from it)
    shown = f"{mount.source} ({mount.type}, {mount.number})"
    return hears(table, "kernel", mount.folder, mounted=shown)


def _hidden(host: Host, guest: Guest) -> Evidence | None:
    """Evidence that a guest has a file open in its own folder, which is not visible; None
    otherwise."""
    process = guest.process
    if process is None or guest.uuid in host.images.folders or guest.moving:
        return None
    for top in host.images.tops:
        for file in process.files:
            if file.path.startswith(f"{top}/{guest.uuid}/") and not file.deleted:
                there = host.images.entry(top)
                # In a container the same path may lead to another folder.
                if there is not None and file.dev != there.dev and not host.in_container(process):
                    return says(process, pid=process.pid, files=f"{file.path} ({file.dev})")
    return None


def _has_a_folder(guest: Guest) -> bool:
    record = guest.record
    if record is None or record.deleted or not guest.is_here or guest.moving or record.task_state:
        return False
    states = ("active", "paused", "stopped", "suspended", "rescued", "resized")
    return record.vm_state in states and bool(record.launched_at)


@check(Severity.WARNING)
def nova_folder_not_writable(host: Host) -> Problems:
    """nova-compute cannot write to a folder of the instances directory.

    nova-compute locks, downloads and creates files there as its own user. Without access to `locks`
    or `_base`, no server can be started, resized or rebuilt on this host; without access to a
    server's folder, only that server cannot. Running guests notice nothing. Causes: a command that
    was run as root, `chmod` or `chown` over the whole directory, files restored from a backup.

    Authority: The kernel. nova's user is the one that owns most folders here.

    Traps: If nova-compute runs as root, it may write everywhere. With an access control list, mode
    and owner do not decide. On a network file system, the file server decides.

    Next: Check owner and mode of the folder and of its parent, and nova-compute's user:

        ls -ld PATH INSTANCES_PATH
        ps -C nova-compute -o user,pid,args

    If the owner is wrong, give the folder back to nova's user:

        chown OWNED PATH

    If nova's user may not write, let it:

        chmod u+rwx CLOSED

    It worked if the folder has nova's user, with rwx:

        ls -ld PATH INSTANCES_PATH

    Not yet: Do not run `chown -R` on the instances directory: libvirt has given the disks of
    running guests to QEMU's user. Do not start, resize or rebuild servers on this host.

    Source: nova virt/libvirt/utils.py, imagebackend.py `cache`; oslo.concurrency lockutils
    `external_lock`.
    """
    if not host.images.tops:
        raise UnheardError("the instances directory was not collected")
    folders = novas_folders(host)
    account = novas_account(folders)
    if account is None:
        return
    top, (uid, gid) = host.images.tops[0], account
    user = User(uid, gid, None)
    named = next(entry for entry in folders if (entry.uid, entry.gid) == (uid, gid))
    own = f"{named.user or uid}:{named.group or gid}"
    for entry in folders:
        on_server = (entry.dev or "0:").startswith("0:")
        if on_server or user.may(entry, READ + WRITE + PASS):
            continue
        its = f"{entry.user or entry.uid}:{entry.group or entry.gid}"
        mode = (entry.mode or "")[-4:]
        yield problem(
            f"nova-compute on {host.name} (user {named.user or uid}) can't write to "
            f"{phrase.place(entry.path)}: mode {mode}, owner {its}",
            hears(host.listing, "images", entry.path, path=entry.path, mode=mode, owner=its),
            hears(host.listing, "images", named.path, path=named.path, owner=own),
            PATH=entry.path,
            OWNED=own if entry.uid != uid else "",
            CLOSED=entry.path if int(entry.mode or "0", 8) & 0o700 != 0o700 else "",
            INSTANCES_PATH=top,
        )


def novas_folders(host: Host) -> Sequence[FolderEntry]:
    """Return the folders in which nova-compute creates files."""
    top = host.images.tops[0]
    paths = [top, f"{top}/_base", f"{top}/locks", *_own_folders(host)]
    found = (known(partial(host.images.entry, path)) for path in paths)
    return [entry for entry in found if entry is not None and entry.type == "d"]


def novas_account(folders: Sequence[FolderEntry]) -> tuple[int, int] | None:
    """Return user and group that own most folders; None if that is root, or not clear."""
    owners = Counter((entry.uid, entry.gid) for entry in folders).most_common(1)
    if not owners or owners[0][1] == 1:
        return None
    uid, gid = owners[0][0]
    return (uid, gid) if uid and gid is not None else None  # root may write everywhere


def _own_folders(host: Host) -> Iterator[str]:
    """Yield the folders of servers that nova has on this host; a leftover may have any owner."""
    for uuid, folders in host.images.folders.items():
        instance = host.instances.by_uuid.get(uuid)
        if instance is not None and not known(partial(getattr, instance, "deleted")):
            yield from (folder.path for folder in folders if not folder.suffix)


@check(Severity.ERROR)
def resize_source_copy_missing(host: Host) -> Problems:
    """The source disk of an unconfirmed resize is missing.

    Until a resize or cold migration is confirmed, the old disk stays on the source host in
    `UUID_resize`, and a revert puts it back. Without it, a revert leaves the server without any
    disk. The server's current disk is on the destination host, untouched.

    Authority: The disk images of the source host; the nova database, for the migration.

    Traps: With disks in rbd or LVM, a snapshot takes the place of the folder. A server may boot
    from a volume. A confirmation may be under way (resize_confirm_window).

    Next: Check the migration, and look for the copy on the source host:

        openstack server migration list --server UUID
        ls -ld INSTANCES_PATH/UUID*

    If the copy was renamed, give the folder its name back. The server can be reverted again:

        mv -T FOUND RESIZE_FOLDER

    It worked if the folder has the disk:

        ls -l RESIZE_FOLDER/disk

    If the copy is neither on the source host nor in a backup, and only then, confirm the resize,
    which ends the possibility to revert it and leaves the server as it is:

        openstack server resize confirm RESIZED

    It worked if the server is ACTIVE:

        openstack server show RESIZED -c status

    Not yet: Do not run `openstack server resize revert`. Do not confirm the resize while the copy
    may exist under another name: it can't be reverted then. Do not remove
    any `*_resize` to make space.

    Source: nova virt/libvirt/driver.py `finish_revert_migration`, `_cleanup_resize`; nova bugs
    1728603, 1769131, 1666831.
    """
    if not host.images.folders:
        return  # instances-path-not-mounted reports a missing directory
    undecided: UnheardError | None = None
    for instance in host.instances.by_uuid.values():
        try:
            lacks = _waits_here(host, instance) and not host.keeps_disks_elsewhere
            copy = f"{instance.uuid}_resize"
            if lacks and host.images.size_of(copy, "disk") is None:
                yield _copy_missing(host, instance, copy)
        except UnheardError as reason:
            undecided = undecided or reason
    if undecided is not None:
        raise undecided


def _copy_missing(host: Host, instance: Instance, copy: str) -> Problem:
    renamed = [
        path
        for path in host.images.named_after(instance.uuid)
        if path.rpartition("/")[2] not in (instance.uuid, copy)
        and host.images.entry(f"{path}/disk") is not None
    ]
    headline = (
        f"{instance.name}'s resize can't be reverted: {phrase.brief(copy)}/disk is missing on its"
        f" source host {host.name}"
    )
    evidence = [
        says(instance, uuid=instance.uuid, vm_state=instance.vm_state),
        hears(host.listing, "images", f"{copy}/disk", copy=None),
    ]
    if renamed:
        names = phrase.several(phrase.place(path) for path in renamed)
        headline += f", but {names} has a disk"
        evidence += [hears(host.listing, "images", path, renamed_copy=path) for path in renamed]
    top = renamed[0].rpartition("/")[0] if renamed else host.images.tops[0]
    return problem(
        headline,
        *evidence,
        UUID=instance.uuid,
        INSTANCES_PATH=top,
        FOUND=renamed[0] if len(renamed) == 1 else None if renamed else "",
        RESIZE_FOLDER=f"{top}/{copy}" if renamed else "",
        RESIZED="" if renamed else instance.uuid,
    )


def _waits_here(host: Host, instance: Instance) -> bool:
    """True if the instance, with a disk of its own, waits to confirm a move away from this host."""
    if instance.archived or instance.vm_state != "resized" or instance.deleted:
        return False
    if instance.task_state or instance.boots_from_volume:
        return False
    if instance.migrations is None:
        raise UnheardError("the instance's migrations were not collected")
    finished = [moved for moved in instance.migrations if moved.status == "finished"]
    newest = max(finished, key=lambda moved: moved.id or 0, default=None)
    if newest is None or newest.source_compute != host.nova_name:
        return False
    # A guest that never left still has its disk; domain-running-on-wrong-host reports it.
    return newest.dest_compute == host.nova_name or instance.uuid not in host.domains


@check(
    Severity.WARNING,
    heard=["nova-db", "libvirt", "kernel"],
    traps=[task_in_flight, migrating, disks_are_not_files],
)
def orphan_instance_dir(guest: Guest, host: Host) -> Problems:
    """A folder in the instances directory is a leftover: no server uses it.

    The folder takes up space, and its disk keeps a base image in use that nova no longer counts. It
    may also be the last copy of a server whose record was lost. A deletion, a resize or a migration
    that broke off leaves such a folder behind: `UUID_resize` of a server that waits for no
    confirmation, or the folder of a server that was deleted or never existed.

    Authority: All nova databases, for the owner; libvirt and the kernel, for whether the folder is
    in use.

    Traps: A directory that several hosts share. A cell that was not read. A deletion in flight. A
    copy that waits for a resize to be confirmed. A folder of a remaining domain is reported by
    domain-without-server.

    Next: Look at the folder, and check that no process has one of its files open:

        ls -l --full-time FOLDER
        ls -l /proc/[0-9]*/fd | grep FOLDER

    Search for the server in the database of every cell, there also in `shadow_instances`:

        SELECT uuid, host, deleted_at FROM instances WHERE uuid = 'UUID'

    Then copy the folder to a place with enough room, and keep the copy for a month. The folder
    itself stays until its owner is known:

        cp -a --sparse=always FOLDER COPY

    It worked if the copy has the same files, with the same sizes:

        ls -lR FOLDER COPY

    Not yet: Do not run `rm -rf` on everything that is "not in the list" of nova: the API shows
    neither deleted servers nor other cells, nor anything that a tenant may not see.

    Source: nova bugs 1392527, 1960230, 1761062, 1414895; OSSA-2015-017, OSSA-2016-011.
    """
    for folder in host.images.folders.get(guest.uuid, ()):
        why = _is_orphan(guest, folder)
        if why is not None:
            listing = host.listing
            files = host.images.size_of(guest.uuid + folder.suffix, "disk")
            yield problem(
                _of_a_leftover(guest, folder, host),
                why,
                hears(listing, "images", folder.path, folder=folder.path, disk_bytes=files),
                FOLDER=folder.path,
            )


def _of_a_leftover(guest: Guest, folder: Folder, host: Host) -> str:
    record = guest.instance
    if record is None:
        return f"{folder.path} on {host.name} belongs to no server in nova's databases"
    name = phrase.brief(folder.path.rpartition("/")[2])
    if record.deleted:
        gone = known(lambda: moment(record.deleted_at))
        since = f" {phrase.since(gone, record.said['row'].at)}" if gone is not None else ""
        was = "has been" if since else "is"
        return f"{guest.title} {was} deleted{since}, but its folder {name} is still on {host.name}"
    return (
        f"{guest.title} has no resize in progress (it is {phrase.state(record.vm_state)}), but "
        f"{host.name} still has {name}"
    )


def _is_orphan(guest: Guest, folder: Folder) -> Evidence | None:
    """Return the evidence that a folder has no owner; None if it has one."""
    record = guest.instance
    if record is None:
        if guest.domain is not None or guest.process is not None or guest.server is not None:
            return None
        searched = guest.census.get("nova-db")
        if searched is None:
            raise UnheardError("the nova database was not searched for this UUID")
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
