"""Rows about hosts in the nova databases: services, compute nodes, host mappings and cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, TypeVar

from hoodsnap.bundle import Answer
from hoodsnap.facts.database.tables import Row, Tables
from hoodsnap.facts.fact import Fact, UnheardError, integer, text
from hoodsnap.facts.layer import NOVA_DB, Layer

CELL0 = "00000000-0000-0000-0000-000000000000"
"""UUID of cell0, which holds the instances that could not be scheduled."""


@dataclass(frozen=True, eq=False, kw_only=True)
class HostRecord(Fact):
    """One row of a table about hosts."""

    layer: ClassVar[Layer] = NOVA_DB
    table: ClassVar[str]
    raw: Mapping[str, object]
    database: str

    def where(self, name: str) -> tuple[Answer | None, str]:
        """Return the answer and the place in it, which starts with the row's id."""
        answer, place = super().where(name)
        return answer, f"{self.database}.{self.table}[id={self.raw.get('id')}].{place}"

    @property
    def id(self) -> int | None:
        """Primary key of the row."""
        return integer(self.raw, "id")

    @property
    def host(self) -> str | None:
        """The nova-compute host. Before Kilo a compute node has a service instead."""
        return text(self.raw, "host")

    @property
    def uuid(self) -> str | None:
        """UUID in lower case; services have one since Pike, compute nodes since Mitaka."""
        return (text(self.raw, "uuid") or "").lower() or None

    @property
    def updated_at(self) -> str | None:
        """UTC, `2026-11-23 01:11:11`; None if the row has not changed since it was created."""
        return text(self.raw, "updated_at")

    @property
    def deleted(self) -> bool:
        """True if the row is marked as deleted."""
        return bool(integer(self.raw, "deleted"))


@dataclass(frozen=True, eq=False, kw_only=True)
class Service(HostRecord):
    """One row of `services`."""

    noun: ClassVar[str] = "service"
    table: ClassVar[str] = "services"

    @property
    def binary(self) -> str | None:
        """`nova-compute`, `nova-conductor` …"""
        return text(self.raw, "binary")

    @property
    def disabled(self) -> bool:
        """True if the scheduler places no new instances on the host."""
        return bool(integer(self.raw, "disabled"))

    @property
    def disabled_reason(self) -> str | None:
        """Reason why the service is disabled; None if none was given."""
        return text(self.raw, "disabled_reason")

    @property
    def forced_down(self) -> bool:
        """True if an operator forced the service down to evacuate its servers (since Liberty)."""
        return bool(integer(self.raw, "forced_down"))

    @property
    def version(self) -> int | None:
        """nova's service version (Liberty and later); see cloud/release.py."""
        return integer(self.raw, "version")

    @property
    def last_seen_up(self) -> str | None:
        """Time of the service's last report, UTC. Before Liberty it is `updated_at`."""
        if "last_seen_up" not in self.raw:
            return self.updated_at
        return text(self.raw, "last_seen_up")


@dataclass(frozen=True, eq=False, kw_only=True)
class ComputeNode(HostRecord):
    """One row of `compute_nodes`: the hypervisor as nova-compute last reported it."""

    noun: ClassVar[str] = "compute node"
    table: ClassVar[str] = "compute_nodes"

    @property
    def hypervisor_hostname(self) -> str | None:
        """libvirt's host name; the resource provider has the same name."""
        return text(self.raw, "hypervisor_hostname")

    @property
    def host_ip(self) -> str | None:
        """`my_ip` in the host's nova.conf."""
        return text(self.raw, "host_ip")

    @property
    def hypervisor_type(self) -> str | None:
        """`QEMU` (also for KVM), `ironic` …"""
        return text(self.raw, "hypervisor_type")


@dataclass(frozen=True, eq=False, kw_only=True)
class HostMapping(HostRecord):
    """One row of `host_mappings`: the cell of a host (Liberty and later)."""

    noun: ClassVar[str] = "host mapping"
    table: ClassVar[str] = "host_mappings"

    @property
    def cell_id(self) -> int | None:
        """Primary key of the cell's row in `cell_mappings`."""
        return integer(self.raw, "cell_id")


R = TypeVar("R", bound=HostRecord)


