"""Files that a domain's definition names, and the ones that its QEMU process has open.

A file that was renamed while QEMU has it open is still the guest's file, and the kernel shows its
new path.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence

from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.instances_directory import FolderEntry
from hoodsnap.facts.process.process import OpenFile, Process


def is_disk(file: OpenFile) -> bool:
    """True if an open file may be a disk: a file or block device that is not guest memory."""
    # Guest memory may be shared with a helper process by design.
    memory = file.path.startswith(("/dev/shm/", "/dev/hugepages", "/memfd:"))  # noqa: S108
    return not memory and (stat.S_ISREG(file.mode) or stat.S_ISBLK(file.mode))


def named_files(domain: Domain) -> Iterator[tuple[str, bool]]:
    """Yield the files that the domain's definition names; True if the guest writes to the file."""
    for disk in domain.disks:
        if disk.image.type == "file" and not disk.transient and disk.source is not None:
            for below in disk.backing or ():
                if below.type == "file" and below.source is not None:
                    yield below.source, False
            yield disk.source, not disk.read_only


def renamed_file(host: Host, process: Process, domain: Domain, path: str) -> OpenFile | None:
    """Return the open file that was at a path which no longer exists, under its new path.

    None unless exactly one file can be meant, and it is at the new path: the listing has it there,
    by inode, or the kernel shows it in the same folder. Raises `UnheardError`.
    """
    named = dict(named_files(domain))
    missing = [name for name in named if host.images.entry(name) is None]
    moved = [
        file
        for file in process.files
        if is_disk(file) and not file.deleted and file.path not in named
        if _is_there(host, process, file, path)
    ]
    files = [file for file in moved if file.path.startswith(path)] or [
        file for file in moved if file.writable == named.get(path)
    ]
    alike = [name for name in missing if named[name] == named.get(path)]
    only = len(files) == 1 and (files[0].path.startswith(path) or alike == [path])
    return files[0] if path in missing and only else None


def _is_there(host: Host, process: Process, file: OpenFile, path: str) -> bool:
    """True if an open file is where the kernel shows it, as the collector sees it."""
    try:
        entry = host.images.entry(file.path)
    except UnheardError:
        # It was not listed. The kernel's path is right, but a container may have another folder.
        beside = file.path.rpartition("/")[0] == path.rpartition("/")[0]
        return beside and not host.in_container(process)
    return entry is not None and entry.ino == file.ino


def inode_of(entry: FolderEntry) -> tuple[str, int]:
    """Return the identity of a file on the host: device and inode, as of an open file."""
    return entry.dev or "", entry.ino or 0


def detached_file(host: Host, process: Process, path: str) -> OpenFile | None:
    """Return the open file of a path whose file system is no longer mounted; None without one.

    The kernel shows the path within the file system of a mount that was taken away lazily, and the
    whole path if only QEMU's mount namespace still has the mount.
    """
    if any(path.startswith(f"{top}/") for top in host.images.tops):
        return None  # of the instances directory instances-path-not-mounted reports
    entry = host.images.entry(path)
    for file in process.files:
        if file.deleted or not is_disk(file) or not path.endswith(file.path):
            continue
        if entry is not None and entry.dev in (None, file.dev):
            return None  # the file, or another one in its place
        mount = host.devices.mount_of(path)
        if (mount is None or mount.number != file.dev) and not host.in_container(process):
            return file
    return None


def held_at(files: Sequence[OpenFile], path: str) -> OpenFile | None:
    """Return the open file that has, or had until it was deleted, this path; None without one."""
    return next((file for file in files if file.path == path and is_disk(file)), None)
