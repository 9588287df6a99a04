"""The catalog of checks: the table of contents of what can disagree."""

from __future__ import annotations

from hoodsnap.check import Check
from hoodsnap.checks import (
    attachments,
    block_storage,
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
    glance_images,
    hardware,
    host,
    hypervisor,
    identity,
    image,
    info_cache,
    leaked_ports,
    limits,
    monitor,
    moves,
    names,
    namespaces,
    network_agents,
    network_records,
    next_start,
    placement,
    ports,
    qemu,
    records,
    residue,
    saved_state,
    services,
    shape,
    state,
    tap_leftovers,
    taps,
    volume_records,
    volume_states,
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
        block_storage,
        volume_states,
    ),
    *(moves, identity, records, names, state, monitor, residue, saved_state),
    *(attachments, volume_records, devices, ports, taps),
    *(tap_leftovers, leaked_ports, network_agents, namespaces, flows, dhcp, floating_ips, cards),
    *(info_cache, network_records),
    *(placement, shape, drift, next_start, limits, qemu, glance_images, hardware, cgroups),
    *(hypervisor, console),
)
"""In the order in which they run and are listed: first those that make all others worthless."""

CATALOG: tuple[Check, ...] = tuple(
    check for topic in TOPICS for check in vars(topic).values() if isinstance(check, Check)
)
