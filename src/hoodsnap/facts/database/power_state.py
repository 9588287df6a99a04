"""nova's record of a domain's state: the same codes in the database and the API."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum


class PowerState(IntEnum):
    """nova's codes (compute/power_state.py); 2 and 5 are unused."""

    NOSTATE = 0
    RUNNING = 1
    PAUSED = 3
    SHUTDOWN = 4
    CRASHED = 6
    SUSPENDED = 7


POWER_STATES: Mapping[int, str] = {
    PowerState.NOSTATE: "pending",
    PowerState.RUNNING: "running",
    PowerState.PAUSED: "paused",
    PowerState.SHUTDOWN: "shut down",
    PowerState.CRASHED: "crashed",
    PowerState.SUSPENDED: "suspended",
}
"""Code → the word that nova uses for it."""
