"""Traps: circumstances in which a difference is legal, shared by all checks.

The first line of a trap's docstring is the reason that reports show.
"""

from __future__ import annotations

from datetime import timedelta

from hoodsnap.facts.api.port import Port
from hoodsnap.facts.api.server import Server
from hoodsnap.facts.api.volume import Volume
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.finished_work import finished_work, restarted_since
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.release import Release
from hoodsnap.facts.database.block_device_mapping import BlockDeviceMapping
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.migration import ARMED, Migration
from hoodsnap.facts.domain.state import ShutoffReason
from hoodsnap.facts.fact import UnheardError, known

JUST = timedelta(minutes=10)
"""Time for which an operation that nova started may still be in progress."""

CAPTURE = timedelta(minutes=1)
"""Longer than an attach takes, and longer than collecting from a host takes."""

AT_WORK = timedelta(hours=6)
"""nova updates a migration's record every few minutes; one this old is not running."""

RIPE = timedelta(minutes=10)
"""A server requested longer ago either has a cell or will never get one."""

TASK = timedelta(days=1)
"""No task takes longer than this; an older one has no worker, so its leftovers are reported."""

LIVE = timedelta(hours=1)
"""nova updates a live migration's record every few seconds; one this old is not running."""

EARLIER = timedelta(seconds=5)
"""Tolerated difference between clocks."""


def task_in_flight(guest: Guest) -> bool:
    """nova is working on the server (task_state is set)"""
    record = guest.record
    if record is None or not record.task_state or _is_stuck(record):
        return False
    return finished_work(guest) is None and restarted_since(guest) is None


def _is_stuck(record: Server | Instance) -> bool:
    """True if the task is so old that nova no longer works on it.

    During a live migration and other multi-step tasks, nova updates the record at each step.
    """
    try:
        since, answer = moment(record.updated_at), record.where("updated_at")[0]
    except UnheardError:
        return False
    return since is not None and answer is not None and answer.at - since > TASK


def building(guest: Guest) -> bool:
    """nova is still building the server"""
    return guest.record is not None and guest.record.vm_state == "building"


def never_launched(guest: Guest) -> bool:
    """the server never ran because its build failed"""
    record = guest.record
    return record is not None and record.vm_state == "error" and not record.launched_at


def never_started(guest: Guest) -> bool:
    """the server has not been started yet; its state files are created at the first start"""
    return guest.record is not None and not guest.record.launched_at


def resizing(guest: Guest) -> bool:
    """a resize is not confirmed yet"""
    return guest.record is not None and guest.record.vm_state == "resized"


def migrating(guest: Guest) -> bool:
    """a migration of the server is in progress"""
    instance = guest.instance
    if instance is None:
        return guest.server is not None and guest.server.status in ("MIGRATING", "RESIZE")
    if instance.migrations is None:
        raise UnheardError("its migrations were not collected")
    return any(_goes_on(moved, instance) for moved in instance.migrations)


def _goes_on(moved: Migration, instance: Instance) -> bool:
    """True if a migration is in progress. A record that was left open days ago is not."""
    if not moved.unfinished:
        return False
    since = moment(moved.updated_at)
    asked = instance.said["row"].at
    busy = instance.task_state is not None and not _is_stuck(instance)
    return since is None or asked - since < AT_WORK or busy


def live_migration_at_work(guest: Guest) -> bool:
    """a live migration is in progress; until it ends, the server is on two hosts"""
    instance = guest.instance
    if instance is None:
        return guest.server is not None and guest.server.status == "MIGRATING"
    if instance.migrations is None:
        raise UnheardError("its migrations were not collected")
    return any(
        moved.type == "live-migration" and moved.unfinished and _lately(moved, instance)
        for moved in instance.migrations
    )


def _lately(moved: Migration, instance: Instance) -> bool:
    since = moment(moved.updated_at)
    return since is None or instance.said["row"].at - since < LIVE


def moved_between_captures(guest: Guest) -> bool:
    """the server moved while its hosts were captured one after the other"""
    instance = guest.instance
    looks = [
        answer.at
        for one in (guest, *guest.twins)
        for fact in (one.domain, one.process)
        if fact is not None
        for answer in fact.said.values()
    ]
    if instance is None or not guest.twins or not looks:
        return False
    if instance.migrations is None:
        raise UnheardError("its migrations were not collected")
    changed = [moment(moved.updated_at) for moved in instance.migrations]
    return any(since is not None and since >= min(looks) - EARLIER for since in changed)


def evacuated_from_elsewhere(guest: Guest) -> bool:
    """the server was evacuated, and nova-compute on its old host has not started since"""
    instance, allocation = guest.instance, guest.allocation
    if instance is None or allocation is None:
        return False
    if instance.migrations is None:
        raise UnheardError("its migrations were not collected")
    left = {
        moved.source_node
        for moved in instance.migrations
        if moved.type == "evacuation" and moved.status in ARMED
    }
    if not left:
        return False
    # Only the old host removes the allocation there, wherever the server has gone since.
    others = {allocation.provider(uuid).name for uuid in allocation.hosts} - {instance.node}
    return bool(others) and others <= left


def moved_before_queens(guest: Guest) -> bool:
    """before Queens, a resized server holds both hosts until the resize is confirmed"""
    if not resizing(guest) or guest.host is None:
        return False
    return not guest.host.release.since(Release.QUEENS)


def boots_from_volume(guest: Guest) -> bool:
    """the server boots from a volume and has no disk file"""
    record = guest.record
    if isinstance(record, Instance):
        return record.boots_from_volume
    return record is not None and record.image is None


