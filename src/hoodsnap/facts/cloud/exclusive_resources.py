"""Host resources that one guest may own exclusively, and who claims them: pinned CPUs, PCI devices,
console ports, volumes.

Each is gone through once for the whole host: a check of one guest need not look at the others.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TypeVar

from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.domain.hardware import HostDevice
from hoodsnap.facts.fact import UnheardError, caught

K = TypeVar("K", bound=Hashable)


class ExclusiveResources:
    """Claimants by resource; guests whose claims are unknown are left out."""

    def __init__(self, guests: Sequence[Guest]) -> None:
        self._guests = guests

    @cached_property
    def processors(self) -> Mapping[int, tuple[Guest, ...]]:
        """Processor of the host → the guests here for which nova has reserved it."""
        return _by(self._guests, _reserved)

    @cached_property
    def devices(self) -> Mapping[HostDevice, tuple[Guest, ...]]:
        """Device of the host → the running guests that have it."""
        return _by(self._guests, _devices)

    @cached_property
    def ports(self) -> Mapping[int, tuple[Guest, ...]]:
        """TCP port → the running guests whose console libvirt has there."""
        return _by(self._guests, _ports)

    @cached_property
    def volumes(self) -> Mapping[str, frozenset[str]]:
        """Volume → the UUIDs of the guests here that nova has attached it to. Raises `UnheardError`
        if that can't be read of a guest."""
        found: dict[str, set[str]] = {}
        for guest in self._guests:
            for volume in guest.volume_ids or ():
                found.setdefault(volume, set()).add(guest.uuid)
        return {volume: frozenset(uuids) for volume, uuids in found.items()}

    def require_processors(self) -> None:
        """Raise `UnheardError` if a guest may have a processor that it was not seen to have."""
        _require(self._processors_gap)

    def require_devices(self) -> None:
        """Raise `UnheardError` if a guest may have a device that it was not seen to have."""
        _require(self._devices_gap)

    @cached_property
    def _processors_gap(self) -> str | None:
        return _gap(self._guests, _reserved)

    @cached_property
    def _devices_gap(self) -> str | None:
        return _gap(self._guests, _devices)


def _require(gap: str | None) -> None:
    if gap is not None:
        raise UnheardError(gap)


def _gap(guests: Iterable[Guest], has: Callable[[Guest], Iterable[K]]) -> str | None:
    """Return the reason why it is not known what one of these guests has; None if all are known."""
    for guest in guests:
        try:
            set(has(guest))
        except Exception as error:
            return f"{guest.uuid}: {caught(error)}"
    return None


def _by(guests: Iterable[Guest], has: Callable[[Guest], Iterable[K]]) -> dict[K, tuple[Guest, ...]]:
    found: dict[K, list[Guest]] = {}
    for guest in guests:
        try:
            for thing in set(has(guest)):
                found.setdefault(thing, []).append(guest)
        except Exception as error:
            caught(error)
            continue  # who asks about this guest hears why
    return {thing: tuple(owners) for thing, owners in found.items()}


def _reserved(guest: Guest) -> Iterable[int]:
    instance = guest.instance
    if instance is None or instance.deleted or not guest.is_here:
        return ()
    return instance.pins.values()


def _devices(guest: Guest) -> Iterable[HostDevice]:
    runs = guest.domain is not None and guest.domain.id is not None
    return guest.domain.host_devices if guest.domain is not None and runs else ()


def _ports(guest: Guest) -> Iterable[int]:
    if guest.domain is None or guest.domain.id is None:
        return ()
    return [console.port for console in guest.domain.graphics if console.port is not None]
