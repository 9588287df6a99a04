"""What the scheduler goes by when it plans a server's next move: its row in `request_specs`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from hoodsnap.bundle import Answer
from hoodsnap.facts.database.stored_object import DATA, fields_of, read_object
from hoodsnap.facts.database.tables import Tables
from hoodsnap.facts.fact import Fact, UnheardError, mapping, text
from hoodsnap.facts.layer import NOVA_DB, Layer


@dataclass(frozen=True, eq=False, kw_only=True)
class RequestSpec(Fact):
    """One row of `request_specs` (Mitaka and later)."""

    layer: ClassVar[Layer] = NOVA_DB
    noun: ClassVar[str] = "request spec"
    raw: Mapping[str, object]
    database: str

    places: ClassVar[Mapping[str, tuple[str, str]]] = {
        "zone": ("row", "spec.availability_zone"),
        "flavor_name": ("row", "spec.flavor.name"),
        "image": ("row", "spec.image.id"),
    }

    def where(self, name: str) -> tuple[Answer | None, str]:
        """As of any fact; the place starts with the row's number."""
        answer, place = super().where(name)
        return answer, f"{self.database}.request_specs[id={self.raw.get('id')}].{place}"

    @cached_property
    def _spec(self) -> Mapping[str, object] | UnheardError:
        try:
            return read_object(text(self.raw, "spec"), "the request spec")
        except UnheardError as reason:
            return reason

    @property
    def _data(self) -> Mapping[str, object]:
        if isinstance(self._spec, UnheardError):
            raise UnheardError(str(self._spec))
        return mapping(self._spec, DATA)

    @property
    def zone(self) -> str | None:
        """The availability zone that its owner asked for; None: any."""
        return text(self._data, "availability_zone") or None

    @property
    def flavor(self) -> Mapping[str, object]:
        """The fields of the flavor that is looked for."""
        return fields_of(self._data, "flavor")

    @property
    def flavor_name(self) -> str | None:
        """Its name."""
        return text(self.flavor, "name")

    @property
    def image(self) -> str | None:
        """The id of the image; None if it has none."""
        if self._data.get("image") is None:
            return None
        return text(fields_of(self._data, "image"), "id") or None


def read_request_spec(tables: Tables, uuid: str) -> RequestSpec | Answer:
    """A server's request spec; the answer that shows that it has none. Raises `UnheardError`."""
    for database, row in tables.each("request_specs", uuid):
        return RequestSpec(raw=row.cells, database=database, said={"row": row.answer})
    answer = tables.asked("request_specs", uuid)
    if answer is not None:
        return answer
    raise UnheardError("its request spec was not read")
