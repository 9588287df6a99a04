"""Operations on volumes that never ended: in the volume's status, and in its attachments'."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from functools import partial

from hoodsnap import phrase
from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.traps import (
    building,
    cinder_migrates,
    migrating,
    never_launched,
    resizing,
    task_in_flight,
    volume_just_attached,
)
from hoodsnap.evidence import Evidence, Severity, says
from hoodsnap.facts.api.volume import GONE, Attachment, Volume
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.volume_owners import PluggedVolume, VolumeOwners
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.fact import UnheardError, caught, known
from hoodsnap.phrase import brief, several

BRIEF = timedelta(hours=1)
"""Longer than an operation takes that copies no data."""

LONG = timedelta(days=3)
"""Longer than cinder takes to copy or to erase a volume."""

QUIET = timedelta(hours=6)
"""Longer than a storage takes to move a volume by itself while a guest uses it. If the storage does
not, QEMU copies the volume, and libvirt reports the copy."""

COPIES = frozenset(
    (
        *("creating", "downloading", "uploading", "deleting", "backing-up", "restoring-backup"),
        *("maintenance", "retyping", "managing", "unmanaging"),
    )
)
"""Statuses during which cinder copies or erases data."""

STEPS = frozenset(["attaching", "detaching", "reserved", "extending"])
"""Statuses that last for seconds, of volumes and of attachments."""

FAILED = frozenset(
    (
        *("error", "error_extending", "error_restoring", "error_backing-up", "error_deleting"),
        *("error_managing", "error_managing_deleting"),
    )
)
"""Statuses of an operation that failed."""

MADE_OR_REMOVED = frozenset(
    ["creating", "downloading", "managing", "deleting", "error_deleting", "unmanaging"]
)
"""Statuses of a volume whose data may be incomplete."""

NAMED = 3
"""Number of similar volumes that a finding names."""

AGE = timedelta(minutes=10)
"""Longer than nova and cinder take to complete an attachment."""


@check(
    Severity.WARNING,
    heard=["cinder"],
    traps=[
        *(task_in_flight, building, never_launched, migrating, volume_just_attached),
        cinder_migrates,
    ],
)
def volume_stuck(guest: Guest, volumes: tuple[Volume, ...]) -> Problems:
    """An operation on a server's volume failed, or started and never ended.

    cinder refuses to attach, detach, extend or delete a volume in such a status. The guest itself
    keeps using a volume that it has. cinder does not correct the status by itself: a request was
    lost, or a service stopped during the operation.

    Authority: libvirt, for whether the guest has the volume; nova's block device mapping and
    cinder's attachments, for whether it should.

    Traps: An operation that takes its time: attaching takes seconds, copying a volume takes hours.
    A shelved server reserves its volumes for as long as it is shelved.

    Next: Check what each layer still has of the volume, and whether cinder's services are up:

        openstack volume show VOLUME
        cinder --os-volume-api-version 3.27 attachment-list --all-tenants --volume-id VOLUME
        openstack server volume list UUID
        openstack volume service list

    Search cinder-volume's log for the volume's id: it has the reason. If the service of the
    volume's backend is down, start it first.

    If nova and the guest no longer have the volume, but cinder has an attachment, delete it:

        cinder --os-volume-api-version 3.27 attachment-delete ATTACHMENT

    Then set the status to what it is in the other layers (in-use if the guest has the volume,
    available if no layer has it, error if its data is incomplete):

        openstack volume set --state STATE VOLUME

    If nothing copies a migrating volume any more, end the migration in cinder's record; the data
    stays where it is. The volume that was to replace it is in the list too, and can be deleted if
    no server has it:

        virsh blockjob NAME TARGET --info
        cinder reset-state --reset-migration-status MIGRATING
        openstack volume list --all-projects --long

    It worked if status, migration and attachments are those of nova:

        openstack volume show VOLUME -c status -c migration_status -c attachments
        openstack server volume list UUID

    Not yet: Do not set the status to available while a guest has the volume: cinder would allow
    its deletion. Do not run `cinder reset-state --attach-status detached`. Do not delete the
    volume.

    Source: cinder objects/fields.py `VolumeStatus`, `VolumeAttachStatus`; cinder admin guide,
    "Manage volumes"; nova `_detach_with_retry`.
    """
    expected = cinder_migrates(guest)
    for volume in volumes:
        plugged = guest.storage.plugged(volume.id)
        words = _words(guest, volume)
        if words is None and expected and (step := _migration(volume)):
            words = f"is {MOVING[step]}"  # legal, so that the report remarks it
        if words is None or (volume.status == "reserved" and _is_shelved(guest)):
            continue
        if plugged and volume.status in ("error", "error_deleting", "deleting"):
            continue  # volume-free-in-cinder-but-open reports it
        rows = guest.storage.mapped(volume.id)
        held = _held_by(guest.storage, volume)
        title = guest.storage.volumes.title_of(volume.id)
        moving = volume.status == "in-use" and _migration(volume) is not None
        yield problem(
            f"{guest.title}'s {title} {words}; {_held_in_words(bool(rows), bool(plugged), held)}",
            says(
                volume,
                id=volume.id,
                status=volume.status,
                **({"migration_status": _migration(volume)} if moving else {}),
                updated_at=volume.updated_at,
            ),
            *(says(row, volume_id=row.volume_id, device_name=row.device_name) for row in rows),
            *(says(one.domain, uuid=one.domain.uuid).and_so(volume=volume.id) for one in plugged),
            *(says(one, id=one.id, status=one.status, instance=one.instance) for one in held),
            VOLUME=volume.id,
            STATE="" if moving else _right_status(volume, bool(rows or plugged)),
            MIGRATING=volume.id if moving else "",
            TARGET=plugged[0].disk.target if moving and plugged else "",
            ATTACHMENT="" if rows or plugged or len(held) != 1 else held[0].id,
        )


@check(Severity.WARNING)
def unattached_volume_stuck(cloud: Cloud) -> Problems:
    """An operation on a volume that no server has failed, or started and never ended.

    Nobody can use or delete the volume, and it counts toward its owner's quota.

    Authority: cinder.

    Traps: An operation that takes its time: copying or erasing a large volume takes hours. An
    owner's volume that could not be created stays in error until the owner deletes it (a note).
    Volumes without a server are collected with `--all-hosts` only.

    Next: Check the volume, and whether cinder's services are up:

        openstack volume show VOLUME
        cinder --os-volume-api-version 3.27 attachment-list --all-tenants --volume-id VOLUME
        openstack volume service list

    Search the logs of cinder-scheduler and cinder-volume for the volume's id: they have the reason.

    If no server has the volume, but cinder has an attachment, delete it:

        cinder --os-volume-api-version 3.27 attachment-delete ATTACHMENT

    Then set the status (available if its data is complete, else error):

        openstack volume set --state STATE VOLUME

    It worked if the volume has that status:

        openstack volume show VOLUME -c status -c attachments

    Not yet: Do not run `openstack volume delete` before its owner confirmed that the data is not
    needed.

    Source: cinder objects/fields.py `VolumeStatus`; cinder admin guide, "Manage volumes".
    """
    storage = cloud.storage
    owned = _owned(cloud)
    undecided: UnheardError | None = None
    failed: list[Volume] = []
    for volume in storage.volumes.by_id.values():
        if volume.id in owned:
            continue
        try:
            if volume.status == "error" and not _held_by(storage, volume):
                failed.append(volume)
            elif (words := _stuck(volume)) is not None:
                yield _of_nobody(storage, volume, words)
        except UnheardError as reason:
            undecided = reason
        except Exception as error:  # a net: one volume must not hide the others
            undecided = caught(error)
    if failed:
        yield _of_failed(storage, failed)
    if undecided is not None:
        raise undecided
    storage.volumes.require_whole("volumes")


def _of_failed(storage: VolumeOwners, volumes: list[Volume]) -> Problem:
    names = several(storage.volumes.title_of(volume.id) for volume in volumes)
    are = "is" if len(volumes) == 1 else "are"
    return problem(
        f"{phrase.counted(len(volumes), 'volume')} without a server {are} in error: {names}",
        *(says(volume, id=volume.id, status=volume.status) for volume in volumes[:NAMED]),
        severity=Severity.NOTE,
        VOLUME=volumes[0].id if len(volumes) == 1 else None,
        STATE="error" if len(volumes) == 1 else "",
        ATTACHMENT="",
    )


def _of_nobody(storage: VolumeOwners, volume: Volume, words: str) -> Problem:
    held = _held_by(storage, volume)
    title = storage.volumes.title_of(volume.id)
    shown = f"; cinder has {phrase.counted(len(held), 'attachment')} of it" if held else ""
    return problem(
        f"V{title[1:]}, which no server has, {words}{shown}",
        says(volume, id=volume.id, status=volume.status, updated_at=volume.updated_at),
        *(says(one, id=one.id, status=one.status, instance=one.instance) for one in held),
        VOLUME=volume.id,
        STATE=_right_status(volume, False),
        ATTACHMENT=held[0].id if len(held) == 1 else "",
    )


def _owned(cloud: Cloud) -> frozenset[str]:
    """Return the volumes that some guest has in any layer: `volume-stuck` reports them."""
    guests: Iterable[Guest] = cloud.guests
    return frozenset(volume.id for guest in guests for volume in guest.volumes or ())


def _stuck(volume: Volume, plugged: tuple[PluggedVolume, ...] = ()) -> str | None:
    """Return the volume's status in words, if its operation ended badly or should have ended.

    `plugged` are the active domains that have the volume: these would copy it.
    """
    status, asked = volume.status, volume.said["body"].at
    if status in FAILED:
        lasts = _for(volume, asked)
        words = "in error" if status == "error" else status
        return f"{'has been' if lasts else 'is'} {words}{lasts}"
    since = moment(volume.updated_at)
    if since is None:
        return None
    moving = _migration(volume)
    limit = LONG if status in COPIES or moving else BRIEF if status in STEPS else None
    if moving and status == "in-use" and plugged and not any(map(_is_copied, plugged)):
        limit = QUIET
    if limit is None or asked - since < limit:
        return None
    state = status if status in COPIES | STEPS else MOVING[moving or "migrating"]
    return f"has been {state} {phrase.since(since, asked)}"


def _words(guest: Guest, volume: Volume) -> str | None:
    """Return what is wrong with a volume's status, or since when it lasts; None if nothing is."""
    plugged = guest.storage.plugged(volume.id)
    words = known(partial(_stuck, volume, plugged))
    if words is None and plugged and guest.storage.mapped(volume.id):
        words = _unfit(volume)
    return words


