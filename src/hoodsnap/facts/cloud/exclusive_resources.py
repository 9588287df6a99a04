"""Host resources that one guest may own exclusively, and who claims them: pinned CPUs, PCI devices,
console ports, volumes.

The claims of all guests of a host are collected once, so a check of one guest need not go through
the others.
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
        """Host CPU → the guests on this host for which nova has reserved it."""
        return _by(self._guests, _reserved)

    @cached_property
    def devices(self) -> Mapping[HostDevice, tuple[Guest, ...]]:
        """Host device → the running guests that it is passed through to."""
        return _by(self._guests, _devices)

    @cached_property
    def ports(self) -> Mapping[int, tuple[Guest, ...]]:
        """TCP port → the running guests whose domains have a console on it."""
        return _by(self._guests, _ports)

    @cached_property
    def volumes(self) -> Mapping[str, frozenset[str]]:
        """Volume → UUIDs of the guests on this host that nova has attached it to.

        Raises `UnheardError` if the volumes of any guest can't be read.
        """
        found: dict[str, set[str]] = {}
        for guest in self._guests:
            for volume in guest.volume_ids or ():
                found.setdefault(volume, set()).add(guest.uuid)
        return {volume: frozenset(uuids) for volume, uuids in found.items()}

    def require_processors(self) -> None:
        """Raise `UnheardError` if the reserved CPUs of any guest are unknown."""
        _require(self._processors_gap)

    def require_devices(self) -> None:
        """Raise `UnheardError` if the devices of any guest are unknown."""
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
    """Return the reason why the claims of a guest are unknown; None if all claims are known."""
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
            continue  # reading the claims of this guest raises the reason
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
