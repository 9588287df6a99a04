"""Files of one host: listings of the instances directories, single files, and images."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from pydantic import ValidationError

from hoodsnap.bundle import Answer
from hoodsnap.facts.fact import UnheardError, value_of
from hoodsnap.facts.host.container_paths import read_container_paths
from hoodsnap.facts.host.image import Image
from hoodsnap.facts.host.instances_directory import BASE, FOLDER, OF_AN_IMAGE, Folder, FolderEntry
from hoodsnap.facts.host.save_header import SaveHeader
from hoodsnap.facts.process.process import Process

_LISTING = re.compile(r"find (/.*?)/? -ls")
_HEAD = re.compile(r"head -c \d+ (/.*)", re.DOTALL)


class ImageStore:
    """Everything that one host reported about its files: listings, single files, and images."""

    def __init__(self, processes: Iterable[Process] = ()) -> None:
        self.listing: Answer | None = None
        """Listing of the first instances directory; None if no listing was collected."""
        self.failures: dict[str, str] = {}
        """Instances directory → reason why its listing is unknown."""
        self.images: dict[str, Image] = {}
        """Path → image, for every file that qemu-img was run on."""
        self._lines: dict[str, dict[str, object]] = {}  # path → line of a listing, not validated
        self._tops: list[str] = []
        self._looked: dict[str, FolderEntry | None] = {}
        self._saves: dict[str, Answer] = {}  # path → the header of a file with saved memory
        self._read: dict[str, FolderEntry] = {}  # the lines that were needed, validated
        self._processes = tuple(processes)

    @classmethod
    def read(cls, answers: Iterable[Answer], processes: Iterable[Process] = ()) -> ImageStore:
        """Read one host's answers; the last answer to each query counts.

        `processes` may have these files open under other paths.
        """
        store = cls(processes)
        said: dict[str, dict[str, Answer]] = {}
        infos: dict[str, Answer] = {}
        for query, answer in _newest(answers).items():
            if query.startswith("qemu-img info "):
                options, _, path = query.partition(" /")
                if "--output=json" in options:
                    part = "chain" if "--backing-chain" in options else "header"
                    said.setdefault(f"/{path}", {})[part] = answer
            elif query.endswith("/disk.info"):
                infos[query.removeprefix("cat ").removesuffix("/disk.info")] = answer
            elif query.startswith("stat -L ") and answer.subject is not None:
                store._look(answer, answer.subject)
            elif found := _HEAD.fullmatch(query):
                store._saves[found[1]] = answer
            elif found := _LISTING.fullmatch(query):
                store._list(answer, found[1])
        for path, parts in said.items():
            info = infos.get(path.rpartition("/")[0])
            if info is not None:
                parts["disk.info"] = info
            store.images[path] = Image(path=path, said=parts)
        return store

    def _list(self, answer: Answer, top: str) -> None:
        # A listing has a line for each file of each guest, and few lines are ever needed.
        try:
            lines = value_of(answer, f"the listing of {top}", list[object])
        except UnheardError as reason:
            self.failures[top] = str(reason)
            return
        found: dict[str, dict[str, object]] = {}
        for line in lines:
            if not isinstance(line, dict) or not isinstance(line.get("path"), str):
                # The file of an unreadable line may exist on the host.
                self.failures[top] = f"the listing of {top} can't be read"
                return
            found[line["path"].rstrip("/")] = line
        # The listing is newer than the single files that were examined there before it.
        for path in [path for path in self._looked if path.startswith(f"{top}/")]:
            del self._looked[path]
        self._lines |= found
        self._read.clear()
        self._tops.append(top)
        self.listing = self.listing or answer

    def _look(self, answer: Answer, path: str) -> None:
        if answer.error is not None and answer.error.kind == "absent":
            self._looked[path] = None
            return
        try:
            self._looked[path] = value_of(answer, path, FolderEntry)
        except UnheardError:
            return  # `entry` then reports that the file was not collected

    def entry(self, path: str) -> FolderEntry | None:
        """Return the file at a path, links followed if the query did so; None if no file exists.

        Raises `UnheardError` if the path was not collected.
        """
        path = self.listed_path(path)
        if path in self._looked:
            return self._looked[path]
        if path in self._lines:
            if path not in self._read:
                self._read[path] = _entry(self._lines[path])
            return self._read[path]
        folder = path.rpartition("/")[0]
        while folder and folder not in self._lines:
            folder = folder.rpartition("/")[0]
        around = self._lines.get(folder, {})
        if around.get("type") != "d" or around.get("error") is not None:
            raise UnheardError(f"{path}: {around.get('error') or 'it was not collected'}")
        return None

    def save_header(self, path: str) -> tuple[SaveHeader, Answer] | None:
        """Return the header of a file with saved memory; None if the file does not exist, or if an
        older collector did not ask for it.

        Raises `UnheardError` if the header could not be read.
        """
        answer = self._saves.get(path)
        if answer is None or (answer.error is not None and answer.error.kind == "absent"):
            return None
        return value_of(answer, f"the header of {path}", SaveHeader), answer

    @cached_property
    def container_paths(self) -> Mapping[str, str]:
        """QEMU's path of each instances directory in which it has files open → its listed path."""
        return read_container_paths(self, self._processes)

    def listed_path(self, path: str) -> str:
        """Return the listed path for a path that QEMU or a disk's header names."""
        for name, top in self._renamed:
            if path.startswith(f"{name}/"):
                return top + path.removeprefix(name)
        return path

    @cached_property
    def _renamed(self) -> Sequence[tuple[str, str]]:
        return [(name, top) for name, top in self.container_paths.items() if top != name]

    def image(self, path: str | None) -> Image | None:
        """Return the image at a path; None if qemu-img was not run on it."""
        return self.images.get(self.listed_path(path)) if path is not None else None

    def inode(self, path: str) -> int | None:
        """Return the inode of the file that is listed at a path; None if the path is not listed."""
        ino = self._lines.get(path, {}).get("ino")
        return ino if isinstance(ino, int) else None

    @cached_property
    def flagged(self) -> Mapping[str, FolderEntry]:
        """Path → file or folder with a flag that forbids to change it: immutable, append-only."""
        listed = {
            path: _entry(line)
            for path, line in self._lines.items()
            if line.get("immutable") is True or line.get("append_only") is True
        }
        alone = {
            path: entry
            for path, entry in self._looked.items()
            if entry is not None and (entry.immutable or entry.append_only)
        }
        return listed | alone

    @property
    def tops(self) -> tuple[str, ...]:
        """Instances directories that were listed."""
        return tuple(self._tops)

    def size_of(self, uuid: str, name: str) -> int | None:
        """Return the size in bytes of a file in a guest's folder; None if it does not exist."""
        for top in self._tops:
            entry = self.entry(f"{top}/{uuid}/{name}")
            if entry is not None:
                return entry.size
        for reason in self.failures.values():
            raise UnheardError(reason)
        if not self._tops:
            raise UnheardError("the instances directory was not collected")
        return None

    def of(self, uuid: str, disks: Iterable[str] = ()) -> tuple[Image, ...]:
        """Return a guest's images: its domain's disks first, then the others in its folder."""
        beside = self._in_folder.get(uuid, ())
        paths = dict.fromkeys((*map(self.listed_path, disks), *beside))
        return tuple(self.images[path] for path in paths if path in self.images)

    @cached_property
    def _in_folder(self) -> Mapping[str, list[str]]:
        found: dict[str, list[str]] = {}
        for path in sorted(self.images):
            found.setdefault(path.rpartition("/")[0].rpartition("/")[2], []).append(path)
        return found

    @cached_property
    def folders(self) -> Mapping[str, tuple[Folder, ...]]:
        """UUID → the guest's folders, including leftovers of a resize or a deletion."""
        folders: dict[str, tuple[Folder, ...]] = {}
        for path, line in self._lines.items():
            top, _, name = path.rpartition("/")
            found = FOLDER.fullmatch(name)
            if found and top in self._tops and line.get("type") == "d":
                folder = Folder(path, found["uuid"], found["suffix"])
                folders[folder.uuid] = (*folders.get(folder.uuid, ()), folder)
        return folders

    def named_after(self, uuid: str) -> tuple[str, ...]:
        """Return the paths of the listed folders whose name starts with a UUID, such as a copy that
        was renamed to `UUID_resize.old`."""
        starts = tuple(f"{top}/{uuid}" for top in self._tops)
        return tuple(
            path
            for path, line in self._lines.items()
            if path.startswith(starts)
            and path.rpartition("/")[0] in self._tops
            and line.get("type") == "d"
        )

    def below(self, parent: str) -> Mapping[str, tuple[FolderEntry, ...]]:
        """Return folder → its listed files, for the folders in a listed folder."""
        found: dict[str, list[FolderEntry]] = {}
        for path, line in self._lines.items():
            folder = path.rpartition("/")[0]
            if line.get("type") == "f" and folder.rpartition("/")[0] == parent:
                found.setdefault(folder, []).append(_entry(line))
        return {folder: tuple(files) for folder, files in found.items()}

    @cached_property
    def disks(self) -> tuple[str, ...]:
        """Paths of the disks in the guests' folders, leftover folders included."""
        return tuple(
            path
            for path, line in self._lines.items()
            if line.get("type") == "f" and _is_disk(*path.rsplit("/", 2)[1:])
        )

    @cached_property
    def caches(self) -> Mapping[str, Mapping[str, FolderEntry]]:
        """Folder of each image cache → its files by name.

        An image cache is recognized by its name or its contents: the name is configurable, and
        hosts that share a directory may have several.
        """
        found: dict[str, dict[str, dict[str, object]]] = {}
        for path, line in self._lines.items():
            folder, _, name = path.rpartition("/")
            top, _, own = folder.rpartition("/")
            if line.get("type") == "f" and top in self._tops and not FOLDER.fullmatch(own):
                found.setdefault(folder, {})[name] = line
        return {
            folder: {name: _entry(line) for name, line in lines.items()}
            for folder, lines in found.items()
            if folder.endswith(f"/{BASE}") or any(map(OF_AN_IMAGE.fullmatch, lines))
        }

    @cached_property
    def bases(self) -> Mapping[str, FolderEntry]:
        """Name → file, for all image caches; `base_of` returns the name for a glance image."""
        return {name: entry for files in self.caches.values() for name, entry in files.items()}

    @cached_property
    def by_inode(self) -> Mapping[tuple[str, int], tuple[str, ...]]:
        """Device and inode → paths of the regular file, which may have several."""
        found: dict[tuple[str, int], list[str]] = {}
        for path, line in self._lines.items():
            dev, ino = line.get("dev"), line.get("ino")
            if line.get("type") == "f" and isinstance(dev, str) and isinstance(ino, int):
                found.setdefault((dev, ino), []).append(path)
        return {inode: tuple(paths) for inode, paths in found.items()}


def _is_disk(folder: str, name: str = "") -> bool:
    if name != "disk" and (not name.startswith("disk.") or name == "disk.info"):
        return False
    return FOLDER.fullmatch(folder) is not None


def _entry(line: dict[str, object]) -> FolderEntry:
    try:
        return FolderEntry.model_validate(line)
    except ValidationError:
        raise UnheardError(f"the listed attributes of {line.get('path')} can't be read") from None


def _newest(answers: Iterable[Answer]) -> dict[str, Answer]:
    """Return the last answer to each query, in the order of these answers."""
    newest: dict[str, Answer] = {}
    for answer in answers:
        newest.pop(answer.query, None)
        newest[answer.query] = answer
    return newest
