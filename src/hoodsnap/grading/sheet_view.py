"""The view of a bundle for a sheet's expressions: documented JSON, made from the facts.

Every field is always present. A thing that does not exist is null. A value that was not collected
is a `Silence`, so an expression that reads it raises an error instead of returning a wrong value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hoodsnap.facts.api.volume import Attachment, Volume
from hoodsnap.facts.cloud.guest import NOUNS, Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.cloud.volume_owners import volume_of
from hoodsnap.facts.domain.disk import DOCUMENTED_DISK
from hoodsnap.facts.fact import Documented, DocumentedField, Fact, UnheardError, caught
from hoodsnap.facts.layer import LAYER_OF
from hoodsnap.findings.analysis import Report
from hoodsnap.grading.expression import Silence


def described(documented: Documented, kind: type) -> tuple[DocumentedField, ...]:
    """Return the fields of a fact; a string is described by the attribute's docstring."""
    entries = []
    for entry in documented:
        if isinstance(entry, str):
            help = (getattr(kind, entry).__doc__ or "").partition("\n\n")[0]
            # Expressions read JSON, in which None is null.
            entry = DocumentedField(entry, re.sub(r"\bNone\b", "null", " ".join(help.split())))
        entries.append(entry)
    return tuple(entries)


ONE: Mapping[str, tuple[DocumentedField, ...]] = {
    name: described(noun.fact.documented, noun.fact)
    for name, noun in NOUNS.items()
    if noun.fact.documented and not noun.many
}
"""The nouns of which a guest has one, each with its fields."""

MANY: Mapping[str, tuple[DocumentedField, ...]] = {
    name: described(noun.fact.documented, noun.fact)
    for name, noun in NOUNS.items()
    if noun.fact.documented and noun.many
}
"""The nouns of which a guest has several."""

ATTACHMENT = described(Attachment.documented, Attachment)

HOST = described(
    (
        DocumentedField("name", "The host name, from the kernel."),
        "nova_name",
        DocumentedField(
            "instances_path", "Path of the instances directory.", lambda host: _top(host)
        ),
        DocumentedField(
            "bases", "Names of the files in the host's image cache.", lambda host: _bases(host)
        ),
    ),
    Host,
)


def _top(host: Host) -> str | None:
    return next(iter(host.images.tops), None)


def _bases(host: Host) -> list[str]:
    if "images" in host.unheard:
        raise UnheardError(host.unheard["images"])
    return sorted(host.images.bases)


Part = dict[str, object]


def _part(entries: Iterable[DocumentedField], part: object) -> Part:
    return {entry.name: _read(entry, part) for entry in entries}


def _parts(entries: Iterable[DocumentedField], parts: Iterable[object]) -> list[Part]:
    return [_part(entries, one) for one in parts]


def _read(entry: DocumentedField, part: object) -> object:
    try:
        value: Any = entry.read(part) if entry.read is not None else getattr(part, entry.name)
        if entry.inside:
            value = _parts(entry.inside, value)
    except Exception as error:  # the net around each field that an expression may name
        return Silence(str(caught(error)))
    if isinstance(value, tuple | frozenset | set):
        return sorted(value) if isinstance(value, frozenset | set) else list(value)
    return value


@dataclass
class View:
    """The facts of one bundle, as a sheet's expressions read them."""

    facts: Part
    guest: Guest
    paths: dict[int, str] = field(default_factory=dict)
    """Expressions by the `id()` of the object in `facts` that they lead to."""
    sources: dict[int, Fact] = field(default_factory=dict)
    """Facts by the `id()` of the object in `facts` that was made from them."""

    def query(self, part: Mapping[str, object], name: str) -> str | None:
        """Return the query that a person could type to see a field; None if no query shows it."""
        fact = self.sources.get(id(part))
        answer = fact.where(name)[0] if fact is not None else None
        return answer.query if answer is not None else None


def view(report: Report, guest: Guest) -> View:
    """Build the view of one guest, its host and the other guests."""
    sources: dict[int, Fact] = {}
    described = _guest(guest, sources)
    facts: Part = {
        "guest": described,
        "host": Silence(_nowhere(guest)) if guest.host is None else _part(HOST, guest.host),
        "guests": [
            described if one is guest else _guest(one, sources) for one in report.cloud.guests
        ],
        "findings": [
            {
                "check": finding.check.name,
                "severity": finding.severity.word,
                "guests": [one.uuid for one in finding.guests],
            }
            for finding in report.everything()
        ],
    }
    made = View(facts, guest, sources=sources)
    # The guest comes last, so that its parts are named `guest.…` and not by their place in guests.
    for name in ("guests", "findings", "host", "guest"):
        _name(made.paths, name, facts[name])
    return made


