"""Disk images: the format they are read in, and the files that their headers name."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise

from hoodsnap import phrase
from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.traps import (
    boots_from_volume,
    building,
    disk_is_copied,
    disks_out_of_sight,
    migrating,
    never_started,
    task_in_flight,
)
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.api.server import Server
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.cloud.image_cache import OF_EPHEMERAL, OF_SWAP
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.disk import Disk
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import UnheardError, integer, known, value_of
from hoodsnap.facts.host.image import Image, ImageInfo
from hoodsnap.facts.host.instances_directory import BASE, OF_AN_IMAGE, disk_owner, is_base, owner_of
from hoodsnap.facts.process.process import Process

EMPTY = 1 << 20
"""Bytes that an image without any data takes at most: header and empty tables."""

REFUSES_TO_PROBE = 6_000_000
"""libvirt 6.0.0, as libvirt encodes its version."""

QCOW2 = b"QFI\xfb".hex()
"""Magic number: the first bytes of every qcow2 image."""


@check(Severity.ERROR, traps=[task_in_flight, migrating])
def disk_format_mismatch(
    guest: Guest, domain: Domain, host: Host, process: Process | None
) -> Problems:
    """A disk is read in another format than it has, or than nova recorded for it.

    If a qcow2 disk is read as raw, the guest sees qcow2 tables instead of its data, and the first
    write destroys them. If a raw disk is read as qcow2, the guest can write a qcow2 header that
    names any file of the host. To prevent that, nova records each disk's format in `disk.info` and
    never detects it again. If that file is changed or removed, the protection is gone.

    Authority: The file's first bytes, for a disk that is read as qcow2; `disk.info` for what nova
    will do.

    Traps: A guest may write anything onto a raw disk, including the beginning of a qcow2 image.
    That is harmless as long as the disk is read as raw and recorded as raw. An encrypted disk is
    raw to libvirt and LUKS to QEMU.

    Next: Compare the three formats:

        cat FOLDER/disk.info
        head -c 4 DISK | od -c
        virsh dumpxml NAME | grep -A1 "<disk"

    Then, while the guest is off, correct the one that is wrong.

    Not yet: Do not run `openstack server start` or `reboot --hard`, which rely on `disk.info`. Do
    not remove `disk.info`. Do not run `qemu-img info` or `convert` on a raw disk without `-f raw`.

    Source: OSSA-2015-011, OSSA-2016-001 (CVE-2015-7548), OSSA-2016-007 (CVE-2016-2140),
    OSSA-2026-002.
    """
    for disk in domain.disks if domain.id is not None else domain.inactive_disks:
        if disk.source is None or disk.format not in ("raw", "qcow2") or disk.image.type != "file":
            continue
        image = host.images.image(disk.source)
        # The record of a borrowed disk matters to its owner, for which it is compared, too.
        own = disk_owner(disk.source) in (None, guest.uuid)
        if own and image is not None and _declared(image) not in (None, disk.format):
            recorded = says(image, declared=image.declared)
            yield _misread(guest, domain, disk, f"nova recorded {image.declared}", recorded)
            continue
        if own and image is not None and _declared(image) and _of_another(image):
            owners = phrase.several(sorted(image.declared_owners))
            path = phrase.place(f"{image.path.rpartition('/')[0]}/disk.info")
            yield problem(
                f"{guest.title}'s {path} names disks of another server: {phrase.brief(owners)}",
                says(image, path=image.path, declared_owners=owners),
                severity=Severity.WARNING,
                DISK=image.path,
                FOLDER=image.path.rpartition("/")[0],
            )
        read_as = {image.format, image.top.specific} if image is not None else set()
        if image is not None and (others := read_as - {disk.format, None}):
            found = says(image, path=image.path, format=image.format)
            other = phrase.several(sorted(map(str, others)))
            yield _misread(guest, domain, disk, f"qemu-img reads it as {other}", found)
            continue
        for above, below in pairwise(_chain(image)):
            if above.backing_format not in (None, below.format):
                of_base = says(image, path=image.path) if image is not None else None
                yield problem(
                    f"{guest.title}'s {phrase.place(above.path)} is on a base in format"
                    f" {above.backing_format}, but qemu-img reads it as {below.format}",
                    *([of_base.and_so(base=below.path)] if of_base is not None else []),
                    DISK=disk.source,
                    FOLDER=disk.source.rpartition("/")[0],
                )
        yield from _backing_misread(guest, domain, disk, image)
        if process is not None:
            for drive in process.disks:
                if drive.source == disk.source and drive.format not in (None, "luks", disk.format):
                    started = f"{drive.source} is {drive.format}"
                    evidence = says(process, pid=process.pid, disks=started)
                    what = f"QEMU was started with {drive.format}"
                    yield _misread(guest, domain, disk, what, evidence)
        magic = _magic(host, disk.source)
        if disk.format == "qcow2" and magic is not None and not magic.startswith(QCOW2):
            found = hears(host.listing, "images", disk.source, first_bytes=magic)
            what = f"it starts with {magic[:8]}, not {QCOW2}"
            yield _misread(guest, domain, disk, what, found)
        if image is None:
            disks_out_of_sight(guest)  # raises if nova's format for this disk is out of sight


def _backing_misread(
    guest: Guest, domain: Domain, disk: Disk, image: Image | None
) -> Iterator[Problem]:
    """Compare the formats in which libvirt and qemu-img read the files below a disk."""
    known = {below.path: below.format for below in _chain(image)[1:]}
    for below in disk.backing or ():
        its = known.get(below.source or "")
        if image is not None and its and below.format not in (None, "luks", its):
            yield problem(
                f"{guest.title}'s {phrase.place(below.source or '')} is read as {below.format} "
                f"below its disk, but qemu-img reads it as {its}",
                says(domain, disks=f"{below.source} is {below.format}"),
                says(image, path=image.path).and_so(base=below.source, base_format=its),
                DISK=disk.source,
                FOLDER=(disk.source or "").rpartition("/")[0],
            )


def _of_another(image: Image) -> bool:
    """True if the `disk.info` beside an image is about the disks of another folder."""
    return bool(image.declared_owners - {owner_of(image.path)})


def _chain(image: Image | None) -> tuple[ImageInfo, ...]:
    try:
        return image.chain if image is not None else ()
    except UnheardError:
        return ()  # a broken chain is reported by another check


def _misread(guest: Guest, domain: Domain, disk: Disk, what: str, evidence: Evidence) -> Problem:
    path = disk.source or ""
    return problem(
        f"{guest.title}'s disk {phrase.place(path)} is read as {disk.format}, but {what}",
        says(domain, disks=f"{path} is {disk.format}"),
        evidence,
        DISK=path,
        FOLDER=path.rpartition("/")[0],
    )


def _declared(image: Image) -> str | None:
    """Return the format that nova recorded; None before Icehouse and for volumes."""
    return image.declared if "disk.info" in image.said else None


def _magic(host: Host, path: str) -> str | None:
    try:
        entry = host.images.entry(path)
    except UnheardError:
        return None
    return entry.magic if entry is not None and entry.size else None


@check(Severity.ERROR, traps=[building, task_in_flight, migrating, disk_is_copied])
def backing_format_missing(
    guest: Guest, domain: Domain, host: Host, images: tuple[Image, ...]
) -> Problems:
    """A disk's header names its backing file without a format: the guest can't start again.

    A qcow2 header names the backing file and the format of that file. Without the format, libvirt
    would have to detect it from the file's first bytes, and follow a header that a guest may have
    written. Since 6.0, libvirt refuses to start a guest if a file whose format it detected has a
    backing file of its own: "format of backing image … was not specified in the image metadata".
    Old backup tools leave such headers, and so does `qemu-img rebase -u -b` without `-F`.

    Authority: The image's header.

    Traps: A backing file that has no backing file itself, such as nova's base images: libvirt
    detects its format. nova wrote no format before Train. A definition with `<backingStore>`
    elements: libvirt follows the definition and not the headers.

    Next: Check which file of the chain has a "backing file", but no "backing file format":

        qemu-img info -U -f qcow2 --backing-chain DISK

    Compare the chain with the files that the last start opened; the last lines are the newest:

        grep -o '"filename":"[^"]*"' /var/log/libvirt/qemu/NAME.log

    If the server runs and the files are the same, stop it, which shuts the guest down:

        openstack server stop RUNS

    Once the server is off, write the format into the header. The name of the backing file stays the
    same, and with `-u` no data is read or written:

        qemu-img rebase -u -f qcow2 -b BASE -F FORMAT LAYER

    It worked if each file of the chain with a "backing file" has a "backing file format":

        qemu-img info -U -f qcow2 --backing-chain DISK

    Not yet: Do not change a header while the guest runs, and name no other backing file than the
    header does now. Do not reboot or migrate a guest that still runs.

    Source: libvirt src/storage_file/storage_source.c `virStorageSourceGetMetadataRecurse`; libvirt
    kbase, backing chains; nova bug 1864020.
    """
    if not domain.persistent or not _refuses_to_probe(host):
        return
    by_path = {image.path: image for image in images}
    for disk in domain.inactive_disks:
        image = by_path.get(disk.source or "")
        if image is None or disk.format != "qcow2" or disk.names_backing:
            continue
        for above, below in pairwise(_chain(image)):
            if above.backing_format is not None or below.backing_filename is None:
                continue
            start = "runs, but can't start again" if guest.process is not None else "can't start"
            what = "disk" if above.path == image.path else "backing file"
            named = f"{guest.title} {start}: its {what} {phrase.place(above.path)} does not name"
            header = says(image, path=image.path)
            yield problem(
                f"{named} the format of its backing file {phrase.place(below.path)}",
                header.and_so(layer=above.path, backing_filename=above.backing_filename),
                DISK=image.path,
                LAYER=above.path,
                BASE=above.backing_filename,
                FORMAT=below.format,
                RUNS=guest.uuid if guest.process is not None else "",
            )


def _refuses_to_probe(host: Host) -> bool:
    """True if the host's libvirt does not look below a file whose format it had to detect."""
    answer = host.hypervisor.answer("libvirt", "virsh version")
    daemon = integer(value_of(answer, "libvirt's version", dict[str, object]), "daemon")
    if daemon is None:
        raise UnheardError("libvirt did not report its version")
    return daemon >= REFUSES_TO_PROBE


