"""What libvirt would start next, beside what it runs now: the disks of both definitions."""

from __future__ import annotations

from hoodsnap.check import Problem, Problems, check
from hoodsnap.checks.traps import disk_is_copied, migrating, task_in_flight
from hoodsnap.evidence import Severity, says
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.domain.domain import Disk, Domain
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.image import owner_of


@check(Severity.ERROR, traps=[task_in_flight, migrating, disk_is_copied])
def chain_live_vs_persistent(domain: Domain) -> Problems:
    """The guest's next start would use other disks than it runs with.

    libvirt keeps two definitions of a running domain: what runs, and what starts next. Whatever
    changes only one of them (a disk attached by hand, a snapshot that was not noted down, a volume
    that was swapped) leaves the guest with an older or another disk after the next power cycle.

    Authority: libvirt's running definition for where the guest's data are now.

    Traps: a block job that is about to change both; nova's own hard reboot writes the definition
    anew from its database, so that then the block devices that nova knows are what counts.

    Next: `virsh dumpxml NAME` beside `virsh dumpxml --inactive NAME`. Then bring nova's record
    of the disks in order first: what it does not know, a hard reboot drops.

    Not yet: `virsh destroy` and `virsh start`, a shutdown from inside, `openstack server reboot
    --hard` before it is known which disk is the right one.

    Source: OSSA-2020-006 (CVE-2020-17376, nova bug 1890501); nova bug 1713857.
    """
    if domain.id is None or not domain.persistent:
        return
    live = {disk.target: disk for disk in domain.disks}
    stored = {disk.target: disk for disk in domain.inactive_disks}
    for target in dict.fromkeys((*live, *stored)):
        now, then = live.get(target), stored.get(target)
        if not _is_fixed(now or then):
            continue
        if _identity(now) != _identity(then):
            evidence = (
                says(domain, disks=_shown(target, now)),
                says(domain, inactive_disks=_shown(target, then)),
            )
            # A disk that is missing is noticed; another one in its place is not.
            both = now is not None and then is not None
            yield Problem(Severity.ERROR if both else Severity.WARNING, evidence)


def _is_fixed(disk: Disk | None) -> bool:
    """Not a drive whose medium the guest may eject."""
    return disk is not None and disk.device not in ("cdrom", "floppy")


def _identity(disk: Disk | None) -> tuple[str | None, ...] | None:
    return None if disk is None else (disk.source, disk.format, disk.serial)


def _shown(target: str | None, disk: Disk | None) -> str:
    if disk is None:
        return f"no {target}"
    serial = f", serial {disk.serial}" if disk.serial else ""
    return f"{target} is {disk.source or 'empty'} ({disk.format or 'any format'}{serial})"


@check(Severity.ERROR, traps=[task_in_flight, migrating])
def persistent_xml_foreign_devices(guest: Guest, host: Host, domain: Domain) -> Problems:
    """The definition that the guest starts from next names a disk of somebody else.

    A definition outlives what it names: a device path, a volume's connection or a folder may
    belong to another server by the time the guest starts again, and then it reads and writes that
    one's data. It happens after a live migration that kept the source host's devices, and when
    somebody copies a definition.

    Authority: nova's block devices for whose volume it is; libvirt for who runs with a disk now.

    Traps: a volume that is attached to several servers on purpose; a disk that is shareable.

    Next: `virsh dumpxml --inactive NAME`, and `openstack volume show` of the serial. Then let
    nova write the definition anew: `openstack server start` or a hard reboot, once its volumes are
    known to be right.

    Not yet: `virsh start`, a soft reboot, a reboot from inside the guest, libvirt's autostart.

    Source: OSSA-2020-006 (CVE-2020-17376, nova bug 1890501); OSSA-2023-003.
    """
    for disk in domain.inactive_disks:
        if disk.source is None or disk.shareable:
            continue
        evidence = says(domain, inactive_disks=_shown(disk.target, disk))
        folder = owner_of(disk.source)
        if folder not in (None, guest.uuid):
            yield (evidence.and_so(folder_of=folder),)
        elif owners := _others(guest, host, disk):
            yield (evidence.and_so(belongs_to=", ".join(sorted(owners))),)


def _others(guest: Guest, host: Host, disk: Disk) -> frozenset[str]:
    """Whose disk it is, if it is not this guest's."""
    volume = disk.serial
    if volume is not None and volume in host.volume_owners:
        if guest.volume_ids is None:
            raise UnheardError("the instance's block devices were not read")
        return frozenset() if volume in guest.volume_ids else host.volume_owners[volume]
    owners = host.disk_owners.get(disk.source or "", frozenset())
    if volume is not None and owners and guest.volume_ids is None:
        # A server that is off has let go of its devices: nova connects the volumes anew, by the
        # serial number, wherever that leads to then.
        raise UnheardError("the instance's block devices were not read")
    return frozenset() if guest.uuid in owners else owners
