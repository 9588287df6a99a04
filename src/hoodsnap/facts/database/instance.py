"""Rows of `instances`, and the rows of other tables that belong to an instance."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from hoodsnap.bundle import Answer
from hoodsnap.facts.database.action import ActionStep, InstanceAction
from hoodsnap.facts.database.block_device_mapping import BlockDeviceMapping
from hoodsnap.facts.database.migration import Migration
from hoodsnap.facts.database.network_info import NetworkInterface, read_network_info
from hoodsnap.facts.database.power_state import POWER_STATES
from hoodsnap.facts.database.request_spec import RequestSpec, read_request_spec
from hoodsnap.facts.database.stored_flavor import StoredFlavor, read_pins
from hoodsnap.facts.database.stored_object import fields_of, read_object
from hoodsnap.facts.database.tables import Row, Tables
from hoodsnap.facts.fact import Documented, DocumentedField, Fact, UnheardError, integer, text
from hoodsnap.facts.layer import NOVA_DB, Layer
from hoodsnap.facts.quantity import whole

TABLE_OF = {
    "extra": "instance_extra",
    "cache": "instance_info_caches",
    "cards": "virtual_interfaces",
    "fault": "instance_faults",
    "action": "instance_actions",
    "metadata": "instance_system_metadata",
}
"""Part of the fact → its table, for the parts outside of `instances`."""

POWERS = "`running`, `shut down`, `paused` …"
"""Help text for the values of `power_word`."""


def power_word(state: int | None) -> str | None:
    """Return the word for one of nova's codes, or an unknown code as text; None for None."""
    return None if state is None else POWER_STATES.get(state, str(state))


