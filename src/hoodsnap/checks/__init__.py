"""The catalog of checks: the table of contents of what can disagree."""

from __future__ import annotations

from hoodsnap.check import Check
from hoodsnap.checks import (
    attachments,
    cache,
    capture,
    cards,
    cgroups,
    chain,
    console,
    corruption,
    daemons,
    definition,
    devices,
    dhcp,
    drift,
    files,
    floating_ips,
    flows,
    hardware,
    host,
    hypervisor,
    identity,
    image,
    info_cache,
    leaked_ports,
    monitor,
    moves,
    namespaces,
    network_agents,
    network_records,
    placement,
    ports,
    records,
    residue,
    services,
    shape,
    state,
    tap_leftovers,
    taps,
    volumes,
)

TOPICS = (
    *(
        capture,
        host,
        services,
        daemons,
        corruption,
        chain,
        definition,
        image,
        files,
        cache,
        volumes,
    ),
    *(
        moves,
        identity,
        records,
        state,
        monitor,
        residue,
        attachments,
        devices,
        ports,
        taps,
    ),
    *(tap_leftovers, leaked_ports, network_agents, namespaces, flows, dhcp, floating_ips, cards),
    *(info_cache, network_records),
    *(placement, shape, drift, hardware, cgroups, hypervisor, console),
)
"""In the order in which they run and are listed: first those that make all others worthless."""

CATALOG: tuple[Check, ...] = tuple(
    check for topic in TOPICS for check in vars(topic).values() if isinstance(check, Check)
)
