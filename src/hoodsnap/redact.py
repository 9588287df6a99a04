"""Gives a bundle away without saying whose it is: identifiers become pseudonyms, relations stay.

Two passes. The first collects names of somebody's choice from the places that are known to hold
them (`identity.py` says which); the second rewrites every text of every answer, by one pattern for
names and one for what can be told by its looks: UUIDs, MACs, addresses, checksums. No text is
parsed for that, so that what stands in XML, in a command line or in SQL is exchanged alike, and
what two layers say of one thing still agrees.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from hoodsnap.bundle import Answer, Bundle, Failure
from hoodsnap.fingerprint import ABOUT_ALL, LAYER
from hoodsnap.identity import Identities
from hoodsnap.pseudonym import Pseudonyms

_UUID = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"

_LOOKS = re.compile(
    r"(?<![0-9A-Za-z])(?:"
    + "|".join(
        (
            rf"(?P<uuid>{_UUID})(?![0-9A-Fa-f])",
            # A port's id, or its beginning, in a device, a chain, a set of addresses.
            r"(?P<device>[a-z]{2,4}-?|macvtap|N?IPv[46]|neutron-[a-z]+-[a-z]{1,2}|virtio-)"
            rf"(?P<start>{_UUID}(?![0-9A-Fa-f])"
            r"|[0-9a-f]{8}-[0-9a-f]{1,4}(?:-[0-9a-f]{1,4}){0,3}(?![0-9A-Za-z]|-[0-9A-Fa-f]))",
            # A virtual disk's serial has room for 20 characters.
            r"(?<!-)(?P<part>[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}(?:-[0-9a-f]{1,4})?)"
            r"(?![0-9A-Za-z]|-[0-9A-Fa-f])",
            # Of a DHCP client, 01 says that it calls itself by its MAC.
            r"(?<!:)(?P<client>01:)?(?P<mac>(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2})(?![0-9A-Fa-f:])",
            r"0x(?P<load>f[ae]163e[0-9a-f]{6})(?![0-9a-f])",
            r"(?P<initiator>iqn\.[0-9]{4}-[0-9]{2}\.[a-z.]+:(?:01:)?)(?P<tail>[0-9a-f]{8,12})"
            r"(?![0-9A-Za-z-])",
            r"(?P<hex>[0-9A-Fa-f]{32}|[0-9A-Fa-f]{40}|[0-9A-Fa-f]{56}"
            r"|[0-9A-Fa-f]{64}|[0-9A-Fa-f]{96}|[0-9A-Fa-f]{128})(?![0-9A-Za-z])",
            r"host-(?P<dashed>[0-9]{1,3}(?:-[0-9]{1,3}){3})(?![0-9A-Za-z])",
            r"(?<!\.)(?P<four>[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?:/[0-9]{1,2})?)"
            r"(?![0-9A-Za-z]|\.[0-9])",
            r"(?<!:)(?P<six>[23fF][0-9A-Fa-f]{1,3}:[0-9A-Fa-f:]*:[0-9A-Fa-f]*(?:/[0-9]{1,3})?)"
            r"(?![0-9A-Za-z:])",
        )
    )
    + ")"
)
"""What identifies and can be told by its looks."""

_MARKS = re.compile(r"[0-9a-fA-F]{8}|[0-9]\.[0-9]|:[0-9A-Fa-f]*:|host-[0-9]")
"""What a text must have in it to hold one of `_LOOKS`; of many short ones none has."""

_VERSIONS = (
    "dpkg-query ",
    "rpm ",
    "cat /etc/os-release",
    "uname ",
    "/proc/version",
    "SELECT VERSION",
)
"""Questions whose answers have versions of four numbers in them, which look like addresses."""

_VERBATIM = frozenset({"magic"})
"""Keys of what looks like a checksum and is none."""


class Redactor:
    """Rewrites texts and answers; the same text always becomes the same."""

    def __init__(self, pseudonyms: Pseudonyms, bundles: Iterable[Bundle]) -> None:
        """Every name and checksum that these bundles hold will be known."""
        self.pseudonyms = pseudonyms
        self.identities = Identities()
        self.replaced: Counter[str] = Counter()
        """How often something was replaced, by what it was."""
        self.distinct: dict[str, set[str]] = {}
        """What was replaced, by what it was."""
        self._known: dict[str, str] = {}
        uuids: set[str] = set()
        for bundle in bundles:
            for answer in bundle.answers:
                self.identities.add(answer)
                for text in _texts([answer.query, answer.subject, answer.value]):
                    if "-" in text:
                        uuids.update(found.lower() for found in re.findall(_UUID, text))
        # The cache of images calls a base by the sha1 of its image's id.
        self._sums = {_sha1(uuid): _sha1(pseudonyms.uuid(uuid)) for uuid in uuids}
        names = {
            written: made for name in self.identities.names for written, made in self._of(name)
        }
        self._names = names
        self._named = re.compile(any_of(names)) if names else None
        for export in self.identities.exports:  # the folder that nova mounts it in
            self._sums[_md5(export)] = _md5(self.text(export))
        self._known.clear()
        self.replaced.clear()
        self.distinct.clear()

    def _of(self, name: str) -> Iterator[tuple[str, str]]:
        """A name in every way of writing it that formats know, and what takes its place."""
        made = (
            self.pseudonyms.host(name)
            if name in self.identities.hosts
            else self.pseudonyms.name(name)
        )
        for written in self.identities.written(name):
            yield written, made

    def bundle(self, bundle: Bundle) -> Bundle:
        """The bundle with pseudonyms, without the fingerprint and signature of the other."""
        return bundle.with_answers(
            self.answer(answer)
            for answer in bundle.answers
            if answer.layer != LAYER or answer.query not in ABOUT_ALL
        )

    def answer(self, answer: Answer) -> Answer:
        """The answer with pseudonyms; when it was asked and how long it took stay."""
        addresses = not (answer.query.startswith(_VERSIONS) or answer.query.endswith(" --version"))
        changed: dict[str, Any] = {
            "host": self.text(answer.host),
            "query": self.text(answer.query),
            "subject": None if answer.subject is None else self.text(answer.subject),
        }
        if answer.error is None:
            changed["value"] = self.value(answer.value, addresses=addresses)
        else:
            message = self.text(answer.error.message)
            changed["error"] = Failure(kind=answer.error.kind, message=message)
        return answer.model_copy(update=changed)

    def value(self, value: Any, *, addresses: bool = True) -> Any:
        """Any JSON with pseudonyms, in its keys too."""
        if isinstance(value, str):
            return self.text(value, addresses=addresses)
        if isinstance(value, dict):
            return {
                self.text(key): item if key in _VERBATIM else self.value(item, addresses=addresses)
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [self.value(item, addresses=addresses) for item in value]
        return value

    def text(self, text: str, *, addresses: bool = True) -> str:
        """A text with pseudonyms."""
        made, at = [], 0
        for found in self._named.finditer(text) if self._named else ():
            made += [self._looks(text[at : found.start()], addresses), self._name(found[0])]
            at = found.end()
        return "".join((*made, self._looks(text[at:], addresses)))

    def summary(self) -> Iterator[str]:
        """What was replaced how often, a line each."""
        for kind, count in sorted(self.replaced.items()):
            yield f"{kind}: {len(self.distinct[kind])}, replaced {count} times"
        if kept := self.identities.kept:
            yield f"names that stay, being everybody's words or too short: {len(kept)}"

    def _name(self, name: str) -> str:
        self._count("name", name)
        return self._names[name]

    def _looks(self, text: str, addresses: bool) -> str:
        if not _MARKS.search(text):
            return text
        return _LOOKS.sub(self._look if addresses else self._no_address, text)

    def _no_address(self, found: re.Match[str]) -> str:
        return found[0] if found.lastgroup in ("four", "dashed") else self._look(found)

    def _look(self, found: re.Match[str]) -> str:
        was = found[0]
        kind = found.lastgroup or ""
        if was not in self._known:
            self._known[was] = _WAYS[kind](self, found)
        made = self._known[was]
        if made != was:
            self._count(_KINDS[kind], was)
        return made

    def _count(self, kind: str, was: str) -> None:
        self.replaced[kind] += 1
        self.distinct.setdefault(kind, set()).add(was)

    def _hexadecimal(self, found: re.Match[str]) -> str:
        digits = found[0]
        if digits.lower() in self._sums:
            return self._sums[digits.lower()]
        if len(digits) == 32:
            return self.pseudonyms.uuid(digits)  # of a project or a user, without its dashes
        return self.pseudonyms.hexadecimal(digits) if digits.strip("0fF") else digits

    def _address(self, found: re.Match[str]) -> str:
        try:
            return self.pseudonyms.address(found[0])
        except ValueError:
            return found[0]

    def _dashed(self, found: re.Match[str]) -> str:
        try:
            made = self.pseudonyms.address(found["dashed"].replace("-", "."))
        except ValueError:
            return found[0]
        return f"host-{made.replace('.', '-')}"

    def _load(self, found: re.Match[str]) -> str:
        mac = ":".join(re.findall("..", found["load"]))
        return f"0x{self.pseudonyms.mac(mac).replace(':', '')}"

    def _initiator(self, found: re.Match[str]) -> str:
        return found["initiator"] + self.pseudonyms.hexadecimal(found["tail"])


_WAYS: dict[str, Callable[[Redactor, re.Match[str]], str]] = {
    "uuid": lambda self, found: self.pseudonyms.uuid(found[0]),
    "start": lambda self, found: found["device"] + self.pseudonyms.uuid(found["start"]),
    "part": lambda self, found: self.pseudonyms.uuid(found[0]),
    "mac": lambda self, found: (found["client"] or "") + self.pseudonyms.mac(found["mac"]),
    "load": Redactor._load,
    "tail": Redactor._initiator,
    "hex": Redactor._hexadecimal,
    "dashed": Redactor._dashed,
    "four": Redactor._address,
    "six": Redactor._address,
}
_KINDS = {
    "uuid": "UUID",
    "start": "UUID",
    "part": "UUID",
    "mac": "MAC",
    "load": "MAC",
    "tail": "initiator",
    "hex": "id or checksum",
    "dashed": "address",
    "four": "address",
    "six": "address",
}


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()


def _md5(text: str) -> str:
    return hashlib.md5(text.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()


_DEEPEST = 40
"""Groups in groups. Python's compiler of patterns has its limit a little beyond."""


