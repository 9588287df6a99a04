"""Header of a file with a domain's saved memory: its numbers are kept, and nothing else.

The file begins with libvirt's `struct _virQEMUSaveHeader`, in the byte order of the host that wrote
it; the domain's definition and QEMU's memory follow, of which nothing is read.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

SIZE = 92
"""Bytes of the header."""

COMPLETE, PARTIAL = "LibvirtQemudSave", "LibvirtQemudPart"
"""Magic numbers: of a file that libvirt has finished, and of one that it still writes."""

_NUMBERS = ("version", "data_len", "was_running", "compressed", "cookie_offset")

_NEWEST = 0xFFFF
"""No version is larger, unless the bytes are in the other order."""


def save_header(head: bytes) -> dict[str, object]:
    """Return the fields of a header; only `magic` (None) and `read` if this is no such header.

    `read`: bytes that the file has of the header. `data_len`: length of the definition and the
    cookie behind the header. `compressed`: 0 if the memory is not compressed.
    """
    magic = head[:16].decode("latin-1")
    found: dict[str, object] = {"magic": None, "read": len(head)}
    if magic not in (COMPLETE, PARTIAL):
        return found
    found["magic"] = magic
    if len(head) < SIZE:
        return found
    order = "=" if struct.unpack_from("=I", head, 16)[0] <= _NEWEST else _swapped()
    return found | dict(zip(_NUMBERS, struct.unpack_from(f"{order}5I", head, 16), strict=True))


def header_of(fields: Mapping[str, object]) -> bytes:
    """Return the header that has these fields; as many zeros if it was none of libvirt's."""
    magic = fields.get("magic")
    if magic not in (COMPLETE, PARTIAL):
        return bytes(SIZE)
    numbers = [fields.get(name) for name in _NUMBERS]
    kept = [one if isinstance(one, int) and 0 <= one < 1 << 32 else 0 for one in numbers]
    return struct.pack("=16s5I56x", str(magic).encode(), *kept)


def _swapped() -> str:
    return "<" if struct.pack("=H", 1) == struct.pack(">H", 1) else ">"
