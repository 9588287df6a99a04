"""Which states of the layers go together: nova's, libvirt's and QEMU's words for the same.

A server that nova is not working on (its task_state is empty) and that nothing moves is in one of
the rows of `LEGAL`; whatever else is seen is a difference. Sources: nova compute/power_state.py,
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
"""Its guest put it to sleep (S3)."""

SLEEPS = "its guest put itself to sleep, and nova takes that for off: it stops it"

NONE = -1
"""Stands for having no domain where libvirt's number of a state is expected."""

POWER_OF = {0: 0, 1: 1, 2: 1, 3: 3, 4: 4, 5: 4, 6: 6, 7: 7}
"""libvirt's state → nova's power_state, which is always copied this way and never back. A QEMU that
died is not 6 (crashed): libvirt says that it is shut off, and crashed is only the reason."""


class Legal(NamedTuple):
    """What goes with one vm_state, as long as nothing is being done with it."""

    status: str
    """What the API shows."""
    power: frozenset[int] | None
    """nova's own copy of libvirt's state; None: any."""
    domain: frozenset[int] | None
    """libvirt's states; `NONE`: no domain at all, which nova defines when it is started. None: any.
    """
    sync: str
    """What nova's power sync (every ten minutes) does about another state of the domain."""


LEGAL = {
    "active": Legal(
        "ACTIVE",
        frozenset([1]),
        frozenset([1, 2]),
        "stops it officially if it is off, and lets it be if it is paused",
    ),
    "paused": Legal(
        "PAUSED",
        frozenset([3]),
        frozenset([3]),
        "forces it off if it is off, and lets it be if it runs",
    ),
    "suspended": Legal("SUSPENDED", frozenset([4]), frozenset([5, NONE]), "nothing"),
    "stopped": Legal(
        "SHUTOFF",
        frozenset([0, 4]),  # 0 where the domain was not found once
        frozenset([5, NONE]),
        "forces it off, without a shutdown",
    ),
    "rescued": Legal("RESCUE", frozenset([1, 4]), frozenset([1, 2, 5]), "nothing"),
    "resized": Legal("VERIFY_RESIZE", frozenset([1, 4]), frozenset([1, 2, 5]), "nothing"),
    "soft-delete": Legal(
        "SOFT_DELETED", frozenset([0, 1, 4]), frozenset([5, NONE]), "only warns in its log"
    ),
    "shelved": Legal("SHELVED", frozenset([4]), frozenset([5, NONE]), "nothing"),
    "shelved_offloaded": Legal("SHELVED_OFFLOADED", frozenset([4]), frozenset([NONE]), "nothing"),
    "building": Legal("BUILD", None, None, "nothing"),
    "error": Legal("ERROR", None, None, "nothing"),
    "deleted": Legal("DELETED", None, None, "nothing"),
}
"""vm_state → what goes with it."""

RUNS = frozenset(["active", "paused", "rescued"])
"""The vm_states in which a VM has a domain that is switched on."""

RESTS = frozenset(["stopped", "suspended", "soft-delete", "error", "shelved"])
"""The vm_states in which it may have none: nova defines it again when it is started."""

STAYS = frozenset(["active", "paused", "suspended", "stopped", "rescued", "resized"])
"""The vm_states of a VM that is somewhere: it has a host."""

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
"""libvirt's state → what QEMU's `query-status` says with it. Of 0 (none) and 5 (off) nothing."""

PAUSED_BY_NOBODY = {
    0: "QEMU paused it by itself (an internal error, or a debugger)",
    1: "somebody on the host paused it: virsh suspend, a backup",
    4: "a dump of its memory was left half-way",
    6: "its watchdog fired",
    7: "it was started from a snapshot",
    9: "a snapshot was left half-way",
    10: "its kernel panicked",
    14: "libvirt could not go on after an error",
}
"""libvirt's reasons for a pause that last, other than an I/O error (5) and a migration (2, 12, 13),
which have checks of their own, and the steps of saving (3), of starting and of ending (11, 8)."""
