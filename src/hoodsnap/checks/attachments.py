"""Volume attachments: nova's block device mappings, cinder's attachments and the guest's disks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.mappings import is_surplus
from hoodsnap.checks.traps import (
    building,
    just_deleted,
    migrating,
    never_launched,
    rescued,
    resizing,
    same_host,
    task_in_flight,
    volume_just_attached,
    volume_moving,
)
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.api.volume import GONE, Attachment
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.volume_owners import is_disk_of, is_own, volume_of
from hoodsnap.facts.database.block_device_mapping import BlockDeviceMapping
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.host.instances_directory import disk_owner, is_base
from hoodsnap.phrase import brief, place

RUNS = frozenset(["active", "paused", "rescued"])
"""The vm_states of a server whose volumes have all been connected."""

SHARED = frozenset(["rbd", "nfs", "glusterfs", "quobyte", "smbfs", "vzstorage"])
"""Kinds of storage that every host can reach, without an export to that host by name."""

LIBVIRTS = frozenset(["QEMU", "KVM", "LXC", "Parallels", "Xen"])
"""The hypervisor types that nova drives through libvirt."""


@check(
    Severity.ERROR,
    heard=["cinder"],
    traps=[task_in_flight, building, never_launched, migrating, volume_moving],
)
def bdm_attachment_or_volume_missing(guest: Guest, cloud: Cloud, instance: Instance) -> Problems:
    """nova's block device mapping names a volume or attachment that cinder does not have.

    cinder may delete the volume, or attach it to another server, while this server writes to it.
    Since 2023.2 (28.0.0) every reboot through nova looks for such mappings and destroys the row
    whose attachment is missing. If that volume is the root disk, the next start has no root.

    Authority: cinder, for whether the volume and the attachment exist.

    Traps: With a tenant's credentials, volumes of other projects return 404. Mappings from before
    Queens have no attachment. The attachment of a shelved server is only reserved. If another row
    of the same volume has the attachment, only this row is wrong (bdm-record-bad).

    Next: Check whether the volume exists, and compare nova's mapping with cinder's attachments:

        openstack volume show VOLUME
        nova-manage volume_attachment show UUID VOLUME
        cinder --os-volume-api-version 3.27 attachment-list --all-tenants --volume-id VOLUME

    If cinder does not have the volume, no command of nova can detach it. Check whether the storage
    still has the volume's data before anything else.

    If the volume exists and belongs to this server, make a new attachment (Xena and later) on the
    server's host. The server is off meanwhile:

        openstack server stop UUID
        nova-manage volume_attachment get_connector --json > connector.json
        nova-manage volume_attachment refresh UUID VOLUME connector.json
        openstack server start UUID

    It worked if nova's attachment_id is an attachment in cinder's list:

        nova-manage volume_attachment show UUID VOLUME
        cinder --os-volume-api-version 3.27 attachment-list --all-tenants --volume-id VOLUME

    Not yet: Do not run `openstack server reboot`, hard or soft: since 2023.2 it destroys the
    mapping.

    Source: nova compute/manager.py `_delete_dangling_bdms` (bug 2019078); sapcc/openstack-nannies
    nova-consistency.py.
    """
    if instance.deleted:
        return
    cinder = guest.storage.volumes
    for mapping in _volumes_of(instance):
        if is_surplus(guest, instance, mapping):
            continue  # bdm-record-bad reports it, and the volume is attached all the same
        named, attached = mapping.volume_id or "", mapping.attachment_id
        row = says(mapping, volume_id=named, attachment_id=attached)
        volume, title = cinder.volume(named), cinder.title_of(named)
        its = f"{guest.title} has {title} in nova, but"
        if volume is None:
            none = hears(cinder.absent[named], "cinder", volume=None)
            yield problem(f"{its} cinder has no such volume", row, none, VOLUME=named)
            continue
        attachment = cinder.attachment(attached) if attached else None
        short = brief(attached or "")
        if attached and attachment is None:
            none = hears(cinder.absent[attached], "cinder", attachment=None)
            headline = f"{its} cinder has no attachment {short}"
            yield problem(headline, row, none, VOLUME=named)
        elif attachment is not None and attachment.status in GONE:
            over = says(attachment, id=attached, status=attachment.status)
            headline = f"{its} its attachment {short} is {attachment.status} in cinder"
            yield problem(headline, row, over, VOLUME=named)
        elif attachment is not None and (
            attachment.instance != guest.uuid or attachment.volume_id != named
        ):
            other = says(
                attachment,
                id=attached,
                instance=attachment.instance,
                volume_id=attachment.volume_id,
            )
            owner = attachment.instance
            whose = cloud.title_of(owner) if owner else "no server"
            if owner == guest.uuid:
                whose = cinder.title_of(attachment.volume_id)
            headline = f"{its} cinder's attachment {short} belongs to {whose}"
            yield problem(headline, row, other, VOLUME=named)
        elif volume.status == "available" and not guest.storage.plugged(named):
            free = says(volume, id=named, status=volume.status)
            yield problem(f"{its} cinder lists it as available", row, free, VOLUME=named)


@check(Severity.ERROR, heard=["cinder"], traps=[task_in_flight, building, migrating, volume_moving])
def cinder_attachment_without_bdm(guest: Guest, instance: Instance) -> Problems:
    """cinder has an attachment to the server that nova has no block device mapping for.

    An attach or detach that failed half way leaves such an attachment. The volume stays in use, and
    no other server can have it. Since 2023.2 a reboot through nova deletes such attachments.

    Authority: The nova database, for which volumes the server should have; libvirt and the kernel,
    for whether the guest has the volume open all the same.

    Traps: Attaching and detaching. A live migration has two attachments. Some attachments do not
    belong to servers.

    Next: Check on the attachment's host whether the guest has the volume, or a process has it open
    (as a file with the volume's id in its name, or as a block device):

        virsh domblklist NAME
        ls -l /proc/*/fd | grep -e VOLUME -e /dev/dm- -e /dev/sd

    If neither the guest nor a process has it, delete the attachment, which frees the volume for
    other servers:

        cinder --os-volume-api-version 3.27 attachment-delete ATTACHMENT

    If the guest has the volume by the attachment that nova names, delete only this other one, which
    changes nothing for the guest:

        cinder --os-volume-api-version 3.27 attachment-delete SECOND_ATTACHMENT

    It worked if cinder no longer lists the attachment:

        cinder --os-volume-api-version 3.27 attachment-list --all-tenants --volume-id VOLUME

    Not yet: Do not run `cinder reset-state` or `openstack volume delete` while a guest has the
    volume open. Do not delete the attachment that nova names.

    Source: nova bugs 2048837, 2088066, 2019078; cinder `attachment_deletion_allowed`.
    """
    if instance.deleted:
        return
    for attachment in guest.storage.volumes.by_server.get(guest.uuid, ()):
        if attachment.status in GONE:
            continue
        same = [row for row in instance.mappings if row.volume_id == attachment.volume_id]
        # A row from before Queens names no attachment, so it matches any attachment of its volume.
        if any(row.attachment_id in (None, attachment.id) for row in same):
            continue
        rows = [says(row, volume_id=row.volume_id, attachment_id=row.attachment_id) for row in same]
        title = guest.storage.volumes.title_of(attachment.volume_id)
        has = "has it with another attachment" if same else "has no block device mapping for it"
        preposition = "to" if attachment.status == "attached" else "for"
        yield problem(
            f"cinder has {title} {attachment.status} {preposition} {guest.title}, but nova {has}",
            says(
                attachment,
                id=attachment.id,
                status=attachment.status,
                instance=attachment.instance,
                volume_id=attachment.volume_id,
            ),
            *(rows or [_no_mapping(guest, instance)]),
            VOLUME=attachment.volume_id,
            **_to_delete(guest, attachment, same),
        )
    guest.storage.volumes.require_all()


def _to_delete(
    guest: Guest, attachment: Attachment, rows: Sequence[BlockDeviceMapping]
) -> Mapping[str, Any]:
    """Return the placeholders for the attachment to delete.

    If cinder has nova's own attachment of the volume, too, the guest uses the volume by that one,
    and a second one that was only reserved carries nothing.
    """
    cinder = guest.storage.volumes
    used = [cinder.attachments.get(row.attachment_id or "") for row in rows]
    is_second = attachment.status == "reserved" and any(
        one is not None and one.status == "attached" and one.instance == guest.uuid for one in used
    )
    if is_second:
        return {"ATTACHMENT": "", "SECOND_ATTACHMENT": attachment.id}
    return {"ATTACHMENT": attachment.id, "SECOND_ATTACHMENT": ""}


@check(
    Severity.ERROR,
    traps=[
        *(task_in_flight, building, never_launched, migrating, rescued),
        *(volume_moving, volume_just_attached),
    ],
)
def bdm_not_in_guest(guest: Guest, instance: Instance, domain: Domain) -> Problems:
    """The running guest lacks a volume that nova has a mapping for.

    Either an attach failed after nova had recorded it, or only the guest completed a detach.

    Authority: libvirt, for which disks the guest has.

    Traps: Attaching and detaching. A rescued server runs without its other disks. A guest that is
    off gets its disks at its next start.

    Next: Compare the guest's disks with the server's volumes:

        virsh domblklist --details NAME
        openstack server volume list UUID

    Then detach the volume through the API, which takes nothing from the guest, and attach it again:

        openstack server remove volume UUID VOLUME
        openstack server add volume UUID VOLUME

    It worked if the guest's disks include the volume:

        virsh domblklist --details NAME

    Not yet: Do not run `virsh attach-disk`: nova would not know about the disk. Do not reboot the
    server before bdm-attachment-or-volume-missing is quiet.

    Source: nova bugs 1889108, 1899835.
    """
    if instance.deleted or domain.id is None or not guest.is_here:
        return
    for mapping in _volumes_of(instance):
        if not any(is_disk_of(mapping, disk) for disk in domain.disks):
            targets = ", ".join(disk.target or "?" for disk in domain.disks)
            title = guest.storage.volumes.title_of(mapping.volume_id or "")
            yield problem(
                f"nova has {title} attached to {guest.title} as {mapping.device_name or 'a disk'}, "
                f"but the guest has only {targets or 'no disk'}",
                says(mapping, volume_id=mapping.volume_id, device_name=mapping.device_name),
                says(domain, disks=targets),
                VOLUME=mapping.volume_id,
            )


@check(
    Severity.ERROR,
    traps=[task_in_flight, building, never_launched, migrating, volume_moving],
)
def guest_volume_not_in_bdm(guest: Guest, instance: Instance, domain: Domain) -> Problems:
    """The guest runs with a disk that nova has no block device mapping for.

    Either the guest never finished a detach, or the disk was attached outside nova. cinder may
    attach the volume to another server, and the next hard reboot drops the disk without asking. A
    disk that is not a volume (a warning) is lost at that reboot, too.

    Authority: libvirt, for which disks the guest has.

    Traps: Detaching. The disks that nova itself keeps for the server have no volume.

    Next: List the guest's disks, and check inside the guest whether the disk is mounted:

        virsh domblklist --details NAME

    If the disk is a volume, check which server cinder has it attached to:

        openstack volume show VOLUME -c status -c attachments

    Once the guest no longer uses the disk, detach it, which takes the disk away from the running
    guest:

        virsh detach-disk NAME TARGET --live

    It worked if the disk is no longer listed:

        virsh domblklist --details NAME

    Not yet: Do not run `openstack server reboot --hard` or `openstack volume delete`. Do not detach
    the disk while the guest uses it.

    Source: nova `_detach_with_retry`, bug 1889108; `_get_guest_storage_config`.
    """
    if instance.deleted or domain.id is None:
        return
    for disk in domain.disks:
        owner = disk_owner(disk.source or "")
        if is_own(guest.uuid, domain, disk) or owner is not None or is_base(disk.source or ""):
            continue  # another server's disk and a base image are findings of their own
        if not any(is_disk_of(mapping, disk) for mapping in instance.mappings):
            volume = volume_of(disk)
            plugged = says(domain, disks=f"{disk.target} {disk.source}").and_so(volume=volume)
            severity = Severity.ERROR if volume else Severity.WARNING
            what = f"disk {disk.target} ({place(disk.source or '')})"
            if volume:
                what = f"{guest.storage.volumes.title_of(volume)} as {disk.target}"
            yield problem(
                f"{guest.title} runs with {what}, but nova has no block device mapping for it",
                plugged,
                _no_mapping(guest, instance),
                severity=severity,
                VOLUME=volume or "",
                TARGET=disk.target,
            )


@check(Severity.WARNING)
def bdm_alive_for_deleted_instance(cloud: Cloud) -> Problems:
    """A deleted server still has a volume.

    The deletion did not finish, or a row was deleted by hand. If cinder lists the attachment too
    (an error), no other server can use the volume.

    Authority: The nova database.

    Traps: A deletion in flight. Soft-deleted servers, which keep their volumes on purpose.

    Next: Check the volume, and that no QEMU process on any host has it open (as a file with the
    volume's id in its name, or as a block device):

        openstack volume show VOLUME
        ls -l /proc/*/fd | grep -e VOLUME -e /dev/dm- -e /dev/sd

    If no process has it open, and cinder lists an attachment to the deleted server, delete the
    attachment, which frees the volume for other servers:

        cinder --os-volume-api-version 3.27 attachment-delete ATTACHMENT

    It worked if the volume is available:

        openstack volume show VOLUME -c status -c attachments

    Not yet: Do not run `nova-manage db archive_deleted_rows` or purge: it removes the record of
    which server the volume belonged to.

    Source: sapcc/openstack-nannies nova-consistency.py.
    """
    for instance, mapping in cloud.storage.outlived:
        if just_deleted(instance):
            continue
        held = [
            attachment
            for attachment in cloud.storage.volumes.by_volume.get(mapping.volume_id or "", ())
            if attachment.instance == instance.uuid and attachment.status == "attached"
        ]
        title = cloud.storage.volumes.title_of(mapping.volume_id or "")
        when = f" (deleted at {instance.deleted_at[:16]})" if instance.deleted_at else ""
        yield problem(
            f"V{title[1:]} is still attached to the deleted server {cloud.title_of(instance.uuid)}"
            f" in {'nova and cinder' if held else 'nova'}{when}",
            says(instance, uuid=instance.uuid, deleted_at=instance.deleted_at),
            says(mapping, volume_id=mapping.volume_id, device_name=mapping.device_name),
            *(says(one, id=one.id, status=one.status, instance=one.instance) for one in held),
            severity=Severity.ERROR if held else Severity.WARNING,
            VOLUME=mapping.volume_id,
            ATTACHMENT=held[0].id if held else "",
        )


@check(
    Severity.ERROR,
    heard=["cinder"],
    traps=[task_in_flight, building, migrating, resizing, volume_moving],
)
def attachment_host_mismatch(guest: Guest, instance: Instance) -> Problems:
    """cinder's attachment names another host than the one that the server is on.

    A live migration or an evacuation failed half way. The storage exports volumes to hosts by name,
    so the next start fails on this host, and the other host can still reach the volume. Where every
    host reaches every volume (rbd, NFS: a warning), only cinder's record is wrong.

    Authority: The nova database, for the host that the server is on.

    Traps: A migration has both hosts. One side may record a host's fully qualified name and the
    other its short name. Ironic and VMware use host names of their own for attachments.

    Next: Compare the two hosts:

        openstack volume show VOLUME -c attachments
        openstack server show UUID -c OS-EXT-SRV-ATTR:host

    Then make the attachment again, on the host that nova has the server on (Xena and later). The
    server is off meanwhile:

        openstack server stop UUID
        nova-manage volume_attachment get_connector --json > connector.json
        nova-manage volume_attachment refresh UUID VOLUME connector.json
        openstack server start UUID

    It worked if the attachment names that host:

        openstack volume show VOLUME -c attachments

    Not yet: Do not run `openstack server reboot --hard`. Do not evacuate or migrate the server.

    Source: nova bugs 2012365, 1939545, 1899835.
    """
    if instance.deleted or instance.host is None:
        return
    for mapping in _volumes_of(instance):
        attachment = guest.storage.volumes.attachments.get(mapping.attachment_id or "")
        if attachment is None or attachment.status != "attached" or attachment.host is None:
            continue
        if not same_host(attachment.host, instance.host):
            if not _is_libvirts(guest, instance.host):
                return
            connection = mapping.connection
            shared = connection is not None and connection.kind in SHARED
            volume = attachment.volume_id
            title = guest.storage.volumes.title_of(volume)
            yield problem(
                f"cinder has {guest.title}'s {title} attached to host {attachment.host}, but nova "
                f"has {guest.title} on {instance.host}",
                says(instance, host=instance.host),
                says(attachment, id=attachment.id, volume_id=volume, host=attachment.host),
                severity=Severity.WARNING if shared else Severity.ERROR,
                VOLUME=volume,
            )
    guest.storage.volumes.require_all()


def _is_libvirts(guest: Guest, host: str) -> bool:
    """True if nova drives this host's guests through libvirt.

    Other hypervisors use other host names in attachments. Raises `UnheardError`.
    """
    if guest.host is not None and guest.is_here:
        return True
    types = {node.hypervisor_type for node in guest.records.nodes_of(host)}
    return bool(types) and types <= LIBVIRTS


def _volumes_of(instance: Instance) -> Iterator[BlockDeviceMapping]:
    """Yield the live mappings that are volumes and name one."""
    for mapping in instance.mappings:
        if mapping.is_volume and mapping.volume_id is not None:
            yield mapping


def _no_mapping(guest: Guest, instance: Instance) -> Evidence:
    """Evidence that the nova database was read and has no such mapping for the instance."""
    return hears(instance.said["mappings"], "nova-db", guest.uuid, block_device_mapping=None)
