"""nova's services, as its API lists them: the daemons that report to nova, on all hosts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.facts.api.body import items_of
from hoodsnap.facts.clock import moment
from hoodsnap.facts.fact import Fact, UnheardError, text
from hoodsnap.facts.layer import NOVA, Layer

LIST = re.compile(r"GET /v2(?:\.1)?(?:/[0-9a-f]+)?/os-services(?: \[.*)?")
"""A query for all services, of all hosts. Only administrators see them."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ReportingService(Fact):
    """One service of an API's list of the daemons that report to it."""

    raw: Mapping[str, object]

    @property
    def binary(self) -> str:
        """`nova-compute`, `nova-conductor`, `cinder-volume` …"""
        return text(self.raw, "binary") or ""

    @property
    def host(self) -> str:
        """Name of the service's host; of cinder's volume service `host@backend`."""
        return text(self.raw, "host") or ""

    @property
    def state(self) -> str:
        """`up`, or `down` if it has not reported for `service_down_time` or is forced down."""
        return text(self.raw, "state") or ""

    @property
    def status(self) -> str:
        """`enabled` or `disabled`."""
        return text(self.raw, "status") or ""

    @property
    def disabled_reason(self) -> str | None:
        """Reason why it is disabled; None if none was given."""
        return text(self.raw, "disabled_reason")

    @property
    def updated_at(self) -> datetime | None:
        """Time of its last report; None if it can't be read."""
        return moment(text(self.raw, "updated_at"))


@dataclass(frozen=True, eq=False, kw_only=True)
class ListedService(ReportingService):
    """One service of nova's list."""

    layer: ClassVar[Layer] = NOVA
    noun: ClassVar[str] = "service"

    def where(self, name: str) -> tuple[Answer | None, str]:
        """Return the answer and the place in it, which starts with the service's id."""
        answer, place = super().where(name)
        return answer, f"services[id={self.raw.get('id')}].{place}"

    @property
    def forced_down(self) -> bool:
        """True if an operator forced it down (microversion 2.11 and later)."""
        return self.raw.get("forced_down") is True

    @property
    def seconds_silent(self) -> float:
        """Seconds between its last report and the answer. Raises `UnheardError`."""
        reported, answer = self.updated_at, next(iter(self.said.values()))
        if reported is None:
            raise UnheardError("the time of the service's last report can't be read")
        return (answer.at - reported).total_seconds()


def read_services(bundle: Bundle) -> tuple[ListedService, ...]:
    """Return the services that nova's API lists.

    Raises `UnheardError` if the list was not collected, or not permitted.
    """
    newest: Answer | None = None
    for answer in bundle.by_layer.get(NOVA.id, ()):
        if LIST.fullmatch(answer.query) and (newest is None or " [" in answer.query):
            newest = answer
    rows = items_of(newest, "services", "nova API: the list of services")
    return tuple(ListedService(raw=row, said={"body": newest}) for row in rows if newest)
