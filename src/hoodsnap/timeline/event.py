"""One event: the time, the layer that recorded it, the server it concerns, and its source."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from hoodsnap.bundle import Answer


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened at a recorded time."""

    at: datetime | None
    """Time in UTC; None if the time was written without a zone and the zone is unknown."""
    layer: str
    """Id of the layer that recorded it; `capture` for the collection itself."""
    what: str
    """Description in one line, as foreign text: not yet cleaned for a terminal."""
    source: Answer
    """The answer that contains the time."""
    server: str | None = None
    """UUID of the server that it concerns, lower case; None if it concerns no single server."""
    host: str | None = None
    """Host that it happened on; None if it happened in the control plane."""
    written: str = ""
    """The time as the source wrote it, if `at` is None."""
    is_failure: bool = False
    """True if the source reports a failure: an error line, a failed action, a fault, an OOM
    kill."""
    is_detail: bool = False
    """True for bookkeeping that other events imply: caches, copies of records, a guest's files."""
    kind: str = ""
    """Words that repeated events share; empty if no two events of this kind are the same."""
    repeats: tuple[Event, ...] = ()
    """Later events of the same kind that are shown together with this one."""

    @property
    def last(self) -> datetime | None:
        """Time of the last repeat, or of the event itself."""
        return self.repeats[-1].at if self.repeats else self.at