@check(Severity.ERROR, traps=[building, never_started, task_in_flight, migrating, disk_is_copied])
def disk_empty(
    guest: Guest, host: Host, images: tuple[Image, ...], record: Server | Instance
) -> Problems:
    """The disk of a server that has run is empty: another file is in its place.

    nova makes a server's disk on top of its base image, or copies the image into it. A file with
    neither a backing file nor any data is not that disk, even if its name and size are right. It
    was created by hand, by a repair that stopped half way, or by a restore that restored nothing.
    The next start finds no operating system.

    Authority: The image's header, and the space that the file takes.

    Traps: Disks that are created blank (ephemeral, swap). A server that boots from a volume, or
    that has never been started. A server made from an image that is itself empty.

    Next: Check the header, the size on disk and the time at which the file was made:

        qemu-img info -U -f FORMAT DISK
        ls -lsi --full-time DISK

    Look for the server's real disk: a copy in `UUID_resize` or beside it, and the file that QEMU
    has open if the guest still runs:

        ls -lsid INSTANCES_PATH/UUID*/*
        ls -lLi /proc/PID/fd

    If the disk is found, give it back its name while the guest is off. If it isn't, restore it from
    a backup, or rebuild the server.

    Not yet: Do not start, reboot or resize the server: the guest may write a new system onto the
    empty disk.

    Source: nova virt/libvirt/imagebackend.py `Qcow2.create_image`.
    """
    if record.image is None or record.deleted or boots_from_volume(guest):
        return
    for image in images:
        if not image.path.endswith(f"/{guest.uuid}/disk") or image.backing_filename is not None:
            continue
        entry = host.images.entry(image.path)
        taken = image.actual_size
        if taken is None or taken > EMPTY or image.virtual_size <= EMPTY or image.data_file:
            continue
        if (known(partial(_stored_size, host, record.image)) or EMPTY + 1) <= EMPTY:
            continue
        has, size = phrase.size(taken), phrase.size(image.virtual_size)
        yield problem(
            f"{guest.title}'s disk {phrase.place(image.path)} is empty: it has no backing file and"
            f" takes {has} of {size}",
            says(image, path=image.path, actual_size=taken, virtual_size=image.virtual_size),
            says(record, image=record.image),
            *([hears(host.listing, "images", image.path, mtime=entry.mtime)] if entry else []),
            DISK=image.path,
            FORMAT=image.format,
            PID=guest.process.pid if guest.process is not None else "",
        )


