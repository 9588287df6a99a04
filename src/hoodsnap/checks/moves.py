"""Migrations, evacuations and resizes: where the guest is, and what the move left behind."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.drift import amounts
from hoodsnap.checks.traps import (
    building,
    live_migration_at_work,
    migrating,
    moved_between_captures,
    never_launched,
    resizing,
    task_in_flight,
)
from hoodsnap.checks.zones import DEFAULT_ZONES, compute_zones, zone_of
from hoodsnap.evidence import Evidence, Severity, derives, hears, says
from hoodsnap.facts.api.port import Port
from hoodsnap.facts.api.server import Server
from hoodsnap.facts.api.service import read_services
from hoodsnap.facts.clock import moment, since_written
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.migration import ARMED, OVER, Migration
from hoodsnap.facts.database.request_spec import RequestSpec
from hoodsnap.facts.database.tables import plain_name
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.state import EXECUTING, DomainState, PauseReason
from hoodsnap.facts.fact import UnheardError, integer, known
from hoodsnap.phrase import brief, several

BY_A_MIGRATION = frozenset(
    [PauseReason.MIGRATION, PauseReason.POSTCOPY, PauseReason.POSTCOPY_FAILED]
)
"""libvirt's reasons for a pause that a migration makes."""

SHOWN = 3
"""Number of compute services that the evidence of an unknown host shows."""

ACTIONS = {
    "evacuation": "evacuate",
    "live-migration": "live-migration",
    "migration": "migrate",
    "resize": "resize",
}
"""Type of a migration → the action that begins it."""

SETTLES = timedelta(minutes=1)
"""Longest time nova needs to update the server after the end of a move."""

GONE = frozenset(["completed", "error", "failed", "cancelled"])
"""Final statuses of a live migration."""

STALE = timedelta(hours=1)
"""Longest time a migration may be unfinished without a task: nova sets the task first."""


@check(Severity.ERROR, traps=[task_in_flight, migrating, moved_between_captures])
def domain_running_on_wrong_host(
    guest: Guest, host: Host, record: Server | Instance, domain: Domain
) -> Problems:
    """The guest runs on this host, but nova has the server on another host.

    Every command goes to the other host. A hard reboot there starts a second guest on the same
    volumes or shared disks, while nova never stops, counts or bills this one. Causes: a migration
    that nova lost track of, `virsh migrate`, an edit of the database.

    Authority: The hypervisor, for where the guest runs.

    Traps: A server that is being moved. Hosts that were captured one after the other while it
    moved. A renamed host (`host-identity-changed` reports that for all its guests).

    Next: Check on both hosts whether the guest runs there, and where it moved when:

        virsh domstate --reason UUID
        openstack server migration list --server UUID
        openstack server event list UUID

    Or run `hoodsnap collect` on both hosts and explain both bundles. If the guest runs only here,
    the server's records must follow: host, node, compute_id (since 2023.2), the bindings of its
    ports and its allocation, all together; no command does it.

    Not yet: Do not run `openstack server reboot --hard`: nova executes it on the host in its
    record. Do not run `UPDATE instances SET host=…`, which changes only one of the five.

    Source: nova `_sync_instance_power_state`; nova bugs 1628606, 1905944; nova admin guide,
    node-down.
    """
    if not guest.runs or record.deleted or guest.is_here or guest.host_name is None:
        return
    host.option("DEFAULT", "host")  # raises without nova.conf: the host's name is then unknown
    if _live_migration(guest, host) is not None or _left_behind(guest, host) is not None:
        return  # live-migration-half-done and evacuated-guest-still-running report it
    yield problem(
        f"{guest.title} is {domain.state_words} on host {host.name}, but nova has it on host "
        f"{record.host}{_there(guest)}",
        says(record, host=record.host, vm_state=record.vm_state),
        *_here_and_there(guest, domain),
    )


def _there(guest: Guest) -> str:
    """Return the state of the guest on the host in nova's record: `, where it has no domain`."""
    twin = _recorded_twin(guest)
    if twin is None or twin.host is None:
        return ""
    there = twin.domain
    if there is None:
        return ", where it has no domain" if "libvirt" in twin.census else ""
    words = known(lambda: there.state_words)
    return f", where it is {words} too" if words else ""


