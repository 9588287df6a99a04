"""Volumes: each has one owner, is the right device, and is as large as in cinder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.traps import building, migrating, task_in_flight, volume_moving
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.api.volume import Volume
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.cloud.volume_owners import VolumeOwners, is_own, volume_in, volume_of
from hoodsnap.facts.database.block_device_mapping import BlockDeviceMapping
from hoodsnap.facts.domain.disk import Disk
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import UnheardError, known, value_of
from hoodsnap.facts.host.device import Device
from hoodsnap.phrase import brief, sizes

FREE = frozenset(["available", "error", "deleting", "error_deleting"])
"""Statuses in which cinder treats the volume as not attached."""

HEADER = 32 << 20
"""Bytes allowed for the encryption header of a volume; LUKS2 takes 16 MiB."""


@check(Severity.ERROR, heard=["cinder"], traps=[task_in_flight, migrating, volume_moving])
def volume_attached_twice(guest: Guest, cloud: Cloud, volumes: tuple[Volume, ...]) -> Problems:
    """Two servers have the same volume, which is not multiattach.

    If both guests use it, they write without knowing of each other, and the file system breaks.
    Two rows in nova, two attachments in cinder, or a guest that was never switched off: one of them
    has to go.

    Authority: libvirt and the kernel: they show which guest has it open.

    Traps: Multiattach volumes. During a migration one server has two attachments. cinder may be
    moving the volume.

    Next: List the attachments, and check for each of the servers whether nova and the guest have
    the volume:

        cinder --os-volume-api-version 3.27 attachment-list --all-tenants --volume-id VOLUME
        openstack server volume list UUID
        openstack server volume list OTHER
        virsh domblklist UUID
        virsh domblklist OTHER

    If one of them has the volume in cinder only, delete its attachment. The server that uses the
    volume keeps it:

        cinder --os-volume-api-version 3.27 attachment-delete ATTACHMENT

    If both have it, unmount the volume inside the server that should not have it, and detach it
    there:

        openstack server remove volume SERVER VOLUME

    It worked if cinder lists one attachment:

        cinder --os-volume-api-version 3.27 attachment-list --all-tenants --volume-id VOLUME

    Not yet: Do not run `cinder reset-state --attach-status detached`, which lets cinder attach it a
    third time. Do not delete the attachment that is in use. Do not run fsck while two guests write.

    Source: nova bugs 1937375, 1943431, 2048837; cinder's documentation of multiattach.
    """
    for volume in volumes:
        owners = _owners(guest.storage, volume)
        if len(owners) > 1 and guest.uuid in owners and not volume.multiattach:
            reported = says(volume, id=volume.id, status=volume.status, multiattach=False)
            title = guest.storage.volumes.title_of(volume.id)
            names = cloud.titles_of([guest.uuid, *(it for it in owners if it != guest.uuid)])
            idle = [one.attachment for one in owners.values() if not one.used]
            users = [uuid for uuid, one in owners.items() if one.used]
            where = f"; only {cloud.title_of(users[0])} uses it" if len(users) == 1 else ""
            yield problem(
                f"V{title[1:]} is attached to {names}, but is not multiattach{where}",
                reported,
                *(one for owner in owners.values() for one in owner.evidence),
                VOLUME=volume.id,
                OTHER=next(uuid for uuid in owners if uuid != guest.uuid),
                ATTACHMENT=idle[0] if len(idle) == 1 else "",
                SERVER=None if len(idle) != 1 else "",
            )
    guest.storage.require_all()


@dataclass(slots=True)
class _Owner:
    """The layers' reports of one of a volume's servers."""

    evidence: list[Evidence] = field(default_factory=list)
    used: bool = False
    """True if nova or a guest has the volume, not only cinder."""
    attachment: str | None = None
    """Id of the attachment in cinder."""


def _owners(storage: VolumeOwners, volume: Volume) -> dict[str, _Owner]:
    """Return the servers that have the volume in any layer."""
    found: dict[str, _Owner] = {}
    for mapping in storage.mapped(volume.id):
        reported = says(mapping, instance_uuid=mapping.instance_uuid, volume_id=volume.id)
        owner = found.setdefault(mapping.instance_uuid, _Owner())
        owner.evidence.append(reported)
        owner.used = True
    for attachment in storage.volumes.by_volume.get(volume.id, ()):
        uuid = attachment.instance
        # Deleted owners: see bdm-alive-for-deleted-instance; if the guest runs, libvirt has it.
        if uuid and attachment.status == "attached" and not storage.is_deleted(uuid):
            reported = says(attachment, id=attachment.id, status="attached", instance=uuid)
            owner = found.setdefault(uuid, _Owner())
            owner.evidence.append(reported)
            owner.attachment = attachment.id
    for plugged in storage.plugged(volume.id):
        reported = says(plugged.domain, uuid=plugged.domain.uuid).and_so(volume=volume.id)
        owner = found.setdefault(plugged.domain.uuid, _Owner())
        owner.evidence.append(reported)
        owner.used = True
    return found


@check(Severity.ERROR, heard=["cinder"], traps=[task_in_flight, building, migrating, volume_moving])
def volume_free_in_cinder_but_open(guest: Guest, domain: Domain) -> Problems:
    """A running guest has a volume that is free in cinder, or does not exist there.

    cinder allows the volume to be deleted, attached or overwritten while the guest writes to it.

    Authority: libvirt and the kernel: the volume is in use.

    Traps: A detach in progress. With a tenant's credentials, volumes of other projects return 404.
    A volume in status `error` that is still attached is protected (a warning).

    Next: Compare both sides:

        openstack volume show VOLUME
        virsh domblklist --details NAME

    If cinder still has the attachment to this server, and nobody is detaching the volume, only the
    status is wrong. Check the attachments, then set the status back; the guest keeps running:

        openstack volume show HELD_VOLUME -c status -c attachments
        openstack volume set --state in-use HELD_VOLUME

    If the volume exists in cinder and belongs to this server, but has no attachment, make a new one
    (Xena and later) on the server's host. The server is off meanwhile:

        openstack server stop UUID
        nova-manage volume_attachment get_connector --json > connector.json
        nova-manage volume_attachment refresh UUID LOOSE_VOLUME connector.json
        openstack server start UUID

    It worked if the volume is in use, and attached to this server:

        openstack volume show VOLUME -c status -c attachments

    Not yet: Do not run `openstack volume delete`, `openstack server add volume` to another server,
    or `cinder reset-state` to another status than in-use. Do not take snapshots of the volume or
    extend it.

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
        title = guest.storage.volumes.title_of(named)
        runs = f"{guest.title} runs with {title} as {disk.target}, but cinder"
        if volume is not None and volume.status in FREE:
            reported = says(volume, id=named, status=volume.status)
            held = _is_attached(guest, named)
            protected = volume.status == "error" and held
            yield problem(
                f"{runs} lists it as {volume.status}",
                plugged,
                reported,
                severity=Severity.WARNING if protected else Severity.ERROR,
                VOLUME=named,
                HELD_VOLUME=named if held else "",
                LOOSE_VOLUME="" if held else named,
            )
        elif volume is None and _is_cinders(guest.storage, named, disk):
            none = hears(guest.storage.volumes.absent[named], "cinder", volume=None)
            yield problem(
                f"{runs} has no such volume",
                plugged,
                none,
                VOLUME=named,
                HELD_VOLUME="",
                LOOSE_VOLUME="",
            )


