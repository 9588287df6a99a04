"""Image chains: the base images below a disk, and whether all layers agree on them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice, pairwise
from typing import Any, NamedTuple

from hoodsnap import phrase
from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.traps import (
    building,
    disk_is_copied,
    disks_out_of_sight,
    migrating,
    task_in_flight,
)
from hoodsnap.evidence import Evidence, Severity, derives, hears, says
from hoodsnap.facts.api.server import Server
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.held_files import held_at, renamed_file
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import UnheardError, integer, known, text, value_of
from hoodsnap.facts.host.image import Image, path_in
from hoodsnap.facts.host.instances_directory import OF_AN_IMAGE, base_of, is_base
from hoodsnap.facts.process.monitor import Monitor
from hoodsnap.facts.process.process import OpenFile, Process

MIB = 1 << 20

MOST_OTHERS = 500
"""Guests of a host to ask at most whether they have a missing file open under a new name."""


@check(Severity.ERROR, traps=[building, task_in_flight, disks_out_of_sight])
def backing_file_missing(
    guest: Guest, host: Host, cloud: Cloud, images: tuple[Image, ...]
) -> Problems:
    """A disk's backing file is missing: the guest can't start again.

    A qcow2 overlay holds only what the guest changed; everything else is in its base image. While
    QEMU has the base open, the guest notices nothing, even if the file was deleted. The next start
    fails.

    Authority: The disk images.

    Traps: The path may be valid only inside the container that runs nova-compute.

    Next: See which file is missing, and whether it has another name now:

        qemu-img info -U -f qcow2 --backing-chain DISK
        ls -li INSTANCES_PATH/_base

    If it has another name (the evidence of a guest that runs shows it), give it the old name as a
    second one. Nothing is copied, and a guest that runs is not disturbed:

        ln FOUND MISSING

    If it was deleted while a guest has it open, copy it out as `hoodsnap checks
    disk-deleted-but-open` describes. If no process has it, copy the file of that name from `_base`
    of another host (compare the sizes) to the missing path. The name is the SHA-1 of the id of its
    image in glance:

        printf %s IMAGE | sha1sum

    It worked if qemu-img shows the whole chain, without an error:

        qemu-img info -U -f qcow2 --backing-chain DISK

    Not yet: Do not stop, reboot or migrate a guest that still runs: the last copy may go with its
    process. Do not run `openstack server reboot --hard`: it downloads the image again under that
    name, even if the base was made from another image. Do not run `qemu-img rebase -u`.

    Source: OpenStack Operations Guide, "Disappearing Images"; nova bug 1602193 and its family.
    """
    if guest.domain is None and (guest.lacks_record or _is_deleted(guest)):
        return  # a leftover: nothing will start from it
    for image in images:
        missing = _missing_file(image)
        # In a container a header names the container's paths, which qemu-img does not find outside.
        if missing is not None and host.images.entry(missing) is None:
            base = says(image, path=image.path, backing_filename=image.backing_filename)
            evidence = [base.and_so(file="missing")]
            if guest.process is not None:
                evidence.append(
                    says(guest.process, pid=guest.process.pid, state=guest.process.state)
                )
            holder, found = _renamed(host, cloud, guest, missing)
            if found is not None and holder is not None:
                evidence.append(
                    says(holder, files=f"{found.path} (fd {found.fd}, inode {found.ino})")
                )
            yield problem(
                _of_a_missing_base(guest, missing, found),
                *evidence,
                DISK=image.path,
                MISSING=missing,
                FOUND=found.path if found is not None else None,
                IMAGE=cloud.image_of_base.get(missing.rpartition("/")[2]) if found is None else "",
            )


def _missing_file(image: Image) -> str | None:
    """Return the file of a chain that qemu-img did not find; None if it found all."""
    if not image.backing_missing:
        return None
    named = re.findall(r"'(/[^']+)'", image.backing_missing)
    return named[-1] if named else image.top.full_backing_filename or image.backing_filename or ""


def _renamed(
    host: Host, cloud: Cloud, guest: Guest, path: str
) -> tuple[Process | None, OpenFile | None]:
    """Return the open file that a missing one is now, and the process that has it open: the
    guest's, or another guest's on the same host if this one does not run."""
    others = islice(cloud.guests_of(host), MOST_OTHERS) if guest.process is None else ()
    for one in (guest, *others):
        process, domain = one.process, one.domain
        if process is not None and domain is not None:
            found = known(partial(renamed_file, host, process, domain, path))
            if found is not None:
                return process, found
    return None, None


def _of_a_missing_base(guest: Guest, path: str, found: OpenFile | None) -> str:
    what = "base image" if is_base(path) else "disk's backing file"
    if found is not None:
        new = phrase.place(found.path)
        if guest.process is None:
            return f"{guest.title} can't start: its {what} was renamed to {new}"
        return f"{guest.title}'s {what} was renamed to {new} while QEMU has it open"
    process = guest.process
    if process is None:
        return f"{guest.title} can't start: its {what} {phrase.place(path)} is missing"
    held = known(lambda: held_at(process.files, path))
    where = f"; its QEMU still has it open (fd {held.fd})" if held is not None else ""
    return f"{guest.title} runs, but its {what} {phrase.place(path)} is missing{where}"


@check(Severity.WARNING, traps=[building, task_in_flight, migrating])
def backing_not_image_ref(
    guest: Guest, host: Host, cloud: Cloud, images: tuple[Image, ...], record: Server | Instance
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

    See which base image the last starts of the guest used; the last line is the newest:

        grep -o "_base/[0-9a-f]*" /var/log/libvirt/qemu/NAME.log

    If the last start used the base of the server's image, the disk was rebased by hand since, and
    its data belongs to that base: on any other base, also in a copy without a base, it is garbage.
    Name the old base again while the server is off:

        qemu-img rebase -u -f qcow2 -F FORMAT -b OLD_BASE DISK

    It worked if the backing file is the base of the server's image:

        qemu-img info -U -f qcow2 DISK

    Otherwise, stop the server if it runs, which shuts the guest down:

        openstack server stop RUNS

    If the last start used the base that the header names now, the disk is complete, and only nova's
    record differs. While the server is off, copy the disk, and make a disk without a backing file
    from the copy:

        cp --sparse=always DISK COPY
        qemu-img convert -f qcow2 -O qcow2 COPY NEW

    It worked if the new disk has the same virtual size and no backing file:

        qemu-img info -U -f qcow2 NEW

    Not yet: Do not start, resize, migrate, evacuate or shelve the server. Do not change the disk
    before the log shows which base the last start used.

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
            name = cloud.image_names.get(record.image)
            named = f"image {name}" if name is not None else f"image {record.image[:8]}"
            other = cloud.image_of_base.get(made_from[1])
            source = f" (image {cloud.image_names.get(other, other)})" if other is not None else ""
            yield problem(
                f"{guest.title}'s disk is based on _base/{made_from[1][:8]}{phrase.brief(source)},"
                f" but its {named} is _base/{expected[:8]}",
                says(record, image=record.image).and_so(base=expected),
                says(image, path=image.path, backing_filename=image.backing_filename),
                DISK=image.path,
                IMAGE=other,
                RUNS=guest.uuid if guest.process is not None else "",
                **_rebased(guest, host, image, expected),
            )


def _rebased(guest: Guest, host: Host, image: Image, expected: str) -> dict[str, Any]:
    """Return the placeholders for naming the base of the server's image in a disk's header again.

    Empty values if the guest runs, or if that base does not exist on the host.
    """
    folder = host.images.listed_path(image.backing_filename or "").rpartition("/")[0]
    base = f"{folder}/{expected}"
    if guest.process is not None or not known(partial(host.images.entry, base)):
        return {"OLD_BASE": ""}
    return {"OLD_BASE": base, "FORMAT": image.top.backing_format or "raw"}


@check(Severity.ERROR, traps=[building, task_in_flight, disks_out_of_sight])
def base_replaced_or_truncated(
    guest: Guest,
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

    Next: Compare size and checksum with the same file in `_base` of another host, and see which
    processes have base images open:

        ls -lsi BASE
        sha256sum BASE
        ls -l /proc/[0-9]*/fd | grep _base

    Leave the guests running. If the file was replaced, a guest that has the old file open (another
    inode) can give it back. A file that was cut, but has the same inode, is cut for all guests, and
    its end has to come from glance. Make the base again beside it:

        openstack image save --file COPY IMAGE
        qemu-img convert -f IMAGE_FORMAT -O raw COPY NEW

    If both files are the same up to the end of the cut one (`cmp` reports only EOF), write the new
    one over the base without replacing the file, so that running guests read it, too:

        cmp BASE NEW

    The write keeps the inode:

        dd if=NEW of=BASE bs=1M conv=notrunc

    It worked if both files are the same:

        cmp BASE NEW

    Not yet: Do not stop, reboot or migrate the guests that use this base. Do not remove the base
    "to let nova download it again". Do not move a new file over it.

    Source: nova bugs 1669844 (a base that was not written out before a crash), 1732428.
    """
    if domain is not None and process is not None:
        numbers = {file.ino for file in process.files}
        lost = {file.path for file in process.lost_files}  # file-handle-stale reports them
        for path in _bases_in_use(domain):
            if path in lost:
                continue
            entry = host.images.entry(path)
            if entry is not None and entry.type == "f" and entry.ino not in numbers:
                yield problem(
                    f"{guest.title}'s base image {phrase.place(path)} was replaced: its QEMU has"
                    f" {_names_held(process, path)} open, not inode {entry.ino}",
                    says(process, pid=process.pid, files=_bases_held(process)),
                    hears(host.listing, "images", path, base=path, inode=entry.ino),
                    BASE=path,
                    IMAGE="",
                    NEW="",
                )
    for image in images:
        base = image.backing_path
        if base is not None and is_base(base) and host.images.entry(base) is not None:
            yield from _wrong_size(guest, host, image, base, record)


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


