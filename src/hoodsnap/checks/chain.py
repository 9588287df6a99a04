"""Image chains: the base images below a disk, and whether all layers agree on them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from hoodsnap.check import Problems, check
from hoodsnap.checks.traps import (
    building,
    disk_is_copied,
    disks_out_of_sight,
    migrating,
    task_in_flight,
)
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.api.server import Server
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import UnheardError, integer, text, value_of
from hoodsnap.facts.host.image import Image, path_in
from hoodsnap.facts.host.instances_directory import OF_AN_IMAGE, base_of, is_base
from hoodsnap.facts.process.monitor import Monitor
from hoodsnap.facts.process.process import Process

MIB = 1 << 20


@check(Severity.ERROR, traps=[building, task_in_flight, disks_out_of_sight])
def backing_file_missing(guest: Guest, host: Host, images: tuple[Image, ...]) -> Problems:
    """A disk's backing file is missing: the guest can't start again.

    A qcow2 overlay holds only what the guest changed; everything else is in its base image. While
    QEMU has the base open, the guest notices nothing, even if the file was deleted. The next start
    fails.

    Authority: The disk images.

    Traps: The path may be valid only inside the container that runs nova-compute.

    Next: See which file is missing; DISK is the path in the evidence:

        qemu-img info -U -f qcow2 --backing-chain DISK

    Look for a file of that name in `_base` of other hosts (compare the sizes), and for its image in
    glance. The name is the SHA-1 of the image's id:

        printf %s IMAGE | sha1sum

    Then copy the file from the other host to the missing path.

    Not yet: Do not stop, reboot or migrate a guest that still runs: the last copy may go with its
    process. Do not run `openstack server reboot --hard`: it downloads the image again under that
    name, even if the base was made from another image. Do not run `qemu-img rebase -u`.

    Source: OpenStack Operations Guide, "Disappearing Images"; nova bug 1602193 and its family.
    """
    if guest.domain is None and (guest.record is None or guest.record.deleted):
        return  # a leftover: nothing will start from it
    for image in images:
        if image.backing_missing and _is_gone(host, image):
            base = says(image, path=image.path, backing_filename=image.backing_filename)
            evidence = [base.and_so(file="missing")]
            if guest.process is not None:
                evidence.append(
                    says(guest.process, pid=guest.process.pid, state=guest.process.state)
                )
            yield tuple(evidence)


def _is_gone(host: Host, image: Image) -> bool:
    """True if the backing file was looked for in its place and does not exist.

    In a container a header names the container's paths, which qemu-img does not find outside.
    """
    named = re.findall(r"'(/[^']+)'", image.backing_missing or "")
    path = named[-1] if named else image.top.full_backing_filename or image.backing_filename or ""
    return host.images.entry(path) is None


@check(Severity.WARNING, traps=[building, task_in_flight, migrating])
def backing_not_image_ref(
    guest: Guest, images: tuple[Image, ...], record: Server | Instance
) -> Problems:
    """The disk uses another base image than the server's image.

    nova assumes that a disk's base image is the server's image. Whatever creates the disk again on
    another host (a resize, a cold migration, an evacuation) downloads the server's image under the
    old base's name, and the disk's changes then lie on top of the wrong blocks. Until Victoria,
    unshelving a server left such a disk: the disk uses the snapshot as its base, the record names
    the original image.

    Authority: The image's header, for the base that the disk uses; the nova database, for what nova
    will do.

    Traps: A rebuild in flight. A server that boots from a volume. Disks that are created blank
    (ephemeral, swap) or from another image on purpose (rescue).

    Next: Find the image that the base was made from, also among those of other projects; the base's
    name is the SHA-1 of the image's id:

        qemu-img info -U -f qcow2 DISK
        openstack image list --all
        printf %s IMAGE | sha1sum

    Then stop the server, copy the disk, and make a disk without a backing file from the copy:

        qemu-img convert -f qcow2 -O qcow2 COPY NEW

    Not yet: Do not resize, migrate, evacuate or shelve the server. Do not run `qemu-img rebase -u`.

    Source: nova bugs 1732428, 1893618 (fixed in Victoria), 1746032.
    """
    if record.image is None or record.deleted:
        return
    expected = base_of(record.image)
    for image in images:
        if not image.path.endswith(f"/{guest.uuid}/disk") or image.backing_filename is None:
            continue
        made_from = OF_AN_IMAGE.fullmatch(image.backing_filename.rpartition("/")[2])
        if made_from and made_from[1] != expected:
            base = says(image, path=image.path, backing_filename=image.backing_filename)
            yield says(record, image=record.image).and_so(base=expected), base


@check(Severity.ERROR, traps=[building, task_in_flight, disks_out_of_sight])
def base_replaced_or_truncated(
    images: tuple[Image, ...],
    host: Host,
    domain: Domain | None,
    process: Process | None,
    record: Server | Instance | None,
) -> Problems:
    """A base image has the right name but the wrong content.

    A qcow2 overlay holds only what the guest changed. If the base image is not the one that the
    overlay was made on, the guest reads a mixture of both. This happens when a base is removed and
    nova downloads another one under its name, when a download is cut off, or when a host crashes
    before the base was written to disk: the file then has the right size and is empty.

    Authority: The kernel, for the base that a running guest has open; glance, for the image's size.

    Traps: A converted base is larger than the downloaded image. The size of some images is not
    known. In a container the path leads to another file.

    Next: Compare the checksum with the same file in `_base` of another host:

        sha256sum INSTANCES_PATH/_base/BASE

    Leave the guests running: a guest that has the right base open can give it back. To see the
    files that a guest has open, with their sizes, run:

        ls -l /proc/PID/fd
        ls -lL /proc/PID/fd

    Not yet: Do not stop, reboot or migrate the guests that use this base. Do not remove the base
    "to let nova download it again".

    Source: nova bugs 1669844 (a base that was not written out before a crash), 1732428.
    """
    if domain is not None and process is not None:
        numbers = {file.ino for file in process.files}
        for path in _bases_in_use(domain):
            entry = host.images.entry(path)
            if entry is not None and entry.type == "f" and entry.ino not in numbers:
                yield (
                    says(process, pid=process.pid, files=_bases_held(process)),
                    hears(host.listing, "images", path, base=path, inode=entry.ino),
                )
    for image in images:
        base = image.backing_path
        if base is not None and is_base(base) and host.images.entry(base) is not None:
            yield from _wrong_size(host, image, base, record)


def _bases_in_use(domain: Domain) -> Iterator[str]:
    for disk in domain.disks if domain.id is not None else ():
        for below in disk.backing or ():
            if below.source is not None and is_base(below.source):
                yield below.source


def _bases_held(process: Process) -> str:
    held = {
        f"{file.path}{' (deleted)' if file.deleted else ''} (inode {file.ino})"
        for file in process.files
        if is_base(file.path)
    }
    return ", ".join(sorted(held)) or "no base"


def _wrong_size(host: Host, image: Image, path: str, record: Server | Instance | None) -> Problems:
    layers = [layer for layer in image.chain[1:2] if layer.path == path]
    for layer in layers:
        base = says(image, path=image.path, virtual_size=image.virtual_size)
        base = base.and_so(base=path, its_virtual_size=layer.virtual_size)
        if layer.virtual_size > image.virtual_size:
            yield (base,)
            continue
        made_from = record.image if record is not None else None
        if made_from is None or base_of(made_from) != path.rpartition("/")[2]:
            continue
        answer = host.bundle.last("glance", f"GET /v2/images/{made_from}")
        image_of_glance = value_of(answer, f"image {made_from}", dict[str, object])
        assert answer is not None  # noqa: S101 (value_of raised otherwise)
        size, stored = _sizes(image_of_glance)
        known = hears(answer, "image service", "virtual_size", virtual_size=size)
        entry = host.images.entry(path)
        if layer.virtual_size < size:
            yield base, known
        elif entry is not None and entry.blocks == 0 and stored > MIB:
            yield base.and_so(blocks=entry.blocks), known.and_so(size=stored)


def _sizes(image: Mapping[str, object]) -> tuple[int, int]:
    """Return the bytes that a guest sees of a glance image, and the bytes that glance stores for
    it."""
    form, stored = text(image, "disk_format"), integer(image, "size")
    size = stored if form == "raw" else integer(image, "virtual_size")
    if form not in ("raw", "qcow2") or size is None or stored is None:
        raise UnheardError("glance does not report the image's size")
    return size, stored


@check(Severity.ERROR, traps=[task_in_flight, migrating, disk_is_copied])
def chain_qmp_vs_ondisk(
    guest: Guest, domain: Domain, host: Host, images: tuple[Image, ...], monitor: Monitor | None
) -> Problems:
    """QEMU has another backing chain open than the disk's header names.

    A running QEMU uses the chain that it opened; the next start follows the header. If a header
    below a running guest was changed (`qemu-img rebase -u`, or a commit or snapshot that broke off
    half way), the guest works until it stops, and reads the wrong blocks after its next start.

    Authority: QEMU, for the guest's data; the image's header, for what the next start uses.

    Traps: A block job changes both, one after the other. A name may be relative, or lead through a
    link.

    Next: Compare the two chains, and check for a block job; TARGET is the disk's target (vda):

        virsh domblklist --details NAME
        qemu-img info -U -f qcow2 --backing-chain DISK
        virsh blockjob NAME TARGET --info

    Then, with the guest still running, copy its data, as the guest sees them, to a new file:

        virsh blockcopy NAME TARGET --dest NEW --format qcow2 --transient-job --wait --finish

    Not yet: Do not stop, reboot or migrate the guest. Do not run `qemu-img rebase -u` before the
    content of the base proves that it is the right one.

    Source: libvirt kbase, backing chains; nova bugs 2119353, 1885528, 1864020.
    """
    if domain.id is None:
        return
    for chain in _chains(domain, monitor):
        disks_out_of_sight(guest)  # raises if this path may lead to another file, or to none
        image = host.images.image(chain.files[0])
        if image is None or image.format != "qcow2":
            continue
        header = tuple(layer.path for layer in image.chain)
        same = len(header) == len(chain.files)
        if not same or any(
            not _is_same(host, *pair) for pair in zip(header, chain.files, strict=True)
        ):
            yield chain.evidence, says(image, chain=" ← ".join(header))


class _Chain(NamedTuple):
    """The files that QEMU has open for a disk, top first, with their evidence."""

    files: tuple[str, ...]
    evidence: Evidence


def _chains(domain: Domain, monitor: Monitor | None) -> Iterator[_Chain]:
    """Yield the open chain of every file-backed disk: from QEMU if it was asked, or libvirt."""
    if monitor is not None:
        for device in monitor.disks:
            if device.node is not None and device.node.file is not None:
                files = tuple(map(path_in, (device.node.file, *device.node.backing)))
                if all(file.startswith("/") for file in files):
                    yield _Chain(files, says(monitor, disks=" ← ".join(files)))
        return
    for disk in domain.disks:
        below = [image.source for image in disk.backing or () if image.source is not None]
        if disk.source is not None and disk.backing is not None:
            files = (disk.source, *below)
            if len(below) == len(disk.backing) and all(file.startswith("/") for file in files):
                yield _Chain(files, says(domain, disks=" ← ".join(files)))


def _is_same(host: Host, one: str, other: str) -> bool:
    """True if two paths lead to the same file. `UnheardError` if one of them was not looked at."""
    if one == other:
        return True
    first, second = host.images.entry(one), host.images.entry(other)
    return first is not None and second is not None and first.ino == second.ino
