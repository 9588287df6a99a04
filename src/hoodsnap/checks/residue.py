"""Leftovers of finished operations: shelving, rescue, snapshot, copy."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from functools import partial

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.traps import disk_is_copied, job_runs, migrating, task_in_flight
from hoodsnap.evidence import Evidence, Severity, derives, hears, says
from hoodsnap.facts.api.server import Server
from hoodsnap.facts.clock import moment, since_written
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.disk import Disk
from hoodsnap.facts.domain.domain import BLOCK_JOB, Domain
from hoodsnap.facts.domain.state import EXECUTING, ON, DomainState
from hoodsnap.facts.fact import UnheardError, known
from hoodsnap.facts.quantity import whole
from hoodsnap.facts.uuids import UUID
from hoodsnap.phrase import lasting, place, several

HOUR = 3600.0

DAY = 86_400.0
"""Seconds after which a soft deletion that nothing ends is reported: until then, it may be new."""

UNRESCUE = "unrescue.xml"
"""File in a server's folder: the domain's definition before the rescue, by which nova ends it."""

_OWN_DISK = re.compile(rf"/{UUID.pattern}/disk[^/]*$")
"""Path of a disk in a guest's folder, managed by nova."""


@check(Severity.WARNING, traps=[task_in_flight, migrating])
def shelved_or_soft_deleted_residue(
    guest: Guest, host: Host, record: Server | Instance, instance: Instance | None
) -> Problems:
    """The server is shelved or soft-deleted in nova, but still occupies this host.

    A soft-deleted server keeps its disk, volumes, ports and allocation; a shelved one exists as a
    snapshot, from which unshelving creates a new guest on any host. A domain that is left of a
    shelved server has the same UUID, the same addresses and an older disk; one that still runs is
    an error. nova-compute deletes a soft-deleted server after `reclaim_instance_interval`, an
    option of its own nova.conf. At 0, the default, it never does (a note): only nova-api has, or
    had, the option.

    Authority: nova's record, for what should be; libvirt and the disk images, for what is here.

    Traps: Before a server is offloaded it is `shelved`, with its domain off
    (`shelved_offload_time`; -1 means never). A soft-deleted server stays for its configured time,
    or for a day where none is configured.

    Next: Check the server's history, and what is on this host:

        openstack server event list UUID
        virsh domstate --reason NAME
        ls -l INSTANCES_PATH/UUID

    If the server is shelved, leave its remains alone until it was unshelved and its owner has
    confirmed that its data are complete: the remains may be the only copy.

    If nova-compute should have deleted a soft-deleted server, find out in its log why it did not.

    If its owner needs a soft-deleted server, restore it, which starts its guest:

        openstack server restore SOFT_DELETED

    If its owner confirms that nobody needs it, delete it, which can't be undone:

        openstack server delete --force SOFT_DELETED

    It worked if the server is ACTIVE, or if nova does not find it:

        openstack server show SOFT_DELETED -c status

    Not yet: Do not delete the shelve snapshot in glance. Do not remove the folder. Do not run
    `virsh undefine`. Do not set `reclaim_instance_interval` on the host before the owners of all
    soft-deleted servers were asked: nova-compute then deletes each one that is older.

    Source: nova compute/manager.py `_shelve_offload_instance`, `_reclaim_queued_deletes`; nova bug
    1732428.
    """
    if record.deleted:
        return
    if record.vm_state == "shelved_offloaded":
        left = [*_left(guest, host)]
        if left:
            runs = guest.domain is not None and guest.domain.state in ON
            kept = [f"its domain, {guest.domain.state_words}"] if guest.domain is not None else []
            kept += ["its folder"] if len(left) > len(kept) else []
            yield problem(
                f"{guest.title} is {record.vm_state} in nova, but host {host.name} still has "
                f"{several(kept)}",
                says(record, vm_state=record.vm_state),
                *left,
                severity=Severity.ERROR if runs else Severity.WARNING,
                SOFT_DELETED="",
            )
    elif record.vm_state == "soft-delete" and guest.is_here and instance is not None:
        yield from _overdue(guest, host, instance)