def _is_attached(guest: Guest, volume: str) -> bool:
    """True if cinder still has it attached to this guest, so that it can't be deleted."""
    try:
        attachments = guest.storage.volumes.by_volume.get(volume, ())
        return any(it.instance == guest.uuid and it.status == "attached" for it in attachments)
    except UnheardError:
        return False


def _is_cinders(storage: VolumeOwners, volume: str, disk: Disk) -> bool:
    """True if it was ever a volume: a disk attached by hand may have any serial number."""
    return bool(storage.mapped(volume)) or volume_in(disk.source) == volume


@check(Severity.ERROR, traps=[task_in_flight, building, migrating, volume_moving])
def volume_device_wrong_lun(guest: Guest, host: Host, domain: Domain) -> Problems:
    """The guest's disk is a different volume than the one recorded for it.

    The storage assigned the LUN to another volume while the host still used it for the old one, or
    a file was mistaken for another. The guest reads and overwrites another owner's data, which is
    also a breach between tenants.

    Authority: The host's block devices, and the storage's own id of each LUN.

    Traps: Multipath names are local to the host. A volume that cinder moved keeps its old name. A
    guest that is off has no device.

    Next: Save the output of these commands, the last one for each path:

        lsblk -O -J
        multipath -ll -v3
        sg_inq -p 0x83 PATH

    Then pause the guest, which stops its writes, until it is proven whose data it is:

        virsh suspend NAME

    It worked if the guest is paused:

        virsh domstate --reason NAME

    Not yet: Do not run `virsh resume`, `multipath -F` or `rescan-scsi-bus.sh -r`. Do not detach the
    volume by force.

    Source: OSSA-2023-003 (CVE-2023-2088), nova bug 2004555; os-brick; gorka.eguileor.com "iSCSI
    multipath".
    """
    if domain.id is None:
        return
    seen: dict[str, Disk] = {}
    for disk, device in _devices_of(host, domain):
        plugged = _plugged(domain, disk)
        path = f"/dev/{device.kname}"
        if (other := seen.setdefault(device.number, disk)) is not disk:
            number = says(device, name=device.name, number=device.number)
            headline = (
                f"{guest.title}'s disks {other.target} and {disk.target} are one device, {path}"
            )
            yield problem(headline, plugged, _plugged(domain, other), number, PATH=path)
        disks = [host.devices.by_name[name] for name in sorted(host.devices.below(device))]
        if len(ids := {below.wwn for below in disks} - {None}) > 1 and _has_map(host, device):
            paths = [says(below, kname=below.kname, wwn=below.wwn) for below in disks]
            headline = f"{guest.title}'s disk {disk.target} ({path}) has paths to {len(ids)} LUNs"
            yield problem(headline, plugged, *paths, PATH=f"/dev/{disks[0].kname}")
    if guest.instance is not None:
        yield from _not_as_mapped(guest, host, domain, guest.instance.mappings)


