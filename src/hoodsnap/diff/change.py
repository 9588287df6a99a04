"""One difference between two bundles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Change:
    """One value that differs: where it was read, what it was before, and what it is after."""

    layers: tuple[str, ...]
    """Ids of the layers in which the value changed; several if they changed alike."""
    field: str
    """Field of the fact, with the item in brackets: `status`, `disks[vda].source`; the noun if the
    whole object appeared or went."""
    before: str | None
    """Value before; None if the object did not exist."""
    after: str | None
    """Value after; None if the object does not exist any more."""
    at: datetime | None = None
    """Time of the change in UTC, if a log or the kernel has it."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that can't be compared, because one bundle does not have it."""

    layer: str
    reason: str
    side: str
    """The bundle that lacks it: `before` or `after`."""


def merged(changes: Iterable[Change]) -> Iterator[Change]:
    """Yield the changes; equal changes of several layers become one."""
    found: dict[tuple[str, str | None, str | None], Change] = {}
    for change in changes:
        key = (change.field, change.before, change.after)
        same = found.get(key)
        if same is None:
            found[key] = change
        elif not {*change.layers} <= {*same.layers}:
            found[key] = replace(same, layers=(*same.layers, *change.layers))
    yield from found.values()