def _names_held(process: Process, path: str) -> str:
    """Return the base images that a process has open, as far as they are not called like a path."""
    name = path.rpartition("/")[2]
    held = {
        f"{other} (inode {file.ino})" if other != name else f"inode {file.ino}"
        for file in process.files
        if is_base(file.path) and (other := file.path.rpartition("/")[2])
    }
    return phrase.brief(phrase.several(sorted(held)) or "no base image")


def _wrong_size(
    guest: Guest, host: Host, image: Image, path: str, record: Server | Instance | None
) -> Problems:
    subject = f"{guest.title}'s base image {phrase.place(path)}"
    layers = [layer for layer in image.chain[1:2] if layer.path == path]
    for layer in layers:
        base = derives(
            image,
            *("path", "virtual_size"),
            path=image.path,
            virtual_size=image.virtual_size,
            base=path,
            base_virtual_size=layer.virtual_size,
        )
        if layer.virtual_size > image.virtual_size:
            below, above = phrase.sizes(layer.virtual_size, image.virtual_size)
            yield problem(
                f"{subject} has {below}, more than its disk's {above}",
                base,
                BASE=path,
                IMAGE="",
                NEW="",
            )
            continue
        made_from = record.image if record is not None else None
        if made_from is None or base_of(made_from) != path.rpartition("/")[2]:
            continue
        answer = host.bundle.last("glance", f"GET /v2/images/{made_from}")
        image_of_glance = value_of(answer, f"image {made_from}", dict[str, object])
        assert answer is not None  # noqa: S101 (value_of raised otherwise)
        size, stored = _sizes(image_of_glance)
        told = hears(answer, "image service", "virtual_size", virtual_size=size)
        entry = host.images.entry(path)
        if layer.virtual_size < size:
            below, whole = phrase.sizes(layer.virtual_size, size)
            yield problem(
                f"{subject} has only {below} of its image's {whole}",
                base,
                told,
                BASE=path,
                IMAGE=made_from,
                IMAGE_FORMAT=text(image_of_glance, "disk_format"),
            )
        elif entry is not None and entry.blocks == 0 and stored > MIB:
            yield problem(
                f"{subject} is empty on disk, but its image has {phrase.size(stored)}",
                base.and_so(blocks=entry.blocks),
                told.and_so(size=stored),
                BASE=path,
                IMAGE=made_from,
                IMAGE_FORMAT=text(image_of_glance, "disk_format"),
            )


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

    Next: Compare the two chains, and check for a block job:

        virsh domblklist --details NAME
        qemu-img info -U -f qcow2 --backing-chain DISK
        virsh blockjob NAME TARGET --info

    Then, with the guest still running, copy its data, as the guest sees them, to a new file. The
    guest's own disk stays as it is:

        virsh blockcopy NAME TARGET --dest NEW --format qcow2 --transient-job --wait --finish

    It worked if the new file has the disk's virtual size and no backing file:

        qemu-img info -U -f qcow2 NEW

    Not yet: Do not stop, reboot or migrate the guest. Do not run `qemu-img rebase -u` before the
    content of the base proves that it is the right one.

    Source: libvirt kbase, backing chains; nova bugs 2119353, 1885528, 1864020.
    """
    if domain.id is None:
        return
    if monitor is not None:
        yield from _named_by_qemu(guest, domain, host, monitor)
    for chain in _chains(domain, monitor):
        disks_out_of_sight(guest)  # raises if this path may lead to another file, or to none
        image = host.images.image(chain.files[0])
        if image is None or image.format != "qcow2":
            continue
        header = _named_chain(host, image)
        same = len(header) == len(chain.files)
        if not same or any(
            not _is_same(host, *pair) for pair in zip(header, chain.files, strict=True)
        ):
            yield problem(
                f"{guest.title}'s QEMU uses {_below(chain.files, header)} below its disk"
                f" {phrase.place(chain.files[0])}, but the disk's header names"
                f" {_below(header, chain.files)}",
                chain.evidence,
                says(image, chain=" ← ".join(header)),
                DISK=image.path,
                TARGET=known(partial(_target, domain, chain.files[0])),
            )


def _named_by_qemu(guest: Guest, domain: Domain, host: Host, monitor: Monitor) -> Iterator[Problem]:
    """Yield disks whose header, as QEMU itself read it, names another backing file."""
    for device in monitor.disks:
        node = device.node
        if node is None or node.file is None or node.named_backing is None or not node.backing:
            continue
        named, below = path_in(node.named_backing), path_in(node.backing[0])
        if not named.startswith("/") or not below.startswith("/"):
            continue
        disks_out_of_sight(guest)  # raises if this path may lead to another file, or to none
        if not _is_same(host, named, below):
            yield problem(
                f"{guest.title}'s QEMU uses {phrase.place(below)} below its disk"
                f" {phrase.place(node.file)}, but read {phrase.place(named)} in the disk's header",
                says(monitor, disks=f"{node.file} ← {below}"),
                derives(monitor, "disks", named_backing=named),
                DISK=path_in(node.file),
                TARGET=known(partial(_target, domain, path_in(node.file))),
            )


def _named_chain(host: Host, image: Image) -> tuple[str, ...]:
    """Return the files that the headers name, up to one that qemu-img did not open."""
    files = [image.chain[0].path]
    for above, layer in pairwise(image.chain):
        others = [name for name in sorted(above.below) if not _is_same(host, name, layer.path)]
        if others:
            return (*files, others[0])
        files.append(layer.path)
    return tuple(files)


def _below(files: Sequence[str], others: Sequence[str]) -> str:
    """Return the first file of a chain that differs from the other chain's; the top is equal."""
    for number, file in enumerate(files):
        if number and others[number : number + 1] != (file,):
            return phrase.place(file)
    return "no file"


def _target(domain: Domain, path: str) -> str | None:
    return next((disk.target for disk in domain.disks if disk.source == path), None)


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


def _is_deleted(guest: Guest) -> bool:
    return guest.record is not None and guest.record.deleted
