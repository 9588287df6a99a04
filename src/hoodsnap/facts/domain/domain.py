"""Domains, as libvirt returns them."""

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
    "checkpoint-list": "checkpoints",
}
"""virsh command about one domain → the key of its answer in `Domain.said`."""

BLOCK_JOB = "blockjob "
"""Key in `Domain.said` of the answer about a disk's job, followed by the disk's target."""

BLOCK_JOBS = {1: "pull", 2: "copy", 3: "commit", 4: "active commit", 5: "backup"}
"""libvirt's type of a block job → virsh's word for it."""

NAME = re.compile(r"instance-[0-9a-f]{8}")
"""Domain names that nova assigns, unless `instance_name_template` was changed."""

PRODUCTS = ("OpenStack Nova", "OpenStack Compute")
"""nova's product names in a guest's SMBIOS: upstream, and Red Hat's packages."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Domain(Fact):
    """One domain. A field whose answer was not collected raises `UnheardError`."""

    layer: ClassVar[Layer] = LIBVIRT
    noun: ClassVar[str] = "domain"

    uuid: str
    """UUID of the domain, lower case."""

    listed: Mapping[str, object] | None = None
    """The domain's line in the list of all domains; None if the list was not collected."""

    places: ClassVar[Mapping[str, tuple[str, str]]] = {
        "uuid": ("list", "uuid"),
        "name": ("list", "name"),
        "id": ("list", "id"),
        "state": ("state", "state"),
        "reason": ("state", "reason"),
        "state_words": ("state", "state"),
        "persistent": ("info", "persistent"),
        "autostart": ("info", "autostart"),
        "autostart_once": ("info", "autostart_once"),
        "managed_save": ("info", "managed_save"),
        "size_told": ("info", "max_memory_kib"),
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
        "global_percent": ("xml", "/domain/cputune/global_quota"),
        "memory_hard_limit_kib": ("xml", "/domain/memtune/hard_limit"),
        "memory_soft_limit_kib": ("xml", "/domain/memtune/soft_limit"),
        "io_weight": ("xml", "/domain/blkiotune/weight"),
        "io_limits": ("xml", "/domain/blkiotune/device"),
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
        "checkpoints": ("checkpoints", "name"),
    }

    def where(self, name: str) -> tuple[Answer | None, str]:
        """Return the answer and the place in it; the stored definition for a domain that is off,
        which has no other."""
        answer, place = super().where(name)
        if answer is None and self.places.get(name, ("",))[0] == "xml":
            return self.said.get("inactive"), place
        return answer, place

    documented: ClassVar[Documented] = (
        DocumentedField("uuid", "UUID of the domain, lower case."),
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
            "Network cards, in the order of the XML.",
            inside=DOCUMENTED_INTERFACE,
        ),
    )

    @classmethod
    def read_all(cls, answers: Iterable[Answer]) -> dict[str, Domain]:
        """Return UUID → domain from one host's libvirt answers, given in their order.

        If a list was collected, exactly the domains in the last list; otherwise all domains that
        were queried.
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
        assert listing is not None  # noqa: S101 (otherwise `_listed` raises)
        return {
            uuid: cls(uuid=uuid, listed=line, said={"list": listing, **said.get(uuid, {})})
            for uuid, line in listed.items()
        }

    @cached_property
    def name(self) -> str:
        """Name in `virsh list`; if the list was not collected, the name in the domain's XML."""
        if self.listed is None:
            return (self.xml if "xml" in self.said else self.inactive).name
        name = self.listed.get("name")
        return name if isinstance(name, str) else unheard("virsh list: the name can't be read")

    @cached_property
    def id(self) -> int | None:
        """libvirt's number of an active (running or paused) domain; None if it is off."""
        if self.listed is None:
            return self.xml.id
        return integer(self.listed, "id")

    @cached_property
    def state(self) -> int:
        """A number of `DomainState`; a newer libvirt may report others."""
        return self._number("state")

    @cached_property
    def reason(self) -> int:
        """libvirt's number for the reason of the state: `PauseReason`, `ShutoffReason` …"""
        return self._number("reason")

    @cached_property
    def state_words(self) -> str:
        """State in virsh's words: `running (booted)`, `paused (I/O error)`, `shut off (saved)`."""
        return state_words(self.state, self.reason)

    @cached_property
    def persistent(self) -> bool:
        """True if libvirt keeps the domain's definition after it stops."""
        return self._flag("persistent")

    @property
    def autostart(self) -> bool:
        """True if libvirt starts the domain when the host boots. nova never sets this."""
        return self._flag("autostart")

    @property
    def autostart_once(self) -> bool:
        """True if libvirt starts the domain at the next boot of the host, and at no later one.

        Always False before libvirt 11.2, and in bundles of older releases, which do not have it.
        """
        said = value_of(self.said.get("info"), "virsh dominfo", dict[str, Any])
        return said.get("autostart_once") is True

    @property
    def size_told(self) -> tuple[int, int, int]:
        """KiB of memory, KiB that the balloon leaves to the guest, and plugged in vCPUs, as `virsh
        dominfo` reports them: of what runs, else of the definition."""
        said = value_of(self.said.get("info"), "virsh dominfo", dict[str, Any])
        numbers = [whole(said.get(key)) for key in ("max_memory_kib", "memory_kib", "vcpus")]
        if None in numbers:
            unheard("virsh dominfo: the sizes can't be read")
        total, current, vcpus = (number or 0 for number in numbers)
        return total, current, vcpus

    @property
    def managed_save(self) -> bool:
        """True if its memory is saved in a file, from which it will resume."""
        return self._flag("managed_save")

    @cached_property
    def xml(self) -> DomainXML:
        """The live XML: the running machine; if it is off, the definition for the next start."""
        return self._document(self._live)

    @cached_property
    def inactive(self) -> DomainXML:
        """The inactive XML: the definition for the next start."""
        return self._document(self._inactive)

    @property
    def memory_kib(self) -> int:
        """Memory at boot in KiB, without hot-plugged memory modules."""
        return self.xml.memory_kib

    @property
    def current_memory_kib(self) -> int:
        """Memory in KiB that the balloon leaves to the guest: `<currentMemory>`."""
        return self.xml.current_memory_kib

    @property
    def vcpus(self) -> int:
        """Maximum number of vCPUs, which nova takes from the flavor."""
        return self.xml.vcpus

    @property
    def current_vcpus(self) -> int:
        """Number of vCPUs that are plugged in."""
        return self.xml.current_vcpus

    @property
    def machine(self) -> str | None:
        """Machine type: `pc-i440fx-7.2`."""
        return self.xml.machine

    @property
    def definition(self) -> DomainXML:
        """The XML for the next start; for a transient domain, the live XML."""
        return self.inactive if self.persistent else self.xml

    @property
    def next_machine(self) -> str | None:
        """Machine type at the next start."""
        return self.inactive.machine

    @property
    def graphics(self) -> tuple[Graphics, ...]:
        """The domain's consoles."""
        return self.xml.graphics

    @property
    def logs(self) -> tuple[str, ...]:
        """Files that the serial consoles are written to."""
        return self.xml.logs

    @property
    def pins(self) -> Mapping[int, frozenset[int]]:
        """vCPU → host CPUs that it may run on."""
        return self.xml.pins

    @property
    def vcpu_percent(self) -> int | None:
        """Limit of each vCPU's CPU time, in percent of a host CPU; None if unlimited."""
        return self.xml.vcpu_percent

    @property
    def global_percent(self) -> int | None:
        """Limit of the whole guest's CPU time, in percent of a host CPU; None if unlimited."""
        return self.xml.global_percent

    @property
    def memory_hard_limit_kib(self) -> int | None:
        """Limit of the memory of QEMU and its guest, in KiB; None if unlimited."""
        return self.xml.memory_hard_limit_kib

    @property
    def memory_soft_limit_kib(self) -> int | None:
        """Memory above which the kernel takes memory away from QEMU, in KiB; None if unlimited."""
        return self.xml.memory_soft_limit_kib

    @property
    def io_weight(self) -> int | None:
        """Share of the host's disks that it gets when they are busy; None for the kernel's own."""
        return self.xml.io_weight

    @property
    def io_limits(self) -> frozenset[tuple[str, int]]:
        """Limits of its access to host disks, without the disks: `read_bytes_sec`, 1048576."""
        return self.xml.io_limits

    @property
    def has_huge_pages(self) -> bool:
        """True if the guest's memory is in huge pages."""
        return self.xml.has_huge_pages

    @property
    def firmware(self) -> Firmware:
        """Firmware at the next start."""
        return self.definition.firmware

    @property
    def tpms(self) -> tuple[Tpm, ...]:
        """Emulated TPMs at the next start."""
        return self.definition.tpms

    @property
    def host_devices(self) -> tuple[HostDevice, ...]:
        """Host devices that are passed through to the guest."""
        return self.xml.host_devices

    @property
    def labels(self) -> tuple[Label, ...]:
        """Security labels, one per driver."""
        return self.xml.labels

    @property
    def disks(self) -> tuple[Disk, ...]:
        """All disks, in the order of the XML."""
        return self.xml.disks

    @property
    def inactive_disks(self) -> tuple[Disk, ...]:
        """All disks at the next start, in the order of the XML."""
        return self.inactive.disks

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        """All network cards, in the order of the XML."""
        return self.xml.interfaces

    @cached_property
    def macs(self) -> tuple[str, ...]:
        """MAC addresses of the network cards, in the order of the XML, lower case."""
        return tuple(card.mac for card in self.xml.interfaces if card.mac is not None)

    @property
    def taps(self) -> tuple[str, ...]:
        """Names of the network cards' devices on the host, in the order of the XML."""
        return tuple(card.target for card in self.xml.interfaces if card.target is not None)

    @property
    def nova(self) -> NovaMetadata | None:
        """nova's metadata in the live XML; None without it."""
        return self.xml.nova

    @cached_property
    def nova_note(self) -> NovaMetadata | None:
        """nova's metadata, also of a domain that is off; None without it."""
        return (self.xml if "xml" in self.said else self.inactive).nova

    @property
    def smbios(self) -> Mapping[str, str]:
        """SMBIOS entries that the guest sees: manufacturer, product, version, serial, uuid."""
        return self.xml.smbios

    @cached_property
    def is_nova(self) -> bool:
        """True if nova made the domain, by its name, its metadata or its product name."""
        try:
            if NAME.fullmatch(self.name):
                return True
        except UnheardError:
            pass  # the XML may still show it
        xml = self.xml if "xml" in self.said else self.inactive  # the domain is off
        return xml.nova is not None or xml.smbios.get("product") in PRODUCTS

    @property
    def current(self) -> DomainXML:
        """The live XML; for a domain that is off, the inactive XML if only that was collected.

        Without the list of domains, the XML that was collected.
        """
        if "xml" not in self.said and (self.listed is None or self.id is None):
            return self.inactive
        return self.xml

    @property
    def job(self) -> bool:
        """True if libvirt is migrating, saving or dumping the whole domain."""
        return bool(value_of(self.said.get("job"), "virsh domjobinfo", dict[str, Any]))

    @property
    def snapshots(self) -> tuple[str, ...]:
        """Snapshots that libvirt has records of. nova makes snapshots without a record."""
        listed = value_of(self.said.get("snapshots"), "virsh snapshot-list", list[dict[str, Any]])
        return tuple(str(line.get("name")) for line in listed)

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Checkpoints of incremental backups. nova makes none."""
        listed = value_of(self.said.get("checkpoints"), "virsh checkpoint-list", list[str])
        return tuple(listed)

    @property
    def block_jobs(self) -> Mapping[str, str]:
        """Target of each disk with a running job → the job in words: `vda` → `copy, 25 %`."""
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
