"""The storage behind volumes: cinder's services, the paths to a LUN, the shares with files."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from hoodsnap import phrase
from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.traps import building, in_a_container, migrating, task_in_flight
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.api.volume import Volume
from hoodsnap.facts.api.volume_service import VolumeService
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.cloud.volume_owners import volume_of
from hoodsnap.facts.database.block_device_mapping import BlockDeviceMapping
from hoodsnap.facts.domain.disk import Disk
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import UnheardError, known
from hoodsnap.facts.host.device import MAPS, Device, Map
from hoodsnap.phrase import counted, several

RETIRED = timedelta(days=7)
"""A service that was silent for longer was removed, if it serves no volume."""

TASKS = {
    "cinder-scheduler": "new volumes are not scheduled",
    "cinder-backup": "backups can't be made or restored",
}
"""Service without volumes → what does not work while it is down."""

NOT_RENAMED: Mapping[str, Any] = {"OLD_BACKEND": "", "NEW_BACKEND": "", "CINDER_CONF": ""}
"""Placeholders of the advice for a backend that has a service under its own name."""

DELETED = " (deleted)"
"""Ending of the name of a deleted file."""

WORKS = frozenset(["running", "live"])
"""States in lsblk of a device that works."""


@check(Severity.WARNING)
def volume_backend_down(cloud: Cloud) -> Problems:
    """A service of cinder is down, or its storage is.

    Guests keep the volumes that they have, because their data does not pass through cinder. But
    each attach, detach, extend, snapshot and delete of the backend's volumes waits for the service
    and leaves the volume in a status such as detaching. A server with such a volume can't be
    deleted or moved. If the driver reports that the storage itself is down (an error), the guests
    may lose their disks, too.

    Authority: cinder's own list of services.

    Traps: A service that served no volume and did not report for a week was removed. Of the
    services of a cluster, one is enough. A disabled or frozen backend (a note) is an
    administrator's decision.

    Next: Check cinder's services, and the log of the one that is down:

        openstack volume service list
        journalctl -u cinder-volume -u openstack-cinder-volume -n 50

    If the process does not run, start it on its host:

        systemctl start UNIT

    If the list has no service for the volumes' backend, the backend or its host was renamed, or it
    was removed from cinder.conf. Compare the storage of the services that are up with the volumes'
    storage:

        grep -n -E '^(.+]|host|enabled_b|volume_b|nfs_|rbd_pool)' CINDER_CONF

    If a service that is up has the same storage under another name, give the volumes its name, once
    for each pool. This changes only cinder's database:

        cinder-manage volume update_host --currenthost OLD_BACKEND --newhost NEW_BACKEND

    If no service has that storage, restore the backend in cinder.conf. Do not take the name of a
    service that serves other volumes.

    If a backend is disabled or frozen and should not be, ask who did it. The reason is in the list.

    It worked if each service that is needed is up:

        openstack volume service list

    Not yet: Do not detach, delete or migrate servers with volumes on this backend. Do not run
    `cinder reset-state`: the request may still wait in the message queue.

    Source: cinder `service_down_time`; cinder db `is_up`; cinder admin guide, "Manage volumes".
    """
    services = cloud.volume_services
    served = _served(cloud)
    for service in services:
        yield from _of_service(cloud, service, services, served.pop(_place(service), ()))
    if not any(service.binary == "cinder-scheduler" for service in services):
        yield from _without_scheduler(services)
    for place, volumes in served.items():
        if not any(service.cluster == place for service in services):
            yield from _without_service(cloud, place, volumes)


def _without_scheduler(services: tuple[VolumeService, ...]) -> Iterator[Problem]:
    if services:
        answer = next(iter(services[0].said.values()))
        yield problem(
            f"cinder lists {counted(len(services), 'service')}, but no cinder-scheduler: new "
            "volumes are not scheduled",
            hears(answer, "cinder", "services", scheduler=None),
            UNIT="cinder-scheduler",
            **NOT_RENAMED,
        )


def _served(cloud: Cloud) -> dict[str, tuple[Volume, ...]]:
    """Return `host@backend`, or a cluster → its volumes, as far as they were collected."""
    found: dict[str, list[Volume]] = {}
    for volume in cloud.storage.volumes.by_id.values():
        place = known(lambda volume=volume: volume.cluster or volume.backend)  # type: ignore[misc]
        if place:
            found.setdefault(place.partition("#")[0], []).append(volume)
    return {place: tuple(volumes) for place, volumes in found.items()}


def _place(service: VolumeService) -> str:
    return service.host if service.binary == "cinder-volume" else ""


def _of_service(
    cloud: Cloud,
    service: VolumeService,
    services: tuple[VolumeService, ...],
    volumes: tuple[Volume, ...],
) -> Iterator[Problem]:
    silent = service.asked - service.updated_at if service.updated_at is not None else None
    title = f"{service.binary} on {service.host}"
    reported = says(service, binary=service.binary, host=service.host, state=service.state)
    replaced = service.cluster is not None and any(
        other.cluster == service.cluster and other.state == "up" for other in services
    )
    names: dict[str, Any] = {"UNIT": service.binary, **NOT_RENAMED}
    if service.state != "up" and not replaced:
        if not volumes and silent is not None and silent > RETIRED:
            return
        since = f" for {phrase.lasting(silent)}" if silent is not None else ""
        yield problem(
            f"{title} has been {service.state or 'in an unknown state'}{since}: "
            f"{_means(cloud, service, volumes)}",
            reported.and_so(updated_at=str(service.updated_at)),
            *_some(volumes),
            severity=None,
            **names,
        )
    elif service.backend_state not in (None, "up"):
        yield problem(
            f"{title} reports that its storage is {service.backend_state}: "
            f"{_means(cloud, service, volumes)}",
            says(service, host=service.host, backend_state=service.backend_state),
            *_some(volumes),
            severity=Severity.ERROR if volumes else None,
            **names,
        )
    elif service.replication_status in ("failed-over", "failing-over", "error"):
        status = service.replication_status
        yield problem(
            f"{title} has replication status {status}: {_means(cloud, service, volumes)}",
            says(service, host=service.host, replication_status=status),
            *_some(volumes),
            UNIT="",
            **NOT_RENAMED,
        )
    elif service.status != "enabled" or service.frozen:
        word = "frozen" if service.frozen else service.status or "without a status"
        why = known(lambda: service.disabled_reason)
        yield problem(
            f"{title} is {word}{f' ({why})' if why else ''}: {_refuses(service)}",
            says(service, host=service.host, status=service.status, frozen=service.frozen),
            severity=Severity.NOTE,
            UNIT="",
            **NOT_RENAMED,
        )


def _without_service(cloud: Cloud, place: str, volumes: tuple[Volume, ...]) -> Iterator[Problem]:
    answer = next(iter(cloud.volume_services), None)
    if answer is None:
        return
    listed = hears(next(iter(answer.said.values())), "cinder", "services", service=None)
    yield problem(
        f"No service of cinder serves backend {place}: {_changes(cloud, volumes)}",
        *_some(volumes),
        listed.and_so(backend=place),
        UNIT="",
        **_renamed(cloud, place, volumes),
    )


def _renamed(cloud: Cloud, place: str, volumes: tuple[Volume, ...]) -> dict[str, Any]:
    """Return the placeholders for the old and the new name of a backend.

    The new one is known if one service that is up has a backend of the same name on another host.
    It is assumed to have the same pools.
    """
    old = volumes[0].backend or place
    _, _, pool = old.partition("#")
    twins = {
        service.host
        for service in cloud.volume_services
        if service.binary == "cinder-volume"
        and service.state == "up"
        and service.host.partition("@")[2] == place.partition("@")[2] != ""
    }
    new = f"{twins.pop()}#{pool}" if len(twins) == 1 and pool else None
    return {"OLD_BACKEND": old, "NEW_BACKEND": new, "CINDER_CONF": "/etc/cinder/cinder.conf"}


def _means(cloud: Cloud, service: VolumeService, volumes: tuple[Volume, ...]) -> str:
    if service.binary != "cinder-volume":
        return TASKS.get(service.binary, "its requests wait")
    return _changes(cloud, volumes)


def _changes(cloud: Cloud, volumes: tuple[Volume, ...]) -> str:
    """Return what does not work with these volumes, and whose they are."""
    if not volumes:
        return "it has no volume, and no new one can be made on it"
    owners: dict[str, None] = {}
    for volume in volumes:
        for row in cloud.storage.mapped(volume.id):
            owners[row.instance_uuid] = None
    of = f" of {cloud.titles_of(owners)}" if owners else ""
    return f"{counted(len(volumes), 'volume')}{of} can't be attached, detached or deleted"


def _refuses(service: VolumeService) -> str:
    if service.binary != "cinder-volume":
        return "it gets no new request"
    if service.frozen:
        return "no volume of it can be made, changed or deleted"
    return "no new volume is made on it; the others can be used"


def _some(volumes: tuple[Volume, ...]) -> list[Evidence]:
    return [says(volume, id=volume.id, backend=volume.backend) for volume in volumes[:3]]


@check(Severity.ERROR, traps=[in_a_container])
def volume_paths_lost(guest: Guest, host: Host, domain: Domain) -> Problems:
    """The host has lost paths to the storage of a guest's volume.

    With one path left (a warning) the guest notices nothing, and the next failure takes its disk.
    Without any path, each of the guest's reads and writes waits or fails: QEMU hangs (process state
    D) or pauses the guest, and can't be killed, so the server can't be stopped or deleted either.

    Authority: The kernel's device mapper and iSCSI, as multipath and iscsiadm show them.

    Traps: A path that fails while it is checked returns within a minute. A map with one path has no
    redundancy by design.

    Next: Check which paths failed and when, and whether the guest's process waits for the disk:

        multipath -ll
        iscsiadm -m session -P 3
        lsblk -S
        ps -o pid,stat,wchan:32,args -p PID
        journalctl -k -n 200

    Then check what the failed paths share: a host adapter, a switch, a storage controller, or the
    LUN itself, which the storage may have removed from this host. Paths that work again are
    reinstated by multipathd within seconds, and a guest whose disk waited continues by itself.

    If all paths are lost for good, the guest's process ends only after the map fails its queued
    requests. The guest's unwritten data is lost then:

        multipathd disablequeueing map MAP

    It worked if all paths are active, or the process has ended:

        multipath -ll
        ps -o pid,stat,wchan:32,args -p PID

    Not yet: Do not run `multipath -F` or `iscsiadm -m node -u`: they affect the volumes of other
    guests. Do not run `openstack server reboot --hard` while no path works. Do not remove the SCSI
    devices of paths that may return.

    Source: multipath.conf(5) `no_path_retry`, `queue_if_no_path`; os-brick; nova bug 2004555.
    """
    if domain.id is None:
        return
    for disk in domain.disks:
        if disk.image.type != "block" or disk.source is None or volume_of(disk) is None:
            continue
        device = host.devices.find(disk.source)
        if device is not None:
            yield from _lost_paths(guest, host, domain, disk, device)


def _lost_paths(
    guest: Guest, host: Host, domain: Domain, disk: Disk, device: Device
) -> Iterator[Problem]:
    bottom = host.devices.below(device)
    map_ = _map_of(host, device, bottom)
    paths = _paths(host, bottom, map_)
    lost = sorted(name for name, why in paths.items() if why)
    if not lost:
        return
    volumes = guest.storage.volumes
    its = f"{guest.title}'s {volumes.title_of(volume_of(disk) or '')}, disk {disk.target},"
    left = len(paths) - len(lost)
    whole = f"has lost all {len(paths)} paths" if len(paths) > 1 else "has lost its only path"
    few = f"has {left} of {len(paths)} paths left"
    broken = several(f"{name} ({paths[name]})" for name in lost)
    shown = [
        says(host.devices.by_name[name], kname=name, state=host.devices.by_name[name].state)
        for name in lost[:4]
        if name in host.devices.by_name
    ]
    told = _told(host, map_)
    yield problem(
        f"{its} {few if left else whole}: {broken}",
        says(domain, disks=f"{disk.target} {disk.source}"),
        *(told.and_so(lost=", ".join(lost)) for told in ([told] if told is not None else [])),
        *shown,
        severity=Severity.WARNING if left else Severity.ERROR,
        MAP=map_.name if map_ is not None and not left else "",
        VOLUME=volume_of(disk),
    )


def _map_of(host: Host, device: Device, bottom: frozenset[str]) -> Map | None:
    """Return the multipath map in the device's stack; None without one, or if unknown."""
    maps = known(lambda: host.devices.maps) or ()
    for one in maps:
        paths = {name for name, _ in one.paths}
        if one.kname == device.kname or (paths & bottom and paths):
            return one
    return None


