"""What lies below a disk image: the base it stands on, and whether everybody means the same."""

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
from hoodsnap.facts.host.image import OF_AN_IMAGE, Image, base_of, is_base, path_in
from hoodsnap.facts.process.monitor import Monitor
from hoodsnap.facts.process.process import Process

MIB = 1 << 20


@check(Severity.ERROR, traps=[building, task_in_flight, disks_out_of_sight])
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


@check(Severity.WARNING, traps=[building, task_in_flight, migrating])
def backing_not_image_ref(
    guest: Guest, images: tuple[Image, ...], record: Server | Instance
) -> Problems:
    """The guest's disk stands on another base than the image that nova believes it was made from.

    nova takes the base of a disk to be that of the server's image. Whatever makes the disk anew
    elsewhere (a resize, a cold migration, an evacuation) downloads that image under the old base's
    name, and then the disk's differences lie on top of the wrong blocks. Until Victoria, unshelving
    a server left it so: its disk stands on the snapshot, its record names the first image.

    Authority: the image's header for what is; the nova database for what nova will do.

    Traps: a rebuild in flight; a server that boots from a volume; the disks that are made blank
    (ephemeral, swap) or from another image on purpose (rescue).

    Next: `qemu-img info -U DISK`, and `openstack image list` (also of other projects) for the image
    whose id has that SHA-1. Then, on the stopped guest and after a copy, `qemu-img convert` makes a
    disk that stands on nothing.

    Not yet: resizing, migrating, evacuating or shelving it; `qemu-img rebase -u`.

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
    """A base image has the right name and the wrong content.

    A qcow2 overlay holds only what the guest changed. If the blocks below it are others than those
    it was made on, the guest reads a mixture of both. That happens when somebody removes a base
    and nova downloads another one under its name, when a download is cut off, and when a host
    crashes before the base was written out: it has the right size then, and is empty.

    Authority: the kernel for the base that a running guest has open; glance for how large the
    image is.

    Traps: a base that was converted is larger than what was downloaded; images of which nobody
    knows how large they are; a container, where the path leads to another file.

    Next: compare `sha256sum` with the same file in `_base` of another host. Leave the guests
    running: those that have the right base open (`ls -lL /proc/PID/fd`) can give it back.

    Not yet: stopping, rebooting or migrating the guests that stand on it; removing the base "to let
    nova download it again".

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
    """Bytes that a guest sees of an image in glance, and bytes that glance keeps for it."""
    form, stored = text(image, "disk_format"), integer(image, "size")
    size = stored if form == "raw" else integer(image, "virtual_size")
    if form not in ("raw", "qcow2") or size is None or stored is None:
        raise UnheardError("glance does not know how large the image is")
    return size, stored


@check(Severity.ERROR, traps=[task_in_flight, migrating, disk_is_copied])
def chain_qmp_vs_ondisk(
    guest: Guest, domain: Domain, host: Host, images: tuple[Image, ...], monitor: Monitor | None
) -> Problems:
    """QEMU has other files open below a disk than the disk's own header names.

    While it runs, QEMU follows the chain that it opened; the next one who opens the disk follows
    the header. If somebody changed a header below a running guest (`qemu-img rebase -u`, a commit
    or a snapshot that broke off half way), the guest is well until it stops, and reads the wrong
    blocks afterwards.

    Authority: QEMU for what the guest's data are; the image's header for what the next start uses.

    Traps: a block job changes both, one after the other; a name may be relative, or lead through a
    link.

    Next: `virsh domblklist --details NAME`, `qemu-img info -U --backing-chain DISK`, and `virsh
    blockjob NAME vda --info`. Then, with the guest still running, `virsh blockcopy` to a new file
    takes its data along as the guest sees them.

    Not yet: stopping, rebooting or migrating it; `qemu-img rebase -u`, before the right base is
    proven by its content.

    Source: libvirt kbase, backing chains; nova bugs 2119353, 1885528, 1864020.
    """
    if domain.id is None:
        return
    for chain in _chains(domain, monitor):
        disks_out_of_sight(guest)  # raises: then this is the path of another file, or of none
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
    """The files that QEMU has open for a disk, the top first, and who says so."""

    files: tuple[str, ...]
    evidence: Evidence


def _chains(domain: Domain, monitor: Monitor | None) -> Iterator[_Chain]:
    """Of every disk that is a file: by QEMU's own word, else by libvirt's, which opened them."""
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
    """Whether two paths lead to the same file. `UnheardError` if nobody looked at one of them."""
    if one == other:
        return True
    first, second = host.images.entry(one), host.images.entry(other)
    return first is not None and second is not None and first.ino == second.ino
