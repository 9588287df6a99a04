"""Header of a disk image: its first bytes, read without qemu-img.

qemu-img opens every file that an image's header names: its backing file, a data file, the extents
of a VMDK. A guest can write any header onto a raw disk. If the format is probed, the guest chooses
which files are opened, all as root: another guest's disk, a network address, /dev/watchdog.
(CVE-2015-7548, CVE-2016-2140, CVE-2024-32498 and CVE-2024-4467 were such attacks.) This module
decides, before qemu-img runs, how far it may go. The bytes come from `hoodsnap.collect.file`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

HEAD_SIZE = 4096
"""Bytes that are read. qemu-img writes the backing file's name right after a qcow2's header."""

_QCOW2 = b"QFI\xfb"
_BACKING_FORMAT = 0xE2792ACA
_DATA_FILE = 1 << 2

# Beginnings of probed formats that name other files: QED, VMDK, and the text form of VMDK, which
# may begin with comments and blank lines.
_NAMING = (b"QED\0", b"KDMV", b"COWD", b"#", b" ", b"\r", b"\n", b"version=")


@dataclass(frozen=True)
class Header:
    """The header of a file: what QEMU would do with it."""

    format: str | None
    """Format that QEMU would probe, `qcow2` or `raw`. None for other formats that name files, for a
    header that can't be parsed, and for a file that must not be opened at all."""

    backing: str | None = None
    """The backing file, as the header names it; None if there is no backing file."""

    backing_format: str | None = None
    data_file: bool = False
    """True if the data are in another file, which QEMU opens too."""

    regular: bool = True


NOT_REGULAR = Header(None, regular=False)
"""Header of a directory, device or pipe, which must not be opened: that can do more than read."""


def read_header(head: bytes) -> Header:
    """Parse the header in a file's first bytes. An unreadable header has no format."""
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
    """Route of qemu-img from an image along its chain of backing files: how far it may go."""

    format: str | None
    """Format that is passed to qemu-img; None if it must not open the image."""

    obstacle: str | None = None
    """Reason why it must not follow the chain of backing files; None if it may."""

    trusted: bool = True
    """True if the host wrote every header on the way, so that no guest chose the next file."""

    below: dict[str, str | None] = field(default_factory=dict)
    """The backing files on the way: path → format, or None if a trusted header gives no format."""


def route(path: str, declared: str | None, header_of: Callable[[str], Header | None]) -> Route:
    """Decide how far qemu-img may go from an image.

    `declared`: the format that libvirt or nova gives; None if they give none. The host wrote the
    header of an image that is declared qcow2, because the guest only writes inside it. That header
    may name regular files of any format, as long as it gives their format too. From an image whose
    format is probed, only raw and qcow2 files without data files may be reached. `header_of`
    returns None for a file that can't be opened; qemu-img may try to open it and report the error.
    """
    header = header_of(path)
    trusted = declared is not None
    if header is None:
        return Route(declared or "raw", trusted=trusted)
    if not _is_harmless(header, declared, trusted):
        return Route(
            None, f"the header of {path} may refer to files that qemu-img would open", trusted=False
        )
    form, obstacle, below = declared or header.format, None, dict[str, str | None]()
    try:
        for base, base_form in _bases(path, form, header, header_of, trusted):
            below[base] = base_form
            trusted = trusted and base_form is not None
    except _ObstacleError as found:
        obstacle = str(found)
    return Route(form, obstacle, trusted, below)


class _ObstacleError(Exception):
    """The chain must not be followed any further. The text is the reason."""


def _bases(
    path: str,
    form: str | None,
    header: Header | None,
    header_of: Callable[[str], Header | None],
    trusted: bool,
) -> Iterator[tuple[str, str | None]]:
    """Yield the backing files below an image, each with its format if a trusted header gives it."""
    seen = {path}
    while form == "qcow2" and header is not None:
        if header.format is None:
            raise _ObstacleError(f"the header of {path} can't be read")
        if not header.backing:
            return
        if ":" in header.backing.partition("/")[0]:
            raise _ObstacleError(
                f"the backing chain leads to {header.backing}, which is not a file"
            )
        path = os.path.join(os.path.dirname(path), header.backing)
        if path in seen:
            return  # a loop, which qemu-img reports itself
        seen.add(path)
        form = header.backing_format
        trusted = trusted and form is not None
        yield path, form if trusted else None
        header = header_of(path)
        if header is not None:
            if not _is_harmless(header, form, trusted):
                raise _ObstacleError(
                    f"the backing chain leads to {path}, whose header may refer to other files"
                )
            form = form or header.format


def _is_harmless(header: Header, declared: str | None, trusted: bool) -> bool:
    if trusted:
        return header.regular
    return header.format is not None and not header.data_file and declared in (None, "raw", "qcow2")
