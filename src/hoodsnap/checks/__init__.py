"""The catalog of checks: the table of contents of what can disagree."""

from __future__ import annotations

from hoodsnap.check import Check
from hoodsnap.checks import (
    api_lists,
    attachments,
    cache,
    capture,
    cgroups,
    chain,
    compute_node,
    configuration,
    console,
    copies,
    corruption,
    daemons,
    definition,
    devices,
    drift,
    files,
    hardware,
    host,
    hypervisor,
    identity,
    image,
    monitor,
    moves,
    nova_rows,
    placement,
    ports,
    records,
    residue,
    server_groups,
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
        compute_node,
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
        nova_rows,
        copies,
        state,
        monitor,
        residue,
        attachments,
        devices,
        ports,
        taps,
    ),
    *(placement, shape, drift, hardware, cgroups, hypervisor, console),
    *(server_groups, api_lists, configuration),
)
"""In the order in which they run and are listed: first those that make all others worthless."""

CATALOG: tuple[Check, ...] = tuple(
    check for topic in TOPICS for check in vars(topic).values() if isinstance(check, Check)
)
