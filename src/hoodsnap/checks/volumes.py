"""A volume has one owner, and its guest's disk is that volume, as large as it was sold."""

from __future__ import annotations

from collections.abc import Iterator

from hoodsnap.check import Problem, Problems, check
from hoodsnap.checks.traps import building, migrating, task_in_flight, volume_moving
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.api.volume import Volume
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.cloud.volume_owners import VolumeOwners, is_own, volume_in, volume_of
from hoodsnap.facts.database.block_device_mapping import BlockDeviceMapping
from hoodsnap.facts.domain.domain import Disk, Domain
from hoodsnap.facts.fact import UnheardError, value_of
from hoodsnap.facts.host.device import Device

FREE = frozenset(["available", "error", "deleting", "error_deleting"])
"""The statuses in which cinder believes that nobody has the volume."""

HEADER = 32 << 20
"""Bytes of a volume that the header of its encryption may take: LUKS2 takes 16 MiB."""


@check(Severity.ERROR, heard=["cinder"], traps=[task_in_flight, migrating, volume_moving])
def volume_attached_twice(guest: Guest, volumes: tuple[Volume, ...]) -> Problems:
    """Two servers have one volume, and it is not made for that.

    Both write to it, neither knows of the other, and the file system breaks. Two rows in nova, two
    attachments in cinder, or a guest that nobody switched off: any of them is one too many.

    Authority: what runs: libvirt and the kernel tell who has it open.

    Traps: volumes with multiattach; a migration has two attachments of one server; cinder moving
    the volume.

    Next: `cinder attachment-list --all-tenants --volume-id VOLUME`, and see which QEMU writes
    (`virsh domblkstat NAME`). Then detach it inside and from the other guest.

    Not yet: `cinder reset-state --attach-status detached`, which lets cinder attach it a third
    time; deleting the attachment that is in use; fsck while two write.

    Source: nova bugs 1937375, 1943431, 2048837; cinder's documentation of multiattach.
    """
    for volume in volumes:
        owners = _owners(guest.storage, volume)
        if len(owners) > 1 and guest.uuid in owners and not volume.multiattach:
            told = says(volume, id=volume.id, status=volume.status, multiattach=False)
            yield told, *(one for evidence in owners.values() for one in evidence)
    guest.storage.require_all()


def _owners(storage: VolumeOwners, volume: Volume) -> dict[str, list[Evidence]]:
    """Who has a volume by anybody's word, each with whose."""
    found: dict[str, list[Evidence]] = {}
    for mapping in storage.mapped(volume.id):
        told = says(mapping, instance_uuid=mapping.instance_uuid, volume_id=volume.id)
        found.setdefault(mapping.instance_uuid, []).append(told)
    for attachment in storage.volumes.by_volume.get(volume.id, ()):
        owner = attachment.instance
        # Of one that was deleted bdm-alive-for-deleted-instance speaks; if it runs, libvirt does.
        if owner and attachment.status == "attached" and not storage.is_deleted(owner):
            told = says(attachment, id=attachment.id, status="attached", instance=owner)
            found.setdefault(owner, []).append(told)
    for plugged in storage.plugged(volume.id):
        told = says(plugged.domain, uuid=plugged.domain.uuid).and_so(volume=volume.id)
        found.setdefault(plugged.domain.uuid, []).append(told)
    return found


@check(Severity.ERROR, heard=["cinder"], traps=[task_in_flight, building, migrating, volume_moving])
def volume_free_in_cinder_but_open(guest: Guest, domain: Domain) -> Problems:
    """A running guest has a volume that cinder believes to be free, or gone.

    cinder lets anybody delete, attach or overwrite it, under the guest that writes to it.

    Authority: libvirt and the kernel: the volume is in use.

    Traps: detaching; a tenant's credentials, with which other projects' volumes are 404; one in the
    status `error` that is still attached is kept (a warning).

    Next: `openstack volume show VOLUME` and `virsh domblklist --details NAME`. Then, with the
    server stopped, `nova-manage volume_attachment refresh` (Xena and later), or detach and attach
    it.

    Not yet: `openstack volume delete`, `openstack server add volume` to another server, `cinder
    reset-state`, snapshots or an extension of it.

    Source: sapcc/openstack-nannies nova-consistency.py, cinder-consistency; nova bugs 2012365,
    1780973; nova cmd/manage.py VolumeAttachmentCommands.
    """
    if domain.id is None:
        return
    for disk in domain.disks:
        named = volume_of(disk)
        if named is None or is_own(guest.uuid, domain, disk):
            continue
        volume = guest.storage.volumes.volume(named)
        plugged = _plugged(domain, disk)
        if volume is not None and volume.status in FREE:
            told = says(volume, id=named, status=volume.status)
            held = volume.status == "error" and _is_attached(guest, named)
            yield Problem(Severity.WARNING if held else Severity.ERROR, (plugged, told))
        elif volume is None and _is_cinders(guest.storage, named, disk):
            yield plugged, hears(guest.storage.volumes.absent[named], "cinder", volume=None)


