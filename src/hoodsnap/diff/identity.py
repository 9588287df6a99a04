"""Identifiers of a cloud and its hosts, by which two bundles are recognized as one cloud's."""

from __future__ import annotations

from collections.abc import Iterator

from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.database.service import CELL0
from hoodsnap.facts.fact import caught


def are_two_clouds(before: Cloud, after: Cloud) -> bool:
    """True if two bundles have no service, cell, host or server in common.

    False if one of them has none of these.
    """
    old, new = frozenset(_ids(before)), frozenset(_ids(after))
    return bool(old) and bool(new) and old.isdisjoint(new)


def _ids(cloud: Cloud) -> Iterator[str]:
    for guest in cloud.guests:
        yield guest.uuid
    for host in cloud.hosts:
        yield from host.boot_ids
    for row in cloud.instances.tables.of("cell_mappings"):
        if row.cells.get("uuid") != CELL0:
            yield str(row.cells.get("uuid"))
    for record in (*cloud.instances.hosts.services, *cloud.instances.hosts.nodes):
        try:
            yield record.uuid or ""
        except Exception as error:
            caught(error)
    yield from cloud.placement.providers
    yield from cloud.ports.agents or ()
