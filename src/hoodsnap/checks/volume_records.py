"""Records of a volume: cinder's, nova's, and the definition of the guest's disk."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from hoodsnap.agreement import Thing, Told, disagreements
from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.traps import (
    building,
    migrating,
    never_launched,
    rescued,
    resizing,
    task_in_flight,
    volume_just_attached,
    volume_moving,
)
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.api.server import Server
from hoodsnap.facts.api.volume import Attachment, Volume
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.cloud.volume_owners import is_disk_of
from hoodsnap.facts.database.block_device_mapping import BlockDeviceMapping, Connection
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.tables import plain_name
from hoodsnap.facts.domain.disk import Disk
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import UnheardError, known
from hoodsnap.facts.host.device import Device, Devices

ROW = "nova's block device mapping"
INFO = "nova's connection_info"
LISTED = "the volume's own list of attachments"
ATTACHED = "cinder's attachment"


def _info(name: str) -> Callable[[BlockDeviceMapping], object]:
    """Return a reader of a field of the connection that nova stored."""

    def read(mapping: BlockDeviceMapping) -> object:
        connection = mapping.connection
        return getattr(connection, name) if connection is not None else None

    return read


_OF_SNAPSHOT = re.compile(r"\.(?:tmp-snap-)?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
"""End of the name of a volume's file after a snapshot: the snapshot's id."""


def _file_name(name: str | None) -> str | None:
    """Return the name of a volume on the backend, without the snapshot that its file was made for.

    After a snapshot of a volume in a file, the guest writes to a new file beside the volume's own.
    nova and cinder may have stored either name.
    """
    return _OF_SNAPSHOT.sub("", name) if name is not None else None


def _file_format(connection: Connection) -> str | None:
    """Return the volume's format; None for the file of a snapshot, which is qcow2 in any case."""
    name = connection.name
    return connection.format if name is None or not _OF_SNAPSHOT.search(name) else None


def _name_in_info(mapping: BlockDeviceMapping) -> str | None:
    connection = mapping.connection
    return _file_name(connection.name) if connection is not None else None


def _format_in_info(mapping: BlockDeviceMapping) -> str | None:
    connection = mapping.connection
    return _file_format(connection) if connection is not None else None


def _attached(name: str) -> Callable[[Attachment], object]:
    """Return a reader of a field of the connection that cinder stored."""
    return lambda attachment: getattr(attachment.connection, name)


DEVICE = "device name"
"""What nova and cinder tell about the device, which decides nothing but the guest's next start."""

ALWAYS = (
    Thing(
        "server",
        (
            Told("mapping", ROW, "instance_uuid", lambda row: row.instance_uuid),
            Told("mapping", INFO, "connection", _info("instance")),
            Told("attachment", LISTED, "server", lambda one: one.server),
        ),
    ),
    Thing(
        DEVICE,
        (
            Told("mapping", ROW, "device_name", lambda row: row.device_name),
            Told("attachment", LISTED, "device", lambda one: one.device),
        ),
    ),
    Thing(
        "access mode",
        (
            Told("attachment", ATTACHED, "mode", lambda one: one.mode),
            Told("attachment", "its connection_info", "connection", _attached("access_mode")),
            Told("mapping", INFO, "connection", _info("access_mode")),
        ),
    ),
)
"""What nova and cinder tell about any volume."""

UNLESS_MOVED = (
    Thing(
        "id",
        (
            Told("mapping", ROW, "volume_id", lambda row: row.volume_id),
            Told("mapping", INFO, "connection", _info("volume_id")),
            Told("attachment", LISTED, "listed_volume", lambda one: one.listed_volume),
        ),
    ),
    Thing(
        "name on the backend",
        (
            Told("attachment", ATTACHED, "connection", lambda one: _file_name(one.connection.name)),
            Told("mapping", INFO, "connection", _name_in_info),
        ),
    ),
    Thing(
        "format",
        (
            Told("attachment", ATTACHED, "connection", lambda one: _file_format(one.connection)),
            Told("mapping", INFO, "connection", _format_in_info),
        ),
    ),
    Thing(
        "encryption",
        (
            Told("volume", "cinder", "encrypted", lambda volume: volume.encrypted),
            Told("attachment", ATTACHED, "connection", _attached("encrypted")),
            Told("mapping", INFO, "connection", _info("encrypted")),
        ),
    ),
)
"""What they tell about a volume that cinder did not move to another backend."""

