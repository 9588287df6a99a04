"""First bytes of a disk image, read without qemu-img.

qemu-img opens every file that an image's header names: its backing file, a data file, the extents
of a VMDK. A guest may write any header it likes onto a raw disk, so a probed format hands the
choice of these files to the guest: another's disk, a network address, /dev/watchdog, all as root.
(That hole has had CVE-2015-7548, CVE-2016-2140, CVE-2024-32498 and CVE-2024-4467.) Before qemu-img
runs, this file decides how far it may go. The bytes come from `hoodsnap.collect.file`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

MAGIC_SIZE = 16
"""Bytes of each file that a bundle keeps."""

HEAD_SIZE = 4096
"""Bytes that are read. qemu-img puts a qcow2's backing file name right behind its header."""

_QCOW2 = b"QFI\xfb"
_BACKING_FORMAT = 0xE2792ACA
_DATA_FILE = 1 << 2

# Formats that QEMU probes for and that name other files: QED, VMDK, and VMDK's text form, which may
# begin with comments and blank lines.
_NAMING = (b"QED\0", b"KDMV", b"COWD", b"#", b" ", b"\r", b"\n", b"version=")


@dataclass(frozen=True)
class Header:
    """What a file's first bytes make QEMU do."""

    format: str | None
    """What QEMU would probe it as, `qcow2` or `raw`; None if as something that names other files,
    or if the file must not be opened at all."""

    backing: str | None = None
    """The backing file, as the header names it."""

    backing_format: str | None = None
    data_file: bool = False
    """Its data are in another file, which QEMU opens too."""

    regular: bool = True


NOT_REGULAR = Header(None, regular=False)
"""A directory, a device, a pipe: even opening it can do more than read."""


def read_header(head: bytes) -> Header:
    """The header in a file's first bytes. Never raises: what can't be read has no format."""
    if not head.startswith(_QCOW2):
        return Header(None if head.startswith(_NAMING) else "raw")
    try:
        version, offset, length = struct.unpack_from(">4xIQI", head)
        if version not in (2, 3):
            return Header(None)
        features, extensions = 0, 72
        if version == 3:
            features, extensions = struct.unpack_from(">72xQ20xI", head)
        if offset + length > len(head):
            return Header(None)
        return Header(
            "qcow2",
            backing=os.fsdecode(head[offset : offset + length]) if offset else None,
            backing_format=_backing_format(head, extensions, offset),
            data_file=bool(features & _DATA_FILE),
        )
    except struct.error:
        return Header(None)


def _backing_format(head: bytes, place: int, end: int) -> str | None:
    while place + 8 <= (end or len(head)):
        kind, length = struct.unpack_from(">II", head, place)
        if kind == 0:
            break
        if kind == _BACKING_FORMAT:
            return head[place + 8 : place + 8 + length].decode("ascii", "replace")
        place += 8 + (length + 7) // 8 * 8
    return None


@dataclass(frozen=True)
class Route:
    """How far qemu-img may go from an image."""

    format: str | None
    """What it is told to read the image as; None if it must not open it."""

    obstacle: str | None = None
    """Why it must not follow the chain of backing files; None if it may."""

    trusted: bool = True
    """The host wrote every header on the way, so none of them is out to do harm."""

    below: dict[str, str | None] = field(default_factory=dict)
    """The backing files on the way, each with its format, if that was said and can be trusted."""


def route(path: str, declared: str | None, header_of: Callable[[str], Header | None]) -> Route:
    """How far qemu-img may go from an image, whose format is `declared` by libvirt or nova, or not.

    A declared qcow2's header was written by the host: a guest reaches only what is inside. So it is
    trusted to name regular files of any format, as long as it names their format too. Everything
    probed is trusted with nothing but raw and qcow2. `header_of` knows None of a file that can't be
    opened; qemu-img may try that and say why.
    """
    header = header_of(path)
    trusted = declared is not None
    if header is None:
        return Route(declared or "raw", trusted=trusted)
    if not _is_harmless(header, declared, trusted):
        return Route(None, f"{path} may name other files in its header", trusted=False)
    form, obstacle, below = declared or header.format, None, dict[str, str | None]()
    try:
        for base, base_form in _bases(path, form, header, header_of, trusted):
            below[base] = base_form
            trusted = trusted and base_form is not None
    except _ObstacleError as found:
        obstacle = str(found)
    return Route(form, obstacle, trusted, below)


class _ObstacleError(Exception):
    """qemu-img must not go on here."""


def _bases(
    path: str,
    form: str | None,
    header: Header | None,
    header_of: Callable[[str], Header | None],
    trusted: bool,
) -> Iterator[tuple[str, str | None]]:
    """The backing files below an image, each with its format, if a trusted header says it."""
    seen = {path}
    while form == "qcow2" and header is not None:
        if header.format is None:
            raise _ObstacleError(f"the header of {path} can't be read")
        if not header.backing:
            return
        if ":" in header.backing.partition("/")[0]:
            raise _ObstacleError(f"the chain leads to {header.backing}, which is no file")
        path = os.path.join(os.path.dirname(path), header.backing)
        if path in seen:
            return  # a loop, which qemu-img finds too
        seen.add(path)
        form = header.backing_format
        trusted = trusted and form is not None
        yield path, form if trusted else None
        header = header_of(path)
        if header is not None:
            if not _is_harmless(header, form, trusted):
                raise _ObstacleError(f"the chain leads to {path}, which may name other files")
            form = form or header.format


def _is_harmless(header: Header, declared: str | None, trusted: bool) -> bool:
    if trusted:
        return header.regular
    return header.format is not None and not header.data_file and declared in (None, "raw", "qcow2")
