"""Rows of `instance_mappings` in nova's API database: the cell of an instance."""

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
    """The row of one UUID in `instance_mappings`, or the fact that it has no row.

    Fields that were not collected raise `UnheardError`: before Ocata nova works without an API
    database.
    """

    layer: ClassVar[Layer] = NOVA_DB
    noun: ClassVar[str] = "mapping"
    uuid: str
    raw: Mapping[str, object] | None
    """The row; None if it does not exist or was not collected."""
    tables: Tables

    own: ClassVar[str] = "row"

    places: ClassVar[Mapping[str, tuple[str, str]]] = {
        "there": ("row", ""),
        "cell": ("row", "cell_id"),
        "build_requests": ("build", ""),
    }

    @classmethod
    def read(cls, tables: Tables, uuid: str) -> InstanceMapping:
        """Read the mapping of a UUID from the collected rows."""
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
        """True if the UUID has a row.

        Without one, the API still lists the server, but answers 404 to a query for the server.
        """
        if "row" not in self.said:
            raise UnheardError("the instance's row in instance_mappings was not collected")
        return self.raw is not None

    @property
    def cell_id(self) -> int | None:
        """Primary key of the cell in `cell_mappings`; None until a cell is chosen."""
        return integer(self._row, "cell_id")

    @property
    def cell(self) -> str | None:
        """Name of the cell's database, as in `Instance.cell`."""
        for cell in self.tables.of("cell_mappings"):
            if cell.cells.get("id") == self.cell_id:
                database = self.tables.database_of(cell.cells)
                if database is None:
                    raise UnheardError(f"cell {cell.cells.get('name')} was not collected")
                return database
        raise UnheardError("the cell's row in cell_mappings was not collected")

    @property
    def queued_for_delete(self) -> bool | None:
        """True if the owner deleted the server; None if never written (Rocky and later)."""
        flag = integer(self._row, "queued_for_delete")
        return None if flag is None else bool(flag)

    @property
    def created_at(self) -> str | None:
        """Time when the server was requested, UTC."""
        return text(self._row, "created_at")

    @property
    def build_requests(self) -> int:
        """Number of open build requests: one until a cell is chosen."""
        if "build" not in self.said:
            raise UnheardError("the instance's rows in build_requests were not collected")
        return sum(1 for _ in self.tables.current("build_requests", self.uuid))

    @property
    def _row(self) -> Mapping[str, object]:
        if not self.there or self.raw is None:
            raise UnheardError("the instance has no row in instance_mappings")
        return self.raw