OF_OWNER = (
    Thing(
        "project",
        (
            Told("instance", "nova", "raw", lambda row: row.raw.get("project_id") or None),
            Told("volume", "cinder", "project", lambda volume: volume.project),
        ),
    ),
    Thing(
        "image",
        (
            Told("mapping", ROW, "image", lambda row: row.image),
            Told("volume", "cinder", "image", lambda volume: volume.image.get("image_id")),
        ),
    ),
)
"""What may change by a decision: an owner hands a volume over, a rebuild writes another image."""

OF_SERVER = (
    Thing(
        "list of volumes",
        (
            Told("instance", "nova's database", "mappings", lambda row: _ids(row)),
            Told("server", "nova's API", "volumes_attached", lambda one: _listed(one)),
        ),
    ),
    Thing(
        "list of volumes that are deleted with it",
        (
            Told("instance", "nova's database", "mappings", lambda row: _ids_deleted(row)),
            Told("server", "nova's API", "volumes_attached", lambda one: _listed_deleted(one)),
        ),
    ),
)


def _ids(instance: Instance) -> str:
    return _sorted(row.volume_id for row in instance.mappings if row.volume_id)


def _ids_deleted(instance: Instance) -> str:
    own = (row for row in instance.mappings if row.volume_id)
    return _sorted(row.volume_id for row in own if row.raw.get("delete_on_termination"))


def _listed_deleted(server: Server) -> str | None:
    """Return the volumes; None from a microversion before 2.3, which does not tell."""
    listed = server.raw.get("os-extended-volumes:volumes_attached")
    volumes = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    if not all(isinstance(one.get("delete_on_termination"), bool) for one in volumes):
        return None
    return _sorted(one.get("id") for one in volumes if one["delete_on_termination"])


def _sorted(ids: Iterable[object]) -> str:
    return ", ".join(sorted({str(uuid).lower() for uuid in ids})) or "empty"


def _listed(server: Server) -> str:
    return _sorted(server.volumes_attached)


@check(
    Severity.WARNING,
    heard=["cinder"],
    traps=[
        *(task_in_flight, building, never_launched, migrating, resizing),
        *(volume_moving, volume_just_attached),
    ],
)
def volume_record_differs(guest: Guest, instance: Instance, server: Server | None) -> Problems:
    """nova's record of an attached volume differs from cinder's.

    nova stores what cinder returned when the volume was attached, and uses it at each start of the
    server. If the two records differ, the next start uses another file, another mode or another
    device than cinder expects. A volume of another project than the server's is a note: an
    administrator may have attached it.

    Authority: cinder, for the volume and how it is reached; nova, for the server and the device.

    Traps: A volume that cinder moved to another backend has another id and name in its connection.
    A snapshot of a volume in a file makes a new file, and only one of the records may name it.
    cinder knows the device only if nova reported it. Attaching, detaching and moving.

    Next: Compare the records:

        openstack volume show VOLUME
        nova-manage volume_attachment show UUID VOLUME
        cinder --os-volume-api-version 3.27 attachment-list --all-tenants --volume-id VOLUME
        openstack server volume list UUID

    If nova's connection_info is wrong, write it again (Xena and later), on the server's host. The
    server is off meanwhile:

        openstack server stop RECONNECTED
        nova-manage volume_attachment get_connector --json > connector.json
        nova-manage volume_attachment refresh RECONNECTED VOLUME connector.json
        openstack server start RECONNECTED

    If nova's device name is not the target that the guest's disk has, correct the name in the
    cell's database, after a backup of it. `nova-manage volume_attachment refresh` keeps the name:

        virsh domblklist --details NAME
        UPDATE DATABASE.block_device_mapping SET device_name = '/dev/TARGET' WHERE id = MISNAMED

    It worked if nova's record is cinder's:

        nova-manage volume_attachment show UUID VOLUME
        SELECT device_name FROM DATABASE.block_device_mapping WHERE id = MISNAMED

    Not yet: Do not run `openstack server reboot --hard`: it starts the guest with nova's record. Do
    not edit connection_info by hand.

    Source: nova virt/block_device.py `_volume_attach`, volume/cinder.py
    `_translate_attachment_ref`; cinder api/v3/views/attachments.py.
    """
    if instance.deleted:
        return
    cinder = guest.storage.volumes
    reason: UnheardError | None = None
    for mapping in instance.mappings:
        if not mapping.is_volume or mapping.volume_id is None:
            continue
        volume = cinder.by_id.get(mapping.volume_id)
        attachment = cinder.attachments.get(mapping.attachment_id or "")
        title = f"{guest.title}'s {cinder.title_of(mapping.volume_id)}"
        try:
            yield from _told_apart(guest, title, mapping, volume, attachment)
            yield from _of_owner(title, instance, mapping, volume)
        except UnheardError as unheard:
            reason = reason or unheard
    for found in disagreements(guest.title, OF_SERVER, instance=instance, server=server):
        yield replace(found, names={"VOLUME": "", "RECONNECTED": "", "MISNAMED": ""})
    if reason is not None:
        raise reason