def _devices_of(host: Host, domain: Domain) -> Iterator[tuple[Disk, Device]]:
    """Yield the disks that are volumes, each with its block device on the host."""
    for disk in domain.disks:
        if disk.image.type == "block" and disk.source is not None and volume_of(disk) is not None:
            device = host.devices.find(disk.source)
            if device is not None:
                yield disk, device


def _plugged(domain: Domain, disk: Disk) -> Evidence:
    return says(domain, disks=f"{disk.target} {disk.source}").and_so(volume=volume_of(disk))


def _not_as_mapped(
    guest: Guest, host: Host, domain: Domain, mappings: tuple[BlockDeviceMapping, ...]
) -> Iterator[Problem]:
    """Report a disk in the place of a volume that is not the volume in nova's mapping."""
    by_volume = {row.volume_id: row for row in mappings}
    for disk in domain.disks:
        named, named_so = volume_of(disk), volume_in(disk.source)
        # After a volume swap the disk may show the old volume's serial; its mapping still exists.
        if named is None or named_so in (None, named) or named_so in by_volume:
            continue
        row = by_volume.get(named)
        if row is None or row.connection is None or volume_in(row.connection.name) == named_so:
            continue
        volume = guest.storage.volumes.volume(named)
        if volume is not None and volume.name_id != named_so:
            volumes = guest.storage.volumes
            yield problem(
                f"{guest.title}'s disk {disk.target} is {volumes.title_of(named_so)} instead of "
                f"{volumes.title_of(named)}",
                _plugged(domain, disk),
                says(volume, id=named, name_id=volume.name_id),
                VOLUME=named,
            )
    for disk, device in _devices_of(host, domain):
        row = by_volume.get(volume_of(disk))
        if row is None or row.connection is None or not row.connection.targets:
            continue
        disks = host.devices.below(device)
        places = row.connection.targets
        expected = {name for place in places for name in host.devices.reached(*place)}
        if expected and not expected & disks:
            target = ", ".join(f"{name} LUN {lun}" for name, lun in sorted(places))
            reported = says(row, volume_id=row.volume_id, connection_info=target)
            shown = says(device, name=device.name, number=device.number)
            yield problem(
                f"{guest.title}'s disk {disk.target} is device {_listed(disks)}, but nova's "
                f"mapping leads to {_listed(expected)}",
                _plugged(domain, disk),
                reported.and_so(is_here=_listed(expected)),
                shown.and_so(made_of=_listed(disks)),
                PATH=f"/dev/{min(disks)}",
            )


def _listed(names: frozenset[str] | set[str]) -> str:
    return ", ".join(sorted(names))