def _stored_size(host: Host, image: str) -> int | None:
    """Return the bytes that glance stores for an image."""
    answer = host.bundle.last("glance", f"GET /v2/images/{image}")
    return integer(value_of(answer, f"image {image}", dict[str, object]), "size")


@check(Severity.ERROR, traps=[building, disk_is_copied])
def image_unsafe_reference(guest: Guest, host: Host, images: tuple[Image, ...]) -> Problems:
    """A disk's header names a file that no disk of nova may be based on.

    A qcow2 header may name any file as its backing file or data file. If such an image was
    uploaded, or if a guest wrote such a header onto its raw disk, QEMU opens that file on the host
    and shows it to the guest: a password file, another server's disk. nova's own disks are based
    only on raw files in `_base`.

    Authority: The image's header.

    Traps: A snapshot is based on the disk beside it. Volumes on NFS are based on their own
    snapshots. The image cache may have another name (hosts that shared a directory had one each).

    Next: Find the file that the header names, when the disk was created, and from which image:

        qemu-img info -U -f qcow2 DISK
        openstack server show UUID

    Then pause the server if it runs, keep the disk as evidence, and deactivate the image. The guest
    stands still until it is unpaused, and no other server can be made from the image:

        openstack server pause UUID
        openstack image set --deactivate IMAGE

    It worked if the server is PAUSED and the image is deactivated:

        openstack server show UUID
        openstack image show IMAGE

    Not yet: Do not run `qemu-img convert` on the disk. Do not take a snapshot or a backup of the
    server. Each copies the contents of the file to a place that the server's owner can read.

    Source: OSSA-2024-001 (CVE-2024-32498), OSSA-2024-002, OSSA-2023-002 (CVE-2022-47951); QEMU
    docs/interop/qcow2 (data file, backing file).
    """
    for image in images:
        if image.data_file is not None:
            yield problem(
                f"{guest.title}'s disk {phrase.place(image.path)} keeps its data in another file,"
                f" {phrase.brief(image.data_file)}",
                says(image, path=image.path, data_file=image.data_file),
                DISK=image.path,
                IMAGE=known(lambda: _image_of(guest)),
            )
        for above, below in _steps(image):
            if not _may_stand_on(guest, above, host.images.listed_path(below)):
                what = "base image" if is_base(above) else "disk"
                yield problem(
                    f"{guest.title}'s {what} {phrase.place(above)} is based on"
                    f" {phrase.brief(below)}, which is no base image of nova",
                    says(image, path=image.path).and_so(layer=above, backing_filename=below),
                    DISK=image.path,
                    IMAGE=known(lambda: _image_of(guest)),
                )


