"""XDR (RFC 4506), as far as libvirt's protocol uses it: big endian, aligned to 4 bytes.

A number that does not fit raises `struct.error`: truncated, it would be a different number.
"""

from __future__ import annotations

import struct
from uuid import UUID


class MalformedMessageError(ValueError):
    """A message is shorter than its lengths require."""


class Reader:
    """Reader of the values in a message, one after the other."""

    def __init__(self, message: bytes) -> None:
        self._message = message
        self._at = 0

    def opaque(self, size: int) -> bytes:
        """Read `size` bytes, and skip their padding."""
        end = self._at + size
        if end > len(self._message):
            raise MalformedMessageError("the message ends in the middle of a value")
        taken = self._message[self._at : end]
        self._at = end + -size % 4
        return taken

    def uint(self) -> int:
        """Read an `unsigned int`."""
        return int.from_bytes(self.opaque(4), "big")

    def int(self) -> int:
        """Read an `int`."""
        return int.from_bytes(self.opaque(4), "big", signed=True)

    def string(self) -> str:
        """Read a `string<>`; bytes that are not UTF-8 become lone surrogates."""
        return self.opaque(self.uint()).decode(errors="surrogateescape")

    def optional_string(self) -> str | None:
        """Read a `string *`."""
        return self.string() if self.uint() else None

    def uuid(self) -> str:
        """Read an `opaque uuid[16]`."""
        return str(UUID(bytes=self.opaque(16)))


def uint(number: int) -> bytes:
    """Encode an `unsigned int`."""
    return struct.pack(">I", number)


def int_(number: int) -> bytes:
    """Encode an `int`."""
    return struct.pack(">i", number)


def hyper(number: int) -> bytes:
    """Encode a `hyper`, signed or unsigned."""
    return struct.pack(">q" if number < 0 else ">Q", number)


def string(text: str) -> bytes:
    """Encode a `string<>`; lone surrogates become the bytes that they stand for."""
    data = text.encode(errors="surrogateescape")
    return uint(len(data)) + data + b"\0" * (-len(data) % 4)


def optional_string(text: str | None) -> bytes:
    """Encode a `string *`."""
    return uint(0) if text is None else uint(1) + string(text)


def array(items: list[bytes]) -> bytes:
    """Encode `item items<>` from encoded items."""
    return uint(len(items)) + b"".join(items)


def characters(text: str) -> bytes:
    """Encode `char text<>`: an array of ints, including the final zero."""
    return array([int_(byte) for byte in text.encode() + b"\0"])
