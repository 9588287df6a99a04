"""What the disk images of a host say, and the files that they are."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar

from pydantic import AliasPath, BaseModel, ConfigDict, Field, ValidationError

from hoodsnap.bundle import Answer
from hoodsnap.facts.fact import Fact, UnheardError, value_of
from hoodsnap.facts.host.container_paths import read_container_paths
from hoodsnap.facts.process.process import Process

_Count = Annotated[int, Field(ge=0, lt=1 << 64)]

_FOLDER = re.compile(r"(?P<uuid>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?P<suffix>(?:_\w+)?)")

BASE = "_base"
"""What nova calls the folder of its image cache, unless it is told otherwise."""

OF_AN_IMAGE = re.compile(r"([0-9a-f]{40})(_.+)?")
"""The names of what was made from an image: its SHA-1, and before Folsom a size behind it."""

_LISTING = re.compile(r"find (/.*?)/? -ls")


def base_of(image: str) -> str:
    """The name of a glance image's file in `_base`: the SHA-1 of its id."""
    return hashlib.sha1(image.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()


def is_base(path: str) -> bool:
    """Whether a file is one of an image cache, whatever that is called."""
    folder, _, name = path.rpartition("/")
    return folder.endswith(f"/{BASE}") or OF_AN_IMAGE.fullmatch(name) is not None


def owner_of(path: str) -> str | None:
    """The UUID of the guest in whose folder a file lies; None if it lies in none."""
    folder = _FOLDER.fullmatch(path.rpartition("/")[0].rpartition("/")[2])
    return folder["uuid"] if folder is not None else None


class Layer(BaseModel):
    """One file of a chain, as `qemu-img info` tells it."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, defer_build=True)

    filename: str
    """As qemu-img writes it: a path, a `json:{…}`, a network address."""

    format: str
    virtual_size: Annotated[_Count, Field(alias="virtual-size")]
    """Bytes that a guest sees."""

    actual_size: Annotated[_Count | None, Field(alias="actual-size")] = None
    """Bytes that it takes on the host's disk; None for what is no file."""

    backing_filename: Annotated[str | None, Field(alias="backing-filename")] = None
    """The next file, as the header names it."""

    full_backing_filename: Annotated[str | None, Field(alias="full-backing-filename")] = None
    backing_format: Annotated[str | None, Field(alias="backing-filename-format")] = None
    """What the header says the next file is; None if it leaves that to be guessed."""

    dirty: Annotated[bool | None, Field(alias="dirty-flag")] = None
    encrypted: bool = False
    corrupt: Annotated[
        bool | None, Field(validation_alias=AliasPath("format-specific", "data", "corrupt"))
    ] = None
    """QEMU found the image damaged and wrote that down in it; None if its format can't say."""

    data_file: Annotated[
        str | None, Field(validation_alias=AliasPath("format-specific", "data", "data-file"))
    ] = None
    """The file that holds its data, where its own holds only the tables."""

    @property
    def path(self) -> str:
        """The file's path, also where qemu-img hides it in a `json:`; else the filename."""
        return path_in(self.filename)


class FolderEntry(BaseModel):
    """One line of `find DIR -ls`."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, defer_build=True)

    path: str
    type: str
    """`f` (file), `d` (folder), `l` (link), `b` and `c` (devices), `p` (pipe), `s` (socket)."""

    size: _Count
    """Bytes."""

    blocks: _Count | None = None
    """Allocated units of 512 bytes."""

    mode: str | None = None
    """Octal, type included: `100644`."""

    uid: int | None = None
    gid: int | None = None
    user: str | None = None
    group: str | None = None
    nlink: int | None = None
    dev: str | None = None
    """`major:minor` of the file system."""

    ino: int | None = None
    rdev: str | None = None
    mtime: str | None = None
    ctime: str | None = None
    btime: str | None = None
    acl: bool | None = None
    """More decides who may open it than owner and mode; None if that was not asked."""

    selinux: str | None = None
    """Its label; None without SELinux."""

    target: str | None = None
    magic: str | None = None
    """The first 16 bytes in hexadecimal; None if they were not read."""

    error: str | None = None
    """Why what is in this folder is not known, or not all of it."""


@dataclass(frozen=True)
class Folder:
    """A guest's folder in an instances directory."""

    path: str
    uuid: str
    suffix: str
    """Empty; `_resize` (the copy to revert a resize with) or `_del` (being deleted)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Image(Fact):
    """One disk image, as qemu-img tells it: its own header, and the chain of files below it."""

    layer: ClassVar[str] = "images"
    noun: ClassVar[str] = "image"
    path: str

    places: ClassVar[Mapping[str, tuple[str, str]]] = {
        "path": ("chain", "[0].filename"),
        "format": ("chain", "[0].format"),
        "virtual_size": ("chain", "[0].virtual-size"),
        "actual_size": ("chain", "[0].actual-size"),
        "backing_filename": ("chain", "[0].backing-filename"),
        "backing_format": ("chain", "[0].backing-filename-format"),
        "corrupt": ("chain", "[0].format-specific.data.corrupt"),
        "data_file": ("chain", "[0].format-specific.data.data-file"),
        "dirty": ("chain", "[0].dirty-flag"),
        "chain": ("chain", ""),
        "backing_missing": ("chain", ""),
        "declared": ("disk.info", ""),
    }

    def where(self, name: str) -> tuple[Answer | None, str]:
        """As of any fact. Where the chain is broken, the header was asked for by itself."""
        answer, place = super().where(name)
        if place.startswith("[0]."):
            if answer is self.said.get("header"):
                place = place.removeprefix("[0].")
            elif answer is not None and answer.error is not None and "header" in self.said:
                return self.said["header"], place.removeprefix("[0].")
        return answer, place

    @cached_property
    def chain(self) -> tuple[Layer, ...]:
        """The image and the files below it, the base last."""
        if "chain" not in self.said and self._header.backing_filename is None:
            return (self._header,)
        what = f"the chain of {self.path}"
        chain = value_of(self.said.get("chain"), what, tuple[Layer, ...])
        if not chain:
            raise UnheardError(f"{what}: the answer is empty")
        return chain

    @cached_property
    def _header(self) -> Layer:
        return value_of(self.said.get("header"), f"the header of {self.path}", Layer)

    @cached_property
    def top(self) -> Layer:
        """The image without what is below it, which is known even if its base is gone."""
        try:
            return self.chain[0]
        except UnheardError:
            if "header" not in self.said:
                raise
            return self._header

    @property
    def format(self) -> str:
        """What it was read as: `qcow2`, `raw`."""
        return self.top.format

    @property
    def virtual_size(self) -> int:
        """Bytes that the guest sees."""
        return self.top.virtual_size

    @property
    def actual_size(self) -> int | None:
        """Bytes that it takes on the host's disk, without what is below it."""
        return self.top.actual_size

    @property
    def backing_filename(self) -> str | None:
        """The base, as the header names it; None if it has none."""
        return self.top.backing_filename

    @property
    def backing_format(self) -> str | None:
        """The base's format, as the header says it."""
        return self.top.backing_format

    @property
    def corrupt(self) -> bool | None:
        """QEMU found it damaged and wrote that down in it; None if its format can't say."""
        return self.top.corrupt

    @property
    def dirty(self) -> bool:
        """Whoever wrote to it last did not close it."""
        return bool(self.top.dirty)

    @property
    def data_file(self) -> str | None:
        """The other file that its data are in; None as nearly always: in its own."""
        return self.top.data_file

    @property
    def backing_path(self) -> str | None:
        """The base as a path, if it is a file; None if there is none, or it is no file."""
        name = self.top.full_backing_filename or self.backing_filename
        if name is None or ":" in name.partition("/")[0]:
            return None
        return posixpath.normpath(posixpath.join(self.path.rpartition("/")[0], name))

    @cached_property
    def backing_missing(self) -> str | None:
        """What qemu-img says of a file of the chain that is not there; None if all are."""
        failed = self.said["chain"].error if "chain" in self.said else None
        if failed is not None and failed.kind == "absent" and self.top.backing_filename:
            return failed.message
        last = self.chain[-1]
        if last.backing_filename is not None:
            raise UnheardError(f"{last.path}: qemu-img did not go on to {last.backing_filename}")
        return None

    @cached_property
    def declared(self) -> str | None:
        """The format that nova wrote into `disk.info`; None if it did not mention this disk."""
        info = _json_object(value_of(self.said.get("disk.info"), "disk.info", str))
        # The paths in it are those of before the folder was renamed.
        for path, form in info.items():
            if path.rpartition("/")[2] == self.path.rpartition("/")[2] and isinstance(form, str):
                return form
        return None


class ImageStore:
    """Everything that one host said of its files: listings, single files, and images."""

    def __init__(self, processes: Iterable[Process] = ()) -> None:
        self.listing: Answer | None = None
        """The list of everything in the first instances directory; None if there is none."""
        self.failures: dict[str, str] = {}
        """Instances directory → why its list is not known."""
        self.images: dict[str, Image] = {}
        """By path: every file that qemu-img was asked about."""
        self._lines: dict[str, dict[str, object]] = {}  # path → line of a list, not checked yet
        self._tops: list[str] = []
        self._looked: dict[str, FolderEntry | None] = {}
        self._read: dict[str, FolderEntry] = {}  # the lines that were asked for, checked
        self._processes = tuple(processes)

    @classmethod
    def read(cls, answers: Iterable[Answer], processes: Iterable[Process] = ()) -> ImageStore:
        """Read one host's answers; of several to one question the last counts. `processes` may have
        files in here open, under other names of the directories."""
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
            elif found := _LISTING.fullmatch(query):
                store._list(answer, found[1])
        for path, parts in said.items():
            info = infos.get(path.rpartition("/")[0])
            if info is not None:
                parts["disk.info"] = info
            store.images[path] = Image(path=path, said=parts)
        return store

    def _list(self, answer: Answer, top: str) -> None:
        # A list has a line for each file of each guest, and few of them are ever looked at.
        try:
            lines = value_of(answer, f"the list of {top}", list[object])
        except UnheardError as reason:
            self.failures[top] = str(reason)
            return
        found: dict[str, dict[str, object]] = {}
        for line in lines:
            if not isinstance(line, dict) or not isinstance(line.get("path"), str):
                # Whatever it is the line of is missing from here, not from the host.
                self.failures[top] = f"the list of {top} can't be read"
                return
            found[line["path"].rstrip("/")] = line
        # It is newer than what was seen there of single files before it.
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
            return  # who asks for this file hears that nobody could look

    def entry(self, path: str) -> FolderEntry | None:
        """The file at a path, links followed if that was asked; None if there is no such file.

        Raises `UnheardError` if nobody looked there.
        """
        path = self.called(path)
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
            raise UnheardError(f"{path}: {around.get('error') or 'nobody looked there'}")
        return None

    @cached_property
    def aliases(self) -> Mapping[str, str]:
        """The instances directories by the names that QEMU has for them, as far as files in them
        are open: as they were listed."""
        return read_container_paths(self, self._processes)

    def called(self, path: str) -> str:
        """What a path that QEMU or a disk's header names is called where it was listed."""
        for name, top in self.aliases.items():
            if top is not name and path.startswith(f"{name}/"):
                return top + path.removeprefix(name)
        return path

    def image(self, path: str | None) -> Image | None:
        """What qemu-img says of the file at a path; None if it was not asked."""
        return self.images.get(self.called(path)) if path is not None else None

    def inode(self, path: str) -> int | None:
        """Of the file that is listed under a path; None if none is."""
        ino = self._lines.get(path, {}).get("ino")
        return ino if isinstance(ino, int) else None

    @property
    def tops(self) -> tuple[str, ...]:
        """The instances directories that were listed."""
        return tuple(self._tops)

    def size_of(self, uuid: str, name: str) -> int | None:
        """Bytes of a file in a guest's folder; None if it is not there."""
        for top in self._tops:
            entry = self.entry(f"{top}/{uuid}/{name}")
            if entry is not None:
                return entry.size
        for reason in self.failures.values():
            raise UnheardError(reason)
        if not self._tops:
            raise UnheardError("no instances directory was listed")
        return None

    def of(self, uuid: str, disks: Iterable[str] = ()) -> tuple[Image, ...]:
        """A guest's images: the disks that its domain names, then the others in its folder."""
        beside = self._in_folder.get(uuid, ())
        paths = dict.fromkeys((*map(self.called, disks), *beside))
        return tuple(self.images[path] for path in paths if path in self.images)

    @cached_property
    def _in_folder(self) -> Mapping[str, list[str]]:
        found: dict[str, list[str]] = {}
        for path in sorted(self.images):
            found.setdefault(path.rpartition("/")[0].rpartition("/")[2], []).append(path)
        return found

    @cached_property
    def folders(self) -> Mapping[str, tuple[Folder, ...]]:
        """The guests' folders by UUID, with what is left of a resize or a deletion."""
        folders: dict[str, tuple[Folder, ...]] = {}
        for path, line in self._lines.items():
            top, _, name = path.rpartition("/")
            found = _FOLDER.fullmatch(name)
            if found and top in self._tops and line.get("type") == "d":
                folder = Folder(path, found["uuid"], found["suffix"])
                folders[folder.uuid] = (*folders.get(folder.uuid, ()), folder)
        return folders

    @cached_property
    def disks(self) -> tuple[str, ...]:
        """The paths of the disks in the guests' folders, those of left-over folders too."""
        return tuple(
            path
            for path, line in self._lines.items()
            if line.get("type") == "f" and _is_disk(*path.rsplit("/", 2)[1:])
        )

    @cached_property
    def caches(self) -> Mapping[str, Mapping[str, FolderEntry]]:
        """The folders of image caches, each with its files by name. One is known by its name, or by
        what is in it: it may be called anything, and hosts that share a directory may have several.
        """
        found: dict[str, dict[str, dict[str, object]]] = {}
        for path, line in self._lines.items():
            folder, _, name = path.rpartition("/")
            top, _, own = folder.rpartition("/")
            if line.get("type") == "f" and top in self._tops and not _FOLDER.fullmatch(own):
                found.setdefault(folder, {})[name] = line
        return {
            folder: {name: _entry(line) for name, line in lines.items()}
            for folder, lines in found.items()
            if folder.endswith(f"/{BASE}") or any(map(OF_AN_IMAGE.fullmatch, lines))
        }

    @cached_property
    def bases(self) -> Mapping[str, FolderEntry]:
        """The files of the image caches, by name. `base_of` is the name of an image's."""
        return {name: entry for files in self.caches.values() for name, entry in files.items()}

    @cached_property
    def by_inode(self) -> Mapping[tuple[str, int], tuple[str, ...]]:
        """The paths of the regular files by device and inode; a file may have several."""
        found: dict[tuple[str, int], list[str]] = {}
        for path, line in self._lines.items():
            dev, ino = line.get("dev"), line.get("ino")
            if line.get("type") == "f" and isinstance(dev, str) and isinstance(ino, int):
                found.setdefault((dev, ino), []).append(path)
        return {inode: tuple(paths) for inode, paths in found.items()}


def _is_disk(folder: str, name: str = "") -> bool:
    if name != "disk" and (not name.startswith("disk.") or name == "disk.info"):
        return False
    return _FOLDER.fullmatch(folder) is not None


def _entry(line: dict[str, object]) -> FolderEntry:
    try:
        return FolderEntry.model_validate(line)
    except ValidationError:
        raise UnheardError(f"what is said of {line.get('path')} can't be read") from None


def _newest(answers: Iterable[Answer]) -> dict[str, Answer]:
    """The last answer to each question, in the order of these."""
    newest: dict[str, Answer] = {}
    for answer in answers:
        newest.pop(answer.query, None)
        newest[answer.query] = answer
    return newest


def path_in(filename: str) -> str:
    """The path in a file's name as QEMU writes it; the name itself if it is no file's."""
    if not filename.startswith("json:"):
        return filename.removeprefix("file:")
    try:
        return _path_in(_json_object(filename.removeprefix("json:"))) or filename
    except UnheardError:
        return filename


def _path_in(tree: object) -> str | None:
    """The path of the file at the bottom of a `json:` filename's nodes."""
    for _ in range(8):  # format, filters, protocol: QEMU itself nests no deeper
        if not isinstance(tree, dict):
            return None
        name = tree.get("filename", tree.get("file.filename"))
        if isinstance(name, str):
            return name
        tree = tree.get("file")
    return None


def _json_object(text: str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise UnheardError("it is no JSON") from None
    if not isinstance(value, dict):
        raise UnheardError("it is no JSON object")
    return value
