"""Other names for what identifies somebody: the same ones for the same key, and none without it.

Each is made of the thing and the key alone, so several bundles need no list in common. Numbers are
exchanged by keyed permutations and not by hashes: what was two things stays two things, and
whatever shares a beginning (the addresses of a subnet, a port's id and its tap) still does.
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
"""Case of `name`: none, all or only the first of its letters are capitals, or another mix."""

_ZEROS = "0" * 32
_VERSION, _VARIANT = 12, 16
"""Where in a UUID's digits its version and its variant stand; software looks at both."""

_HOST_BITS = {4: 8, 6: 16}
"""So many bits at the end of an address stay, with the order that they give: `.1` is a gateway."""


def _networks(*texts: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(map(ipaddress.ip_network, texts))


_STAY = _networks(
    "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/16", "ff00::/8", "64:ff9b::/96"
)
"""Nobody's own addresses: this host, link-local, metadata service, multicast, netmasks."""

_KEPT_APART = _STAY + _networks(
    "10.0.0.0/8",
    "100.64.0.0/10",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "2000::/3",
    "fc00::/7",
    "fe80::/64",
)
"""An address stays in these, or outside of them: private ones stay private."""


def key(path: Path | None) -> bytes:
    """The key that a file holds; a new one is written there, for its owner alone, if there is none.
    Without a file a new key that nobody keeps. Raises `OSError`, and `ValueError` if it is none."""
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
        raise ValueError("it holds no key, which is 64 hexadecimal digits")
    return bytes.fromhex(digits)


class Pseudonyms:
    """Other names by one key (32 bytes or more of it)."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._known: dict[str, str] = {}
        self._bits: dict[tuple[int, int, int], int] = {}

    def name(self, text: str) -> str:
        """Return the pseudonym of a host, a server, a project …: `name-1f3a5c7e9b`. A text gets one
        pseudonym whatever it names, since the name of a host in one layer is a plain word in
        another. A text in another case gets the same pseudonym in that case."""
        made = f"name-{self._digest('name', text.lower()).hex()[:10]}"
        if text == text.lower():
            return made
        if text == text.upper():
            return made.upper()
        if text == text.capitalize():
            return made.capitalize()
        # Which letters are capitals makes one of the other ways to write these four.
        pattern = "".join("1" if char.isupper() else "0" for char in text)
        way = _MIXED[zlib.crc32(pattern.encode()) % len(_MIXED)]
        word = "".join(char.upper() if way >> at & 1 else char for at, char in enumerate("name"))
        return word + made[4:]

    def host(self, text: str) -> str:
        """Return the pseudonym of a host's name, which may have a domain: label by label, so that
        the short name stays the beginning, and hosts of one domain stay in one. Common words and
        `.com` stay."""
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
        """Return the pseudonym of a fingerprint or a public key in base64, which is as long."""
        size = len(text.rstrip("="))
        parts = [self._digest(f"key {at}", text) for at in range(size // 40 + 1)]
        return base64.b64encode(b"".join(parts)).decode()[:size] + text[size:]

    def hexadecimal(self, digits: str) -> str:
        """Of a checksum: as long, and in the same case."""
        made = self._digest("hex", digits.lower()).hex()
        made += self._digest("more hex", digits.lower()).hex()
        return _cased(made[: len(digits)], digits)

    def uuid(self, text: str) -> str:
        """Of a UUID with dashes or without, or of the beginning of one; in the same case."""
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
                    # The digits before it alone decide what it becomes: tap = tap + 11 characters.
                    digit = f"{int(digit, 16) ^ self._digest('uuid', digits[:at])[0] & 15:x}"
                made += digit
            self._known[digits] = made
        return self._known[digits]

    def mac(self, text: str) -> str:
        """Of a MAC. The first three bytes stay; what a guest's fa:16:3e and its tap's fe:16:3e
        share is exchanged alike."""
        separator = text[2] if len(text) == 17 else ""
        if separator != ":":
            bare = re.sub("[^0-9A-Fa-f]", "", text)
            given = iter(self.mac(":".join(re.findall("..", bare))).replace(":", ""))
            return "".join(next(given) if char in _DIGITS else char for char in text)
        first, rest = text[:2], text[3:].lower()
        if text.lower().startswith(("33:33", "01:")) or not re.search("[1-9a-e]", text.lower()):
            return text  # multicast, nobody's, everybody's
        vendor, digits = rest[:5], rest[6:].replace(":", "")
        made = self._permuted(f"mac {vendor}", digits)
        mixed = ":".join((first, vendor, made[:2], made[2:4], made[4:]))
        return _cased(mixed, text)

    def _permuted(self, tweak: str, digits: str) -> str:
        """Six digits for six: four rounds of a Feistel network."""
        left, right = int(digits[:3], 16), int(digits[3:], 16)
        for number in range(4):
            digest = self._digest(f"{tweak} {number}", f"{right:03x}")
            left, right = right, left ^ int.from_bytes(digest[:2], "big") & 0xFFF
        return f"{left:03x}{right:03x}"

    def address(self, text: str) -> str:
        """Of an IPv4 or IPv6 address, perhaps with the length of a prefix. Any two share as many
        bits at their beginning as before. Raises `ValueError` if it is none."""
        plain, slash, length = text.partition("/")
        address = ipaddress.ip_address(plain)
        made = self._address(address)
        if slash:
            size = address.max_prefixlen - int(length)
            if size < 0:
                raise ValueError(text)
            if not int(address) & ((1 << size) - 1):
                made = type(address)(int(made) >> size << size)  # it names a network
        if made == address:
            return text
        return _cased(f"{made}{slash}{length}", text)

    def _address(self, address: Address) -> Address:
        if any(address in network for network in _STAY):
            return address
        bits, size, version = int(address), address.max_prefixlen, address.version
        own = _HOST_BITS[version]
        if version == 6 and bits >> 24 & 0xFFFF == 0xFFFE:
            own = 64  # made of a MAC, below
        made = bits
        for at in range(size - own):
            made ^= self._flip(version, at, bits >> (size - at)) << (size - 1 - at)
        if own == 64:
            made = made >> 64 << 64 | self._interface(bits & (1 << 64) - 1)
        return type(address)(made)

    def _interface(self, bits: int) -> int:
        """The second half of an address that was made of a MAC (EUI-64)."""
        raw = bits.to_bytes(8, "big")
        mac = bytes([raw[0] ^ 2, *raw[1:3], *raw[5:]]).hex(":")
        made = bytes.fromhex(self.mac(mac).replace(":", ""))
        return int.from_bytes(bytes([made[0] ^ 2, *made[1:3]]) + b"\xff\xfe" + made[3:], "big")

    def _flip(self, version: int, at: int, prefix: int) -> int:
        """Whether the bit after a prefix is turned over."""
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
        """Every proper prefix of what is kept apart: no bit after one is turned over."""
        found: dict[int, set[tuple[int, int]]] = {4: set(), 6: set()}
        for network in _KEPT_APART:
            bits, size = int(network.network_address), network.max_prefixlen
            found[network.version] |= {(at, bits >> (size - at)) for at in range(network.prefixlen)}
        return found

    def _digest(self, kind: str, text: str) -> bytes:
        told = f"{kind}\0{text}".encode(errors="surrogatepass")
        return hmac.digest(self._key, told, "sha256")


def _cased(made: str, like: str) -> str:
    return made.upper() if like.upper() == like and like.lower() != like else made