def _told(host: Host, map_: Map | None) -> Evidence | None:
    if map_ is None:
        return None
    for query in (MAPS, "multipath -ll"):
        answer = host.devices.said.get(query)
        if answer is not None and answer.error is None:
            return hears(answer, "multipath", map_.name, map=map_.name, wwid=map_.wwid)
    return None


def _paths(host: Host, bottom: frozenset[str], map_: Map | None) -> Mapping[str, str]:
    """Return kernel name → why the path does not work; empty text if it works."""
    found = dict.fromkeys(bottom, "")
    for name, works in map_.paths if map_ is not None else ():
        found[name] = "" if works else "failed"
    for session in known(lambda: host.devices.sessions) or ():
        for _, name in session.disks:
            if name in found and session.state not in (None, "LOGGED_IN"):
                found[name] = found[name] or f"iSCSI session {session.state}"
    for name in found:
        device = host.devices.by_name.get(name)
        state = known(lambda device=device: device.state) if device is not None else None  # type: ignore[misc]
        if state is not None and state not in WORKS:
            found[name] = found[name] or state
    return found


@check(Severity.ERROR, traps=[task_in_flight, building, migrating, in_a_container])
def volume_share_differs(guest: Guest, host: Host, domain: Domain) -> Problems:
    """A volume's file is not on the share that nova recorded for it.

    cinder's NFS volumes are files on a share that nova-compute mounts. If the share is not mounted,
    a guest that runs keeps its open file, but its next start fails, or creates an empty file on the
    host's own disk. If another share is mounted there, the next start takes another file.

    Authority: The kernel's list of mounts.

    Traps: A bind mount of a share shows the source of the file system below it. A guest that is off
    needs no mount.

    Next: Check what is mounted, and which file the guest has open:

        findmnt FOLDER
        virsh domblklist --details NAME
        ls -l /proc/PID/fd

    If nothing is mounted, mount the share again. A running guest keeps the file that it has:

        mount -t nfs EXPORT FOLDER

    If another file system is mounted over the share, find out what it is for, and unmount it. The
    share below it appears again:

        umount COVERED

    It worked if the share is mounted, and has the volume's file:

        findmnt SHARE_FOLDER
        ls -l SHARE_FOLDER

    If the share is mounted, and only the records name another one, leave the guest running: its
    file is there. Find out which share cinder uses, in its own record of the volume, and correct it
    there first:

        SELECT provider_location FROM cinder.volumes WHERE id = 'RECORDED'

    Once cinder's record names the share that the guest uses, write the connection of nova and
    cinder again, on the server's host (Xena and later). The server is off meanwhile:

        openstack server stop REDIRECTED
        nova-manage volume_attachment get_connector --json > connector.json
        nova-manage volume_attachment refresh REDIRECTED RECORDED connector.json
        openstack server start REDIRECTED

    It worked if nova's connection names the share that the guest uses:

        nova-manage volume_attachment show UUID RECORDED

    Not yet: Do not stop or reboot the server before the share in nova's record has its file and is
    mounted, or, if the record is wrong, before cinder names the right share. Do not copy files into
    the folder.

    Source: nova virt/libvirt/volume/fs.py `_get_mount_path`; os-brick remotefs.
    """
    instance = guest.instance
    if domain.id is None or instance is None or not guest.is_here:
        return
    for mapping in instance.mappings:
        connection = mapping.connection
        if connection is None or not connection.export or connection.kind != "nfs":
            continue
        path = connection.device_path or ""
        folder = posixpath.dirname(path)
        title = guest.storage.volumes.title_of(mapping.volume_id or "")
        its = f"{guest.title}'s {title}"
        names = {
            "VOLUME": mapping.volume_id,
            "FOLDER": folder,
            "EXPORT": connection.export,
            "COVERED": "",
            "SHARE_FOLDER": folder,
            "RECORDED": "",
            "REDIRECTED": "",
        }
        told = says(mapping, volume_id=mapping.volume_id).and_so(
            export=connection.export, device_path=path
        )
        expected = _folder_of(connection.export)
        if posixpath.basename(folder) != expected:
            if _is_on_cinders_share(guest, mapping, folder):
                continue  # only nova's export is wrong, which bdm-record-bad reports
            if _is_hash(posixpath.basename(folder)):
                yield _on_another_share(guest, host, its, connection.export, folder, told, names)
            continue
        yield from _mounted(host, its, connection.export, folder, told, names)