def _is_attached(guest: Guest, volume: str) -> bool:
    """Whether cinder has it attached to this guest after all: it deletes no such volume."""
    try:
        attachments = guest.storage.volumes.by_volume.get(volume, ())
        return any(it.instance == guest.uuid and it.status == "attached" for it in attachments)
    except UnheardError:
        return False


def _is_cinders(storage: VolumeOwners, volume: str, disk: Disk) -> bool:
    """Whether it was ever a volume: a disk that somebody plugged in may have any serial number."""
    return bool(storage.mapped(volume)) or volume_in(disk.source) == volume


@check(Severity.ERROR, traps=[task_in_flight, building, migrating, volume_moving])
def volume_device_wrong_lun(guest: Guest, host: Host, domain: Domain) -> Problems:
    """The guest's disk is another volume than the one it is said to be.

    The storage gave a LUN's number to another volume while the host still knew the old one under
    it, or a file was taken for another. The guest reads and overwrites somebody else's data: this
    is a breach between tenants, too.

    Authority: the host's block devices, and what the storage itself calls each LUN.

    Traps: multipath names are the host's own; what cinder moved keeps its old name; a guest that is
    off has no device.

    Next: `lsblk -O -J`, `multipath -ll -v3`, `sg_inq -p 0x83` of each path, and keep what they
    print. Then stop the writing (`virsh suspend NAME`) until it is proven whose data it is.

    Not yet: `virsh resume`, `multipath -F`, rescan-scsi-bus -r, detaching by force.

    Source: OSSA-2023-003 (CVE-2023-2088), nova bug 2004555; os-brick; gorka.eguileor.com "iSCSI
    multipath".
    """
    if domain.id is None:
        return
    seen: dict[str, Disk] = {}
    for disk, device in _devices_of(host, domain):
        plugged = _plugged(domain, disk)
        if (other := seen.setdefault(device.number, disk)) is not disk:
            number = says(device, name=device.name, number=device.number)
            yield plugged, _plugged(domain, other), number
        disks = [host.devices.by_name[name] for name in sorted(host.devices.below(device))]
        if len({below.wwn for below in disks} - {None}) > 1 and _has_map(host, device):
            yield plugged, *(says(below, kname=below.kname, wwn=below.wwn) for below in disks)
    if guest.instance is not None:
        yield from _not_as_mapped(guest, host, domain, guest.instance.mappings)


def _devices_of(host: Host, domain: Domain) -> Iterator[tuple[Disk, Device]]:
    """The disks that are volumes and block devices of the host."""
    for disk in domain.disks:
        if disk.image.type == "block" and disk.source is not None and volume_of(disk) is not None:
            device = host.devices.find(disk.source)
            if device is not None:
                yield disk, device


def _plugged(domain: Domain, disk: Disk) -> Evidence:
    return says(domain, disks=f"{disk.target} {disk.source}").and_so(volume=volume_of(disk))


def _not_as_mapped(
    guest: Guest, host: Host, domain: Domain, mappings: tuple[BlockDeviceMapping, ...]
) -> Iterator[tuple[Evidence, ...]]:
    """What is at the place of a volume, and not the volume that nova has there."""
    by_volume = {row.volume_id: row for row in mappings}
    for disk in domain.disks:
        named, named_so = volume_of(disk), volume_in(disk.source)
        # Of a volume that nova swapped, the disk may show the old one's number: that row is there.
        if named is None or named_so in (None, named) or named_so in by_volume:
            continue
        row = by_volume.get(named)
        if row is None or row.connection is None or volume_in(row.connection.name) == named_so:
            continue
        volume = guest.storage.volumes.volume(named)
        if volume is not None and volume.name_id != named_so:
            yield _plugged(domain, disk), says(volume, id=named, name_id=volume.name_id)
    for disk, device in _devices_of(host, domain):
        row = by_volume.get(volume_of(disk))
        if row is None or row.connection is None or not row.connection.targets:
            continue
        disks = host.devices.below(device)
        places = row.connection.targets
        expected = {name for place in places for name in host.devices.reached(*place)}
        if expected and not expected & disks:
            target = ", ".join(f"{name} LUN {lun}" for name, lun in sorted(places))
            told = says(row, volume_id=row.volume_id, connection_info=target)
            shown = says(device, name=device.name, number=device.number)
            yield (
                _plugged(domain, disk),
                told.and_so(is_here=_listed(expected)),
                shown.and_so(made_of=_listed(disks)),
            )


