"""Kinds of files that are not bundles, recognized by their first bytes.

People attach what they have. A message that names the kind of the file saves them a round.
"""

from __future__ import annotations

import re

_BINARY = (
    (257, b"ustar", "a tar archive (perhaps a sosreport)"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"PK\x05\x06", "an empty zip archive"),
    (0, b"\xfd7zXZ\x00", "compressed by xz"),
    (0, b"BZh", "compressed by bzip2"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"\x04\x22\x4d\x18", "compressed by lz4"),
    (0, b"\x1f\x8b", "compressed by gzip twice"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd twice"),
    (0, b"SQLite format 3\x00", "an SQLite database"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"\x7fELF", "an ELF program or library"),
    (0, b"QFI\xfb", "a qcow2 disk image"),
    (0, b"KDMV", "a VMDK disk image"),
    (510, b"\x55\xaa", "a disk image"),
    (0, b"%PDF-", "a PDF document"),
    (0, b"\x89PNG\r\n", "a PNG picture"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"GIF8", "a GIF picture"),
    (0, b"\xff\xfe", "UTF-16 text (as Windows PowerShell writes it)"),
    (0, b"\xfe\xff", "UTF-16 text"),
)
"""Offset and bytes that a kind of file has, and the words for it. The first match counts."""

_TEXT = (
    (
        re.compile(r"\A(?:<!doctype html|<html\b)"),
        "an HTML page (perhaps a login page instead of the attachment)",
    ),
    (re.compile(r"\A(?:<domain\b|<domstatus\b)"), "libvirt's XML of a domain"),
    (re.compile(r"\A(?:<\?xml\b|<[a-z][\w:.-]*[\s/>])"), "an XML document"),
    (
        re.compile(r"\A(?:-- (?:mysql|mariadb) dump|/\*m?!\d+\\?- enable the sandbox)"),
        "a dump of a MySQL database",
    ),
    (
        re.compile(r"\A(?:-- postgresql database dump|--\n-- postgresql)"),
        "a dump of a PostgreSQL database",
    ),
    (re.compile(r"\A(?:-----begin )"), "a key, certificate or signature in PEM format"),
    (re.compile(r"\A(?:#!)"), "a script"),
    (re.compile(r"\A(?:diff --git |--- a/)"), "a patch"),
    (
        re.compile(r"\A(?:---\s*(?:\n|$)|[\w.-]+:(?: [^\n]*)?\n(?:[\w.-]+:|\s+[\w\"'-]|- ))"),
        "a YAML document",
    ),
    (re.compile(r"\A(?:(?:[#;][^\n]*\n|\s)*\[[\w.:-]+\]\s*\n)"), "a configuration file"),
)
"""Pattern of the beginning of a text in lower case, and the words for it."""

_LOOKED_AT = 4096
"""Bytes of a file that are looked at."""


def kind_of(data: bytes) -> str | None:
    """Return the kind of a file that is not JSON, to follow "it is"; None if it is unknown."""
    head = data[:_LOOKED_AT]
    for offset, magic, words in _BINARY:
        if head.startswith(magic, offset):
            return words
    try:
        # The cut may have split a character: the last three bytes don't count.
        text = head.decode() if len(data) <= _LOOKED_AT else head[:-3].decode(errors="ignore")
    except UnicodeDecodeError:
        return None
    if b"\x00" in head:
        return None
    start = text.removeprefix("\ufeff").lstrip().lower()
    for pattern, words in _TEXT:
        if pattern.match(start):
            return words
    return "a text file" if start and start[0] not in '{["' else None
