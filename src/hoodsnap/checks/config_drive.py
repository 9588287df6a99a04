"""The config drive: nova's record of it, the domain's definition, and the running guest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.traps import building, migrating, never_launched, rescued, task_in_flight
from hoodsnap.evidence import Severity, derives, says
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.tables import plain_name
from hoodsnap.facts.domain.disk import Disk
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.state import ON
from hoodsnap.phrase import place

_CONFIG_DRIVE = re.compile(r".*[/_]disk\.config", re.DOTALL)
"""Place of a config drive: `UUID/disk.config`, or `pool/UUID_disk.config` in rbd and LVM."""

MANDATORY = "mandatory"
"""Value of the image property img_config_drive by which each server of the image has one."""


@check(Severity.WARNING, traps=[task_in_flight, building, never_launched, migrating, rescued])
def config_drive_differs(guest: Guest, instance: Instance, domain: Domain) -> Problems:
    """The guest's config drive does not match nova's record.

    The config drive is a small disk with the server's keys, addresses and user data. cloud-init
    reads it at each boot. nova adds it to the domain at each start through nova if its record says
    so. If the record was changed, the next start comes without it. If it was ejected (a note: the
    guest itself may have done it), a reboot from inside the guest does not find it.

    Authority: libvirt, for the disks that the guest has; nova's record, for its next start.

    Traps: An image whose property img_config_drive is `mandatory` gives its servers a config drive
    without nova's record. The option force_config_drive counts only at the first start. In rescue,
    the guest has another config drive.

    Next: Compare nova's record with the domain's disks:

        openstack server show UUID -c config_drive
        virsh domblklist --details NAME
        virsh dumpxml NAME

    If the guest has a config drive that nova's record lacks, correct the record in the cell's
    database, after a backup of it; no command of nova does it:

        UPDATE DATABASE.instances SET config_drive = 'True' WHERE uuid = 'UNRECORDED' AND deleted = 0

    If nova's record has a config drive that the domain lacks, stop and start the server at a time
    that suits its owner. The start defines the domain again, with the config drive:

        openstack server stop UNCONFIGURED
        openstack server start UNCONFIGURED

    If the config drive was ejected, and its owner needs it before the next start through nova,
    insert it again, which the running guest notices as a new disc:

        virsh change-media NAME DRIVE --eject --live --force
        virsh change-media NAME DRIVE CONFIG_DRIVE --insert --live

    It worked if nova's record has a config drive, and the domain has the file and no open tray:

        openstack server show UUID -c config_drive
        virsh dumpxml NAME

    Not yet: Do not stop the server, or run `openstack server reboot --hard`, while nova's record
    lacks a config drive that the guest uses. Do not remove disk.config.

    Source: nova virt/configdrive.py `required_by`, virt/libvirt/blockinfo.py; libvirt
    formatdomain, `tray`.
    """  # noqa: E501 (an SQL statement is one line)
    if instance.deleted or not guest.is_here:
        return
    is_on = domain.state in ON
    live = domain.current.disks
    drive = _drive_in(live)
    stored = _drive_in(domain.inactive.disks) if is_on and domain.persistent else None
    if not instance.config_drive:
        if drive is not None and instance.image_copy.get("img_config_drive") != MANDATORY:
            yield problem(
                f"{guest.title} has no config drive in nova's record, but its domain has "
                f"{place(drive.source or '')}",
                says(instance, config_drive=instance.config_drive),
                derives(domain, "disks", config_drive=drive.source),
                DATABASE=plain_name(instance.database),
                UNRECORDED=guest.uuid,
                UNCONFIGURED="",
                DRIVE="",
                CONFIG_DRIVE="",
            )
        return
    if drive is None and not (is_on and stored is not None and _at(live, stored) is not None):
        yield problem(
            f"{guest.title} has a config drive in nova's record, but its domain has none",
            says(instance, config_drive=instance.config_drive),
            derives(domain, "disks", config_drive=None),
            UNRECORDED="",
            UNCONFIGURED=guest.uuid,
            DRIVE="",
            CONFIG_DRIVE="",
        )
    elif is_on:
        yield from _ejected(guest, domain, drive, stored)


def _ejected(
    guest: Guest, domain: Domain, drive: Disk | None, stored: Disk | None
) -> Iterator[Problem]:
    """Report a running guest's config drive whose medium is out of the drive, or its tray open."""
    shown = drive or stored
    if shown is None or (drive is not None and not drive.tray_open):
        return
    how = "has an open tray" if drive is not None else "was ejected"
    yield problem(
        f"{guest.title}'s config drive {shown.target} {how}",
        derives(
            domain,
            "disks",
            target=shown.target,
            medium=drive.source if drive is not None else None,
            tray="open" if drive is not None else "closed",
        ),
        *(
            [derives(domain, "inactive", target=stored.target, medium=stored.source)]
            if stored is not None
            else []
        ),
        severity=Severity.NOTE,
        UNRECORDED="",
        UNCONFIGURED="",
        DRIVE=shown.target,
        CONFIG_DRIVE=shown.source,
    )


def _drive_in(disks: Iterable[Disk]) -> Disk | None:
    return next((disk for disk in disks if _CONFIG_DRIVE.fullmatch(disk.source or "")), None)


def _at(disks: Iterable[Disk], other: Disk) -> Disk | None:
    """Return the empty drive where another definition has its config drive; None without one."""
    here = (disk for disk in disks if disk.target == other.target and disk.source is None)
    return next(here, None)