def disks_are_not_files(guest: Guest) -> bool:
    """this host keeps its disks in rbd or LVM, not in files"""
    return guest.host is not None and guest.host.keeps_disks_elsewhere


def rescued(guest: Guest) -> bool:
    """the server is in rescue and runs without its other disks"""
    return guest.record is not None and guest.record.vm_state == "rescued"


def volume_moving(guest: Guest) -> bool:
    """cinder is attaching, detaching, extending or moving a volume of the server"""
    return any(_moves_now(volume) for volume in guest.volumes or ())


def cinder_migrates(guest: Guest) -> bool:
    """cinder is migrating its volume"""
    volumes = guest.volumes or ()
    moving = [volume for volume in volumes if volume.is_moving]
    # A volume with any other status is judged, whatever another one does.
    others = any(volume.status != "in-use" for volume in volumes)
    return bool(moving) and not others and all(map(_moves_now, moving))


def volume_just_attached(guest: Guest) -> bool:
    """a volume was attached a moment ago (an attach has no task_state)"""
    return guest.instance is not None and any(map(_is_new, guest.instance.mappings_shown))


def _is_new(mapping: BlockDeviceMapping) -> bool:
    """True if nova wrote the row so late that other layers may not show the attach yet."""
    made = mapping.raw.get("created_at")
    since = moment(made) if isinstance(made, str) else None
    return since is not None and mapping.said["row"].at - since < CAPTURE


def _moves_now(volume: Volume) -> bool:
    """True if cinder is working on the volume. A status that has hung for hours does not count."""
    if not volume.is_moving:
        return False
    since = moment(volume.updated_at)
    return since is None or volume.said["body"].at - since < AT_WORK


def just_deleted(instance: Instance) -> bool:
    """the server was deleted a moment ago, and nova may not have finished"""
    since = moment(instance.deleted_at)
    return since is not None and instance.said["row"].at - since < JUST


def same_host(one: str, other: str) -> bool:
    """True if both names belong to one host, as its full or short name."""
    one, other = one.lower(), other.lower()
    return one == other or one.partition(".")[0] == other or one == other.partition(".")[0]


def in_a_container(guest: Guest) -> bool:
    """QEMU runs in a container, where the same paths lead to other files"""
    if _is_in_a_container(guest):
        # This does not make a difference legal; it hides whether one exists.
        raise UnheardError("QEMU runs in a container, where the same paths lead to other files")
    return False


def disks_out_of_sight(guest: Guest) -> bool:
    """QEMU runs in a container, and none of the files that it has open was found outside"""
    if guest.host is None or not _is_in_a_container(guest):
        return False
    if not guest.host.recognizes(guest.process):
        raise UnheardError(
            "QEMU runs in a container, and none of the files that it has open was found outside"
        )
    return False


def _is_in_a_container(guest: Guest) -> bool:
    if guest.host is None:
        return False
    if guest.process is None:  # a guest that is off is assumed to be where the others are
        return guest.host.contains
    return guest.host.in_container(guest.process)


def just_ended(guest: Guest) -> bool:
    """the guest shut itself down less than a minute before, and nova learns of it with a delay"""
    if guest.log is None or guest.domain is None or "state" not in guest.domain.said:
        return False
    try:
        # A guest that was stopped from outside is reported at once.
        ended = guest.log.ended_at if guest.domain.reason == ShutoffReason.SHUTDOWN else None
    except UnheardError:
        return False
    return ended is not None and abs(guest.domain.said["state"].at - ended) < MOMENT


def job_runs(guest: Guest) -> bool:
    """libvirt is running a job on the domain (a migration, a save, a dump)"""
    return guest.domain is not None and guest.domain.id is not None and guest.domain.job


def disk_is_copied(guest: Guest) -> bool:
    """a disk of the guest is being copied"""
    return guest.domain is not None and bool(guest.domain.block_jobs)


def of_another_libvirt(guest: Guest) -> bool:
    """a libvirt daemon that was not queried started the process (in a container or session)"""
    if guest.host is None or guest.process is None:
        return False
    return not guest.host.daemon.may_have(guest.process)


def just_ordered(guest: Guest) -> bool:
    """the server was requested only minutes ago"""
    if not guest.mapping.there:
        return False
    ordered, asked = moment(guest.mapping.created_at), guest.mapping.said["row"].at
    # nova maps the server to its cell before it sends the build to a host.
    launched = known(lambda: moment(guest.instance.launched_at) if guest.instance else None)
    if ordered is not None and launched is not None and guest.runs:
        return asked - ordered < RIPE and not ordered <= launched < asked - EARLIER
    return ordered is not None and asked - ordered < RIPE


def softly_deleted(guest: Guest) -> bool:
    """the server is soft-deleted and may be restored"""
    return guest.record is not None and guest.record.vm_state == "soft-delete"


def moving_to_another_cell(guest: Guest) -> bool:
    """the server is moving to another cell (one of its rows is hidden)"""
    return any(copy.hidden and not copy.deleted for copy in guest.copies)


MOMENT = timedelta(minutes=1)
"""Time for nova, libvirt and the agents to follow a change in neutron."""


def port_just_changed(guest: Guest) -> bool:
    """neutron changed a port of the guest less than a minute before"""
    return any(map(just_changed, guest.ports or ()))


def just_changed(port: Port) -> bool:
    """neutron changed the port less than a minute before"""
    try:
        at = moment(port.updated_at)
    except UnheardError:
        return False
    return at is not None and abs(port.said["port"].at - at) < MOMENT


def passed_through(port: Port) -> bool:
    """True if the card is passed through to the guest, so the host has no tap."""
    return port.vnic_type not in ("", "normal")
