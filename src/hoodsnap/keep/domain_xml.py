"""Allow-list for libvirt's domain definitions: XML in, the same XML out.

On a read-only connection libvirt omits what it knows to be secret (graphics passwords). What
libvirt only passes on is shown to every client. The text is read tag by tag, once; what is kept is
kept byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.sax.saxutils import escape, unescape

from hoodsnap.keep.arguments import kept_words
from hoodsnap.keep.secret import WITHHELD, without_secrets

_TAG = re.compile(r"<(?P<close>/?)(?P<name>[\w:.-]++)(?P<rest>[^<>]*+)>")

_ATTRIBUTE = re.compile(
    r"(?P<start>(?<![\w:.-])(?P<name>[\w:.-]++)\s*+=\s*+(?P<quote>['\"]))"
    r"(?P<value>.*?)(?P<end>(?P=quote))",
    re.DOTALL,
)

_NOVA = re.compile(r"xmlns:(\w++)=['\"]http://openstack\.org/xmlns/libvirt/nova/")

_TEXTS = frozenset(["cmdline", "initarg", "initenv", "cookie", "certificate"])
"""Elements whose text is withheld: input for a kernel, a container's first process, a web server
that serves a disk, or a smart card."""

_OF_A_PERSON = frozenset(["title", "description"])

_OF_LAUNCH_SECURITY = frozenset(["cbitpos", "reducedPhysBits", "policy"])
"""Numbers of launchSecurity. Its other elements are blobs with which an owner seals a guest."""

_OF_SYSTEM = re.compile(r"manufacturer|product|version|vendor|date|release|serial|uuid|family")
"""Entries of sysinfo that are kept if they are plain. nova writes no others."""

_PLAIN = re.compile(r"[\w .,()+~/-]{0,128}")
_SERIAL = re.compile(r"[0-9A-Fa-f-]{0,64}|None|not specified", re.IGNORECASE)

_OF_FILTER = re.compile(r"(?:IP|MAC|DHCPSERVER|RASERVER|PROJ(?:NET|MASK)6?|CTRL_IP_LEARNING)")
_ADDRESS = re.compile(r"[0-9A-Fa-f.:/]{0,64}|any|dhcp|none")

_USER_OF_SHARE = re.compile(r"\A(//[^/@:]*+:)[^/]+(?=@)")

_QUOTED = {"'": "&apos;", '"': "&quot;"}
_UNQUOTED = {quoted: plain for plain, quoted in _QUOTED.items()}


@dataclass(frozen=True, slots=True)
class _Element:
    """Open element, as far as its content depends on it."""

    name: str
    attributes: str


def kept_definition(xml: str) -> str:
    """Return a libvirt definition with free texts withheld.

    These are texts for people, for the guest and for QEMU, and metadata of programs besides nova.
    """
    if "<" not in xml:
        return xml
    found = _NOVA.search(xml)
    reader = _Reader(xml, f"{found[1]}:" if found else None)
    return "".join(reader.parts())


class _Reader:
    """Reader that goes through a definition tag by tag."""

    def __init__(self, xml: str, nova: str | None) -> None:
        self._xml = xml
        self._nova = nova
        """Prefix of nova's own metadata elements; None if the definition has none."""
        self._open: list[_Element] = []
        words = [
            unescape(value["value"], _UNQUOTED)
            for tag in _TAG.finditer(xml)
            if tag["name"].rpartition(":")[2] == "arg" and ":" in tag["name"]
            for value in _ATTRIBUTE.finditer(tag["rest"])
            if value["name"] == "value"
        ]
        self._words = iter(kept_words(words))

    def parts(self) -> Iterator[str]:
        """Yield the tags and the texts between them, with secrets withheld."""
        place, foreign = 0, 0
        for tag in _TAG.finditer(self._xml):
            text = self._xml[place : tag.start()]
            place = tag.end()
            if foreign:  # inside another program's metadata
                foreign += 0 if tag["rest"].endswith("/") else -1 if tag["close"] else 1
                if foreign == 0 and self._open:
                    yield WITHHELD
                continue
            yield self._text(text)
            if tag["close"]:
                self._closed(tag["name"])
                yield tag[0]
            elif self._is_foreign(tag["name"]):
                foreign = 0 if tag["rest"].endswith("/") else 1
                if not foreign:
                    yield WITHHELD
            else:
                yield self._tag(tag)
        yield self._text(self._xml[place:]) if not foreign else WITHHELD

    def _closed(self, name: str) -> None:
        while self._open and self._open.pop().name != name:
            pass

    def _is_foreign(self, name: str) -> bool:
        """Return True if an element is metadata of a program other than nova."""
        if not self._open or self._open[-1].name != "metadata":
            return False
        return self._nova is None or not name.startswith(self._nova)

    def _tag(self, tag: re.Match[str]) -> str:
        name, rest = tag["name"], tag["rest"]
        kept = _ATTRIBUTE.sub(lambda found: self._attribute(name, rest, found), rest)
        if not rest.endswith("/"):
            self._open.append(_Element(name, rest))
        return tag[0] if kept == rest else f"<{name}{kept}>"

    def _attribute(self, element: str, rest: str, found: re.Match[str]) -> str:
        name, value = found["name"], found["value"]
        prefix, _, local = element.rpartition(":")
        if prefix and local == "arg" and name == "value":
            kept = _escaped(next(self._words), value)
        elif not value or name.startswith("xmlns"):
            kept = value
        elif _is_secret(prefix, local, name, rest, value):
            kept = WITHHELD
        else:
            plain = unescape(value, _UNQUOTED)
            kept = _escaped(_USER_OF_SHARE.sub(rf"\g<1>{WITHHELD}", without_secrets(plain)), value)
        return f"{found['start']}{kept}{found['end']}"

    def _text(self, text: str) -> str:
        if not text or text.isspace() or not self._open:
            return text
        if not self._is_withheld(text.strip()):
            plain = unescape(text, _UNQUOTED)
            return _escaped(without_secrets(plain), text)
        # Keep the white space around a text, which lays out the document.
        start = len(text) - len(text.lstrip())
        return f"{text[:start]}{WITHHELD}{text[len(text.rstrip()) :]}"

    def _is_withheld(self, text: str) -> bool:
        name = self._open[-1].name
        above = [element.name for element in self._open[-3:-1]]
        if name in _TEXTS or "<!" in text or "<?" in text:
            return True
        if name in _OF_A_PERSON:
            return len(self._open) == 2
        if above[-1:] == ["launchSecurity"]:
            return name not in _OF_LAUNCH_SECURITY
        if name == "entry":
            return self._is_withheld_entry(above, text)
        if name.endswith(":property"):  # an image property in nova's metadata
            from hoodsnap.keep.glance_api import is_image_property

            return not is_image_property(_value_of(self._open[-1].attributes, "name") or "")
        return above[-1:] == ["metadata"] or name == "metadata"

    def _is_withheld_entry(self, above: list[str], text: str) -> bool:
        """Return True unless this is a sysinfo entry that nova writes, with a plain value."""
        key = _value_of(self._open[-1].attributes, "name") or ""
        if above[-1:] == ["oemStrings"] or above[-1:] == ["sysinfo"]:
            return True
        if _OF_SYSTEM.fullmatch(key) is None:
            return True
        return (_SERIAL if key == "serial" else _PLAIN).fullmatch(text) is None


def _is_secret(prefix: str, element: str, name: str, rest: str, value: str) -> bool:
    """Return True if the whole value of an attribute is withheld."""
    if prefix and name == "value":  # only metadata and QEMU passthrough elements have a prefix
        number = _value_of(rest, "type") in ("unsigned", "signed", "bool")
        return element in ("env", "option", "property") and not number
    if element == "parameter" and name == "value":
        known = _OF_FILTER.fullmatch(_value_of(rest, "name") or "")
        return known is None or _ADDRESS.fullmatch(value) is None
    return (element, name) in _ATTRIBUTES


_ATTRIBUTES = frozenset(
    [("graphics", "passwd"), ("source", "query"), ("launchSecurity", "quoteGenerationService")]
)


def _value_of(rest: str, name: str) -> str | None:
    """Return the value of an attribute of a tag; None if the tag does not have it."""
    return next((it["value"] for it in _ATTRIBUTE.finditer(rest) if it["name"] == name), None)


def _escaped(kept: object, before: str) -> str:
    """Return a text escaped for XML; unchanged from `before` if it means the same."""
    if kept == unescape(before, _UNQUOTED):
        return before
    return escape(str(kept), _QUOTED)
