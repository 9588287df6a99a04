"""Rows of `block_device_mapping`: one disk of an instance, and the connection of its volume."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from hoodsnap.bundle import Answer
from hoodsnap.facts.fact import Fact, UnheardError, integer, mapping, text
from hoodsnap.facts.layer import NOVA_DB, Layer


class Connection:
    """The connection of a volume, from the column `connection_info` or cinder's attachment."""

    def __init__(self, raw: Mapping[str, object], data: Mapping[str, object]) -> None:
        self._raw, self._data = raw, data

    @property
    def kind(self) -> str | None:
        """`nfs`, `rbd`, `iscsi`, `fibre_channel`, `nvmeof` …; None if it is not recorded."""
        return _plain(self._raw, "driver_volume_type")

    @property
    def serial(self) -> str | None:
        """Serial number of the guest's disk: the volume's id."""
        return _plain(self._raw, "serial")

    @property
    def name(self) -> str | None:
        """File name of a volume on NFS, or `pool/volume-UUID` for rbd."""
        return _plain(self._data, "name")

    @property
    def export(self) -> str | None:
        """NFS export that holds the volume: `10.0.0.5:/volumes`."""
        return _plain(self._data, "export")

    @property
    def device_path(self) -> str | None:
        """Path of the device or file when nova-compute last connected the volume."""
        return _plain(self._data, "device_path")

    @property
    def volume_id(self) -> str | None:
        """Id of the volume, lower case; None if it is not recorded."""
        return _lower(self._raw, "volume_id")

    @property
    def instance(self) -> str | None:
        """UUID of the server, lower case; None if it is not recorded."""
        return _lower(self._raw, "instance")

    @property
    def access_mode(self) -> str | None:
        """`rw` or `ro`; None if it is not recorded."""
        return _plain(self._data, "access_mode")

    @property
    def format(self) -> str | None:
        """Format of a volume in a file: `raw`, `qcow2`; None if it is not recorded."""
        return _plain(self._data, "format")

    @property
    def encrypted(self) -> bool | None:
        """True if the volume is encrypted; None if it is not recorded."""
        value = self._data.get("encrypted")
        return value if isinstance(value, bool) else None

    @property
    def multiattach(self) -> bool:
        """True if several servers may have the volume, so that its disk is shareable."""
        return self._raw.get("multiattach") is True

    @property
    def targets(self) -> frozenset[tuple[str, int]]:
        """(iSCSI target in lower case, LUN) of each path; empty for other protocols."""
        names, luns = self._data.get("target_iqns"), self._data.get("target_luns")
        if not isinstance(names, list) or not isinstance(luns, list):
            names, luns = [self._data.get("target_iqn")], [self._data.get("target_lun")]
        return frozenset(
            (name.lower(), lun)
            for name, lun in zip(names, luns, strict=False)
            if isinstance(name, str) and isinstance(lun, int)
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class BlockDeviceMapping(Fact):
    """One row of `block_device_mapping`, which nova calls a BDM.

    Reading a column that the release does not have raises `UnheardError`.
    """

    layer: ClassVar[Layer] = NOVA_DB
    noun: ClassVar[str] = "bdm"
    raw: Mapping[str, object]
    database: str

    places: ClassVar[Mapping[str, tuple[str, str]]] = {
        "size_gib": ("row", "volume_size"),
        "image": ("row", "image_id"),
        "connection": ("row", "connection_info"),
    }

    def where(self, name: str) -> tuple[Answer | None, str]:
        """Return the answer and the place in it, which starts with the row's id."""
        answer, place = super().where(name)
        return answer, f"{self.database}.block_device_mapping[id={self.raw.get('id')}].{place}"

    @property
    def id(self) -> int | None:
        """Primary key of the row."""
        return integer(self.raw, "id")

    @property
    def instance_uuid(self) -> str:
        """UUID of the instance that has the disk, lower case."""
        return (text(self.raw, "instance_uuid") or "").lower()

    @property
    def boot_index(self) -> int | None:
        """0 for the boot disk; negative or None for a disk that is never booted from."""
        return integer(self.raw, "boot_index")

    @property
    def destination_type(self) -> str | None:
        """`volume`, or `local` for a disk that nova stores."""
        return text(self.raw, "destination_type")

    @property
    def device_name(self) -> str | None:
        """Device name in the guest: `/dev/vdb`."""
        return text(self.raw, "device_name")

    @property
    def volume_id(self) -> str | None:
        """UUID of the volume, lower case; None if it is not a volume or does not exist yet."""
        volume = text(self.raw, "volume_id")
        return volume.lower() if volume else None

    @property
    def image(self) -> str | None:
        """Id of the image that the disk was made from, lower case; None without one."""
        image = text(self.raw, "image_id")
        return image.lower() if image else None

    @property
    def size_gib(self) -> int | None:
        """Size of the disk in GiB, as nova recorded it; None if it is not recorded."""
        return integer(self.raw, "volume_size") or None

    @property
    def attachment_id(self) -> str | None:
        """Id of cinder's attachment; None if the volume was attached before Queens."""
        attachment = text(self.raw, "attachment_id")
        return attachment.lower() if attachment else None

    @property
    def deleted(self) -> bool:
        """True if the disk was detached or its instance was deleted."""
        return bool(integer(self.raw, "deleted"))

    @property
    def is_volume(self) -> bool:
        """True if the disk is a cinder volume, or will become one."""
        return self.destination_type == "volume"

    @property
    def connection_written(self) -> bool:
        """True if nova has stored a connection at all."""
        return text(self.raw, "connection_info") not in (None, "", "null")

    @property
    def connection(self) -> Connection | None:
        """The volume's connection; None if nova has not stored one.

        Raises `UnheardError` if the column does not hold a JSON object.
        """
        if isinstance(self._connection, UnheardError):
            raise UnheardError(str(self._connection))
        return self._connection

    @property
    def targets_shown(self) -> frozenset[tuple[str, int]]:
        """(iSCSI target, LUN) of each path; empty if the connection can't be read."""
        try:
            return self.connection.targets if self.connection is not None else frozenset()
        except UnheardError:
            return frozenset()

    @cached_property
    def _connection(self) -> Connection | UnheardError | None:
        try:
            if not self.connection_written:
                return None
            info = json.loads(text(self.raw, "connection_info") or "")
            if not isinstance(info, dict):
                return UnheardError("connection_info of the block device mapping can't be read")
            return Connection(info, mapping(info, "data") if "data" in info else {})
        except UnheardError as reason:
            return reason
        except (ValueError, RecursionError):
            return UnheardError("connection_info of the block device mapping can't be read")


def _lower(raw: Mapping[str, object], key: str) -> str | None:
    value = _plain(raw, key)
    return value.lower() if value else None


def _plain(raw: Mapping[str, object], key: str) -> str | None:
    value = raw.get(key)
    return value if isinstance(value, str) and value else None
