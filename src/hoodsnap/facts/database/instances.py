"""All that the nova databases said: every instance in them, and what shows that one is in none."""

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
    """All that the nova databases said."""

    def __init__(self, answers: Iterable[Answer], doubted: str | None = None) -> None:
        heard = tuple(answers)
        self._heard = heard
        self.doubted = doubted
        """Why these databases can't be those of the hosts that were captured."""
        self.tables = Tables(heard)
        self.hosts = HostRecords(self.tables)
        self.by_uuid: dict[str, Instance] = {}
        self.copies: dict[str, list[Instance]] = {}
        """Every row of a UUID, in whatever database and however deleted."""
        errors = (answer.error for answer in heard if answer.error is not None)
        self.obstacle = next((error.message for error in errors if error.kind != "absent"), None)
        """Why the databases did not speak, if they did not even begin to."""
        self.clock = clock_of(heard)
        """When the database's clock was read, and what it showed."""
        broken = any(".instances" in answer.query for answer in self.tables.failures)
        for table, archived in (("shadow_instances", True), ("instances", False)):
            for (database, name), owners in self.tables.rows.items():
                if name == table:
                    for rows in owners.values():
                        for row in rows.values():
                            # Markers alone would pass for a row in which nothing else is set.
                            if not broken or "image_ref" in row.cells:
                                self._add(row, database, archived)

    def in_doubt(self, reason: str) -> Instances:
        """Return the same, as the answer of databases that can't be those of the captured hosts."""
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

    def _mappings_of(self, uuid: str, database: str) -> Iterator[BlockDeviceMapping]:
        for row in self.tables.of("block_device_mapping", uuid, database):
            yield BlockDeviceMapping(raw=row.cells, database=database, said={"row": row.answer})

    def mappings(self) -> Iterator[BlockDeviceMapping]:
        """Every row of `block_device_mapping` that was read, whosever it is."""
        for database, table in self.tables.rows:
            if table == "block_device_mapping":
                for row in self.tables.of(table, database=database):
                    yield BlockDeviceMapping(
                        raw=row.cells, database=database, said={"row": row.answer}
                    )

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
        `UnheardError` if it might be one."""
        if reason := self.searched(uuid):
            raise UnheardError(f"nova database: {reason}")
        if next(self.tables.of("build_requests", uuid), None) is not None:
            raise UnheardError("it is just being built")
        asked = self.asked(uuid)
        for cell in self.cells:
            if not self._is_cell0(cell) and not self._asked_for_move(cell, uuid):
                raise UnheardError(f"{cell}.migrations was not asked for this UUID")
        if asked is None:
            raise UnheardError("the nova database was not asked for this UUID")
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
        """Every instance on a host that is not deleted. `UnheardError` unless all of them were
        read."""
        if self.doubted is not None:
            raise UnheardError(f"nova database: {self.doubted}")
        failed = [answer for answer in self.tables.failures if ".instances" in answer.query]
        if failed or not self.cells:
            why = failed[0].error.message if failed and failed[0].error else self.obstacle
            raise UnheardError(f"nova database: {why or 'the instances were not read'}")
        if missing := self._unread_cells():
            raise UnheardError(f"the cell {missing} was not read")
        for cell in self.cells:
            asked = [answer.query for answer in self.tables.read[(cell, "instances")]]
            if not any(_asks_for_all(query, host) for query in asked):
                raise UnheardError(f"{cell}.instances was not asked for all of host {host}")
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


def _liveliness(instance: Instance) -> int:
    try:
        if instance.archived or instance.deleted:
            return 0 if instance.archived else 1
        if instance.hidden:
            return 2
        return 4 if instance.raw.get("host") else 3
    except UnheardError:
        return 0
