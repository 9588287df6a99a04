"""One disk image: its own header, and the chain of files below it, as qemu-img reports them."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar

from pydantic import AliasPath, BaseModel, ConfigDict, Field

from hoodsnap.bundle import Answer
from hoodsnap.facts.fact import Documented, DocumentedField, Fact, UnheardError, value_of
from hoodsnap.facts.host.instances_directory import owner_of
from hoodsnap.facts.layer import IMAGES, Layer

_Count = Annotated[int, Field(ge=0, lt=1 << 64)]


class InternalSnapshot(BaseModel):
    """One snapshot inside an image's own file."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, defer_build=True)

    name: str


class ImageInfo(BaseModel):
    """One file of a chain, as reported by `qemu-img info`."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, defer_build=True)

    filename: str
    """As qemu-img prints it: a path, `json:{…}`, or a network address."""

    format: str
    virtual_size: Annotated[_Count, Field(alias="virtual-size")]
    """Size in bytes that a guest sees."""

    actual_size: Annotated[_Count | None, Field(alias="actual-size")] = None
    """Bytes that it occupies on the host's disk; None if it is not a file."""

    backing_filename: Annotated[str | None, Field(alias="backing-filename")] = None
    """Backing file, as the header names it."""

    full_backing_filename: Annotated[str | None, Field(alias="full-backing-filename")] = None
    backing_format: Annotated[str | None, Field(alias="backing-filename-format")] = None
    """Format of the backing file in the header; None if QEMU probes it."""

    specific: Annotated[
        str | None, Field(validation_alias=AliasPath("format-specific", "type"))
    ] = None
    """Format that the header's details belong to; None if the format has no details."""

    dirty: Annotated[bool | None, Field(alias="dirty-flag")] = None
    encrypted: bool = False
    corrupt: Annotated[
        bool | None, Field(validation_alias=AliasPath("format-specific", "data", "corrupt"))
    ] = None
    """True if QEMU has marked the image as damaged; None if its format has no such mark."""

    data_file: Annotated[
        str | None, Field(validation_alias=AliasPath("format-specific", "data", "data-file"))
    ] = None
    """External data file; None if the image's own file holds the data."""

    snapshots: list[InternalSnapshot] = Field(default_factory=list)
    """Snapshots inside the file itself."""

    @property
    def path(self) -> str:
        """Path of the file, also from a `json:` filename; otherwise the filename."""
        return path_in(self.filename)

    @property
    def below(self) -> frozenset[str]:
        """Paths of the backing file: as the header names it, and as qemu-img resolved it."""
        names = {self.full_backing_filename, self.backing_filename} - {None}
        folder = self.path.rpartition("/")[0]
        return frozenset(
            posixpath.normpath(posixpath.join(folder, path_in(name)))
            for name in names
            if name is not None and ":" not in path_in(name).partition("/")[0]
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Image(Fact):
    """One disk image, as reported by qemu-img: its header and the chain of files below it."""

    layer: ClassVar[Layer] = IMAGES
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
        "snapshots": ("chain", "[0].snapshots"),
        "chain": ("chain", ""),
        "backing_missing": ("chain", ""),
        "declared": ("disk.info", ""),
        "declared_owners": ("disk.info", ""),
    }

    documented: ClassVar[Documented] = (
        DocumentedField("path", "Path of the file."),
        DocumentedField(
            "name", "Last part of its path: `disk`.", lambda image: _last_part(image.path)
        ),
        *("format", "virtual_size", "actual_size"),
        DocumentedField(
            "chain",
            "Paths of the image and of its backing files, the base image last.",
            lambda image: [info.path for info in image.chain],
        ),
        DocumentedField(
            "base",
            "Path of its base image; null if it has no backing file.",
            lambda image: _bottom(image),
        ),
        DocumentedField(
            "base_name", "Last part of `base`.", lambda image: _last_part(_bottom(image))
        ),
        "backing_missing",
    )

    def where(self, name: str) -> tuple[Answer | None, str]:
        """Return the answer and the place in it. For a broken chain, the header is a separate
        answer."""
        answer, place = super().where(name)
        if place.startswith("[0]."):
            if answer is self.said.get("header"):
                place = place.removeprefix("[0].")
            elif answer is not None and answer.error is not None and "header" in self.said:
                return self.said["header"], place.removeprefix("[0].")
        return answer, place

    @cached_property
    def chain(self) -> tuple[ImageInfo, ...]:
        """The image and the files below it, the base image last."""
        if "chain" not in self.said and self._header.backing_filename is None:
            return (self._header,)
        what = f"the backing chain of {self.path}"
        chain = value_of(self.said.get("chain"), what, tuple[ImageInfo, ...])
        if not chain:
            raise UnheardError(f"{what}: the answer is empty")
        return chain

    @cached_property
    def _header(self) -> ImageInfo:
        return value_of(self.said.get("header"), f"the header of {self.path}", ImageInfo)

    @cached_property
    def top(self) -> ImageInfo:
        """The image alone; known even if its backing file does not exist."""
        try:
            return self.chain[0]
        except UnheardError:
            if "header" not in self.said:
                raise
            return self._header

    @property
    def format(self) -> str:
        """Format that qemu-img read it as: `qcow2`, `raw`."""
        return self.top.format

    @property
    def virtual_size(self) -> int:
        """Size in bytes that the guest sees."""
        return self.top.virtual_size

    @property
    def actual_size(self) -> int | None:
        """Bytes that it occupies on the host's disk, without its backing files."""
        return self.top.actual_size

    @property
    def backing_filename(self) -> str | None:
        """Backing file, as the header names it; None if it has none."""
        return self.top.backing_filename

    @property
    def backing_format(self) -> str | None:
        """Format of the backing file in the header; None if QEMU probes it."""
        return self.top.backing_format

    @property
    def snapshots(self) -> tuple[str, ...]:
        """Names of the snapshots inside the image's own file."""
        return tuple(one.name for one in self.top.snapshots)

    @property
    def corrupt(self) -> bool | None:
        """True if QEMU has marked the image as damaged; None if its format has no such mark."""
        return self.top.corrupt

    @property
    def dirty(self) -> bool:
        """The dirty bit is set: the last writer did not close the image cleanly."""
        return bool(self.top.dirty)

    @property
    def data_file(self) -> str | None:
        """External data file; None if, as nearly always, its own file holds the data."""
        return self.top.data_file

    @property
    def backing_path(self) -> str | None:
        """Path of the backing file; None without a backing file, or if it is not a file."""
        name = self.top.full_backing_filename or self.backing_filename
        if name is None or ":" in name.partition("/")[0]:
            return None
        return posixpath.normpath(posixpath.join(self.path.rpartition("/")[0], name))

    @cached_property
    def backing_missing(self) -> str | None:
        """qemu-img's message about a file of the chain that does not exist; None if all exist."""
        failed = self.said["chain"].error if "chain" in self.said else None
        if failed is not None and failed.kind == "absent" and self.top.backing_filename:
            return failed.message
        last = self.chain[-1]
        if last.backing_filename is not None:
            raise UnheardError(
                f"{last.path}: qemu-img did not report its backing file {last.backing_filename}"
            )
        return None

    @cached_property
    def declared(self) -> str | None:
        """Format that nova wrote into `disk.info`; None if `disk.info` does not list the disk."""
        info = _json_object(value_of(self.said.get("disk.info"), "disk.info", str))
        # Its paths date from before the folder was renamed, so only file names are compared.
        for path, form in info.items():
            if path.rpartition("/")[2] == self.path.rpartition("/")[2] and isinstance(form, str):
                return form
        return None

    @cached_property
    def declared_owners(self) -> frozenset[str]:
        """UUIDs of the guests in whose folders the disks in `disk.info` are; nova looks up disks by
        their whole path."""
        info = _json_object(value_of(self.said.get("disk.info"), "disk.info", str))
        return frozenset(owner for path in info if (owner := owner_of(path)) is not None)


def path_in(filename: str) -> str:
    """Return the path in a filename as QEMU prints it; the filename itself if it has no path."""
    if not filename.startswith("json:"):
        return filename.removeprefix("file:")
    try:
        return _path_in(_json_object(filename.removeprefix("json:"))) or filename
    except UnheardError:
        return filename


def _path_in(tree: object) -> str | None:
    """Return the path of the file at the bottom of a `json:` filename's nodes; None without one."""
    for _ in range(8):  # format, filters, protocol: QEMU nests no deeper
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
        raise UnheardError("disk.info is not JSON") from None
    if not isinstance(value, dict):
        raise UnheardError("disk.info is not a JSON object")
    return value


def _bottom(image: Image) -> str | None:
    return image.chain[-1].path if len(image.chain) > 1 else None


def _last_part(path: str | None) -> str | None:
    return None if path is None else path.rpartition("/")[2]
