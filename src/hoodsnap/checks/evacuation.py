"""What an evacuated server still holds on the host that it left."""

from __future__ import annotations

from datetime import timedelta

from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.traps import migrating, task_in_flight
from hoodsnap.evidence import Severity, says
from hoodsnap.facts.api.allocation import Allocation
from hoodsnap.facts.clock import moment, since_written
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.migration import ARMED
from hoodsnap.facts.fact import UnheardError

RECENT = timedelta(minutes=10)
"""An evacuation that is younger needs no note: its old host is being looked after."""


@check(Severity.NOTE, traps=[task_in_flight, migrating])
def evacuated_allocation_left(guest: Guest, instance: Instance, allocation: Allocation) -> Problems:
    """Placement still has resources of the evacuated server's old host allocated to it.

    After an evacuation the server holds both hosts until nova-compute on the old one starts again.
    If that host never comes back, nothing frees the allocation: the old compute service can't be
    deleted, and placement counts the server twice in its project's usage.

    Authority: nova's record of the evacuation, for the host that the server left.

    Traps: For the first minutes after an evacuation this is expected.

    Next: Check whether the old host's compute service is down, and what the server holds:

        openstack compute service list --service nova-compute --host SOURCE
        openstack resource provider allocation show UUID

    If the old host comes back, start nova-compute on it: it removes the old guest and this
    allocation.

    Then, only if the old host is dead for good and its guest can't run any more, remove the
    allocation there:

        openstack resource provider allocation unset --provider PROVIDER UUID

    It worked if the allocation is on the server's host and no other:

        openstack resource provider allocation show UUID

    Not yet: Do not run `openstack resource provider allocation delete UUID`, which removes the
    whole allocation.

    Source: nova compute/manager.py `_destroy_evacuated_instances`, `_complete_partial_deletion`;
    nova bug 1852610 (deleting a service with allocations).
    """
    if instance.deleted or not guest.carries_record or instance.node is None:
        return
    if instance.migrations is None:
        raise UnheardError("its migrations were not collected")
    asked = instance.said["row"].at
    for moved in instance.migrations:
        armed = moved.type == "evacuation" and moved.status in ARMED and not moved.deleted
        since = moment(moved.updated_at)
        if not armed or since is None or asked - since < RECENT:
            continue
        if moved.source_node == instance.node:
            continue  # it has come back; evacuation-record-armed reports that
        for root in allocation.hosts:
            if allocation.provider(root).name == moved.source_node:
                yield problem(
                    f"{guest.title} was evacuated from {moved.source_compute} to "
                    f"{instance.host}, but still holds resources of {moved.source_node}"
                    f"{since_written(moved.updated_at, asked)}",
                    says(
                        moved,
                        type=moved.type,
                        status=moved.status,
                        source_compute=moved.source_compute,
                        updated_at=moved.updated_at,
                    ),
                    says(instance, host=instance.host),
                    says(allocation, resources=allocation.words),
                    SOURCE=moved.source_compute,
                    PROVIDER=root,
                )
