"""The catalog of checks: the table of contents of what can disagree."""

from __future__ import annotations

from hoodsnap.check import Check
from hoodsnap.checks import (
    attachments,
    block_storage,
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
    glance_images,
    hardware,
    host,
    hypervisor,
    identity,
    image,
    mappings,
    monitor,
    moves,
    placement,
    ports,
    records,
    residue,
    services,
    shape,
    state,
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
    *(
        moves,
        identity,
        records,
        state,
        monitor,
        residue,
        attachments,
        mappings,
        volume_records,
        devices,
        ports,
        taps,
    ),
    *(placement, shape, drift, glance_images, hardware, cgroups, hypervisor, console),
)
"""In the order in which they run and are listed: first those that make all others worthless."""

CATALOG: tuple[Check, ...] = tuple(
    check for topic in TOPICS for check in vars(topic).values() if isinstance(check, Check)
)