def _listed(names: frozenset[str] | set[str]) -> str:
    return ", ".join(sorted(names))


def _has_map(host: Host, device: Device) -> bool:
    """Whether a multipath map stands in what a device is made of."""
    if device.type == "mpath":
        return True
    return any(
        above.type == "mpath"
        for name in host.devices.below(device)
        if name in host.devices.by_name
        for above in host.devices.above(host.devices.by_name[name])
    )


@check(Severity.ERROR, heard=["cinder"], traps=[task_in_flight, building, migrating, volume_moving])
def volume_size_mismatch(guest: Guest, domain: Domain) -> Problems:
    """A volume is not as large on this host as cinder sold it.

    Where it is smaller, the guest was promised space that is not there, and a write behind the end
    fails: an extension that did not arrive on the host, or a file that was cut off. Where a file is
    larger by a gibibyte or more (a note), cinder's record is old.

    Authority: the host's device or file.

    Traps: an extension that is under way; the header of an encrypted volume; block
    storage that rounds up.

    Next: `openstack volume show VOLUME -c size` beside `qemu-img info -U` or `lsblk -b` of what
    `virsh domblklist NAME` shows. Then `openstack volume set --size`, which extends it again, or a
    rescan of this one device.

    Not yet: `rbd resize --allow-shrink`, `qemu-img resize`, `openstack server reboot --hard` before
    the device has its size.

    Source: nova bug 1558880, `extend_volume`; cinder's documentation of extending a volume in use.
    """
    for disk in domain.disks if domain.id is not None else ():
        named = volume_of(disk)
        if named is None or is_own(guest.uuid, domain, disk):
            continue
        volume = guest.storage.volumes.by_id.get(named)
        measured = _measured(guest, disk)
        if volume is None or volume.size_gib is None or measured is None:
            continue
        size, evidence = measured
        sold = volume.size_gib << 30
        least = sold - HEADER if volume.encrypted else sold
        rounded = disk.image.type == "block"  # some storage has no smaller pieces than 8 GiB
        if size < least or (size >= sold + (1 << 30) and not rounded):
            severity = Severity.ERROR if size < least else Severity.NOTE
            told = says(volume, id=named, size_gib=volume.size_gib)
            yield Problem(severity, (told, evidence))


def _measured(guest: Guest, disk: Disk) -> tuple[int, Evidence] | None:
    """How many bytes a disk has on its host, and who says so; None if nobody does."""
    device = None
    if guest.host is not None and disk.image.type == "block" and disk.source is not None:
        device = guest.host.devices.find(disk.source)
    if device is not None:
        return device.size, says(device, name=device.name, size=device.size)
    for image in guest.images or ():
        if image.path == disk.source and disk.image.type == "file":
            size = image.virtual_size
            return size, says(image, path=image.path, virtual_size=size)
    return None


@check(Severity.WARNING, traps=[task_in_flight, building, migrating])
def encryption_secret_missing(guest: Guest, host: Host, domain: Domain) -> Problems:
    """libvirt no longer has the key of an encrypted disk.

    A guest that runs goes on, since QEMU has the key. Whatever libvirt itself starts (autostart, a
    migration) fails, and nova has to get the key from the key manager again: if it is not there
    either, the data is lost when the guest stops.

    Authority: libvirt's list of secrets.

    Traps: secrets in a container whose /etc/libvirt/secrets is not kept; the secret of a virtual
    TPM, which nova takes away once the guest runs.

    Next: `virsh secret-list`, and `openstack secret list` for the volume's encryption_key_id. Then
    keep the guest running until the key is known to be there.

    Not yet: `openstack server stop`, `openstack server reboot --hard`.

    Source: nova bug 1905701, `_attach_encryptor`; OSSA-2018-001.
    """
    xml = domain.xml if domain.id is not None else domain.inactive
    needed = [(disk, key) for disk in xml.disks for key in disk.keys]
    if not needed:
        return
    answer = host.bundle.last("libvirt", "virsh secret-list", host.name)
    listed = value_of(answer, "virsh secret-list", list[dict[str, object]])
    known = {str(secret.get("uuid")).lower() for secret in listed}
    for disk, key in needed:
        if key not in known and answer is not None:
            shown = says(domain, disks=f"{disk.target} {disk.source}").and_so(key=key)
            yield shown, hears(answer, "libvirt", secret=None)