def _here_and_there(guest: Guest, domain: Domain) -> Iterator[Evidence]:
    """Evidence of the guest on this host and on the host in nova's record."""
    yield says(domain, state=domain.state_words).and_so(on=guest.host.name if guest.host else None)
    if (twin := _recorded_twin(guest)) is None:
        return
    name = twin.host.name if twin.host else None
    if twin.domain is not None:
        yield says(twin.domain, state=twin.domain.state_words).and_so(on=name)
    elif "libvirt" in twin.census:
        yield hears(twin.census["libvirt"], "libvirt", guest.uuid, domain=None).and_so(on=name)


def _recorded_twin(guest: Guest) -> Guest | None:
    return next((twin for twin in guest.twins if twin.is_here), None)


def _moves(guest: Guest) -> tuple[Migration, ...]:
    if guest.instance is None:
        return ()
    if guest.instance.migrations is None:
        raise UnheardError("its migrations were not collected")
    return guest.instance.migrations


def _live_migration(guest: Guest, host: Host) -> Migration | None:
    """Return the last live migration between this host and the host in nova's record."""
    ends = {host.nova_name, guest.host_name}
    found = [
        moved
        for moved in _moves(guest)
        if moved.type == "live-migration" and {moved.source_compute, moved.dest_compute} == ends
    ]
    return max(found, key=lambda moved: moved.id or 0, default=None)


def _left_behind(guest: Guest, host: Host) -> Migration | None:
    """Return the evacuation away from this host that the host has not cleaned up after."""
    for moved in _moves(guest):
        armed = moved.type == "evacuation" and moved.status in ARMED and not moved.deleted
        if armed and moved.source_compute == host.nova_name:
            return moved
    return None


@check(Severity.ERROR)
def evacuated_guest_still_running(
    guest: Guest, host: Host, instance: Instance, domain: Domain | None
) -> Problems:
    """The server was evacuated from this host, but its guest is still here.

    Evacuation starts the server on another host and assumes that this host is dead. If this host is
    alive, two guests write to the same volumes and answer on the same addresses. nova-compute
    removes the old guest the next time it starts on this host.

    Authority: The hypervisor, for what runs; nova's record, for which of the two is the server.

    Traps: nova-compute may not have started yet, which is correct as long as the guest is off (a
    note then). A migration with status `completed` has been cleaned up.

    Next: Check both hosts, and the host that nova has the server on:

        virsh list --all
        openstack server show UUID -c OS-EXT-SRV-ATTR:host

    Then, while the guest runs on both, stop this one first, on this host: it no longer writes, and
    keeps its memory:

        virsh suspend NAME

    It worked if the domain on this host is paused:

        virsh domstate --reason NAME

    Not yet: Do not run `openstack compute service set --up` before the guests here are off. Do not
    remove the row from `migrations`. Do not start nova-compute, which removes this guest, before
    the guest on the other host is proven to be intact.

    Source: nova compute/manager.py `_destroy_evacuated_instances`; spec robustify-evacuate; nova
    bug 1550919.
    """
    if instance.deleted or guest.is_here:
        return
    left = _left_behind(guest, host)
    if left is None:
        return
    if domain is None and guest.process is None:
        for layer in ("libvirt", "kernel"):
            if layer in guest.unheard:
                raise UnheardError(guest.unheard[layer])
        return
    if left.status != "done" and not guest.runs:
        return
    evidence = [
        says(left, type=left.type, status=left.status, source_compute=left.source_compute),
        says(instance, host=instance.host),
    ]
    here = ""
    if domain is not None:
        evidence += _here_and_there(guest, domain)
        here = domain.state_words
    elif guest.process is not None:
        evidence.append(says(guest.process, pid=guest.process.pid))
        here = f"running as PID {guest.process.pid}"
    yield problem(
        f"{guest.title} was evacuated from {host.name} to {instance.host}{_at(left)}, but its "
        f"guest on {host.name} is {here}",
        *evidence,
        severity=Severity.ERROR if guest.runs else Severity.NOTE,
    )


def _at(moved: Migration) -> str:
    """Return the time of a move's last update: ` (2026-11-25 10:03)`; "" if it can't be read."""
    then = known(lambda: moment(moved.updated_at))
    return f" ({then:%Y-%m-%d %H:%M})" if then is not None else ""


