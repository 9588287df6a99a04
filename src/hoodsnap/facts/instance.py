"""What the nova database says of a VM: its row in `instances`, and the rows that hang on it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import ClassVar, NamedTuple

from hoodsnap.bundle import Answer
from hoodsnap.facts.bdm import DeviceMapping
from hoodsnap.facts.fact import Fact, Unheard, integer, mapping, text, value_of
from hoodsnap.facts.mapping import InstanceMapping
from hoodsnap.facts.migration import Migration
from hoodsnap.facts.quantity import whole
from hoodsnap.facts.rows import Row, Tables
from hoodsnap.facts.service import CELL0, HostRecords
from hoodsnap.facts.spec import RequestSpec, read_spec
from hoodsnap.facts.vif import Vif, read_network_info

TABLE_OF = {
    "extra": "instance_extra",
    "cache": "instance_info_caches",
    "cards": "virtual_interfaces",
    "fault": "instance_faults",
    "metadata": "instance_system_metadata",
}
"""The tables of the parts that are no row of `instances`."""

DATA = "nova_object.data"
"""Where a stored object has its fields (since Kilo)."""


class Flavor(NamedTuple):
    """The flavor that an instance keeps a copy of."""

    name: str | None
    memory_mib: int | None
    vcpus: int | None
    root_gb: int | None
    """GiB of the root disk; 0: as large as the image is."""
    ephemeral_gb: int | None
    swap_mib: int | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Instance(Fact):
    """One row of `instances` (or of `shadow_instances`: then it is archived)."""

    layer: ClassVar[str] = "nova-db"
    noun: ClassVar[str] = "instance"
    raw: Mapping[str, object]
    database: str
    archived: bool = False
    extra: Mapping[str, object] | None = None
    """Its row in `instance_extra`; None if it has none or that was not read."""
    devices: tuple[Mapping[str, object], ...] | None = None
    """Its live rows in `block_device_mapping`; None if that was not read."""
    mappings_ever: tuple[DeviceMapping, ...] = ()
    """The rows of `block_device_mapping` that were shown, those that are deleted too."""
    migrations: tuple[Migration, ...] | None = None
    """Its moves, those that are over too; None if that was not read."""
    cache: Mapping[str, object] | None = None
    """Its row in `instance_info_caches`, empty if it has none; None if that was not read."""
    cards: tuple[Mapping[str, object], ...] | None = None
    """Its live rows in `virtual_interfaces`; None if that was not read."""
    looked: Mapping[str, Answer] = field(default_factory=dict)
    """For the columns that the second look brought up to date: its answer."""
    tables: Tables | None = None
    """Every row that was read, of any table."""

    places: ClassVar[Mapping[str, tuple[str, str]]] = {
        "memory_mib": ("row", "memory_mb"),
        "flavor_memory_mib": ("extra", "flavor.cur.memory_mb"),
        "flavor_vcpus": ("extra", "flavor.cur.vcpus"),
        "flavor_root_gb": ("extra", "flavor.cur.root_gb"),
        "image": ("row", "image_ref"),
        "mappings": ("mappings", "block_device_mapping"),
        "devices": ("devices", ""),
        "fault_message": ("fault", "message"),
        "fault_at": ("fault", "created_at"),
        "clean_attempts": ("metadata", "clean_attempts"),
        "archived": ("row", ""),
        "cell": ("row", ""),
        "vifs": ("cache", "network_info"),
        "cached_ports": ("cache", "network_info"),
        "macs": ("cards", "address"),
        "pins": ("extra", "numa_topology"),
        "flavor": ("extra", "flavor.cur.name"),
        "old_flavor": ("extra", "flavor.old.name"),
        "new_flavor": ("extra", "flavor.new.name"),
    }

    def where(self, name: str) -> tuple[Answer | None, str]:
        """As of any fact; the place starts with the row's id."""
        answer, place = super().where(name)
        answer = self.looked.get(place, answer)
        part = self.places.get(name, ("",))[0]
        if part == "fault" and self.fault is not None:
            answer = self.fault.answer
        elif part == "metadata":
            answer = self._metadata[1]
        table = TABLE_OF.get(part, "instances")
        return answer, f"{self.database}.{table}[uuid={self.uuid}].{place}"

    @property
    def uuid(self) -> str:
        """Lower case."""
        return (text(self.raw, "uuid") or "").lower()

    @property
    def id(self) -> int | None:
        """The row's number: the domain's name is made of it."""
        return integer(self.raw, "id")

    @property
    def cell(self) -> str:
        """The database that the row is in: one for each cell."""
        return self.database

    @property
    def name(self) -> str:
        """What its owner calls it."""
        return text(self.raw, "display_name") or ""

    @property
    def host(self) -> str | None:
        """The nova-compute host; None when it is on none."""
        return text(self.raw, "host") or None

    @property
    def node(self) -> str | None:
        """The compute node, by its hypervisor's host name; None when it is on none."""
        return text(self.raw, "node") or None

    @property
    def hidden(self) -> bool:
        """A copy of it in another cell is the one that counts (Train and later)."""
        return "hidden" in self.raw and bool(integer(self.raw, "hidden"))

    @property
    def cleaned(self) -> bool:
        """nova has removed its files."""
        return bool(integer(self.raw, "cleaned"))

    @property
    def clean_attempts(self) -> int:
        """How often nova-compute tried in vain to remove its files; after five it gives up."""
        return whole(self._metadata[0].get("clean_attempts", 0)) or 0

    @cached_property
    def _metadata(self) -> tuple[Mapping[str, object], Answer]:
        """What was read of its `instance_system_metadata`; of a deleted one, too."""
        asked = self.tables.read.get((self.database, TABLE_OF["metadata"])) if self.tables else None
        if self.tables is None or not asked:
            raise Unheard("the instance's system metadata was not read")
        rows = [*self.tables.of(TABLE_OF["metadata"], self.uuid, self.database)]
        answer = rows[-1].answer if rows else asked[-1]
        return {str(row.cells.get("key")): row.cells.get("value") for row in rows}, answer

    @cached_property
    def fault(self) -> Row | None:
        """The last of its rows in `instance_faults`; None if it has none."""
        numbered = {whole(row.cells.get("id")) or 0: row for row in self.rows(TABLE_OF["fault"])}
        return numbered[max(numbered)] if numbered else None

    @property
    def fault_message(self) -> str | None:
        """What went wrong last, as its owner is told; None if nothing did."""
        return text(self.fault.cells, "message") if self.fault is not None else None

    @property
    def fault_at(self) -> str | None:
        """When that was, UTC."""
        return text(self.fault.cells, "created_at") if self.fault is not None else None

    @cached_property
    def vm_state(self) -> str:
        """`active`, `stopped`, `soft-delete` …"""
        return text(self.raw, "vm_state") or ""

    @cached_property
    def task_state(self) -> str | None:
        """What nova is doing with it; None when nothing."""
        return text(self.raw, "task_state") or None

    @property
    def power_state(self) -> int | None:
        """As of a server."""
        return integer(self.raw, "power_state")

    @property
    def image(self) -> str | None:
        """The id of the image it was made from; None when it boots from a volume."""
        return text(self.raw, "image_ref") or None

    @property
    def memory_mib(self) -> int | None:
        """MiB, of the column `memory_mb`."""
        return integer(self.raw, "memory_mb")

    @property
    def vcpus(self) -> int | None:
        """Of the column `vcpus`."""
        return integer(self.raw, "vcpus")

    @property
    def config_drive(self) -> bool:
        """Whether a disk with its metadata is attached."""
        return text(self.raw, "config_drive") == "True"

    @property
    def updated_at(self) -> str:
        """UTC, `2026-11-23 01:11:11`."""
        return text(self.raw, "updated_at") or text(self.raw, "created_at") or ""

    @property
    def launched_at(self) -> str | None:
        """UTC; None if it never ran."""
        return text(self.raw, "launched_at")

    @property
    def deleted_at(self) -> str | None:
        """UTC; None while it is not."""
        return text(self.raw, "deleted_at")

    @cached_property
    def deleted(self) -> bool:
        """The row is marked deleted (its `deleted` is its id, no longer 0), or archived."""
        return self.archived or bool(integer(self.raw, "deleted"))

    def rows(self, table: str) -> tuple[Row, ...]:
        """Its live rows in another table of its database. `Unheard` if that was not asked."""
        key = (self.database, table)
        if self.tables is None or self.archived:
            raise Unheard(f"its {table} were not read")
        failed = any(f".{table} " in answer.query for answer in self.tables.failures)
        asked = self.tables.read.get(key, ())
        if failed or not any(self.tables.asks_for(answer, self.uuid) for answer in asked):
            raise Unheard(f"its {table} were not read")
        found = self.tables.of(table, self.uuid, self.database)
        return tuple(row for row in found if not row.cells.get("deleted"))

    def claims(self, node: int | None) -> Mapping[str, Row]:
        """The PCI devices of a compute node (by its number) that nova has reserved for it."""
        table = (self.database, "pci_devices")
        tables, asked = self.tables, self.tables.read.get(table, ()) if self.tables else ()
        of_node = re.compile(rf"compute_node_id`? IN \((?:\d+, )*{node}(?:, \d+)*\)")
        if tables is None or not any(of_node.search(answer.query) for answer in asked):
            raise Unheard("the host's PCI devices were not read")
        rows = tables.of("pci_devices", self.uuid, self.database)
        return {
            text(row.cells, "address") or "": row
            for row in rows
            if integer(row.cells, "compute_node_id") == node
            and not integer(row.cells, "deleted")
            and text(row.cells, "status") in ("allocated", "claimed")
        }

    @property
    def request_spec(self) -> RequestSpec | Answer:
        """What the scheduler goes by when it is moved; the answer that shows that there is none.
        Raises `Unheard`."""
        if self.tables is None:
            raise Unheard("its request spec was not read")
        return read_spec(self.tables, self.uuid)

    @cached_property
    def _flavors(self) -> Mapping[str, object] | Unheard:
        if self.extra is None:
            return Unheard("the instance's stored flavor was not read")
        try:
            stored = json.loads(text(self.extra, "flavor") or "")
        except Unheard as reason:
            return reason
        except (ValueError, RecursionError):
            return Unheard("the instance's stored flavor can't be read")
        if not isinstance(stored, dict):
            return Unheard("the instance's stored flavor can't be read")
        return stored

    def stored_flavor(self, which: str) -> Mapping[str, object] | None:
        """The fields of the flavor that it has (`cur`), and during a resize of the `old` and the
        `new`; None if there is none."""
        if isinstance(self._flavors, Unheard):
            raise Unheard(str(self._flavors))
        stored = self._flavors.get(which)
        return None if stored is None else mapping(mapping(self._flavors, which), DATA)

    @cached_property
    def flavor(self) -> Flavor:
        """The flavor as it was at boot, kept with the instance (Kilo and later)."""
        data = self.stored_flavor("cur")
        if data is None:
            raise Unheard("the instance's stored flavor can't be read")
        return Flavor(
            text(data, "name"),
            integer(data, "memory_mb"),
            integer(data, "vcpus"),
            integer(data, "root_gb"),
            integer(data, "ephemeral_gb"),
            integer(data, "swap"),
        )

    @cached_property
    def pins(self) -> Mapping[int, int]:
        """vCPU → the host's processor that nova has reserved for it. Empty if none is."""
        if self.extra is None:
            raise Unheard("the instance's NUMA topology was not read")
        stored = text(self.extra, "numa_topology")
        try:
            raw = json.loads(stored) if stored else {}
        except (ValueError, RecursionError):
            raise Unheard("the instance's NUMA topology can't be read") from None
        if not isinstance(raw, dict):
            raise Unheard("the instance's NUMA topology can't be read")
        found: dict[int, int] = {}
        cells = _data(raw).get("cells") if raw else ()
        for cell in cells if isinstance(cells, list | tuple) else ():
            pins = _data(cell).get("cpu_pinning_raw") if isinstance(cell, dict) else None
            for vcpu, cpu in pins.items() if isinstance(pins, dict) else ():
                number, processor = whole(vcpu), whole(cpu)
                if number is None or processor is None:
                    raise Unheard("the instance's NUMA topology can't be read")
                found[number] = processor
        return found

    @property
    def flavor_memory_mib(self) -> int | None:
        """MiB, of the stored flavor."""
        return self.flavor.memory_mib

    @property
    def flavor_vcpus(self) -> int | None:
        """Of the stored flavor."""
        return self.flavor.vcpus

    @cached_property
    def mappings_shown(self) -> tuple[DeviceMapping, ...]:
        """Those rows of it that are live; `mappings` knows whether that is all."""
        return tuple(row for row in self.mappings_ever if not row.raw.get("deleted"))

    @property
    def mappings(self) -> tuple[DeviceMapping, ...]:
        """Its live rows in `block_device_mapping`: all that there are."""
        if "mappings" not in self.said:
            raise Unheard("the instance's block devices were not read")
        return self.mappings_shown

    @property
    def flavor_root_gb(self) -> int | None:
        """GiB, of the stored flavor."""
        return self.flavor.root_gb

    @property
    def boots_from_volume(self) -> bool:
        """Its root disk is a volume, not a file of its own."""
        if self.devices is None:
            raise Unheard("the instance's block devices were not read")
        roots = [device for device in self.devices if integer(device, "boot_index") == 0]
        if not roots:
            return self.image is None
        return any(text(root, "destination_type") == "volume" for root in roots)

    @cached_property
    def vifs(self) -> tuple[Vif, ...]:
        """Its ports as nova noted them (the info cache); empty if the note is empty or gone."""
        if self.cache is None:
            raise Unheard("the instance's info cache was not read")
        return read_network_info(text(self.cache, "network_info") if self.cache else None)

    @property
    def cached_ports(self) -> tuple[str, ...]:
        """The ids of `vifs`."""
        return tuple(vif.id for vif in self.vifs)

    @cached_property
    def macs(self) -> Mapping[str, str]:
        """Port id → address, lower case, as nova first gave it (`virtual_interfaces`)."""
        if self.cards is None:
            raise Unheard("the instance's virtual interfaces were not read")
        found = {}
        for card in self.cards:
            # Since Pike the port's id stands behind the address, so that one may be used twice.
            mac, port = (text(card, "address") or "").partition("/")[0], text(card, "uuid")
            if mac and port:
                found[port.lower()] = mac.lower()
        return found


