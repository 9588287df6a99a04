"""libvirt's states of a domain, and the reasons of each (include/libvirt/libvirt-domain.h)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum


class DomainState(IntEnum):
    """virDomainState. A newer libvirt may report a number that is not in here."""

    NOSTATE = 0
    RUNNING = 1
    BLOCKED = 2
    """Xen's word for one that waits: its vCPUs run."""
    PAUSED = 3
    SHUTDOWN = 4
    """Its guest is shutting down."""
    SHUTOFF = 5
    CRASHED = 6
    PMSUSPENDED = 7
    """Its guest put itself to sleep (S3)."""


class PauseReason(IntEnum):
    """virDomainPausedReason: why a domain is paused."""

    UNKNOWN = 0
    USER = 1
    MIGRATION = 2
    SAVE = 3
    DUMP = 4
    IOERROR = 5
    WATCHDOG = 6
    FROM_SNAPSHOT = 7
    SHUTTING_DOWN = 8
    SNAPSHOT = 9
    CRASHED = 10
    STARTING_UP = 11
    POSTCOPY = 12
    POSTCOPY_FAILED = 13
    API_ERROR = 14


class ShutoffReason(IntEnum):
    """virDomainShutoffReason: why a domain is off."""

    UNKNOWN = 0
    SHUTDOWN = 1
    """Its guest shut itself down."""
    DESTROYED = 2
    CRASHED = 3
    MIGRATED = 4
    SAVED = 5
    FAILED = 6
    FROM_SNAPSHOT = 7
    DAEMON = 8


EXECUTING = frozenset([DomainState.RUNNING, DomainState.BLOCKED])
"""The states of a domain whose vCPUs run."""

ON = EXECUTING | {DomainState.PAUSED, DomainState.SHUTDOWN, DomainState.PMSUSPENDED}
"""The states of a domain that has a process."""

WORDS: Mapping[int, str] = {
    DomainState.NOSTATE: "no state: unknown",
    DomainState.RUNNING: "running: unknown, booted, migrated, restored, from snapshot, unpaused, "
    "migration canceled, save canceled, event wakeup, crashed, post-copy, post-copy failed",
    DomainState.BLOCKED: "idle: unknown",
    DomainState.PAUSED: "paused: unknown, user, migrating, saving, dumping, I/O error, watchdog, "
    "from snapshot, shutting down, creating snapshot, crashed, starting up, post-copy, "
    "post-copy failed, api error",
    DomainState.SHUTDOWN: "in shutdown: unknown, user",
    DomainState.SHUTOFF: "shut off: unknown, shutdown, destroyed, crashed, migrated, saved, "
    "failed, from snapshot, daemon",
    DomainState.CRASHED: "crashed: unknown, panicked",
    DomainState.PMSUSPENDED: "pmsuspended: unknown",
}
"""virsh's words for the states, and in the order of their numbers for the reasons of each."""


def state_words(state: int, reason: int) -> str:
    """Return virsh's words: `running (booted)`, `paused (I/O error)`, `shut off (saved)`."""
    name, _, reasons = WORDS.get(state, f"state {state}: unknown").partition(": ")
    words = reasons.split(", ")
    return f"{name} ({words[reason] if reason < len(words) else 'unknown'})"
