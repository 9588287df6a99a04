"""When a difference is legal. Shared by all checks; each says why in its docstring's first line."""

from __future__ import annotations

from datetime import timedelta

from hoodsnap.facts.api.port import Port
from hoodsnap.facts.api.server import Server
from hoodsnap.facts.api.volume import Volume
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.release import Release
from hoodsnap.facts.database.block_device_mapping import BlockDeviceMapping
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.migration import ARMED, Migration
from hoodsnap.facts.fact import UnheardError

JUST = timedelta(minutes=10)
"""What nova began so recently may still go on."""

CAPTURE = timedelta(minutes=1)
"""Longer than an attach takes, and than asking a host everything."""

AT_WORK = timedelta(hours=6)
"""nova brings a migration's record up to date every few minutes while it is at work."""

RIPE = timedelta(minutes=10)
"""A server that was ordered longer ago has a cell, or never will."""


TASK = timedelta(days=1)
"""No task takes longer, however large the image: whoever worked on it is gone, and what it left
behind is to be seen."""

LIVE = timedelta(hours=1)
"""Of a live migration it does so every few seconds."""

EARLIER = timedelta(seconds=5)
"""Clocks may differ by so much."""


def task_in_flight(guest: Guest) -> bool:
    """nova is doing something with it (task_state is set)"""
    record = guest.record
    return record is not None and bool(record.task_state) and not _is_stuck(record)


def _is_stuck(record: Server | Instance) -> bool:
    """Whether its task is so old that nobody works on it. While nova migrates it live, or does
    anything in steps, it writes the record anew."""
    try:
        since, answer = moment(record.updated_at), record.where("updated_at")[0]
    except UnheardError:
        return False
    return since is not None and answer is not None and answer.at - since > TASK


def building(guest: Guest) -> bool:
    """nova is still building it"""
    return guest.record is not None and guest.record.vm_state == "building"


def never_launched(guest: Guest) -> bool:
    """it never ran: its build failed"""
    record = guest.record
    return record is not None and record.vm_state == "error" and not record.launched_at


def never_started(guest: Guest) -> bool:
    """it has not been started yet, and what it keeps is made then"""
    return guest.record is not None and not guest.record.launched_at


def resizing(guest: Guest) -> bool:
    """a resize is not confirmed yet"""
    return guest.record is not None and guest.record.vm_state == "resized"


def migrating(guest: Guest) -> bool:
    """a migration of it is under way"""
    instance = guest.instance
    if instance is None:
        return guest.server is not None and guest.server.status in ("MIGRATING", "RESIZE")
    if instance.migrations is None:
        raise UnheardError("its migrations were not read")
    return any(_goes_on(moved, instance) for moved in instance.migrations)


def _goes_on(moved: Migration, instance: Instance) -> bool:
    """Whether a migration is at work. One whose record nobody closed is not, days later."""
    if not moved.unfinished:
        return False
    since = moment(moved.updated_at)
    asked = instance.said["row"].at
    busy = instance.task_state is not None and not _is_stuck(instance)
    return since is None or asked - since < AT_WORK or busy


def live_migration_at_work(guest: Guest) -> bool:
    """it is being migrated live: until that ends it is on two hosts"""
    instance = guest.instance
    if instance is None:
        return guest.server is not None and guest.server.status == "MIGRATING"
    if instance.migrations is None:
        raise UnheardError("its migrations were not read")
    return any(
        moved.type == "live-migration" and moved.unfinished and _lately(moved, instance)
        for moved in instance.migrations
    )


def _lately(moved: Migration, instance: Instance) -> bool:
    since = moment(moved.updated_at)
    return since is None or instance.said["row"].at - since < LIVE


def moved_between_captures(guest: Guest) -> bool:
    """it was moved while its hosts were captured, one after the other"""
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
        raise UnheardError("its migrations were not read")
    changed = [moment(moved.updated_at) for moved in instance.migrations]
    return any(since is not None and since >= min(looks) - EARLIER for since in changed)


def evacuated_from_elsewhere(guest: Guest) -> bool:
    """it was evacuated, and nova-compute of the host that it left has not started again since"""
    instance, allocation = guest.instance, guest.allocation
    if instance is None or allocation is None:
        return False
    if instance.migrations is None:
        raise UnheardError("its migrations were not read")
    left = {
        moved.source_node
        for moved in instance.migrations
        if moved.type == "evacuation" and moved.status in ARMED
    }
    if not left:
        return False
    # What it holds there is removed only by the host that it left, wherever it went since.
    others = {allocation.provider(uuid).name for uuid in allocation.hosts} - {instance.node}
    return bool(others) and others <= left


def moved_before_queens(guest: Guest) -> bool:
    """before Queens a server that was resized holds both hosts until that is confirmed"""
    if not resizing(guest) or guest.host is None:
        return False
    return not guest.host.release.since(Release.QUEENS)


def boots_from_volume(guest: Guest) -> bool:
    """it boots from a volume, so it has no disk file of its own"""
    record = guest.record
    if isinstance(record, Instance):
        return record.boots_from_volume
    return record is not None and record.image is None


