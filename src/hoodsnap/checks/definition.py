"""Disks in libvirt's two definitions of a domain: what runs now, what starts next, and where."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from functools import partial
from typing import Any

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.image import QCOW2
from hoodsnap.checks.traps import building, disk_is_copied, migrating, task_in_flight
from hoodsnap.evidence import Evidence, Severity, derives, hears, says
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.cloud.network_disks import LOCAL, network_name
from hoodsnap.facts.cloud.volume_owners import volume_of
from hoodsnap.facts.domain.disk import Disk
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import UnheardError, is_true, known
from hoodsnap.facts.host.instances_directory import disk_owner, owner_of
from hoodsnap.facts.process.drive import Drive
from hoodsnap.facts.process.process import Process
from hoodsnap.phrase import brief, place


@check(Severity.ERROR, traps=[task_in_flight, migrating, disk_is_copied])
def chain_live_vs_persistent(
    guest: Guest, host: Host, domain: Domain, process: Process | None
) -> Problems:
    """The guest's next start would use other disks than the running guest.

    libvirt keeps two definitions of a running domain: the live one and the persistent one, which
    the next start uses. Whatever changes only one of them (a disk attached by hand, a snapshot that
    was not recorded, a volume that was swapped) leaves the guest with an older or another disk
    after the next power cycle. If only the format differs, the next start reads the same file in
    another way: as raw, a qcow2 file shows the guest qcow2's tables instead of its data, and the
    first write damages them.

    Authority: libvirt's live definition, for where the guest's data is now; for a disk on a network
    (rbd), QEMU's command line.

    Traps: A block job is about to change both definitions. nova's own hard reboot writes the
    definition again from its database, so for a hard reboot the block device mappings in nova
    count.

    Next: Compare the two definitions:

        virsh dumpxml NAME
        virsh dumpxml --inactive NAME

    If the disks differ, compare them with nova's record of the server's volumes. If the record
    lacks a disk of this server that the guest runs with, correct the record first: a hard reboot
    drops every disk that nova does not know. Do not add a disk of another server or of a person to
    the record:

        openstack server volume list COMPARED

    If only the format differs, compare the format in the file's first bytes (QFI: qcow2) with the
    one in `disk.info`, which nova writes into the definition at a hard reboot:

        head -c 4 MISREAD | od -c
        cat FOLDER/disk.info

    If both are the format of the running guest, let nova write the definition again. The hard
    reboot restarts the guest, so let its owner choose the time:

        openstack server reboot --hard REWRITTEN

    It worked if both definitions have the same format:

        virsh dumpxml --inactive NAME

    Not yet: Do not run `virsh destroy` and `virsh start`, and do not shut down the guest from
    inside. If the definitions have different disks, do not reboot the server hard before you know
    which disk is the right one. If only the format differs, do not change it in the running guest.

    Source: OSSA-2020-006 (CVE-2020-17376, nova bug 1890501); nova bug 1713857.
    """
    if domain.id is None:
        return
    if process is not None:
        yield from _started_with(guest, domain, process)
    if not domain.persistent:
        return
    live = {disk.target: disk for disk in domain.disks}
    stored = {disk.target: disk for disk in domain.inactive_disks}
    for target in dict.fromkeys((*live, *stored)):
        now, then = live.get(target), stored.get(target)
        if not _is_fixed(now or then):
            continue
        if _identity(now) != _identity(then):
            evidence = (
                says(domain, disks=_shown(target, now)),
                says(domain, inactive_disks=_shown(target, then)),
            )
            # A missing disk is noticed at the next start; another disk in its place is not.
            both = now is not None and then is not None
            severity = Severity.ERROR if both else Severity.WARNING
            there = now or then
            if now is not None and then is not None and _differ_in_format(now, then):
                yield _of_format(guest, host, now, then, evidence)
                continue
            yield problem(
                _difference(guest, now, then),
                *evidence,
                severity=severity,
                DISK=there.source if there is not None else None,
                COMPARED=guest.uuid,
                **NO_FORMAT,
            )


NO_FORMAT: Mapping[str, Any] = {"MISREAD": "", "FOLDER": "", "REWRITTEN": ""}
"""The placeholders of disks that differ only in their format."""


def _differ_in_format(now: Disk, then: Disk) -> bool:
    return (now.source, now.serial) == (then.source, then.serial) and now.image.type == "file"


def _of_format(
    guest: Guest, host: Host, now: Disk, then: Disk, evidence: tuple[Evidence, ...]
) -> Problem:
    path = now.source or ""
    entry = known(lambda: host.images.entry(path))
    image = host.images.image(path)
    recorded = known(lambda: image.declared) if image is not None else None
    headline = _difference(guest, now, then)
    starts = (entry.magic or "") if entry is not None else ""
    is_qcow2 = now.format == "qcow2" and starts.startswith(QCOW2)
    more = []
    if is_qcow2:
        headline += "; the file has a qcow2 header"
        if then.format == "raw":
            headline += ", which the guest would get as its data"
        more.append(hears(host.listing, "images", path, first_bytes=starts))
    if recorded is not None and image is not None:
        more.append(says(image, declared=recorded))
    # Of a raw disk, the first bytes are the guest's own and prove nothing.
    right = recorded == now.format and (is_qcow2 or now.format == "raw")
    return problem(
        headline,
        *evidence,
        *more,
        DISK=path,
        COMPARED="",
        MISREAD=path,
        FOLDER=posixpath.dirname(path),
        REWRITTEN=guest.uuid if right else "",
    )


def _started_with(guest: Guest, domain: Domain, process: Process) -> Problems:
    """Compare the place of each network disk with the one on QEMU's command line."""
    drives = known(partial(_drives, process)) or ()
    started = {_last(drive.source): drive for drive in drives if drive.protocol not in LOCAL}
    for disk in domain.disks:
        name = network_name(disk)
        drive = started.get(_last(disk.source)) if name is not None else None
        if drive is None or name is None or (drive.protocol, drive.source) == name:
            continue
        if disk_owner(disk.source or "") is not None:
            there = brief(drive.source or "")
            yield problem(
                f"{guest.title}'s QEMU was started with {disk.target} {there}, but libvirt has"
                f" {brief(name[1])}",
                says(process, pid=process.pid, disks=drive.source),
                says(domain, disks=_shown(disk.target, disk)),
                COMPARED=guest.uuid,
                **NO_FORMAT,
            )