def _on_another_share(
    guest: Guest,
    host: Host,
    its: str,
    export: str,
    folder: str,
    told: Evidence,
    names: Mapping[str, object],
) -> Problem:
    """Return that a volume's path and its export belong to two shares.

    If the share of the path is mounted, the guest has its file there, and the records are wrong.
    """
    listing = host.bundle.last("kernel", "/proc/self/mountinfo", host.name)
    mounts = [one for one in known(lambda: host.devices.mounts) or () if one.folder == folder]
    used = mounts[-1] if mounts else None
    share = _share_of(guest, folder, used.source) if used is not None else None
    names = {**names, "EXPORT": "", "SHARE_FOLDER": ""}
    if listing is None or used is None or share is None:
        return problem(
            f"{its} is on {export} in nova, but its device_path is in the folder of another share, "
            f"{phrase.place(folder)}",
            told,
            severity=Severity.WARNING,
            **names,
        )
    return problem(
        f"{its} is on {export} in nova's record, but its device_path is in the folder of {share}, "
        "which is mounted",
        told,
        hears(listing, "kernel", folder, source=used.source, type=used.type),
        severity=Severity.WARNING,
        **{**names, "RECORDED": names["VOLUME"], "REDIRECTED": guest.uuid},
    )


def _share_of(guest: Guest, folder: str, source: str) -> str | None:
    """Return the share of a folder: the mount's source, or the export of another volume of cinder.

    A bind mount shows the source of the file system below the share.
    """
    attachments = known(lambda: guest.storage.volumes.attachments) or {}
    exports = [known(lambda one=one: one.connection.export) for one in attachments.values()]  # type: ignore[misc]
    name = posixpath.basename(folder)
    return next((one for one in (source, *exports) if one and _folder_of(one) == name), None)