@dataclass(frozen=True, eq=False, kw_only=True)
class Instance(Fact):
    """One row of `instances`, or an archived one of `shadow_instances`."""

    layer: ClassVar[Layer] = NOVA_DB
    noun: ClassVar[str] = "instance"
    raw: Mapping[str, object]
    database: str
    archived: bool = False
    instance_extra: Mapping[str, object] | None = None
    """The instance's row in `instance_extra`; None without one, or if it was not collected."""
    devices: tuple[Mapping[str, object], ...] | None = None
    """The instance's live rows in `block_device_mapping`; None if they were not collected."""
    mappings_ever: tuple[BlockDeviceMapping, ...] = ()
    """The instance's collected rows of `block_device_mapping`, including deleted ones."""
    migrations: tuple[Migration, ...] | None = None
    """The instance's migrations, including finished ones; None if they were not collected."""
    info_cache: Mapping[str, object] | None = None
    """The row in `instance_info_caches`, empty without one; None if it was not collected."""
    virtual_interfaces: tuple[Mapping[str, object], ...] | None = None
    """The instance's live rows in `virtual_interfaces`; None if they were not collected."""
    newer: Mapping[str, Answer] = field(default_factory=dict)
    """Column → the later answer that updated it by reading fewer columns."""
    tables: Tables | None = None
    """All collected rows of all tables."""

    own: ClassVar[str] = "row"

    places: ClassVar[Mapping[str, tuple[str, str]]] = {
        "memory_mib": ("row", "memory_mb"),
        "flavor_memory_mib": ("extra", "flavor.cur.memory_mb"),
        "flavor_vcpus": ("extra", "flavor.cur.vcpus"),
        "flavor_root_gb": ("extra", "flavor.cur.root_gb"),
        "image": ("row", "image_ref"),
        "mappings": ("mappings", "block_device_mapping"),
        "devices": ("mappings", "block_device_mapping"),
        "fault_message": ("fault", "message"),
        "fault_at": ("fault", "created_at"),
        "fault_code": ("fault", "code"),
        "fault_host": ("fault", "host"),
        "action": ("action", "action"),
        "action_at": ("action", "start_time"),
        "action_by": ("action", "user_id"),
        "request": ("action", "request_id"),
        "clean_attempts": ("metadata", "clean_attempts"),
        "base_image": ("metadata", "image_base_image_ref"),
        "shelved_image": ("metadata", "shelved_image_id"),
        "image_copy": ("metadata", "image_*"),
        "old_vm_state": ("metadata", "old_vm_state"),
        "shutdown_timeout": ("metadata", "image_os_shutdown_timeout"),
        "card_model": ("metadata", "image_hw_vif_model"),
        "archived": ("row", ""),
        "cell": ("row", ""),
        "network_info": ("cache", "network_info"),
        "cached_ports": ("cache", "network_info"),
        "macs": ("cards", "address"),
        "pins": ("extra", "numa_topology"),
        "flavor": ("extra", "flavor.cur.name"),
        "old_flavor": ("extra", "flavor.old.name"),
        "new_flavor": ("extra", "flavor.new.name"),
    }

    documented: ClassVar[Documented] = (
        *("uuid", "id", "name", "cell", "host", "node", "vm_state", "task_state"),
        DocumentedField("power", POWERS, lambda record: power_word(record.power_state)),
        *("image", "memory_mib", "vcpus", "config_drive", "updated_at", "launched_at"),
        *("deleted", "fault_message"),
    )

    def where(self, name: str) -> tuple[Answer | None, str]:
        """Return the answer and the place in it, which starts with the table and the UUID."""
        answer, place = super().where(name)
        answer = self.newer.get(place, answer)
        part = self.places.get(name, ("",))[0]
        if part == "fault" and self.fault is not None:
            answer = self.fault.answer
        elif part == "action" and self.last_action is not None:
            answer = self.last_action.answer
        elif part == "metadata":
            answer = self._metadata[1]
        table = TABLE_OF.get(part, "instances")
        return answer, f"{self.database}.{table}[uuid={self.uuid}].{place}"

    @cached_property
    def uuid(self) -> str:
        """UUID of the instance, lower case."""
        return (text(self.raw, "uuid") or "").lower()

    @property
    def id(self) -> int | None:
        """Primary key of the row. nova builds the domain's name from it."""
        return integer(self.raw, "id")

    @property
    def cell(self) -> str:
        """Name of the database that holds the row. Each cell has one."""
        return self.database

    @cached_property
    def name(self) -> str:
        """Display name, chosen by the owner."""
        return text(self.raw, "display_name") or ""

    @property
    def host(self) -> str | None:
        """The nova-compute host; None if the instance is on no host."""
        return text(self.raw, "host") or None

    @property
    def node(self) -> str | None:
        """Hypervisor host name of the compute node; None if the instance is on no host."""
        return text(self.raw, "node") or None

    @property
    def hidden(self) -> bool:
        """True if a row in another cell counts instead (Train and later)."""
        return "hidden" in self.raw and bool(integer(self.raw, "hidden"))

    @property
    def cleaned(self) -> bool:
        """True if nova has removed the instance's files."""
        return bool(integer(self.raw, "cleaned"))

    @property
    def clean_attempts(self) -> int:
        """Failed attempts of nova-compute to remove the files. It gives up after five."""
        return whole(self._metadata[0].get("clean_attempts", 0)) or 0

    @property
    def shutdown_timeout(self) -> int | None:
        """Seconds to shut down, set by the image; None if nova.conf decides."""
        return whole(self._metadata[0].get("image_os_shutdown_timeout"))

    @property
    def shelved_image(self) -> str | None:
        """Id of the image that a shelved server is restored from; None without one."""
        uuid = self._metadata[0].get("shelved_image_id")
        return uuid.lower() if isinstance(uuid, str) and uuid else None

    @property
    def base_image(self) -> str | None:
        """Id of the image below the instance's disk, in nova's copy of the image's properties."""
        return self.image_copy.get("base_image_ref") or None

    @cached_property
    def image_copy(self) -> Mapping[str, str]:
        """nova's copy of the image's properties, without their prefix `image_`."""
        return {
            name.removeprefix("image_"): value
            for name, value in self._metadata[0].items()
            if name.startswith("image_") and isinstance(value, str)
        }

    @property
    def card_model(self) -> str | None:
        """Model of its network cards, set by the image; None if nova decides."""
        value = self._metadata[0].get("image_hw_vif_model")
        return value if isinstance(value, str) else None

    @property
    def old_vm_state(self) -> str | None:
        """`active` or `stopped` before a resize that is not confirmed; None without one."""
        state = self._metadata[0].get("old_vm_state")
        return state if isinstance(state, str) else None

    @cached_property
    def _metadata(self) -> tuple[Mapping[str, object], Answer]:
        """`instance_system_metadata` by key, also of a deleted instance; and its answer."""
        asked = self.tables.read.get((self.database, TABLE_OF["metadata"])) if self.tables else None
        if self.tables is None or not asked:
            raise UnheardError("the instance's system metadata was not collected")
        rows = [*self.tables.of(TABLE_OF["metadata"], self.uuid, self.database)]
        answer = rows[-1].answer if rows else asked[-1]
        return {str(row.cells.get("key")): row.cells.get("value") for row in rows}, answer

    @cached_property
    def fault(self) -> Row | None:
        """The instance's newest row in `instance_faults`; None without one."""
        return self._newest(TABLE_OF["fault"])

    @cached_property
    def last_action(self) -> Row | None:
        """The instance's newest row in `instance_actions`; None without one."""
        return self._newest(TABLE_OF["action"])

    def _newest(self, table: str) -> Row | None:
        numbered = {whole(row.cells.get("id")) or 0: row for row in self.rows(table)}
        return numbered[max(numbered)] if numbered else None

    @property
    def fault_message(self) -> str | None:
        """Message of the last fault, as the owner sees it; None without a fault."""
        return text(self.fault.cells, "message") if self.fault is not None else None

    @property
    def fault_at(self) -> str | None:
        """Time of the last fault, UTC; None without a fault."""
        return text(self.fault.cells, "created_at") if self.fault is not None else None

    @property
    def fault_code(self) -> int | None:
        """HTTP status of the last fault, for example 500; None without a fault."""
        return integer(self.fault.cells, "code") if self.fault is not None else None

    @property
    def fault_host(self) -> str | None:
        """Host of the service that reported the last fault; None without a fault."""
        return text(self.fault.cells, "host") if self.fault is not None else None

    @cached_property
    def actions(self) -> tuple[InstanceAction, ...]:
        """The newest actions, the oldest first. Raises `UnheardError` if not collected."""
        found = {whole(row.cells.get("id")) or 0: row for row in self.rows(TABLE_OF["action"])}
        return tuple(
            InstanceAction(
                raw=found[number].cells,
                database=self.database,
                steps=self._steps_of(number),
                said={"row": found[number].answer},
            )
            for number in sorted(found)
        )

    def _steps_of(self, action: int) -> tuple[ActionStep, ...] | None:
        table = "instance_actions_events"
        asked = self.tables.read.get((self.database, table), ()) if self.tables else ()
        if self.tables is None or not any(
            self.tables.asks_for_number(answer, action) for answer in asked
        ):
            return None
        if None in self.tables.rows.get((self.database, table), {}):
            return None  # a damaged row may be a step of this action
        rows = self.tables.of(table, action, self.database)
        numbered = {whole(row.cells.get("id")) or 0: row for row in rows}
        return tuple(
            ActionStep(raw=row.cells, database=self.database, said={"row": row.answer})
            for _, row in sorted(numbered.items(), key=lambda item: item[0])
        )

    @property
    def action(self) -> str | None:
        """The last action that was requested: `stop`, `resize` …; None without one."""
        return self._of_action("action")

    @property
    def action_at(self) -> str | None:
        """Time at which the last action was requested, UTC; None without one."""
        return self._of_action("start_time")

    @property
    def action_by(self) -> str | None:
        """Id of the user who requested the last action; None without one."""
        return self._of_action("user_id")

    @property
    def request(self) -> str | None:
        """Request id of the last action, by which nova's logs can be searched; None without one."""
        return self._of_action("request_id")

    @property
    def action_failed(self) -> bool:
        """True if the last action ended with an error."""
        return self._of_action("message") is not None

    def _of_action(self, column: str) -> str | None:
        return text(self.last_action.cells, column) if self.last_action is not None else None

    @cached_property
    def vm_state(self) -> str:
        """`active`, `stopped`, `soft-delete` …"""
        return text(self.raw, "vm_state") or ""

    @cached_property
    def task_state(self) -> str | None:
        """The task that nova is performing: `powering-off`, `resize_prep` …; None if none."""
        return text(self.raw, "task_state") or None

    @property
    def power_state(self) -> int | None:
        """Code of `PowerState`; None if the column is NULL."""
        return integer(self.raw, "power_state")

    @cached_property
    def image(self) -> str | None:
        """Id of the image that the instance was made from; None if it boots from a volume."""
        return text(self.raw, "image_ref") or None

    @property
    def memory_mib(self) -> int | None:
        """Memory in MiB, from the column `memory_mb`."""
        return integer(self.raw, "memory_mb")

    @property
    def vcpus(self) -> int | None:
        """Number of vCPUs, from the column `vcpus`."""
        return integer(self.raw, "vcpus")

    @property
    def config_drive(self) -> bool:
        """True if the instance has a config drive, a disk with its metadata."""
        return text(self.raw, "config_drive") == "True"

    @property
    def updated_at(self) -> str:
        """Time of the last update, or of the creation: UTC, `2026-11-23 01:11:11`."""
        return text(self.raw, "updated_at") or text(self.raw, "created_at") or ""

    @property
    def launched_at(self) -> str | None:
        """Time of the last launch, UTC; None if the instance never ran."""
        return text(self.raw, "launched_at")

    @property
    def deleted_at(self) -> str | None:
        """Time of the deletion, UTC; None if the instance is not deleted."""
        return text(self.raw, "deleted_at")

    @cached_property
    def deleted(self) -> bool:
        """True if the row is archived or marked as deleted (its `deleted` is no longer 0)."""
        return self.archived or bool(integer(self.raw, "deleted"))

    def rows(self, table: str) -> tuple[Row, ...]:
        """Return the instance's live rows in another table of the same database.

        Raises `UnheardError` if they were not collected.
        """
        if table not in self._rows_read:
            self._rows_read[table] = self._read_rows(table)
        return self._rows_read[table]

    @cached_property
    def _rows_read(self) -> dict[str, tuple[Row, ...]]:
        """Live rows by table, filled by `rows`: several checks read the same ones."""
        return {}

    def _read_rows(self, table: str) -> tuple[Row, ...]:
        key = (self.database, table)
        if self.tables is None or self.archived:
            raise UnheardError(f"the instance's rows in {table} were not collected")
        failed = any(f".{table} " in answer.query for answer in self.tables.failures)
        asked = self.tables.read.get(key, ())
        if failed or not any(self.tables.asks_for(answer, self.uuid) for answer in asked):
            raise UnheardError(f"the instance's rows in {table} were not collected")
        found = self.tables.of(table, self.uuid, self.database)
        return tuple(row for row in found if not row.cells.get("deleted"))

    def pci_devices(self, node: int | None) -> Mapping[str, Row]:
        """Return address → row of the PCI devices that nova reserved for the instance.

        `node` is the id of the compute node. Raises `UnheardError` if they were not collected.
        """
        table = (self.database, "pci_devices")
        tables, asked = self.tables, self.tables.read.get(table, ()) if self.tables else ()
        if tables is None or not any(str(node) in _nodes(answer.query) for answer in asked):
            raise UnheardError("the host's rows in pci_devices were not collected")
        rows = tables.of("pci_devices", self.uuid, self.database)
        return {
            text(row.cells, "address") or "": row
            for row in rows
            if integer(row.cells, "compute_node_id") == node
            and not integer(row.cells, "deleted")
            and text(row.cells, "status") in ("allocated", "claimed")
        }

    @cached_property
    def request_spec(self) -> RequestSpec | Answer:
        """The scheduler's criteria for the next move, or the answer that proves its absence.

        Raises `UnheardError`.
        """
        if self.tables is None:
            raise UnheardError("the instance's request spec was not collected")
        return read_request_spec(self.tables, self.uuid)

    @cached_property
    def _flavors(self) -> Mapping[str, object] | UnheardError:
        if self.instance_extra is None:
            return UnheardError("the instance's stored flavor was not collected")
        try:
            return read_object(text(self.instance_extra, "flavor"), "the instance's stored flavor")
        except UnheardError as reason:
            return reason

    def stored_flavor(self, which: str) -> Mapping[str, object] | None:
        """Return the fields of a stored flavor; None if there is no such flavor.

        `which` is `cur`, or during a resize also `old` or `new`.
        """
        if isinstance(self._flavors, UnheardError):
            raise UnheardError(str(self._flavors))
        return None if self._flavors.get(which) is None else fields_of(self._flavors, which)

    @cached_property
    def flavor(self) -> StoredFlavor:
        """The flavor as it was at boot, stored with the instance (Kilo and later)."""
        data = self.stored_flavor("cur")
        if data is None:
            raise UnheardError("the instance's stored flavor can't be read")
        return StoredFlavor.read(data)

    @cached_property
    def pins(self) -> Mapping[int, int]:
        """vCPU → the host CPU that nova reserved for it; empty without pinning."""
        if self.instance_extra is None:
            raise UnheardError("the instance's NUMA topology was not collected")
        return read_pins(text(self.instance_extra, "numa_topology"))

    @property
    def flavor_memory_mib(self) -> int | None:
        """Memory of the stored flavor in MiB."""
        return self.flavor.memory_mib

    @property
    def flavor_vcpus(self) -> int | None:
        """Number of vCPUs of the stored flavor."""
        return self.flavor.vcpus

    @cached_property
    def mappings_shown(self) -> tuple[BlockDeviceMapping, ...]:
        """The collected live rows. `mappings` raises if some may be missing."""
        return tuple(row for row in self.mappings_ever if not row.raw.get("deleted"))

    @property
    def mappings(self) -> tuple[BlockDeviceMapping, ...]:
        """All live rows of the instance in `block_device_mapping`.

        Raises `UnheardError` if some may be missing.
        """
        if "mappings" not in self.said:
            raise UnheardError("the instance's block device mappings were not collected")
        return self.mappings_shown

    @property
    def flavor_root_gb(self) -> int | None:
        """GiB of the stored flavor's root disk."""
        return self.flavor.root_gb

    @cached_property
    def boots_from_volume(self) -> bool:
        """True if the root disk is a volume, not a local disk."""
        if self.devices is None:
            raise UnheardError("the instance's block device mappings were not collected")
        roots = [device for device in self.devices if integer(device, "boot_index") == 0]
        if not roots:
            return self.image is None
        return any(text(root, "destination_type") == "volume" for root in roots)

    @cached_property
    def network_info(self) -> tuple[NetworkInterface, ...]:
        """The ports in nova's info cache; empty if the cache is empty or has no row."""
        if self.info_cache is None:
            raise UnheardError("the instance's info cache was not collected")
        return read_network_info(text(self.info_cache, "network_info") if self.info_cache else None)

    @property
    def cached_ports(self) -> tuple[str, ...]:
        """Ids of the ports in `network_info`."""
        return tuple(port.id for port in self.network_info)

    @cached_property
    def macs(self) -> Mapping[str, str]:
        """Port id → MAC address, lower case, as nova first recorded it (`virtual_interfaces`)."""
        if self.virtual_interfaces is None:
            raise UnheardError("the instance's virtual interfaces were not collected")
        found = {}
        for card in self.virtual_interfaces:
            # Since Pike the port's id follows the address, so that two rows may have one address.
            mac, port = (text(card, "address") or "").partition("/")[0], text(card, "uuid")
            if mac and port:
                found[port.lower()] = mac.lower()
        return found


_NODES = re.compile(r"compute_node_id`? IN \(([\d, ]*)\)")


def _nodes(statement: str) -> list[str]:
    """Return the ids of the compute nodes in a statement that selects PCI devices."""
    return [node for listed in _NODES.findall(statement) for node in listed.split(", ")]
