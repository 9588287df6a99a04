"""nova's block device mappings, compared with the guest's disks and the server's image."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.traps import (
    building,
    migrating,
    never_launched,
    rescued,
    task_in_flight,
    volume_just_attached,
    volume_moving,
)
from hoodsnap.evidence import Severity, derives, says
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.volume_owners import is_disk_of
from hoodsnap.facts.database.block_device_mapping import BlockDeviceMapping
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.disk import Disk
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import UnheardError, text
from hoodsnap.phrase import brief

KEPT = 10
"""The collector reads this many of the newest actions; with fewer, it has read all of them."""


@check(
    Severity.WARNING,
    traps=[
        *(task_in_flight, building, never_launched, migrating, rescued),
        *(volume_moving, volume_just_attached),
    ],
)
def disk_record_differs(guest: Guest, instance: Instance, domain: Domain) -> Problems:
    """A guest's disk is of another kind than in nova's block device mapping.

    nova chooses device type, bus and encryption of a disk once, keeps them in the disk's mapping,
    and builds every later domain from it. If the guest's disk is another one, the next hard reboot
    or move changes it: a disk becomes a CD-ROM, changes its name in the guest, or is opened as
    encrypted although it is not. A mapping with another image than the server's (a note) was left
    by a changed row; nova shows and rebuilds from one of them.

    Authority: libvirt, for what the guest has; the mapping, for its next start.

    Traps: Before Yoga mappings know nothing of encryption, and LVM disks are encrypted below
    libvirt. A rebuild changes the server's image and leaves the mapping's. A mapping without a
    device type leaves the choice to nova. Disks that libvirt does not have are reported by
    bdm-not-in-guest.

    Next: Compare the mappings with the guest's disks and with the server's image:

        openstack server volume list UUID
        virsh dumpxml NAME
        SELECT device_name, device_type, disk_bus, encrypted, image_id FROM DATABASE.block_device_mapping WHERE instance_uuid = 'UUID' AND deleted = 0
        openstack server show UUID -c image

    Find out whether the row or the domain was changed by hand. A volume that is no boot disk gets
    a new mapping when it is detached and attached again:

        openstack server remove volume UUID VOLUME
        openstack server add volume UUID VOLUME

    It worked if the disk is as in its mapping:

        virsh dumpxml NAME

    Not yet: Do not hard-reboot or migrate the server: its domain is built anew from the mapping. Do
    not edit rows by hand.

    Source: nova virt/libvirt/blockinfo.py `get_info_from_bdm`, virt/libvirt/driver.py
    `_get_guest_storage_config`; nova spec "libvirt: ephemeral encryption".
    """  # noqa: E501 (an SQL statement is one line)
    if instance.deleted or not guest.is_here:
        return
    for mapping in instance.mappings:
        disk = _disk_of(mapping, domain)
        names: dict[str, Any] = {"DATABASE": instance.database, "VOLUME": mapping.volume_id or ""}
        if disk is not None:
            for what, own, its in _kinds(mapping, disk):
                yield problem(
                    f"{guest.title}'s disk {disk.target} has {what} {its}, but {own} in nova's "
                    "block device mapping",
                    derives(domain, "disks", disk=disk.target, **{what.replace(" ", "_"): its}),
                    says(mapping, device_name=mapping.device_name).and_so(
                        **{what.replace(" ", "_"): own}
                    ),
                    **names,
                )
        yield from _other_image(guest, instance, mapping, names)


def _disk_of(mapping: BlockDeviceMapping, domain: Domain) -> Disk | None:
    if mapping.volume_id is not None:
        return next((disk for disk in domain.current.disks if is_disk_of(mapping, disk)), None)
    name = posixpath.basename(mapping.device_name or "")
    return next((disk for disk in domain.current.disks if name and disk.target == name), None)


def _kinds(mapping: BlockDeviceMapping, disk: Disk) -> Iterator[tuple[str, str, str]]:
    """Yield what differs, nova's word for it, and the disk's."""
    kind, bus = text(mapping.raw, "device_type"), text(mapping.raw, "disk_bus")
    if kind and kind != disk.device:
        yield "device type", kind, disk.device
    # image-property-not-in-guest compares the bus of the boot disk.
    if bus and disk.bus and bus != disk.bus and mapping.boot_index != 0:
        yield "bus", bus, disk.bus
    encrypted = mapping.raw.get("encrypted")
    if not mapping.is_volume and isinstance(encrypted, int) and bool(encrypted) != bool(disk.keys):
        yield "encryption", "a secret" if encrypted else "none", "a secret" if disk.keys else "none"


def _other_image(
    guest: Guest, instance: Instance, mapping: BlockDeviceMapping, names: dict[str, Any]
) -> Iterator[Problem]:
    own, its = mapping.image, (instance.image or "").lower()
    if mapping.is_volume or mapping.boot_index != 0 or not own or not its or own == its:
        return
    actions = instance.rows("instance_actions")
    if any(row.cells.get("action") == "rebuild" for row in actions):
        return
    if len(actions) >= KEPT:
        raise UnheardError("older actions of the server, of which one may be a rebuild")
    yield problem(
        f"{guest.title} was made from image {brief(its)}, but its block device mapping has image "
        f"{brief(own)}",
        says(instance, image=its),
        says(mapping, image=own),
        severity=Severity.NOTE,
        **names,
    )
