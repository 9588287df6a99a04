"""What destroys data, or soon will. Look at these before touching anything."""

from __future__ import annotations

import re
import stat

from hoodsnap.check import Problems, check
from hoodsnap.checks.traps import building, migrating, task_in_flight
from hoodsnap.facts.domain import Domain
from hoodsnap.facts.fact import Unheard
from hoodsnap.facts.guest import Guest, Host, held_by
from hoodsnap.facts.image import Image
from hoodsnap.facts.monitor import Monitor
from hoodsnap.facts.process import OpenFile, Process
from hoodsnap.finding import Severity, says


@check(Severity.ERROR, traps=[migrating])
def disk_shared_by_two_qemu(guest: Guest, host: Host, process: Process) -> Problems:
    """Two QEMU processes hold one disk image open, and at least one of them writes.

    Each has its own idea of the filesystem inside and overwrites the other's blocks: the image is
    being destroyed while you read this. It happens after a split brain (half a live migration, an
    evacuation without fencing), by a second start behind nova's back, or by a disk attached by
    hand.

    Authority: the kernel. Device and inode of an open file can't be mistaken, whatever the paths
    say.

    Traps: base images that many guests only read; volumes declared shareable on every side.

    Next: find out which guest is the legal one: compare `openstack server show UUID` (host, state)
    with `virsh domstate --reason NAME` on every host that has it. Then stop the *other* one's
    writes with `virsh suspend`, which can be taken back.

    Not yet: `openstack server reboot` or `delete` (it removes the disk that both use), `virsh
    start`, `qemu-img check -r`, a migration.

    Source: QEMU manual, image locking (2.10 and later); nova bugs 1628606, 1905944.
    """
    shareable = _shareable(host, guest.domain)
    for file in process.files:
        holders = host.contested.get(held_by(file), ())
        others = [(other, held) for other, held in holders if other.pid != process.pid]
        if others and _is_disk(file) and held_by(file) not in shareable:
            yield (
                says(process, pid=process.pid, files=_held(file)),
                *(says(other, pid=other.pid, files=_held(held)) for other, held in others),
            )


def _held(file: OpenFile) -> str:
    return f"{file.path} ({file.dev} inode {file.ino}, {'rw' if file.writable else 'ro'})"


def _is_disk(file: OpenFile) -> bool:
    # Guest memory may be shared with a helper process on purpose.
    memory = file.path.startswith(("/dev/shm/", "/dev/hugepages", "/memfd:"))  # noqa: S108
    return not memory and (stat.S_ISREG(file.mode) or stat.S_ISBLK(file.mode))


def _shareable(host: Host, domain: Domain | None) -> frozenset[tuple[str, int]]:
    """The disks (`held_by`) that the guest's definition lets others write to."""
    try:
        disks = domain.disks if domain is not None else ()
        sources = [disk.source for disk in disks if disk.source and disk.shareable]
        # A definition names a device by any of its names; the kernel has one.
        files = [host.images.entry(source) for source in sources]
    except Unheard:
        return frozenset()
    return frozenset(
        (f"block {file.rdev}", 0) if file.type == "b" else (file.dev or "", file.ino or 0)
        for file in files
        if file is not None
    )


@check(Severity.ERROR, traps=[migrating])
def duplicate_qemu_identity(guest: Guest, host: Host, process: Process) -> Problems:
    """Two live QEMU processes claim to be the same VM.

    libvirt controls one of them at most. The other one writes to the same disks and answers with
    the same MAC address, and no nova command reaches it.

    Authority: the kernel for which processes exist; libvirt for which of them it controls.

    Traps: QEMU that libvirt starts for a moment to ask what it can do has no UUID; a guest that
    migrates within one host exists twice for a while.

    Next: `virsh domstate UUID; cat /run/libvirt/qemu/NAME.pid` shows which PID libvirt means; `ls
    -l /proc/PID/fd` of both shows which one holds the disks.

    Not yet: `virsh start`, killing either before you know which one wrote last.

    Source: libvirt qemu_process.c (reconnect after the loss of /run); containers/podman issue
    12717.
    """
    claimants = (*guest.processes, *host.by_name.get(process.name, ()))
    for pid, other in {claimant.pid: claimant for claimant in claimants}.items():
        if pid != process.pid:
            yield (
                says(process, pid=process.pid, uuid=process.uuid, name=process.name),
                says(other, pid=other.pid, uuid=other.uuid, name=other.name),
            )


@check(Severity.ERROR, traps=[building, task_in_flight])
def backing_file_missing(guest: Guest, host: Host, images: tuple[Image, ...]) -> Problems:
    """A disk's backing file is gone: the guest can't start again.

    A qcow2 overlay holds only what the guest changed; the rest is in its base. While QEMU has the
    base open the guest notices nothing, even if the file was deleted. At the next start it fails.

    Authority: the disk images.

    Traps: the path is valid in the container that runs nova-compute and not outside of it.

    Next: `qemu-img info -U --backing-chain DISK` shows what is missed. Look for the same name in
    `_base` of other hosts (compare sizes) and in glance: it is the sha1 of the image's id.

    Not yet: stopping, rebooting or migrating a guest that still runs: with its process the last
    copy may go. `openstack server reboot --hard`, which downloads the image anew under that name
    even if it was another one; `qemu-img rebase -u`.

    Source: OpenStack Operations Guide, "Disappearing Images"; nova bug 1602193 and its family.
    """
    if guest.domain is None and (guest.record is None or guest.record.deleted):
        return  # nobody will start from what is only left over
    for image in images:
        if image.backing_missing and _is_gone(host, image):
            base = says(image, path=image.path, backing_filename=image.backing_filename)
            evidence = [base.and_so(that_file="missing")]
            if guest.process is not None:
                evidence.append(
                    says(guest.process, pid=guest.process.pid, state=guest.process.state)
                )
            yield tuple(evidence)


def _is_gone(host: Host, image: Image) -> bool:
    """Whether the file was looked for where it should be, and is not there.

    In a container a header names the container's paths, which qemu-img outside does not find.
    """
    named = re.findall(r"'(/[^']+)'", image.backing_missing or "")
    path = named[-1] if named else image.top.full_backing_filename or image.backing_filename or ""
    return host.images.entry(path) is None


@check(Severity.ERROR)
def io_error_paused(domain: Domain, monitor: Monitor | None) -> Problems:
    """QEMU stopped the guest because its disk gave an I/O error.

    A full filesystem is the usual cause: QEMU pauses the guest rather than let it see a failed
    write. nova shows it as PAUSED or still ACTIVE and does nothing.

    Authority: QEMU, and libvirt's reason for the pause.

    Traps: a pause for a snapshot or a migration has another reason.

    Next: `virsh domblkerror NAME`, `df -h` of the instances directory and of the volume's storage.
    Make space (or bring the path back), then `virsh resume NAME`: nothing is lost.

    Not yet: `openstack server reboot --hard` (loses what the guest has not written yet), deleting
    files in `_base` or `*_resize` to make space.

    Source: QEMU manual, `werror`; libvirt qemu_monitor.c; nova bug 1097806 (the power sync ignores
    PAUSED).
    """
    if (domain.state, domain.reason) == (3, 5):
        yield (says(domain, state=domain.state_words),)
    elif monitor is not None and (monitor.status == "io-error" or monitor.io_errors):
        errors = ", ".join(f"{device}: {error}" for device, error in monitor.io_errors.items())
        yield (
            says(domain, state=domain.state_words),
            says(monitor, status=monitor.status, io_errors=errors),
        )
