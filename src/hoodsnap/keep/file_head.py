"""Which of a file's first bytes are kept: those that tell its format."""

from __future__ import annotations

import posixpath

MAGIC_SIZE = 16
"""Bytes of each file that a bundle keeps."""


def is_content(path: str) -> bool:
    """Return whether even the first bytes of this file are content that is not kept.

    What a guest printed on its console is, even sixteen bytes of it.
    """
    return posixpath.basename(path).startswith("console.log")


def magic(head: bytes) -> str:
    """Keep of a file's first bytes those that tell its format, in hexadecimal digits."""
    return head[:MAGIC_SIZE].hex()
