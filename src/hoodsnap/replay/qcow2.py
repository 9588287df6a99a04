"""Write an empty qcow2 image for which `qemu-img info` shows the same as for a recorded one.

The image has a header, a refcount table and an L1 table without entries. QEMU's
docs/interop/qcow2.txt describes their layout.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

from hoodsnap.facts.quantity import whole

_MAGIC = b"QFI\xfb"
_BACKING_FORMAT = 0xE2792ACA
_DIRTY, _CORRUPT, _COMPRESSION, _EXTENDED_L2 = 1 << 0, 1 << 1, 1 << 3, 1 << 4
_LAZY = 1 << 0
_ENTRY = 1 << 63  # a table entry that is the only reference to its cluster


class UnfaithfulImageError(ValueError):
    """No image can be made for which qemu-img shows the same. The text is the reason."""


def write(file: BinaryIO, info: Mapping[str, Any]) -> int:
    """Write an image for which `qemu-img info --output=json` shows `info`.

    Returns the number of bytes. Raises `UnfaithfulImageError`.
    """
    specific = info.get("format-specific")
    data: Mapping[str, Any] = specific.get("data", {}) if isinstance(specific, dict) else {}
    if "encrypt" in data or info.get("encrypted"):
        raise UnfaithfulImageError("it is encrypted, and its key slots were not recorded")
    if "data-file" in data:
        raise UnfaithfulImageError("its data is in another file")
    if info.get("snapshots") or data.get("bitmaps"):
        raise UnfaithfulImageError("its snapshots and bitmaps were not recorded completely")
    size, cluster = whole(info.get("virtual-size")), whole(info.get("cluster-size"))
    if size is None or cluster is None or not 512 <= cluster <= 2 << 20 or cluster & cluster - 1:
        raise UnfaithfulImageError("its sizes can't be read")
    file.write(_header(info, data, size, cluster))
    file.seek(cluster)
    file.write(struct.pack(">Q", 2 * cluster))
    tables = _tables(data, size, cluster)
    file.seek(2 * cluster)
    file.write(b"\0\1" * 4)
    end = 3 * cluster + max(tables, 1) * 8
    file.truncate(end)
    return end


def _header(info: Mapping[str, Any], data: Mapping[str, Any], size: int, cluster: int) -> bytes:
    old = data.get("compat") == "0.10"
    compressed = data.get("compression-type", "zlib")
    if compressed not in ("zlib", "zstd"):
        raise UnfaithfulImageError(f"it is compressed with {compressed}")
    bits = whole(data.get("refcount-bits", 16)) or 16
    extensions = _extensions(info)
    length = 72 if old else 112
    backing = str(info.get("backing-filename") or "").encode(errors="surrogateescape")
    if len(backing) > 1023:
        raise UnfaithfulImageError("the name of its backing file is too long")
    fields = struct.pack(
        ">4sIQIIQIIQQIIQ",
        _MAGIC,
        2 if old else 3,
        length + len(extensions) if backing else 0,
        len(backing),
        cluster.bit_length() - 1,
        size,
        0,
        max(_tables(data, size, cluster), 1),
        3 * cluster,
        cluster,
        1,
        0,
        0,
    )
    if not old:
        lazy = _LAZY if data.get("lazy-refcounts") else 0
        order = bits.bit_length() - 1
        fields += struct.pack(">QQQII", _incompatible(info, data), lazy, 0, order, length)
        fields += bytes([compressed == "zstd"]) + b"\0" * 7
    return fields + extensions + backing


def _tables(data: Mapping[str, Any], size: int, cluster: int) -> int:
    """Return the number of L2 tables, each a cluster, that an image of this size needs."""
    per_table = cluster * (cluster // (16 if data.get("extended-l2") else 8))
    return -(-size // per_table)


def _incompatible(info: Mapping[str, Any], data: Mapping[str, Any]) -> int:
    """The bits of the features without which the image must not be opened."""
    features = (
        (_DIRTY, info.get("dirty-flag")),
        (_CORRUPT, data.get("corrupt")),
        (_COMPRESSION, data.get("compression-type") == "zstd"),
        (_EXTENDED_L2, data.get("extended-l2")),
    )
    return sum(flag for flag, is_set in features if is_set)


def _extensions(info: Mapping[str, Any]) -> bytes:
    """The header's extensions: the format of the backing file, and their end."""
    end = struct.pack(">II", 0, 0)
    if backing_format := info.get("backing-filename-format"):
        name = str(backing_format).encode(errors="surrogateescape")
        return struct.pack(">II", _BACKING_FORMAT, len(name)) + _padded(name) + end
    return end


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 8)