def _left(guest: Guest, host: Host) -> Iterator[Evidence]:
    if guest.domain is not None:
        yield says(guest.domain, state=guest.domain.state_words)
    for folder in host.images.folders.get(guest.uuid, ()):
        if "images" in guest.census:
            yield hears(guest.census["images"], "images", folder.path, folder=folder.path)


def _overdue(guest: Guest, host: Host, instance: Instance) -> Iterator[Problem]:
    """Report a soft deletion that is overdue, or that nova-compute never completes.

    nova-compute looks every minute for servers that were soft-deleted long enough ago.
    """
    interval = whole(host.option("DEFAULT", "reclaim_instance_interval", "0"))
    since, asked = moment(instance.deleted_at), instance.said["row"].at
    conf = host.bundle.last("host", "/etc/nova/nova.conf", host.name)
    if interval is None or since is None or conf is None:
        return
    never = interval <= 0
    if (asked - since).total_seconds() <= (DAY if never else interval + HOUR):
        return
    late = f"should have reclaimed it after {lasting(interval)}"
    yield problem(
        f"{guest.title} has been soft-deleted{since_written(instance.deleted_at, asked)}, but "
        f"host {host.name} {'never reclaims such servers' if never else late}",
        says(instance, vm_state=instance.vm_state, deleted_at=instance.deleted_at),
        hears(
            conf,
            host.file_name_of("DEFAULT", "reclaim_instance_interval"),
            "DEFAULT.reclaim_instance_interval",
            reclaim_instance_interval=interval,
        ),
        severity=Severity.NOTE if never else Severity.WARNING,
        SOFT_DELETED=guest.uuid,
    )


@check(Severity.WARNING, traps=[task_in_flight, migrating])
def rescue_residue(guest: Guest, host: Host, record: Server | Instance, domain: Domain) -> Problems:
    """A rescue ended but its disk is still here, only nova has it, or it can't be ended.

    Rescuing defines the domain again with another root disk, and keeps the original definition in
    `unrescue.xml`. Unrescuing defines the domain from that file. If either stops half way, the
    guest boots from the wrong disk. Without the file, unrescuing fails and the guest stays on the
    rescue disk (an error).

    Authority: libvirt, for the disk that the guest boots from.

    Traps: A rescue in flight. The rescue disk is the first disk, or with a stable device rescue
    (Ussuri and later) an additional disk on any bus.

    Next: Check the disks, the server's history and the files in its folder:

        virsh domblklist --details NAME
        openstack server event list UUID
        ls -l INSTANCES_PATH/UUID

    Check that the root disk is intact: it has its backing file, and no error is reported:

        qemu-img info -U --backing-chain -f FORMAT INSTANCES_PATH/UUID/disk

    Then, if nova has the server in rescue and its folder has unrescue.xml, end the rescue, which
    reboots the guest from its own root disk:

        openstack server unrescue RESCUED

    If its folder has no unrescue.xml and the domain boots from its own disk, correct nova's record,
    which changes nothing for the guest:

        openstack server set --state active UNRESCUED

    If the domain boots from disk.rescue, and its folder has no unrescue.xml or nova does not have
    the server in rescue, correct nova's record (nova reboots no server that is in rescue), and
    reboot the server hard at a time that suits its owner. The reboot ends the rescue system and
    boots the guest from its own root disk:

        openstack server set --state active STRANDED
        openstack server reboot --hard STRANDED

    Once the rescue is over, and the domain has no disk whose name ends in `.rescue`, remove what
    the rescue left:

        rm -f INSTANCES_PATH/RESCUED_BEFORE/disk.rescue
        rm -f INSTANCES_PATH/RESCUED_BEFORE/disk.config.rescue
        rm -f INSTANCES_PATH/RESCUED_BEFORE/unrescue.xml

    It worked if nova reports the server as ACTIVE, and the domain boots from its own disk:

        openstack server show UUID -c status
        virsh domblklist --details NAME

    Not yet: Do not remove disk.rescue while a guest runs on it. Do not reboot the server hard
    before the root disk is confirmed to be intact. Do not end the rescue through nova while
    unrescue.xml is missing: it fails, and leaves the server in error.

    Source: nova virt/libvirt/driver.py `rescue`, `unrescue`; nova user guide, rescue.
    """
    if not guest.is_here or record.deleted:
        return
    disks = [disk for disk in domain.current.disks if _is_rescue(disk)]
    if record.vm_state == "rescued":
        if not disks and domain.state in EXECUTING:
            first = next(iter(domain.current.disks), None)
            boots = f" from {place(first.source or '')}" if first is not None else ""
            kept = known(lambda: host.images.size_of(guest.uuid, UNRESCUE))
            yield problem(
                f"{guest.title} is rescued in nova, but its domain is {domain.state_words}{boots}",
                says(record, vm_state=record.vm_state),
                says(domain, state=domain.state_words, disks=_shown(domain.current.disks)),
                FORMAT=first.image.format if first is not None else None,
                STRANDED="",
                RESCUED=guest.uuid if kept else "",
                UNRESCUED="" if kept else guest.uuid,
                RESCUED_BEFORE="",
            )
        else:
            yield from _without_return(guest, host, record, domain)
    elif disks:
        yield problem(
            f"{guest.title} is {record.vm_state} in nova, but its disk {disks[0].target} is "
            f"{place(disks[0].source or '')}",
            says(record, vm_state=record.vm_state),
            says(domain, disks=_shown(tuple(disks))),
            STRANDED=guest.uuid,
            RESCUED="",
            UNRESCUED="",
            RESCUED_BEFORE=guest.uuid,
        )
    else:
        yield from _rescue_files(guest, host, record)


