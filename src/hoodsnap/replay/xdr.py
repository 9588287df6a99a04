"""XDR (RFC 4506), as far as libvirt's protocol uses it: big endian, everything a multiple of 4.

A number that does not fit is a `struct.error`: cut off, it would be another number.
"""

from __future__ import annotations

import struct
from uuid import UUID


class MalformedMessageError(ValueError):
    """A message that is shorter than what it says."""


class Reader:
    """Takes values off a message, one after the other."""

    def __init__(self, message: bytes) -> None:
        self._message = message
        self._at = 0

    def opaque(self, size: int) -> bytes:
        """So many bytes, with their padding."""
        end = self._at + size
        if end > len(self._message):
            raise MalformedMessageError("the message ends in the middle of a value")
        taken = self._message[self._at : end]
        self._at = end + -size % 4
        return taken

    def uint(self) -> int:
        """`unsigned int`."""
        return int.from_bytes(self.opaque(4), "big")

    def int(self) -> int:
        """`int`."""
        return int.from_bytes(self.opaque(4), "big", signed=True)

    def string(self) -> str:
        """`string<>`; bytes that are no UTF-8 come as lone surrogates."""
        return self.opaque(self.uint()).decode(errors="surrogateescape")

    def optional_string(self) -> str | None:
        """`string *`."""
        return self.string() if self.uint() else None

    def uuid(self) -> str:
        """`opaque uuid[16]`."""
        return str(UUID(bytes=self.opaque(16)))


def uint(number: int) -> bytes:
    """`unsigned int`."""
    return struct.pack(">I", number)


def int_(number: int) -> bytes:
    """`int`."""
    return struct.pack(">i", number)


def hyper(number: int) -> bytes:
    """`hyper`, with or without a sign."""
    return struct.pack(">q" if number < 0 else ">Q", number)


def string(text: str) -> bytes:
    """`string<>`; lone surrogates become the bytes that they stand for."""
    data = text.encode(errors="surrogateescape")
    return uint(len(data)) + data + b"\0" * (-len(data) % 4)


def optional_string(text: str | None) -> bytes:
    """`string *`."""
    return uint(0) if text is None else uint(1) + string(text)


def array(items: list[bytes]) -> bytes:
    """`item items<>`."""
    return uint(len(items)) + b"".join(items)


def characters(text: str) -> bytes:
    """`char text<>`: an array of ints, the final zero included."""
    return array([int_(byte) for byte in text.encode() + b"\0"])
