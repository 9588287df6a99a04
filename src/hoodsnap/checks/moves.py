"""Guests that were moved: where they are, and what the move left behind."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from hoodsnap.check import Problem, Problems, check
from hoodsnap.checks.traps import (
    building,
    live_migration_at_work,
    migrating,
    moved_between_captures,
    never_launched,
    resizing,
    task_in_flight,
)
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.api.server import Server
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.migration import ARMED, OVER, Migration
from hoodsnap.facts.database.request_spec import RequestSpec
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import UnheardError, integer

RUNNING = frozenset([1, 2])
"""libvirt's states of a guest whose CPUs run."""

PAUSED = 3
"""libvirt's state of one that is paused."""

BY_A_MIGRATION = frozenset([2, 12, 13])
"""libvirt's reasons of a pause: migrating, post-copy, post-copy failed."""

SETTLES = timedelta(minutes=1)
"""How long nova may take from the end of a move to what follows from it."""

STALE = timedelta(hours=1)
"""A migration that is at work and has no task set can't last longer: nova sets a task first."""


@check(Severity.ERROR, traps=[task_in_flight, migrating, moved_between_captures])
def domain_running_on_wrong_host(
    guest: Guest, host: Host, record: Server | Instance, domain: Domain
) -> Problems:
    """The guest runs on this host, and nova has the server on another one.

    Every command goes to the other host. A hard reboot there starts a *second* guest on the same
    volumes or shared disks; this one is never stopped, counted or billed. It is left by a migration
    that nova lost sight of, by `virsh migrate`, or by an edit of the database.

    Authority: the hypervisor for where it runs.

    Traps: a server that is being moved; hosts that were captured one after the other while it
    moved; a host that was renamed (`host-identity-changed` says so for all its guests).

    Next: see whether it runs on the other host, too: `virsh domstate --reason UUID` there, or
    `hoodsnap collect` and both bundles. If it runs only here, its record has to follow: host, node,
    compute_id, the bindings of its ports and its allocation, all together.

    Not yet: `openstack server reboot --hard` (it is executed on the host that nova believes in);
    `UPDATE instances SET host=…`, which changes one of the five.

    Source: nova `_sync_instance_power_state`; nova bugs 1628606, 1905944; nova admin guide,
    node-down.
    """
    if not guest.runs or record.deleted or guest.is_here or guest.host_name is None:
        return
    host.option("DEFAULT", "host")  # without it the host may be called anything
    if _live_migration(guest, host) is not None or _left_behind(guest, host) is not None:
        return  # which live-migration-half-done and evacuated-guest-still-running tell
    yield says(record, host=record.host, vm_state=record.vm_state), *_here_and_there(guest, domain)


def _here_and_there(guest: Guest, domain: Domain) -> Iterator[Evidence]:
    """What this host and the one that nova believes in say of it."""
    yield says(domain, state=domain.state_words).and_so(on=guest.host.name if guest.host else None)
    if (twin := _believed_twin(guest)) is None:
        return
    name = twin.host.name if twin.host else None
    if twin.domain is not None:
        yield says(twin.domain, state=twin.domain.state_words).and_so(on=name)
    elif "libvirt" in twin.census:
        yield hears(twin.census["libvirt"], "libvirt", guest.uuid, domain=None).and_so(on=name)


def _believed_twin(guest: Guest) -> Guest | None:
    return next((twin for twin in guest.twins if twin.is_here), None)


def _moves(guest: Guest) -> tuple[Migration, ...]:
    if guest.instance is None:
        return ()
    if guest.instance.migrations is None:
        raise UnheardError("its migrations were not read")
    return guest.instance.migrations


def _live_migration(guest: Guest, host: Host) -> Migration | None:
    """The last live migration between this host and the one that nova believes in."""
    ends = {host.nova_name, guest.host_name}
    found = [
        moved
        for moved in _moves(guest)
        if moved.type == "live-migration" and {moved.source_compute, moved.dest_compute} == ends
    ]
    return max(found, key=lambda moved: moved.id or 0, default=None)


def _left_behind(guest: Guest, host: Host) -> Migration | None:
    """The evacuation that took it away from this host, and that the host has not heard of yet."""
    for moved in _moves(guest):
        armed = moved.type == "evacuation" and moved.status in ARMED and not moved.deleted
        if armed and moved.source_compute == host.nova_name:
            return moved
    return None


