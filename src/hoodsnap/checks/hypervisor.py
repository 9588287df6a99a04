"""The host under the guests: what it will do to them by itself, and what they may find missing."""

from __future__ import annotations

from collections.abc import Iterator

from hoodsnap.bundle import Answer
from hoodsnap.check import Problem, Problems, check
from hoodsnap.checks.traps import building, in_a_container, migrating, task_in_flight
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.domain.disk import Disk
from hoodsnap.facts.domain.domain import OFF, PRODUCTS, Domain
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.access import READ, WRITE
from hoodsnap.facts.host.image import FolderEntry, is_base
from hoodsnap.facts.process.process import GONE, Process

NEARLY_FULL = 20
"""A file system of which less than this part is left."""


@check(Severity.WARNING)
def guest_autostart_enabled(guest: Guest, domain: Domain) -> Problems:
    """libvirt starts this guest when the host boots, whatever nova thinks of it by then.

    nova never sets autostart; somebody did with `virsh autostart`. After a crash the guest may have
    been evacuated: then this host starts a second one on the same volumes, before nova-compute has
    had time to clean up.

    Authority: libvirt.

    Traps: domains that are not nova's may rightly start by themselves.

    Next: `virsh dominfo NAME` (Autostart), `openstack server show UUID` (host). Then `virsh
    autostart --disable NAME`; to have guests come back after a reboot, nova has
    `resume_guests_state_on_host_boot`.

    Not yet: rebooting this host, or fencing it, while it is set.

    Source: libvirt virDomainSetAutostart; nova bugs 1293480, 1444630.
    """
    if not domain.autostart or (guest.record is None and not domain.is_nova):
        return
    evidence = [says(domain, autostart="enabled", state=domain.state_words)]
    severity = Severity.WARNING
    if guest.record is not None and _is_elsewhere(guest):
        severity = Severity.ERROR
        evidence.append(says(guest.record, host=guest.record.host))
    yield Problem(severity, tuple(evidence))


def _is_elsewhere(guest: Guest) -> bool:
    """nova is known to have it on another host, or not at all."""
    try:
        if guest.host is not None:
            guest.host.option("DEFAULT", "host")  # without it the host may be called anything
        return not guest.is_here
    except UnheardError:
        return False


