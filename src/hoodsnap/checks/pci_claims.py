"""nova's reservations of a host's PCI devices, against the servers that they name."""

from __future__ import annotations

from collections.abc import Iterator

from hoodsnap.check import Problems, check, problem
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.clock import moment, since_written
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.tables import Row, plain_name
from hoodsnap.facts.fact import UnheardError, integer, text
from hoodsnap.phrase import brief

TABLE = "pci_devices"

RESERVED = ("allocated", "claimed")
"""Statuses of a device that no other server gets."""

DELETING = 180.0
"""Seconds in which nova-compute frees the devices of a server that was deleted."""


@check(Severity.WARNING)
def pci_device_of_deleted_server(host: Host, cloud: Cloud) -> Problems:
    """nova reserves a PCI device of this host for a server that does not exist any more.

    No other server gets the device. nova-compute frees the devices of a server when it is deleted.
    If it did not run then, or if the database was restored from an older backup, the row stays.

    Authority: The table instances, for which servers exist.

    Traps: A server that was deleted minutes ago. A server in a cell that was not read. A server
    whose guest still runs keeps its device, whatever nova has.

    Next: Check the device's row, and its server, in the cell's database:

        SELECT address, status, instance_uuid, updated_at FROM DATABASE.pci_devices WHERE id = ROW
        SELECT uuid, host, vm_state, deleted_at FROM DATABASE.instances WHERE uuid = 'SERVER'

    Check that no guest has the device:

        virsh list --all --uuid
        grep -l PCI_ADDRESS /proc/[0-9]*/cmdline

    Then restart nova-compute, which frees the devices of servers that do not exist. Guests keep
    running:

        systemctl restart nova-compute

    It worked if the device is available, or its row is marked as deleted:

        SELECT address, status, instance_uuid, deleted FROM DATABASE.pci_devices WHERE id = ROW

    Not yet: Do not change the row by hand: nova-compute keeps a copy of it in memory. Do not unbind
    the device while a guest has it.

    Source: nova pci/manager.py `clean_usage`, `free_instance`.
    """
    node = host.node
    if node is None:
        return
    instances = cloud.instances
    asked = [it for (_, table), it in instances.tables.read.items() if table == TABLE]
    if not asked:
        raise UnheardError("the host's rows in pci_devices were not collected")
    undecided: UnheardError | None = None
    for database, owner, row in _reserved(cloud, node.id):
        try:
            gone = _gone(cloud, owner)
        except UnheardError as reason:
            undecided = undecided or reason
            continue
        if gone is None:
            continue
        words, evidence = gone
        address, number = text(row.cells, "address") or "", integer(row.cells, "id")
        yield problem(
            f"nova reserves the PCI device {address} of {host.name} for {brief(owner)}, {words}",
            hears(
                row.answer,
                "instance",
                f"{database}.{TABLE}[id={number}].instance_uuid",
                address=address,
                status=text(row.cells, "status"),
                instance_uuid=owner,
            ),
            evidence,
            PCI_ADDRESS=address,
            SERVER=owner,
            ROW=number,
            DATABASE=plain_name(database),
        )
    if undecided is not None:
        raise undecided


def _reserved(cloud: Cloud, node: int | None) -> Iterator[tuple[str, str, Row]]:
    """Yield database, server and row of each reserved device of a compute node."""
    for (database, table), owners in cloud.instances.tables.rows.items():
        for owner, rows in owners.items() if table == TABLE else ():
            for row in rows.values() if isinstance(owner, str) else ():
                is_live = not integer(row.cells, "deleted")
                is_its = integer(row.cells, "compute_node_id") == node
                if is_live and is_its and text(row.cells, "status") in RESERVED:
                    yield database, str(owner).lower(), row


def _gone(cloud: Cloud, owner: str) -> tuple[str, Evidence] | None:
    """Return when a server was deleted, with evidence; None if it exists, or may.

    Raises `UnheardError` if that is unknown.
    """
    if any(guest.domain or guest.process for guest in cloud.twins(owner)):
        return None  # other checks report a deleted server's guest
    instance: Instance | None = cloud.instances.by_uuid.get(owner)
    if instance is None:
        if owner in cloud.servers.by_uuid:
            return None
        none = cloud.instances.without(owner)
        return "which does not exist", hears(none, "instance", owner, instance=None)
    deleted, asked = moment(instance.deleted_at), instance.said["row"].at
    if not instance.deleted:
        return None
    if deleted is not None and (asked - deleted).total_seconds() < DELETING:
        return None
    when = since_written(instance.deleted_at, asked) if deleted is not None else ""
    return f"deleted{when}", says(instance, deleted_at=instance.deleted_at)