class Instances:
    """All that the nova databases said."""

    def __init__(self, answers: Iterable[Answer]) -> None:
        heard = tuple(answers)
        self.tables = Tables(heard)
        self.hosts = HostRecords(self.tables)
        self.by_uuid: dict[str, Instance] = {}
        self.doubted: str | None = None
        """Why these databases can't be those of the hosts that were captured."""
        self.copies: dict[str, list[Instance]] = {}
        """Every row of a UUID, in whatever database and however deleted."""
        errors = (answer.error for answer in heard if answer.error is not None)
        self.obstacle = next((error.message for error in errors if error.kind != "absent"), None)
        """Why the databases did not speak, if they did not even begin to."""
        self.clock = clock_of(heard)
        """When the database's clock was read, and what it showed."""
        for table, archived in (("shadow_instances", True), ("instances", False)):
            for (database, name), owners in self.tables.rows.items():
                if name == table:
                    for rows in owners.values():
                        for row in rows.values():
                            self._add(row, database, archived)

    def _add(self, row: Row, database: str, archived: bool) -> None:
        uuid = row.cells.get("uuid")
        if not isinstance(uuid, str):
            return
        said = {"row": row.answer}
        extra = next(self.tables.of("instance_extra", uuid, database), None)
        if extra is not None:
            said["extra"] = extra.answer
        devices = None
        if (database, "block_device_mapping") in self.tables.read:
            rows = self.tables.of("block_device_mapping", uuid, database)
            devices = tuple(device.cells for device in rows if not device.cells.get("deleted"))
            if asked := self._asked_of_mappings(database, uuid):
                said["mappings"] = asked
        migrations = None
        if self._asked_of_migrations(database, uuid):
            migrations = tuple(self._moves(uuid))
        cache = self._cache(uuid, database)
        if cache is not None:
            said["cache"] = cache.answer
        cards = None
        if (database, "virtual_interfaces") in self.tables.read:
            found = [*self.tables.of("virtual_interfaces", uuid, database)]
            cards = tuple(card.cells for card in found if not card.cells.get("deleted"))
            for card in found:
                said["cards"] = card.answer
        instance = Instance(
            raw=row.cells,
            database=database,
            archived=archived,
            extra=extra and extra.cells,
            devices=devices,
            mappings_ever=tuple(self._mappings_of(uuid, database)),
            migrations=migrations,
            cache=cache.cells if cache is not None else None,
            cards=cards,
            looked=row.looked,
            tables=self.tables,
            said=said,
        )
        self.copies.setdefault(uuid.lower(), []).append(instance)
        before = self.by_uuid.get(uuid.lower())
        # A UUID may have rows in two cells, and old ones beside a live one: the live one speaks.
        if before is None or _liveliness(instance) >= _liveliness(before):
            self.by_uuid[uuid.lower()] = instance

    def _asked_of_migrations(self, database: str, uuid: str) -> bool:
        """Whether its cell told whether one instance is moved; another cell's word is none."""
        answers = self.tables.read.get((database, "migrations"), ())
        return any(
            "status NOT IN" in answer.query
            or (" uuid IN (" not in answer.query and self.tables.asks_for(answer, uuid))
            for answer in answers
        )

    def _asked_of_mappings(self, database: str, uuid: str) -> Answer | None:
        """An answer that has all live rows of one instance. Some are of volumes, not of it."""
        for answer in self.tables.read[(database, "block_device_mapping")]:
            if "volume_id IN (" not in answer.query and self.tables.asks_for(answer, uuid):
                return answer
        return None

    def _mappings_of(self, uuid: str, database: str) -> Iterator[DeviceMapping]:
        for row in self.tables.of("block_device_mapping", uuid, database):
            yield DeviceMapping(raw=row.cells, database=database, said={"row": row.answer})

    def mappings(self) -> Iterator[DeviceMapping]:
        """Every row of `block_device_mapping` that was read, whosever it is."""
        for database, table in self.tables.rows:
            if table == "block_device_mapping":
                for row in self.tables.of(table, database=database):
                    yield DeviceMapping(raw=row.cells, database=database, said={"row": row.answer})

    def _cache(self, uuid: str, database: str) -> Row | None:
        """Its row in `instance_info_caches`, without cells if it has none; None if not read."""
        table = "instance_info_caches"
        row = next(self.tables.of(table, uuid, database), None)
        if row is not None:
            return row
        for answer in self.tables.read.get((database, table), ()):
            if self.tables.asks_for(answer, uuid):
                return Row({}, answer, {})
        return None

    def _moves(self, uuid: str) -> Iterator[Migration]:
        for base, row in self.tables.each("migrations", uuid):
            yield Migration(raw=row.cells, database=base, said={"row": row.answer})

    @cached_property
    def moves(self) -> Mapping[str, Migration]:
        """Every migration that was read, by the UUID under which it holds resources."""
        found = {}
        for (base, table), owners in self.tables.rows.items():
            for rows in owners.values() if table == "migrations" else ():
                for row in rows.values():
                    uuid = row.cells.get("uuid")
                    if isinstance(uuid, str):
                        move = Migration(raw=row.cells, database=base, said={"row": row.answer})
                        found[uuid.lower()] = move
        return found

    def without(self, uuid: str) -> Answer:
        """An answer that shows that this UUID is neither an instance nor a migration. Raises
        `Unheard` if it might be one."""
        if reason := self.searched(uuid):
            raise Unheard(f"nova database: {reason}")
        if next(self.tables.of("build_requests", uuid), None) is not None:
            raise Unheard("it is just being built")
        asked = self.asked(uuid)
        for cell in self.cells:
            if not self._is_cell0(cell) and not self._asked_for_move(cell, uuid):
                raise Unheard(f"{cell}.migrations was not asked for this UUID")
        if asked is None:
            raise Unheard("the nova database was not asked for this UUID")
        return asked

    def _asked_for_move(self, cell: str, uuid: str) -> bool:
        for answer in self.tables.read.get((cell, "migrations"), ()):
            # Before Queens a migration has no UUID, and nothing but servers holds resources.
            if uuid in answer.query or "uuid" not in answer.value["columns"]:
                return True
        return False

    def _is_cell0(self, database: str) -> bool:
        rows = self.tables.of("cell_mappings")
        return any(
            row.cells.get("uuid") == CELL0 and self.tables.database_of(row.cells) == database
            for row in rows
        )

    def mapping(self, uuid: str) -> InstanceMapping:
        """What the API database has of a UUID."""
        return InstanceMapping.read(self.tables, uuid)

    @property
    def cells(self) -> frozenset[str]:
        """The databases whose instances were read."""
        return frozenset(base for base, table in self.tables.read if table == "instances")

    def searched(self, uuid: str) -> str | None:
        """Why it can't be said that no database has this UUID; None if it can."""
        if self.doubted is not None:
            return self.doubted
        failed = [answer for answer in self.tables.failures if ".instances" in answer.query]
        if failed:
            return failed[0].error.message if failed[0].error else "the instances can't be read"
        if not self.cells:
            return self.obstacle or "it was not asked"
        if missing := self._unread_cells():
            return f"the cell {missing} was not read"
        for cell in self.cells:
            answers = self.tables.read[(cell, "instances")]
            if not any(self.tables.asks_for(answer, uuid) for answer in answers):
                return f"{cell}.instances was not asked for this UUID"
        return None

    def asked(self, uuid: str) -> Answer | None:
        """An answer that would have shown this UUID's row, had there been one."""
        for cell in sorted(self.cells):
            for answer in self.tables.read[(cell, "instances")]:
                if self.tables.asks_for(answer, uuid):
                    return answer
        return None

    def of_host(self, host: str) -> tuple[Instance, ...]:
        """Every instance on a host that is not deleted. `Unheard` unless all of them were read."""
        if self.doubted is not None:
            raise Unheard(f"nova database: {self.doubted}")
        failed = [answer for answer in self.tables.failures if ".instances" in answer.query]
        if failed or not self.cells:
            why = failed[0].error.message if failed and failed[0].error else self.obstacle
            raise Unheard(f"nova database: {why or 'the instances were not read'}")
        if missing := self._unread_cells():
            raise Unheard(f"the cell {missing} was not read")
        for cell in self.cells:
            asked = [answer.query for answer in self.tables.read[(cell, "instances")]]
            if not any(_asks_for_all(query, host) for query in asked):
                raise Unheard(f"{cell}.instances was not asked for all of host {host}")
        return self._by_host.get(host, ())

    @cached_property
    def _by_host(self) -> Mapping[str, tuple[Instance, ...]]:
        found: dict[str, list[Instance]] = {}
        for instance in self.by_uuid.values():
            if not instance.deleted and instance.host is not None:
                found.setdefault(instance.host, []).append(instance)
        return {host: tuple(instances) for host, instances in found.items()}

    def _unread_cells(self) -> str | None:
        for row in self.tables.of("cell_mappings"):
            if self.tables.database_of(row.cells) is None:
                return str(row.cells.get("database_name") or row.cells.get("name"))
        return None