def _is_rescue(disk: Disk) -> bool:
    return (disk.source or "").endswith("disk.rescue")


def _without_return(
    guest: Guest, host: Host, record: Server | Instance, domain: Domain
) -> Iterator[Problem]:
    """Report a rescue whose `unrescue.xml` is missing or empty, so that nova can't end it.

    The folder must be listed: server-without-disk reports a server without a folder.
    """
    listing = guest.census.get("images")
    if listing is None:
        raise UnheardError(guest.unheard.get("images", "the server's folder was not collected"))
    own = [folder for folder in host.images.folders.get(guest.uuid, ()) if not folder.suffix]
    if not own:
        return
    size = host.images.size_of(guest.uuid, UNRESCUE)
    if not size:
        found = "missing" if size is None else "empty"
        yield problem(
            f"{guest.title} is rescued, but {place(f'{own[0].path}/{UNRESCUE}')}, by which nova "
            f"ends the rescue, is {found}",
            says(record, vm_state=record.vm_state),
            says(domain, state=domain.state_words, disks=_shown(domain.current.disks)),
            hears(listing, "images", f"{guest.uuid}/{UNRESCUE}", unrescue=found),
            severity=Severity.ERROR,
            FORMAT=known(lambda: _format_of(guest)),
            STRANDED=guest.uuid,
            RESCUED="",
            UNRESCUED="",
            RESCUED_BEFORE=guest.uuid,
        )


def _format_of(guest: Guest) -> str | None:
    """Return the format of the guest's own root disk, which a rescued domain may not have."""
    images = [it for it in guest.images or () if it.path.endswith("/disk")]
    return images[0].declared if images else None


def _rescue_files(guest: Guest, host: Host, record: Server | Instance) -> Iterator[Problem]:
    listing = guest.census.get("images")
    found = [
        name
        for name in ("disk.rescue", "disk.config.rescue", UNRESCUE)
        if listing is not None and host.images.size_of(guest.uuid, name) is not None
    ]
    if found and listing is not None:
        yield problem(
            f"{guest.title} is {record.vm_state} in nova, but its folder still has "
            f"{several(found)}",
            says(record, vm_state=record.vm_state),
            hears(listing, "images", guest.uuid, files=", ".join(found)),
            STRANDED="",
            RESCUED="",
            UNRESCUED="",
            RESCUED_BEFORE=guest.uuid,
        )


def _shown(disks: tuple[Disk, ...]) -> str:
    return ", ".join(f"{disk.target}: {disk.source}" for disk in disks)


