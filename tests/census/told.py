"""Which other layers tell the same value: two layers that may disagree.

Only what identifies something counts: a UUID, an address, a path, a name. A word such as `x86_64`
is in many answers by accident. A number means nothing by itself; the table in things.py
names those that several layers tell about the same thing.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property

from tests.census.leaf import Kind, at, places
from tests.census.mutation import ADDRESS, MAC
from tests.census.question import UUID, is_counted
from tests.census.things import RELATED, related

from hoodsnap.bundle import Bundle

BY_ACCIDENT = {
    "a processor": ("x86_64", "qemu64", "sse4_1", "sse4_2", "sse4.1", "sse4.2"),
    "a program of every host": ("qemu-system-x86", "qemu-system-x86_64", "nova-compute"),
    "an address of every host": ("127.0.0.1", "0.0.0.0", "255.255.255.255", "::1"),  # noqa: S104
    "a device of every host": ("loop0", "/dev/null", "/dev/pts", "/dev/urandom", "/dev/loop0"),
    "a format, a protocol or a model": (
        *("qcow2", "virtio-net", "virtio-pci", "i440fx", "pc-i440fx-7.2", "virtio-blk"),
        *("openvswitch", "linux-bridge", "ipv6-icmp"),
    ),
    "a folder of every host": ("/etc/nova", "/var/lib", "/var/log", "/var/run", "/usr/bin"),
    "an option that many programs have": ("--config-file", "default", "read-only", "read-write"),
}
"""Texts that look like identities and are in several layers by accident, by reason."""

_BY_ACCIDENT = frozenset(text for texts in BY_ACCIDENT.values() for text in texts)

_PATH = re.compile(r"/[^/\s]+(?:/[^/\s]+)+")
_NAME = re.compile(r"(?=.*[0-9-])[A-Za-z0-9][\w.:-]{4,199}")
_HASH = re.compile(r"[0-9a-f]{32,128}")
_NAMESPACE = re.compile(r"[a-z_]+:\[\d+\]")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_NUMBER = re.compile(r"[\d.:%+-]+[kKMGT]?(?:i?B)?")
_APART = re.compile(r"""[\s"'<>=,;{}\[\]()\0|]+""")


def identities(value: object) -> Iterator[str]:
    """Yield each text in a value that identifies something."""
    if not isinstance(value, str):
        return
    if value.startswith(("http://", "https://", "/v2/")):
        return  # a link to the record itself
    for text in {value, *_pieces(value)}:
        text = text.lower() if MAC.fullmatch(text) else text
        if text not in _BY_ACCIDENT and _is_identity(text):
            yield text


def _is_identity(text: str) -> bool:
    if _DATE.match(text) or len(text) < 5:
        return False
    for form in (UUID, MAC, ADDRESS, _PATH, _HASH, _NAMESPACE):
        if form.fullmatch(text):
            return True
    return _NAME.fullmatch(text) is not None and _NUMBER.fullmatch(text) is None


def _pieces(text: str) -> Iterator[str]:
    for piece in _APART.split(text):
        yield piece.strip(".:")
        yield from UUID.findall(piece)
        if "/" in piece and not piece.startswith("/"):
            yield from piece.split("/")
    yield from MAC.findall(text)


class Tellers:
    """The layers of a recording, by what they tell."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle

    @cached_property
    def _layers(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = defaultdict(set)
        for answer in self._bundle.answers:
            if is_counted(answer):
                for place, _ in places(answer):
                    for text in identities(at(answer.value, place)):
                        found[text].add(answer.layer)
        return found

    def others(self, kind: Kind, value: object) -> tuple[str, ...]:
        """Return the other layers that tell the value of a leaf, in alphabetical order."""
        found = {layer for text in identities(value) for layer in self._layers.get(text, ())}
        name = related(kind)
        if name is not None:
            found |= RELATED[name].keys() & self._bundle.by_layer.keys()
        return tuple(sorted(found - {kind.layer}))

    @cached_property
    def _texts(self) -> dict[str, str]:
        found: dict[str, str] = defaultdict(str)
        for answer in self._bundle.answers:
            if answer.value is not None and answer.layer not in ("hoodsnap", "keystone"):
                whole = isinstance(answer.value, str)
                found[answer.layer] += answer.value if whole else json.dumps(answer.value)
                found[answer.layer] += "\n"
        return found

    def mention(self, layer: str, value: object) -> int:
        """Return the number of other layers whose answers contain a text, by accident or not.

        The first census counted this, so it stays comparable.
        """
        if not isinstance(value, str) or not 5 <= len(value) <= 200 or _DATE.match(value):
            return 0
        if not re.search(r"[0-9/:-]", value):
            return 0
        return sum(value in text for name, text in self._texts.items() if name != layer)