def _unfit(volume: Volume) -> str | None:
    """Return the status in words, if a volume that a server uses can't have it."""
    if volume.status in COPIES | STEPS | FAILED | {"in-use", "available"}:
        return None
    return f"has status {volume.status or 'unknown'} in cinder"


def _for(volume: Volume, asked: datetime) -> str:
    since = moment(volume.updated_at)
    return "" if since is None else f" {phrase.since(since, asked)}"


def _is_copied(one: PluggedVolume) -> bool:
    return one.disk.target in one.domain.block_jobs


MOVING = {
    "starting": "about to migrate",
    "migrating": "migrating",
    "completing": "completing a migration",
}
"""cinder's migration_status during a migration to another backend → what the volume is doing."""


def _migration(volume: Volume) -> str | None:
    moved = volume.raw.get("os-vol-mig-status-attr:migstat") or volume.raw.get("migration_status")
    return moved if isinstance(moved, str) and moved in MOVING else None


def _is_shelved(guest: Guest) -> bool:
    return guest.record is not None and guest.record.vm_state == "shelved_offloaded"


def _held_by(storage: VolumeOwners, volume: Volume) -> tuple[Attachment, ...]:
    attachments = storage.volumes.by_volume.get(volume.id, ())
    return tuple(one for one in attachments if one.status not in GONE)