@check(Severity.ERROR, traps=[task_in_flight, migrating, job_runs, disk_is_copied])
def domain_transient(guest: Guest, record: Server | Instance, domain: Domain) -> Problems:
    """The guest runs, but libvirt will forget its domain as soon as it stops.

    nova removes the stored definition while it copies a disk (a live snapshot, replacing a volume)
    and restores it afterwards. If nova-compute is killed in between, or after a manual `virsh
    undefine`, the domain disappears when the guest next shuts down, and nova cannot find it.

    Authority: libvirt.

    Traps: A snapshot in flight, a copy in progress, the destination of a live migration.

    Next: Check the Persistent line and the disks:

        virsh dominfo NAME
        virsh domblklist NAME

    Check that no disk is being copied, and that the server's volumes and ports are right:

        virsh domblkinfo NAME --all
        virsh blockjob NAME TARGET --info
        openstack server volume list UUID
        openstack port list --server UUID

    Save the definition to a file that only root can read:

        (umask 077; virsh dumpxml --security-info NAME > /root/NAME.xml)

    Then reboot the server hard at a time that suits its owner, which ends the guest, defines the
    domain again from nova's records and boots it:

        openstack server reboot --hard UUID

    It worked if the Persistent line shows `yes`:

        virsh dominfo NAME

    Not yet: Do not shut the guest down from inside or with `virsh shutdown`. Do not run `virsh
    define` while a disk is being copied, because it would name the wrong disk.

    Source: nova virt/libvirt/driver.py `_live_snapshot`, `_swap_volume`,
    `_delete_guest_configuration`.
    """
    if guest.is_here and not record.deleted and domain.state in ON and not domain.persistent:
        on = f" on host {guest.host.name}" if guest.host is not None else ""
        disk = known(lambda: next(disk.target for disk in domain.disks if disk.source))
        yield problem(
            f"{guest.title} is {domain.state_words}{on}, but libvirt stores no definition of it",
            says(record, vm_state=record.vm_state),
            says(domain, state=domain.state_words, persistent=domain.persistent),
            TARGET=disk,
        )


