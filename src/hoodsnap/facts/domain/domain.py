"""What libvirt says of a VM: a domain."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from hoodsnap.bundle import Answer
from hoodsnap.facts.domain.disk import DOCUMENTED_DISK, Disk
from hoodsnap.facts.domain.domain_xml import (
    DOCUMENTED_INTERFACE,
    DomainXML,
    Interface,
    read_domain_xml,
)
from hoodsnap.facts.domain.hardware import Firmware, Graphics, HostDevice, Label, Tpm
from hoodsnap.facts.domain.nova_metadata import NovaMetadata
from hoodsnap.facts.domain.state import state_words
from hoodsnap.facts.fact import (
    Documented,
    DocumentedField,
    Fact,
    UnheardError,
    integer,
    unheard,
    value_of,
)
from hoodsnap.facts.layer import LIBVIRT, Layer
from hoodsnap.facts.quantity import whole

LIST = LIBVIRT.census_query

PARTS = {
    "domstate": "state",
    "dominfo": "info",
    "dumpxml": "xml",
    "domjobinfo": "job",
    "snapshot-list": "snapshots",
}
"""What the answer to a virsh command about one domain is called in `Domain.said`."""

BLOCK_JOB = "blockjob "
"""What, before a disk's name, the answer about that disk's job is called in there."""

BLOCK_JOBS = {1: "pull", 2: "copy", 3: "commit", 4: "active commit", 5: "backup"}
"""virsh's words for libvirt's types of them."""

NAME = re.compile(r"instance-[0-9a-f]{8}")
"""The names that nova gives, unless its `instance_name_template` was changed."""

PRODUCTS = ("OpenStack Nova", "OpenStack Compute")
"""What nova calls itself in a guest's SMBIOS: upstream's name, and that of Red Hat's packages."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Domain(Fact):
    """One domain. Whatever needs an answer that was not heard raises `UnheardError`."""

    layer: ClassVar[Layer] = LIBVIRT
    noun: ClassVar[str] = "domain"

    uuid: str
    """Lower case."""

    listed: Mapping[str, object] | None = None
    """Its line in the list of all domains; None if that was not heard."""

    places: ClassVar[Mapping[str, tuple[str, str]]] = {
        "uuid": ("list", "uuid"),
        "name": ("list", "name"),
        "id": ("list", "id"),
        "state": ("state", "state"),
        "reason": ("state", "reason"),
        "state_words": ("state", "state"),
        "persistent": ("info", "persistent"),
        "autostart": ("info", "autostart"),
        "managed_save": ("info", "managed_save"),
        "xml": ("xml", "/domain"),
        "inactive": ("inactive", "/domain"),
        "inactive_disks": ("inactive", "/domain/devices/disk"),
        "memory_kib": ("xml", "/domain/memory"),
        "current_memory_kib": ("xml", "/domain/currentMemory"),
        "vcpus": ("xml", "/domain/vcpu"),
        "current_vcpus": ("xml", "/domain/vcpu/@current"),
        "machine": ("xml", "/domain/os/type/@machine"),
        "graphics": ("xml", "/domain/devices/graphics"),
        "logs": ("xml", "/domain/devices/serial/log/@file"),
        "pins": ("xml", "/domain/cputune/vcpupin"),
        "vcpu_percent": ("xml", "/domain/cputune/quota"),
        "host_devices": ("xml", "/domain/devices/hostdev"),
        "labels": ("xml", "/domain/seclabel"),
        "definition": ("inactive", "/domain"),
        "firmware": ("inactive", "/domain/os"),
        "tpms": ("inactive", "/domain/devices/tpm"),
        "next_machine": ("inactive", "/domain/os/type/@machine"),
        "disks": ("xml", "/domain/devices/disk"),
        "interfaces": ("xml", "/domain/devices/interface"),
        "macs": ("xml", "/domain/devices/interface/mac/@address"),
        "taps": ("xml", "/domain/devices/interface/target/@dev"),
        "nova": ("xml", "/domain/metadata/nova:instance"),
        "nova_note": ("xml", "/domain/metadata/nova:instance"),
        "smbios": ("xml", "/domain/sysinfo/system"),
        "is_nova": ("xml", "/domain/metadata/nova:instance"),
        "job": ("job", "type"),
        "snapshots": ("snapshots", "name"),
    }

    documented: ClassVar[Documented] = (
        DocumentedField("uuid", "Lower case."),
        *("name", "id"),
        DocumentedField(
            "state",
            "`running`, `paused`, `shut off` …",
            lambda domain: domain.state_words.partition(" (")[0],
        ),
        *("state_words", "persistent", "autostart", "vcpus", "memory_kib", "machine"),
        *("macs", "taps"),
        DocumentedField("disks", "Disks, in the order of the XML.", inside=DOCUMENTED_DISK),
        DocumentedField(
            "interfaces",
            "Network interfaces, in the order of the XML.",
            inside=DOCUMENTED_INTERFACE,
        ),
    )

    @classmethod
    def read_all(cls, answers: Iterable[Answer]) -> dict[str, Domain]:
        """UUID → domain, of one host's libvirt answers in the order in which they were given.

        If the list was heard, exactly those in the last one; else all that were asked about.
        """
        said: dict[str, dict[str, Answer]] = {}
        listing: Answer | None = None
        for answer in answers:
            if answer.query == LIST:
                listing = answer
            elif answer.subject is not None:
                part = _part(answer.query)
                if part:
                    said.setdefault(answer.subject.lower(), {})[part] = answer
        try:
            listed = _listed(listing)
        except UnheardError:
            return {uuid: cls(uuid=uuid, said=parts) for uuid, parts in said.items()}
        assert listing is not None  # noqa: S101 (else it was not heard)
        return {
            uuid: cls(uuid=uuid, listed=line, said={"list": listing, **said.get(uuid, {})})
            for uuid, line in listed.items()
        }

    @cached_property
    def name(self) -> str:
        """As in the list; if that was not heard, as in the XML."""
        if self.listed is None:
            return self.xml.name
        name = self.listed.get("name")
        return name if isinstance(name, str) else unheard("virsh list: the name can't be read")

    @cached_property
    def id(self) -> int | None:
        """libvirt's number of a domain that runs or is paused; None when it is off."""
        if self.listed is None:
            return self.xml.id
        return integer(self.listed, "id")

    @cached_property
    def state(self) -> int:
        """libvirt's number, of `DomainState` unless libvirt is newer than that."""
        return self._number("state")

    @cached_property
    def reason(self) -> int:
        """libvirt's number of why it is in this state: of `PauseReason`, `ShutoffReason` …"""
        return self._number("reason")

    @cached_property
    def state_words(self) -> str:
        """As virsh says it: `running (booted)`, `paused (I/O error)`, `shut off (saved)`."""
        return state_words(self.state, self.reason)

    @cached_property
    def persistent(self) -> bool:
        """Whether libvirt knows it beyond its end."""
        return self._flag("persistent")

    @property
    def autostart(self) -> bool:
        """Whether libvirt starts it when the host boots. Nova never sets it."""
        return self._flag("autostart")

    @property
    def managed_save(self) -> bool:
        """Whether its memory lies in a file, from which it will start."""
        return self._flag("managed_save")

    @cached_property
    def xml(self) -> DomainXML:
        """What it is now: the running machine, or if there is none what would be started."""
        return self._document(self._live)

    @cached_property
    def inactive(self) -> DomainXML:
        """What would be started next."""
        return self._document(self._inactive)

    @property
    def memory_kib(self) -> int:
        """KiB at boot, without the modules that were plugged in."""
        return self.xml.memory_kib

    @property
    def current_memory_kib(self) -> int:
        """KiB that the balloon leaves to the guest."""
        return self.xml.current_memory_kib

    @property
    def vcpus(self) -> int:
        """The vCPUs it can have at most: those that were sold."""
        return self.xml.vcpus

    @property
    def current_vcpus(self) -> int:
        """The vCPUs that are plugged in."""
        return self.xml.current_vcpus

    @property
    def machine(self) -> str | None:
        """`pc-i440fx-7.2`."""
        return self.xml.machine

    @property
    def definition(self) -> DomainXML:
        """What would be started next: of one that libvirt won't know beyond its end, what it is."""
        return self.inactive if self.persistent else self.xml

    @property
    def next_machine(self) -> str | None:
        """The machine type that it would be started with next."""
        return self.inactive.machine

    @property
    def graphics(self) -> tuple[Graphics, ...]:
        """Its consoles."""
        return self.xml.graphics

    @property
    def logs(self) -> tuple[str, ...]:
        """The files that its serial consoles are written to."""
        return self.xml.logs

    @property
    def pins(self) -> Mapping[int, frozenset[int]]:
        """vCPU → the host's processors that it may run on."""
        return self.xml.pins

    @property
    def vcpu_percent(self) -> int | None:
        """Limit of each vCPU's CPU time, in percent of a host CPU; None if unlimited."""
        return self.xml.vcpu_percent

    @property
    def has_huge_pages(self) -> bool:
        """True if the guest's memory consists of huge pages."""
        return self.xml.has_huge_pages

    @property
    def firmware(self) -> Firmware:
        """What it will boot with."""
        return self.definition.firmware

    @property
    def tpms(self) -> tuple[Tpm, ...]:
        """The emulated TPMs that it will have."""
        return self.definition.tpms

    @property
    def host_devices(self) -> tuple[HostDevice, ...]:
        """The host's devices that it has to itself."""
        return self.xml.host_devices

    @property
    def labels(self) -> tuple[Label, ...]:
        """What the security drivers were told."""
        return self.xml.labels

    @property
    def disks(self) -> tuple[Disk, ...]:
        """Every disk, in the order of the XML."""
        return self.xml.disks

    @property
    def inactive_disks(self) -> tuple[Disk, ...]:
        """Every disk that it would have at its next start."""
        return self.inactive.disks

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        """Every network card, in the order of the XML."""
        return self.xml.interfaces

    @cached_property
    def macs(self) -> tuple[str, ...]:
        """The network cards' addresses, in the order of the XML, lower case."""
        return tuple(card.mac for card in self.xml.interfaces if card.mac is not None)

    @property
    def taps(self) -> tuple[str, ...]:
        """The host's ends of its network cards by name, in the order of the XML."""
        return tuple(card.target for card in self.xml.interfaces if card.target is not None)

    @property
    def nova(self) -> NovaMetadata | None:
        """What nova noted down in it; None if nothing."""
        return self.xml.nova

    @cached_property
    def nova_note(self) -> NovaMetadata | None:
        """As `nova`, also of a domain that is off."""
        return (self.xml if "xml" in self.said else self.inactive).nova

    @property
    def smbios(self) -> Mapping[str, str]:
        """What the guest is told that it is: manufacturer, product, version, serial, uuid."""
        return self.xml.smbios

    @cached_property
    def is_nova(self) -> bool:
        """Whether nova made it: by its note, its product name, or the domain's name."""
        try:
            if NAME.fullmatch(self.name):
                return True
        except UnheardError:
            pass  # the XML tells it too
        xml = self.xml if "xml" in self.said else self.inactive  # of one that is off
        return xml.nova is not None or xml.smbios.get("product") in PRODUCTS

    @property
    def current(self) -> DomainXML:
        """The machine that runs; of one that is off, what would be started next."""
        return self.inactive if self.id is None and "xml" not in self.said else self.xml

    @property
    def job(self) -> bool:
        """libvirt is at work on all of it: it migrates, saves or dumps its memory."""
        return bool(value_of(self.said.get("job"), "virsh domjobinfo", dict[str, Any]))

    @property
    def snapshots(self) -> tuple[str, ...]:
        """The snapshots that libvirt keeps a record of. Nova makes none with a record."""
        listed = value_of(self.said.get("snapshots"), "virsh snapshot-list", list[dict[str, Any]])
        return tuple(str(line.get("name")) for line in listed)

    @property
    def block_jobs(self) -> Mapping[str, str]:
        """For each disk that libvirt is at work on: `vda` → `copy, 25 %`."""
        found = {}
        for disk in self.xml.disks if self.id is not None else ():
            part = f"{BLOCK_JOB}{disk.target}"
            if job := value_of(self.said.get(part), f"virsh {part}", dict[str, Any]):
                found[disk.target or ""] = _job_words(job)
        return found

    @cached_property
    def _live(self) -> DomainXML | UnheardError:
        return _read(self.said.get("xml"), "virsh dumpxml")

    @cached_property
    def _inactive(self) -> DomainXML | UnheardError:
        return _read(self.said.get("inactive"), "virsh dumpxml --inactive")

    def _document(self, read: DomainXML | UnheardError) -> DomainXML:
        if isinstance(read, UnheardError):
            raise UnheardError(str(read))
        return read

    def _number(self, field: str) -> int:
        said = value_of(self.said.get("state"), "virsh domstate", dict[str, Any])
        number = whole(said.get(field))
        return (
            number if number is not None else unheard(f"virsh domstate: the {field} can't be read")
        )

    def _flag(self, field: str) -> bool:
        said = value_of(self.said.get("info"), "virsh dominfo", dict[str, Any])
        flag = said.get(field)
        return flag if isinstance(flag, bool) else unheard(f"virsh dominfo: {field} can't be read")