@check(Severity.ERROR, traps=[live_migration_at_work, moved_between_captures])
def live_migration_half_done(
    guest: Guest, host: Host, instance: Instance, domain: Domain | None
) -> Problems:
    """A live migration stopped half way; the guest runs on the wrong host, on both, or on none.

    During a live migration two QEMUs hold one guest, and nova, libvirt, neutron and cinder switch
    hosts one after the other. If it stops half way, the guest runs on one host and its record is on
    the other, or it runs on both (a split brain, which destroys its disks), or it is paused on
    both.

    Authority: QEMU, for which of the two runs. The guest that ran last has the current memory and
    disks.

    Traps: A migration in progress; with much memory it takes hours. Hosts that were captured one
    after the other while the guest moved. A guest that is defined and off on the other host is
    harmless.

    Next: Check the migrations, and the domain on both hosts:

        openstack server migration list --server UUID
        virsh domstate --reason NAME
        virsh domjobinfo NAME

    If it runs only on the destination of a migration that is completed, only the server's row is
    behind: check that its ports and its allocation are on the destination. Then set in that row of
    the cell's database host, node and (since 2023.2) compute_id to the destination's, and
    task_state to NULL, all together; no command does it:

        openstack port list --server UUID --long
        openstack resource provider allocation show UUID

    Then, if the guest runs on both hosts, suspend it on the host that is not nova's: it no longer
    writes there, and keeps its memory:

        virsh suspend NAME

    It worked if the domain on that host is paused:

        virsh domstate --reason NAME

    Not yet: Do not run `openstack server reboot --hard` or `openstack server set --state active`.
    Do not restart nova-compute on either host. Do not run `virsh resume` on a guest that a
    migration has paused. Do not run `virsh destroy` before it is proven which guest ran last.

    Source: nova bugs 1628606, 1905944, 1414065, 1899835, 1889108; nova `_post_live_migration`,
    `_rollback_live_migration`; libvirt src/qemu/qemu_migration.c.
    """
    if instance.deleted:
        return
    if guest.is_here and not guest.runs:
        yield from _record_is_behind(guest, host, instance, domain)
        return
    if domain is None or not guest.runs:
        return
    if guest.is_here:
        yield from _runs_nowhere(guest, domain)
        return
    moved = _live_migration(guest, host)
    if moved is None:
        return
    twin = _recorded_twin(guest)
    other_runs = twin is not None and twin.domain is not None and twin.domain.state in EXECUTING
    harmless = domain.state == DomainState.PAUSED and (twin is None or other_runs)
    yield problem(
        f"{guest.title} is {domain.state_words} on host {host.name} after its live migration "
        f"({moved.status}), but nova has it on host {instance.host}{_there(guest)}",
        _ends(moved),
        says(instance, host=instance.host, task_state=instance.task_state),
        *_here_and_there(guest, domain),
        *_request(instance, moved),
        severity=Severity.WARNING if harmless else Severity.ERROR,
    )


def _record_is_behind(
    guest: Guest, host: Host, instance: Instance, domain: Domain | None
) -> Iterator[Problem]:
    """Report a server whose live migration away from here is over, but which nova still has here.

    It needs only the bundle of this host, which has no guest of the server any more.
    """
    for layer in ("libvirt", "kernel"):
        if layer in guest.unheard:
            raise UnheardError(guest.unheard[layer])
    moved = max(_moves(guest), key=lambda one: one.id or 0, default=None)
    if moved is None or moved.type != "live-migration" or moved.status not in GONE:
        return
    ended, asked = moment(moved.updated_at), instance.said["row"].at
    ends = (moved.source_compute, moved.dest_compute)
    if ended is None or asked - ended < SETTLES or ends[0] != host.nova_name or ends[1] is None:
        return
    if ends[1] == host.nova_name:
        return
    if moved.status != "completed" and instance.task_state != "migrating":
        return  # a guest that went off after a failed migration
    here = f"its domain is {domain.state_words}" if domain is not None else "no domain exists"
    yield problem(
        f"{guest.title}'s live migration to {ends[1]} has been {moved.status}"
        f"{since_written(moved.updated_at, asked)}, but nova has it on {host.name}, "
        f"where {here}",
        _ends(moved),
        says(
            instance,
            host=instance.host,
            task_state=instance.task_state,
            updated_at=instance.updated_at,
        ),
        *_absent_here(guest, domain),
        *(derives(port, "host", id=port.id, host=_bound_to(port)) for port in guest.ports or ()),
        *_request(instance, moved),
    )


def _absent_here(guest: Guest, domain: Domain | None) -> Iterator[Evidence]:
    if domain is not None:
        yield says(domain, state=domain.state_words)
    elif "libvirt" in guest.census:
        yield hears(guest.census["libvirt"], "libvirt", guest.uuid, domain=None)