def _has_map(host: Host, device: Device) -> bool:
    """True if a multipath map is part of the device."""
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
    """The volume's size on this host does not match its size in cinder.

    An extension changes the storage, cinder's record, nova's record and the guest's device; one
    that stopped half way leaves them different. If the volume is smaller on the host, the guest was
    promised space that does not exist, and writes past the end fail. If a file is larger by a
    gibibyte or more (a note), cinder's record was not changed: the guest's data is complete, but
    quota and the next snapshot, copy or migration count the smaller size. If only nova's record
    differs (a note), nova did not carry out an extension: until its next start, the guest may still
    have a device of the old size.

    Authority: The host's device or file.

    Traps: An extension in progress. The header of an encrypted volume. Block storage that rounds
    sizes up.

    Next: Compare the size in cinder with the size of the disk that the guest has:

        openstack volume show VOLUME -c size
        virsh domblkinfo NAME --all
        lsblk -b

    If the size on the host is the smaller one, extend the volume by 1 GiB more, which updates the
    host too. A volume can't be made smaller again:

        openstack --os-volume-api-version 3.42 volume set --size GIB VOLUME

    If the size on the host is the larger one, no data is lost, and the difference can wait: drivers
    of files (NFS) refuse to extend an attached volume. Once the volume is detached and available,
    complete the extension in cinder, to the size on the host:

        openstack volume set --size HAS_GIB VOLUME

    If only nova's record differs, send nova the event of the extension again, as an administrator.
    nova then corrects its record, and the guest gets the new size while it runs. nova's address is
    the URL of the compute service; the openstack command has no subcommand for it:

        openstack catalog show compute
        token=$(openstack token issue -f value -c id)
        curl -H "X-Auth-Token: $token" -H "openstack-api-version: compute 2.51" -H "Content-Type: application/json" -d '{"events": [{"name": "volume-extended", "server_uuid": "UUID", "tag": "EXTENDED"}]}' NOVA/os-server-external-events

    If the guest's disk still has the old capacity after a minute, resize it in the running guest:

        virsh blockresize NAME TARGET SIZE

    It worked if both sizes are the same (GiB in cinder, bytes on the host):

        openstack volume show VOLUME -c size
        virsh domblkinfo NAME --all

    Not yet: Do not run `rbd resize --allow-shrink` or `qemu-img resize`: a guest that uses the
    space loses data if its disk shrinks. Do not extend an attached volume on
    NFS: cinder leaves it in status error_extending. Do not run `openstack
    server reboot --hard` before the device has its size.

    Source: nova bug 1558880; nova compute/manager.py `extend_volume`; cinder's documentation of
    extending a volume in use.
    """  # noqa: E501 (a command is one line)
    for disk in domain.disks if domain.id is not None else ():
        named = volume_of(disk)
        if named is None or is_own(guest.uuid, domain, disk):
            continue
        volume = guest.storage.volumes.by_id.get(named)
        measured = _measured(guest, disk)
        if volume is None or volume.size_gib is None or measured is None:
            continue
        size, evidence = measured
        yield from _of_nova(guest, disk, volume, size)
        sold = volume.size_gib << 30
        least = sold - HEADER if volume.encrypted else sold
        rounded = disk.image.type == "block"  # some storage allocates in units of 8 GiB
        if size < least or (size >= sold + (1 << 30) and not rounded):
            severity = Severity.ERROR if size < least else Severity.NOTE
            reported = says(volume, id=named, size_gib=volume.size_gib).and_so(size=sold)
            here, there = sizes(size, sold)
            title = guest.storage.volumes.title_of(named)
            yield problem(
                f"{guest.title}'s {title} has {here} on its host, but {there} in cinder",
                reported,
                evidence,
                severity=severity,
                VOLUME=named,
                GIB=volume.size_gib + 1 if size < least else "",
                HAS_GIB=-(-size >> 30) if size >= least else "",
                EXTENDED="",
                TARGET="",
                SIZE="",
            )


def _of_nova(guest: Guest, disk: Disk, volume: Volume, size: int) -> Iterator[Problem]:
    """Report nova's record of a volume's size, if it is the only one that is wrong."""
    for row in guest.instance.mappings_shown if guest.instance is not None else ():
        recorded = known(lambda row=row: row.size_gib) if row.volume_id == volume.id else None  # type: ignore[misc]
        sold = volume.size_gib
        if recorded is not None and sold is not None and recorded != sold == -(-size >> 30):
            title = guest.storage.volumes.title_of(volume.id)
            yield problem(
                f"{guest.title}'s {title} has {recorded} GiB in nova's record, but {sold} GiB in "
                "cinder and on its host",
                says(volume, id=volume.id, size_gib=sold),
                says(row, volume_id=row.volume_id, size_gib=recorded),
                severity=Severity.NOTE,
                VOLUME=volume.id,
                GIB="",
                HAS_GIB="",
                EXTENDED=volume.id,
                # nova resizes the payload of an encrypted volume, not its header.
                TARGET="" if volume.encrypted else disk.target,
                SIZE=f"{size}B",
            )


def _measured(guest: Guest, disk: Disk) -> tuple[int, Evidence] | None:
    """Return the disk's bytes on its host, with the evidence; None if they were not collected."""
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

    A running guest keeps working because QEMU has the key. Whatever libvirt starts by itself
    (autostart, a migration) fails, and nova has to get the key from the key manager again. If the
    key manager has lost the key too, the data is lost when the guest stops.

    Authority: libvirt's list of secrets.

    Traps: Secrets in a container without a persistent /etc/libvirt/secrets. The secret of a virtual
    TPM, which nova removes once the guest runs.

    Next: List libvirt's secrets, and look for the volume's encryption_key_id in the key manager:

        virsh secret-list
        openstack secret list

    Then keep the guest running until the key is confirmed to exist.

    Not yet: Do not run `openstack server stop` or `openstack server reboot --hard`.

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
            headline = f"libvirt has no secret {brief(key)} for {guest.title}'s disk {disk.target}"
            yield problem(headline, shown, hears(answer, "libvirt", secret=None))
