"""Changes of one server between two bundles, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hoodsnap.diff.change import Change, Gap, merged
from hoodsnap.diff.plain import differences, plain, words
from hoodsnap.diff.side import Side
from hoodsnap.facts.cloud.guest import NOUNS, Guest, Noun
from hoodsnap.facts.domain.state import ON
from hoodsnap.facts.fact import UnheardError, caught
from hoodsnap.facts.layer import (
    CINDER,
    HYPERVISOR,
    IMAGES,
    KERNEL,
    LAYERS,
    LIBVIRT,
    NEUTRON,
    NOVA_DB,
)

HEADS: Mapping[str, Callable[[Any], object]] = {
    "server": lambda server: server.status,
    "instance": lambda instance: instance.vm_state,
    "allocation": lambda allocation: allocation.words,
    "domain": lambda domain: f"{domain.name}, {domain.state_words}",
    "process": lambda process: f"pid {process.pid}",
    "monitor": lambda monitor: monitor.status,
}
"""Noun → the words for the whole object where it appeared or went."""

BARE = frozenset(["status", "state_words"])
"""Fields that are the state of the whole object."""

FOUND_BY: Mapping[str, tuple[str, ...]] = {
    "images": (LIBVIRT.id,),
    "devices": (LIBVIRT.id,),
    "taps": (LIBVIRT.id, NEUTRON.id),
    "volumes": (LIBVIRT.id, NOVA_DB.id),
}
"""Noun → the other layers by which its objects are found to belong to a guest."""

NEAR = 2.0
"""Seconds by which two readings of one start time may differ."""


@dataclass(frozen=True, eq=False)
class Pair:
    """One server in both bundles. At least one side exists."""

    before: Guest | None
    after: Guest | None
    sides: tuple[Side, Side]
    """The bundles before and after."""

    @property
    def guest(self) -> Guest:
        """The newest side that exists."""
        found = self.after or self.before
        assert found is not None  # noqa: S101 (one side exists)
        return found


def changes_of(pair: Pair) -> tuple[Change, ...]:
    """Return what changed of a server that is in both bundles."""
    before, after = pair.before, pair.after
    if before is None or after is None:
        return ()
    return tuple(merged(_changes(pair, before, after)))


def gaps_of(pair: Pair) -> Iterator[Gap]:
    """Yield the layers that only one of the two bundles has of this server."""
    if pair.before is None or pair.after is None:
        return
    for layer in LAYERS:
        unheard = [side.unheard.get(layer) for side in (pair.before, pair.after)]
        if (unheard[0] is None) != (unheard[1] is None):
            side = "before" if unheard[0] is not None else "after"
            yield Gap(layer, str(unheard[0] or unheard[1]), side)


def _changes(pair: Pair, before: Guest, after: Guest) -> Iterator[Change]:
    yield from _move(before, after)
    for name, noun in NOUNS.items():
        if noun.layer.id not in before.unheard and noun.layer.id not in after.unheard:
            try:
                yield from tuple(_of_noun(name, noun, pair))
            except Exception as error:  # a net: an unreadable fact costs its own comparison
                caught(error)
    yield from _mapping(before, after)
    yield from _attachments(before, after)
    yield from _files(pair, before, after)


def _move(before: Guest, after: Guest) -> Iterator[Change]:
    old, new = _host(before), _host(after)
    if old is not None and new is not None and old != new:
        yield Change((HYPERVISOR.id,), "moved", old, new)


def _of_noun(name: str, noun: Noun, pair: Pair) -> Iterator[Change]:
    before, after = pair.before, pair.after
    assert before is not None and after is not None  # noqa: S101 (only pairs have nouns)
    old, new = getattr(before, name), getattr(after, name)
    layers = (noun.layer.id,)
    if noun.many:
        yield from _items(name, layers, pair, plain(old or ()), plain(new or ()))
    elif old is None and new is None:
        return
    elif old is None or new is None:
        if name != "log":
            at = _end(after, before) if new is None else pair.sides[1].start(after)
            yield Change(layers, name, _head(name, old), _head(name, new), at)
    else:
        if name == "process":
            yield from _restart(pair, before, after)
        for change in _differing(layers, "", plain(old), plain(new)):
            yield _timed(change, before, after)


def _items(name: str, layers: tuple[str, ...], pair: Pair, old: Any, new: Any) -> Iterator[Change]:
    """Compare the objects of a noun. One that is missing is gone only if the layers by which it
    was found answered; otherwise only those that both bundles have are compared."""
    unheard = {layer for side in (pair.before, pair.after) if side for layer in side.unheard}
    if not unheard.isdisjoint(FOUND_BY.get(name, ())):
        both = {*old} & {*new} if isinstance(old, dict) and isinstance(new, dict) else set()
        old, new = ({key: side[key] for key in both} for side in (old, new))
    yield from _differing(layers, name, old, new)


def _differing(layers: tuple[str, ...], path: str, old: Any, new: Any) -> Iterator[Change]:
    if () in (old, new):  # a list without items has no names for them
        old, new = old or {}, new or {}
    for field, one, other in differences(old, new, path):
        yield Change(layers, field, words(one), words(other))


def _timed(change: Change, before: Guest, after: Guest) -> Change:
    if change.field != "state_words":
        return change
    at = None if _is_on(after) else _end(after, before)
    return Change(change.layers, change.field, change.before, change.after, at)


def _is_on(guest: Guest) -> bool:
    try:
        return guest.domain is not None and guest.domain.state in ON
    except UnheardError:
        return False


def _head(name: str, fact: Any) -> str | None:
    if fact is None:
        return None
    try:
        return str(HEADS[name](fact)) if name in HEADS else "exists"
    except UnheardError:
        return "exists"


def _end(after: Guest, before: Guest) -> datetime | None:
    """Return when QEMU ended, by libvirt's log, if that was since the first bundle."""
    try:
        ended = after.log.ended_at if after.log is not None else None
    except UnheardError:
        return None
    since = before.host.bundle.started if before.host is not None else None
    return ended if ended is not None and since is not None and ended >= since else None