def _bound_to(port: Port) -> str | None:
    return known(lambda: port.host)


def _runs_nowhere(guest: Guest, domain: Domain) -> Iterator[Problem]:
    """Report a guest that a migration paused on nova's host if it runs on no captured host."""
    if domain.state != DomainState.PAUSED or domain.reason not in BY_A_MIGRATION:
        return
    if any(twin.runs for twin in guest.twins):
        return  # reported on the other host
    lived = [moved for moved in _moves(guest) if moved.type == "live-migration"]
    newest = max(lived, key=lambda moved: moved.id or 0, default=None)
    on = f" on host {guest.host.name}" if guest.host is not None else ""
    yield problem(
        f"{guest.title} is {domain.state_words}{on}, and runs on no other collected host",
        *([_ends(newest)] if newest is not None else []),
        says(domain, state=domain.state_words),
    )


def _ends(moved: Migration) -> Evidence:
    return says(
        moved,
        type=moved.type,
        status=moved.status,
        source_compute=moved.source_compute,
        dest_compute=moved.dest_compute,
    )


@check(Severity.ERROR, traps=[task_in_flight, migrating])
def evacuation_record_armed(guest: Guest, instance: Instance) -> Problems:
    """nova-compute will destroy this guest the next time it starts on the guest's host.

    The server was once evacuated from the host where it is now, and that evacuation was never
    cleaned up. When nova-compute starts, it removes every guest that was evacuated from its host.
    It does not check whether the server has come back since.

    Authority: nova's records: the migration, and the server's host.

    Traps: During an evacuation the server is still on its old host. A server that is now on another
    host is reported by `evacuated-guest-still-running`. For a deleted server the record has no
    effect.

    Next: List the evacuations, and check in the cell's database that the row is still armed:

        openstack server migration list --server UUID --type evacuation
        SELECT status, source_compute, dest_compute FROM DATABASE.migrations WHERE id = ROW

    Then, in the cell's database, mark the evacuation as cleaned up, which changes this one row.
    nova-compute reads it only when it starts, so it can keep running; no other command does it:

        UPDATE DATABASE.migrations SET status = 'completed' WHERE id = ROW

    It worked if the status is completed:

        SELECT status, source_compute, dest_compute FROM DATABASE.migrations WHERE id = ROW

    Not yet: Do not restart nova-compute or the host, and do not upgrade the host, before that row
    is corrected.

    Source: nova bug 1922053; nova compute/manager.py `_destroy_evacuated_instances`.
    """
    if instance.deleted or instance.host is None or not guest.carries_record:
        return
    for moved in _moves(guest):
        armed = moved.type == "evacuation" and moved.status in ARMED and not moved.deleted
        if armed and moved.source_compute == instance.host:
            yield problem(
                f"{guest.title} will be destroyed when nova-compute starts on {instance.host}: its "
                f"evacuation from there{_at(moved)} is still {moved.status}",
                _ends(moved),
                says(instance, host=instance.host, vm_state=instance.vm_state),
                **_row(moved),
            )


def _request(instance: Instance, moved: Migration) -> Iterator[Evidence]:
    """Yield the action that began a move: the server's last one, if the move began with it."""
    asked, began = (
        known(lambda: moment(instance.action_at)),
        known(lambda: moment(moved.created_at)),
    )
    fits = known(lambda: instance.action) == ACTIONS.get(moved.type or "")
    if fits and asked is not None and began is not None and abs(began - asked) < SETTLES:
        yield says(
            instance,
            action=instance.action,
            action_at=instance.action_at,
            action_by=instance.action_by,
            request=instance.request,
        )


def _row(moved: Migration) -> dict[str, Any]:
    """Return the placeholders for a migration's row in the cell's database."""
    return {"ROW": moved.id, "DATABASE": plain_name(moved.database)}


