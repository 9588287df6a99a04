"""Redaction of a bundle: identifiers become pseudonyms, and relations stay.

There are two passes. The first collects names that people chose, from places that are known to hold
them (`names.py`). The second rewrites every text of every answer, by patterns for these names and
for identifiers recognized by their form (`identifier.py`): UUIDs, MACs, addresses, checksums. Texts
are not parsed for that, so a name is replaced in XML, in a command line and in SQL alike, and two
layers still agree about a thing. Escaped and encoded texts are decoded, searched, and written in
the same spelling again (`spelling.py`).
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from hoodsnap.bundle import Answer, Bundle, Failure
from hoodsnap.printable import cut
from hoodsnap.redaction.commonplace import AUTHORITIES, UNITS
from hoodsnap.redaction.identifier import KINDS, LOOKS, MARKS, UUID, WHOLE, WHOLE_MARK
from hoodsnap.redaction.names import FREE, LONGEST, Identities, is_distinctive, is_word
from hoodsnap.redaction.pseudonyms import Pseudonyms
from hoodsnap.redaction.spelling import ENCODED, ESCAPES, Replacement, decoded, respelled
from hoodsnap.trust.challenge import QUERY as CHALLENGE
from hoodsnap.trust.fingerprint import ABOUT_ALL, LAYER

_VERSIONS = (
    "dpkg-query ",
    "rpm ",
    "cat /etc/os-release",
    "uname ",
    "/proc/version",
    "SELECT VERSION",
)
"""Queries whose answers hold versions of four numbers, which look like addresses."""

_SWITCH_KEYS = frozenset(["vm-uuid", "vm-id"])
"""Keys of Open vSwitch, which lists them as values. A host may be called `vm`."""

_UUIDS = re.compile(rf"(?P<uuid>{UUID})")

_VERBATIM = frozenset({"magic"})
"""Keys whose values look like checksums, but are not."""

_DEEPEST_CODE = 3
"""Levels to which encoded words inside encoded words are decoded."""

_DEEPEST_ESCAPE = 2
"""Levels to which escapes inside escapes are undone, in every combination."""

_SHORT = 512
"""Largest number of characters in a text whose result is cached: keys, states and paths recur."""


class Place(NamedTuple):
    """A kind of replacement, and the query whose answer it was made in."""

    kind: str
    layer: str
    query: str
    """The redacted query, with `…` for ids and numbers."""


class Redactor:
    """Redactor of texts and answers; the same text always gets the same result."""

    def __init__(self, pseudonyms: Pseudonyms, bundles: Iterable[Bundle]) -> None:
        """Learn all names and checksums that these bundles hold."""
        self.pseudonyms = pseudonyms
        self.identities = Identities()
        self.replaced: Counter[str] = Counter()
        """Number of replacements, by kind."""
        self.distinct: dict[str, set[str]] = {}
        """Originals that were replaced, by kind."""
        self.places: Counter[Place] = Counter()
        """Number of replacements, by place."""
        self._known: dict[str, str] = {}
        self._remembered: dict[tuple[str, bool, bool], tuple[str, tuple[tuple[str, str], ...]]] = {}
        self._words: dict[str, tuple[str, str] | None] = {}
        self._query = ("", "")
        self._mapped: dict[str, str] = {}
        uuids: set[str] = set()
        for bundle in bundles:
            for answer in bundle.answers:
                self.identities.add(answer)
                for text in _texts([answer.query, answer.subject, answer.value]):
                    if "-" in text:
                        uuids.update(found.lower() for found in re.findall(UUID, text))
        # The image cache names a base image by the sha1 of the image's id.
        self._sums = {_sha1(uuid): _sha1(pseudonyms.uuid(uuid)) for uuid in uuids}
        self._starts = {uuid[:8] for uuid in uuids}
        self._addresses = dict(_numbers(self.identities.fours))
        wide = self.identities.wwns
        self._wwns = wide | {one[:16] for one in wide}
        self._names = self._spellings()
        self._inside, self._alone, self._between = _patterns(self._names)
        for export in self.identities.exports:  # nova names the mount's folder by the md5
            self._sums[_md5(export)] = _md5(self.text(export))
        for group, volume in self.identities.volumes:
            self._map(group, volume)
        self._known.clear()
        self._remembered.clear()
        self._words.clear()
        self.replaced.clear()
        self.distinct.clear()
        self.places.clear()

    def _spellings(self) -> dict[str, str]:
        """Return the names by their spellings in all formats, in lower case."""
        found: dict[str, str] = {}
        for name in sorted(self.identities.names):
            for written in self.identities.written(name):
                if len(written) > 1:
                    found.setdefault(_lower(written), name)
        return found

    def _map(self, group: str, volume: str) -> None:
        """Note the device mapper's name of a volume, if group and volume contain no hyphen."""
        was = "-".join(part.replace("-", "--") for part in (group, volume))
        parts = (self.text(part) for part in (group, volume))
        made = "-".join(part.replace("-", "--") for part in parts)
        if "-" not in group and "-" not in volume and made != was:
            self._mapped[was] = made

    def bundle(self, bundle: Bundle) -> Bundle:
        """Return the bundle with pseudonyms, without the original's fingerprint and signature."""
        return bundle.with_answers(
            self.answer(answer)
            for answer in bundle.answers
            if answer.layer != LAYER or answer.query not in ABOUT_ALL
        )

    def answer(self, answer: Answer) -> Answer:
        """Return the answer with pseudonyms; its time and duration are kept."""
        addresses = not (answer.query.startswith(_VERSIONS) or answer.query.endswith(" --version"))
        query = self._quietly(answer.query)
        self._query = (answer.layer, _kind_of(query))
        changed: dict[str, Any] = {
            "host": self.text(answer.host),
            "query": self.text(answer.query, strict=_is_sql(answer.query)),
            "subject": None if answer.subject is None else self.text(answer.subject),
        }
        if answer.error is None:
            changed["value"] = self.value(answer.value, addresses=addresses)
            if answer.layer == LAYER and answer.query == CHALLENGE:
                changed["value"] = self._challenge(answer.value, changed["value"])
        else:
            message = self.text(answer.error.message)
            changed["error"] = Failure(kind=answer.error.kind, message=message)
        return answer.model_copy(update=changed)

    def _challenge(self, value: Any, made: Any) -> Any:
        """Replace the text of the challenge, even if it is a common word."""
        text = value.get("challenge") if isinstance(value, dict) else None
        if not isinstance(text, str) or made.get("challenge") != text:
            return made
        self._count("name", text)
        return {**made, "challenge": self.pseudonyms.name(text)}

    def _quietly(self, text: str) -> str:
        """Return a text with pseudonyms, without counting the replacements."""
        return _applied(text, self._spans(text, True, _is_sql(text), 0))

    def value(self, value: Any, *, addresses: bool = True) -> Any:
        """Return any JSON value with pseudonyms, including its keys."""
        if isinstance(value, str):
            return self.text(value, addresses=addresses)
        if isinstance(value, dict):
            return {
                self.text(key, strict=True): item
                if key in _VERBATIM
                else self._free(item)
                if key in FREE and isinstance(item, str) and len(item) > LONGEST
                else self.value(item, addresses=addresses)
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [self.value(item, addresses=addresses) for item in value]
        if isinstance(value, int) and value in self._addresses and addresses:
            return self._number(value)
        return value

    def _free(self, text: str) -> str:
        self._count("text", text)
        return self.pseudonyms.name(text)

    def _number(self, value: int) -> int:
        made = int(ipaddress.IPv4Address(self.pseudonyms.address(self._addresses[value])))
        if made != value:
            self._count("address", self._addresses[value])
        return made

    def text(self, text: str, *, addresses: bool = True, strict: bool = False) -> str:
        """Return a text with pseudonyms. `strict`: replace plain words only where they stand alone,
        as in keys and SQL, where `_` joins words of the format."""
        if len(text) < 2 or text in _SWITCH_KEYS:
            return text
        asked = (text, addresses, strict)
        if (done := self._remembered.get(asked)) is None:
            spans = self._spans(text, addresses, strict, 0)
            counts = tuple((span.kind, text[span.start : span.end]) for span in spans)
            done = (_applied(text, spans), counts)
            if len(text) <= _SHORT:
                self._remembered[asked] = done
        for kind, was in done[1]:
            self._count(kind, was)
        return done[0]

    def _spans(self, text: str, addresses: bool, strict: bool, depth: int) -> list[Replacement]:
        """Return all replacements in a text, in order of position."""
        spans: list[Replacement] = []
        if depth < _DEEPEST_CODE:
            for escape in ESCAPES if depth < _DEEPEST_ESCAPE else ():
                if escape.mark in text and escape.unit.search(text):
                    deeper = depth + 1
                    found = respelled(
                        text,
                        escape,
                        lambda plain, deeper=deeper: self._spans(  # type: ignore[misc]
                            plain, addresses, strict, deeper
                        ),
                    )
                    spans = _joined(spans, found)
            spans = _joined(spans, self._encoded(text, strict, depth))
        low = _lower(text)
        if "-" in text:  # before names, which may end inside a UUID
            spans = _joined(spans, self._looked(_UUIDS, text, spans, addresses))
        if WHOLE_MARK.search(text):
            spans = _joined(spans, self._looked(WHOLE, text, spans, addresses))
        spans = _joined(spans, self._named(self._inside, text, low, spans, strict))
        if MARKS.search(text):
            spans = _joined(spans, self._looked(LOOKS, text, spans, addresses))
        spans = _joined(spans, self._named(self._alone, text, low, spans, strict))
        if not strict:
            spans = _joined(spans, self._named(self._between, text, low, spans, strict))
        return spans

    def _encoded(self, text: str, strict: bool, depth: int) -> Iterator[Replacement]:
        """Yield replacements of words in base64 or hexadecimal, and of device mapper names."""
        for found in ENCODED.finditer(text):
            word = found[0]
            if word not in self._words:
                self._words[word] = self._word(word, strict, depth)
            if (known := self._words[word]) is not None:
                yield Replacement(found.start(), found.end(), *known)

    def _word(self, word: str, strict: bool, depth: int) -> tuple[str, str] | None:
        if word in self._mapped:
            return self._mapped[word], "name"
        if (code := decoded(word)) is None:
            return None
        text, encode = code
        spans = self._spans(text, True, strict, depth + 1)
        made = _applied(text, spans)
        return None if made == text else (encode(made), spans[0].kind)

    def _named(
        self,
        pattern: re.Pattern[str] | None,
        text: str,
        low: str,
        spans: list[Replacement],
        strict: bool,
    ) -> Iterator[Replacement]:
        if pattern is None or not pattern.search(low):
            return
        for start, end in _gaps(spans, len(text)):
            for found in pattern.finditer(low, start, end):
                if pattern is self._between and _is_key(text, found.end()):
                    continue
                was = text[found.start() : found.end()]
                yield Replacement(found.start(), found.end(), self._name(was, found[0]), "name")

    def _name(self, was: str, low: str) -> str:
        name = self._names[low]
        if _lower(name) == low:
            name = was  # it keeps its case, because the spelling is the name's own
        elif was == was.upper() != was.lower():
            name = name.upper()
        if self._names[low] in self.identities.hosts:
            return self.pseudonyms.host(name)
        return self.pseudonyms.name(name)

    def _looked(
        self, pattern: re.Pattern[str], text: str, spans: list[Replacement], addresses: bool
    ) -> Iterator[Replacement]:
        for start, end in _gaps(spans, len(text)):
            for found in pattern.finditer(text, start, end):
                kind = found.lastgroup or ""
                if not addresses and kind in ("four", "dashed", "known", "decimal"):
                    continue
                was = found[0]
                key = kind + was
                if key not in self._known:
                    self._known[key] = _WAYS[kind](self, found)
                if (made := self._known[key]) != was:
                    yield Replacement(found.start(), found.end(), made, KINDS[kind])

    def summary(self) -> Iterator[str]:
        """Yield the number of replacements of each kind, a line each."""
        for kind, count in sorted(self.replaced.items()):
            yield f"{kind}: {len(self.distinct[kind])}, in {count} place{'s' * (count != 1)}"
        if kept := self.identities.kept:
            yield f"names kept, because they are common words or too short: {len(kept)}"

    def explained(self) -> Iterator[str]:
        """Yield the number of replacements by kind and place, a line each, without originals."""
        kinds = sorted({place.kind for place in self.places})
        for kind in kinds:
            count = self.replaced[kind]
            yield f"{kind}: {len(self.distinct[kind])}, in {count} place{'s' * (count != 1)}"
            found = [place for place in self.places if place.kind == kind]
            for place in sorted(found, key=lambda place: (-self.places[place], place)):
                yield f"  {self.places[place]:>7}  {place.layer}  {place.query}"

    def originals(self) -> Iterator[tuple[str, str]]:
        """Yield each name that was replaced, with its pseudonym: for the bundle's owner only."""
        for name in sorted(self.distinct.get("name", ())):
            yield name, self._quietly(name)

    def _count(self, kind: str, was: str) -> None:
        self.replaced[kind] += 1
        self.distinct.setdefault(kind, set()).add(was)
        self.places[Place(kind, *self._query)] += 1

    def _hexadecimal(self, found: re.Match[str]) -> str:
        digits = found[0]
        if digits.lower() in self._sums:
            return self._sums[digits.lower()]
        if len(digits) == 32:
            return self.pseudonyms.uuid(digits)  # a project's or user's id, without hyphens
        return self.pseudonyms.hexadecimal(digits) if digits.strip("0fF") else digits

    def _address(self, found: re.Match[str]) -> str:
        plain = found[0]
        if ":" not in plain and plain[:1] == "0":  # the numbers are padded to three digits
            plain = re.sub(r"\b0+(?=[0-9])", "", plain)
        try:
            return self.pseudonyms.address(plain)
        except ValueError:
            return found[0]

    def _dashed(self, found: re.Match[str]) -> str:
        try:
            made = self.pseudonyms.address(found["dashed"].replace("-", "."))
        except ValueError:
            return found[0]
        return found["prefix"] + made.replace(".", "-")

    def _known_address(self, found: re.Match[str]) -> str:
        plain = found[0].replace(found["bar"], ".")
        if plain not in self.identities.fours:
            return found[0]
        return self.pseudonyms.address(plain).replace(".", found["bar"])

    def _mapped_address(self, found: re.Match[str]) -> str:
        head, high, low = found[0].rsplit(":", 2)
        plain = ipaddress.IPv4Address(int(high, 16) << 16 | int(low, 16))
        made = int(ipaddress.IPv4Address(self.pseudonyms.address(str(plain))))
        return f"{head}:{made >> 16:x}:{made & 0xFFFF:x}"

    def _interface(self, found: re.Match[str]) -> str:
        """Return the pseudonym of the second half of an IPv6 address derived from a MAC."""
        parts = [f"{int(part, 16):04x}" for part in found[0].split(":")]
        made = ipaddress.IPv6Address(self.pseudonyms.address(f"2001:db8::{':'.join(parts)}"))
        words = f"{int(made) & (1 << 64) - 1:016x}"
        return ":".join(f"{int(words[at : at + 4], 16):x}" for at in range(0, 16, 4))

    def _reversed(self, found: re.Match[str]) -> str:
        parts = found[0].rstrip(".").split(".")[::-1]
        if (
            all(len(part) == 1 for part in parts)
            and found.string[found.end()] == "i"
            and (found.string.startswith("ip6", found.end()))
        ):
            digits = "".join(parts)
            whole = f"{digits:0<32}"
            plain = ":".join(whole[at : at + 4] for at in range(0, 32, 4))
            exploded = ipaddress.IPv6Address(self.pseudonyms.address(plain)).exploded
            return "".join(f"{char}." for char in exploded.replace(":", "")[: len(digits)][::-1])
        plain = ".".join([*parts, *["0"] * (4 - len(parts))])
        try:
            made = self.pseudonyms.address(plain).split(".")[: len(parts)]
        except ValueError:
            return found[0]
        return "".join(f"{part}." for part in made[::-1])

    def _eight(self, found: re.Match[str]) -> str:
        """Return the pseudonym of eight digits: an IPv4 address in hexadecimal, in either byte
        order, or the beginning of a UUID."""
        head, digits = ("0x", found[0][2:]) if found[0][:2] == "0x" else ("", found[0])
        number = int(digits, 16)
        swapped = int.from_bytes(number.to_bytes(4, "big"), "little")
        for value, turn in ((number, False), (swapped, True)):
            if value in self._addresses and len(digits) >= 7:
                made = int(ipaddress.IPv4Address(self.pseudonyms.address(self._addresses[value])))
                if turn:
                    made = int.from_bytes(made.to_bytes(4, "big"), "little")
                written = f"{made:0{len(digits)}x}"
                return head + (written.upper() if digits != digits.lower() else written)
        before = found.string[: found.start()]
        if not head and digits.lower() in self._starts and not before.endswith("instance-"):
            return self.pseudonyms.uuid(digits)
        return self._decimal(found) if not head and digits.isdigit() else found[0]

    def _begin(self, found: re.Match[str]) -> str:
        known = found[0][:8].lower() in self._starts
        return self.pseudonyms.uuid(found[0]) if known else found[0]

    def _decimal(self, found: re.Match[str]) -> str:
        value = int(found[0])
        return str(self._number(value)) if value in self._addresses else found[0]

    def _load(self, found: re.Match[str]) -> str:
        return f"0x{self.pseudonyms.mac(found['load'])}"

    def _twelve(self, found: re.Match[str]) -> str:
        head, digits = ("0x", found[0][2:]) if found[0][:2] == "0x" else ("", found[0])
        return head + self.pseudonyms.mac(digits) if self._is_mac(digits) else found[0]

    def _cisco(self, found: re.Match[str]) -> str:
        return self.pseudonyms.mac(found[0]) if self._is_mac(found[0]) else found[0]

    def _is_mac(self, text: str) -> bool:
        digits = re.sub("[^0-9a-f]", "", text.lower())
        return digits[2:] in self.identities.macs or digits.startswith(
            ("fa163e", "fe163e", "f8163e")
        )

    def _octets(self, found: re.Match[str]) -> str:
        """Return the pseudonym of bytes with colons: eight may be derived from a MAC; sixteen or
        twenty are a key's fingerprint, or an address of InfiniBand."""
        bare = found[0].replace(":", "")
        made = iter(self._wide(bare) if len(bare) == 16 else self.pseudonyms.hexadecimal(bare))
        return "".join(char if char == ":" else next(made) for char in found[0])

    def _wide(self, digits: str) -> str:
        """Return the pseudonym of 16 digits: a MAC with `fffe` in the middle, or a port name."""
        if digits[6:10].lower() == "fffe":
            mac = digits[:6] + digits[10:]
            made = self.pseudonyms.mac(mac)
            return made[:6] + digits[6:10] + made[6:]
        return self.pseudonyms.uuid(digits)

    def _sixteen(self, found: re.Match[str]) -> str:
        digits = found[0]
        if digits[6:10].lower() == "fffe" and self._is_mac(digits[:6] + digits[10:]):
            return self._wide(digits)
        return self.pseudonyms.uuid(digits) if digits.lower() in self._wwns else digits

    def _wwid(self, found: re.Match[str]) -> str:
        """Return the pseudonym of a LUN's name, if its prefix or a known name identifies it."""
        was = found[0]
        head = next(head for head in ("0x", "3", "naa.", "eui.", "t10.") if was.startswith(head))
        digits = was[len(head) :]
        sure = "." in head or len(digits) == 32 or digits.lower() in self._wwns
        return head + self.pseudonyms.uuid(digits) if sure else was

    def _initiator(self, found: re.Match[str]) -> str:
        authority = found["initiator"].split(".", 2)[2]
        if not AUTHORITIES.match(authority):
            return found[0]
        return found["initiator"] + self.pseudonyms.hexadecimal(found["tail"])

    def _mail(self, found: re.Match[str]) -> str:
        local, _, domain = found[0].partition("@")
        if domain.rpartition(".")[2] in UNITS or domain.endswith("openssh.com"):
            return found[0]
        first, *labels = self.pseudonyms.host(f"x.{domain}").split(".")
        return f"{self.pseudonyms.name(local)}@{'.'.join(labels)}" if first else found[0]

    def _key(self, found: re.Match[str]) -> str:
        if found[0].startswith("SHA256:"):
            return f"SHA256:{self.pseudonyms.key(found[0][7:])}"
        kind, key, *comment = found[0].split(" ", 2)
        made = f"{kind} AAAA{self.pseudonyms.key(key[4:])}"
        return f"{made} {self.pseudonyms.name(comment[0])}" if comment else made

    def _lvm(self, found: re.Match[str]) -> str:
        group, volume = found[0][4:36], found[0][36:]
        return f"LVM-{self.pseudonyms.lvm(group)}{self.pseudonyms.lvm(volume)}"


_WAYS: dict[str, Callable[[Redactor, re.Match[str]], str]] = {
    "sshkey": Redactor._key,
    "print": Redactor._key,
    "mail": Redactor._mail,
    "lvm": Redactor._lvm,
    "pv": lambda self, found: self.pseudonyms.lvm(found[0]),
    "uuid": lambda self, found: self.pseudonyms.uuid(found[0]),
    "apart": lambda self, found: self.pseudonyms.uuid(found[0]),
    "start": lambda self, found: found["device"] + self.pseudonyms.uuid(found["start"]),
    "part": lambda self, found: self.pseudonyms.uuid(found[0]),
    "mac": lambda self, found: (found["client"] or "") + self.pseudonyms.mac(found["mac"]),
    "macdash": lambda self, found: self.pseudonyms.mac(found[0]),
    "octets": Redactor._octets,
    "cisco": Redactor._cisco,
    "begin": Redactor._begin,
    "load": Redactor._load,
    "twelve": Redactor._twelve,
    "tail": Redactor._initiator,
    "wwid": Redactor._wwid,
    "sixteen": Redactor._sixteen,
    "hex": Redactor._hexadecimal,
    "eight": Redactor._eight,
    "decimal": Redactor._decimal,
    "dashed": Redactor._dashed,
    "known": Redactor._known_address,
    "arpa": Redactor._reversed,
    "four": Redactor._address,
    "six": Redactor._address,
    "interface": Redactor._interface,
    "mapped": Redactor._mapped_address,
}


def _numbers(addresses: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yield IPv4 addresses as numbers, without those ending in 0, which may be round numbers."""
    for text in addresses:
        try:
            number = int(ipaddress.IPv4Address(text))
        except ValueError:
            continue
        if number >> 24 not in (0, 127, 169, 255) and number & 0xFF:
            yield number, text


def _lower(text: str) -> str:
    """Return the text in lower case, with its length unchanged."""
    low = text.lower()
    if len(low) == len(text):
        return low
    return "".join(char.lower() if len(char.lower()) == 1 else char for char in text)


def _applied(text: str, spans: list[Replacement]) -> str:
    made, at = [], 0
    for span in spans:
        made += [text[at : span.start], span.made]
        at = span.end
    return "".join((*made, text[at:]))


def _joined(spans: list[Replacement], more: Iterable[Replacement]) -> list[Replacement]:
    """Merge both in order; where they overlap, `spans` win."""
    added = list(more)
    if not added:
        return spans
    if not spans:
        return added
    starts = [span.start for span in spans]
    kept = []
    for span in added:
        at = bisect(starts, span.start)
        after = at < len(spans) and spans[at].start < span.end
        before = at > 0 and spans[at - 1].end > span.start
        if not after and not before:
            kept.append(span)
    return sorted([*spans, *kept])


def _gaps(spans: list[Replacement], size: int) -> list[tuple[int, int]]:
    """Return the parts of a text that no replacement covers yet."""
    if not spans:
        return [(0, size)]
    edges = [0, *(edge for span in spans for edge in (span.start, span.end)), size]
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return [(start, end) for start, end in pairs if start < end]


def _is_key(text: str, end: int) -> bool:
    """True if the word at `end` is the name of a field in JSON."""
    while end < len(text) and (text[end].isalnum() or text[end] == "_"):
        end += 1
    rest = text[end : end + 12].lstrip("\\")
    return rest.startswith('"') and rest[1:].lstrip().startswith(":")


def _is_sql(query: str) -> bool:
    return query.startswith(("SELECT", "SHOW"))


def _kind_of(query: str) -> str:
    """Return a query shortened, with `…` for ids and numbers."""
    if _is_sql(query) and (table := re.search(r"\bFROM\s+(\S+)", query)):
        return f"{query.split()[0]} … FROM {table[1]}"
    short = re.sub(rf"{UUID}|name-[0-9a-f]{{10}}|[0-9a-f]{{32,128}}|[0-9]{{3,}}", "…", query)
    short = re.sub(r"instance-[0-9a-f…]+", "instance-…", short)
    return cut(short, 60)


def _patterns(
    names: Iterable[str],
) -> tuple[re.Pattern[str] | None, re.Pattern[str] | None, re.Pattern[str] | None]:
    """Return three patterns of names in lower case: names found inside words, names that stand
    alone, and names between characters other than letters."""
    inside = {name for name in names if is_distinctive(name)}
    rest = {*names} - inside
    words = {name for name in rest if is_word(name)}
    return (
        re.compile(_anywhere(inside)) if inside else None,
        re.compile(any_of(rest)) if rest else None,
        re.compile(rf"(?<![a-z])(?:{_branches(sorted(words), 0, 0)})(?![a-z])") if words else None,
    )


def _texts(value: Any) -> Iterator[str]:
    """Yield every string in a JSON value, including keys."""
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
"""Largest number of nested groups; the limit of Python's regular expressions is slightly higher."""


def any_of(names: Iterable[str]) -> str:
    """Return a pattern of whole names, the longest first. Common beginnings are factored out,
    because there may be ten thousand names."""
    return rf"(?<![A-Za-z0-9_])(?:{_branches(sorted(names), 0, 0)})(?![A-Za-z0-9_])"


def _anywhere(names: Iterable[str]) -> str:
    """Return a pattern of names, also inside words, the longest first. A run of digits is not
    split: `db-15` does not match in `db-150`."""
    digits = sorted(name for name in names if name[0].isdigit())
    others = sorted(name for name in names if not name[0].isdigit())
    parts = []
    if others:
        parts.append(f"(?:{_branches(others, 0, 0, apart=True)})")
    if digits:
        parts.append(f"(?<![0-9])(?:{_branches(digits, 0, 0, apart=True)})")
    return "|".join(parts)


def _branches(names: list[str], start: int, depth: int, *, apart: bool = False) -> str:
    """Return a pattern of the names from `start` on. They are sorted and equal before `start`.

    `apart`: a name that ends in a digit must not be followed by another digit.
    """

    def end_of(name: str) -> str:
        return "(?![0-9])" if apart and name[-1].isdigit() else ""

    if depth == _DEEPEST:
        return "|".join(re.escape(name[start:]) + end_of(name) for name in reversed(names))
    parts = []
    at = 1 if len(names[0]) == start else 0  # a name that ends here is tried last
    ends = at == 1
    while at < len(names):
        first = names[at]
        last = at
        while last + 1 < len(names) and names[last + 1][start] == first[start]:
            last += 1
        end = _alike(first, names[last], start)
        if last == at:
            tail = re.escape(first[end:]) + end_of(first)
        else:
            tail = f"(?:{_branches(names[at : last + 1], end, depth + 1, apart=apart)})"
        parts.append(re.escape(first[start:end]) + tail)
        at = last + 1
    return "|".join([*parts, end_of(names[0])] if ends else parts)


def _alike(one: str, other: str, start: int) -> int:
    """Return the first position from `start` on at which two texts differ."""
    end = start
    while end < min(len(one), len(other)) and one[end] == other[end]:
        end += 1
    return end
