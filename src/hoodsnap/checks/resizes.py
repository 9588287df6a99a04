"""A resize that waits for its confirmation: its flavors and its migration in nova's records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.traps import building, migrating, task_in_flight
from hoodsnap.evidence import Severity, derives, hears, says
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.migration import Migration
from hoodsnap.facts.database.stored_object import fields_if_wrapped, read_object
from hoodsnap.facts.fact import integer, text
from hoodsnap.phrase import brief

SIZES = ("memory_mb", "vcpus", "root_gb", "ephemeral_gb", "swap")
"""Sizes of a flavor, which never change while it exists."""

NAMES = ("flavorid", "name")


@check(Severity.WARNING, traps=[building, task_in_flight, migrating])
def resize_record_differs(guest: Guest, instance: Instance) -> Problems:
    """A resize that waits for its confirmation has other flavors than recorded.

    Until a resize is confirmed or reverted, nova keeps the old and the new flavor with the server,
    and the numbers of both flavors in the migration. A confirmation frees what the old flavor
    needed; reverting gives the server the old flavor's sizes again. If the copies differ, either of
    them leaves the server or placement with wrong sizes.

    Authority: The flavor that the migration's row names; for the sizes in use, the current flavor.

    Traps: A flavor that was deleted since can't be compared. A flavor that was created again has
    another number.

    Next: Compare the stored flavors with the migration and with the flavors:

        openstack server migration list --server UUID --long
        openstack flavor show FLAVOR
        SELECT flavor FROM DATABASE.instance_extra WHERE instance_uuid = 'UUID'
        SELECT old_instance_type_id, new_instance_type_id FROM DATABASE.migrations WHERE instance_uuid = 'UUID'

    Find out whether a row was changed by hand or restored from a backup, and restore it from the
    same backup as the others.

    Not yet: Do not confirm or revert the resize before its flavors are right, and do not let
    `resize_confirm_window` confirm it.

    Source: nova compute/manager.py `_finish_resize`, `_finish_revert_resize_network_migrate_finish`,
    `confirm_resize`; nova objects/migration_context.py.
    """  # noqa: E501 (an SQL statement is one line)
    if instance.deleted or instance.vm_state != "resized":
        return
    old, new, now = (instance.stored_flavor(which) for which in ("old", "new", "cur"))
    names: dict[str, Any] = {"FLAVOR": "", "DATABASE": instance.database}
    if new is not None and now is not None:
        for key, its, own in _apart(new, now):
            yield problem(
                f"{guest.title}'s resize ends with a flavor of {key} {_short(its)}, but the server "
                f"has one of {_short(own)}",
                derives(instance, "flavor", **{f"new_flavor_{key}": its}),
                derives(instance, "flavor", **{f"flavor_{key}": own}),
                **names | {"FLAVOR": text(now, "name") or ""},
            )
    moves = [move for move in instance.migrations or () if move.status == "finished"]
    if len(moves) != 1:
        return  # other checks report a resize without a migration
    for which, stored in (("old", old), ("new", new)):
        if stored is not None:
            yield from _not_as_moved(guest, instance, moves[0], which, stored, names)
    yield from _of_context(guest, instance, moves[0], names)


def _apart(
    one: Mapping[str, object], other: Mapping[str, object]
) -> Iterator[tuple[str, object, object]]:
    for key in (*NAMES, *SIZES):
        own, its = one.get(key), other.get(key)
        if own is not None and its is not None and own != its:
            yield key, own, its


def _short(value: object) -> str:
    return brief(str(value))


def _not_as_moved(
    guest: Guest,
    instance: Instance,
    move: Migration,
    which: str,
    stored: Mapping[str, object],
    names: dict[str, Any],
) -> Iterator[Problem]:
    """Compare a stored flavor with the row of the flavor whose number the migration has."""
    column = f"{which}_instance_type_id"
    number = integer(move.raw, column) if column in move.raw else None
    if number is None or instance.tables is None:
        return
    for row in instance.tables.of("flavors"):
        if row.cells.get("id") != number or row.cells.get("deleted"):
            continue
        for key, own, its in _apart(stored, row.cells):
            yield problem(
                f"{guest.title}'s {which} flavor of its resize has {key} {_short(own)}, but the "
                f"flavor of its migration has {_short(its)}",
                derives(instance, "flavor", **{f"{which}_flavor_{key}": own}),
                hears(row.answer, "nova-db", f"flavors[id={number}]", **{key: its}),
                says(move, uuid=move.uuid),
                **names | {"FLAVOR": text(row.cells, "name") or ""},
            )


def _of_context(
    guest: Guest, instance: Instance, move: Migration, names: dict[str, Any]
) -> Iterator[Problem]:
    written = text(instance.instance_extra or {}, "migration_context")
    if not written:
        return
    number = fields_if_wrapped(read_object(written, "the migration context")).get("migration_id")
    if isinstance(number, int) and move.id is not None and number != move.id:
        yield problem(
            f"{guest.title}'s resize is of migration {number} in its migration context, but its "
            f"migration is {move.id}",
            derives(instance, "instance_extra", migration_id=number),
            says(move, id=move.id, status=move.status),
            **names,
        )
