"""Several bundles: for each host, only its newest visit is used.

A host's own layers (libvirt, the kernel, files) describe one moment. Two moments merged would be a
host that never existed, with old domains next to new processes. Layers of the whole cloud may be
collected anywhere and in parts, so all of their answers are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.facts.layer import CLOUD_WIDE
from hoodsnap.facts.uuids import UUID

_Own = tuple[str, str]
"""A host, and a layer that only this host can answer."""

NO_CELL = "00000000-0000-0000-0000-000000000000"
"""UUID of cell0, which every cloud has."""


class TwoCloudsError(Exception):
    """Hosts of two clouds have one name, so their bundles can't be read together."""

    def __init__(self, host: str, first: int, second: int) -> None:
        """Keep the host's name, and the places of two bundles in the list that was given."""
        self.host, self.first, self.second = host, first, second
        super().__init__(f"two clouds have a host named {host}: no nova service is in both")


def newest(bundles: Sequence[Bundle]) -> tuple[list[Bundle], list[str]]:
    """Return the bundles without answers that a newer visit to the same host supersedes, and a
    remark for each host that this concerns.

    Raises `TwoCloudsError`: an older visit to another cloud's host of that name is not superseded.
    """
    _must_be_one_cloud(bundles)
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


def _must_be_one_cloud(bundles: Sequence[Bundle]) -> None:
    """Compare the clouds of bundles that share a host; hosts of other names have a check."""
    visited: dict[str, list[int]] = {}
    for number, bundle in enumerate(bundles):
        for host in {host for host, _ in _own(bundle)}:
            visited.setdefault(host, []).append(number)
    ids = {number: _cloud_ids(bundles[number]) for those in visited.values() if len(those) > 1
           for number in those}  # fmt: skip
    for host, those in visited.items():
        for first, second in combinations(those, 2):
            if _are_apart(ids[first], ids[second]):
                raise TwoCloudsError(host, first, second)


def _are_apart(ours: Mapping[str, frozenset[str]], theirs: Mapping[str, frozenset[str]]) -> bool:
    """True if the bundles have ids of the same kind, and none of them in common."""
    both = [kind for kind in ours if ours[kind] and theirs[kind]]
    return bool(both) and not any(ours[kind] & theirs[kind] for kind in both)


def _cloud_ids(bundle: Bundle) -> Mapping[str, frozenset[str]]:
    """Return UUIDs that no other cloud has: those of nova's services, and of its cells."""
    services: set[str] = set()
    for answer in bundle.asked("nova", "GET /"):
        if answer.query.split()[1].partition("?")[0].endswith("/os-services"):
            services |= _uuids(answer.value, "services", "id")
    for answer in bundle.asked("nova-db", "SELECT "):
        if " FROM nova.services" in answer.query:
            services |= _column(answer.value, "uuid")
    cells = {
        uuid
        for answer in bundle.asked("nova-db", "SELECT ")
        if " FROM nova_api.cell_mappings" in answer.query
        for uuid in _column(answer.value, "uuid")
    }
    return {"services": frozenset(services), "cells": frozenset(cells - {NO_CELL})}


def _uuids(body: object, name: str, key: str) -> set[str]:
    rows = body.get(name) if isinstance(body, dict) else None
    found = (
        (row.get(key) for row in rows if isinstance(row, dict)) if isinstance(rows, list) else ()
    )
    # Before microversion 2.53 ids are numbers, which are the same in every cloud.
    return {uuid.lower() for uuid in found if isinstance(uuid, str) and UUID.fullmatch(uuid)}


def _column(answered: object, name: str) -> set[str]:
    if not isinstance(answered, dict):
        return set()
    columns, rows = answered.get("columns"), answered.get("rows")
    if not isinstance(columns, list) or not isinstance(rows, list) or name not in columns:
        return set()
    at = columns.index(name)
    cells = (row[at] for row in rows if isinstance(row, list) and len(row) == len(columns))
    return {cell.lower() for cell in cells if isinstance(cell, str) and UUID.fullmatch(cell)}


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
