"""Rows of `migrations`: one move of an instance each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from hoodsnap.bundle import Answer
from hoodsnap.facts.fact import Fact, integer, text
from hoodsnap.facts.layer import NOVA_DB, Layer

UNFINISHED = frozenset(
    (
        *("accepted", "pre-migrating", "queued", "preparing", "running", "running (post-copy)"),
        *("migrating", "post-migrating", "confirming", "reverting"),
    )
)
"""Statuses in which the guest may exist on two hosts."""

OVER = frozenset(["confirmed", "reverted", "completed", "cancelled", "error", "failed"])
"""Final statuses: nothing more happens in them."""

ARMED = frozenset(["accepted", "pre-migrating", "done"])
"""Statuses of an evacuation in which the source's nova-compute, when it starts, removes the guest
that is still there."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Migration(Fact):
    """One row of `migrations`."""

    layer: ClassVar[Layer] = NOVA_DB
    noun: ClassVar[str] = "migration"
    raw: Mapping[str, object]
    database: str

    places: ClassVar[Mapping[str, tuple[str, str]]] = {"type": ("row", "migration_type")}

    def where(self, name: str) -> tuple[Answer | None, str]:
        """Return the answer and the place in it, which starts with the row's id."""
        answer, place = super().where(name)
        return answer, f"{self.database}.migrations[id={self.raw.get('id')}].{place}"

    @property
    def id(self) -> int | None:
        """Primary key of the row."""
        return integer(self.raw, "id")

    @property
    def uuid(self) -> str | None:
        """UUID of the migration, lower case. Since Queens also its consumer id in placement."""
        return (text(self.raw, "uuid") or "").lower() or None

    @property
    def instance_uuid(self) -> str:
        """UUID of the moved instance, lower case."""
        return (text(self.raw, "instance_uuid") or "").lower()

    @property
    def type(self) -> str | None:
        """`migration` (cold), `resize`, `live-migration`, `evacuation` (Liberty and later)."""
        return text(self.raw, "migration_type")

    @property
    def status(self) -> str:
        """`running`, `finished` (a resize that waits for confirmation), `done` …"""
        return text(self.raw, "status") or ""

    @property
    def source_compute(self) -> str | None:
        """The source's nova-compute host."""
        return text(self.raw, "source_compute")

    @property
    def source_node(self) -> str | None:
        """Hypervisor host name of the source's compute node."""
        return text(self.raw, "source_node")

    @property
    def dest_compute(self) -> str | None:
        """The destination's nova-compute host; None while none is chosen."""
        return text(self.raw, "dest_compute")

    @property
    def updated_at(self) -> str | None:
        """Time of the last update, UTC."""
        return text(self.raw, "updated_at") or text(self.raw, "created_at")

    @property
    def created_at(self) -> str | None:
        """Time when the migration was requested, UTC."""
        return text(self.raw, "created_at")

    @property
    def deleted(self) -> bool:
        """True if the row is marked as deleted."""
        return bool(integer(self.raw, "deleted"))

    @property
    def unfinished(self) -> bool:
        """True if the guest may exist on two hosts because of this migration."""
        return self.status in UNFINISHED and not self.deleted
