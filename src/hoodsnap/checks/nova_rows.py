"""Rows that belong to a server in other tables of nova: are they there, and are they its own?"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from hoodsnap.bundle import Answer
from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.mappings import is_before_havana
from hoodsnap.checks.traps import (
    building,
    just_changed,
    migrating,
    moving_to_another_cell,
    task_in_flight,
)
from hoodsnap.evidence import Severity, derives, hears, says
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.request_spec import RequestSpec
from hoodsnap.facts.database.stored_object import fields_if_wrapped
from hoodsnap.facts.database.tables import Row
from hoodsnap.facts.fact import UnheardError, known, text
from hoodsnap.facts.uuids import UUID
from hoodsnap.phrase import brief, several

SHOWN = 10
"""Number of rows that one finding shows; the others are only counted."""

EXTRA = "instance_extra"

OWNED = ("numa_topology", "pci_requests", "migration_context")
"""Columns of `instance_extra` with an object that repeats the UUID of its instance."""

TABLES = (
    *("instance_extra", "instance_info_caches", "instance_system_metadata", "instance_faults"),
    *("instance_actions", "instance_id_mappings", "virtual_interfaces", "migrations"),
    *("instance_mappings", "request_specs"),
)
"""Tables with rows that belong to an instance. Block device mappings are judged by their volumes,
build requests by `instance-mapping-skew`."""


@check(Severity.ERROR, traps=[building, moving_to_another_cell])
def instance_extra_missing(guest: Guest, instance: Instance) -> Problems:
    """The server has no row in instance_extra, which holds its flavor.

    nova can't load such a server: a request for it fails with HTTP 500 (`OrphanedObjectError`), and
    so does every list that contains it, for its project and for administrators. nova-compute fails
    at every periodic task that reads all servers of the host. The guest itself keeps running. A
    partial restore of the database, or a DELETE by hand, leaves the server without the row.

    Authority: The cell's database.

    Traps: Before Juno the table does not exist, and before Kilo it holds no flavor. A table that
    was not collected proves nothing. A deleted server may have lost its row.

    Next: Check that the row does not exist, and that the API fails:

        SELECT id FROM DATABASE.instance_extra WHERE instance_uuid = 'UUID'
        openstack server show UUID

    Look for the row in a backup of the cell's database, and compare its flavor with the other
    records of the server:

        SELECT memory_mb, vcpus, root_gb, ephemeral_gb FROM DATABASE.instances WHERE uuid = 'UUID'
        SELECT spec FROM nova_api.request_specs WHERE instance_uuid = 'UUID'
        virsh dumpxml UUID | grep -A12 nova:flavor

    Then load the row of the backup into the table again, and nothing else of the backup:

        mysql DATABASE < EXTRA_ROW

    It worked if the API shows the server and the list of its host:

        openstack server show UUID
        openstack server list --all-projects --host HOST

    Not yet: Do not delete the server's other rows to make the list work: the guest keeps running
    without a record. Do not restart nova-compute before the row is back.

    Source: nova db/main/api.py `_instance_get_by_uuid`, objects/instance.py `obj_load_attr`; nova
    bug 1662699.
    """
    if instance.deleted or instance.instance_extra is not None:
        return
    asked = _asked(instance, EXTRA)
    if asked is None or "flavor" not in asked.value["columns"]:
        return
    yield problem(
        f"{guest.title} has no row in {EXTRA}: nova can't load the server, and lists that contain "
        "it fail",
        says(instance, vm_state=instance.vm_state, host=instance.host),
        hears(asked, "nova-db", f"{instance.database}.{EXTRA}", instance_extra=None),
        DATABASE=instance.database,
        HOST=instance.host,
    )


def _asked(instance: Instance, table: str) -> Answer | None:
    """Return the answer that has all rows of the instance in a table of its cell; None if the
    release has no such table. Raises `UnheardError`."""
    tables = instance.tables
    if tables is None or instance.archived:
        raise UnheardError(f"the instance's row in {table} was not collected")
    if any(f".{table} " in f"{answer.query} " for answer in tables.failures):
        raise UnheardError(f"the instance's row in {table} was not collected")
    asked = tables.read.get((instance.database, table), ())
    found = [answer for answer in asked if tables.asks_for(answer, instance.uuid)]
    if not found and asked:
        raise UnheardError(f"the instance's row in {table} was not collected")
    return found[-1] if found else None


@check(Severity.WARNING, traps=[building, task_in_flight, migrating, moving_to_another_cell])
def row_of_another_instance(guest: Guest, cloud: Cloud, instance: Instance) -> Problems:
    """A record of the server holds the identity of another server.

    Some of nova's records repeat the UUID of their server inside a stored object. If it is another
    server's, two rows were exchanged or copied (a restored table, an UPDATE with a wrong
    condition), and all other values of the row are the other server's too: its flavor, its PCI
    devices, its image and zone. nova uses them at the next move, resize or hard reboot.

    Authority: The column instance_uuid of the row, by which nova finds it; the server's other
    records, for the values.

    Traps: Old releases stored no UUID. During a resize the stored objects of both flavors exist.

    Next: Compare the row with the row of the other server:

        SELECT * FROM DATABASE.TABLE WHERE instance_uuid IN ('UUID', 'OTHER')
        openstack server show UUID
        openstack server show OTHER

    Look for both rows in a backup of the database. If only the two owners were exchanged, exchange
    the values of instance_uuid back, in one transaction, while neither server has a task.

    Not yet: Do not migrate, resize, unshelve or hard-reboot either server: nova would use the
    wrong row.

    Source: nova objects/instance_pci_requests.py, objects/migration_context.py,
    objects/request_spec.py.
    """
    if instance.deleted or not guest.carries_record:
        return
    reason: UnheardError | None = None
    if instance.instance_extra is not None:
        for column in OWNED:
            for place, other in _owners(instance.instance_extra.get(column), guest.uuid):
                if other != guest.uuid:
                    yield _foreign(guest, cloud, instance, f"{column}{place}", other)
    try:
        spec = instance.request_spec
        inside = spec.told("instance_uuid") if isinstance(spec, RequestSpec) else None
        if isinstance(spec, RequestSpec) and inside is not None and inside.lower() != guest.uuid:
            yield problem(
                f"{guest.title}'s request spec is that of {cloud.title_of(inside.lower())} "
                f"({brief(inside)})",
                derives(spec, "spec.instance_uuid", instance_uuid=inside),
                says(instance, uuid=instance.uuid),
                DATABASE=spec.database,
                TABLE="request_specs",
                OTHER=inside,
            )
        if isinstance(spec, RequestSpec):
            for place, other in _owners(spec.raw.get("spec"), guest.uuid):
                if place and other != guest.uuid:
                    yield problem(
                        f"{guest.title}'s request spec holds the {place[1:]} of "
                        f"{cloud.title_of(other)} ({brief(other)})",
                        derives(spec, "image", instance_uuid=other),
                        says(instance, uuid=instance.uuid),
                        DATABASE=spec.database,
                        TABLE="request_specs",
                        OTHER=other,
                    )
    except UnheardError as unheard:
        reason = unheard
    yield from _context(guest, instance)
    yield from _cards(guest, cloud, instance)
    if reason is not None:
        raise reason


def _cards(guest: Guest, cloud: Cloud, instance: Instance) -> Iterator[Problem]:
    """Yield a row in virtual_interfaces whose port belongs to another server in neutron."""
    for card in instance.virtual_interfaces or ():
        port = cloud.ports.by_id.get(str(card.get("uuid") or "").lower())
        owner = known(lambda port=port: port.device_id) if port is not None else None  # type: ignore[misc]
        if port is None or not owner or owner == guest.uuid or just_changed(port):
            continue
        if owner not in cloud.instances.by_uuid:
            continue  # a router's, or the server's that is not there: other checks report it
        yield problem(
            f"{guest.title}'s row in virtual_interfaces has port {brief(port.id)}, which belongs "
            f"to {cloud.title_of(owner)} in neutron",
            derives(instance, "macs", port=port.id),
            says(port, id=port.id, device_id=owner),
            DATABASE=instance.database,
            TABLE="virtual_interfaces",
            OTHER=owner,
        )


_OWNER = re.compile(r'"instance_uuid"\s*:\s*"([^"]*)"')


def _owners(written: object, own: str) -> Iterator[tuple[str, str]]:
    """Yield each `instance_uuid` of a stored object, and its place; nothing if all are `own`."""
    if not isinstance(written, str) or "instance_uuid" not in written:
        return
    if all(name == own for name in _OWNER.findall(written)):
        return  # most objects: their JSON, which is long, need not be read
    try:
        stored = json.loads(written)
    except (ValueError, RecursionError):
        return  # other checks report what can't be read
    stack: list[tuple[str, object]] = [("", stored)]
    while stack:
        where, value = stack.pop()
        if isinstance(value, list):
            stack += [(where, item) for item in value]
        if not isinstance(value, dict):
            continue
        fields = fields_if_wrapped(value)
        for name, inner in fields.items():
            if name == "instance_uuid" and isinstance(inner, str) and UUID.fullmatch(inner.lower()):
                yield where, inner.lower()
            elif isinstance(inner, dict | list):
                stack.append((f"{where}.{name}", inner))


def _foreign(guest: Guest, cloud: Cloud, instance: Instance, column: str, other: str) -> Problem:
    return problem(
        f"{guest.title}'s row in {EXTRA} holds the {column} of {cloud.title_of(other)} "
        f"({brief(other)})",
        hears(
            instance.said.get("extra", instance.said["row"]),
            "instance",
            f"{instance.database}.{EXTRA}[instance_uuid={guest.uuid}].{column}",
            instance_uuid=other,
        ),
        says(instance, uuid=instance.uuid),
        DATABASE=instance.database,
        TABLE=EXTRA,
        OTHER=other,
    )


def _context(guest: Guest, instance: Instance) -> Iterator[Problem]:
    """Yield a problem if the stored migration context names a migration of another server."""
    written = (instance.instance_extra or {}).get("migration_context")
    if not isinstance(written, str) or instance.tables is None:
        return
    try:
        stored = json.loads(written)
    except (ValueError, RecursionError):
        return
    number = fields_if_wrapped(stored).get("migration_id") if isinstance(stored, dict) else None
    if number is None:
        return
    for row in instance.tables.of("migrations", database=instance.database):
        if row.cells.get("id") != number:
            continue
        owner = known(text, row.cells, "instance_uuid")
        if owner not in (None, guest.uuid):
            yield problem(
                f"{guest.title}'s migration context names migration {number}, which is another "
                f"server's ({brief(owner)})",
                derives(instance, "migration_context", migration_id=number),
                hears(row.answer, "migration", f"migrations[id={number}]", instance_uuid=owner),
                DATABASE=instance.database,
                TABLE="migrations",
                OTHER=owner,
            )


@check(Severity.NOTE)
def row_without_instance(cloud: Cloud) -> Problems:
    """Rows in nova's tables belong to an instance that does not exist.

    The rows of an instance outlive it if its row was deleted by hand, if a purge was interrupted,
    or if their UUID was changed. The server that they belonged to lacks them: nova then uses
    defaults, or fails where it needs the row. If the server is gone, the rows only take room, and
    may stop `nova-manage db archive_deleted_rows`.

    Authority: The table instances of each cell, if all cells were read.

    Traps: The instance may be in a cell that was not read. A server that is being built has an
    instance mapping and a request spec before it has a row. Deleted instances keep their rows until
    these are archived.

    Next: Look for the instance once more, in each cell and among the archived ones:

        nova-manage cell_v2 verify_instance --uuid OWNER
        SELECT uuid, deleted FROM DATABASE.instances WHERE uuid = 'OWNER'
        SELECT uuid FROM DATABASE.shadow_instances WHERE uuid = 'OWNER'

    Check whether a server lacks such a row, whose UUID the rows may have had. If no guest has the
    UUID, nothing has to be done: the rows harm nobody.

        virsh list --all --uuid

    Not yet: Do not delete the rows before it is clear that no guest, volume or port belongs to the
    UUID.

    Source: nova db/main/models.py; nova-manage manual, db archive_deleted_rows.
    """
    found: dict[str, list[tuple[str, str, Row]]] = {}
    undecided: UnheardError | None = None
    instances = cloud.instances
    for (database, table), owners in instances.tables.rows.items():
        for owner, rows in owners.items() if table in TABLES else ():
            live = [row for row in rows.values() if not row.cells.get("deleted")]
            if not isinstance(owner, str) or not live or owner.lower() in instances.by_uuid:
                continue
            if owner.lower() in cloud.servers.by_uuid:
                continue  # the API has it, so its row was not collected
            if any(instances.tables.each("build_requests", owner)):
                continue
            if _is_expected(table, live):
                continue
            if reason := instances.searched(owner.lower()):
                undecided = undecided or UnheardError(f"nova database: {reason}")
                continue
            found.setdefault(owner, []).append((database, table, live[0]))
    for owner, places in found.items():
        yield _lost(owner, places)
    if undecided is not None:
        raise undecided


def _is_expected(table: str, rows: Sequence[Row]) -> bool:
    """True if the rows may outlive the instance: a mapping of a server that its owner deleted."""
    return table == "instance_mappings" and any(
        row.cells.get("queued_for_delete") or row.cells.get("cell_id") is None for row in rows
    )


def _lost(owner: str, places: Sequence[tuple[str, str, Row]]) -> Problem:
    tables = several((f"{database}.{table}" for database, table, _ in places), 2)
    return problem(
        f"No instance has the UUID {brief(owner)}, but {tables} "
        f"{'has a row' if len(places) == 1 else 'have rows'} of it",
        *(
            hears(row.answer, "nova-db", f"{database}.{table}", instance_uuid=owner, table=table)
            for database, table, row in places[:SHOWN]
        ),
        OWNER=owner,
        DATABASE=places[0][0],
    )


@check(Severity.ERROR, traps=[building])
def instance_hidden(guest: Guest, instance: Instance) -> Problems:
    """The server's only record is hidden, so nova does not list it.

    nova hides one of the two records of a server while it is resized into another cell. If the only
    record is hidden (a move that broke off, a repair by hand), the server is missing in every list,
    nova-compute does not count its resources, and no periodic task looks after it. The guest keeps
    running.

    Authority: The cells' databases.

    Traps: A resize into another cell that is not confirmed yet has two records, in two cells.
    Before Train the column does not exist. A cell that was not read may have the second record.

    Next: Check the record in each cell, and the server's migrations:

        SELECT hidden, host, vm_state FROM DATABASE.instances WHERE uuid = 'UUID' AND deleted = 0
        openstack server migration list --server UUID
        nova-manage cell_v2 verify_instance --uuid UUID

    Then, if no other cell has a record of the server, show the record again:

        UPDATE DATABASE.instances SET hidden = 0 WHERE uuid = 'UUID' AND deleted = 0

    It worked if nova lists the server:

        openstack server list --all-projects --host HOST

    Not yet: Do not delete the server and do not archive rows. Do not show both records of a server
    that has two.

    Source: nova admin guide, cross-cell resize; nova compute/api.py `get_all` (filters hidden
    records).
    """
    live = [copy for copy in guest.copies if not copy.deleted]
    if instance.deleted or not live or not all(copy.hidden for copy in live):
        return
    if reason := known(lambda: _unsearched(guest, instance)):
        raise UnheardError(reason)
    cells = several(copy.cell for copy in live)
    yield problem(
        f"{guest.title} is {instance.vm_state} on host {instance.host}, but its only record (cell "
        f"{cells}) is hidden",
        *(says(copy, hidden=True, cell=copy.cell, host=copy.host) for copy in live),
        DATABASE=instance.database,
        HOST=instance.host,
    )


def _unsearched(guest: Guest, instance: Instance) -> str | None:
    """Return the reason why another cell may have a record; None if every cell was searched."""
    tables = instance.tables
    if tables is None:
        return "the other cells were not collected"
    for row in tables.of("cell_mappings"):
        if tables.database_of(row.cells) is None:
            return f"cell {row.cells.get('name')} was not collected"
    return None


@check(Severity.WARNING, traps=[building, task_in_flight, moving_to_another_cell])
def image_properties_lost(guest: Guest, instance: Instance) -> Problems:
    """nova has lost the properties of the image that the server was made from.

    nova keeps a copy of the image's properties in instance_system_metadata, and defines the guest
    from this copy alone: bus and model of disks and network cards, firmware, machine type. Without
    the copy, the next hard reboot, start or move defines the guest with default hardware, and an
    installed system may not find its disk.

    Authority: The server's record, which names an image; glance, for the properties.

    Traps: A server that boots from a volume names no image, but nova keeps the properties that
    cinder copied from the volume's image, and `image_base_image_ref` in any case. A deleted server.
    The table may not have been collected.

    Next: Compare the rows with the properties of the image, and with the running guest:

        SELECT `key`, value FROM DATABASE.instance_system_metadata WHERE instance_uuid = 'UUID'
        openstack image show IMAGE -c properties
        virsh dumpxml UUID

    Look for the rows in a backup of the cell's database, and insert them again; every key is the
    image's property with `image_` in front, and `image_base_image_ref` is the image's id. A rebuild
    writes them anew, too, but erases the server's root disk.

    Not yet: Do not stop, hard-reboot, resize or migrate the server before the rows are back.

    Source: nova utils.py `get_system_metadata_from_image`, virt/libvirt/driver.py
    `_get_guest_xml`.
    """
    if instance.deleted or not instance.host:
        return
    if instance.image is None and is_before_havana(instance):
        return
    rows = instance.rows("instance_system_metadata")
    kept = [row for row in rows if str(row.cells.get("key")).startswith("image_")]
    if kept:
        return
    asked = _asked(instance, "instance_system_metadata")
    if asked is None:
        return
    source = "boots from a volume"
    if instance.image is not None:
        source = f"was made from image {brief(instance.image)}"
    yield problem(
        f"{guest.title} {source}, but nova has none of the image's properties",
        says(instance, image=instance.image, vm_state=instance.vm_state),
        hears(asked, "nova-db", f"{instance.database}.instance_system_metadata", rows=len(rows)),
        DATABASE=instance.database,
        IMAGE=instance.image or "",
    )


@check(Severity.NOTE, traps=[building, task_in_flight, migrating, moving_to_another_cell])
def launch_host_unknown(guest: Guest, instance: Instance) -> Problems:
    """The host on which nova last built the server is neither its host nor one that it left.

    nova writes the host into the record (launched_on) when a host claims the server, and a later
    live migration leaves the old name. A name that no migration explains is a sign that the
    server's host was changed by hand, or that the record was copied.

    Authority: The server's migrations, for where it was; the hypervisor, for where it is.

    Traps: Rows of migrations may have been removed. A host that was renamed leaves its old name.

    Next: Compare the record with the server's history:

        SELECT host, node, launched_on FROM DATABASE.instances WHERE uuid = 'UUID'
        openstack server migration list --server UUID
        openstack server event list UUID

    Nothing has to be done if the guest is on the host in nova's record: nova only shows the value.

    Not yet: Do not change the host in the record because of this value.

    Source: nova compute/resource_tracker.py `_set_instance_host_and_node`.
    """
    name = text(instance.raw, "launched_on")
    if instance.deleted or not name or not instance.host or name == instance.host:
        return
    if instance.migrations is None:
        raise UnheardError("its migrations were not collected")
    known_hosts = {move.source_compute for move in instance.migrations}
    known_hosts |= {move.dest_compute for move in instance.migrations}
    if name not in known_hosts:
        yield problem(
            f"{guest.title} is on host {instance.host}, but was last built on {name}, and no "
            "migration leads from there",
            says(instance, host=instance.host).and_so(launched_on=name),
            DATABASE=instance.database,
        )