@check(Severity.ERROR, traps=[building, task_in_flight, migrating, in_a_container])
def file_owner_or_label_wrong(guest: Guest, host: Host, domain: Domain) -> Problems:
    """QEMU may not open the guest's disk: its mode, a folder above it or its label forbids that.

    A guest that runs has its files open and notices nothing until it is started again, migrated or
    snapshotted. With SELinux a file that was given another label fails under the running guest.
    Usual causes: `chmod` or `restorecon` over the whole instances directory, files copied as root,
    a home directory that is closed to others.

    Authority: the kernel: it compares the numbers of user and group, not their names.

    Traps: libvirt makes QEMU the owner of each disk when it starts a guest (`dynamic_ownership`),
    so that the owner of a stopped guest's disk may be anybody; on a file server owners are its
    business; with an access control list mode and owner do not decide; in a container the same
    path leads elsewhere.

    Next: `namei -l DISK` shows owner and mode of each folder on the way, `ls -lZ DISK` the label,
    `grep ^user /etc/libvirt/qemu.conf` who opens it. Then give back exactly that one.

    Not yet: `chown -R` or `restorecon -R` of the instances directory while guests run, `chmod 777`.

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
                severity = Severity.ERROR if domain.state == OFF else Severity.WARNING
                yield Problem(severity, _closed(host, domain, found))
    if domain.id is not None:
        yield from _mislabelled(host, domain)
    if missing is not None and not blamed:
        raise missing


def _files(host: Host, disk: Disk) -> Iterator[tuple[str, int]]:
    """The files of a disk, and what QEMU wants to do with each."""
    if disk.image.type != "file" or disk.source is None or not disk.source.startswith("/"):
        return
    yield disk.source, READ if disk.read_only else READ + WRITE
    image = host.images.image(disk.source)
    try:
        below = image.chain[1:] if image is not None else ()
    except UnheardError:
        return  # that its chain is broken is another check's word
    for layer in below:
        if layer.path.startswith("/"):
            yield layer.path, READ


def _closed(host: Host, domain: Domain, found: FolderEntry) -> tuple[Evidence, ...]:
    capabilities = host.hypervisor.answer("libvirt", "virsh capabilities")
    uid, gid = host.hypervisor.owner
    evidence = [says(domain, state=domain.state_words)]
    if (answer := _told(host, found.path)) is not None:
        owner = f"{found.user or found.uid}:{found.group or found.gid}"
        line = hears(answer, "images", found.path, path=found.path, mode=found.mode, owner=owner)
        evidence.append(line)
    if capabilities is not None:
        place = "/capabilities/host/secmodel[model='dac']/baselabel"
        evidence.append(hears(capabilities, "libvirt", place, qemu_runs_as=f"{uid}:{gid}"))
    return tuple(evidence)


def _told(host: Host, path: str) -> Answer | None:
    """The answer that told owner and mode of a file."""
    return host.hypervisor.answer("images", f"stat -L {path}") or host.census.get("images")


def _mislabelled(host: Host, domain: Domain) -> Iterator[Problem]:
    labels = [label.image for label in domain.labels if label.model == "selinux" and label.relabel]
    for disk in domain.disks if any(labels) else ():
        if disk.image.type != "file" or disk.source is None or disk.shareable or disk.read_only:
            continue
        try:
            entry = host.images.entry(disk.source)
        except UnheardError:
            continue
        answer = _told(host, disk.source)
        if entry is None or entry.selinux is None or answer is None:
            continue
        # On a file server all files have one label.
        if entry.selinux not in labels and not (entry.dev or "0:").startswith("0:"):
            label = hears(answer, "images", disk.source, path=disk.source, selinux=entry.selinux)
            yield Problem(Severity.ERROR, (says(domain, labels=labels[0]), label))


@check(Severity.NOTE)
def qemu_binary_outdated(guest: Guest, process: Process) -> Problems:
    """The guest runs a QEMU that has been replaced on this host since.

    An update of the package changes the file, and not the process that was started from the old
    one: whatever the update repaired, this guest still has. A reboot inside of the guest is not
    enough.

    Authority: the kernel.

    Traps: a container that was removed with the file in it looks the same.

    Next: `ls -l /proc/PID/exe`, and when the package was updated. Then migrate the guest, or stop
    and start it, when it suits its owner.

    Not yet: plugging in a volume in rbd or a new kind of device: QEMU loads a module for that, and
    refuses one of another build.

    Source: QEMU util/module.c; proc(5), `exe`.
    """
    if process.exe.endswith(GONE):
        yield (says(process, pid=process.pid, exe=process.exe),)


@check(Severity.WARNING)
def host_fs_overcommit(host: Host) -> Problems:
    """The guests' disks may still grow by more than the file system has left.

    An image takes only what was written so far. If all guests use what they were sold, the file
    system is full, and QEMU pauses each guest that writes.

    Authority: the file system.

    Traps: a file system that several hosts share has guests that this bundle does not know; images
    that are not nova's count too, whatever nova's own sum leaves out; with a disk_allocation_ratio
    above one it is meant so (a note), until the file system is nearly full.

    Next: `df -h` and `df -i` of the instances directory, `du -sh` of its folders. Then move guests
    away before it is full.

    Not yet: removing files of `_base` or `UUID_resize` to make room.

    Source: nova virt/libvirt/driver.py `_get_disk_over_committed_size_total`.
    """
    rooms = host.hypervisor.rooms
    if not rooms:
        raise UnheardError("how full the instances directory's file system is was not asked")
    for folder, room in rooms.items():
        promised = sum(_still_to_grow(host, folder))
        nearly_full = room.free * NEARLY_FULL < room.total
        free = hears(room.answer, "images", "bavail", folder=folder, free_gib=_gib(room.free))
        listing = host.census.get("images")
        if promised > room.free and listing is not None:
            severity = Severity.NOTE if _is_wanted(host) else Severity.WARNING
            severity = Severity.ERROR if nearly_full else severity
            disks = hears(listing, "images", folder, disks_may_grow_by_gib=_gib(promised))
            yield Problem(severity, (free, disks))
        if room.inodes and room.free_inodes * 100 < room.inodes:
            yield (hears(room.answer, "images", "favail", free_inodes=room.free_inodes),)


def _is_wanted(host: Host) -> bool:
    """Whether its operator lets more be sold of its disk than there is."""
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
                continue  # what is known is too much already, or it is not


def _gib(size: int) -> float:
    return round(size / (1 << 30), 1)


@check(Severity.NOTE, heard=["libvirt"])
def alien_domain(guest: Guest, domain: Domain | None, process: Process | None) -> Problems:
    """A VM on this host is not nova's.

    Placement does not know what it takes, and sells that once more.

    Authority: the nova database for what is nova's.

    Traps: domains of nova before Juno carry no note of it, but their name and their row do; what
    other services (octavia, trove) run are nova's guests.

    Next: `virsh dominfo NAME`, and ask who started it. Then reserve on this host what it needs
    (`reserved_host_memory_mb`, `reserved_host_cpus`).

    Not yet: `virsh destroy`: somebody needs it.

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
        yield (it.and_so(memory_mib=xml.memory_kib >> 10, vcpus=xml.vcpus),)
    elif domain is None and process is not None and process.smbios.get("product") not in PRODUCTS:
        it = says(process, pid=process.pid, name=process.name)
        yield (it.and_so(memory_mib=process.memory_kib >> 10, vcpus=process.vcpus),)
