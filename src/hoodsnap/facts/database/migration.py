"""One move of a VM, as nova wrote it down: a row of `migrations`."""

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
"""The statuses in which a VM may be in two places."""

OVER = frozenset(["confirmed", "reverted", "completed", "cancelled", "error", "failed"])
"""The statuses in which nothing will happen any more."""

ARMED = frozenset(["accepted", "pre-migrating", "done"])
"""Of an evacuation: the statuses in which nova-compute of its source, when it starts, removes the
guest that it left behind there."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Migration(Fact):
    """One row of `migrations`."""

    layer: ClassVar[Layer] = NOVA_DB
    noun: ClassVar[str] = "migration"
    raw: Mapping[str, object]
    database: str

    places: ClassVar[Mapping[str, tuple[str, str]]] = {"type": ("row", "migration_type")}

    def where(self, name: str) -> tuple[Answer | None, str]:
        """As of any fact; the place starts with the row's number."""
        answer, place = super().where(name)
        return answer, f"{self.database}.migrations[id={self.raw.get('id')}].{place}"

    @property
    def id(self) -> int | None:
        """The row's number."""
        return integer(self.raw, "id")

    @property
    def uuid(self) -> str | None:
        """Lower case. From Queens on: the name under which it holds resources in placement."""
        return (text(self.raw, "uuid") or "").lower() or None

    @property
    def instance_uuid(self) -> str:
        """Lower case: what is moved."""
        return (text(self.raw, "instance_uuid") or "").lower()

    @property
    def type(self) -> str | None:
        """`migration` (cold), `resize`, `live-migration`, `evacuation` (Liberty and later)."""
        return text(self.raw, "migration_type")

    @property
    def status(self) -> str:
        """`running`, `finished` (a resize that waits for its confirmation), `done` …"""
        return text(self.raw, "status") or ""

    @property
    def source_compute(self) -> str | None:
        """The nova-compute host that it leaves."""
        return text(self.raw, "source_compute")

    @property
    def source_node(self) -> str | None:
        """The compute node that it leaves, by its hypervisor's host name."""
        return text(self.raw, "source_node")

    @property
    def dest_compute(self) -> str | None:
        """The nova-compute host that it goes to; None while none is chosen."""
        return text(self.raw, "dest_compute")

    @property
    def updated_at(self) -> str | None:
        """UTC: when nova wrote it last."""
        return text(self.raw, "updated_at") or text(self.raw, "created_at")

    @property
    def created_at(self) -> str | None:
        """UTC: when it was ordered."""
        return text(self.raw, "created_at")

    @property
    def deleted(self) -> bool:
        """The row is marked deleted."""
        return bool(integer(self.raw, "deleted"))

    @property
    def unfinished(self) -> bool:
        """It may be in two places because of it."""
        return self.status in UNFINISHED and not self.deleted