@check(Severity.WARNING)
def migration_record_stale(guest: Guest, instance: Instance) -> Problems:
    """A move is recorded as in progress, but nova is not working on it.

    nova refuses other moves of the server, and its next steps rely on an outdated record. If a
    server waits for a confirmation but the record of its move is missing, it can be neither
    confirmed nor reverted (an error).

    Authority: nova's own record: while nova works on a move, the server has a task.

    Traps: A resize may wait for its confirmation for months. A move that was confirmed, or ended in
    another way, less than a minute ago. A task that is set is reported by `stuck-task-state`.

    Next: Check the move, the server's history, and on which host the guest runs:

        openstack server migration list --server UUID
        openstack server event list UUID
        virsh domstate --reason UUID

    If the server waits for a confirmation (VERIFY_RESIZE), nova refuses to confirm or revert the
    resize (HTTP 400) until its record has status finished. Set the status of this one row in the
    cell's database; no other command does it:

        UPDATE DATABASE.migrations SET status = 'finished' WHERE id = UNCONFIRMED

    For any other move, stop nova-compute on the server's host, and set the status of this one row;
    then start nova-compute:

        UPDATE DATABASE.migrations SET status = 'STATUS' WHERE id = ROW

    It worked if the move has this status:

        openstack server migration list --server UUID

    Then confirm or revert the resize, as its owner decides: `openstack server resize confirm UUID`
    removes the copy on the old host, `openstack server resize revert UUID` goes back to it and
    restarts the guest. Both need the status VERIFY_RESIZE:

        openstack server show RESIZED -c status

    Not yet: Do not edit the row of a move that nova works on. Do not delete the rows of a move.

    Source: nova `_cleanup_incomplete_migrations`, `_poll_unconfirmed_resizes`; nova bugs 1392527,
    1470420.
    """
    if instance.deleted or instance.task_state is not None or not guest.carries_record:
        return
    moves = _moves(guest)
    asked = instance.said["row"].at
    waits = instance.vm_state == "resized"
    for moved in moves:
        since = moment(moved.updated_at)
        old = since is not None and asked - since > STALE
        unfinished = moved.unfinished and old
        if unfinished or (moved.status == "finished" and not waits and not moved.deleted and old):
            since_when = since_written(moved.updated_at, asked)
            yield problem(
                f"{guest.title}'s {moved.type} from {moved.source_compute}{_to(moved)} has been "
                f"{moved.status}{since_when}, but nova has no task for it",
                says(moved, type=moved.type, status=moved.status, updated_at=moved.updated_at),
                says(instance, vm_state=instance.vm_state, task_state=None),
                *_request(instance, moved),
                STATUS="error",
                UNCONFIRMED="",
                RESIZED=guest.uuid if waits else "",
                **_row(moved),
            )
    # On confirm or revert, nova updates the migration's row first and the server's row after it.
    over = (moment(moved.updated_at) for moved in moves if moved.status in OVER)
    if any(since is not None and asked - since < SETTLES for since in over):
        return
    if waits and not any(moved.status in ("finished", "confirming") for moved in moves):
        newest = max(moves, key=lambda moved: moved.id or 0, default=None)
        found = "nova has no record of it"
        if newest is not None:
            found = f"its record (migration {newest.id}) has status {newest.status}, not finished"
        yield problem(
            f"{guest.title} waits for its resize to be confirmed, but {found}",
            says(instance, vm_state=instance.vm_state),
            *(_ends(moved) for moved in moves),
            *(_request(instance, newest) if newest is not None else ()),
            severity=Severity.ERROR,
            ROW="",
            UNCONFIRMED=newest.id if newest is not None else "",
            RESIZED=guest.uuid,
            DATABASE=plain_name(newest.database) if newest is not None else None,
        )


def _to(moved: Migration) -> str:
    """Return ` to HOST`; empty while no destination is chosen."""
    return f" to {moved.dest_compute}" if moved.dest_compute else ""


