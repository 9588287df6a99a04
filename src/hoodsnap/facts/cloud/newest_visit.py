"""Several bundles: of one host only its newest visit is taken.

What a host alone can tell (libvirt, the kernel, files) is true of one moment. Two moments in one
would be a host that never was, with domains that are gone and processes of their successors. What
is asked of the whole cloud may come from anywhere, in parts: all of it is taken.
"""

from __future__ import annotations

from collections.abc import Sequence

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.facts.layer import CLOUD_WIDE

_Own = tuple[str, str]
"""A host and one of its own layers."""


def newest(bundles: Sequence[Bundle]) -> tuple[list[Bundle], list[str]]:
    """The bundles without what a newer visit to the same host supersedes; and a sentence on each
    host of which that was so."""
    latest: dict[_Own, int] = {}
    order = sorted(range(len(bundles)), key=lambda number: bundles[number].started)
    visits = {number: _own(bundles[number]) for number in order}
    for number in order:
        latest |= dict.fromkeys(visits[number], number)
    old = {
        number: {own for own in visits[number] if latest[own] != number}
        for number in order
        if any(latest[own] != number for own in visits[number])
    }
    taken = [
        _without(bundle, old[number]) if number in old else bundle
        for number, bundle in enumerate(bundles)
    ]
    hosts = sorted({host for dropped in old.values() for host, _ in dropped})
    remarks = [_remark(host, latest, bundles) for host in hosts]
    return taken, remarks


def _own(bundle: Bundle) -> set[_Own]:
    """The hosts of which it has an answer of a layer of their own, with these layers."""
    return {
        (answer.host, answer.layer)
        for answer in bundle.answers
        if answer.error is None and answer.layer not in CLOUD_WIDE
    }


def _without(bundle: Bundle, dropped: set[_Own]) -> Bundle:
    def stays(answer: Answer) -> bool:
        return (answer.host, answer.layer) not in dropped

    return bundle.with_answers(filter(stays, bundle.answers))


def _remark(host: str, latest: dict[_Own, int], bundles: Sequence[Bundle]) -> str:
    number = max(number for (name, _), number in latest.items() if name == host)
    when = f"{bundles[number].started:%Y-%m-%d %H:%M:%S} UTC"
    return f"{host} is in several bundles: what it alone can tell is taken from that of {when}"
