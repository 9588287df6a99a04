"""The view of a bundle for a sheet's expressions: documented JSON, made from the facts.

Every field is always present. A thing that does not exist is null. A value that was not collected
is a `Silence`, so an expression that reads it raises an error instead of returning a wrong value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, NamedTuple

from hoodsnap.check import LAYER_OF
from hoodsnap.facts.api.allocation import Allocation
from hoodsnap.facts.api.port import Port
from hoodsnap.facts.api.server import Server
from hoodsnap.facts.api.volume import Attachment, Volume
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.cloud.volume_owners import volume_of
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.power_state import POWER_STATES
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import Fact, UnheardError, caught
from hoodsnap.facts.host.device import Device
from hoodsnap.facts.host.image import Image
from hoodsnap.facts.host.tap import Tap
from hoodsnap.facts.process.process import Process
from hoodsnap.findings.analysis import Report
from hoodsnap.grading.expression import Silence


class DocumentedField(NamedTuple):
    """A field that expressions may name: its name, how to read it, and its meaning."""

    name: str
    read: Callable[[Any], object]
    help: str


def _of(kind: type, *names: str) -> tuple[DocumentedField, ...]:
    """Return fields of a fact under their own names, documented by their docstrings."""
    entries = []
    for name in names:
        help = (getattr(kind, name).__doc__ or "").partition("\n\n")[0]
        entries.append(DocumentedField(name, attrgetter(name), " ".join(help.split())))
    return tuple(entries)


def _also(name: str, help: str, read: Callable[[Any], object] | None = None) -> DocumentedField:
    return DocumentedField(name, read or attrgetter(name), help)


def _power(record: Server | Instance) -> str | None:
    state = record.power_state
    return None if state is None else POWER_STATES.get(state, str(state))


def _below(image: Image) -> str | None:
    return image.chain[-1].path if len(image.chain) > 1 else None


def _last(path: str | None) -> str | None:
    return None if path is None else path.rpartition("/")[2]


DISK = (
    _also("target", "`vda`."),
    _also("bus", "`virtio`."),
    _also("device", "`disk`, `cdrom`, `floppy` or `lun`."),
    _also("source", "The file or device; null if no medium is inserted."),
    _also(
        "format",
        "`qcow2`, `raw`; null if libvirt does not report it.",
        lambda disk: disk.image.format,
    ),
    _also("serial", "A volume's id."),
    _also("read_only", "True if the guest can't write to it."),
)
INTERFACE = (
    _also("mac", "Lower case."),
    _also("target", "The device on the host: `tap3f6c1d2a-bb`."),
    _also("type", "`bridge`, `ethernet` …"),
    _also("source", "The bridge or network it is plugged into."),
    _also("mtu", "MTU in bytes; null if the guest is not given one."),
)
ATTACHMENT = (
    _also("id", "Lower case."),
    *_of(Attachment, "status", "instance", "host"),
)
SERVER = (
    *_of(Server, "uuid", "name", "status", "vm_state", "task_state"),
    _also("power", "`running`, `shut down`, `paused` …", _power),
    *_of(Server, "host", "instance_name", "image", "flavor", "memory_mib", "vcpus"),
    *_of(Server, "config_drive", "updated_at", "launched_at"),
)
INSTANCE = (
    *_of(Instance, "uuid", "id", "name", "cell", "host", "node", "vm_state", "task_state"),
    _also("power", "`running`, `shut down`, `paused` …", _power),
    *_of(Instance, "image", "memory_mib", "vcpus", "config_drive", "updated_at", "launched_at"),
    *_of(Instance, "deleted", "fault_message"),
)
DOMAIN = (
    _also("uuid", "Lower case."),
    *_of(Domain, "name", "id"),
    _also("state", "`running`, `paused`, `shut off` …", lambda domain: _state(domain)),
    *_of(Domain, "state_words", "persistent", "autostart", "vcpus", "memory_kib", "machine"),
    *_of(Domain, "macs", "taps"),
    _also("disks", "Disks, in the order of the XML.", lambda domain: _parts(DISK, domain.disks)),
    _also(
        "interfaces",
        "Network interfaces, in the order of the XML.",
        lambda domain: _parts(INTERFACE, domain.interfaces),
    ),
)
PROCESS = (
    _also("pid", "PID of the QEMU process."),
    *_of(Process, "name", "uuid", "exe", "state", "threads", "uid", "vcpus", "memory_kib"),
    *_of(Process, "machine", "macs"),
    _also("disks", "The files and devices it was started with.", lambda process: _sources(process)),
    _also(
        "files",
        "The files, block devices and taps that it has open.",
        lambda process: sorted({file.path for file in process.files}),
    ),
)
IMAGE = (
    _also("path", "Path of the file."),
    _also("name", "The last part of its path: `disk`.", lambda image: _last(image.path)),
    *_of(Image, "format", "virtual_size", "actual_size"),
    _also(
        "chain",
        "The paths of the image and of its backing files, the base image last.",
        lambda image: [layer.path for layer in image.chain],
    ),
    _also("base", "The path of its base image; null if it has no backing file.", _below),
    _also("base_name", "The last part of `base`.", lambda image: _last(_below(image))),
    *_of(Image, "backing_missing"),
)
PORT = (
    *_of(Port, "id", "mac", "tap", "status", "admin_state_up", "host", "vif_type", "addresses"),
    *_of(Port, "network_id"),
    _also(
        "network",
        "The name of its network; null if it is not known.",
        lambda port: port.network.name if port.network is not None else None,
    ),
)
TAP = (
    *_of(Tap, "name", "mac", "mtu", "up", "is_there", "is_switched", "bridge", "tag", "ofport"),
    *_of(Tap, "iface_id", "attached_mac", "vm_uuid"),
)
VOLUME = (
    _also("id", "Lower case."),
    *_of(Volume, "name", "status", "size_gib", "bootable", "multiattach", "backend"),
)
DEVICE = _of(Device, "name", "kname", "number", "type", "size")
ALLOCATION = (
    _also(
        "resources",
        "The resources it holds: `class` (`VCPU`, `MEMORY_MB` …) and `amount` of each.",
        lambda allocation: _amounts(allocation),
    ),
)
HOST = (
    _also("name", "The kernel's host name."),
    *_of(Host, "nova_name"),
    _also("instances_path", "The folder of the guests' files.", lambda host: _top(host)),
    _also("bases", "The names of the files in its image cache.", lambda host: _bases(host)),
)
ONE: Mapping[str, tuple[DocumentedField, ...]] = {
    "server": SERVER,
    "instance": INSTANCE,
    "allocation": ALLOCATION,
    "domain": DOMAIN,
    "process": PROCESS,
}
MANY: Mapping[str, tuple[DocumentedField, ...]] = {
    "images": IMAGE,
    "devices": DEVICE,
    "volumes": VOLUME,
    "ports": PORT,
    "taps": TAP,
}
NOUNS: Mapping[str, str] = {
    "server": "The server in nova's API",
    "instance": "The server's row in nova's database",
    "allocation": "The resources that placement has reserved for it",
    "domain": "The domain in libvirt",
    "process": "The QEMU process",
    "images": "The disk images, as qemu-img shows them",
    "devices": "The block devices of the host that are its disks",
    "volumes": "The volumes, from cinder",
    "ports": "The ports, from neutron",
    "taps": "The tap devices on the host",
}


def _state(domain: Domain) -> str:
    return domain.state_words.partition(" (")[0]


def _sources(process: Process) -> list[str]:
    return [disk.source for disk in process.disks if disk.source is not None]


def _amounts(allocation: Allocation) -> list[dict[str, object]]:
    return [{"class": name, "amount": amount} for name, amount in allocation.resources.items()]


def _top(host: Host) -> str | None:
    return next(iter(host.images.tops), None)


def _bases(host: Host) -> list[str]:
    if "images" in host.unheard:
        raise UnheardError(host.unheard["images"])
    return sorted(host.images.bases)


Part = dict[str, object]


def _part(entries: Iterable[DocumentedField], part: object) -> Part:
    return {entry.name: _read(entry.read, part) for entry in entries}


def _parts(entries: Iterable[DocumentedField], parts: Iterable[object]) -> list[Part]:
    return [_part(entries, one) for one in parts]


def _read(read: Callable[[Any], object], part: object) -> object:
    try:
        value = read(part)
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
        reason = guest.unheard.get(LAYER_OF[noun])
        return Silence(reason) if reason is not None else None
    part = _part(entries, fact)
    sources[id(part)] = fact
    return part


def _many(
    guest: Guest, noun: str, entries: tuple[DocumentedField, ...], sources: dict[int, Fact]
) -> object:
    facts, layer = getattr(guest, noun), LAYER_OF[noun]
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
        "disk": _read(lambda guest: _disk_of(guest, volume), guest),
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
    return next((_part(DISK, disk) for disk in found), None)


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
    yield "guest.name", "The name in nova, else in libvirt, else of the process."
    for noun, entries in ONE.items():
        yield f"guest.{noun}", f"{NOUNS[noun]}; null if it does not exist."
        yield from _fields(f"guest.{noun}", entries)
    for noun, entries in MANY.items():
        yield f"guest.{noun}[]", f"{NOUNS[noun]}."
        yield from _fields(f"guest.{noun}[]", entries)
    yield "guest.volumes[].attachments[]", "The attachments to this guest, from cinder."
    yield from _fields("guest.volumes[].attachments[]", ATTACHMENT)
    yield "guest.volumes[].disk", "The disk of the domain; null if the domain has no such disk."
    yield from _fields("guest.volumes[].disk", DISK)
    yield from _fields("host", HOST)
    yield "guests[]", "Every guest in the bundle, with the same fields as `guest`."
    yield "findings[].check", "The name of a check that found something, about any guest or host."
    yield "findings[].severity", "`error`, `warning` or `note`."
    yield "findings[].guests", "The ids of the servers it concerns; empty if it concerns a host."


def _fields(path: str, entries: Iterable[DocumentedField]) -> Iterator[tuple[str, str]]:
    nested = {"disks": DISK, "interfaces": INTERFACE} if path == "guest.domain" else {}
    for entry in entries:
        yield f"{path}.{entry.name}", entry.help
        if entry.name in nested:
            yield from _fields(f"{path}.{entry.name}[]", nested[entry.name])
