"""Disk images: the files in the instances directory, and qemu-img's answer about each image."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from hoodsnap.bundle import Answer
from hoodsnap.collect import file
from hoodsnap.collect.crew import together
from hoodsnap.collect.folder import entry, list_folder, look_at
from hoodsnap.collect.image_header import NOT_REGULAR, Header, Route, read_header, route
from hoodsnap.collect.mounts import Mounts
from hoodsnap.collect.program import PATH, run
from hoodsnap.collect.question import must_go_on
from hoodsnap.collect.recorder import Recorder, RefusedError
from hoodsnap.collect.trusted.ownership import Owners, folder_refusal
from hoodsnap.facts.host.instances_directory import BASE, is_base
from hoodsnap.facts.uuids import UUID
from hoodsnap.keep.save_header import SIZE, save_header
from hoodsnap.path import StrangeLinkError

LAYER = "images"

DEFAULTS = (
    "/var/lib/nova/instances",  # Debian, Ubuntu, RDO; inside every container
    "/opt/stack/data/nova/instances",  # DevStack
    "/var/lib/docker/volumes/nova_compute/_data/instances",  # Kolla
    "/var/lib/containers/storage/volumes/nova_compute/_data/instances",  # Kolla with Podman
)
"""Paths of the instances directory in distributions."""

# Names of an instance's folder. nova renames it to `<uuid>_resize` during a resize, and to
# `<uuid>_del` before it deletes the folder. Before Grizzly the folder had the domain's name.
_FOLDER = re.compile(rf"(?:{UUID.pattern}|instance-[0-9a-f]{{8}})(?:_\w+)?")

_MOST_SHARES = 64
"""Folders with volumes whose free space is asked for."""

_THREADS = 4
"""Threads that run qemu-img. More don't help, because the processor is the limit, not the disk."""

_FORMAT = re.compile(r"[a-z][a-z0-9-]*")


def find_instances_dirs(
    recorder: Recorder,
    conf: Mapping[str, Mapping[str, object]],
    disks: Iterable[str],
    owners: Owners | None = None,
) -> tuple[Path, ...]:
    """Return the instances directories of this host, each under the first path that leads to it.

    `conf`: nova.conf by section. `disks`: the paths in the domains' definitions. Folders of these
    come first, because the other layers name files by the same paths as libvirt. `owners`: nova's
    accounts. A folder that belongs neither to nova nor to root is reported in the bundle.
    """
    names = tuple(dict.fromkeys((*_folders_of(disks), *_configured(conf), *DEFAULTS)))
    refused: dict[str, RefusedError] = {}
    how = partial(_existing, names, owners, refused)
    answer = recorder.ask(LAYER, "stat -L " + " ".join(names), how, source="all")
    places: list[dict[str, Any]] = answer.value or []
    if answer.error is not None and answer.error.kind == "timeout":
        # One of them is on a file system that does not answer: look at each one alone.
        mounts = Mounts.read(recorder)
        for name in names:
            how = partial(_existing, (name,), owners, refused)
            alone = recorder.ask(
                LAYER, f"stat -L {name}", how, subject=name, source=mounts.of(name)
            )
            places += alone.value or []
    for name, refusal in refused.items():
        # Report the refused folders even if another folder was found.
        recorder.refuse(LAYER, f"stat -L {name}", refusal, subject=name)
    found: dict[tuple[str, int], Path] = {}
    for place in places:
        found.setdefault((place["dev"], place["ino"]), Path(place["path"]))
    return tuple(found.values())


def cache_name(conf: Mapping[str, Mapping[str, object]]) -> str:
    """Return the name of the image cache's folder according to nova.conf."""
    old = conf.get("DEFAULT", {})
    name = old.get("image_cache_subdirectory_name") or old.get("base_dir_name") or BASE
    return str(conf.get("image_cache", {}).get("subdirectory_name") or name).strip("/")