class HostRecords:
    """All rows about hosts in the nova databases."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    @cached_property
    def services(self) -> tuple[Service, ...]:
        """Services of all hosts, including deleted ones."""
        found = self._rows("services")
        return tuple(Service(raw=r.cells, database=b, said={"row": r.answer}) for b, r in found)

    @cached_property
    def nodes(self) -> tuple[ComputeNode, ...]:
        """Compute nodes of the queried hosts, including deleted ones."""
        found = self._rows("compute_nodes")
        return tuple(ComputeNode(raw=r.cells, database=b, said={"row": r.answer}) for b, r in found)

    @cached_property
    def mappings(self) -> tuple[HostMapping, ...]:
        """Host mappings: the cell of each host."""
        found = self._rows("host_mappings")
        return tuple(HostMapping(raw=r.cells, database=b, said={"row": r.answer}) for b, r in found)

    @cached_property
    def cells(self) -> Mapping[object, str]:
        """`cell_mappings.id` → the cell's database, named as in other rows.

        A cell whose database was not read is left out if another cell's database has the same name.
        """
        rows = [row.cells for row in self._tables.of("cell_mappings")]
        names = [row.get("database_name") for row in rows]
        found: dict[object, str] = {}
        for row, name in zip(rows, names, strict=True):
            known = self._tables.database_of(row, ComputeNode.table)
            if known is not None:
                found[row.get("id")] = known
            elif isinstance(name, str) and names.count(name) == 1:
                found[row.get("id")] = name
        return found

    def read(self, table: str) -> Answer:
        """Return an answer that read a table: the evidence that a row does not exist.

        Raises `UnheardError` if the table was not read in every cell.
        """
        failed = [answer for answer in self._tables.failures if f".{table}" in answer.query]
        if failed:
            error = failed[0].error
            why = error.message if error else f"the {table} table can't be read"
            raise UnheardError(f"nova database: {why}")
        answers = [
            answer
            for (_, name), read in self._tables.read.items()
            if name == table
            for answer in read
        ]
        if not answers:
            raise UnheardError(f"nova database: the {table} table was not collected")
        if table in ("services", "compute_nodes"):
            self._every_cell(table)
        return answers[-1]

    def _every_cell(self, table: str) -> None:
        for row in self._tables.of("cell_mappings"):
            name = row.cells.get("database_name")
            known = self._tables.database_of(row.cells, table)
            if row.cells.get("uuid") != CELL0 and known is None:
                raise UnheardError(
                    f"nova database: cell {name or row.cells.get('name')} was not collected"
                )

    def zone_of(self, host: str) -> tuple[str, Answer] | None:
        """Return the availability zone of a host's aggregate, and the answer that contains it.

        None if no aggregate of the host has a zone. Raises `UnheardError`.
        """
        self.read("aggregate_hosts")
        self.read("aggregate_metadata")
        member = self._tables.of("aggregate_hosts")
        own = [r.cells.get("aggregate_id") for r in member if r.cells.get("host") == host]
        for row in self._tables.of("aggregate_metadata"):
            zone = row.cells.get("value")
            is_zone = row.cells.get("key") == "availability_zone" and not row.cells.get("deleted")
            if is_zone and row.cells.get("aggregate_id") in own and isinstance(zone, str):
                return zone, row.answer
        return None

    @cached_property
    def zones(self) -> frozenset[str]:
        """Zones of all aggregates, also of those without hosts. Raises `UnheardError`."""
        self.read("aggregate_metadata")
        cells = [row.cells for row in self._tables.of("aggregate_metadata")]
        return frozenset(
            str(cell.get("value"))
            for cell in cells
            if cell.get("key") == "availability_zone" and not cell.get("deleted")
        )

    @cached_property
    def aggregates(self) -> Mapping[str, tuple[str, frozenset[str], Answer]]:
        """UUID of each aggregate → its name, its hosts, and the answer that lists the hosts.

        Raises `UnheardError`.
        """
        self.read("aggregates")
        listing = self.read("aggregate_hosts")
        members = [row.cells for row in self._tables.of("aggregate_hosts")]
        found: dict[str, tuple[str, frozenset[str], Answer]] = {}
        for row in self._tables.of("aggregates"):
            uuid, number = row.cells.get("uuid"), row.cells.get("id")
            if not isinstance(uuid, str) or row.cells.get("deleted"):
                continue
            hosts = frozenset(
                str(member.get("host"))
                for member in members
                if member.get("aggregate_id") == number and not member.get("deleted")
            )
            found[uuid.lower()] = str(row.cells.get("name")), hosts, listing
        return found

    def services_of(self, host: str) -> tuple[Service, ...]:
        """Return the live nova-compute rows of a host, by nova's name. Raises `UnheardError`."""
        if host not in self._services:
            self.read("services")
        return self._services.get(host, ())

    def nodes_of(self, host: str) -> tuple[ComputeNode, ...]:
        """Return a host's live compute nodes. Raises `UnheardError`.

        A libvirt host has one, an Ironic host many.
        """
        if host not in self._nodes:
            self.read("compute_nodes")
            for node in self.nodes:
                node.host  # noqa: B018 (raises for an unknown host, which might be this one)
        return self._nodes.get(host, ())

    @cached_property
    def _services(self) -> Mapping[str, tuple[Service, ...]]:
        return _by_host(service for service in self.services if _is_compute(service))

    @cached_property
    def _nodes(self) -> Mapping[str, tuple[ComputeNode, ...]]:
        return _by_host(self.nodes)

    def _rows(self, table: str) -> Iterator[tuple[str, Row]]:
        for (database, name), owners in self._tables.rows.items():
            if name == table:
                for rows in owners.values():
                    for row in rows.values():
                        yield database, row


def _is_compute(service: Service) -> bool:
    try:
        return service.binary == "nova-compute"
    except UnheardError:
        return False


def _by_host(records: Iterable[R]) -> dict[str, tuple[R, ...]]:
    found: dict[str, list[R]] = {}
    for record in records:
        try:
            if record.host and not record.deleted:
                found.setdefault(record.host, []).append(record)
        except UnheardError:
            continue  # a row that can't be read belongs to no host
    return {host: tuple(rows) for host, rows in found.items()}
