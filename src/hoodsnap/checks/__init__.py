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
    error,
    evacuation,
    files,
    halted,
    hardware,
    history,
    host,
    hypervisor,
    identity,
    image,
    monitor,
    moves,
    outage,
    placement,
    ports,
    records,
    residue,
    services,
    shape,
    state,
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
        outage,
        moves,
        evacuation,
        identity,
        records,
        state,
        error,
        halted,
        monitor,
        residue,
        attachments,
        devices,
        ports,
        taps,
    ),
    *(history, placement, shape, drift, hardware, cgroups, hypervisor, console),
)
"""In the order in which they run and are listed: first those that make all others worthless."""

CATALOG: tuple[Check, ...] = tuple(
    check for topic in TOPICS for check in vars(topic).values() if isinstance(check, Check)
)