@check(Severity.WARNING, traps=[task_in_flight, migrating])
def snapshot_or_blockjob_residue(
    guest: Guest, record: Server | Instance, domain: Domain
) -> Problems:
    """A snapshot or disk copy was started outside nova, or was never finished.

    After an external snapshot, the guest writes to a file that nova does not know. The next hard
    reboot goes back to the old file, and everything written since is lost (an error). A snapshot's
    metadata keeps libvirt from removing the domain. A snapshot inside a disk's file takes space,
    and a resize or migration loses it. A copy that never ends fills the storage. So does a backup
    whose program died: QEMU saves in a file what the guest overwrites.

    Authority: libvirt; QEMU, for the files that it has open.

    Traps: nova itself runs a snapshot or replaces a volume (for a volume this is only a note).
    Backup software copies disks, which is a note; another check reports its checkpoints.

    Next: Check the disks, snapshots and copies, and find out what started them:

        virsh domblklist NAME
        virsh snapshot-list NAME
        virsh blockjob NAME TARGET --info
        openstack server event list UUID

    Find the person or program that started it, and let them end it. After an external snapshot,
    save the guest's data first, from inside the guest.

    Then, if nobody needs a copy that is in progress, end the copy, which keeps the disk as it is:

        virsh blockjob NAME COPIED --abort

    If nobody needs a backup that is in progress, end it:

        virsh backup-dumpxml BACKED_UP
        virsh domjobabort BACKED_UP

    If nobody needs a snapshot in libvirt's list, make libvirt forget it, which keeps the disk as it
    is, with the snapshot's data in it:

        virsh snapshot-delete NAME SNAPSHOT --metadata

    If a disk has snapshots inside its file (`qemu-img snapshot -c`, a note), list them:

        qemu-img info -U HOLDER

    If nobody needs one, and only while the guest is off, delete it from the file:

        qemu-img snapshot -d INSIDE HOLDER

    It worked if the disk has no job, and the list has no such snapshot:

        virsh blockjob NAME TARGET --info
        virsh snapshot-list NAME

    Not yet: Do not run `virsh blockjob --pivot`, `virsh blockcommit` or `openstack server reboot
    --hard`. Do not remove any file that QEMU has open. Do not let nova take a snapshot: it ends any
    running job.

    Source: nova virt/libvirt/driver.py `_live_snapshot`, `_swap_volume` (`abort_job`); nova bugs
    2119353, 1885528, 1943431.
    """
    if not guest.is_here or record.deleted:
        return
    for disk in domain.current.disks:
        # nova's own disks have at most one backing file.
        if disk.backing is not None and len(disk.backing) > 1 and _is_own(disk):
            new, *below = _names(disk)
            yield problem(
                f"{guest.title}'s disk {disk.target} is {new} on top of {below[0]}: a snapshot "
                "that nova does not know",
                says(domain, disks=f"{disk.target}: {' → '.join((new, *below))}"),
                severity=Severity.ERROR,
                TARGET=disk.target,
                COPIED="",
                BACKED_UP="",
                SNAPSHOT="",
                INSIDE="",
                HOLDER="",
            )
    for target, job in domain.block_jobs.items():
        legal = job.startswith("backup") or _is_volume(domain, target)
        severity = Severity.NOTE if legal else Severity.WARNING
        answer = domain.said[BLOCK_JOB + target]
        copy = next((it.copied_to for it in domain.current.disks if it.target == target), None)
        to = f" to {place(copy)}" if copy is not None else ""
        yield problem(
            f"{guest.title}'s disk {target} has a running job that nova did not start: {job}{to}",
            hears(answer, "domain", target, **{f"job_of_{target}": job}),
            *([derives(domain, "disks", copied_to=copy)] if copy is not None else []),
            severity=severity,
            TARGET=target,
            COPIED="" if job.startswith("backup") else target,
            BACKED_UP=domain.name if job.startswith("backup") else "",
            SNAPSHOT="",
            INSIDE="",
            HOLDER="",
        )
    if domain.snapshots:
        first = next((disk.target for disk in domain.current.disks if disk.source), None)
        yield problem(
            f"{guest.title} has snapshots that nova does not know: {several(domain.snapshots)}",
            says(domain, snapshots=", ".join(domain.snapshots)),
            TARGET=first,
            COPIED="",
            BACKED_UP="",
            SNAPSHOT=domain.snapshots[0],
            INSIDE="",
            HOLDER="",
        )
    yield from _inside(guest, domain)


def _inside(guest: Guest, domain: Domain) -> Iterator[Problem]:
    """Yield each own disk with snapshots inside its file that libvirt has no record of."""
    listed = known(lambda: domain.snapshots)
    if listed is None:
        return
    for image in guest.images or ():
        names = known(partial(getattr, image, "snapshots")) or ()
        unknown = [name for name in names if name not in listed]
        if unknown and _OWN_DISK.search(image.path):
            yield problem(
                f"{guest.title}'s disk {place(image.path)} has snapshots inside its file that "
                f"neither nova nor libvirt knows: {several(unknown)}",
                says(image, path=image.path, snapshots=", ".join(unknown)),
                says(domain, snapshots=", ".join(listed) or "none"),
                severity=Severity.NOTE,
                TARGET=next(
                    (it.target for it in domain.definition.disks if it.source == image.path), None
                ),
                COPIED="",
                BACKED_UP="",
                SNAPSHOT="",
                INSIDE=unknown[0] if domain.state == DomainState.SHUTOFF else "",
                HOLDER=image.path,
            )


def _is_own(disk: Disk) -> bool:
    below = [image.source or "" for image in disk.backing or ()]
    return any(_OWN_DISK.search(path) for path in (disk.source or "", *below))


def _is_volume(domain: Domain, target: str) -> bool:
    """True if the disk is a volume: nova writes the volume's UUID into its serial number."""
    return any(disk.target == target and disk.serial for disk in domain.current.disks)


def _names(disk: Disk) -> list[str]:
    """Return the file names of a disk's chain, the file that the guest writes to first."""
    paths = [disk.source, *(image.source for image in disk.backing or ())]
    return [posixpath.basename(path or "?") for path in paths]
