"""The compute host under the guests: autostart, access to disks, free space, foreign VMs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hoodsnap.bundle import Answer
from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.traps import building, in_a_container, migrating, task_in_flight
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.domain.disk import Disk
from hoodsnap.facts.domain.domain import PRODUCTS, Domain
from hoodsnap.facts.domain.state import DomainState
from hoodsnap.facts.fact import UnheardError, known, value_of
from hoodsnap.facts.host.access import READ, WRITE, Access, User
from hoodsnap.facts.host.instances_directory import FolderEntry, is_base, owner_of
from hoodsnap.facts.process.monitor import Monitor
from hoodsnap.facts.process.process import GONE, Process
from hoodsnap.phrase import brief, counted, place, size

NEARLY_FULL = 20
"""A file system is nearly full when less than 1/20 of it is free."""


@check(Severity.WARNING)
def guest_autostart_enabled(guest: Guest, domain: Domain) -> Problems:
    """libvirt starts this guest when the host boots, regardless of nova.

    nova never sets autostart, so it was set by hand with `virsh autostart`. If the host crashes,
    the guest may be evacuated. When the host boots again, libvirt then starts a second copy on the
    same volumes before nova-compute has had time to clean up.

    Authority: libvirt.

    Traps: Domains that nova does not manage may legitimately start at boot.

    Next: Check the Autostart lines, and the host that nova has the server on:

        virsh dominfo NAME
        openstack server show UUID -c OS-EXT-SRV-ATTR:host

    Then disable autostart, which neither starts nor stops the guest:

        virsh autostart --disable NAME

    If it is enabled only for the next boot, disable that:

        virsh autostart --disable --once ONCE

    It worked if the Autostart lines show `disable`:

        virsh dominfo NAME

    To have guests come back after a reboot, set nova's `resume_guests_state_on_host_boot`.

    Not yet: Do not reboot or fence this host while autostart is set.

    Source: libvirt virDomainSetAutostart; nova bugs 1293480, 1444630.
    """
    once = domain.autostart_once
    if not (domain.autostart or once) or (guest.record is None and not domain.is_nova):
        return
    on = f"host {guest.host.name}" if guest.host is not None else "its host"
    when = f"when {on} boots" if domain.autostart else f"the next time that {on} boots"
    headline = f"{guest.title} starts by itself {when}: its autostart is enabled"
    autostart = says(
        domain,
        autostart="enabled" if domain.autostart else "disabled",
        **({"autostart_once": "enabled"} if once else {}),
        state=domain.state_words,
    )
    next_time = domain.name if once else ""
    if guest.record is not None and _is_elsewhere(guest):
        elsewhere = f"on host {guest.record.host}" if guest.record.host else "on no host"
        yield problem(
            f"{headline}, but nova has it {elsewhere}",
            autostart,
            says(guest.record, host=guest.record.host),
            severity=Severity.ERROR,
            ONCE=next_time,
        )
    else:
        yield problem(headline, autostart, ONCE=next_time)


def _is_elsewhere(guest: Guest) -> bool:
    """True if nova is known to have the server on another host, or not at all."""
    try:
        if guest.host is not None:
            # Raises without nova.conf: the host's name is then unknown.
            guest.host.option("DEFAULT", "host")
        return not guest.is_here
    except UnheardError:
        return False


@check(Severity.ERROR, traps=[building, task_in_flight, migrating, in_a_container])
def file_owner_or_label_wrong(guest: Guest, host: Host, domain: Domain) -> Problems:
    """A disk's mode, a parent folder or its label keeps QEMU out, or its mode lets everybody in.

    A running guest has its files open and notices nothing until it is started, migrated or
    snapshotted. With SELinux, relabeling a file makes the running guest fail as well. Usual causes:
    `chmod` or `restorecon` over the whole instances directory, files copied as root, a home
    directory that is closed to others.

    A disk that every account of the host may write to (a warning, `chmod 666`) works, but whatever
    runs on the host can change the guest's data.

    Authority: The kernel. It compares numeric user and group ids, not names.

    Traps: With `dynamic_ownership`, libvirt gives each disk to QEMU's user when the guest starts,
    so a stopped guest's disk may have any owner. On a network file system, the file server decides
    about owners. With an access control list, mode and owner do not decide. In a container, the
    same path leads to another file.

    Next: Check owner and mode of each folder on the path, the label of the disk, and the user that
    QEMU runs as:

        namei -l DISK
        ls -lZ DISK
        grep ^user /etc/libvirt/qemu.conf

    Then restore only the owner, mode or label that is wrong. For a mode: a+x lets all accounts pass
    a folder but not list it; u+rw lets the owner use a file, and libvirt makes QEMU its owner; o-w
    keeps accounts out that are neither the owner nor in the group, and a running guest keeps its
    file open. A guest's folder belongs to nova's user: if root has it, its owner is to be changed,
    too (nova-folder-not-writable):

        chmod MODE PATH

    It worked if QEMU's user may pass each folder and use the file, and others may not write to it:

        namei -l DISK

    Not yet: Do not run `chown -R` or `restorecon -R` on the instances directory while guests run.
    Do not give all accounts all rights (777).

    Source: libvirt qemu.conf, `dynamic_ownership`; security_dac.c, security_selinux.c.
    """
    access = host.access
    given = host.hypervisor.setting("dynamic_ownership", "1") != "0"
    kept_out = any(label.model == "dac" and not label.relabel for label in domain.definition.labels)
    blamed: set[str] = set()
    missing: UnheardError | None = None
    for disk in domain.definition.disks:
        for path, wanted in _files(host, disk):
            try:
                found = access.obstacle(path, wanted, owned=given and not kept_out)
            except UnheardError as reason:
                missing = reason
                continue
            if found is not None and found.path not in blamed:
                blamed.add(found.path)
                severity = (
                    Severity.ERROR if domain.state == DomainState.SHUTOFF else Severity.WARNING
                )
                owned = given and not kept_out
                yield problem(
                    f"{guest.title}'s {_can_not_open(host, found)}",
                    *_closed(host, domain, found),
                    severity=severity,
                    DISK=path,
                    PATH=found.path,
                    MODE=_missing_mode(found, wanted, owned=owned),
                )
            elif found is None and wanted & WRITE and (entry := _open_to_all(host, path)):
                yield problem(
                    f"Every account of {host.name} can write to {guest.title}'s {place(path)}: "
                    f"mode {_mode(entry)}, owner {_owner(entry)}",
                    hears(host.listing, "images", path, path=path, mode=_mode(entry)),
                    severity=Severity.WARNING,
                    DISK=path,
                    PATH=path,
                    MODE="o-w",
                )
    if domain.id is not None:
        yield from _mislabelled(guest, host, domain)
    if missing is not None and not blamed:
        raise missing


def _files(host: Host, disk: Disk) -> Iterator[tuple[str, int]]:
    """Yield each file of a disk with the access that QEMU needs to it."""
    if disk.image.type != "file" or disk.source is None or not disk.source.startswith("/"):
        return
    yield disk.source, READ if disk.read_only else READ + WRITE
    image = host.images.image(disk.source)
    try:
        below = image.chain[1:] if image is not None else ()
    except UnheardError:
        return  # a broken chain is reported by another check
    for layer in below:
        if layer.path.startswith("/"):
            yield layer.path, READ


def _open_to_all(host: Host, path: str) -> FolderEntry | None:
    """Return a file on the host's own disk that every account may write to; None otherwise.

    Only in a guest's folder: cinder gives its volumes on file servers the mode 0666 by default.
    """
    if owner_of(path) is None:
        return None
    entry = known(lambda: host.images.entry(path))
    if entry is None or entry.acl is not False or (entry.dev or "0:").startswith("0:"):
        return None
    if entry.type != "f" or not int(entry.mode or "0", 8) & WRITE:
        return None
    return None if Access(host.images, NOBODY).obstacle(path, WRITE, owned=False) else entry


NOBODY = User(65534, 65534, frozenset())
"""An account without rights of its own."""


def _can_not_open(host: Host, found: FolderEntry) -> str:
    uid, gid = host.hypervisor.owner
    what = f"enter {brief(found.path)}" if found.type == "d" else f"open {place(found.path)}"
    return f"QEMU (user {uid}:{gid}) can't {what}: mode {_mode(found)}, owner {_owner(found)}"


def _mode(found: FolderEntry) -> str:
    """Return the permissions in octal, without the type of the file: `0644`."""
    return (found.mode or "")[-4:]


def _owner(found: FolderEntry) -> str:
    return f"{found.user or found.uid}:{found.group or found.gid}"


def _missing_mode(found: FolderEntry, wanted: int, *, owned: bool) -> str | None:
    """Return the change of mode, for chmod, that lets QEMU in; None if the owner decides.

    `owned`: libvirt makes QEMU's user the owner of the file.
    """
    if found.type == "d":
        return "a+x"
    if wanted == READ:
        return "a+r"
    return "u+rw" if owned else None


def _closed(host: Host, domain: Domain, found: FolderEntry) -> tuple[Evidence, ...]:
    capabilities = host.hypervisor.answer("libvirt", "virsh capabilities")
    uid, gid = host.hypervisor.owner
    evidence = [says(domain, state=domain.state_words)]
    if (answer := _stat_of(host, found.path)) is not None:
        owner = _owner(found)
        line = hears(answer, "images", found.path, path=found.path, mode=_mode(found), owner=owner)
        evidence.append(line)
    if capabilities is not None:
        label = "/capabilities/host/secmodel[model='dac']/baselabel"
        evidence.append(hears(capabilities, "libvirt", label, qemu_runs_as=f"{uid}:{gid}"))
    return tuple(evidence)


def _stat_of(host: Host, path: str) -> Answer | None:
    """Return the answer that recorded owner and mode of a file."""
    return host.hypervisor.answer("images", f"stat -L {path}") or host.census.get("images")


def _mislabelled(guest: Guest, host: Host, domain: Domain) -> Iterator[Problem]:
    labels = [label.image for label in domain.labels if label.model == "selinux" and label.relabel]
    for disk in domain.disks if any(labels) else ():
        if disk.image.type != "file" or disk.source is None or disk.shareable or disk.read_only:
            continue
        try:
            entry = host.images.entry(disk.source)
        except UnheardError:
            continue
        answer = _stat_of(host, disk.source)
        if entry is None or entry.selinux is None or answer is None:
            continue
        # On a file server all files have the same label.
        if entry.selinux not in labels and not (entry.dev or "0:").startswith("0:"):
            yield problem(
                f"{guest.title}'s disk {disk.target} has label {entry.selinux}, but libvirt gave "
                f"it {labels[0]}",
                says(domain, labels=labels[0]),
                hears(answer, "images", disk.source, path=disk.source, selinux=entry.selinux),
                DISK=disk.source,
                PATH=disk.source,
            )


@check(Severity.NOTE)
def qemu_binary_outdated(
    guest: Guest, host: Host, process: Process, monitor: Monitor | None
) -> Problems:
    """The guest runs a QEMU binary that has since been replaced on this host.

    A package update replaces the file but not the running process, so the guest still has the bugs
    that the update fixed. A reboot inside the guest does not change that.

    Authority: The kernel.

    Traps: Removing a container together with the binary in it looks the same. A version is compared
    only if QEMU's monitor was asked, and outside of containers.

    Next: Check the binary of the process, and when the file that is now at its path (BINARY) was
    changed:

        ls -l /proc/PID/exe
        ls -l --full-time BINARY

    Then live-migrate the server, or stop and start it at a time that suits its owner. Either gives
    the guest a process that runs the new binary:

        openstack server migrate --live-migration --wait UUID

    It worked if the binary of the guest's process, on its host, is not deleted:

        ls -l /proc/$(cat /run/libvirt/qemu/NAME.pid)/exe

    Not yet: Do not attach an rbd volume or a new kind of device. QEMU loads a module for it and
    refuses a module from another build.

    Source: QEMU util/module.c; proc(5), `exe`.
    """
    if process.exe.endswith(GONE):
        binary = process.exe.removesuffix(GONE)
        on = f" on host {guest.host.name}" if guest.host is not None else ""
        yield problem(
            f"{guest.title} (PID {process.pid}) runs {binary}, which was replaced{on} after its "
            "start",
            says(process, pid=process.pid, exe=process.exe),
            BINARY=binary,
        )
        return
    version = known(lambda: monitor.version) if monitor is not None else None
    program = process.exe.rpartition("/")[2]
    answer = host.hypervisor.answer("host", f"{program} --version")
    found = re.match(
        r"QEMU emulator version (\d[\d.]*)", known(lambda: value_of(answer, program, str)) or ""
    )
    if version is None or found is None or answer is None or host.in_container(process):
        return
    if found[1].rstrip(".") != version:
        on = f"host {host.name} has {found[1]}"
        yield problem(
            f"{guest.title} (PID {process.pid}) runs QEMU {version}, but {on}",
            says(monitor, version=version)
            if monitor is not None
            else says(process, exe=process.exe),
            hears(answer, "QEMU", "version", version=found[1]),
            BINARY=process.exe,
        )


@check(Severity.WARNING)
def host_fs_overcommit(host: Host) -> Problems:
    """The guests' disks can still grow by more than the free space of their file system.

    An image occupies only what has been written so far. If all guests use the disk space of their
    flavors, the file system fills up, and QEMU pauses each guest that writes.

    Authority: The file system.

    Traps: A file system that several hosts share also holds guests that are not in this bundle.
    Images that nova does not manage count here, although nova leaves them out of its own sum. A
    disk_allocation_ratio above 1 means that overcommit is intended; this is then a note until the
    file system is nearly full.

    Next: Check the file system of the instances directory, and the size of its folders:

        df -h INSTANCES_PATH
        df -i INSTANCES_PATH
        du -sh INSTANCES_PATH/*

    Find the servers on this host, then live-migrate some of them away before the file system is
    full:

        openstack server list --all-projects --host HOST
        openstack server migrate --live-migration --wait UUID

    It worked if the file system has room again:

        df -h INSTANCES_PATH

    Not yet: Do not remove files of `_base` or `UUID_resize` to make room.

    Source: nova virt/libvirt/driver.py `_get_disk_over_committed_size_total`.
    """
    rooms = host.hypervisor.rooms
    if not rooms:
        raise UnheardError("free space of the instances directory's file system was not collected")
    for folder, room in rooms.items():
        if host.images.tops and folder not in host.images.tops:
            continue  # of volumes, whose sizes cinder adds up
        promised = sum(_still_to_grow(host, folder))
        nearly_full = room.free * NEARLY_FULL < room.total
        free = hears(room.answer, "images", "bavail", folder=folder, free_gib=_gib(room.free))
        listing = host.census.get("images")
        if promised > room.free and listing is not None:
            severity = Severity.NOTE if _is_intended(host) else Severity.WARNING
            severity = Severity.ERROR if nearly_full else severity
            yield problem(
                f"Host {host.name}: the disks in {folder} may grow by {_gib(promised)} GiB, but "
                f"only {_gib(room.free)} GiB are free",
                free,
                hears(listing, "images", folder, disks_may_grow_by_gib=_gib(promised)),
                severity=severity,
                INSTANCES_PATH=folder,
            )
        if room.inodes and room.free_inodes * 100 < room.inodes:
            yield problem(
                f"Host {host.name}: only {room.free_inodes} of {room.inodes} inodes are free in "
                f"{folder}",
                hears(room.answer, "images", "favail", free_inodes=room.free_inodes),
                INSTANCES_PATH=folder,
            )


def _is_intended(host: Host) -> bool:
    """True if the host's disk allocation ratio allows overcommit."""
    try:
        disk = host.provider.inventories.get("DISK_GB") if host.provider is not None else None
    except UnheardError:
        return False
    return disk is not None and disk.ratio > 1


def _still_to_grow(host: Host, folder: str) -> Iterator[int]:
    for path, image in host.images.images.items():
        if path.startswith(f"{folder}/") and not is_base(path):
            try:
                yield max(0, image.virtual_size - (image.actual_size or 0))
            except UnheardError:
                continue  # an image of unknown size is left out of the sum


def _gib(size: int) -> float:
    return round(size / (1 << 30), 1)


@check(Severity.NOTE, heard=["libvirt"])
def alien_domain(guest: Guest, domain: Domain | None, process: Process | None) -> Problems:
    """A VM on this host is not managed by nova.

    Placement does not count the resources that it uses and offers them to other servers.

    Authority: The nova database decides which VMs nova manages.

    Traps: Before Juno, nova wrote no metadata into its domains; their name and database row
    identify them. VMs of other services (octavia, trove) are servers in nova.

    Next: Check what it is, and ask who started it:

        virsh dominfo NAME

    Check the process, its owner and the process that started it:

        ps -o pid,ppid,user,lstart,args -p PID

    Then reserve the resources that it needs on this host (`reserved_host_memory_mb`,
    `reserved_host_cpus`).

    Not yet: Do not run `virsh destroy` or end the process; the VM is probably in use.

    Source: nova virt/libvirt/driver.py `_get_disk_over_committed_size_total` (what it skips).
    """
    if guest.record is not None:
        return
    reasons = [guest.unheard[layer] for layer in ("nova-db", "nova") if layer in guest.unheard]
    if len(reasons) == 2:
        raise UnheardError(reasons[0])
    if domain is not None and not domain.is_nova:
        xml = domain.xml if domain.id is not None else domain.inactive
        it = says(domain, name=domain.name, state=domain.state_words)
        yield problem(
            f"{guest.title}{_place(guest)} is not managed by nova: {domain.state_words}, "
            f"{size(xml.memory_kib << 10)}, {counted(xml.vcpus, 'vCPU')}",
            it.and_so(memory_mib=xml.memory_kib >> 10, vcpus=xml.vcpus),
        )
    elif domain is None and process is not None and process.smbios.get("product") not in PRODUCTS:
        it = says(process, pid=process.pid, name=process.name)
        yield problem(
            f"{guest.title}{_place(guest)} is not managed by nova or libvirt: PID {process.pid}, "
            f"{size(process.memory_kib << 10)}, {counted(process.vcpus, 'vCPU')}",
            it.and_so(memory_mib=process.memory_kib >> 10, vcpus=process.vcpus),
            NAME="",
        )


def _place(guest: Guest) -> str:
    return f" on host {guest.host.name}" if guest.host is not None else ""
