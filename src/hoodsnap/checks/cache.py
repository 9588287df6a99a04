"""The image cache: what nova would remove from it, what is left in it, and who shares it."""

from __future__ import annotations

from datetime import timedelta

from hoodsnap.check import Problem, Problems, check
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.cloud.image_cache import SIGNED_UP, ImageCache
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.image import FolderEntry, Image
from hoodsnap.facts.process.process import Process

NAMED = 3
"""How many of the things that are all alike are named."""

UNFINISHED = (".part", ".converted")
"""The endings of downloads that nova has not checked yet."""

DOWNLOAD = timedelta(hours=1)
"""How long ago a download that still goes on was written to."""

PASSES = timedelta(hours=3)
"""How long the cache manager, which looks every 40 minutes, may take until it removes a file."""

SKEW = timedelta(minutes=10)
"""How far a host's clock may be ahead."""


@check(Severity.ERROR)
def base_image_reapable(host: Host) -> Problems:
    """nova's image cache manager would remove a base image that a disk stands on.

    It keeps the files that are named after the image of a server on this host, and those below the
    `disk` of such a server; it looks at no other file. So what stands on a base from outside of
    that view loses it a day later: a server whose record is deleted, lost or on another host, the
    `_resize` copy of one that was moved away, a disk of any other name, the servers of a host that
    shares the directory and was down for a day.

    Authority: the disk images and the kernel for what is used; nova's own rules for what it will
    do, applied to its records.

    Traps: with remove_unused_base_images off nothing is removed; the cache may be called otherwise
    (`subdirectory_name`), and what lies in another one beside it is another host's; a used file's
    time is that of the cache manager's last pass, not its age.

    Next: `grep -c "Removable base files" /var/log/nova/nova-compute.log`, `qemu-img info -U DISK`.
    Then give the file a second name on the same filesystem, `ln _base/NAME keep/NAME`: that
    survives the removal, and can be linked back. A time set by `touch` protects for a day only.

    Not yet: a restart of nova-compute, whose first pass comes within minutes; removing `locks` or
    `compute_nodes`.

    Source: nova virt/libvirt/imagecache.py, virt/imagecache.py, virt/storage_users.py,
    compute/manager.py `_run_image_cache_manager_pass`.
    """
    cache = host.cache
    undecided: UnheardError | None = None
    for name, entry in cache.files.items():
        users = _users(cache, entry)
        if not users and name in cache.out_of_sight and cache.is_removed(name):
            undecided = UnheardError(
                f"whether the {name} that disks stand on is this one was not seen"
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
        severity = Severity.ERROR if unused >= limit else Severity.WARNING
        shown = [_uses(user, entry) for user in users[:NAMED]]
        yield Problem(severity, (evidence, *shown))
    if undecided is not None:
        raise undecided


def _users(cache: ImageCache, entry: FolderEntry) -> list[Image] | list[Process]:
    """Who stands on a base, without those that are on their way out."""
    overlays = cache.overlays.get(entry.path, ())
    if not overlays:
        return [cache.host.processes[pid] for pid in cache.open_files.get(entry.path, ())]
    return [image for image in overlays if not _is_going(cache, image)]


def _uses(user: Image | Process, entry: FolderEntry) -> Evidence:
    if isinstance(user, Image):
        return says(user, path=user.path, backing_filename=user.backing_filename)
    return says(user, pid=user.pid, files=entry.path)


def _is_going(cache: ImageCache, image: Image) -> bool:
    """Whether nova is at work on whoever the image belongs to, or nobody will start from it."""
    guest = cache.guest_of(image)
    if guest is None or guest.record is None:
        return False
    if guest.record.deleted and guest.domain is None and guest.process is None:
        return True
    return guest.moving is not None or bool(guest.record.task_state)


def _hours(time: timedelta) -> str:
    return f"{time.total_seconds() / 3600:.1f} hours"


@check(Severity.ERROR)
def shared_cache_registry_stale(host: Host) -> Problems:
    """Hosts share an instances directory, and one of them would not be asked what it uses.

    Each nova-compute signs up in the directory's `compute_nodes` at every pass of its image cache
    manager, and keeps the base images of the servers of whoever signed up within a day. A host that
    is down for longer, or does not run the cache manager, is forgotten, and the others remove the
    bases of its servers.

    Authority: `compute_nodes`, as the cache managers read it; the nova database for the servers.

    Traps: a directory of its own, in which only this host signs up; a host without servers.

    Next: `cat compute_nodes`, `openstack compute service list`, `df` of the directory on each host.
    Then set remove_unused_base_images = false on all hosts that share it, until the one that is
    missing has signed up again.

    Not yet: leaving a host of such a directory off for more than a day; removing `compute_nodes`.

    Source: nova virt/storage_users.py, compute/manager.py `_run_image_cache_manager_pass`; nova bug
    1252659.
    """
    cache = host.cache
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
                # A new host signs up within the hour, and a clock that is ahead does so too well.
                stale = age is not None and age >= SIGNED_UP
                severity = Severity.ERROR if stale else Severity.WARNING
                yield Problem(severity, (registry.and_so(its_servers=servers),))


@check(Severity.NOTE)
def base_cache_orphans(host: Host) -> Problems:
    """Files in the image cache are used by nobody, and nova does not remove them.

    They only take space. The cache manager removes what it knows to be unused after a day; what it
    does not know (downloads that broke off, files that somebody renamed, blank disks before
    Wallaby), or is told to keep, stays for ever.

    Authority: the disk images and the kernel for what is used; nova's own rules for what it
    removes.

    Traps: an image that was deleted in glance may still be needed below a disk; on a shared
    directory the disks of other hosts stand on the same files.

    Next: `ls -lut _base`, and on every host that shares it `qemu-img info -U` of the disks. The
    cache manager itself is the safest way to remove them: see whether it runs.

    Not yet: `rm` in `_base`: a file that looks unused here may have its only user elsewhere.

    Source: nova virt/libvirt/imagecache.py; nova bug 1602193; nova admin guide, image caching.
    """
    cache = host.cache
    left = [entry for name, entry in cache.files.items() if _is_left(cache, name, entry)]
    if left:
        if cache.unread:
            raise UnheardError(cache.unread)
        names = ", ".join(entry.path.rpartition("/")[2] for entry in left[:NAMED])
        more = f" and {len(left) - NAMED} more" if len(left) > NAMED else ""
        taken = sum((entry.blocks or 0) * 512 for entry in left)
        listing = host.listing
        yield (
            hears(listing, "images", f"{cache.name}/", unused=f"{names}{more}", bytes_taken=taken),
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
