"""What an operation left behind that is over: a shelving, a rescue, a snapshot, a copy."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from hoodsnap.check import Problem, Problems, check
from hoodsnap.checks.legal_states import RUNNING
from hoodsnap.checks.traps import disk_is_copied, job_runs, migrating, task_in_flight
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.api.server import Server
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.domain import BLOCK_JOB, ON, Disk, Domain
from hoodsnap.facts.quantity import whole

HOUR = 3600.0

_OWN_DISK = re.compile(r"/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/disk[^/]*$")
"""The path of a disk that nova itself keeps for a guest."""


@check(Severity.WARNING, traps=[task_in_flight, migrating])
def shelved_or_soft_deleted_residue(
    guest: Guest, host: Host, record: Server | Instance, instance: Instance | None
) -> Problems:
    """The server is shelved or deleted by nova's word, and still takes its place on this host.

    Unshelving makes a new guest of the snapshot, on whatever host: a domain that is left here has
    the same UUID, the same addresses and an older disk. One that runs is an error.

    Authority: nova's record for what is meant; libvirt and the disk images for what is here.

    Traps: shelving goes through `shelved`, with its domain off, before it is offloaded
    (`shelved_offload_time`; -1 is never); a soft-deleted server stays for its time.

    Next: `openstack server event list UUID`, `virsh domstate --reason NAME`, `ls -l` of its folder.
    Then unshelve it somewhere, and see that what is here is not what it was made of.

    Not yet: deleting the shelve snapshot in glance, removing the folder, `virsh undefine`.

    Source: nova compute/manager.py `_shelve_offload_instance`, `_reclaim_queued_deletes`; nova bug
    1732428.
    """
    if record.deleted:
        return
    if record.vm_state == "shelved_offloaded":
        left = [*_left(guest, host)]
        if left:
            runs = guest.domain is not None and guest.domain.state in ON
            severity = Severity.ERROR if runs else Severity.WARNING
            yield Problem(severity, (says(record, vm_state=record.vm_state), *left))
    elif record.vm_state == "soft-delete" and guest.is_here and instance is not None:
        yield from _overdue(host, instance)


def _left(guest: Guest, host: Host) -> Iterator[Evidence]:
    if guest.domain is not None:
        yield says(guest.domain, state=guest.domain.state_words)
    for folder in host.images.folders.get(guest.uuid, ()):
        if "images" in guest.census:
            yield hears(guest.census["images"], "images", folder.path, folder=folder.path)


def _overdue(host: Host, instance: Instance) -> Iterator[tuple[Evidence, ...]]:
    """A soft deletion whose time is over: nova-compute looks every minute."""
    interval = whole(host.option("DEFAULT", "reclaim_instance_interval", "0"))
    since, asked = moment(instance.deleted_at), instance.said["row"].at
    if not interval or since is None:
        return  # 0: who switched it on in the API alone keeps them for ever
    conf = host.bundle.last("host", "/etc/nova/nova.conf", host.name)
    if conf is not None and (asked - since).total_seconds() > interval + HOUR:
        place = "DEFAULT.reclaim_instance_interval"
        yield (
            says(instance, vm_state=instance.vm_state, deleted_at=instance.deleted_at),
            hears(conf, "nova.conf", place, reclaim_instance_interval=interval),
        )


@check(Severity.WARNING, traps=[task_in_flight, migrating])
def rescue_residue(guest: Guest, host: Host, record: Server | Instance, domain: Domain) -> Problems:
    """A rescue is over and its disk is still there, or the server is rescued only on paper.

    Rescuing defines the domain anew with another root disk, and unrescuing with the old one. Where
    that broke off in between, the guest boots from the wrong one of the two.

    Authority: libvirt for the disk that it boots from.

    Traps: a rescue in flight; the rescue disk is the first one, or with a stable device rescue
    (Ussuri and later) an additional one, on any bus.

    Next: `virsh domblklist --details NAME`, `openstack server event list UUID`, `ls -l` of its
    folder. Then `openstack server unrescue UUID`, if nova has it as rescued.

    Not yet: removing disk.rescue while a guest runs on it; `openstack server reboot --hard` before
    its root disk is known to be whole.

    Source: nova virt/libvirt/driver.py `rescue`, `unrescue`; nova user guide, rescue.
    """
    if not guest.is_here or record.deleted:
        return
    disks = [disk for disk in domain.current.disks if _is_rescue(disk)]
    if record.vm_state == "rescued":
        if not disks and domain.state in RUNNING:
            yield (
                says(record, vm_state=record.vm_state),
                says(domain, state=domain.state_words, disks=_shown(domain.current.disks)),
            )
    elif disks:
        yield says(record, vm_state=record.vm_state), says(domain, disks=_shown(tuple(disks)))
    else:
        yield from _rescue_files(guest, host, record)


def _is_rescue(disk: Disk) -> bool:
    return (disk.source or "").endswith("disk.rescue")


def _rescue_files(
    guest: Guest, host: Host, record: Server | Instance
) -> Iterator[tuple[Evidence, ...]]:
    listing = guest.census.get("images")
    found = [
        name
        for name in ("disk.rescue", "disk.config.rescue", "unrescue.xml")
        if listing is not None and host.images.size_of(guest.uuid, name) is not None
    ]
    if found and listing is not None:
        yield (
            says(record, vm_state=record.vm_state),
            hears(listing, "images", guest.uuid, files=", ".join(found)),
        )


def _shown(disks: tuple[Disk, ...]) -> str:
    return ", ".join(f"{disk.target}: {disk.source}" for disk in disks)


@check(Severity.ERROR, traps=[task_in_flight, migrating, job_runs, disk_is_copied])
def domain_transient(guest: Guest, record: Server | Instance, domain: Domain) -> Problems:
    """The guest runs, and libvirt will forget it as soon as it ends.

    nova takes the stored definition away while it copies a disk (a live snapshot, another volume
    in the place of one) and puts it back afterwards. If nova-compute is killed in between, or
    somebody typed `virsh undefine`, the domain is gone at the guest's next shutdown, and nova can't
    find it.

    Authority: libvirt.

    Traps: a snapshot in flight, a copy that runs, the destination of a live migration.

    Next: `virsh dominfo NAME` (Persistent), `virsh domblklist NAME`, `virsh dumpxml
    --security-info NAME` into a file that only root can read. Then, if no disk is being copied,
    `openstack server reboot --hard` defines it again when its owner can spare it.

    Not yet: shutting it down; `virsh define` while a disk is being copied: it would name the wrong
    one.

    Source: nova virt/libvirt/driver.py `_live_snapshot`, `_swap_volume`,
    `_delete_guest_configuration`.
    """
    if guest.is_here and not record.deleted and domain.state in ON and not domain.persistent:
        yield (
            says(record, vm_state=record.vm_state),
            says(domain, state=domain.state_words, persistent=domain.persistent),
        )


@check(Severity.WARNING, traps=[task_in_flight, migrating])
def snapshot_or_blockjob_residue(
    guest: Guest, record: Server | Instance, domain: Domain
) -> Problems:
    """A snapshot, or a copy of a disk, was begun behind nova's back or never ended.

    After an external snapshot the guest writes to a file that nova does not know: the next hard
    reboot goes back to the old one, and all that was written since is lost (an error). A record of
    a snapshot keeps libvirt from removing the domain. A copy that is never ended fills the storage.

    Authority: libvirt, and QEMU for what it has open.

    Traps: nova works at it (a snapshot, another volume in the place of one: of a volume this is
    only a note); backup software copies disks, which is a note, and leaves checkpoints, which are
    not meant.

    Next: `virsh domblklist NAME`, `virsh snapshot-list NAME`, `virsh blockjob NAME DISK --info`,
    `openstack server event list UUID`; find out who made it. Then `virsh blockjob NAME DISK
    --abort` ends a copy and keeps the disk as it is.

    Not yet: `virsh blockjob --pivot`, `virsh blockcommit`, removing any file that QEMU has open,
    `openstack server reboot --hard`, a snapshot by nova (it ends any job that runs).

    Source: nova virt/libvirt/driver.py `_live_snapshot`, `_swap_volume` (`abort_job`); nova bugs
    2119353, 1885528, 1943431.
    """
    if not guest.is_here or record.deleted:
        return
    for disk in domain.current.disks:
        # Of nova's own disks each has one base below it, or none.
        if disk.backing is not None and len(disk.backing) > 1 and _is_own(disk):
            yield Problem(Severity.ERROR, (says(domain, disks=_chain(disk)),))
    for target, job in domain.block_jobs.items():
        legal = job.startswith("backup") or _is_volume(domain, target)
        severity = Severity.NOTE if legal else Severity.WARNING
        answer = domain.said[BLOCK_JOB + target]
        yield Problem(severity, (hears(answer, "domain", target, **{f"job_of_{target}": job}),))
    if domain.snapshots:
        yield (says(domain, snapshots=", ".join(domain.snapshots)),)


def _is_own(disk: Disk) -> bool:
    below = [image.source or "" for image in disk.backing or ()]
    return any(_OWN_DISK.search(path) for path in (disk.source or "", *below))


def _is_volume(domain: Domain, target: str) -> bool:
    """Whether it is a volume's: nova writes that one's UUID into its serial number."""
    return any(disk.target == target and disk.serial for disk in domain.current.disks)


def _chain(disk: Disk) -> str:
    names = [disk.source, *(image.source for image in disk.backing or ())]
    return f"{disk.target}: " + " → ".join(posixpath.basename(name or "?") for name in names)