def _told_apart(
    guest: Guest,
    title: str,
    mapping: BlockDeviceMapping,
    volume: Volume | None,
    attachment: Attachment | None,
) -> Iterator[Problem]:
    is_moved = volume is None or volume.name_id is not None
    things = ALWAYS if is_moved else (*ALWAYS, *UNLESS_MOVED)
    facts = {"mapping": mapping, "volume": volume, "attachment": attachment}
    for thing in things:
        is_name = thing.name == DEVICE
        names = {
            "VOLUME": mapping.volume_id or "",
            "RECONNECTED": "" if is_name else guest.uuid,
            **(_misnamed(guest, mapping) if is_name else {"MISNAMED": ""}),
        }
        for found in disagreements(title, (thing,), **facts):
            yield replace(found, names=names)


def _misnamed(guest: Guest, mapping: BlockDeviceMapping) -> dict[str, str]:
    """Return the placeholders of nova's device name; none to correct if the guest's disk has it.

    They stay open if the guest's disks are unknown.
    """
    named = {"MISNAMED": mapping.id, "DATABASE": plain_name(mapping.database)}
    row = {name: str(value) for name, value in named.items() if value is not None}
    domain = guest.domain
    disks = known(lambda: domain.disks) if domain is not None else None
    disk = next((one for one in disks or () if is_disk_of(mapping, one)), None)
    if disk is None or disk.target is None:
        return row
    has_it = posixpath.basename(mapping.device_name or "") == disk.target
    return {"MISNAMED": ""} if has_it else {**row, "TARGET": disk.target}


def _of_owner(
    title: str, instance: Instance, mapping: BlockDeviceMapping, volume: Volume | None
) -> Iterator[Problem]:
    actions = instance.rows("instance_actions")
    is_rebuilt = any(row.cells.get("action") == "rebuild" for row in actions)
    things = OF_OWNER[:1] if is_rebuilt else OF_OWNER
    facts = {"instance": instance, "mapping": mapping, "volume": volume}
    for found in disagreements(title, things, **facts):
        names = {"VOLUME": mapping.volume_id or "", "RECONNECTED": "", "MISNAMED": ""}
        yield replace(found, names=names, severity=Severity.NOTE)


@check(
    Severity.WARNING,
    traps=[task_in_flight, building, never_launched, migrating, rescued, volume_moving],
)
def volume_disk_differs(guest: Guest, instance: Instance, domain: Domain) -> Problems:
    """A guest uses a volume in another way than recorded.

    nova writes the mode of a volume into the guest's disk: read only, shareable by several guests,
    encrypted, in which folder, as which device. A guest that may write to a volume that is recorded
    as read only, and a guest that writes plain text to a volume that cinder records as encrypted,
    are errors.

    Authority: cinder, for how the volume should be used; libvirt, for how the guest uses it.

    Traps: A guest that is off. The disk of a volume with snapshots in files is a file beside the
    volume's own. Volumes whose encryption the host does have a plain disk in libvirt.

    Next: Compare the disk with the volume and nova's record of it:

        virsh dumpxml NAME
        openstack volume show VOLUME
        nova-manage volume_attachment show UUID VOLUME

    Once the guest does not use the disk, detach the volume and attach it again, which defines the
    disk from the records:

        openstack server remove volume UUID REATTACHED
        openstack server add volume UUID REATTACHED

    If only nova's device name differs from the target of the guest's disk, correct the name in the
    cell's database, after a backup of it; no command of nova does it:

        UPDATE DATABASE.block_device_mapping SET device_name = '/dev/TARGET' WHERE id = MISNAMED

    It worked if the disk in the domain's XML is as recorded:

        virsh dumpxml NAME

    Not yet: Do not attach a volume to a second server before its disk is shareable here. Do not
    detach a boot volume.

    Source: nova virt/libvirt/volume/volume.py `get_config`; nova `_attach_encryptor`.
    """
    if instance.deleted or domain.id is None or not guest.is_here:
        return
    reason: UnheardError | None = None
    for mapping in instance.mappings:
        disk = next((one for one in domain.disks if is_disk_of(mapping, one)), None)
        if disk is None or mapping.volume_id is None:
            continue  # bdm-not-in-guest reports it
        try:
            yield from _used_otherwise(guest, mapping, domain, disk)
        except UnheardError as unheard:
            reason = reason or unheard
    if reason is not None:
        raise reason