def _folder_of(export: str) -> str:
    """Return the name of the folder in which nova mounts a share."""
    return hashlib.md5(export.encode(), usedforsecurity=False).hexdigest()


def _is_on_cinders_share(guest: Guest, mapping: BlockDeviceMapping, folder: str) -> bool:
    """True if a volume's folder is the one of the share that cinder's attachment names."""
    attachments = known(lambda: guest.storage.volumes.attachments) or {}
    attachment = attachments.get(mapping.attachment_id or "")
    export = known(lambda: attachment.connection.export) if attachment is not None else None
    return export is not None and _folder_of(export) == posixpath.basename(folder)


def _is_hash(name: str) -> bool:
    return len(name) == 32 and all(letter in "0123456789abcdef" for letter in name)


def _mounted(
    host: Host, its: str, export: str, folder: str, told: Evidence, names: Mapping[str, object]
) -> Iterator[Problem]:
    mounts = [one for one in host.devices.mounts if one.folder == folder]
    mount = mounts[-1] if mounts else None
    listing = host.bundle.last("kernel", "/proc/self/mountinfo", host.name)
    if listing is None:
        raise UnheardError("/proc/self/mountinfo was not collected")
    if mount is None:
        none = hears(listing, "kernel", folder, mount=None)
        yield problem(
            f"{its} is on share {export}, which is not mounted", told, none, severity=None, **names
        )
    elif mount.type.startswith("nfs") and mount.source.rstrip("/") != export.rstrip("/"):
        shown = hears(listing, "kernel", folder, source=mount.source, type=mount.type)
        yield problem(
            f"{its} is on share {export}, but {mount.source} is mounted there",
            told,
            shown,
            severity=None,
            **{**names, "EXPORT": "", "COVERED": folder},
        )
    elif len({one.number for one in mounts}) > 1 and not mount.type.startswith("nfs"):
        shown = hears(listing, "kernel", folder, source=mount.source, type=mount.type)
        yield problem(
            f"{its} is on share {export}, which {mount.source} ({mount.type}) covers",
            told,
            shown,
            severity=None,
            **{**names, "EXPORT": "", "COVERED": folder},
        )


