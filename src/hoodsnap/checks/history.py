"""The history of a server: its moves and actions in the nova API and in nova's database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.evidence import Severity, derives, hears
from hoodsnap.facts.api.history import (
    ListedAction,
    ListedMigration,
    listed_actions,
    listed_migrations,
)
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.database.action import InstanceAction
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.migration import Migration
from hoodsnap.facts.fact import UnheardError, known
from hoodsnap.facts.layer import NOVA
from hoodsnap.phrase import brief

KEPT = 10
"""The collector reads this many of the newest actions of a server from the database."""

CLOCK = "SELECT UTC_TIMESTAMP(6)"

WRITTEN_WITHIN = timedelta(minutes=1)
"""nova notes the time of a request when it arrives, cut to seconds, and writes the row later."""

OF_A_MOVE = (
    *("id", "uuid", "instance_uuid", "user_id", "project_id", "migration_type"),
    *("source_compute", "source_node", "old_instance_type_id", "new_instance_type_id"),
)
"""Columns of a migration that tell whose move it is, and of which kind."""

LATER = ("status", "dest_host", "dest_compute", "dest_node")
"""Columns of a migration that change with `updated_at`."""

OF_AN_ACTION = ("action", "instance_uuid", "user_id", "project_id")
"""Columns of an action that never change."""

TIMES = ("created_at",)
"""Columns of a migration that are times and never change."""


@check(Severity.WARNING)
def histories_apart(cloud: Cloud) -> Problems:
    """The nova API and nova's database have different histories of a server.

    The API reads its lists from the same tables. If they differ, nova-api uses another database
    than the one that was collected: a replica that is behind or was written to, a restored copy, or
    the database of another cloud. All other comparisons with that database are in doubt, too.

    Authority: Neither, until it is known which database nova-api uses.

    Traps: A move in progress changes between the two questions; its state and its destination are
    compared only if both show the same time of the last change.

    Next: Compare both histories, and find the database that nova-api and nova-conductor use:

        openstack server migration list --server UUID
        openstack server event list UUID --long
        SELECT created_at, action, request_id FROM instance_actions WHERE instance_uuid = 'UUID'
        grep -A 5 '^.api_database.\\|^.database.' /etc/nova/nova.conf

    If nova-api reads a replica, check its replication, and collect again from the database that
    nova writes to.

    Not yet: Do not correct rows before it is known which database nova uses.

    Source: nova api/openstack/compute/instance_actions.py, migrations.py; nova configuration,
    `[database]slave_connection`.
    """
    answers = cloud.bundle.by_layer.get(NOVA.id, ())
    moves = cloud.instances.moves
    numbered = {(str(it.raw.get("id")), it.raw.get("instance_uuid")): it for it in moves.values()}
    for listed in listed_migrations(answers):
        number = str(listed.raw.get("id")), listed.raw.get("instance_uuid")
        moved = moves.get(_uuid(listed)) or numbered.get(number)
        if moved is not None:
            yield from _other_move(cloud, listed, moved)
    for action in listed_actions(answers):
        instance = cloud.instances.by_uuid.get(action.server)
        if instance is not None and not instance.deleted:
            yield from _other_action(cloud.bundle, action, instance)


def _uuid(listed: ListedMigration) -> str:
    """Return a migration's UUID; "" before microversion 2.59, which shows none."""
    return known(lambda: listed.uuid) or ""


def _other_move(cloud: Cloud, listed: ListedMigration, moved: Migration) -> Iterator[Problem]:
    names = (*OF_A_MOVE, *LATER) if _is_one_version(listed, moved) else OF_A_MOVE
    uuid = known(lambda: moved.instance_uuid) or ""
    instance = cloud.instances.by_uuid.get(uuid)
    title = (known(lambda: instance.name) if instance is not None else None) or brief(uuid)
    for name, own, its in (
        *_apart(names, listed.raw, moved.raw),
        *_times_apart(TIMES, listed.raw, moved.raw),
    ):
        yield problem(
            f"{title}'s move {brief(listed.uuid)} has {name} {brief(own)} in the nova API, but "
            f"{brief(its)} in nova's database",
            derives(listed, name, **{name: own}),
            derives(moved, name, **{name: its}),
            UUID=uuid or None,
        )


