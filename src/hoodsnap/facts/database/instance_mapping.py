"""What nova's API database has of a VM: its cell, and whether it is still to be built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from hoodsnap.bundle import Answer
from hoodsnap.facts.database.tables import Tables
from hoodsnap.facts.fact import Fact, UnheardError, integer, text
from hoodsnap.facts.layer import NOVA_DB, Layer


@dataclass(frozen=True, eq=False, kw_only=True)
class InstanceMapping(Fact):
    """The row of `instance_mappings` of one UUID, or that there is none. Whatever was not asked
    raises `UnheardError`: before Ocata nova works without an API database."""

    layer: ClassVar[Layer] = NOVA_DB
    noun: ClassVar[str] = "mapping"
    uuid: str
    raw: Mapping[str, object] | None
    """None: it has no row, or that was not asked."""
    tables: Tables

    places: ClassVar[Mapping[str, tuple[str, str]]] = {
        "there": ("row", ""),
        "cell": ("row", "cell_id"),
        "build_requests": ("build", ""),
    }

    @classmethod
    def read(cls, tables: Tables, uuid: str) -> InstanceMapping:
        """Of this UUID, from every row that was read."""
        said: dict[str, Answer] = {}
        raw = None
        for part, table in (("row", "instance_mappings"), ("build", "build_requests")):
            asked = tables.asked(table, uuid)
            if asked is not None:
                said[part] = asked
        for row in tables.of("instance_mappings", uuid):
            raw, said["row"] = row.cells, row.answer
        return cls(uuid=uuid, raw=raw, tables=tables, said=said)

    @property
    def there(self) -> bool:
        """Whether it has one. Without, the API lists the server and answers 404 when it is asked
        for it."""
        if "row" not in self.said:
            raise UnheardError("nova's API database was not asked for its cell")
        return self.raw is not None

    @property
    def cell_id(self) -> int | None:
        """The number of its cell; None as long as none is chosen."""
        return integer(self._row, "cell_id")

    @property
    def cell(self) -> str | None:
        """The database of that cell, called as in the rows of instances."""
        for cell in self.tables.of("cell_mappings"):
            if cell.cells.get("id") == self.cell_id:
                database = self.tables.database_of(cell.cells)
                if database is None:
                    raise UnheardError(f"the cell {cell.cells.get('name')} was not read")
                return database
        raise UnheardError("nova's list of cells was not read")

    @property
    def queued_for_delete(self) -> bool | None:
        """Its owner deleted it; None if it was never written (Rocky and later have it)."""
        flag = integer(self._row, "queued_for_delete")
        return None if flag is None else bool(flag)

    @property
    def created_at(self) -> str | None:
        """UTC: when it was ordered."""
        return text(self._row, "created_at")

    @property
    def build_requests(self) -> int:
        """How many orders to build it are open: one until a cell is chosen."""
        if "build" not in self.said:
            raise UnheardError("nova's API database was not asked for its build request")
        return sum(1 for _ in self.tables.of("build_requests", self.uuid))

    @property
    def _row(self) -> Mapping[str, object]:
        if not self.there or self.raw is None:
            raise UnheardError("nova's API database has no cell for it")
        return self.raw
