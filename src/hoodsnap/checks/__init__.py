"""Which checks there are: the table of contents of what can disagree."""

from __future__ import annotations

from hoodsnap.check import Check
from hoodsnap.checks import (
    cache,
    capture,
    chain,
    console,
    corruption,
    definition,
    drift,
    files,
    hardware,
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
    shape,
    state,
    taps,
)

TOPICS = (
    *(capture, host, corruption, chain, definition, image, files, cache),
    *(moves, identity, records, state, monitor, residue, ports, taps),
    *(placement, shape, drift, hardware, hypervisor, console),
)
"""In the order in which they are run and listed: first what makes all the others worthless."""

CATALOGUE: tuple[Check, ...] = tuple(
    check for topic in TOPICS for check in vars(topic).values() if isinstance(check, Check)
)