def _last(source: str | None) -> str:
    return (source or "").rpartition("/")[2]


def _drives(process: Process) -> tuple[Drive, ...]:
    return process.disks


def _difference(guest: Guest, now: Disk | None, then: Disk | None) -> str:
    """Return the sentence that says how a disk will differ at the next start."""
    if now is None or then is None:
        there = now or then
        name = f"{there.target} ({place(there.source or 'empty')})" if there is not None else "?"
        if now is None:
            return f"{guest.title} runs without disk {name}, which its next start would have"
        return f"{guest.title} runs with disk {name}, which its next start would lack"
    ours, theirs = place(now.source or "empty"), place(then.source or "empty")
    if now.source != then.source:
        return f"{guest.title} runs with {now.target} {ours}, but its next start would use {theirs}"
    what, ours, theirs = "serial", brief(now.serial or "none"), brief(then.serial or "none")
    if now.format != then.format:
        what, ours, theirs = "format", now.format or "any", then.format or "any"
    return f"{guest.title}'s {now.target} has {what} {ours}, but {theirs} at its next start"


def _is_fixed(disk: Disk | None) -> bool:
    """True unless the disk is a drive whose medium the guest may eject."""
    return disk is not None and disk.device not in ("cdrom", "floppy")


def _identity(disk: Disk | None) -> tuple[str | None, ...] | None:
    return None if disk is None else (disk.source, disk.format, disk.serial)


