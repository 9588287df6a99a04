"""The image cache: base images that nova would remove, leftovers, and hosts that share a cache."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from hoodsnap import phrase
from hoodsnap.check import Problems, check, problem
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.cloud.image_cache import SIGNED_UP, ImageCache
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.image import Image
from hoodsnap.facts.host.instances_directory import FolderEntry
from hoodsnap.facts.process.process import Process

NAMED = 3
"""Number of similar items that a finding names."""

UNFINISHED = (".part", ".converted")
"""File name endings of downloads that nova has not verified yet."""

DOWNLOAD = timedelta(hours=1)
"""Longest time since the last write to a download that is still running."""

PASSES = timedelta(hours=3)
"""Longest delay until the cache manager, which runs every 40 minutes, removes an expired file."""

SKEW = timedelta(minutes=10)
"""Tolerance for a host's clock that runs ahead."""


@check(Severity.ERROR)
def base_image_reapable(host: Host, cloud: Cloud) -> Problems:
    """nova's image cache manager would remove a base image that is in use.

    The cache manager keeps the files named after the image of a server on this host, and the files
    below the `disk` of such a server. It looks at no other file. A disk outside of that view loses
    its base a day later: the disk of a server whose record is deleted, lost or on another host, the
    `_resize` copy of a server that was moved away, a disk with any other name, or the disks of a
    host that shares the directory and was down for a day.

    Authority: The disk images and the kernel, for which files are used; nova's own rules, applied
    to its records, for what nova will do.

    Traps: With remove_unused_base_images off, nothing is removed. The cache may have another name
    (`subdirectory_name`), and another cache next to it belongs to another host. The timestamp of a
    used file is the time of the cache manager's last pass, not the file's age.

    Next: Check whether the cache manager lists base images as removable, and which base the disk
    uses:

        grep "Removable base files" /var/log/nova/nova-compute.log
        qemu-img info -U -f qcow2 DISK

    Then give the base image a second name on the same file system, which survives the removal and
    can be linked back:

        mkdir -p INSTANCES_PATH/keep
        ln BASE INSTANCES_PATH/keep/

    It worked if the base image has one more link than before (the number after its mode):

        ls -l BASE INSTANCES_PATH/keep

    Setting the time with `touch` protects the file for a day only.

    Not yet: Do not restart nova-compute: its first pass comes within minutes. Do not remove `locks`
    or `compute_nodes`.

    Source: nova virt/libvirt/imagecache.py, virt/imagecache.py, virt/storage_users.py,
    compute/manager.py `_run_image_cache_manager_pass`.
    """
    cache = cloud.image_cache(host)
    undecided: UnheardError | None = None
    for name, entry in cache.files.items():
        users = _users(cache, entry)
        if not users and name in cache.out_of_sight and cache.is_removed(name):
            undecided = UnheardError(
                f"disks use a base named {name}, but it is not known whether it is this file"
            )
        if not users or not cache.is_removed(name) or cache.is_known(name):
            continue
        unused, limit = cache.unused_for(entry), cache.limit(name)
        evidence = hears(
            host.listing,
            "images",
            entry.path,
            base=entry.path,
            untouched_for=_hours(unused),
            removed_after=_hours(limit),
        )
        due = unused >= limit
        left = "at its next pass" if due else f"in {phrase.lasting(limit - unused)}"
        first = users[0]
        yield problem(
            f"nova on {host.name} will remove {phrase.place(entry.path)} {left}, but"
            f" {_users_in_words(cache, users)}",
            evidence,
            *(_uses(user, entry) for user in users[:NAMED]),
            severity=Severity.ERROR if due else Severity.WARNING,
            BASE=entry.path,
            DISK=first.path if isinstance(first, Image) else None,
            INSTANCES_PATH=entry.path.rsplit("/", 2)[0],
        )
    if undecided is not None:
        raise undecided


def _users(cache: ImageCache, entry: FolderEntry) -> list[Image] | list[Process]:
    """Return the images that use a base, except those in transition; processes if no image does."""
    overlays = cache.overlays.get(entry.path, ())
    if not overlays:
        return [cache.host.processes.own[pid] for pid in cache.open_files.get(entry.path, ())]
    return [image for image in overlays if not _is_going(cache, image)]


def _users_in_words(cache: ImageCache, users: Sequence[Image | Process]) -> str:
    """Return the guests that use a base, or the images of unknown guests: `vm-a uses it`."""
    names: dict[str, None] = {}
    for user in users:
        if isinstance(user, Image):
            guest = cache.guest_of(user)
            names[guest.title if guest is not None else phrase.place(user.path)] = None
        else:
            names[f"PID {user.pid}"] = None
    return f"{phrase.several(names)} {'uses' if len(names) == 1 else 'use'} it"


def _uses(user: Image | Process, entry: FolderEntry) -> Evidence:
    if isinstance(user, Image):
        return says(user, path=user.path, backing_filename=user.backing_filename)
    return says(user, pid=user.pid, files=entry.path)


def _is_going(cache: ImageCache, image: Image) -> bool:
    """True if nova is working on the image's guest, or if nothing will start from the image."""
    guest = cache.guest_of(image)
    if guest is None or guest.record is None:
        return False
    if guest.record.deleted and guest.domain is None and guest.process is None:
        return True
    return guest.moving is not None or bool(guest.record.task_state)