def ask_images(
    recorder: Recorder,
    dirs: Iterable[Path],
    disks: Mapping[str, str | None],
    firmware: Iterable[str] = (),
    cache: str = BASE,
    saves: Iterable[str] = (),
) -> None:
    """Ask for everything in the instances directories, and for every disk of the domains.

    `disks`: path → format as in the domains' definitions, None if they don't give it. A path that
    is not absolute (a network source) is left out. `firmware`: other files that the domains need;
    only their owner, mode and size are asked for. `cache`: name of the image cache's folder.
    `saves`: files with the domains' saved memory, of which also libvirt's header is asked for.
    """
    survey = _Survey(recorder, cache)
    for folder in dirs:
        survey.ask_folder(str(folder))
    survey.ask_files(firmware)
    survey.ask_saves(saves)
    survey.ask_disks(disks, survey.listed(_is_disk), survey.listed(_is_base))
    found = survey.listed(lambda path: path in disks)
    survey.ask_files(str(folder) for path in found for folder in Path(path).parents)
    # Volumes in files are on other file systems, which can be full, too.
    inside = tuple(f"{folder}/" for folder in dirs)
    shares = sorted({os.path.dirname(path) for path in found if not path.startswith(inside)})
    for share in shares[:_MOST_SHARES]:
        survey.ask_room(share)


def ask_again(
    recorder: Recorder,
    dirs: Iterable[Path],
    disks: Mapping[str, str | None],
    cache: str = BASE,
) -> None:
    """Ask for the instances directories again, and for these disks and the others of their guests.

    For a guest without a domain, pass the path of `disk` in its folder; it need not exist.
    """
    survey = _Survey(recorder, cache)
    for folder in dirs:
        survey.ask_listing(str(folder))
    guests = {_guest_of(path) for path in disks}
    survey.ask_disks(disks, [path for path in survey.listed(_is_disk) if _guest_of(path) in guests])