def disks_are_not_files(guest: Guest) -> bool:
    """this host keeps its disks in rbd or LVM, not in files"""
    return guest.host is not None and guest.host.keeps_disks_elsewhere


def rescued(guest: Guest) -> bool:
    """it is rescued: until that ends, it runs without its other disks"""
    return guest.record is not None and guest.record.vm_state == "rescued"


def volume_moving(guest: Guest) -> bool:
    """cinder is attaching, detaching, extending or moving a volume of it"""
    return any(_moves_now(volume) for volume in guest.volumes or ())


def volume_just_attached(guest: Guest) -> bool:
    """a volume was given to it a moment ago: an attach has no task state"""
    return guest.instance is not None and any(map(_is_new, guest.instance.mappings_shown))


def _is_new(mapping: BlockDeviceMapping) -> bool:
    """Whether nova wrote the row so late that others were perhaps asked before the plugging."""
    made = mapping.raw.get("created_at")
    since = moment(made) if isinstance(made, str) else None
    return since is not None and mapping.said["row"].at - since < CAPTURE


def _moves_now(volume: Volume) -> bool:
    """Whether cinder is at work. A volume that hangs in such a state since days is not."""
    if not volume.is_moving:
        return False
    since = moment(volume.updated_at)
    return since is None or volume.said["body"].at - since < AT_WORK


def just_deleted(instance: Instance) -> bool:
    """it was deleted a moment ago, and nova may still be at it"""
    since = moment(instance.deleted_at)
    return since is not None and instance.said["row"].at - since < JUST


def same_host(one: str, other: str) -> bool:
    """both names are of one host: the whole name, and the short one"""
    one, other = one.lower(), other.lower()
    return one == other or one.partition(".")[0] == other or one == other.partition(".")[0]


def in_a_container(guest: Guest) -> bool:
    """its QEMU runs in a container, where the same paths lead to other files"""
    if _is_in_a_container(guest):
        # That makes no difference legal: it hides whether there is one.
        raise UnheardError("its QEMU runs in a container, where the same paths lead to other files")
    return False


def disks_out_of_sight(guest: Guest) -> bool:
    """its QEMU runs in a container, and none of the files that it has there was found outside"""
    if guest.host is None or not _is_in_a_container(guest):
        return False
    if not guest.host.recognises(guest.process):
        raise UnheardError(
            "its QEMU runs in a container, and none of the files that it has there was found"
            " outside"
        )
    return False


def _is_in_a_container(guest: Guest) -> bool:
    if guest.host is None:
        return False
    if guest.process is None:  # one that is off will be where the others are
        return guest.host.contains
    return guest.host.in_container(guest.process)


def just_ended(guest: Guest) -> bool:
    """it shut itself down less than a minute before, and nova hears of that with some delay"""
    if guest.log is None or guest.domain is None or "state" not in guest.domain.said:
        return False
    try:
        # What was ended from outside is worth knowing at once.
        ended = guest.log.ended_at if guest.domain.reason == SHUT_DOWN else None
    except UnheardError:
        return False
    return ended is not None and abs(guest.domain.said["state"].at - ended) < MOMENT


def job_runs(guest: Guest) -> bool:
    """libvirt is at work on it (a migration, a save, a dump)"""
    return guest.domain is not None and guest.domain.id is not None and guest.domain.job


def disk_is_copied(guest: Guest) -> bool:
    """one of its disks is being copied"""
    return guest.domain is not None and bool(guest.domain.block_jobs)


def of_another_libvirt(guest: Guest) -> bool:
    """its process was started by another libvirt than was asked (in a container, or a session)"""
    if guest.host is None or guest.process is None:
        return False
    return not guest.host.daemon.may_have(guest.process)


def just_ordered(guest: Guest) -> bool:
    """it was ordered only minutes ago"""
    if not guest.mapping.there:
        return False
    ordered, asked = moment(guest.mapping.created_at), guest.mapping.said["row"].at
    return ordered is not None and asked - ordered < RIPE


def softly_deleted(guest: Guest) -> bool:
    """its owner deleted it, and may still want it back"""
    return guest.record is not None and guest.record.vm_state == "soft-delete"


def moving_to_another_cell(guest: Guest) -> bool:
    """it is moved from one cell to another (one of its rows is hidden)"""
    return any(copy.hidden and not copy.deleted for copy in guest.copies)


SHUT_DOWN = 1
"""libvirt's reason of a domain that is off: its guest shut itself down."""

MOMENT = timedelta(minutes=1)
"""How long nova, libvirt and an agent may take until each has heard of what neutron did."""


def port_just_changed(guest: Guest) -> bool:
    """neutron changed one of its ports less than a minute before"""
    return any(map(just_changed, guest.ports or ()))


def just_changed(port: Port) -> bool:
    """neutron changed the port less than a minute before"""
    try:
        at = moment(port.updated_at)
    except UnheardError:
        return False
    return at is not None and abs(port.said["port"].at - at) < MOMENT


def passed_through(port: Port) -> bool:
    """the guest has the card itself, or a part of it, so the host has no tap of it"""
    return port.vnic_type not in ("", "normal")
