"""Legal states: which states of nova, libvirt and QEMU may occur together.

A server that nova is not working on (its task_state is empty) and that is not being moved is in one
of the rows of `LEGAL`; any other combination is a difference. Sources: nova compute/power_state.py,
compute/vm_states.py, virt/libvirt/guest.py `LIBVIRT_POWER_STATE`, compute/manager.py
`_sync_instance_power_state`; libvirt src/qemu/qemu_monitor.c; QEMU's enum RunState.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from hoodsnap.facts.database.power_state import PowerState
from hoodsnap.facts.domain.state import EXECUTING, DomainState, PauseReason

NO_DOMAIN = -1
"""Placeholder for libvirt's state number if no domain exists."""

POWER_OF: Mapping[int, PowerState] = {
    DomainState.NOSTATE: PowerState.NOSTATE,
    DomainState.RUNNING: PowerState.RUNNING,
    DomainState.BLOCKED: PowerState.RUNNING,
    DomainState.PAUSED: PowerState.PAUSED,
    DomainState.SHUTDOWN: PowerState.SHUTDOWN,
    DomainState.SHUTOFF: PowerState.SHUTDOWN,
    DomainState.CRASHED: PowerState.CRASHED,
    DomainState.PMSUSPENDED: PowerState.SUSPENDED,
}
"""libvirt's state → nova's power_state. nova only copies in this direction.

A domain whose QEMU died is not 6 (crashed): libvirt reports it as shut off, with crashed as the
reason."""

_OFF = frozenset([PowerState.SHUTDOWN])
_ON_OR_OFF = frozenset([PowerState.RUNNING, PowerState.SHUTDOWN])
_AWAY = frozenset([DomainState.SHUTOFF, NO_DOMAIN])
_EITHER = EXECUTING | {DomainState.SHUTOFF}


class Legal(NamedTuple):
    """The legal states with one vm_state while nova is not working on the server."""

    status: str
    """Status in the API."""
    power: frozenset[PowerState] | None
    """nova's own copy of libvirt's state. None: any."""
    domain: frozenset[int] | None
    """libvirt's states. `NO_DOMAIN`: no domain exists; nova defines it at the next start. None:
    any."""
    sync: str
    """Action of nova's power sync (every ten minutes) if the domain is in another state."""


LEGAL = {
    "active": Legal(
        "ACTIVE",
        frozenset([PowerState.RUNNING]),
        EXECUTING,
        "stops the server in nova if the guest is off, and ignores a paused guest",
    ),
    "paused": Legal(
        "PAUSED",
        frozenset([PowerState.PAUSED]),
        frozenset([DomainState.PAUSED]),
        "forces the guest off if it is off, and ignores a running guest",
    ),
    "suspended": Legal("SUSPENDED", _OFF, _AWAY, "nothing"),
    "stopped": Legal(
        "SHUTOFF",
        _OFF | {PowerState.NOSTATE},  # if the domain was once not found
        _AWAY,
        "forces the guest off without a shutdown",
    ),
    "rescued": Legal("RESCUE", _ON_OR_OFF, _EITHER, "nothing"),
    "resized": Legal("VERIFY_RESIZE", _ON_OR_OFF, _EITHER, "nothing"),
    "soft-delete": Legal(
        "SOFT_DELETED",
        _ON_OR_OFF | {PowerState.NOSTATE},
        _AWAY,
        "only logs a warning",
    ),
    "shelved": Legal("SHELVED", _OFF, _AWAY, "nothing"),
    "shelved_offloaded": Legal("SHELVED_OFFLOADED", _OFF, frozenset([NO_DOMAIN]), "nothing"),
    "building": Legal("BUILD", None, None, "nothing"),
    "error": Legal("ERROR", None, None, "nothing"),
    "deleted": Legal("DELETED", None, None, "nothing"),
}
"""vm_state → what may occur with it."""

RUNS = frozenset(["active", "paused", "rescued"])
"""The vm_states in which the domain is switched on."""

RESTS = frozenset(["stopped", "suspended", "soft-delete", "error", "shelved"])
"""The vm_states in which the domain may be missing: nova defines it again at the next start."""

STAYS = frozenset(["active", "paused", "suspended", "stopped", "rescued", "resized"])
"""The vm_states in which a server has a host."""

STATUS_OF: Mapping[int, frozenset[str]] = {
    DomainState.RUNNING: frozenset(["running"]),
    DomainState.BLOCKED: frozenset(["running"]),
    DomainState.PAUSED: frozenset(
        (
            *("paused", "io-error", "inmigrate", "postmigrate", "finish-migrate", "prelaunch"),
            *("save-vm", "restore-vm", "watchdog", "internal-error", "guest-panicked", "debug"),
            *("shutdown", "colo"),
        )
    ),
    DomainState.SHUTDOWN: frozenset(["running", "shutdown"]),
    DomainState.CRASHED: frozenset(["guest-panicked", "paused", "shutdown"]),
    DomainState.PMSUSPENDED: frozenset(["suspended"]),
}
"""libvirt's state → QEMU's `query-status`. NOSTATE and SHUTOFF have none."""

PAUSED_OUTSIDE_NOVA: Mapping[int, str] = {
    PauseReason.UNKNOWN: "QEMU paused it, and libvirt knows no reason",
    PauseReason.USER: "it was paused on the host",
    PauseReason.DUMP: "a memory dump was not finished",
    PauseReason.WATCHDOG: "its watchdog fired",
    PauseReason.FROM_SNAPSHOT: "it was started from a snapshot",
    PauseReason.SNAPSHOT: "a snapshot was not finished",
    PauseReason.CRASHED: "the guest's kernel panicked",
    PauseReason.API_ERROR: "libvirt could not continue after an error",
}
"""libvirt's reasons for a lasting pause. I/O errors and migrations have checks of their own;
saving, shutting down and starting are transient."""