def any_of(names: Iterable[str]) -> str:
    """A pattern of whole names, the longest first. What names begin with alike is looked at once:
    there may be ten thousand of them."""
    return rf"(?<![A-Za-z0-9_])(?:{_branches(sorted(names), 0, 0)})(?![A-Za-z0-9_])"


def _branches(names: list[str], start: int, depth: int) -> str:
    """A pattern of what follows `start` in these, which are sorted and alike before it."""
    if depth == _DEEPEST:
        return "|".join(re.escape(name[start:]) for name in reversed(names))
    parts = []
    at = 1 if len(names[0]) == start else 0  # one of them ends here: that is tried last
    ends = at == 1
    while at < len(names):
        first = names[at]
        last = at
        while last + 1 < len(names) and names[last + 1][start] == first[start]:
            last += 1
        end = _alike(first, names[last], start)
        rest = _branches(names[at : last + 1], end, depth + 1) if last > at else ""
        tail = re.escape(first[end:]) if last == at else f"(?:{rest})"
        parts.append(re.escape(first[start:end]) + tail)
        at = last + 1
    return "|".join([*parts, ""] if ends else parts)


def _alike(one: str, other: str, start: int) -> int:
    """Where two texts that are alike until `start` differ first."""
    end = start
    while end < min(len(one), len(other)) and one[end] == other[end]:
        end += 1
    return end