@check(Severity.ERROR)
def evacuated_guest_still_running(
    guest: Guest, host: Host, instance: Instance, domain: Domain | None
) -> Problems:
    """The server was evacuated from this host, and its guest is still here.

    Evacuation starts it anew elsewhere, in the belief that this host is dead. If it is not, two
    guests write to the same volumes and answer with the same addresses. nova-compute removes what
    was left when it starts here again.

    Authority: the hypervisor for what runs; nova's record for who is the legal one.

    Traps: nova-compute may just not have started yet, which is how it should be, as long as the
    guest is off (a note then); a migration that is `completed` has been cleaned up after.

    Next: `virsh list --all` here and on the new host, `openstack server show UUID`. While it runs
    on both, stop this one's writes first: `virsh suspend NAME`, which can be taken back.

    Not yet: `openstack compute service set --up` before the guests here are off; removing the row
    from `migrations`; starting nova-compute before it is known which of the two is whole.

    Source: nova compute/manager.py `_destroy_evacuated_instances`; spec robustify-evacuate; nova
    bug 1550919.
    """
    if instance.deleted or guest.is_here or (domain is None and guest.process is None):
        return
    left = _left_behind(guest, host)
    if left is None or (left.status != "done" and not guest.runs):
        return
    evidence = [
        says(left, type=left.type, status=left.status, source_compute=left.source_compute),
        says(instance, host=instance.host),
    ]
    if domain is not None:
        evidence += _here_and_there(guest, domain)
    elif guest.process is not None:
        evidence.append(says(guest.process, pid=guest.process.pid))
    yield Problem(Severity.ERROR if guest.runs else Severity.NOTE, tuple(evidence))


@check(Severity.ERROR, traps=[live_migration_at_work, moved_between_captures])
def live_migration_half_done(
    guest: Guest, host: Host, instance: Instance, domain: Domain
) -> Problems:
    """A live migration ended in the middle: it is not where nova believes, or nobody runs.

    Two QEMUs hold one guest for a while, and nova, libvirt, neutron and cinder change sides one
    after the other. Where that breaks off, the guest runs on the one side and its record is on the
    other, or it runs on both (a split brain, which destroys its disks), or it is paused on both.

    Authority: QEMU for which of the two runs; the one that ran last has the guest's memory.

    Traps: a migration that is at work, with much memory for hours; hosts that were captured one
    after the other while it moved; a guest that is defined and off on the other side is harmless.

    Next: `openstack server migration list --server UUID`, and on both hosts `virsh domstate
    --reason NAME` and `virsh domjobinfo NAME`. If both run, `virsh suspend` the one that nova does
    not believe in.

    Not yet: `openstack server reboot --hard`, `openstack server set --state active`, restarting
    nova-compute on either host, `virsh resume` of a guest that a migration has paused, `virsh
    destroy` before it is proven which one ran last.

    Source: nova bugs 1628606, 1905944, 1414065, 1899835, 1889108; nova `_post_live_migration`,
    `_rollback_live_migration`; libvirt src/qemu/qemu_migration.c.
    """
    if instance.deleted or not guest.runs:
        return
    if guest.is_here:
        yield from _nobody_runs(guest, domain)
        return
    moved = _live_migration(guest, host)
    if moved is None:
        return
    twin = _believed_twin(guest)
    other_runs = twin is not None and twin.domain is not None and twin.domain.state in RUNNING
    harmless = domain.state == PAUSED and (twin is None or other_runs)
    evidence = (
        _ends(moved),
        says(instance, host=instance.host, task_state=instance.task_state),
        *_here_and_there(guest, domain),
    )
    yield Problem(Severity.WARNING if harmless else Severity.ERROR, evidence)


def _nobody_runs(guest: Guest, domain: Domain) -> Iterator[tuple[Evidence, ...]]:
    """Where nova believes in it a migration has paused it, and no captured host has it running."""
    if domain.state != PAUSED or domain.reason not in BY_A_MIGRATION:
        return
    if any(twin.runs for twin in guest.twins):
        return  # the other side tells it
    lived = [moved for moved in _moves(guest) if moved.type == "live-migration"]
    newest = max(lived, key=lambda moved: moved.id or 0, default=None)
    yield *([_ends(newest)] if newest is not None else []), says(domain, state=domain.state_words)


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
    """The next start of nova-compute on its host will destroy this guest.

    It was once evacuated from the host where it is now. That evacuation was never cleaned up after,
    and nova-compute removes, when it starts, whatever was evacuated from its host. It does not look
    whether the server came back since.

    Authority: nova's records: the migration, and where the server is.

    Traps: while the evacuation is going on the server is still on its old host; one that is
    elsewhere is another matter (`evacuated-guest-still-running`); of a deleted server the record
    means nothing.

    Next: `openstack server migration list --server UUID --type evacuation`. With nova-compute of
    its host stopped, that one row's status has to be set to `completed` in the database; no command
    does it.

    Not yet: restarting nova-compute, or the host; upgrading it.

    Source: nova bug 1922053; nova compute/manager.py `_destroy_evacuated_instances`.
    """
    if instance.deleted or instance.host is None or not guest.carries_record:
        return
    for moved in _moves(guest):
        armed = moved.type == "evacuation" and moved.status in ARMED and not moved.deleted
        if armed and moved.source_compute == instance.host:
            yield _ends(moved), says(instance, host=instance.host, vm_state=instance.vm_state)