def _held_in_words(mapped: bool, plugged: bool, held: tuple[Attachment, ...]) -> str:
    """Return who has the volume, for a headline: `nova and the guest have it`."""
    have = [name for name, has in (("nova", mapped), ("the guest", plugged)) if has]
    statuses = several(sorted({one.status for one in held}))
    attachment = f"its attachment is {statuses}" if held else "cinder has no attachment"
    if not have:
        return f"neither nova nor a captured guest has it, and {attachment}"
    return f"{' and '.join(have)} {'has' if len(have) == 1 else 'have'} it, {attachment}"


def _right_status(volume: Volume, is_used: bool) -> str:
    if is_used:
        return "in-use"
    return "error" if volume.status in MADE_OR_REMOVED | {"error"} else "available"


@check(
    Severity.WARNING,
    heard=["cinder"],
    traps=[
        *(task_in_flight, building, never_launched, migrating, resizing),
        volume_just_attached,
    ],
)
def attachment_stuck(guest: Guest, instance: Instance) -> Problems:
    """cinder's attachment of a server's volume is not in the status attached.

    nova reports each attach and each detach to cinder in steps: reserved, attaching, attached. If
    the last step was lost, cinder does not count the volume as attached, a detach may be refused,
    and no other server can have the volume.

    Authority: libvirt, for whether the guest has the volume.

    Traps: The volumes of a shelved server are reserved. An attach or detach in progress. A server
    that failed to build has reserved its volumes.

    Next: Check the attachment, and whether the guest has the volume:

        cinder --os-volume-api-version 3.27 attachment-list --all-tenants --volume-id VOLUME
        nova-manage volume_attachment show UUID VOLUME
        virsh domblklist --details NAME

    If the guest has the volume, complete the attachment, which changes cinder's record only:

        cinder --os-volume-api-version 3.44 attachment-complete PLUGGED_ATTACHMENT

    If the guest does not have the volume, make the attachment again (Xena and later), on the
    server's host. The server is off meanwhile:

        openstack server stop UNPLUGGED_SERVER
        nova-manage volume_attachment get_connector --json > connector.json
        nova-manage volume_attachment refresh UNPLUGGED_SERVER VOLUME connector.json
        openstack server start UNPLUGGED_SERVER

    It worked if the attachment is attached:

        cinder --os-volume-api-version 3.27 attachment-list --all-tenants --volume-id VOLUME

    Not yet: Do not run `cinder attachment-delete`: nova still uses the attachment. Do not run
    `openstack server reboot --hard`.

    Source: cinder `attachment_complete`, objects/fields.py `VolumeAttachStatus`; nova
    virt/block_device.py `_volume_attach`.
    """
    if instance.deleted or _is_shelved(guest):
        return
    cinder = guest.storage.volumes
    for mapping in instance.mappings:
        attachment = cinder.attachments.get(mapping.attachment_id or "")
        if attachment is None or attachment.status in ("attached", *GONE):
            continue  # bdm-attachment-or-volume-missing reports one that is gone
        volume = cinder.by_id.get(attachment.volume_id)
        since = max(_times(mapping.raw.get("updated_at"), volume), default=None)
        asked = next(iter(attachment.said.values())).at
        if since is None or (asked - since < AGE and attachment.status in STEPS):
            continue
        plugged = any(
            one.domain.uuid == guest.uuid for one in guest.storage.plugged(attachment.volume_id)
        )
        use = _use_in_words(guest, plugged)
        yield problem(
            f"cinder's attachment {brief(attachment.id)} of {guest.title}'s "
            f"{cinder.title_of(attachment.volume_id)} is {attachment.status or 'without a status'}"
            f" {phrase.since(since, asked)}, {use}",
            says(attachment, id=attachment.id, status=attachment.status),
            says(mapping, volume_id=mapping.volume_id, attachment_id=mapping.attachment_id),
            *_uses(guest),
            VOLUME=attachment.volume_id,
            PLUGGED_ATTACHMENT=attachment.id if plugged else "",
            UNPLUGGED_SERVER=guest.uuid if not plugged else "",
        )


def _times(written: object, volume: Volume | None) -> Iterator[datetime]:
    """Yield the times at which nova's row and cinder's volume last changed."""
    changed = (moment(written), moment(volume.updated_at) if volume is not None else None)
    yield from (at for at in changed if at is not None)


def _use_in_words(guest: Guest, plugged: bool) -> str:
    if plugged:
        return "but the guest has the volume"
    if guest.domain is None or known(lambda: guest.domain.id) is None:  # type: ignore[union-attr]
        return "but nova has the volume attached"
    return "but nova has the volume attached; the guest does not have it"


def _uses(guest: Guest) -> Iterator[Evidence]:
    if guest.domain is not None:
        disks = ", ".join(disk.target or "?" for disk in guest.domain.current.disks)
        yield says(guest.domain, disks=disks or None)
