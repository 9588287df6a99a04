"""Results of a check: a finding, with the findings it explains, or a skip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from hoodsnap.check import Check
from hoodsnap.evidence import Evidence, Severity
from hoodsnap.facts.cloud.guest import Guest


@dataclass(frozen=True, eq=False)
class Finding:
    """A check that found a problem, the host or guest it concerns, and the evidence."""

    check: Check
    severity: Severity
    host: str | None
    guest: Guest | None
    evidence: tuple[Evidence, ...]
    """The evidence; if several guests share the finding, the evidence of the first guest."""
    folded: tuple[Finding, ...] = ()
    """The findings that this one explains, complete with their evidence; they are only displayed
    more briefly."""
    shared: Shared | None = None
    """The guests that share it, if it is one finding of a host instead of one for each guest."""
    headline: str = ""
    """The defect in one sentence without a period, with names and values; "" if the check gave
    none."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Values for the placeholders in the check's advice."""

    @property
    def title(self) -> str:
        """The headline; without one, the check's message, which names nothing."""
        return self.headline or self.check.message.removesuffix(".")

    @property
    def guests(self) -> tuple[Guest, ...]:
        """The guests it concerns; empty if it concerns a host or the cloud itself."""
        if self.shared is not None:
            return self.shared.guests
        return (self.guest,) if self.guest is not None else ()

    @property
    def worst(self) -> Severity:
        """The highest severity among the finding and those folded under it."""
        return max((finding.severity for finding in self.everything()), default=self.severity)

    def everything(self) -> Iterator[Finding]:
        """Yield the finding itself and all findings folded under it, at any depth."""
        yield self
        for finding in self.folded:
            yield from finding.everything()


@dataclass(frozen=True, eq=False)
class Shared:
    """The guests of a host that share one finding, which is reported once, for the host."""

    guests: tuple[Guest, ...]
    among: int
    """Number of guests on the host that the check applies to."""
    cause: str | None = None
    """The usual cause of this finding when so many guests have it; None if none is known."""
    path: str | None = None
    """The file or folder that the advice of all these findings names; None without one."""


@dataclass(frozen=True, eq=False)
class Skip:
    """A check that was not decided: it neither passed nor failed."""

    check: Check
    host: str | None
    guest: Guest | None
    reason: str
    legal: bool = False
    """Not applicable: everything was collected, and a difference here would be legal."""
    differs: bool = False
    """There is a difference, but it is not reported as a finding because of `reason`."""
