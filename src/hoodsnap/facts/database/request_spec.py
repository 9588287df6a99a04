"""Rows of `request_specs`: the scheduler's criteria for the next move of an instance."""

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
        "image_fields": ("row", "spec.image"),
        "image_properties": ("row", "spec.image.properties"),
        "boots_from_volume": ("row", "spec.is_bfv"),
        "forced": ("row", "spec.force_hosts"),
        "destination": ("row", "spec.requested_destination.host"),
    }

    def where(self, name: str) -> tuple[Answer | None, str]:
        """Return the answer and the place in it, which starts with the row's id."""
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

    def told(self, *keys: str) -> str | None:
        """Return a text of the request by its place, `told("image", "checksum")`; None without one.

        Raises `UnheardError` if the request can't be read.
        """
        data = self._data
        for key in keys[:-1]:
            if data.get(key) is None:
                return None
            data = fields_of(data, key)
        return text(data, keys[-1]) or None if keys[-1] in data else None

    @property
    def zone(self) -> str | None:
        """Availability zone that the owner requested; None for any."""
        return text(self._data, "availability_zone") or None

    @property
    def flavor(self) -> Mapping[str, object]:
        """Fields of the requested flavor."""
        return fields_of(self._data, "flavor")

    @property
    def flavor_name(self) -> str | None:
        """Name of the requested flavor."""
        return text(self.flavor, "name")

    @property
    def image(self) -> str | None:
        """Id of the requested image; None without one."""
        if self._data.get("image") is None:
            return None
        return text(fields_of(self._data, "image"), "id") or None

    @property
    def forced(self) -> tuple[str, ...]:
        """Hosts that the owner demanded when the server was made; empty for any."""
        listed = self._data.get("force_hosts")
        return tuple(map(str, listed)) if isinstance(listed, list) else ()

    @property
    def destination(self) -> str | None:
        """Host that the next move must go to; None for any. nova keeps none after a move."""
        if self._data.get("requested_destination") is None:
            return None
        wanted = fields_of(self._data, "requested_destination")
        return text(wanted, "host") if wanted.get("host") is not None else None

    @property
    def image_fields(self) -> Mapping[str, object]:
        """Fields of the requested image, as they were when the server was made; empty without."""
        return fields_of(self._data, "image") if self._data.get("image") is not None else {}

    @property
    def image_properties(self) -> Mapping[str, object]:
        """Properties of the requested image, as the scheduler's filters read them."""
        fields = self.image_fields
        return fields_of(fields, "properties") if fields.get("properties") is not None else {}

    @property
    def boots_from_volume(self) -> bool | None:
        """True if a move claims no root disk on the host; None before Rocky."""
        told = self._data.get("is_bfv")
        return told if isinstance(told, bool) else None


def read_request_spec(tables: Tables, uuid: str) -> RequestSpec | Answer:
    """Return an instance's request spec, or the answer that proves that it has none.

    Raises `UnheardError` if its request spec was not collected.
    """
    for database, row in tables.each("request_specs", uuid):
        return RequestSpec(raw=row.cells, database=database, said={"row": row.answer})
    answer = tables.asked("request_specs", uuid)
    if answer is not None:
        return answer
    raise UnheardError("the instance's request spec was not collected")
