"""Rows of the nova databases about instances, read through PyMySQL.

Each server is read in one snapshot. The snapshot stays open, so that a late question (about a UUID
that turns up on the host) is answered as of the same moment. `keep/tables.py` lists the columns.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from hoodsnap.bundle import Answer
from hoodsnap.collect.cells import Cell, Cells
from hoodsnap.collect.sql_statement import about, named, quoted, select
from hoodsnap.facts.uuids import UUID
from hoodsnap.keep import tables
from hoodsnap.keep.tables import RECENT, ReadableTable

AT_ONCE = 500
"""Keys in one statement."""

_OVER = ("confirmed", "reverted", "completed", "cancelled", "error", "failed")
"""Final states of migrations. Not `done`: a done evacuation still affects its source host."""

Row = dict[str, Any]


class InstanceDatabase:
    """Nova's databases, limited to the instances of one host. May be used from several threads."""

    def __init__(self, cells: Cells) -> None:
        """Open no connection yet."""
        self._cells = cells
        self._lock = threading.RLock()
        self._host: str | None = None
        self._wanted: set[str] = set()
        self._asked: set[str] = set()
        self._moves: set[str] = set()
        self._hosts_asked = False
        self._flavors_asked: set[int] = set()
        self._volumes_asked: set[str] = set()

    def connect(self) -> bool:
        """Connect and find the cells. Return False if there are none; the reason is recorded."""
        with self._lock:
            return self._cells.open()

    def ask_instances(self, host: str | None) -> set[str]:
        """Ask every cell for the instances of a host, and for migrations from or to it.

        `host`: None means all hosts. Return the UUIDs of the instances that are not deleted or that
        are being migrated.
        """
        with self._lock:
            self._host = host
            for cell in self._cells.cells:
                here = self._of_host()
                self._ask_markers(cell, tables.INSTANCE_MARKERS, here)
                rows = self._ask_cell(cell, tables.INSTANCES, here)
                self._note(cell, rows)
                self._wanted |= _texts(rows, "uuid", lambda row: not row.get("deleted"))
                if cell.has_hosts:
                    moves = self._ask_markers(cell, tables.MIGRATION_MARKERS, self._moving())
                    self._wanted |= _texts(moves, "instance_uuid", _goes_on)
                    self._moves |= _texts(moves, "uuid", _goes_on)
            return set(self._wanted)

    def ask_rest(self, uuids: Iterable[str] = ()) -> None:
        """Ask everything else about the host, its instances, and these UUIDs.

        `uuids`: for example domains that were seen on the host. Call this again with UUIDs that
        turn up later; nothing is asked twice.
        """
        with self._lock:
            self._wanted.update(uuid.lower() for uuid in uuids)
            new = sorted(uuid for uuid in self._wanted - self._asked if UUID.fullmatch(uuid))
            self._asked.update(new)
            lost = self._find(new)
            for cell in self._cells.cells:
                if not self._hosts_asked and cell.has_hosts:
                    self._ask_host(cell)
                here = cell.found | lost if cell.has_hosts else cell.found
                self._ask_dependents(cell, [uuid for uuid in new if uuid in here])
            self._ask_api(new)
            self._hosts_asked = True

    @property
    def known(self) -> set[str]:
        """UUIDs of the instances that were asked for or found, and of migrations under way.

        Each of them may hold resources in placement.
        """
        with self._lock:
            found = set[str]().union(*(cell.found for cell in self._cells.cells))
            return found | self._asked | self._moves

    def ask_consumers(self, uuids: Iterable[str]) -> None:
        """Find out which of these consumers are instances and which are migrations.

        They are searched in the snapshot of the last `look`, which includes recent consumers.
        """
        with self._lock:
            self.ask_rest(uuids)
            found = set[str]().union(*(cell.found for cell in self._cells.cells))
            left = sorted({uuid.lower() for uuid in uuids} - found)
            for cell in self._cells.cells:
                if cell.has_hosts:
                    self._ask_about(cell, tables.MIGRATIONS_BY_UUID, left)

    def look(self) -> None:
        """Repeat the statements whose answers may change, word for word, in a new snapshot."""
        with self._lock:
            for server in self._cells.servers:
                server.look_again()
            for cell in self._cells.cells:
                for statement in cell.markers:
                    cell.server.ask(statement)

    def ask_again(self, uuids: Iterable[str]) -> None:
        """Ask everything again about these instances, which changed during the visit.

        This uses the snapshot of the last `look`.
        """
        with self._lock:
            moved = {uuid.lower() for uuid in uuids}
            self._asked -= moved
            for cell in self._cells.cells:
                cell.found -= moved
            self.ask_rest(moved)

    def ask_volumes(self, volumes: Iterable[str]) -> None:
        """Ask every cell which instances have these volumes, including instances on other hosts."""
        with self._lock:
            new = sorted(
                {volume.lower() for volume in volumes if UUID.fullmatch(volume.lower())}
                - self._volumes_asked
            )
            self._volumes_asked.update(new)
            for cell in self._cells.cells:
                self._ask_about(cell, tables.MAPPINGS_OF_VOLUMES, new)

    def close(self) -> None:
        """End the snapshots and close the connections."""
        for server in self._cells.servers:
            server.close()

    # Selection of rows

    def _of_host(self) -> str:
        not_long_gone = f"deleted = 0 OR deleted_at > {RECENT}"
        if self._host is None:
            return not_long_gone
        return f"host = {quoted(self._host)} AND ({not_long_gone})"

    def _moving(self) -> str:
        over = ", ".join(quoted(status) for status in _OVER)
        moving = f"deleted = 0 AND (status NOT IN ({over}) OR updated_at > {RECENT})"
        if self._host is None:
            return moving
        host = quoted(self._host)
        return f"(source_compute = {host} OR dest_compute = {host}) AND {moving}"

    def _find(self, new: Sequence[str]) -> set[str]:
        """Search every cell for UUIDs not found in it so far. Return those that no cell has."""
        everywhere = set[str]().union(*(cell.found for cell in self._cells.cells))
        for cell in self._cells.cells:
            # If only one host was asked for, another cell may have a second row of an instance.
            known = everywhere if self._host is None else cell.found
            for where in self._about(cell, tables.INSTANCES, [u for u in new if u not in known]):
                self._ask_markers(cell, tables.INSTANCE_MARKERS, where)
                self._note(cell, self._ask_cell(cell, tables.INSTANCES, where))
        lost = set(new).difference(*(cell.found for cell in self._cells.cells))
        for cell in self._cells.cells:
            if cell.has_hosts:
                self._ask_about(cell, tables.SHADOW_INSTANCES, sorted(lost))
        return lost

    def _note(self, cell: Cell, rows: Sequence[Row]) -> None:
        cell.found |= _texts(rows, "uuid")
        cell.flavors |= _numbers(rows, "instance_type_id")

    # Questions about hosts and instances

    def _ask_host(self, cell: Cell) -> None:
        """Ask for a host's rows, and for all services, since a renamed host has two names."""
        self._ask_cell(cell, tables.SERVICES)
        of_host = ""
        if self._host is not None:
            known = self._cells.columns(cell, tables.COMPUTE_NODES)
            names = [name for name in ("host", "hypervisor_hostname") if name in known]
            of_host = " OR ".join(f"{name} = {quoted(self._host)}" for name in names)
        nodes = self._ask_cell(cell, tables.COMPUTE_NODES, of_host)
        devices = self._ask_about(cell, tables.PCI_DEVICES, sorted(_numbers(nodes, "id")))
        self._wanted |= _texts(devices, "instance_uuid")  # servers that may be deleted
        self._ask_cell(cell, tables.MIGRATIONS, self._moving())
        self._ask_left_behind(cell)

    def _ask_left_behind(self, cell: Cell) -> None:
        """Ask for the volumes that rows still assign to deleted instances, and these instances."""
        if tables.MAPPINGS_OF_VOLUMES.key not in self._cells.columns(
            cell, tables.MAPPINGS_OF_VOLUMES
        ):
            return
        of_host = "" if self._host is None else f" AND host = {quoted(self._host)}"
        instances = named(cell.name, tables.INSTANCES.name)
        where = tables.MAPPINGS_OF_DELETED.replace("{instances}", instances)
        rows = self._ask_cell(cell, tables.MAPPINGS_OF_VOLUMES, where.replace("{host}", of_host))
        lost = sorted(_texts(rows, "instance_uuid") - cell.found)
        self._ask_about(cell, tables.INSTANCES, lost)

    def _ask_dependents(self, cell: Cell, uuids: Sequence[str]) -> None:
        for table in tables.OF_AN_INSTANCE:
            self._ask_about(cell, table, uuids)
        for where in self._about(cell, tables.MAPPING_MARKERS, uuids):
            self._ask_markers(cell, tables.MAPPING_MARKERS, where)
        actions = self._ask_about(cell, tables.ACTIONS, uuids)
        self._ask_about(cell, tables.EVENTS, sorted(_numbers(actions, "id")))

    def _ask_api(self, new: Sequence[str]) -> None:
        """Ask for the rows that belong to no cell.

        In releases without an API database, the cells' databases have its tables.
        """
        api = self._cells.api
        if api is not None:
            for table in tables.API_OF_AN_INSTANCE:
                self._ask_about(api, table, new)
            if not self._hosts_asked:
                mapped = "" if self._host is None else f"host = {quoted(self._host)}"
                self._ask_cell(api, tables.HOST_MAPPINGS, mapped)
        if not self._hosts_asked:
            for table in tables.AGGREGATES:
                for home in self._homes(table):
                    self._ask_cell(home, table, table.only)
        for home in self._homes(tables.GROUP_MEMBERS):
            of_group = tables.GROUP_MEMBERS if home is api else tables.OLD_GROUP_MEMBERS
            groups = _numbers(self._ask_about(home, of_group, new), "group_id")
            for table in tables.GROUPS:
                self._ask_about(home, table, sorted(groups))
        self._ask_flavors()

    def _ask_flavors(self) -> None:
        used = set[int]().union(*(cell.flavors for cell in self._cells.cells))
        new = sorted(used - self._flavors_asked)
        self._flavors_asked |= used
        for home in self._homes(tables.FLAVORS[0]):
            for table in tables.FLAVORS if home is self._cells.api else tables.INSTANCE_TYPES:
                self._ask_about(home, table, new)

    def _homes(self, table: ReadableTable) -> list[Cell]:
        """Return the databases in which this release has a table that moved to the API database."""
        api = self._cells.api
        if api is not None and self._cells.columns(api, table):
            return [api]
        return [cell for cell in self._cells.cells if cell.has_hosts]

    # Statements

    def _ask_markers(self, cell: Cell, table: ReadableTable, where: str) -> list[Row]:
        """Ask for rows, and remember the statement for the second look."""
        rows = self._ask_cell(cell, table, where)
        if columns := self._cells.columns(cell, table):
            cell.markers[select(cell.name, table, columns, where)] = None
        return rows

    def _ask_about(self, cell: Cell, table: ReadableTable, keys: Sequence[str | int]) -> list[Row]:
        """Ask for the rows that belong to these keys."""
        return [
            row
            for where in self._about(cell, table, keys)
            for row in self._ask_cell(cell, table, where)
        ]

    def _about(self, cell: Cell, table: ReadableTable, keys: Sequence[str | int]) -> Iterator[str]:
        if keys and table.key in self._cells.columns(cell, table):
            for start in range(0, len(keys), AT_ONCE):
                yield about(cell.name, table, keys[start : start + AT_ONCE])

    def _ask_cell(self, cell: Cell, table: ReadableTable, where: str = "") -> list[Row]:
        columns = self._cells.columns(cell, table)
        if not columns:
            return []
        answer = cell.server.ask(select(cell.name, table, columns, where), table.kept)
        return rows_of(answer)


def rows_of(answer: Answer) -> list[Row]:
    """Return the rows of an answer as dicts by column name; no rows if the answer is an error."""
    if answer.error is not None:
        return []
    columns = answer.value["columns"]
    return [dict(zip(columns, row, strict=True)) for row in answer.value["rows"]]


def _goes_on(migration: Row) -> bool:
    return migration.get("status") not in _OVER


def _texts(
    rows: Iterable[Row], column: str, which: Callable[[Row], bool] = lambda row: True
) -> set[str]:
    return {row[column] for row in rows if isinstance(row.get(column), str) and which(row)}


def _numbers(rows: Iterable[Row], column: str) -> set[int]:
    return {row[column] for row in rows if isinstance(row.get(column), int)}
