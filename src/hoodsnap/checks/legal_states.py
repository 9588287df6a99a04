"""Legal states: which states of nova, libvirt and QEMU may occur together.

A server that nova is not working on (its task_state is empty) and that is not being moved is in one
of the rows of `LEGAL`; any other combination is a difference. Sources: nova compute/power_state.py,
compute/vm_states.py, virt/libvirt/guest.py `LIBVIRT_POWER_STATE`, compute/manager.py
`_sync_instance_power_state`; libvirt src/qemu/qemu_monitor.c; QEMU's enum RunState.
"""

from __future__ import annotations

from typing import NamedTuple

RUNNING = frozenset([1, 2])
"""libvirt's states of a domain whose vCPUs run."""

PAUSED = 3

CRASHED = 6

ASLEEP = 7
"""The guest went to sleep by itself (S3)."""

SLEEPS = "the guest went to sleep by itself; nova treats that as off and stops it"

NONE = -1
"""Placeholder for libvirt's state number if no domain exists."""

POWER_OF = {0: 0, 1: 1, 2: 1, 3: 3, 4: 4, 5: 4, 6: 6, 7: 7}
"""libvirt's state → nova's power_state. nova only copies in this direction.

A domain whose QEMU died is not 6 (crashed): libvirt reports it as shut off, with crashed as the
reason."""


class Legal(NamedTuple):
    """What may occur with one vm_state while nova is not working on the server."""

    status: str
    """Status in the API."""
    power: frozenset[int] | None
    """nova's own copy of libvirt's state. None: any."""
    domain: frozenset[int] | None
    """libvirt's states. `NONE`: no domain exists; nova defines it at the next start. None: any."""
    sync: str
    """Action of nova's power sync (every ten minutes) if the domain is in another state."""


LEGAL = {
    "active": Legal(
        "ACTIVE",
        frozenset([1]),
        frozenset([1, 2]),
        "stops the server in nova if the guest is off, and ignores a paused guest",
    ),
    "paused": Legal(
        "PAUSED",
        frozenset([3]),
        frozenset([3]),
        "forces the guest off if it is off, and ignores a running guest",
    ),
    "suspended": Legal("SUSPENDED", frozenset([4]), frozenset([5, NONE]), "nothing"),
    "stopped": Legal(
        "SHUTOFF",
        frozenset([0, 4]),  # 0 if the domain was once not found
        frozenset([5, NONE]),
        "forces the guest off without a shutdown",
    ),
    "rescued": Legal("RESCUE", frozenset([1, 4]), frozenset([1, 2, 5]), "nothing"),
    "resized": Legal("VERIFY_RESIZE", frozenset([1, 4]), frozenset([1, 2, 5]), "nothing"),
    "soft-delete": Legal(
        "SOFT_DELETED", frozenset([0, 1, 4]), frozenset([5, NONE]), "only logs a warning"
    ),
    "shelved": Legal("SHELVED", frozenset([4]), frozenset([5, NONE]), "nothing"),
    "shelved_offloaded": Legal("SHELVED_OFFLOADED", frozenset([4]), frozenset([NONE]), "nothing"),
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

STATUS_OF = {
    1: frozenset(["running"]),
    2: frozenset(["running"]),
    3: frozenset(
        (
            *("paused", "io-error", "inmigrate", "postmigrate", "finish-migrate", "prelaunch"),
            *("save-vm", "restore-vm", "watchdog", "internal-error", "guest-panicked", "debug"),
            *("shutdown", "colo"),
        )
    ),
    4: frozenset(["running", "shutdown"]),
    6: frozenset(["guest-panicked", "paused", "shutdown"]),
    7: frozenset(["suspended"]),
}
"""libvirt's state → QEMU's `query-status`. 0 (no state) and 5 (shut off) have none."""

PAUSED_OUTSIDE_NOVA = {
    0: "QEMU paused it (an internal error or a debugger)",
    1: "it was paused on the host (virsh suspend, a backup)",
    4: "a memory dump was not finished",
    6: "its watchdog fired",
    7: "it was started from a snapshot",
    9: "a snapshot was not finished",
    10: "the guest's kernel panicked",
    14: "libvirt could not continue after an error",
}
"""libvirt's reasons for a lasting pause. I/O errors (5) and migrations (2, 12, 13) have checks of
their own; saving (3), shutting down (8) and starting (11) are transient."""
