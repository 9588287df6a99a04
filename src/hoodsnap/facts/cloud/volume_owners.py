"""Owners of each volume: in nova's rows, in active domains, and in cinder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import NamedTuple

from hoodsnap.facts.api.volume import Volume, Volumes
from hoodsnap.facts.database.block_device_mapping import BlockDeviceMapping
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.instances import Instances
from hoodsnap.facts.domain.disk import Disk
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import UnheardError, caught
from hoodsnap.facts.uuids import UUID

FILE = re.compile(rf"volume-({UUID.pattern})(?:[._-].*)?")
"""Name of a volume's file, rbd image or LV with cinder's default volume_name_template. On NFS, the
suffix after a dot is the snapshot that is written to."""


class PluggedVolume(NamedTuple):
    """A volume that is a disk of an active domain."""

    domain: Domain
    disk: Disk


def volume_of(disk: Disk) -> str | None:
    """Return the volume id in a domain's disk, from serial or source, lower case; None without."""
    serial = (disk.serial or "").strip().lower()
    return serial if UUID.fullmatch(serial) else volume_in(disk.source)


def volume_in(source: str | None) -> str | None:
    """Return the volume id in the name of a file, rbd image or LV; None if it contains none."""
    found = FILE.fullmatch((source or "").rpartition("/")[2].lower())
    return found[1] if found else None


def is_disk_of(mapping: BlockDeviceMapping, disk: Disk) -> bool:
    """True if a domain's disk belongs to a row: it has the row's volume id, device path or name."""
    if mapping.volume_id is None:
        return False
    if volume_of(disk) == mapping.volume_id:
        return True  # also of a drive whose medium the guest has ejected
    connection = mapping.connection
    if connection is None or disk.source is None:
        return False
    name = (connection.name or "").rpartition("/")[2]
    return disk.source == connection.device_path or (
        bool(name) and disk.source.rpartition("/")[2] == name
    )


def is_own(uuid: str, domain: Domain, disk: Disk) -> bool:
    """True if nova itself stores the disk for this VM, or if it is a CD-ROM, a floppy or empty."""
    if disk.source is None or disk.device in ("cdrom", "floppy"):
        return True
    # The device mapper doubles hyphens; before Grizzly a folder had the domain's name.
    source = disk.source.lower().replace("--", "-")
    return uuid in source or f"/{domain.name}/" in disk.source


class VolumeOwners:
    """All layers' records of all volumes."""

    def __init__(
        self, volumes: Volumes, instances: Instances, domains: Iterable[Mapping[str, Domain]]
    ) -> None:
        self.volumes = volumes
        self._instances = instances
        self._domains = tuple(domains)

    def require_all(self) -> None:
        """Raise `UnheardError` if a volume may have more owners than were found.

        That is so if a row, a domain or an object of cinder can't be read.
        """
        self.volumes.require_all()
        if self._gap is not None:
            raise UnheardError(self._gap)

    @cached_property
    def _gap(self) -> str | None:
        for row in self._instances.mappings():
            try:
                row.volume_id, row.instance_uuid, row.deleted  # noqa: B018
            except Exception as error:
                return f"a row of block_device_mapping: {caught(error)}"
        for domain in (domain for host in self._domains for domain in host.values()):
            try:
                if domain.id is not None:
                    [volume_of(disk) for disk in domain.disks]
            except Exception as error:
                return f"a domain's disks: {caught(error)}"
        return None

    def mapped(self, volume: str) -> tuple[BlockDeviceMapping, ...]:
        """Return the live rows that attach a volume to an instance that is not deleted."""
        return self._mapped.get(volume, ())

    def plugged(self, volume: str) -> tuple[PluggedVolume, ...]:
        """Return the active domains that have a volume, on any captured host."""
        return self._plugged.get(volume, ())

    def of(self, uuid: str, instance: Instance | None, domain: Domain | None) -> tuple[Volume, ...]:
        """Return the volumes that any layer assigns to a VM, as reported by cinder."""
        named: dict[str, None] = {}
        for row in instance.mappings_shown if instance is not None else ():
            if row.raw.get("volume_id"):
                named[str(row.raw["volume_id"]).lower()] = None
        for attachment in self.volumes.by_server.get(uuid, ()):
            named[attachment.volume_id] = None
        try:
            for disk in domain.disks if domain is not None else ():
                if (volume := volume_of(disk)) is not None:
                    named[volume] = None
        except Exception as error:
            caught(error)
            # the domain's own reader reports why
        return tuple(self.volumes.by_id[name] for name in named if name in self.volumes.by_id)

    @cached_property
    def _mapped(self) -> Mapping[str, tuple[BlockDeviceMapping, ...]]:
        found: dict[str, list[BlockDeviceMapping]] = {}
        for row in self._instances.mappings():
            try:
                volume, owner = row.volume_id, self._instances.by_uuid.get(row.instance_uuid)
                if volume and not row.deleted and (owner is None or not owner.deleted):
                    found.setdefault(volume, []).append(row)
            except Exception as error:
                caught(error)
                continue  # reading this row raises the reason
        return {volume: tuple(rows) for volume, rows in found.items()}

    @cached_property
    def outlived(self) -> tuple[tuple[Instance, BlockDeviceMapping], ...]:
        """Live rows that attach a volume to a deleted instance, with the instance."""
        found = []
        for row in self._instances.mappings():
            try:
                owner = self._instances.by_uuid.get(row.instance_uuid)
                if owner is not None and owner.deleted and row.volume_id and not row.deleted:
                    found.append((owner, row))
            except Exception as error:
                caught(error)
                continue
        return tuple(found)

    def is_deleted(self, uuid: str) -> bool:
        """True if nova's records have this instance as deleted."""
        instance = self._instances.by_uuid.get(uuid)
        try:
            return instance is not None and instance.deleted
        except Exception as error:
            caught(error)
            return False

    @cached_property
    def _plugged(self) -> Mapping[str, tuple[PluggedVolume, ...]]:
        found: dict[str, list[PluggedVolume]] = {}
        for domain in (domain for host in self._domains for domain in host.values()):
            try:
                for disk in domain.disks if domain.id is not None else ():
                    if (volume := volume_of(disk)) is not None:
                        found.setdefault(volume, []).append(PluggedVolume(domain, disk))
            except Exception as error:
                caught(error)
                continue
        return {volume: tuple(same) for volume, same in found.items()}
