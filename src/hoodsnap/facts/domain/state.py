"""libvirt's domain states, and the reasons of each state (include/libvirt/libvirt-domain.h)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum


class DomainState(IntEnum):
    """virDomainState. A newer libvirt may report numbers that are not listed here."""

    NOSTATE = 0
    RUNNING = 1
    BLOCKED = 2
    """Xen's state of a waiting domain, whose vCPUs run."""
    PAUSED = 3
    SHUTDOWN = 4
    """The guest is shutting down."""
    SHUTOFF = 5
    CRASHED = 6
    PMSUSPENDED = 7
    """The guest suspended itself (S3)."""


class PauseReason(IntEnum):
    """virDomainPausedReason: the reason why a domain is paused."""

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
    """virDomainShutoffReason: the reason why a domain is off."""

    UNKNOWN = 0
    SHUTDOWN = 1
    """The guest shut itself down."""
    DESTROYED = 2
    CRASHED = 3
    MIGRATED = 4
    SAVED = 5
    FAILED = 6
    FROM_SNAPSHOT = 7
    DAEMON = 8


EXECUTING = frozenset([DomainState.RUNNING, DomainState.BLOCKED])
"""States in which the vCPUs of a domain run."""

ON = EXECUTING | {DomainState.PAUSED, DomainState.SHUTDOWN, DomainState.PMSUSPENDED}
"""States in which a domain has a QEMU process."""

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
"""State → virsh's word for it, and after the colon its words for the reasons, by number."""


def state_words(state: int, reason: int) -> str:
    """Return a state in virsh's words: `running (booted)`, `paused (I/O error)`."""
    name, _, reasons = WORDS.get(state, f"state {state}: unknown").partition(": ")
    words = reasons.split(", ")
    return f"{name} ({words[reason] if reason < len(words) else 'unknown'})"