def _used_otherwise(
    guest: Guest, mapping: BlockDeviceMapping, domain: Domain, disk: Disk
) -> Iterator[Problem]:
    volumes = guest.storage.volumes
    volume = volumes.by_id.get(mapping.volume_id or "")
    its = f"{guest.title}'s {volumes.title_of(mapping.volume_id or '')}, disk {disk.target},"
    plugged = says(domain, disks=f"{disk.target} {disk.source}")
    row = says(mapping, volume_id=mapping.volume_id, device_name=mapping.device_name)
    names = {"VOLUME": mapping.volume_id, "REATTACHED": mapping.volume_id, "MISNAMED": ""}
    device = posixpath.basename(mapping.device_name or "")
    if device and disk.target and device != disk.target:
        words = f"{its} is {mapping.device_name} in nova"
        misnamed = _misnamed(guest, mapping) | {"REATTACHED": "", "VOLUME": mapping.volume_id or ""}
        yield problem(words, plugged, row, severity=Severity.NOTE, **misnamed)
    connection = mapping.connection
    if connection is not None:
        yield from _not_as_connected(its, connection, disk, plugged, row, names)
    if volume is not None:
        yield from _not_as_in_cinder(guest, its, volume, disk, plugged, names)


def _not_as_connected(
    its: str,
    connection: Connection,
    disk: Disk,
    plugged: Evidence,
    row: Evidence,
    names: dict[str, str | None],
) -> Iterator[Problem]:
    mode = connection.access_mode
    if mode in ("ro", "rw") and disk.read_only != (mode == "ro"):
        can = "can't be written" if disk.read_only else "can be written"
        yield problem(
            f"{its} {can}, but its access mode is {mode}",
            plugged.and_so(read_only=disk.read_only),
            row.and_so(access_mode=mode),
            severity=Severity.WARNING if disk.read_only else Severity.ERROR,
            **names,
        )
    path, source = connection.device_path, disk.source
    if disk.image.type != "file" or not path or not source:
        return
    if posixpath.dirname(path) != posixpath.dirname(source):
        yield problem(
            f"{its} is {source}, but nova's connection_info has it as {path}",
            plugged,
            row.and_so(device_path=path),
            severity=None,
            **names,
        )
    elif (
        connection.name
        and posixpath.basename(source) == connection.name
        and _file_name(connection.name) != _file_name(posixpath.basename(path))
    ):
        yield problem(
            f"{its} is file {connection.name}, but nova's device_path is {path}",
            plugged,
            row.and_so(device_path=path),
            severity=None,
            **names,
        )


def _not_as_in_cinder(
    guest: Guest,
    its: str,
    volume: Volume,
    disk: Disk,
    plugged: Evidence,
    names: dict[str, str | None],
) -> Iterator[Problem]:
    shared = known(lambda: volume.multiattach)
    if shared is not None and shared != disk.shareable:
        words = "is not shareable" if shared else "is shareable"
        yield problem(
            f"{its} {words}, but the volume is {'' if shared else 'not '}multiattach",
            plugged.and_so(shareable=disk.shareable),
            says(volume, id=volume.id, multiattach=shared),
            severity=None,
            **names,
        )
    encrypted = known(lambda: volume.encrypted)
    if encrypted is None or not disk.source:
        return
    shown = says(volume, id=volume.id, encrypted=encrypted)
    if encrypted and not disk.keys and _is_plain(guest, disk):
        yield problem(
            f"{its} is written in plain text, but cinder has the volume as encrypted",
            plugged.and_so(encryption=None),
            shown,
            severity=Severity.ERROR,
            **names,
        )
    elif not encrypted and disk.keys:
        yield problem(
            f"{its} is encrypted, but cinder has the volume as not encrypted",
            plugged.and_so(keys=", ".join(disk.keys)),
            shown,
            severity=None,
            **names,
        )


