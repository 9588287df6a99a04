"""Records that a restore of a database brought back."""

from __future__ import annotations

from hoodsnap import phrase
from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.legal_states import RESTS, RUNS
from hoodsnap.checks.traps import (
    building,
    disks_out_of_sight,
    just_ordered,
    migrating,
    moving_to_another_cell,
    never_launched,
    of_another_libvirt,
    softly_deleted,
    task_in_flight,
)
from hoodsnap.evidence import Severity, hears, says
from hoodsnap.facts.api.volume import GONE
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.instance_mapping import InstanceMapping
from hoodsnap.facts.fact import UnheardError, known

LEFT = {
    "libvirt": "domain",
    "images": "folder",
    "placement": "allocation",
    "neutron": "port",
}
"""The layers in which a server that exists has something → what it has there."""


@check(
    Severity.ERROR,
    traps=[
        *(task_in_flight, building, never_launched, just_ordered, softly_deleted, migrating),
        *(moving_to_another_cell, of_another_libvirt, disks_out_of_sight),
    ],
)
def deleted_server_is_back(
    guest: Guest, host: Host, instance: Instance, mapping: InstanceMapping
) -> Problems:
    """A server that was deleted has a record again, as if it had not been deleted.

    nova's API database has the server as deleted, and no other layer has anything of it. If the
    cell's database was restored from a backup that is older than the deletion, the record is back,
    but not the guest. A start would boot a new server with the old name, from an empty disk.

    Authority: nova's API database, which nova marks when the owner deletes the server, together
    with libvirt, the disk images, placement and neutron.

    Traps: A server that is soft-deleted, or whose deletion did not finish, still has some of them.
    If one of these layers was not collected, nothing is proven.

    Next: Check the server's history, and whether the guest exists on another host; run the last
    command on each host:

        openstack server show UUID
        openstack server event list UUID
        virsh list --all --uuid

    Find out when the cell's database was restored, and from a backup of which time. Other servers
    that were deleted since that backup are back, too.

    Check whether a volume that still exists would be deleted with the server:

        openstack --os-compute-api-version 2.79 server volume list UUID

    Then, if the server's owner confirms that it was deleted, and no volume in the list is needed,
    delete it again, which removes the record:

        openstack server delete UUID

    It worked if nova does not find the server:

        openstack server show UUID -c status

    Not yet: Do not start, reboot or rebuild the server: nova would create a new, empty disk. Do not
    run `nova-manage placement heal_allocations`. Do not change `queued_for_delete`.

    Source: nova compute/api.py `_update_queued_for_deletion`, compute/manager.py
    `_delete_instance` and `_cleanup_volumes`.
    """
    if instance.deleted or not guest.is_here or instance.vm_state not in RUNS | RESTS:
        return
    if not mapping.there or not mapping.queued_for_delete:
        return
    if guest.domain is not None or guest.process is not None or guest.twins:
        return
    if guest.allocation is not None or guest.ports or host.images.folders.get(guest.uuid):
        return
    # An attachment that cinder keeps is of a deletion that failed half way, or of a live server.
    attachments = known(lambda: guest.storage.volumes.by_server.get(guest.uuid, ())) or ()
    if any(attachment.status not in GONE for attachment in attachments):
        return
    for layer in LEFT:
        if layer in guest.unheard or layer not in guest.census:
            raise UnheardError(guest.unheard.get(layer) or f"{layer}: no full list was collected")
    yield problem(
        f"{guest.title} was deleted, but its record is back as {phrase.state(instance.vm_state)}: "
        "it has no domain, folder, allocation or port",
        says(instance, cell=instance.cell, vm_state=instance.vm_state, host=instance.host),
        says(mapping, queued_for_delete=True),
        *(
            hears(guest.census[layer], layer, guest.uuid, **{noun: None})
            for layer, noun in LEFT.items()
        ),
    )
