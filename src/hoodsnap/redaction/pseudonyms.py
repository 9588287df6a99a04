"""Keyed pseudonyms: the same key gives the same pseudonyms, and nobody can make them without it.

A pseudonym depends only on the original and the key, so several bundles need no common list.
Numbers are replaced by keyed permutations instead of hashes: two different numbers stay different,
and numbers with a common beginning (addresses of a subnet, a port's id and its tap) still have one.
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
import os
import re
import secrets
import stat
import zlib
from functools import cached_property
from pathlib import Path

from hoodsnap.redaction.commonplace import is_common, is_last_label

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_DIGITS = frozenset("0123456789abcdefABCDEF")
_LVM = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MIXED = (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14)
"""Bit masks of the capitals in `name` for originals in mixed case."""

_ZEROS = "0" * 32
_VERSION, _VARIANT = 12, 16
"""Positions of the version and the variant in a UUID's digits; software examines both."""

_HOST_BITS = {4: 8, 6: 16}
"""Number of bits at the end of an address that are kept, by IP version: `.1` stays a gateway."""


def _networks(*texts: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(map(ipaddress.ip_network, texts))


_STAY = _networks(
    "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/16", "ff00::/8", "64:ff9b::/96"
)
"""Addresses that identify nobody and are kept: this host, link-local, metadata service, multicast,
netmasks."""

_KEPT_APART = _STAY + _networks(
    "10.0.0.0/8",
    "100.64.0.0/10",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "2000::/3",
    "fc00::/7",
    "fe80::/64",
)
"""Networks that addresses neither leave nor enter: private addresses stay private."""


def key(path: Path | None) -> bytes:
    """Read the key from a file. If the file does not exist, create it with a new key.

    Only the owner can read a new file. With None, return a new key that is not stored. Raises
    `OSError`, and `ValueError` if the file holds no valid key or other accounts can read it.
    """
    if path is None:
        return secrets.token_bytes(32)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{secrets.token_hex(32)}\n")
    except FileExistsError:
        status = path.stat()
        if stat.S_ISREG(status.st_mode) and status.st_mode & (stat.S_IRGRP | stat.S_IROTH):
            raise ValueError(f"other accounts can read it: chmod 600 {path}") from None
    if not re.fullmatch(r"[0-9a-f]{64,}", digits := path.read_text(errors="replace").strip()):
        raise ValueError("it does not hold a key of 64 hexadecimal digits")
    return bytes.fromhex(digits)


class Pseudonyms:
    """Keyed pseudonyms; `key` is at least 32 bytes long."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._known: dict[str, str] = {}
        self._bits: dict[tuple[int, int, int], int] = {}

    def name(self, text: str) -> str:
        """Return the pseudonym of a host, a server, a project …: `name-1f3a5c7e9b`.

        A text has the same pseudonym whatever it names, because one layer's host name may be a
        plain word in another layer. The same text in another case gets the pseudonym in that case.
        """
        made = f"name-{self._digest('name', text.lower()).hex()[:10]}"
        if text == text.lower():
            return made
        if text == text.upper():
            return made.upper()
        if text == text.capitalize():
            return made.capitalize()
        # The positions of the capitals choose one of the other ways to write the letters of `name`.
        pattern = "".join("1" if char.isupper() else "0" for char in text)
        way = _MIXED[zlib.crc32(pattern.encode()) % len(_MIXED)]
        word = "".join(char.upper() if way >> at & 1 else char for at, char in enumerate("name"))
        return word + made[4:]

    def host(self, text: str) -> str:
        """Return the pseudonym of a host name, perhaps with a domain.

        The labels are replaced one by one, so that the pseudonym begins with that of the short
        name, and hosts of one domain stay in one. Common words and `.com` are kept.
        """
        first, *labels = text.split(".")
        made = [self.name(first) if not labels or not is_common(first) else first]
        for at, label in enumerate(labels, 1):
            stays = not label or is_common(label) or (at == len(labels) and is_last_label(label))
            made.append(label if stays else self.name(label))
        return ".".join(made)

    def lvm(self, text: str) -> str:
        """Return the pseudonym of an LVM id: 32 characters, with hyphens or without."""
        plain = text.replace("-", "")
        digest = self._digest("lvm", plain)
        made = (_LVM[byte % len(_LVM)] for byte in digest)
        return "".join(char if char == "-" else next(made) for char in text)

    def key(self, text: str) -> str:
        """Return the pseudonym of a fingerprint or public key in base64, of the same length."""
        size = len(text.rstrip("="))
        parts = [self._digest(f"key {at}", text) for at in range(size // 40 + 1)]
        return base64.b64encode(b"".join(parts)).decode()[:size] + text[size:]

    def hexadecimal(self, digits: str) -> str:
        """Return the pseudonym of a checksum, of the same length and in the same case."""
        made = self._digest("hex", digits.lower()).hex()
        made += self._digest("more hex", digits.lower()).hex()
        return _cased(made[: len(digits)], digits)

    def uuid(self, text: str) -> str:
        """Return the pseudonym of a UUID or its beginning, with the same hyphens and case."""
        digits = re.sub("[^0-9a-f]", "", text.lower())
        if not digits.strip("0"):
            return text
        made = iter(self._uuid(digits))
        mixed = "".join(next(made) if char in _DIGITS else char for char in text)
        return _cased(mixed, text)

    def _uuid(self, digits: str) -> str:
        if digits not in self._known:
            made = ""
            for at, digit in enumerate(digits):
                if at not in (_VERSION, _VARIANT):
                    # A digit depends only on those before it, so that a port's tap, named by 11
                    # characters of the id, still matches.
                    digit = f"{int(digit, 16) ^ self._digest('uuid', digits[:at])[0] & 15:x}"
                made += digit
            self._known[digits] = made
        return self._known[digits]

    def mac(self, text: str) -> str:
        """Return the pseudonym of a MAC. The first three bytes are kept, and the other three get
        the same pseudonym for a guest's fa:16:3e as for its tap's fe:16:3e."""
        separator = text[2] if len(text) == 17 else ""
        if separator != ":":
            bare = re.sub("[^0-9A-Fa-f]", "", text)
            given = iter(self.mac(":".join(re.findall("..", bare))).replace(":", ""))
            return "".join(next(given) if char in _DIGITS else char for char in text)
        first, rest = text[:2], text[3:].lower()
        if text.lower().startswith(("33:33", "01:")) or not re.search("[1-9a-e]", text.lower()):
            return text  # multicast, all zeros, broadcast
        vendor, digits = rest[:5], rest[6:].replace(":", "")
        made = self._permuted(f"mac {vendor}", digits)
        mixed = ":".join((first, vendor, made[:2], made[2:4], made[4:]))
        return _cased(mixed, text)

    def _permuted(self, tweak: str, digits: str) -> str:
        """Permute six hexadecimal digits, by four rounds of a Feistel network."""
        left, right = int(digits[:3], 16), int(digits[3:], 16)
        for number in range(4):
            digest = self._digest(f"{tweak} {number}", f"{right:03x}")
            left, right = right, left ^ int.from_bytes(digest[:2], "big") & 0xFFF
        return f"{left:03x}{right:03x}"

    def address(self, text: str) -> str:
        """Return the pseudonym of an IPv4 or IPv6 address, perhaps with a prefix length.

        The pseudonyms of two addresses share as many leading bits as the addresses do. Raises
        `ValueError` if the text is not an address.
        """
        plain, slash, length = text.partition("/")
        address = ipaddress.ip_address(plain)
        made = self._address(address)
        if slash:
            size = address.max_prefixlen - int(length)
            if size < 0:
                raise ValueError(text)
            if not int(address) & ((1 << size) - 1):
                made = type(address)(int(made) >> size << size)  # the address of a network
        if made == address:
            return text
        return _cased(f"{made}{slash}{length}", text)

    def _address(self, address: Address) -> Address:
        if any(address in network for network in _STAY):
            return address
        bits, size, version = int(address), address.max_prefixlen, address.version
        own = _HOST_BITS[version]
        if version == 6 and bits >> 24 & 0xFFFF == 0xFFFE:
            own = 64  # derived from a MAC, see below
        made = bits
        for at in range(size - own):
            made ^= self._flip(version, at, bits >> (size - at)) << (size - 1 - at)
        if own == 64:
            made = made >> 64 << 64 | self._interface(bits & (1 << 64) - 1)
        return type(address)(made)

    def _interface(self, bits: int) -> int:
        """Return the pseudonym of the second half of an address derived from a MAC (EUI-64)."""
        raw = bits.to_bytes(8, "big")
        mac = bytes([raw[0] ^ 2, *raw[1:3], *raw[5:]]).hex(":")
        made = bytes.fromhex(self.mac(mac).replace(":", ""))
        return int.from_bytes(bytes([made[0] ^ 2, *made[1:3]]) + b"\xff\xfe" + made[3:], "big")

    def _flip(self, version: int, at: int, prefix: int) -> int:
        """Return 1 if the bit after a prefix is flipped, else 0."""
        where = (version, at, prefix)
        if where not in self._bits:
            self._bits[where] = (
                0
                if (at, prefix) in self._above[version]
                else self._digest(f"ip{version}", f"{at} {prefix:x}")[0] & 1
            )
        return self._bits[where]

    @cached_property
    def _above(self) -> dict[int, set[tuple[int, int]]]:
        """Proper prefixes of the networks that are kept apart; no bit after one is flipped."""
        found: dict[int, set[tuple[int, int]]] = {4: set(), 6: set()}
        for network in _KEPT_APART:
            bits, size = int(network.network_address), network.max_prefixlen
            found[network.version] |= {(at, bits >> (size - at)) for at in range(network.prefixlen)}
        return found

    def _digest(self, kind: str, text: str) -> bytes:
        message = f"{kind}\0{text}".encode(errors="surrogatepass")
        return hmac.digest(self._key, message, "sha256")


def _cased(made: str, like: str) -> str:
    return made.upper() if like.upper() == like and like.lower() != like else made