@check(Severity.WARNING)
def loop_file_deleted(host: Host) -> Problems:
    """The file below a loop device was deleted while the device is in use.

    A loop device makes a disk out of a file, for example for a volume group or a file system with
    volumes. The kernel keeps a deleted file until the device is detached. At the next reboot of the
    host everything on it is lost.

    Authority: The kernel.

    Traps: A loop device without anything on it.

    Next: Check what uses the device, and which file it had:

        losetup --list
        lsblk

    Then copy the whole device to a file on a disk with enough room, while nothing writes to it:

        dd if=/dev/DEVICE of=COPY bs=4M conv=sparse

    It worked if the file has the size of the device:

        ls -l COPY
        lsblk

    Not yet: Do not detach the device, do not unmount what is on it, and do not reboot the host.

    Source: losetup(8); DevStack's `stack-volumes` volume groups.
    """
    for kname, path in host.devices.loops.items():
        device = host.devices.by_name.get(kname)
        if not path.endswith(DELETED) or device is None:
            continue
        if not device.mountpoints and not device.children:
            continue
        uses = several(device.mountpoints or device.children)
        file = path.removesuffix(DELETED)
        yield problem(
            f"The file of host {host.name}'s loop device {kname}, {phrase.place(file)}, was "
            f"deleted, but {uses} is on it",
            hears(host.devices.said["losetup --json --list"], "losetup", kname, file=path),
            says(device, kname=kname, size=device.size),
            DEVICE=kname,
        )
