"""Records which prove that nova's work on a server is over although its task is still set."""

from __future__ import annotations

from datetime import datetime, timedelta

from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.database.action import InstanceAction
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.migration import OVER, Migration
from hoodsnap.facts.fact import UnheardError

SETTLES = timedelta(minutes=2)
"""Longest time that nova takes to update the server after the end of its migration."""

HANDS_OVER = timedelta(minutes=10)
"""Longest time that a request takes from one service to the next."""

SPAWNED = frozenset(["migrating"])
"""Tasks that go on in a thread after the step that began them has ended."""


def finished_work(guest: Guest) -> Migration | InstanceAction | None:
    """Return the record which proves that the server's task has no worker any more.

    For a live migration, its record with a final status; for any other task, the last action if all
    of its steps have ended. None if there is no task, or no such proof.
    """
    instance = guest.instance
    if instance is None or not instance.task_state or "row" not in instance.said:
        return None
    try:
        began, asked = moment(instance.updated_at), instance.said["row"].at
        if began is None:
            return None
        if instance.task_state in SPAWNED:
            return _over(instance, began, asked)
        return _carried_out(instance, began, asked)
    except UnheardError:
        return None


ELSEWHERE = frozenset(["scheduling", "resize_migrated", "unshelving", "migrating"])
"""Tasks that may be going on in another service than the server's nova-compute."""


def restarted_since(guest: Guest) -> datetime | None:
    """Return the start of the host's nova-compute if the server's task is older, and not resumed.

    At its start nova-compute resumes, ends or clears some tasks; one that is set minutes later has
    no worker.
    """
    instance, host = guest.instance, guest.host
    if instance is None or host is None or not instance.task_state or "row" not in instance.said:
        return None
    try:
        if instance.task_state in ELSEWHERE or not guest.is_here:
            return None
        _, daemon = host.daemons.condition("nova-compute")
        started = host.daemons.since(daemon) if daemon is not None else None
        began, asked = moment(instance.updated_at), instance.said["row"].at
    except UnheardError:
        return None
    if started is None or began is None:
        return None
    return started if began < started and asked - started > HANDS_OVER else None


def _over(instance: Instance, began: datetime, asked: datetime) -> Migration | None:
    """Return the server's last live migration if it ended while the task was set."""
    moves = [moved for moved in instance.migrations or () if moved.type == "live-migration"]
    if any(moved.unfinished for moved in moves):
        return None
    last = max(moves, key=lambda moved: moved.id or 0, default=None)
    ended = moment(last.updated_at) if last is not None else None
    if last is None or ended is None or last.status not in OVER or last.deleted:
        return None
    # A task that was set after the end belongs to another migration.
    return last if asked - ended > SETTLES and began <= ended + SETTLES else None


def _carried_out(instance: Instance, began: datetime, asked: datetime) -> InstanceAction | None:
    """Return the server's last action if its steps ended long ago, and after the task was set."""
    last = instance.actions[-1] if instance.actions else None
    ended = last.ended_at if last is not None else None
    if last is None or ended is None:
        return None
    return last if asked - ended > HANDS_OVER and began <= ended else None
