"""Availability zones of hosts: of their aggregates, else as nova lists their services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from hoodsnap.evidence import Evidence, derives, hears
from hoodsnap.facts.api.service import read_services
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.database.service import HostRecords
from hoodsnap.facts.fact import known, text

DEFAULT_ZONES = frozenset(["nova", "internal"])
"""Zones that exist without an aggregate: the usual default, and the one of nova's own services."""


class Zone(NamedTuple):
    """The zone of a host, and where it was read."""

    name: str
    evidence: Evidence


def compute_zones(cloud: Cloud) -> Mapping[str, Zone] | None:
    """Zone → the first compute service that nova's API lists in it.

    None if the services were not collected, or if one is listed without a zone.
    """
    found: dict[str, Zone] = {}
    for service in known(lambda: read_services(cloud.bundle)) or ():
        if service.binary == "nova-compute":
            name = text(service.raw, "zone")
            if not name:
                return None
            found.setdefault(
                name, Zone(name, derives(service, "zone", host=service.host, zone=name))
            )
    return found or None


def zone_of(cloud: Cloud, records: HostRecords, host: str, own: str) -> Zone | None:
    """Return the zone of a host; None if it is not known.

    A host whose aggregates have no zone is in the default zone, whose name nova's list of services
    has. It may have been renamed, so it contradicts no `own` zone with the usual name.
    Raises `UnheardError` if the aggregates were not collected.
    """
    zone = records.zone_of(host)
    if zone is not None:
        return Zone(zone[0], hears(zone[1], "aggregate", f"host={host}", zone=zone[0]))
    if own in DEFAULT_ZONES:
        return None
    for service in known(lambda: read_services(cloud.bundle)) or ():
        name = text(service.raw, "zone")
        if service.binary == "nova-compute" and service.host == host and name:
            return Zone(name, derives(service, "zone", host=host, zone=name))
    return None
