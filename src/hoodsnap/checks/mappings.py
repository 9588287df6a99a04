"""nova's block device mappings: each is complete, and one of them is the boot disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.traps import (
    building,
    migrating,
    never_launched,
    task_in_flight,
    volume_just_attached,
    volume_moving,
)
from hoodsnap.evidence import Severity, hears, says
from hoodsnap.facts.api.volume import GONE
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.database.block_device_mapping import BlockDeviceMapping, Connection
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.tables import plain_name
from hoodsnap.facts.fact import UnheardError, text
from hoodsnap.phrase import brief, several

RUNS = frozenset(["active", "paused", "rescued"])
"""The vm_states of a server whose volumes have all been connected."""


@check(
    Severity.WARNING,
    traps=[
        task_in_flight,
        building,
        never_launched,
        migrating,
        volume_moving,
        volume_just_attached,
    ],
)
def bdm_record_bad(guest: Guest, instance: Instance) -> Problems:
    """nova's record of one of the server's disks contradicts itself or cinder.

    At the next start nova connects what the record names: one volume twice (an error), another
    volume's device, or nothing.

    Authority: cinder's attachment, for how a volume is reached.

    Traps: Disks that are not volumes have no connection. A server that never ran, or is shelved,
    has not been connected. A volume that cinder migrated keeps its id but has another name on the
    backend.

    Next: Compare nova's record with cinder's attachments:

        nova-manage volume_attachment show UUID VOLUME
        cinder --os-volume-api-version 3.27 attachment-list --all-tenants --volume-id VOLUME

    If nova has two rows for one volume, the row whose attachment exists in cinder is right. Mark
    the other row as deleted, only this row, in the cell's database; no command of nova does it:

        UPDATE DATABASE.block_device_mapping SET deleted = id, deleted_at = NOW() WHERE id = SURPLUS

    If nova has one row, write its connection again, on the server's host (Xena and later). The
    server is off meanwhile:

        openstack server stop MAPPED
        nova-manage volume_attachment get_connector --json > connector.json
        nova-manage volume_attachment refresh MAPPED VOLUME connector.json
        openstack server start MAPPED

    It worked if nova has one attachment of the volume, and its connection is the one in cinder:

        nova-manage volume_attachment show UUID VOLUME

    Not yet: Do not remove rows with DELETE, and do not touch a row whose attachment exists in
    cinder. Do not run `openstack server reboot --hard`. Do not detach the volume.

    Source: nova bugs 1937375, 1943431, 1713857, 1552777, 2012365, 1780973.
    """
    if instance.deleted:
        return
    yield from _twice(guest, instance.mappings)
    for mapping in _volumes_of(instance):
        if not is_surplus(guest, instance, mapping):
            yield from _bad_connection(guest, instance, mapping)


def is_surplus(guest: Guest, instance: Instance, mapping: BlockDeviceMapping) -> bool:
    """True if the row has no attachment, but another row of the same volume has the guest's.

    Then only the row is wrong, as `_twice` reports: the volume is connected and stays attached, and
    a new attachment would replace the good one.
    """
    cinder = guest.storage.volumes

    def is_good(row: BlockDeviceMapping) -> bool:
        attachment = cinder.attachments.get(row.attachment_id or "")
        return (
            attachment is not None
            and attachment.status not in GONE
            and attachment.instance == guest.uuid
            and attachment.volume_id == row.volume_id
        )

    same = [row for row in instance.mappings if row.volume_id == mapping.volume_id]
    return not is_good(mapping) and any(map(is_good, same))


def _twice(guest: Guest, mappings: tuple[BlockDeviceMapping, ...]) -> Problems:
    volumes = Counter(row.volume_id for row in mappings if row.volume_id)
    names = Counter(row.device_name for row in mappings if row.device_name)
    for volume, count in volumes.items():
        if count > 1:
            same = [row for row in mappings if row.volume_id == volume]
            rows = [says(row, id=row.id, volume_id=volume) for row in same]
            title = guest.storage.volumes.title_of(volume)
            numbers = several(row.id for row in same)
            headline = f"nova has {count} mappings of {title} for {guest.title}: rows {numbers}"
            yield problem(
                headline,
                *rows,
                severity=Severity.ERROR,
                VOLUME=volume,
                MAPPED="",
                **_surplus(guest, same),
            )
    for name, count in names.items():
        same = [row for row in mappings if row.device_name == name]
        if count > 1 and len({row.volume_id for row in same}) > 1:
            rows = [says(row, id=row.id, device_name=name) for row in same]
            numbers = several(row.id for row in same)
            headline = f"nova has {count} disks of {guest.title} at {name}: rows {numbers}"
            yield problem(headline, *rows, MAPPED="", SURPLUS="")


def _surplus(guest: Guest, rows: Sequence[BlockDeviceMapping]) -> dict[str, Any]:
    """Return the placeholders for the row to remove: the one without an attachment in cinder, or
    the newer of two with one attachment. The placeholder stays if that does not tell one row.
    """
    attachments = guest.storage.volumes.attachments
    lacking = [row for row in rows if row.attachment_id not in attachments]
    if not lacking and len({row.attachment_id for row in rows}) == 1:
        lacking = sorted(rows, key=lambda row: row.id or 0)[1:]
    surplus = lacking[0].id if len(lacking) == 1 == len(rows) - 1 else None
    return {"SURPLUS": surplus, "DATABASE": plain_name(rows[0].database)}


def _bad_connection(guest: Guest, instance: Instance, mapping: BlockDeviceMapping) -> Problems:
    said, volume = says(mapping, volume_id=mapping.volume_id), mapping.volume_id
    its = f"{guest.title}'s {guest.storage.volumes.title_of(volume or '')}"
    if not mapping.connection_written:
        if instance.vm_state in RUNS:
            state = says(instance, vm_state=instance.vm_state)
            none = says(mapping, volume_id=volume, connection_info=None)
            headline = f"nova has no connection of {its}, although it is {instance.vm_state}"
            yield problem(headline, state, none, VOLUME=volume, MAPPED=guest.uuid, SURPLUS="")
        return
    try:
        connection = mapping.connection
    except UnheardError:
        bad = said.and_so(connection_info="not valid JSON")
        yield problem(
            f"nova's connection_info of {its} is not valid JSON",
            bad,
            VOLUME=volume,
            MAPPED=guest.uuid,
            SURPLUS="",
        )
        return
    if connection is None:
        return
    serial = connection.serial
    if serial is not None and serial.lower() != mapping.volume_id and not _moved(guest, mapping):
        told = says(mapping, volume_id=mapping.volume_id, connection_info=f"serial {serial}")
        other = guest.storage.volumes.title_of(serial.lower())
        headline = f"nova's connection_info of {its} names {other}"
        yield problem(
            headline, told, severity=Severity.ERROR, VOLUME=volume, MAPPED=guest.uuid, SURPLUS=""
        )
    yield from _another_way(guest, mapping, connection)


def _moved(guest: Guest, mapping: BlockDeviceMapping) -> bool:
    """True if cinder migrated the volume, so that its backend name differs from its id."""
    volume = guest.storage.volumes.volume(mapping.volume_id or "")
    return volume is not None and volume.name_id is not None


def _another_way(guest: Guest, mapping: BlockDeviceMapping, connection: Connection) -> Problems:
    """Yield where cinder's attachment and nova's record differ on how to reach the volume."""
    attachment = guest.storage.volumes.attachments.get(mapping.attachment_id or "")
    if attachment is None:
        return  # bdm-attachment-or-volume-missing reports it
    theirs = attachment.connection
    ways = (
        ("driver_volume_type", connection.kind, theirs.kind),
        ("target", _shown(connection), _shown(theirs)),
        ("export", connection.export, theirs.export),
    )
    for name, ours, other in ways:
        if ours and other and ours != other:
            title = guest.storage.volumes.title_of(mapping.volume_id or "")
            yield problem(
                f"{guest.title}'s {title} has {name} {brief(ours)} in nova, but {brief(other)} in "
                "cinder",
                says(mapping, volume_id=mapping.volume_id, connection_info=f"{name} {ours}"),
                says(attachment, id=attachment.id, connection_info=f"{name} {other}"),
                VOLUME=mapping.volume_id,
                MAPPED=guest.uuid,
                SURPLUS="",
            )


def _shown(connection: Connection) -> str:
    return ", ".join(f"{target} LUN {lun}" for target, lun in sorted(connection.targets))


@check(Severity.ERROR, traps=[task_in_flight, building, never_launched, volume_moving])
def root_bdm_broken(guest: Guest, instance: Instance) -> Problems:
    """nova's records do not identify exactly one boot disk for the server.

    At the next start, rebuild or evacuation nova takes another disk as the root, or none. If cinder
    marks the boot volume as not bootable (a warning), cinder would not let another server boot from
    it.

    Authority: The nova database.

    Traps: A rescue does not change the records. Servers from before Havana have no record of a root
    disk that is not a volume.

    Next: Check the image and the root device:

        openstack --os-compute-api-version 2.3 server show UUID

    In the cell's database, check the boot order; the boot disk has boot_index 0:

        SELECT * FROM block_device_mapping WHERE instance_uuid = 'UUID' AND deleted = 0

    If the row of the boot disk is wrong, correct its boot_index after a backup of the database; no
    command does it.

    If the row of the boot disk was marked as deleted, check what it describes:

        SELECT * FROM DATABASE.block_device_mapping WHERE id = LOST_ROW

    If the guest still has this disk, make the row live again, after a backup of the database:

        UPDATE DATABASE.block_device_mapping SET deleted = 0, deleted_at = NULL WHERE id = LOST_ROW

    If only cinder marks the boot volume as not bootable, mark it as bootable, which changes no
    data:

        openstack volume set --bootable VOLUME

    It worked if bootable is true, and one row has boot_index 0:

        openstack volume show VOLUME -c bootable
        SELECT id, boot_index FROM DATABASE.block_device_mapping WHERE instance_uuid = 'UUID' AND deleted = 0

    Not yet: Do not run `openstack server reboot --hard`, `rebuild` or `evacuate`, and do not stop
    the server: at its next start, nova may not find the root disk.

    Source: nova `block_device.get_root_bdm`, `_validate_bdm`; nova bug 2019078.
    """  # noqa: E501 (an SQL statement is one line)
    if instance.deleted:
        return
    if not instance.mappings and is_before_havana(instance):
        return
    roots = [row for row in instance.mappings if row.boot_index == 0]
    if len(roots) > 1:
        numbers = several(row.id for row in roots)
        headline = f"nova has {len(roots)} boot disks of {guest.title}: rows {numbers}"
        rows = [says(row, id=row.id, boot_index=row.boot_index) for row in roots]
        yield problem(headline, *rows, **_names(instance))
    elif not roots:
        severity = Severity.WARNING if instance.image else Severity.ERROR
        image = says(instance, image=instance.image)
        rows = [says(row, id=row.id, boot_index=row.boot_index) for row in instance.mappings]
        lost = [row for row in instance.mappings_ever if row.deleted and row.boot_index == 0]
        lost.sort(key=lambda row: row.id or 0)
        named = f"; row {lost[-1].id}, which has it, is marked as deleted" if lost else ""
        headline = (
            f"nova has no boot disk of {guest.title}: 0 of {len(rows)} rows have boot_index 0"
            f"{named}"
        )
        if not rows:
            headline = f"nova has no disk of {guest.title}, not even its boot disk{named}"
            rows = [hears(instance.said["mappings"], "bdm", guest.uuid, rows=0)]
        gone = [says(row, id=row.id, boot_index=0, deleted=row.deleted) for row in lost[-1:]]
        yield problem(
            headline,
            image,
            *rows,
            *gone,
            severity=severity,
            **_names(instance, LOST_ROW=lost[-1].id if lost else ""),
        )
    elif roots[0].is_volume and roots[0].volume_id is not None:
        volume = guest.storage.volumes.volume(roots[0].volume_id)
        if volume is not None and not volume.bootable:
            told = says(volume, id=volume.id, bootable=volume.bootable)
            row = says(roots[0], boot_index=0, volume_id=volume.id)
            title = guest.storage.volumes.title_of(volume.id)
            headline = f"{guest.title} boots from {title}, which cinder marks as not bootable"
            names = _names(instance, VOLUME=volume.id)
            yield problem(headline, row, told, severity=Severity.WARNING, **names)


def _names(instance: Instance, **names: object) -> dict[str, Any]:
    """Return the placeholders of root-bdm-broken: those that are not given do not apply."""
    return {"VOLUME": "", "LOST_ROW": "", "DATABASE": plain_name(instance.database), **names}


HAVANA = datetime(2013, 10, 17, tzinfo=UTC)
"""Release of the first nova that records root disks that are not volumes."""


def is_before_havana(instance: Instance) -> bool:
    """True if a server is so old that nova recorded no row of its disk, or its age is unknown."""
    created = moment(text(instance.raw, "created_at"))
    return created is None or created < HAVANA


def _volumes_of(instance: Instance) -> Iterator[BlockDeviceMapping]:
    """Yield the live mappings that are volumes and name one."""
    for mapping in instance.mappings:
        if mapping.is_volume and mapping.volume_id is not None:
            yield mapping
