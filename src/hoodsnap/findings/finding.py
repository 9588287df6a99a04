"""What came of a check: a finding, with the findings it explains, or a skip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hoodsnap.check import Check
from hoodsnap.evidence import Evidence, Severity
from hoodsnap.facts.cloud.guest import Guest


@dataclass(frozen=True, eq=False)
class Finding:
    """A check, what it is about, and the evidence."""

    check: Check
    severity: Severity
    host: str | None
    guest: Guest | None
    evidence: tuple[Evidence, ...]
    """If several guests share it, that of the first."""
    folded: tuple[Finding, ...] = ()
    """What it explains. They are all here, with their evidence; only the eye is spared them."""
    shared: Shared | None = None
    """Who shares it, if it is one finding of a host instead of one for each guest."""

    @property
    def guests(self) -> tuple[Guest, ...]:
        """The guests it is a finding of; none if it is of a host or the cloud itself."""
        if self.shared is not None:
            return self.shared.guests
        return (self.guest,) if self.guest is not None else ()

    @property
    def worst(self) -> Severity:
        """Its own severity, or that of the worst it explains."""
        return max((finding.severity for finding in self.everything()), default=self.severity)

    def everything(self) -> Iterator[Finding]:
        """Itself and whatever is folded under it."""
        yield self
        for finding in self.folded:
            yield from finding.everything()


@dataclass(frozen=True, eq=False)
class Shared:
    """Nearly all guests of a host have the same finding, which then is the host's."""

    guests: tuple[Guest, ...]
    among: int
    """How many guests the host has."""
    cause: str | None = None
    """What usually is behind so many of just this finding."""


@dataclass(frozen=True, eq=False)
class Skip:
    """A check that could not be decided: neither passed nor failed."""

    check: Check
    host: str | None
    guest: Guest | None
    reason: str
    legal: bool = False
    """Nothing was unheard; a difference, if there is one, would be legal."""
    differs: bool = False
    """There is a difference, which is not called a finding for this reason."""
