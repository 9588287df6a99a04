"""When a difference is legal. Shared by all checks; each says why in its docstring's first line."""

from __future__ import annotations

from hoodsnap.facts.fact import text
from hoodsnap.facts.guest import Guest
from hoodsnap.facts.instance import UNFINISHED, Instance


def task_in_flight(guest: Guest) -> bool:
    """nova is doing something with it (task_state is set)"""
    return guest.record is not None and bool(guest.record.task_state)


def building(guest: Guest) -> bool:
    """nova is still building it"""
    return guest.record is not None and guest.record.vm_state == "building"


def never_launched(guest: Guest) -> bool:
    """it never ran: its build failed"""
    record = guest.record
    return record is not None and record.vm_state == "error" and not record.launched_at


def resizing(guest: Guest) -> bool:
    """a resize is not confirmed yet"""
    return guest.record is not None and guest.record.vm_state == "resized"


def migrating(guest: Guest) -> bool:
    """a migration of it is under way"""
    instance = guest.instance
    if instance is None:
        return guest.server is not None and guest.server.status in ("MIGRATING", "RESIZE")
    return any(text(moved, "status") in UNFINISHED for moved in instance.migrations)


def boots_from_volume(guest: Guest) -> bool:
    """it boots from a volume, so it has no disk file of its own"""
    record = guest.record
    if isinstance(record, Instance):
        return record.boots_from_volume
    return record is not None and record.image is None


def disks_are_not_files(guest: Guest) -> bool:
    """this host keeps its disks in rbd or LVM, not in files"""
    if guest.host is None:
        return False
    return guest.host.option("libvirt", "images_type", "default") in ("rbd", "lvm")
