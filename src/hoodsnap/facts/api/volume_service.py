"""cinder's services, as its API lists them: the daemons that report to cinder, on all hosts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.facts.api.body import items_of
from hoodsnap.facts.api.service import ReportingService
from hoodsnap.facts.fact import UnheardError, text
from hoodsnap.facts.layer import CINDER, Layer

LIST = re.compile(r"GET /v[23](?:/[0-9a-f]+)?/os-services(?: \[.*)?")
"""A query for all services, of all hosts. Only administrators see them."""


@dataclass(frozen=True, eq=False, kw_only=True)
class VolumeService(ReportingService):
    """One service of cinder's list."""

    layer: ClassVar[Layer] = CINDER
    noun: ClassVar[str] = "cinder service"

    def where(self, name: str) -> tuple[Answer | None, str]:
        """Return the answer and the place in it, which starts with the binary and the host."""
        answer, place = super().where(name)
        return answer, f"services[{self.raw.get('binary')} {self.raw.get('host')}].{place}"

    @property
    def backend_state(self) -> str | None:
        """State of the storage, as the driver reported it: `up` or `down`; None if cinder does not
        report it (before Ussuri, or for a service without storage)."""
        return text(self.raw, "backend_state") if "backend_state" in self.raw else None

    @property
    def frozen(self) -> bool:
        """True if an administrator froze the backend: its volumes can't be changed."""
        return self.raw.get("frozen") is True

    @property
    def replication_status(self) -> str | None:
        """`disabled`, `enabled`, `failing-over`, `failed-over`, `error` …; None if not reported."""
        return text(self.raw, "replication_status") if "replication_status" in self.raw else None

    @property
    def cluster(self) -> str | None:
        """Name of its cluster, whose services replace each other; None without one."""
        return text(self.raw, "cluster") if "cluster" in self.raw else None

    @property
    def asked(self) -> datetime:
        """Time of the answer."""
        return next(iter(self.said.values())).at


def read_volume_services(bundle: Bundle) -> tuple[VolumeService, ...]:
    """Return the services that cinder's API lists.

    Raises `UnheardError` if the list was not collected, or not permitted.
    """
    newest: Answer | None = None
    for answer in bundle.by_layer.get(CINDER.id, ()):
        if LIST.fullmatch(answer.query):
            newest = answer
    if newest is None:
        raise UnheardError("cinder: the list of services was not collected")
    rows = items_of(newest, "services", "cinder: the list of services")
    return tuple(VolumeService(raw=row, said={"body": newest}) for row in rows)