def _restart(pair: Pair, before: Guest, after: Guest) -> Iterator[Change]:
    old, new = before.process, after.process
    assert old is not None and new is not None  # noqa: S101 (the caller compared them)
    if _host(before) != _host(after):
        return
    starts = pair.sides[0].start(before), pair.sides[1].start(after)
    apart = abs((starts[1] - starts[0]).total_seconds()) if starts[0] and starts[1] else 0.0
    # The kernel uses the numbers of processes again after a reboot.
    if old.pid != new.pid or (apart > NEAR and _rebooted(before, after)):
        yield Change((KERNEL.id,), "restarted", f"pid {old.pid}", f"pid {new.pid}", starts[1])


def _rebooted(before: Guest, after: Guest) -> bool:
    hosts = before.host, after.host
    boots = [host.boot_ids.keys() if host is not None else set() for host in hosts]
    return bool(boots[0]) and bool(boots[1]) and boots[0].isdisjoint(boots[1])


def _host(guest: Guest) -> str | None:
    return guest.host.name if guest.host is not None else None


def _mapping(before: Guest, after: Guest) -> Iterator[Change]:
    if NOVA_DB.id not in before.unheard and NOVA_DB.id not in after.unheard:
        old, new = plain(before.mapping), plain(after.mapping)
        yield from _differing((NOVA_DB.id,), "mapping", old, new)


def _attachments(before: Guest, after: Guest) -> Iterator[Change]:
    if CINDER.id in before.unheard or CINDER.id in after.unheard:
        return
    try:
        old, new = (
            plain(guest.storage.volumes.by_server.get(guest.uuid, ())) for guest in (before, after)
        )
    except UnheardError:
        return
    yield from _differing((CINDER.id,), "attachments", old, new)


def _files(pair: Pair, before: Guest, after: Guest) -> Iterator[Change]:
    same = _host(before) is not None and _host(before) == _host(after)
    if same and IMAGES.id not in before.unheard and IMAGES.id not in after.unheard:
        old, new = pair.sides[0].files(before), pair.sides[1].files(after)
        yield from _differing((IMAGES.id,), "files", old, new)
