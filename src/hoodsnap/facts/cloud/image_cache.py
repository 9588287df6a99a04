"""The image cache (`_base`): the users of its files, and the files that nova would remove.

The rules are those of nova's virt/libvirt/imagecache.py and virt/imagecache.py, unchanged since
Kilo: a file is used if it is named after the image of an instance, or if it is the backing file of
the `disk` in an instance's folder. nova considers the instances of all hosts that registered in the
directory's `compute_nodes` file within a day. Other overlays, and processes, do not count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.cloud.release import Release
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.fact import UnheardError, integer, text, value_of
from hoodsnap.facts.host.image import Image
from hoodsnap.facts.host.instances_directory import BASE, OF_AN_IMAGE, FolderEntry, base_of, is_base
from hoodsnap.facts.quantity import whole

OF_SWAP = re.compile(r"swap_[0-9]+")
"""Name of a blank swap disk, with its size in MiB. nova removes it since Kilo."""

OF_EPHEMERAL = re.compile(r"(ephemeral_[0-9]+_).{7}")
"""Name of a formatted ephemeral disk, with its size in GiB and a hash of the format. nova removes
it since Wallaby."""

RESIZES = frozenset(["resize_prep", "resize_migrating", "resize_migrated", "resize_finish"])
"""Task states in which nova counts `UUID_resize` as an instance's folder."""

REGISTRY = "the instances directory's compute_nodes file"
"""Its name in reasons, which tells it from the database table of the same name."""

SIGNED_UP = timedelta(hours=24)
"""Maximum age of a host's registration in `compute_nodes`; older ones do not count."""