@check(Severity.WARNING, traps=[task_in_flight, building, never_launched, resizing, migrating])
def request_spec_skew(guest: Guest, cloud: Cloud, instance: Instance) -> Problems:
    """nova will plan the server's next move from an outdated request, or has none.

    nova keeps the original request for the server and uses it to find a host when the server is
    migrated, evacuated or unshelved. If the request is missing, these operations fail. If it is
    outdated, the server is placed where it does not fit, or nowhere.

    Authority: The server's record, for what it is; its owner, for the zone.

    Traps: A server without a zone may go anywhere. The default zone is in no aggregate; its name is
    read from nova's list of services, and `nova` is always legal. During a resize nova searches for
    the new flavor. The image of a server that boots from a volume has no meaning here. nova before
    Newton keeps no request. A host that the owner demanded may have left the cloud since (a note):
    nova drops that demand when the server is moved. Before Rocky, a request does not have whether
    the server boots from a volume. A rebuild with an image whose properties were changed since
    leaves the old properties in the request (a note).

    Next: Check the zone, the flavor, the image and the volumes, and compare them with the evidence:

        openstack server show UUID
        openstack aggregate list --long
        openstack compute service list

    If the zone differs because the host was moved, put the host back into its former aggregate. If
    the zone was renamed, only unshelving writes a new zone into the request (Zed and later). If
    only a host that the owner demanded is gone, nothing has to be done. No command writes a missing
    request; stops, starts and reboots work without it.

    If the server is shelved and no host is in its zone, unshelve it without a zone at a time that
    suits its owner, which starts it:

        openstack --os-compute-api-version 2.91 server unshelve --no-availability-zone UNZONED

    It worked if the server is active:

        openstack server show UNZONED -c status -c OS-EXT-AZ:availability_zone

    Then, if the request is missing, make an image of the server, from which its owner can make a
    new server with a request of its own. The guest keeps running while its disk is read:

        openstack server image create --wait --name UNREQUESTED-copy UNREQUESTED

    It worked if the image is active:

        openstack image show UNREQUESTED-copy -c status

    Not yet: Do not edit the JSON by hand. Unless only a demanded host is gone, do not run
    `openstack server migrate` or `evacuate` before the request is corrected, and do not shelve the
    server: it could not be unshelved, unless another zone is chosen then.

    Source: nova bugs 1785339, 1768876, 1746032; nova admin guide, availability zones; nova API
    microversion 2.91; nova scheduler/utils.py `ResourceRequest.from_request_spec`, compute/api.py
    `rebuild`.
    """
    if instance.deleted or not guest.carries_record:
        return
    request_spec = instance.request_spec
    if not isinstance(request_spec, RequestSpec):
        yield problem(
            f"{guest.title} has no request spec: nova can't migrate, evacuate or unshelve it",
            says(instance, vm_state=instance.vm_state, host=instance.host),
            hears(request_spec, "nova-db", f"request_specs[{guest.uuid}]", request_spec=None),
            UNREQUESTED=guest.uuid,
            UNZONED="",
        )
        return
    yield from _other_flavor(guest, instance, request_spec)
    yield from _unknown_host(guest, cloud, request_spec)
    if instance.image is not None and request_spec.image not in (None, instance.image):
        own, its = (_named(cloud, image) for image in (instance.image, request_spec.image))
        yield problem(
            f"{guest.title} was made from image {own}, but its request spec has image {its}",
            says(instance, image=instance.image),
            says(request_spec, image=request_spec.image),
            UNREQUESTED="",
            UNZONED="",
        )
    yield from _other_zone(guest, cloud, instance, request_spec)
    yield from _other_root(guest, instance, request_spec)
    if request_spec.image in (None, instance.image):
        yield from _other_properties(guest, instance, request_spec)


def _other_zone(
    guest: Guest, cloud: Cloud, instance: Instance, request_spec: RequestSpec
) -> Iterator[Problem]:
    """Yield a server that was requested for another zone than its host's, or for no host's."""
    wanted = request_spec.zone
    if wanted is None:
        return
    listed = compute_zones(cloud)
    exists = listed is None or wanted in {*DEFAULT_ZONES, *listed, *guest.records.zones}
    nowhere = "" if exists else f", and no host is in zone {wanted}"
    host = guest.host
    zone = zone_of(cloud, guest.records, host.nova_name, wanted) if host is not None else None
    if host is not None and zone is not None and zone.name != wanted:
        yield problem(
            f"{guest.title} was requested for zone {wanted}, but its host {host.name} is in zone "
            f"{zone.name}{nowhere}",
            says(instance, host=instance.host),
            says(request_spec, zone=wanted),
            zone.evidence,
            UNREQUESTED="",
            UNZONED="",
        )
    elif host is None and listed and not exists:
        yield problem(
            f"{guest.title} was requested for zone {wanted}, but no host is in it",
            says(request_spec, zone=wanted),
            *[zone.evidence for zone in listed.values()][:SHOWN],
            UNREQUESTED="",
            UNZONED=guest.uuid,
        )