def _job_words(job: Mapping[str, object]) -> str:
    kind = BLOCK_JOBS.get(whole(job.get("type")) or 0, "job")
    done, end = whole(job.get("cur")), whole(job.get("end"))
    return f"{kind}, {100 * done // end} %" if done is not None and end else kind


def _part(query: str) -> str | None:
    words = query.split(" ", 3)
    if words[:2] == ["virsh", "blockjob"] and len(words) == 4:
        return f"{BLOCK_JOB}{words[3]}"
    part = PARTS.get(words[1]) if len(words) > 2 and words[0] == "virsh" else None
    return "inactive" if part == "xml" and words[2] == "--inactive" else part


def _listed(listing: Answer | None) -> dict[str, Mapping[str, object]]:
    """Return UUID → line of the list.

    A partially readable list is rejected, because absence from it would prove nothing.
    """
    lines = value_of(listing, LIST, list[dict[str, Any]])
    found: dict[str, Mapping[str, object]] = {}
    for line in lines:
        uuid = line.get("uuid")
        if not isinstance(uuid, str):
            raise UnheardError(f"{LIST}: a UUID can't be read")
        found[uuid.lower()] = line
    return found


def _read(answer: Answer | None, what: str) -> DomainXML | UnheardError:
    try:
        return read_domain_xml(value_of(answer, what, str))
    except UnheardError as reason:
        return reason