class _Survey:
    """One survey of a host's images. It asks no question twice."""

    def __init__(self, recorder: Recorder, cache: str) -> None:
        self._recorder = recorder
        self._cache = cache
        self._mounts = Mounts.read(recorder)
        self._types: dict[str, str] = {}  # by path, for all that was listed or looked at
        self._headers: dict[str, Header] = {}
        self._looked: set[str] = set()

    def ask_folder(self, folder: str) -> None:
        """Ask for a folder's entries, its file system's usage, and the hosts that share it."""
        if self.ask_listing(folder):
            self.ask_room(folder)
            nodes = f"{folder}/compute_nodes"
            self._ask(f"cat {nodes}", partial(file.text, nodes), nodes)
            # An account that may not enter one of the parents can't reach the folder.
            self.ask_files(map(str, Path(folder).parents))

    def ask_room(self, folder: str) -> None:
        """Ask for the size and the free space of a folder's file system."""
        self._ask(f"stat -f {folder}", lambda: _statvfs(folder), folder)

    def ask_listing(self, folder: str) -> bool:
        """Ask for a folder's entries. Return False if that failed."""
        listing = self._list(folder)
        base = f"{folder}/{self._cache}"
        for line in listing:
            # The image cache may be elsewhere: behind a link, or on another file system.
            if line["path"] == base and (line["type"] == "l" or "error" in line):
                self._list(f"{base}/")
        return bool(listing)

    def ask_files(self, paths: Iterable[str]) -> None:
        """Ask for owner, mode and size of files and folders, but not for their content."""
        for path in paths:
            if path not in self._types and path not in self._looked:
                self._looked.add(path)
                self._ask(f"stat -L {path}", partial(entry, path), path)

    def ask_saves(self, paths: Iterable[str]) -> None:
        """Ask for owner, mode, size and libvirt's header of files with saved memory."""
        for path in paths:
            self.ask_files([path])
            self._ask(f"head -c {SIZE} {path}", partial(_save_header, path), path)

    def listed(self, which: Callable[[str], bool]) -> list[str]:
        """Return the regular files found so far whose path satisfies `which`."""
        return [path for path, kind in self._types.items() if kind == "f" and which(path)]

    def ask_disks(
        self, named: Mapping[str, str | None], disks: Iterable[str], bases: Iterable[str] = ()
    ) -> None:
        """Ask qemu-img about the disks that the domains name, the listed disks, and base images.

        Base images come last, because the header of an overlay gives the format of its base.
        """
        paths = list(dict.fromkeys((*(path for path in named if path.startswith("/")), *disks)))
        together((partial(self._header_of, path) for path in paths), _THREADS)
        formats = self._formats(paths, named)
        routes = {path: route(path, formats.get(path), self._header_of) for path in paths}
        below: dict[str, str | None] = dict.fromkeys(bases)
        for way in routes.values():
            below |= {base: form or below.get(base) for base, form in way.below.items()}
        for base, form in below.items():
            if base not in routes:
                routes[base] = route(base, form, self._header_of)
        regular = [path for path in routes if self._types.get(path) == "f"]
        together((partial(self._ask_qemu_img, path, routes[path]) for path in regular), _THREADS)

    def _ask(self, query: str, how: Callable[[], object], subject: str) -> Answer:
        source = self._mounts.of(subject)
        return self._recorder.ask(LAYER, query, how, subject=subject, source=source)

    def _list(self, folder: str) -> list[dict[str, Any]]:
        answer = self._ask(f"find {folder} -ls", lambda: list_folder(folder, self._seen), folder)
        listing: list[dict[str, Any]] = answer.value or []
        self._types |= {line["path"]: line["type"] for line in listing}
        return listing

    def _seen(self, path: str, head: bytes) -> None:
        self._headers[path] = read_header(head)

    def _header_of(self, path: str) -> Header | None:
        """Return the header of a file; None if the file does not exist or can't be read."""
        if self._types.get(path, "l") == "l" and path not in self._looked:
            self._looked.add(path)
            answer = self._ask(f"stat -L {path}", lambda: self._look_at(path), path)
            if answer.error is None:
                self._types[path] = answer.value["type"]
            elif answer.error.kind == "timeout":
                self._types[path] = "?"  # qemu-img would hang there too
        if self._types.get(path, "f") == "f":
            return self._headers.get(path)
        return NOT_REGULAR

    def _look_at(self, path: str) -> dict[str, Any]:
        try:
            return look_at(path, self._seen)
        except StrangeLinkError:
            self._types[path] = "?"  # qemu-img would follow the link
            raise

    def _formats(self, paths: Iterable[str], named: Mapping[str, str | None]) -> dict[str, str]:
        """Return the declared formats: by the domain, else by nova's `disk.info`, else by name."""
        formats = {path: "raw" for path in paths if "/disk.config" in path}
        for folder in dict.fromkeys(os.path.dirname(path) for path in paths):
            info = f"{folder}/disk.info"
            if self._types.get(info) == "f":
                answer = self._ask(f"cat {info}", partial(file.text, info), info)
                formats |= _disk_info(folder, answer.value)
        formats |= {path: form for path, form in named.items() if form}
        return {path: form for path, form in formats.items() if _FORMAT.fullmatch(form)}

    def _ask_qemu_img(self, path: str, way: Route) -> None:
        start = ("qemu-img", "info", "-U")
        if way.format is None:
            self._ask_program((*start, "--output=json", path), way, json.loads)
            return
        rest = ("-f", way.format, path)
        answer = self._ask_program(
            (*start, "--backing-chain", "--output=json", *rest), way, json.loads
        )
        if answer.error is not None and answer.error.kind in ("timeout", "missing"):
            return
        if not way.obstacle:
            self._ask_program((*start, "--backing-chain", *rest), way, str)
        if answer.error is not None:  # the chain is broken, but the image itself may be readable
            self._ask_program(
                (*start, "--output=json", *rest), replace(way, obstacle=None), json.loads
            )

    def _ask_program(
        self, command: tuple[str, ...], way: Route, read: Callable[[str], object]
    ) -> Answer:
        def how() -> object:
            if way.obstacle:
                raise RefusedError("failed", f"not asked: {way.obstacle}")
            return read(run([*_limits(), *command]))

        return self._ask(" ".join(command), how, command[-1])


