"""The catalog of checks: the table of contents of what can disagree."""

from __future__ import annotations

from hoodsnap.check import Check
from hoodsnap.checks import (
    attachments,
    cache,
    capture,
    cgroups,
    chain,
    console,
    corruption,
    daemons,
    definition,
    devices,
    drift,
    files,
    hardware,
    holders,
    host,
    hypervisor,
    identity,
    image,
    monitor,
    moves,
    placement,
    ports,
    records,
    residue,
    services,
    shape,
    state,
    storage,
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
        storage,
        holders,
        volumes,
    ),
    *(moves, identity, records, state, monitor, residue, attachments, devices, ports, taps),
    *(placement, shape, drift, hardware, cgroups, hypervisor, console),
)
"""In the order in which they run and are listed: first those that make all others worthless."""

CATALOG: tuple[Check, ...] = tuple(
    check for topic in TOPICS for check in vars(topic).values() if isinstance(check, Check)
)
