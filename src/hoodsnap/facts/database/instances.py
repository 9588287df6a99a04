"""All rows of the nova databases, and the answers that prove that an instance does not exist."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

from hoodsnap.bundle import Answer
from hoodsnap.facts.clock import clock_of
from hoodsnap.facts.database.block_device_mapping import BlockDeviceMapping
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.instance_mapping import InstanceMapping
from hoodsnap.facts.database.migration import Migration
from hoodsnap.facts.database.service import CELL0, HostRecords
from hoodsnap.facts.database.tables import Row, Tables
from hoodsnap.facts.fact import UnheardError


class Instances:
    """All answers of the nova databases."""

    def __init__(self, answers: Iterable[Answer], doubted: str | None = None) -> None:
        heard = tuple(answers)
        self._heard = heard
        self.doubted = doubted
        """Reason why these can't be the captured hosts' databases; None without doubts."""
        self.tables = Tables(heard)
        self.hosts = HostRecords(self.tables)
        self.by_uuid: dict[str, Instance] = {}
        self.copies: dict[str, list[Instance]] = {}
        """UUID → its rows in all databases, including deleted and archived ones."""
        errors = (answer.error for answer in heard if answer.error is not None)
        self.obstacle = next((error.message for error in errors if error.kind != "absent"), None)
        """Message of the databases' first error, not counting `absent`; None without one."""
        self.clock = clock_of(heard)
        """The answer that read the database's clock, and the time it showed; None without one."""
        broken = any(".instances" in answer.query for answer in self.tables.failures)
        for table, archived in (("shadow_instances", True), ("instances", False)):
            for (database, name), owners in self.tables.rows.items():
                if name == table:
                    for rows in owners.values():
                        for row in rows.values():
                            # A row of markers alone would look like one with empty columns.
                            if not broken or "image_ref" in row.cells:
                                self._add(row, database, archived)

    def in_doubt(self, reason: str) -> Instances:
        """Return the same answers, marked as doubtful: not the captured hosts' databases."""
        return Instances(self._heard, reason)

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
            instance_extra=extra.cells if extra is not None else None,
            devices=devices,
            mappings_ever=tuple(self._mappings_of(uuid, database)),
            migrations=migrations,
            info_cache=cache.cells if cache is not None else None,
            virtual_interfaces=cards,
            newer=row.newer,
            tables=self.tables,
            said=said,
        )
        self.copies.setdefault(uuid.lower(), []).append(instance)
        before = self.by_uuid.get(uuid.lower())
        # A UUID may have rows in two cells, and deleted rows beside a live row, which counts.
        if before is None or _liveliness(instance) >= _liveliness(before):
            self.by_uuid[uuid.lower()] = instance

    def _asked_of_migrations(self, database: str, uuid: str) -> bool:
        """True if the migrations of an instance were collected from its own cell."""
        answers = self.tables.read.get((database, "migrations"), ())
        return any(
            "status NOT IN" in answer.query
            or (" uuid IN (" not in answer.query and self.tables.asks_for(answer, uuid))
            for answer in answers
        )

    def _asked_of_mappings(self, database: str, uuid: str) -> Answer | None:
        """Return an answer with all live rows of an instance, not one selected by volumes."""
        for answer in self.tables.read[(database, "block_device_mapping")]:
            if "volume_id IN (" not in answer.query and self.tables.asks_for(answer, uuid):
                return answer
        return None

    def _mappings_of(self, uuid: str, database: str) -> Iterator[BlockDeviceMapping]:
        for row in self.tables.of("block_device_mapping", uuid, database):
            yield BlockDeviceMapping(raw=row.cells, database=database, said={"row": row.answer})

    def mappings(self) -> Iterator[BlockDeviceMapping]:
        """Yield the collected rows of `block_device_mapping` of all instances."""
        for database, table in self.tables.rows:
            if table == "block_device_mapping":
                for row in self.tables.of(table, database=database):
                    yield BlockDeviceMapping(
                        raw=row.cells, database=database, said={"row": row.answer}
                    )

    def _cache(self, uuid: str, database: str) -> Row | None:
        """Return the row in `instance_info_caches`, empty without one; None if not collected."""
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
        """The collected migrations by UUID, which is their consumer id in placement."""
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
        """Return an answer that proves that a UUID is neither an instance nor a migration.

        Raises `UnheardError` if it may be one.
        """
        if reason := self.searched(uuid):
            raise UnheardError(f"nova database: {reason}")
        if next(self.tables.of("build_requests", uuid), None) is not None:
            raise UnheardError("nova database: the instance is still being built")
        asked = self.asked(uuid)
        for cell in self.cells:
            if not self._is_cell0(cell) and not self._asked_for_move(cell, uuid):
                raise UnheardError(
                    f"nova database: {cell}.migrations was not searched for this UUID"
                )
        if asked is None:
            raise UnheardError("nova database: no instances table was searched for this UUID")
        return asked

    def _asked_for_move(self, cell: str, uuid: str) -> bool:
        for answer in self.tables.read.get((cell, "migrations"), ()):
            # Before Queens migrations have no UUID, and only servers hold resources.
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
        """Return a UUID's row in the API database."""
        return InstanceMapping.read(self.tables, uuid)

    @property
    def cells(self) -> frozenset[str]:
        """Names of the databases whose `instances` were collected."""
        return frozenset(base for base, table in self.tables.read if table == "instances")

    def searched(self, uuid: str) -> str | None:
        """Return the reason why a UUID may still exist; None if every cell was searched."""
        if self.doubted is not None:
            return self.doubted
        failed = [answer for answer in self.tables.failures if ".instances" in answer.query]
        if failed:
            error = failed[0].error
            return error.message if error else "the instances table can't be read"
        if not self.cells:
            return self.obstacle or "the instances table was not collected"
        if missing := self._unread_cells():
            return f"cell {missing} was not collected"
        for cell in self.cells:
            answers = self.tables.read[(cell, "instances")]
            if not any(self.tables.asks_for(answer, uuid) for answer in answers):
                return f"{cell}.instances was not searched for this UUID"
        return None

    def asked(self, uuid: str) -> Answer | None:
        """Return an answer that would contain the row of a UUID; None without one."""
        for cell in sorted(self.cells):
            for answer in self.tables.read[(cell, "instances")]:
                if self.tables.asks_for(answer, uuid):
                    return answer
        return None

    def of_host(self, host: str) -> tuple[Instance, ...]:
        """Return all instances on a host that are not deleted.

        Raises `UnheardError` if some may be missing.
        """
        if self.doubted is not None:
            raise UnheardError(f"nova database: {self.doubted}")
        failed = [answer for answer in self.tables.failures if ".instances" in answer.query]
        if failed or not self.cells:
            why = failed[0].error.message if failed and failed[0].error else self.obstacle
            raise UnheardError(f"nova database: {why or 'the instances table was not collected'}")
        if missing := self._unread_cells():
            raise UnheardError(f"nova database: cell {missing} was not collected")
        for cell in self.cells:
            asked = [answer.query for answer in self.tables.read[(cell, "instances")]]
            if not any(_asks_for_all(query, host) for query in asked):
                raise UnheardError(
                    f"nova database: a full list of instances on {host} was not collected"
                    f" from {cell}"
                )
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
    """True if a query selects whole rows, and all instances on a host that are not deleted."""
    rows, _, condition = query.partition(" WHERE ")
    every = not condition or condition.startswith(("deleted = 0 OR ", f"host = '{host}' AND "))
    return "image_ref" in rows and every


def _liveliness(instance: Instance) -> int:
    try:
        if instance.archived or instance.deleted:
            return 0 if instance.archived else 1
        if instance.hidden:
            return 2
        return 4 if instance.raw.get("host") else 3
    except UnheardError:
        return 0
