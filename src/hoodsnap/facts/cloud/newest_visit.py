"""Several bundles: for each host, only its newest visit is used.

A host's own layers (libvirt, the kernel, files) describe one moment. Two moments merged would be a
host that never existed, with old domains next to new processes. Layers of the whole cloud may be
collected anywhere and in parts, so all of their answers are used.
"""

from __future__ import annotations

from collections.abc import Sequence

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.facts.layer import CLOUD_WIDE

_Own = tuple[str, str]
"""A host, and a layer that only this host can answer."""


def newest(bundles: Sequence[Bundle]) -> tuple[list[Bundle], list[str]]:
    """Return the bundles without answers that a newer visit to the same host supersedes, and a
    remark for each host that this concerns."""
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
    """Return the hosts, with their own layers, that a bundle has an answer of."""
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
    return (
        f"{host} appears in several bundles; its host data is taken from the newest, "
        f"collected at {when}"
    )