def _image_of(guest: Guest) -> str | None:
    return guest.record.image if guest.record is not None else None


def _steps(image: Image) -> Iterator[tuple[str, str]]:
    """Yield each file of a chain with its header's name for the file below."""
    try:
        layers: tuple[ImageInfo, ...] = image.chain
    except UnheardError:
        layers = (image.top,)
    for layer in layers:
        if layer.backing_filename is not None:
            yield layer.path, layer.backing_filename


def _may_stand_on(guest: Guest, above: str, below: str) -> bool:
    if is_base(above):
        return False
    if _is_in_a_cache(above, below):
        return True
    folder, _, name = below.rpartition("/")
    if not folder and ":" not in name:
        return True  # in the same folder
    if not below.startswith("/"):
        return ":" not in below and ".." not in below
    beside = folder == above.rpartition("/")[0]
    return _is_base(below) or beside or owner_of(below) == guest.uuid


def _is_in_a_cache(above: str, below: str) -> bool:
    """True if a disk is based on an image file in a folder beside its guest's folder.

    The cache may have any name (`image_cache_subdirectory_name`).
    """
    cache, _, name = below.rpartition("/")
    top = above.rpartition("/")[0].rpartition("/")[0]
    made = any(one.fullmatch(name) for one in (OF_AN_IMAGE, OF_SWAP, OF_EPHEMERAL))
    return made and bool(top) and cache.rpartition("/")[0] == top


def _is_base(path: str) -> bool:
    return path.rpartition("/")[0].endswith(f"/{BASE}")
