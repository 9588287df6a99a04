"""First bytes of a file: only those that identify its format are kept."""

from __future__ import annotations

import posixpath

MAGIC_SIZE = 16
"""Bytes of each file that are kept in a bundle."""


def is_content(path: str) -> bool:
    """Return True if even the first bytes of this file are content, which is not kept.

    A console log is a guest's output from its first byte.
    """
    return posixpath.basename(path).startswith("console.log")


def magic(head: bytes) -> str:
    """Keep the bytes that identify a file's format, in hexadecimal."""
    return head[:MAGIC_SIZE].hex()
