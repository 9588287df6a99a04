"""Which checks there are: the table of contents of what can disagree."""

from __future__ import annotations

from hoodsnap.check import Check
from hoodsnap.checks import (
    capture,
    corruption,
    identity,
    monitor,
    ports,
    records,
    residue,
    shape,
    state,
    taps,
)

TOPICS = (capture, corruption, identity, records, state, monitor, residue, shape, ports, taps)
"""In the order in which they are run and listed: first what makes all the others worthless."""

CATALOGUE: tuple[Check, ...] = tuple(
    check for topic in TOPICS for check in vars(topic).values() if isinstance(check, Check)
)