@check(Severity.WARNING)
def migration_record_stale(guest: Guest, instance: Instance) -> Problems:
    """A move is recorded as going on, and nobody is working on it.

    nova refuses other moves of the server, and its next steps go by a record that is not true any
    more. A server that waits for a confirmation whose move is gone can be neither confirmed nor
    reverted (an error).

    Authority: nova's own record: while it works on a move, the server has a task.

    Traps: a resize may wait for its confirmation for months; one that was confirmed, or ended
    otherwise, less than a minute ago; a task that is set belongs to `stuck-task-state`.

    Next: `openstack server migration list --server UUID`, `openstack server event list UUID`; then
    `openstack server resize confirm` or `revert`, or `openstack server migration abort`.

    Not yet: editing rows of `migrations` while nova-compute runs.

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
            yield (
                says(moved, type=moved.type, status=moved.status, updated_at=moved.updated_at),
                says(instance, vm_state=instance.vm_state, task_state=None),
            )
    # The row of the server follows that of its move when it is confirmed or reverted.
    ends = (moment(moved.updated_at) for moved in moves if moved.status in OVER)
    if any(since is not None and asked - since < SETTLES for since in ends):
        return
    if waits and not any(moved.status in ("finished", "confirming") for moved in moves):
        shown = tuple(_ends(moved) for moved in moves)
        yield Problem(Severity.ERROR, (says(instance, vm_state=instance.vm_state), *shown))


@check(Severity.WARNING, traps=[task_in_flight, building, never_launched, resizing, migrating])
def request_spec_skew(guest: Guest, instance: Instance) -> Problems:
    """The next move of the server will be planned with old facts.

    nova keeps what was asked for when the server was built, and looks for a new host by that when
    it is migrated, evacuated or unshelved. Without it these fail; with an old one the server ends
    where it does not fit, or nowhere.

    Authority: the server's record for what it is; its owner for the zone.

    Traps: without a zone it may go anywhere; while it is resized the new flavor is looked for; a
    server that boots from a volume has an image of no meaning; nova of before Newton has none.

    Next: `openstack server show UUID`, `openstack aggregate list --long`. If the zone differs, put
    the host back into the aggregate that it was in.

    Not yet: editing the JSON by hand; `openstack server migrate` or `evacuate` before it is put
    right.

    Source: nova bugs 1785339, 1768876, 1746032; nova admin guide, availability zones.
    """
    if instance.deleted or not guest.carries_record:
        return
    spec = instance.request_spec
    if not isinstance(spec, RequestSpec):
        missing = hears(spec, "nova-db", f"request_specs[{guest.uuid}]", request_spec=None)
        yield says(instance, vm_state=instance.vm_state, host=instance.host), missing
        return
    yield from _other_flavor(instance, spec)
    if instance.image is not None and spec.image not in (None, instance.image):
        yield says(instance, image=instance.image), says(spec, image=spec.image)
    if spec.zone is None or guest.host is None:
        return
    zone = guest.host.records.zone_of(guest.host.nova_name)
    # A host in no zone of its own is in the default one, whose name only nova-api knows.
    if zone is not None and zone[0] != spec.zone:
        aggregate = hears(zone[1], "aggregate", f"host={guest.host.nova_name}", zone=zone[0])
        yield says(instance, host=instance.host), says(spec, zone=spec.zone), aggregate


def _other_flavor(instance: Instance, spec: RequestSpec) -> Iterator[tuple[Evidence, ...]]:
    stored = instance.stored_flavor("cur")
    if stored is None:
        raise UnheardError("the instance's stored flavor can't be read")
    wanted = spec.flavor
    names = ("vcpus", "memory_mb", "root_gb", "ephemeral_gb", "swap")
    pairs = {name: (integer(stored, name), integer(wanted, name)) for name in names}
    differ = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if differ:
        yield (
            says(instance, flavor=instance.flavor.name).and_so(
                **{name: own for name, (own, _) in differ.items()}
            ),
            says(spec, flavor_name=spec.flavor_name).and_so(
                **{name: its for name, (_, its) in differ.items()}
            ),
        )