def _hours(time: timedelta) -> str:
    return f"{time.total_seconds() / 3600:.1f} hours"


@check(Severity.ERROR)
def shared_cache_registry_stale(host: Host, cloud: Cloud) -> Problems:
    """A host that shares the instances directory is missing from the image cache registry.

    Each nova-compute registers in the directory's `compute_nodes` at every pass of its image cache
    manager, and keeps the base images of the servers of every host that registered within the last
    day. A host that is down for longer, or does not run the cache manager, drops out, and the other
    hosts remove the base images of its servers.

    Authority: `compute_nodes`, as the cache managers read it; the nova database, for the servers.

    Traps: A directory that is not shared lists only this host. A host may have no servers.

    Next: Compare the registry with the compute services, and check on each host which file system
    the directory is on:

        cat INSTANCES_PATH/compute_nodes
        openstack compute service list
        df INSTANCES_PATH

    Then set `remove_unused_base_images = false` in nova.conf on all hosts that share the directory,
    until the missing host has registered again.

    Not yet: Do not leave a host that shares the directory off for more than a day. Do not remove
    `compute_nodes`.

    Source: nova virt/storage_users.py, compute/manager.py `_run_image_cache_manager_pass`; nova bug
    1252659.
    """
    cache = cloud.image_cache(host)
    for top, signed in cache.registry.items():
        names = {*signed, host.nova_name}
        if len(names) < 2 or not cache.cleans_up:
            continue
        answer = host.bundle.last("images", f"cat {top}/compute_nodes", host.name)
        assert answer is not None  # noqa: S101 (the registry was read from it)
        ages = {name: cache.age(since) for name, since in signed.items()}
        for name in (host.nova_name, *sorted(names - {host.nova_name})):
            age = ages.get(name)
            if age is not None and -SKEW <= age < SIGNED_UP:
                continue
            servers = len(host.instances.of_host(name))
            if servers:
                since = "never" if age is None else f"{_hours(age)} ago"
                registry = hears(answer, "compute_nodes", name, host=name, signed_up=since)
                # A new host registers within the hour, and a time in the future proves nothing.
                stale = age is not None and age >= SIGNED_UP
                ago = phrase.lasting(age) if age is not None else ""
                never = f"never registered in {top}/compute_nodes"
                lately = f"last registered in {top}/compute_nodes {ago} ago"
                has = phrase.counted(servers, "server")
                yield problem(
                    f"Host {name}, which has {has}, {never if age is None else lately}",
                    registry.and_so(servers=servers),
                    severity=Severity.ERROR if stale else Severity.WARNING,
                    INSTANCES_PATH=top,
                )


@check(Severity.NOTE)
def base_cache_orphans(host: Host, cloud: Cloud) -> Problems:
    """Unused files in the image cache are never removed by nova.

    They only take up space. The cache manager removes what it knows to be unused after a day. Files
    that it does not recognize (interrupted downloads, renamed files, blank disks from before
    Wallaby) or is configured to keep stay forever.

    Authority: The disk images and the kernel, for which files are used; nova's own rules, for what
    it removes.

    Traps: An image that was deleted in glance may still be needed below a disk. In a shared
    directory the disks of other hosts use the same files.

    Next: List the files by time, and check the disks on every host that shares the directory:

        ls -lut INSTANCES_PATH/_base
        qemu-img info -U -f qcow2 DISK

    The cache manager itself is the safest way to remove unused files; check in nova-compute's log
    that it runs:

        grep "Active base files" /var/log/nova/nova-compute.log

    Not yet: Do not run `rm` in `_base`: a file that looks unused on this host may be in use on
    another.

    Source: nova virt/libvirt/imagecache.py; nova bug 1602193; nova admin guide, image caching.
    """
    cache = cloud.image_cache(host)
    left = [entry for name, entry in cache.files.items() if _is_left(cache, name, entry)]
    if left:
        if cache.unread:
            raise UnheardError(cache.unread)
        names = ", ".join(entry.path.rpartition("/")[2] for entry in left[:NAMED])
        more = f" and {len(left) - NAMED} more" if len(left) > NAMED else ""
        taken = sum((entry.blocks or 0) * 512 for entry in left)
        listing = host.listing
        files = phrase.counted(len(left), "unused file")
        yield problem(
            f"{files} ({phrase.size(taken)}) in {host.name}'s {cache.name} will not be removed by"
            f" nova: {phrase.brief(names)}{more}",
            hears(listing, "images", f"{cache.name}/", unused=f"{names}{more}", bytes_taken=taken),
            INSTANCES_PATH=left[0].path.rsplit("/", 2)[0],
        )


def _is_left(cache: ImageCache, name: str, entry: FolderEntry) -> bool:
    if cache.overlays.get(entry.path) or cache.open_files.get(entry.path):
        return False
    if name in cache.out_of_sight:
        return False
    age = cache.unused_for(entry)
    if name.endswith(UNFINISHED):
        return age > DOWNLOAD
    return age > cache.limit(name) + PASSES and not cache.is_known(name)