def _folders_of(disks: Iterable[str]) -> Iterator[str]:
    for disk in disks:
        guest, name = os.path.split(disk)
        folder, guest = os.path.split(guest)
        if folder.startswith("/") and _FOLDER.fullmatch(guest) and name.startswith("disk"):
            yield folder


def _configured(conf: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    options = conf.get("DEFAULT", {})
    path = str(options.get("instances_path") or "$state_path/instances")
    state = str(options.get("state_path") or "/var/lib/nova")
    path = re.sub(r"\$(\{state_path\}|state_path\b)", lambda match: state, path)
    if path.startswith("/"):
        yield path.rstrip("/")


def _existing(
    names: Iterable[str], owners: Owners | None, refused: dict[str, RefusedError]
) -> list[dict[str, Any]]:
    """Return the entries of the folders that exist among these names.

    Folders that other accounts could have put there are added to `refused` instead. Raises
    `RefusedError` if no folder is left.
    """
    found, denied = [], []
    for name in names:
        must_go_on()
        try:
            line = entry(name)
            is_default = name in DEFAULTS and os.path.realpath(name) == name
            if not is_default and (refusal := folder_refusal(name, owners)) is not None:
                refused[name] = refusal
                continue
        except StrangeLinkError as error:
            refused[name] = RefusedError("denied", str(error.strerror))
            continue
        except PermissionError:
            denied.append(name)
            continue
        except (FileNotFoundError, NotADirectoryError):
            continue
        if line["type"] == "d":
            found.append(line)
    if found:
        return found
    if refused:
        raise next(iter(refused.values()))
    if denied:
        raise RefusedError(
            "denied",
            f"permission denied: an instances directory may exist at {', '.join(denied)}",
        )
    raise RefusedError("absent", f"no instances directory exists at {', '.join(names)}")


def _guest_of(path: str) -> str:
    """Return the folder of the guest that a disk belongs to, without `_resize` or `_del`."""
    folder, guest = os.path.split(os.path.dirname(path))
    return f"{folder}/{guest.partition('_')[0]}"


def _is_disk(path: str) -> bool:
    folder, name = os.path.split(path)
    if name == "disk" or (name.startswith("disk.") and name != "disk.info"):
        return _FOLDER.fullmatch(os.path.basename(folder)) is not None
    return False


def _is_base(path: str) -> bool:
    # `.part` and `.converted` are downloads that nova has not checked yet.
    return is_base(path) and not path.endswith((".part", ".converted"))


def _disk_info(folder: str, text: object) -> dict[str, str]:
    """Return the formats in a `disk.info`, by path.

    The file keeps the old paths when its folder becomes `<uuid>_resize`, so only names are used.
    """
    try:
        formats = json.loads(str(text))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(formats, dict):
        return {}
    return {
        f"{folder}/{os.path.basename(path)}": form
        for path, form in formats.items()
        if isinstance(form, str)
    }


def _save_header(path: str) -> dict[str, object]:
    # libvirt lets QEMU's account own the folder, but the files in it belong to root.
    return save_header(file.head_of_anyone(path, SIZE))


def _statvfs(path: str) -> dict[str, int]:
    with file.folder(path) as handle:
        return file.room(handle)


@cache
def _limits() -> tuple[str, ...]:
    # A header that a guest wrote can claim tables of any size. nova sets the same limits on memory
    # and time; besides, qemu-img has nothing to write.
    # Without qemu-img no limits are set: prlimit's "No such file" would seem to be about the disk.
    if any(shutil.which(name, path=PATH) is None for name in ("prlimit", "qemu-img")):
        return ()
    return ("prlimit", f"--as={1 << 30}", "--cpu=30", "--fsize=0", "--core=0", "--")
