"""What the nova database says of one disk of a VM: its row in `block_device_mapping`."""

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
    """How the volume is reached, as the column `connection_info` or cinder's attachment has it."""

    def __init__(self, raw: Mapping[str, object], data: Mapping[str, object]) -> None:
        self._raw, self._data = raw, data

    @property
    def kind(self) -> str | None:
        """`nfs`, `rbd`, `iscsi`, `fibre_channel`, `nvmeof` …; None if it does not say."""
        return _plain(self._raw, "driver_volume_type")

    @property
    def serial(self) -> str | None:
        """What the guest is shown as the disk's serial number: the volume's id."""
        return _plain(self._raw, "serial")

    @property
    def name(self) -> str | None:
        """The file of a volume on NFS, or `pool/volume-UUID` of rbd."""
        return _plain(self._data, "name")

    @property
    def export(self) -> str | None:
        """The server's folder of a volume on NFS: `10.0.0.5:/volumes`."""
        return _plain(self._data, "export")

    @property
    def device_path(self) -> str | None:
        """Where nova-compute found the device or file, when it last connected the volume."""
        return _plain(self._data, "device_path")

    @property
    def targets(self) -> frozenset[tuple[str, int]]:
        """Each iSCSI target (lower case) and the number of its LUN; empty if it is no iSCSI."""
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
    """One row of `block_device_mapping`, which nova calls a BDM. What its release has no column
    for is `UnheardError`."""

    layer: ClassVar[Layer] = NOVA_DB
    noun: ClassVar[str] = "bdm"
    raw: Mapping[str, object]
    database: str

    def where(self, name: str) -> tuple[Answer | None, str]:
        """As of any fact; the place starts with the row's number."""
        answer, place = super().where(name)
        return answer, f"{self.database}.block_device_mapping[id={self.raw.get('id')}].{place}"

    @property
    def id(self) -> int | None:
        """The row's number."""
        return integer(self.raw, "id")

    @property
    def instance_uuid(self) -> str:
        """Whose disk it is, lower case."""
        return (text(self.raw, "instance_uuid") or "").lower()

    @property
    def boot_index(self) -> int | None:
        """0 for the disk that it boots from; negative or None for one that it never does."""
        return integer(self.raw, "boot_index")

    @property
    def destination_type(self) -> str | None:
        """What it is: a `volume`, or `local` for a disk that nova keeps."""
        return text(self.raw, "destination_type")

    @property
    def device_name(self) -> str | None:
        """`/dev/vdb`."""
        return text(self.raw, "device_name")

    @property
    def volume_id(self) -> str | None:
        """Lower case; None if it is no volume, or not made yet."""
        volume = text(self.raw, "volume_id")
        return volume.lower() if volume else None

    @property
    def attachment_id(self) -> str | None:
        """Cinder's attachment; None for one that was made before Queens."""
        attachment = text(self.raw, "attachment_id")
        return attachment.lower() if attachment else None

    @property
    def deleted(self) -> bool:
        """It was plugged out, or its instance is deleted."""
        return bool(integer(self.raw, "deleted"))

    @property
    def is_volume(self) -> bool:
        """Whether it is a cinder volume (or is to become one)."""
        return self.destination_type == "volume"

    @property
    def connection_written(self) -> bool:
        """Whether nova has noted down at all how the volume is reached."""
        return text(self.raw, "connection_info") not in (None, "", "null")

    @property
    def connection(self) -> Connection | None:
        """How the volume is reached; None if nova has not noted it. `UnheardError` if it is no
        JSON."""
        if isinstance(self._connection, UnheardError):
            raise UnheardError(str(self._connection))
        return self._connection

    @property
    def targets_shown(self) -> frozenset[tuple[str, int]]:
        """The iSCSI targets and LUNs of its connection; none if that can't be read."""
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
                return UnheardError("the connection_info can't be read")
            return Connection(info, mapping(info, "data") if "data" in info else {})
        except UnheardError as reason:
            return reason
        except (ValueError, RecursionError):
            return UnheardError("the connection_info can't be read")


def _plain(raw: Mapping[str, object], key: str) -> str | None:
    value = raw.get(key)
    return value if isinstance(value, str) and value else None
