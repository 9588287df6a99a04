"""Servers that were set to active by hand while other records still show another one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.corruption import written_after
from hoodsnap.checks.saved_state import damage, lost_save
from hoodsnap.checks.traps import building, migrating, task_in_flight
from hoodsnap.evidence import Evidence, Severity, says
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.database.action import InstanceAction
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.tables import plain_name
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.state import ON

RESET = "resetState"
"""nova's action of `openstack server set --state`."""

RESIZING = frozenset(["resize", "migrate"])
SHELVING = frozenset(["shelve", "shelveOffload", "unshelve"])
"""An unshelving that failed leaves the server shelved."""
SUSPENDING = frozenset(["suspend", "resume"])
"""A resuming that failed leaves the saved memory."""

STATEFUL = frozenset(
    (
        *RESIZING,
        *SHELVING,
        *SUSPENDING,
        *("confirmResize", "revertResize", "start", "stop", "reboot", "rebuild", "evacuate"),
        *("pause", "unpause", "rescue", "unrescue", "live-migration", "create", "restore"),
    )
)
"""nova's actions that give the server a state."""


class Former(NamedTuple):
    """The state that the server had before it was set to active, and what still shows it."""

    vm_state: str
    words: str
    """A predicate whose subject is the server: `is shelved`."""
    after: frozenset[str]
    """nova's actions of which one must have been the last before the reset."""
    severity: Severity
    placeholder: str
    """The placeholder of the advice for this state."""
    evidence: tuple[Evidence, ...]


@check(Severity.ERROR, traps=[building, task_in_flight, migrating])
def state_reset_by_hand(guest: Guest, host: Host | None, instance: Instance) -> Problems:
    """The server was set to active by hand, although it is shelved, suspended or being resized.

    `openstack server set --state active` changes only the state in the server's record, so nova now
    refuses the commands that end the true state, and permits others that destroy what is left of
    it. A resize still has both flavors, its migration and the copy to revert to; a shelved server
    exists only as an image; a suspended one has its memory in a file. If `resize_confirm_window` is
    set, nova-compute soon sets the migration's status to error, which prevents confirming and
    reverting.

    Authority: What the last action before the reset left: the migration, the shelved image, the
    saved memory.

    Traps: An action after the reset that gave the server another state. Older actions than the
    newest ten are not collected. Saved memory that is stale or damaged is left to
    `managed-save-mismatch` and `saved-memory-damaged`.

    Next: Check the server's history, its moves and its domain:

        openstack server event list UUID
        openstack server migration list --server UUID
        virsh domstate --reason UUID

    Then set the state that the server had before the reset, in its record in the cell's database;
    no command does it:

        UPDATE DATABASE.instances SET vm_state = 'FORMER' WHERE uuid = 'UUID'

    If the owner keeps the resize, confirm it, which removes the copy to revert to:

        openstack server resize confirm RESIZED

    If the owner does not keep it, revert it instead, which restarts the guest from that copy:

        openstack server resize revert RESIZED

    If the owner needs a shelved server, restore it from its image:

        openstack server unshelve SHELVED

    If the owner needs a suspended server, resume it, which restores its memory:

        openstack server resume RESUMED

    It worked if nova reports this state, or ACTIVE after it was ended:

        openstack server show UUID -c status

    Not yet: Do not resize or migrate the server again: nova first removes the copy to revert to. Do
    not set the status of its migration. Do not start, stop, reboot or rebuild the server, and do
    not start its domain. Do not set a host in its record. Do not delete its image or its files.

    Source: nova api/openstack/compute/admin_actions.py `_reset_state`; compute/manager.py
    `_poll_unconfirmed_resizes`, virt/libvirt/driver.py `migrate_disk_and_power_off`.
    """
    if instance.deleted or instance.vm_state != "active":
        return
    former = next(_formers(guest, host, instance), None)
    if former is None:
        return
    reset = _reset_after(instance, former.after)
    if reset is None:
        return
    at = moment(reset.start_time)
    yield problem(
        f"{guest.title} {former.words}, but was set to active by hand"
        + (f" at {at:%H:%M:%S}" if at is not None else ""),
        says(reset, action=reset.action, start_time=reset.start_time),
        says(instance, vm_state=instance.vm_state),
        *former.evidence,
        severity=former.severity,
        FORMER=former.vm_state,
        DATABASE=plain_name(instance.database),
        **{**dict.fromkeys(("RESIZED", "SHELVED", "RESUMED"), ""), former.placeholder: guest.uuid},
    )


def _reset_after(instance: Instance, last: frozenset[str]) -> InstanceAction | None:
    """Return the reset that is the server's last action, if the one before it is one of `last`.

    Actions that change no state are passed over. Raises `UnheardError` if the actions were not
    collected.
    """
    reset: InstanceAction | None = None
    for action in reversed(instance.actions):
        if action.action == RESET:
            reset = reset or action
        elif action.action in STATEFUL:
            return reset if action.action in last else None
    return None


def _formers(guest: Guest, host: Host | None, instance: Instance) -> Iterator[Former]:
    domain = guest.domain
    if domain is None or not domain.managed_save:
        yield from _waiting(instance)
        if not guest.runs:
            yield from _shelved(instance)
    elif host is not None:
        yield from _suspended(host, domain)


def _waiting(instance: Instance) -> Iterator[Former]:
    moves = [
        move
        for move in instance.migrations or ()
        if move.status == "finished" and not move.deleted and move.type in ("resize", "migration")
    ]
    old = instance.stored_flavor("old") if len(moves) == 1 else None
    if old is not None:
        yield Former(
            "resized",
            "waits for its resize to be confirmed",
            RESIZING,
            Severity.WARNING,
            "RESIZED",
            (says(moves[0], type=moves[0].type, status=moves[0].status),),
        )


def _shelved(instance: Instance) -> Iterator[Former]:
    image = instance.shelved_image
    if image is not None:
        away = instance.host is None
        yield Former(
            "shelved_offloaded" if away else "shelved",
            "is shelved",
            SHELVING,
            Severity.ERROR,
            "SHELVED",
            (says(instance, shelved_image=image),),
        )


def _suspended(host: Host, domain: Domain) -> Iterator[Former]:
    if domain.state in ON or lost_save(host, domain) is not None:
        return
    if damage(host, domain) is not None or any(written_after(host, domain)):
        return
    yield Former(
        "suspended",
        "is suspended",
        SUSPENDING,
        Severity.WARNING,
        "RESUMED",
        (says(domain, state=domain.state_words, managed_save=True),),
    )