def _asks_for_all(query: str, host: str) -> bool:
    """Whether a question is for whole rows, and for all of a host that are not deleted."""
    rows, _, condition = query.partition(" WHERE ")
    every = not condition or condition.startswith(("deleted = 0 OR ", f"host = '{host}' AND "))
    return "image_ref" in rows and every


def _data(stored: Mapping[str, object]) -> Mapping[str, object]:
    """The fields of a stored object: nova wraps them (since Kilo), or did not."""
    data = stored.get(DATA, stored)
    return data if isinstance(data, dict) else {}


def moment(written: str | None) -> datetime | None:
    """A time as the database or the API writes it, in UTC; None if it is none."""
    if not written:
        return None
    try:
        found = datetime.fromisoformat(written.replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _liveliness(instance: Instance) -> int:
    try:
        if instance.archived or instance.deleted:
            return 0 if instance.archived else 1
        if instance.hidden:
            return 2
        return 4 if instance.raw.get("host") else 3
    except Unheard:
        return 0


def clock_of(answers: Iterable[Answer]) -> tuple[Answer, datetime] | None:
    """When a database's clock was read, and what it showed."""
    for answer in answers:
        if answer.query.startswith("SELECT UTC_TIMESTAMP") and answer.error is None:
            try:
                rows = value_of(answer, "the clock", dict[str, list[list[str]] | list[str]])["rows"]
                shown = moment(str(rows[0][0]))
            except (Unheard, KeyError, IndexError):
                continue
            if shown is not None:
                return answer, shown
    return None