def _nowhere(guest: Guest) -> str:
    return guest.unheard.get("libvirt", "the server's host is in no bundle")


def _guest(guest: Guest, sources: dict[int, Fact]) -> Part:
    found: Part = {"uuid": guest.uuid, "name": guest.name}
    for noun, entries in ONE.items():
        found[noun] = _one(guest, noun, entries, sources)
    for noun, entries in MANY.items():
        found[noun] = _many(guest, noun, entries, sources)
    return found


def _one(
    guest: Guest, noun: str, entries: tuple[DocumentedField, ...], sources: dict[int, Fact]
) -> object:
    fact = getattr(guest, noun)
    if fact is None:
        reason = guest.unheard.get(LAYER_OF[noun].id)
        return Silence(reason) if reason is not None else None
    part = _part(entries, fact)
    sources[id(part)] = fact
    return part


def _many(
    guest: Guest, noun: str, entries: tuple[DocumentedField, ...], sources: dict[int, Fact]
) -> object:
    facts, layer = getattr(guest, noun), LAYER_OF[noun].id
    if facts is None or (not facts and layer in guest.unheard):
        return Silence(guest.unheard.get(layer, f"the {noun} were not collected"))
    parts = []
    for fact in facts:
        part = _part(entries, fact)
        if isinstance(fact, Volume):
            part |= _read_volume(guest, fact)
        sources[id(part)] = fact
        parts.append(part)
    return parts


def _read_volume(guest: Guest, volume: Volume) -> Part:
    """Return a guest's volume as attached by cinder, and as a disk of the domain."""
    attachments = guest.storage.volumes.by_server.get(guest.uuid, ())
    return {
        "attachments": _parts(ATTACHMENT, _attached(attachments, volume)),
        "disk": _read(DocumentedField("disk", "", lambda guest: _disk_of(guest, volume)), guest),
    }


def _attached(attachments: Iterable[Attachment], volume: Volume) -> Iterator[Attachment]:
    for attachment in attachments:
        try:
            if attachment.volume_id == volume.id:
                yield attachment
        except UnheardError:
            continue  # its volume is unknown, so don't show it as an attachment of this one


def _disk_of(guest: Guest, volume: Volume) -> Part | None:
    if guest.domain is None:
        if "libvirt" in guest.unheard:
            raise UnheardError(guest.unheard["libvirt"])
        return None
    found = (disk for disk in guest.domain.disks if volume_of(disk) == volume.id)
    return next((_part(DOCUMENTED_DISK, disk) for disk in found), None)


def _name(paths: dict[int, str], path: str, value: object) -> None:
    if isinstance(value, dict):
        paths[id(value)] = path
        for key, inner in value.items():
            _name(paths, f"{path}.{key}", inner)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _name(paths, f"{path}[{number}]", inner)


def documented() -> Iterator[tuple[str, str]]:
    """Yield every field that an expression may name, with its meaning."""
    yield "guest.uuid", "The server's id, lower case."
    yield (
        "guest.name",
        "Name in nova; if nova has none, the domain's name, else the process's `-name`.",
    )
    for noun, entries in ONE.items():
        yield f"guest.{noun}", f"{LAYER_OF[noun].nouns[noun]}; null if it does not exist."
        yield from _fields(f"guest.{noun}", entries)
    for noun, entries in MANY.items():
        yield f"guest.{noun}[]", f"{LAYER_OF[noun].nouns[noun]}."
        yield from _fields(f"guest.{noun}[]", entries)
    yield "guest.volumes[].attachments[]", "The attachments to this guest, from cinder."
    yield from _fields("guest.volumes[].attachments[]", ATTACHMENT)
    yield "guest.volumes[].disk", "The disk of the domain; null if the domain has no such disk."
    yield from _fields("guest.volumes[].disk", DOCUMENTED_DISK)
    yield from _fields("host", HOST)
    yield "guests[]", "Every guest in the bundle, with the same fields as `guest`."
    yield "findings[].check", "Name of the check that reported the finding."
    yield "findings[].severity", "`error`, `warning` or `note`."
    yield (
        "findings[].guests",
        "Ids of the servers that the finding is about; empty if it is about a host.",
    )


def _fields(path: str, entries: Iterable[DocumentedField]) -> Iterator[tuple[str, str]]:
    for entry in entries:
        yield f"{path}.{entry.name}", entry.help
        yield from _fields(f"{path}.{entry.name}[]", entry.inside)