def _other_action(bundle: Bundle, listed: ListedAction, instance: Instance) -> Iterator[Problem]:
    try:
        actions = {action.request_id: action for action in instance.actions}
    except UnheardError:
        return  # the database's history of this server is unknown
    title = instance.name or listed.server
    stored = actions.get(listed.request_id)
    if stored is None:
        yield from _unknown_action(bundle, listed, instance, title, len(actions))
        return
    is_one = _is_one_version(listed, stored)
    for name, own, its in _apart(OF_AN_ACTION, listed.raw, stored.raw):
        yield _differing(title, listed, stored, (name, own, its))
    if is_one and "message" in listed.raw and "message" in stored.raw:
        said, kept = (str(one.raw.get("message") or "none") for one in (listed, stored))
        if said != kept:
            yield _differing(title, listed, stored, ("message", said, kept))
    began, begun = moment(listed.raw.get("start_time")), moment(stored.start_time)
    if began is not None and begun is not None and began.replace(microsecond=0) != begun:
        yield _differing(title, listed, stored, ("start_time", str(began), str(begun)))


def _differing(
    title: str, listed: ListedAction, stored: InstanceAction, apart: tuple[str, str, str]
) -> Problem:
    name, own, its = apart
    return problem(
        f"{title}'s {listed.raw.get('action')} has {name} {brief(own)} in the nova API, but "
        f"{brief(its)} in nova's database",
        derives(listed, name, request_id=listed.request_id, **{name: own}),
        derives(stored, name, **{name: its}),
        UUID=listed.server,
    )


def _unknown_action(
    bundle: Bundle, listed: ListedAction, instance: Instance, title: str, stored: int
) -> Iterator[Problem]:
    """Report an action of the API that the database, of which all actions were read, lacks."""
    began, answer = moment(listed.raw.get("start_time")), instance.last_action
    if stored >= KEPT or began is None or answer is None:
        return
    if began > _snapshot_of(bundle, answer.answer) - WRITTEN_WITHIN:
        return  # not yet written when the database's snapshot began
    yield problem(
        f"{title}'s {listed.raw.get('action')} of {began:%Y-%m-%d %H:%M} is in the nova API "
        f"({listed.request_id}), but not in nova's database",
        derives(listed, "action", action=listed.raw.get("action"), request_id=listed.request_id),
        hears(answer.answer, "instance", listed.server, action=None),
        UUID=listed.server,
    )


def _snapshot_of(bundle: Bundle, answer: Answer) -> datetime:
    """Return when the snapshot began in which a database gave this answer: the collector asks for
    the time at the beginning of each snapshot, and some rows only minutes later."""
    clocks = (one.at for one in bundle.asked(answer.layer, CLOCK, answer.host))
    return max((at for at in clocks if at <= answer.at), default=answer.at)


def _is_one_version(
    listed: ListedMigration | ListedAction, stored: Migration | InstanceAction
) -> bool:
    """True if both sides show the same time of the last change."""
    return moment(listed.raw.get("updated_at")) == moment(stored.raw.get("updated_at"))


def _times_apart(
    names: tuple[str, ...], one: Mapping[str, object], other: Mapping[str, object]
) -> Iterator[tuple[str, str, str]]:
    """Yield the times that both sides have and that differ, with both."""
    for name in names:
        own, its = moment(one.get(name)), moment(other.get(name))
        if own is not None and its is not None and _second(own) != _second(its):
            yield name, f"{own:%Y-%m-%d %H:%M:%S}", f"{its:%Y-%m-%d %H:%M:%S}"


def _second(at: datetime) -> datetime:
    return at.replace(microsecond=0)


def _apart(
    names: tuple[str, ...], one: Mapping[str, object], other: Mapping[str, object]
) -> Iterator[tuple[str, str, str]]:
    """Yield the names whose values both sides have and that differ, with both values."""
    for name in names:
        own, its = one.get(name), other.get(name)
        if isinstance(own, str | int) and isinstance(its, str | int) and str(own) != str(its):
            yield name, str(own), str(its)