@check(Severity.ERROR, traps=[task_in_flight, migrating])
def disk_of_another_server(guest: Guest, cloud: Cloud, domain: Domain) -> Problems:
    """The guest runs with a disk that belongs to another server.

    The disk was plugged into the running guest by hand, usually to save files from it. If the
    server that owns the disk is started meanwhile, two guests write to the disk and destroy it.
    nova knows the disk as its owner's only.

    Authority: The name of the disk, for its owner: nova puts the server's UUID into it; libvirt,
    for which guest has it.

    Traps: A disk that is shareable. The disk that the guest booted from, which can't be unplugged,
    is reported by `uuid-name-chain-broken`. A volume of another server is reported by the checks of
    volumes.

    Next: Check which disks the guest has, and that the server that owns the disk is off:

        virsh domblklist NAME
        openstack server show OTHER -c status

    Ask who plugged the disk in. Once its file systems are unmounted in the guest, unplug it from
    the running guest. The file stays:

        virsh detach-disk NAME TARGET --live

    If the stored definition has the disk, too, remove it from there:

        virsh detach-disk NAME STORED --config

    It worked if the list lacks the disk. virsh reports "Disk detached successfully" before the
    guest has released the disk, so look again after a minute; if the disk stays, reboot the guest
    from inside:

        virsh domblklist NAME

    Not yet: Do not start the server that owns the disk: `openstack server start OTHER` makes a
    second writer. Do not add the disk to the records of the guest that borrows it.

    Source: libvirt virDomainDetachDeviceFlags (the guest has to cooperate); nova
    virt/libvirt/utils.py `get_instance_path`.
    """
    if domain.id is None:
        return
    stored = known(partial(_stored, domain)) or frozenset()
    for disk in domain.disks[1:]:
        owner = disk_owner(disk.source or "")
        if owner in (None, guest.uuid) or disk.shareable:
            continue
        title, where = cloud.title_of(owner or ""), place(disk.source or "")
        off = [twin.domain for twin in cloud.twins(owner or "") if twin.domain is not None]
        is_off = bool(off) and all(one.id is None for one in off)
        yield problem(
            f"{guest.title} has {title}'s disk as {disk.target}: {where}; "
            f"{f'{title} is off: do not start it' if is_off else f'do not start {title}'}",
            says(domain, state=domain.state_words, disks=_shown(disk.target, disk)).and_so(
                disk_of=owner
            ),
            *(says(one, state=one.state_words) for one in off),
            OTHER=owner,
            DISK=disk.source,
            TARGET=disk.target,
            STORED=disk.target if (disk.target, disk.source) in stored else "",
        )


def _stored(domain: Domain) -> frozenset[tuple[str | None, str | None]]:
    """Return target and source of each disk that the next start would have."""
    disks = domain.inactive_disks if domain.persistent else ()
    return frozenset((disk.target, disk.source) for disk in disks)


def _shown(target: str | None, disk: Disk | None) -> str:
    if disk is None:
        return f"no {target}"
    serial = f", serial {disk.serial}" if disk.serial else ""
    return f"{target} is {disk.source or 'empty'} ({disk.format or 'any format'}{serial})"


@check(Severity.ERROR, traps=[task_in_flight, migrating])
def persistent_xml_foreign_devices(
    guest: Guest, host: Host, cloud: Cloud, domain: Domain
) -> Problems:
    """The guest's persistent definition names a disk that belongs to another server.

    A definition outlives the things it names: a device path, a volume's connection or a folder may
    belong to another server when the guest starts again, and the guest then reads and writes that
    server's data. Causes are a live migration that kept the source host's devices, and a definition
    that was copied.

    Authority: The name of a disk that nova made, for its owner; nova's block device mappings, for
    the owner of a volume; libvirt, for which guest runs with any other disk now.

    Traps: A volume attached to several servers on purpose. A disk that is shareable.

    Next: Check the disks in the persistent definition:

        virsh dumpxml --inactive NAME

    Check which server cinder has the disk's volume attached to:

        openstack volume show VOLUME

    Once the server's volumes are known to be right, let nova write the definition again. If the
    server is off, starting it does so:

        openstack server start UUID

    If it runs, a hard reboot does so, which switches the guest off and on:

        openstack server reboot --hard UUID

    It worked if the definition names no disk of another server:

        virsh dumpxml --inactive NAME

    Not yet: Do not run `virsh start`. Do not soft-reboot the server, and do not reboot the guest
    from inside. Do not enable libvirt's autostart.

    Source: OSSA-2020-006 (CVE-2020-17376, nova bug 1890501); OSSA-2023-003.
    """
    for disk in domain.inactive_disks:
        if disk.source is None or disk.shareable:
            continue
        evidence = says(domain, inactive_disks=_shown(disk.target, disk))
        folder = disk_owner(disk.source)
        volume = volume_of(disk)
        if folder is not None and folder != guest.uuid:
            headline = _foreign(guest, disk, cloud.title_of(folder))
            yield problem(headline, evidence.and_so(disk_of=folder), VOLUME=volume or "")
        elif folder is None and (owners := _others(guest, host, cloud, disk)):
            headline = _foreign(guest, disk, cloud.titles_of(sorted(owners)))
            others = evidence.and_so(belongs_to=", ".join(sorted(owners)))
            yield problem(headline, others, VOLUME=volume or "")