def _unknown_host(guest: Guest, cloud: Cloud, request_spec: RequestSpec) -> Iterator[Problem]:
    """Yield each host in the request that has no compute service."""
    wanted = request_spec.destination
    if not request_spec.forced and wanted is None:
        return
    listed = [service for service in read_services(cloud.bundle) if "compute" in service.binary]
    hosts = {service.host for service in listed}
    if not listed or (guest.host is not None and guest.host.nova_name not in hosts):
        return  # the list is of another cloud, or of some cells only
    if wanted is not None and wanted not in hosts:
        yield problem(
            f"{guest.title}'s request spec sends its next move to host {wanted}, which nova does "
            "not have",
            says(request_spec, destination=wanted),
            *(says(service, host=service.host) for service in listed[:SHOWN]),
            UNREQUESTED="",
            UNZONED="",
        )
    # nova ignores forced hosts on a move since Newton; only a build that is retried obeys them.
    if request_spec.forced and not hosts & {*request_spec.forced}:
        demanded = several(request_spec.forced)
        yield problem(
            f"{guest.title}'s request spec demands host {demanded}, which nova does not have",
            says(request_spec, forced=", ".join(request_spec.forced)),
            *(says(service, host=service.host) for service in listed[:SHOWN]),
            severity=Severity.NOTE,
            UNREQUESTED="",
            UNZONED="",
        )


def _other_root(guest: Guest, instance: Instance, request_spec: RequestSpec) -> Iterator[Problem]:
    """Yield a server for which the next move claims a root disk wrongly, or claims none."""
    planned, is_volume = request_spec.boots_from_volume, instance.boots_from_volume
    roots = [row for row in instance.devices or () if row.get("boot_index") == 0]
    if planned not in (None, is_volume) and roots:
        has, claims = ("a volume", "a") if is_volume else ("a local disk", "no")
        yield problem(
            f"{guest.title} boots from {has}, but its request spec (is_bfv) claims {claims} root "
            "disk on its next host",
            says(instance, boots_from_volume=is_volume),
            says(request_spec, boots_from_volume=planned),
        )


def _other_properties(
    guest: Guest, instance: Instance, request_spec: RequestSpec
) -> Iterator[Problem]:
    """Yield hardware that the request finds a host for, and the server's own copy has otherwise."""
    own = instance.image_copy
    wanted = {
        name: str(value)
        for name, value in request_spec.image_properties.items()
        # nova reads flags and lists in several spellings.
        if name.startswith("hw_") and type(value) in (int, str)
    }
    apart = {
        name: value
        for name, value in wanted.items()
        if own.get(name, value).casefold() != value.casefold()
    }
    if apart:
        name = min(apart)
        more = f" (and {len(apart) - 1} more)" if len(apart) > 1 else ""
        yield problem(
            f"{guest.title} is defined with {name} {own[name]}, but its request spec looks for a "
            f"host with {name} {apart[name]}{more}",
            derives(instance, "image_copy", **{key: own[key] for key in apart}),
            derives(request_spec, "image_properties", **apart),
            severity=Severity.NOTE,
        )


def _named(cloud: Cloud, image: str | None) -> str:
    name = cloud.image_names.get(image or "")
    return f"{name} ({brief(image or '')})" if name else brief(image or "")


def _other_flavor(guest: Guest, instance: Instance, request_spec: RequestSpec) -> Iterator[Problem]:
    stored = instance.stored_flavor("cur")
    if stored is None:
        raise UnheardError("the instance's stored flavor can't be read")
    wanted = request_spec.flavor
    names = ("vcpus", "memory_mb", "root_gb", "ephemeral_gb", "swap")
    pairs = {name: (integer(stored, name), integer(wanted, name)) for name in names}
    differ = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if differ:
        had = {name: own for name, (own, _) in differ.items()}
        asked = {name: its for name, (_, its) in differ.items()}
        name = instance.flavor.name
        yield problem(
            f"{guest.title}'s request spec has {amounts(asked)}, but its flavor {name} has "
            f"{amounts(had)}",
            says(instance, flavor=name).and_so(**had),
            says(request_spec, flavor_name=request_spec.flavor_name).and_so(**asked),
            UNREQUESTED="",
            UNZONED="",
        )
        return
    for key in ("flavorid", "name"):
        own, its = stored.get(key), wanted.get(key)
        if isinstance(own, str) and isinstance(its, str) and own != its:
            yield problem(
                f"{guest.title}'s request spec has flavor {brief(its)}, but its stored flavor, of "
                f"the same sizes, is {brief(own)}",
                derives(instance, "flavor", **{key: own}),
                derives(request_spec, "flavor_name", **{key: its}),
                severity=Severity.NOTE,
                UNREQUESTED="",
                UNZONED="",
            )
            return