def _is_plain(guest: Guest, disk: Disk) -> bool:
    """True if nothing below the disk encrypts it. Raises `UnheardError` if that is unknown."""
    if disk.image.type != "block":
        return True
    if guest.host is None or disk.source is None:
        raise UnheardError("the host's block devices were not collected")
    device = guest.host.devices.find(disk.source)
    if device is None:
        raise UnheardError("the volume's block device was not collected")
    devices = guest.host.devices
    # udev may link the path to the encrypted device again while QEMU has the decrypted one open.
    opened = known(lambda: guest.process.files if guest.process is not None else ()) or ()
    numbers = {file.rdev for file in opened}
    above = [one for one in devices.by_name.values() if one.number in numbers]
    stacks = [_stack(devices, device), *(_stack(devices, one) for one in above)]
    return not any(
        "crypt" in {devices.by_name[name].type for name in stack}
        for stack in stacks
        if device.kname in stack
    )


def _stack(devices: Devices, device: Device) -> frozenset[str]:
    """Return the kernel names of a device and of all devices below it."""
    stack, waiting = {device.kname}, [device.kname]
    while waiting:
        lower = devices.by_name.get(waiting.pop())
        for name in lower.parents if lower is not None else ():
            if name not in stack and name in devices.by_name:
                stack.add(name)
                waiting.append(name)
    return frozenset(stack)


@check(Severity.NOTE, traps=[task_in_flight, building, migrating])
def disk_cache_mode_differs(guest: Guest, host: Host, domain: Domain) -> Problems:
    """A guest's disk has another cache mode than nova.conf.

    The cache mode decides whether written data survives a crash of the host. nova writes it into
    the domain when a guest starts, so a guest gets a new mode at its next hard reboot. A running
    guest whose disk ignores flushes (`unsafe`, a warning) loses data if the host crashes.

    Authority: libvirt, for what the guest has now; nova.conf, for its next start.

    Traps: nova.conf that was changed after the guest started. A shareable disk always has the mode
    none. Without `disk_cachemodes`, nova uses none, or writeback on a file system without O_DIRECT.

    Next: Compare the disks with nova.conf:

        virsh dumpxml NAME | grep -e '<driver' -e '<source'
        grep disk_cachemodes /etc/nova/nova*.conf

    If nova.conf is right, nova-compute must have started after it was changed. Otherwise restart
    nova-compute, once no server of the host has a task; guests keep running:

        systemctl restart nova-compute

    Then the mode is applied at the next hard reboot, which restarts the guest:

        openstack server reboot --hard UUID

    It worked if the disks have that mode:

        virsh dumpxml NAME | grep -e '<driver' -e '<source'

    Not yet: Do not reboot a guest that another finding concerns.

    Source: nova virt/libvirt/driver.py `_set_cache_mode`, `disk_cachemode`; nova configuration
    reference, `disk_cachemodes`.
    """
    if domain.id is None or guest.record is None:
        return
    modes = _cache_modes(host.option("libvirt", "disk_cachemodes"))
    for disk in domain.disks:
        if disk.cache is None or disk.source is None or disk.device != "disk":
            continue
        configured = modes.get(disk.image.type)
        allowed = {"none"} if disk.shareable else {configured} if configured else _DEFAULTS
        if disk.cache in allowed:
            continue
        file = host.file_name_of("libvirt", "disk_cachemodes")
        told = f"{file} sets {configured or 'none'}"
        yield problem(
            f"{guest.title}'s disk {disk.target} has cache mode {disk.cache}, but {told}",
            says(domain, disks=f"{disk.target} {disk.source}").and_so(cache=disk.cache),
            *_of_conf(host),
            severity=Severity.WARNING if disk.cache == "unsafe" else None,
        )


_DEFAULTS = {"none", "writeback", "writethrough", "default"}
"""Modes that nova chooses by itself, by release, storage and file system."""


def _cache_modes(option: str) -> dict[str, str]:
    """Read `file=writeback,network=none`."""
    parts = (part.strip().partition("=") for part in option.strip("[]").split(","))
    return {kind.strip("'\" "): mode.strip("'\" ") for kind, _, mode in parts if mode}


def _of_conf(host: Host) -> Iterator[Evidence]:
    answer = host.bundle.last("host", "/etc/nova/nova.conf", host.name)
    if answer is not None:
        modes = host.option("libvirt", "disk_cachemodes") or None
        file = host.file_name_of("libvirt", "disk_cachemodes")
        yield hears(answer, file, "libvirt.disk_cachemodes", disk_cachemodes=modes)