def _foreign(guest: Guest, disk: Disk, owners: str) -> str:
    path = place(disk.source or "")
    return f"{guest.title}'s definition has a disk of {owners} as its {disk.target}: {path}"


def _others(guest: Guest, host: Host, cloud: Cloud, disk: Disk) -> frozenset[str]:
    """Return the UUIDs of the disk's owners if the disk does not belong to this guest.

    A disk's name decides before its use: a guest that has a disk of another may have borrowed it.
    """
    volume = volume_of(disk)
    attached = cloud.exclusive(host).volumes if volume is not None else {}
    if volume is not None and volume in attached:
        if guest.volume_ids is None:
            raise UnheardError("the instance's block device mappings were not collected")
        return frozenset() if volume in guest.volume_ids else attached[volume]
    owners = host.disk_owners.get(disk.source or "", frozenset())
    if volume is not None and owners and guest.volume_ids is None:
        # A server that is off has released its devices: nova connects the volumes again by their
        # serial numbers, and the path may be another one then.
        raise UnheardError("the instance's block device mappings were not collected")
    return frozenset() if guest.uuid in owners else owners


@check(Severity.ERROR, traps=[task_in_flight, migrating, building])
def disks_outside_instances_path(guest: Guest, host: Host, domain: Domain) -> Problems:
    """The guest's disks are not where nova-compute looks for them.

    nova builds the paths of a server's disks from `instances_path` whenever it defines the domain.
    If the option was changed (or `state_path`, or the file that nova-compute reads), running guests
    notice nothing. The next stop and start, hard reboot or resize destroys the guest, removes its
    domain and finds no disk: the server goes into error and has no domain any more.

    Authority: libvirt, for where the disks are; nova.conf, for where nova looks.

    Traps: A link or a mount may make both paths one folder: a disk that also exists at nova's path
    is where nova looks. Volumes and disks in rbd or LVM have no such path.

    Next: Compare the option with the disks, and look into both folders:

        grep -E '^ *(instances_path|state_path)' /etc/nova/nova*.conf
        virsh domblklist --details NAME
        ls -ld FOLDER WANTED

    Check whether nova-compute has read the changed file: if it started before the file was
    written, it still uses the old folder, and nothing fails until its next start:

        ls -l --full-time /etc/nova/nova*.conf
        ps -C nova-compute -o lstart,cmd

    Find out which folder is the right one, and who changed the option. Then set it back to the
    folder with the disks. If nova-compute started after the change, and only then, restart it once
    the option is right and no server has a task:

        systemctl restart nova-compute

    It worked if nova-compute's log shows no error after its start, and the folder is the one that
    it checks:

        tail -n 50 /var/log/nova/nova-compute.log
        ls -l FOLDER/compute_nodes

    Not yet: Do not restart nova-compute before the option is right, and do not reboot the host. Do
    not stop, start, hard-reboot, resize, rescue, shelve or rebuild a server of this host. Do not
    move the disks of a running guest.

    Source: nova conf/paths.py, conf/compute.py `instances_path`; nova virt/libvirt/utils.py
    `get_instance_path`; nova virt/libvirt/driver.py `_hard_reboot`.
    """
    if guest.record is None or guest.record.deleted or not guest.is_here:
        return
    state = host.option("DEFAULT", "state_path", "/var/lib/nova")
    path = host.option("DEFAULT", "instances_path", "$state_path/instances")
    wanted = posixpath.normpath(path.replace("$state_path", state).replace("${state_path}", state))
    conf = host.hypervisor.answer("host", "/etc/nova/nova.conf")
    if "$" in wanted or not wanted.startswith("/") or conf is None:
        return
    file = host.file_name_of("DEFAULT", "instances_path")
    for disk in domain.current.disks:
        source = disk.source
        if disk.image.type != "file" or source is None or owner_of(source) != guest.uuid:
            continue
        folder, name = posixpath.split(source)
        folders, own = posixpath.split(folder)
        if folders == wanted or _is_at(host, posixpath.join(wanted, own, name)):
            continue
        yield problem(
            f"{guest.title}'s disk {disk.target} is {place(source)}, but nova-compute will look "
            f"for it in {wanted}",
            derives(domain, "disks", disk=source),
            hears(conf, file, "DEFAULT.instances_path", instances_path=wanted),
            FOLDER=folders,
            WANTED=wanted,
        )
        return


def _is_at(host: Host, path: str) -> bool:
    """True if a file is known to exist at a path."""
    return is_true(lambda: host.images.entry(path) is not None)
