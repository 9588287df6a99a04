"""Readers for counts and sizes in foreign text. Absurdly large numbers are rejected."""

from __future__ import annotations

import re
from ipaddress import ip_address

LARGEST = 1 << 63
"""Limit of counts and bytes: a number this large can't be meant."""

_AMOUNT = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,9})[0-9]*)?\s*([a-z]*)", re.ASCII | re.IGNORECASE)

_LETTERS = "kmgtpe"


def whole(value: object) -> int | None:
    """Return a count from text or a JSON number; None if it is not a count."""
    if isinstance(value, str):
        value = value.strip()
        return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST:
        return value
    return None


def number(value: object) -> float | None:
    """Return a number, or the number that a text stands for; None if it is neither."""
    try:
        return float(value) if isinstance(value, str | int | float) and value != "" else None
    except ValueError:
        return None


def size(text: str, unit: str) -> int | None:
    """Return a size in bytes: `512`, `1.5G`, `65536 KiB`. None if it can't be read.

    `unit` applies to a bare number. A single letter and `KiB` count by 1024, `KB` by 1000, as in
    libvirt and QEMU.
    """
    match = _AMOUNT.fullmatch(text.strip(" \t\n\r\f\v"))
    if match is None:
        return None
    units, fraction, suffix = match.groups()
    scale = _scale((suffix or unit).lower())
    if scale is None:
        return None
    found = int(units) * scale
    if fraction:
        found += int(fraction) * scale // 10 ** len(fraction)
    return found if found < LARGEST else None


def _scale(suffix: str) -> int | None:
    if suffix in ("b", "byte", "bytes"):
        return 1
    power = _LETTERS.find(suffix[:1]) + 1
    if not suffix or power == 0 or suffix[1:] not in ("", "b", "ib"):
        return None
    return int(1000**power if suffix[1:] == "b" else 1024**power)


def is_address(text: str) -> bool:
    """True for an IP address in numbers, and False for a host name."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