@dataclass(frozen=True, eq=False)
class ImageCache:
    """The image cache in one host's instances directories: `_base`, or its configured name."""

    host: Host
    guests: tuple[Guest, ...]
    """The guests of that host."""

    @cached_property
    def name(self) -> str:
        """Name of its folder. Raises `UnheardError` if the name is unknown."""
        old = self.host.option("DEFAULT", "base_dir_name", BASE)
        name = self._option("subdirectory_name", old, old="image_cache_subdirectory_name")
        if "$" in name:  # it refers to an option that is not set anywhere
            raise UnheardError("nova.conf: the name of the image cache can't be read")
        return name.strip("/")

    @cached_property
    def files(self) -> Mapping[str, FolderEntry]:
        """Name → file, without the files of other hosts' caches in the same directory."""
        own = (
            files
            for folder, files in self.host.images.caches.items()
            if folder.endswith(f"/{self.name}")
        )
        return {name: entry for files in own for name, entry in files.items()}

    @cached_property
    def now(self) -> datetime:
        """Time at which the instances directory was listed."""
        if self.host.images.listing is None:
            raise UnheardError("the instances directory was not collected")
        return self.host.images.listing.at

    @cached_property
    def registry(self) -> Mapping[str, Mapping[str, float]]:
        """Instances directory → nova-compute host → time of its registration, seconds since 1970.

        Directories without a `compute_nodes` file are left out: nova creates the file at the first
        pass of its cache manager.
        """
        found: dict[str, Mapping[str, float]] = {}
        for top in self.host.images.tops:
            query = f"cat {top}/compute_nodes"
            answer = self.host.bundle.last("images", query, self.host.name)
            if answer is not None and answer.error is not None and answer.error.kind == "absent":
                continue
            found[top] = _signed_up(value_of(answer, query, str))
        return found

    @cached_property
    def hosts(self) -> frozenset[str]:
        """Hosts whose instances the cache manager considers: this host, and those that share the
        directory."""
        fresh = {self.host.nova_name}
        for signed in self.registry.values():
            fresh |= {name for name, since in signed.items() if self.age(since) < SIGNED_UP}
        return frozenset(fresh)

    def age(self, since: float) -> timedelta:
        """Return the age of a time in `compute_nodes`."""
        try:
            return timedelta(seconds=self.now.timestamp() - since)
        except OverflowError:
            raise UnheardError(f"{REGISTRY} holds a timestamp that is out of range") from None

    @cached_property
    def instances(self) -> tuple[Instance, ...]:
        """Instances that the cache manager considers."""
        return tuple(one for name in self.hosts for one in self.host.instances.of_host(name))

    def is_known(self, name: str) -> bool:
        """True if the cache manager considers a file used. Raises `UnheardError` if unknown."""
        image = re.fullmatch(r"([0-9a-f]{40})(?:_sm|_[0-9]+)?", name)
        if image is not None and image[1] in self._of_instances:
            return True
        blank = OF_EPHEMERAL.fullmatch(name)
        made = blank[1] if blank is not None else name
        return made in self._of_instances or name in self._below_disks

    def is_removed(self, name: str) -> bool:
        """True if the cache manager removes a file of this name once it is unused."""
        if OF_EPHEMERAL.fullmatch(name) is not None:
            return self.cleans_up and self.host.release.since(Release.WALLABY)
        if OF_AN_IMAGE.fullmatch(name) is None and OF_SWAP.fullmatch(name) is None:
            return False
        return self.cleans_up

    @cached_property
    def cleans_up(self) -> bool:
        """True if the cache manager is configured to remove files."""
        remove = self._option("remove_unused_base_images", "True")
        interval = self._option("manager_interval", "", old="image_cache_manager_interval")
        return remove.lower() in ("true", "1", "yes", "on") and interval != "-1"

    def limit(self, name: str) -> timedelta:
        """Return the minimum age at which an unused file is removed."""
        image = OF_AN_IMAGE.fullmatch(name)
        kind, default = ("resized", 3600) if image and image[2] else ("original", 86400)
        said = self._option(f"remove_unused_{kind}_minimum_age_seconds", str(default))
        seconds = whole(said)
        if seconds is None:
            raise UnheardError(f"nova.conf: remove_unused_{kind}_minimum_age_seconds can't be read")
        return timedelta(seconds=seconds)

    def unused_for(self, entry: FolderEntry) -> timedelta:
        """Return the time since a file was last used: the cache manager touches used files."""
        touched = moment(entry.mtime)
        if touched is None:
            raise UnheardError(f"{entry.path}: its modification time can't be read")
        return self.now - touched

    def _option(self, name: str, default: str, *, old: str | None = None) -> str:
        """Return an option that releases of nova keep in different sections."""
        for section in ("libvirt", "DEFAULT"):
            default = self.host.option(section, old or name, default)
        return self.host.option("image_cache", name, default).strip()

    @cached_property
    def _of_instances(self) -> frozenset[str]:
        return frozenset(name for one in self.instances for name in _made_for(one))

    @cached_property
    def _below_disks(self) -> frozenset[str]:
        return frozenset(self._names_below_disks())

    def _names_below_disks(self) -> Iterator[str]:
        store = self.host.images
        for instance in self.instances:
            suffixes = {""}
            if instance.vm_state == "resized" or instance.task_state in RESIZES:
                suffixes.add("_resize")
            for folder in store.folders.get(instance.uuid, ()):
                path = f"{folder.path}/disk"
                if folder.suffix in suffixes and store.entry(path) is not None:
                    if path not in store.images:
                        raise UnheardError(f"{path}: its image header was not collected")
                    backing = store.images[path].backing_filename
                    if backing is not None:
                        yield backing.rpartition("/")[2]

    @cached_property
    def overlays(self) -> Mapping[str, tuple[Image, ...]]:
        """Path of a base image → the images that use it, as far as they were collected."""
        found: dict[str, list[Image]] = {}
        for image in self.host.images.images.values():
            try:
                base = image.backing_path
            except UnheardError:
                continue
            if base is not None:
                found.setdefault(self.host.images.listed_path(base), []).append(image)
        return {path: tuple(images) for path, images in found.items()}

    @cached_property
    def out_of_sight(self) -> frozenset[str]:
        """Names of base images that disks use, and whose paths were not collected.

        In a container, such a path may lead to the file of the same name in this cache.
        """
        return frozenset(path.rpartition("/")[2] for path in self.overlays if self._is_hidden(path))

    def _is_hidden(self, path: str) -> bool:
        try:
            self.host.images.entry(path)
        except UnheardError:
            return is_base(path)
        return False

    @cached_property
    def unread(self) -> str | None:
        """Reason why the users of a file may be incomplete; None if all users are known."""
        try:
            for image in self.host.images.images.values():
                image.backing_path  # noqa: B018 (raises if it was not collected)
            for path in self.host.images.disks:
                if path not in self.host.images.images:
                    raise UnheardError(f"{path}: its image header was not collected")
            for process in self.host.processes.own.values():
                process.files  # noqa: B018 (likewise)
        except UnheardError as reason:
            return str(reason)
        if self.host.images.failures:
            return next(iter(self.host.images.failures.values()))
        return self.host.unheard.get("kernel") or self.host.processes.nameless

    @cached_property
    def open_files(self) -> Mapping[str, tuple[int, ...]]:
        """Current path of a base image → PIDs of the processes that have it open."""
        found: dict[str, list[int]] = {}
        for process in self.host.processes.own.values():
            try:
                paths = {file.path for file in process.files if not file.deleted}
            except UnheardError:
                continue
            for path in paths:
                if is_base(path):
                    found.setdefault(self.host.images.listed_path(path), []).append(process.pid)
        return {path: tuple(sorted(pids)) for path, pids in found.items()}

    def guest_of(self, image: Image) -> Guest | None:
        """Return the guest in whose folder an image lies; None if no such guest is on this host."""
        return self._guests.get(image.path.rpartition("/")[0].rpartition("/")[2][:36])

    @cached_property
    def _guests(self) -> Mapping[str, Guest]:
        return {guest.uuid: guest for guest in self.guests}


def _signed_up(written: str) -> Mapping[str, float]:
    try:
        value = json.loads(written)
    except (ValueError, RecursionError):
        value = None
    times = value.values() if isinstance(value, dict) else ["no object"]
    if not all(isinstance(time, int | float) and not isinstance(time, bool) for time in times):
        raise UnheardError(f"{REGISTRY} can't be read")
    return value  # type: ignore[no-any-return]  # its JSON types were checked above


def _made_for(instance: Instance) -> Iterator[str]:
    """Yield the names of the cached files that an instance was created from."""
    for key in ("image_ref", "kernel_id", "ramdisk_id"):
        image = text(instance.raw, key)
        if image:
            yield base_of(image)
    if instance.devices is None:
        raise UnheardError("the instances' block device mappings were not collected")
    for device in instance.devices:
        if text(device, "guest_format") == "swap":
            yield f"swap_{integer(device, 'volume_size')}"
        elif text(device, "source_type") == "blank":
            # nova counts only the first one, and the database decides which one is first.
            yield f"ephemeral_{integer(device, 'volume_size')}_"
