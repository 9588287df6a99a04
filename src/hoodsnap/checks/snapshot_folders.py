"""Folders of snapshots that nova did not finish."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from hoodsnap.check import Problems, check, problem
from hoodsnap.evidence import Severity, hears
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.instances_directory import FolderEntry
from hoodsnap.phrase import counted, place, several, size

SNAPSHOTS = "snapshots"
"""Default name of the folder in which nova-compute copies disks before it uploads them."""

OLD = timedelta(days=1)
"""Age from which a copy is not of a snapshot in progress, unless a server has such a task."""

TASKS = ("image_", "shelving", "rebuilding")
"""Beginnings of the task_states in which nova copies a disk, or uploads the copy."""


@check(Severity.NOTE)
def snapshot_folder_left(host: Host, cloud: Cloud) -> Problems:
    """Copies of disks are left from snapshots that nova did not finish.

    For a snapshot, or to shelve a server, nova-compute copies the disk into a temporary folder,
    uploads the copy to glance, and removes the folder. If nova-compute or the host ends meanwhile,
    nothing removes it. The copy may be as large as the disk, and its space counts as free for
    placement.

    Authority: The host's file system.

    Traps: A large copy is uploaded for hours without being written: nothing is reported while a
    server of this host has such a task, or before the copy is a day old.

    Next: Check the folder's files, and that no process has one of them open:

        ls -lR SNAPSHOT_FOLDER
        fuser -v SNAPSHOT_FOLDER/*

    Check that no server of this host is being snapshotted or shelved:

        openstack server list --all-projects --host HOST --long

    Then remove the folder, which no server refers to:

        rm -r SNAPSHOT_FOLDER

    It worked if the folder is gone:

        ls -l INSTANCES_PATH/snapshots

    Not yet: Do not remove the folder `snapshots` itself: nova-compute does not create it with the
    access that QEMU needs.

    Source: nova virt/libvirt/driver.py `snapshot` (`utils.tempdir`), `snapshots_directory`.
    """
    if not host.images.tops:
        raise UnheardError("the instances directory was not collected")
    busy = [
        guest
        for guest in cloud.guests_of(host)
        if guest.record is not None and (guest.record.task_state or "").startswith(TASKS)
    ]
    listing = host.images.listing
    if busy or listing is None:
        return
    for top in host.images.tops:
        folders = [*_left(host, f"{top}/{SNAPSHOTS}", listing.at)]
        if folders:
            taken = sum(bytes_ for _, bytes_ in folders)
            first = folders[0][0]
            names = several(place(path) for path, _ in folders)
            yield problem(
                f"{counted(len(folders), 'folder')} of unfinished snapshots on {host.name} "
                f"({size(taken)}): {names}",
                *(hears(listing, "images", path, folder=path, bytes=n) for path, n in folders),
                SNAPSHOT_FOLDER=first,
                INSTANCES_PATH=top,
            )


def _left(host: Host, parent: str, now: datetime) -> Iterator[tuple[str, int]]:
    """Yield each old temporary folder with files, and the bytes that they take."""
    for path, files in host.images.below(parent).items():
        written = [moment(entry.mtime) for entry in files]
        if files and all(time is not None and now - time > OLD for time in written):
            yield path, sum(map(_taken, files))


def _taken(entry: FolderEntry) -> int:
    return entry.blocks * 512 if entry.blocks is not None else entry.size
