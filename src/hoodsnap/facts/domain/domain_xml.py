"""The XML of a libvirt domain.

A host has hundreds of these documents, and most of each document is never read. So a document is
parsed when its first field is read, and only the elements at `PLACES` are kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple
from xml.etree.ElementTree import Element

from hoodsnap.facts.domain import hardware
from hoodsnap.facts.domain.disk import Disk, OpenedImage, read_disk, read_opened
from hoodsnap.facts.domain.guest_device import GuestDevice, read_guest_device
from hoodsnap.facts.domain.nova_metadata import NovaMetadata, read_metadata
from hoodsnap.facts.domain.settings import read_settings
from hoodsnap.facts.domain.xml import parsed
from hoodsnap.facts.fact import DocumentedField, UnheardError, unheard, unlocked
from hoodsnap.facts.quantity import size, whole

LARGEST_XML = 4 << 20
"""Limit in characters: libvirt sends no longer text to its clients."""

MODULES = frozenset(["dimm", "nvdimm", "virtio-mem", "virtio-pmem", "sgx-epc"])
"""Models of memory devices, whose size libvirt includes in `<memory>`."""


UNLIMITED_KIB = 1 << 52
"""KiB. libvirt takes a memory limit this high for none."""

_PORT = re.compile(r"""\b(?:port|tlsPort|websocket|service)=["'](\d{1,5})["']""", re.ASCII)
"""Attributes with a TCP port: of consoles, of serial lines, and of disks in the network."""
IO_LIMITS = ("read_bytes_sec", "write_bytes_sec", "read_iops_sec", "write_iops_sec")
"""Limits of a guest's access to one disk of the host, in `<blkiotune>`."""

_PINS = ("vcpupin", "emulatorpin", "iothreadpin")


class Interface(NamedTuple):
    """One `<interface>`."""

    mac: str | None
    """MAC address, lower case."""
    target: str | None
    """Name of the device on the host: `tap3f6c1d2a-bb`."""
    type: str
    """`bridge`, `ethernet`, `network`, `vhostuser`, `hostdev` …"""
    source: str | None
    """Bridge, network, device or socket that the card is plugged into."""
    mtu: int | None = None
    """MTU in bytes that the guest is given; None without one."""
    model: str | None = None
    """Model of the card in the guest: `virtio`, `e1000` …; None if libvirt does not report it."""
    port_id: str | None = None
    """The port's id where libvirt plugs the card into Open vSwitch (`interfaceid`)."""
    linked: bool = True
    """False if the guest sees its cable unplugged."""
    limits: tuple[tuple[str, str], ...] = ()
    """Limits of its bandwidth: `("inbound average", "1000")`, in KiB/s."""


DOCUMENTED_INTERFACE = (
    DocumentedField("mac", "MAC address, lower case."),
    DocumentedField("target", "Name of the device on the host: `tap3f6c1d2a-bb`."),
    DocumentedField("type", "`bridge`, `ethernet` …"),
    DocumentedField("source", "Bridge or network that the card is plugged into."),
    DocumentedField("mtu", "MTU in bytes; null if the guest is not given one."),
    DocumentedField("model", "`virtio`, `e1000` …"),
)
"""Fields of a network card that the expressions of a lab sheet can read."""


@unlocked
class DomainXML:
    """One document. Elements that are missing or can't be read raise `UnheardError`."""

    def __init__(self, text: str) -> None:
        self._text = text

    @property
    def ports(self) -> frozenset[int]:
        """All TCP ports in the document, whatever they are for."""
        return frozenset(map(int, _PORT.findall(self._text)))

    @cached_property
    def name(self) -> str:
        """The domain's name."""
        return self._text_of("name")

    @cached_property
    def uuid(self) -> str:
        """UUID of the domain, lower case."""
        return self._text_of("uuid").lower()

    @property
    def id(self) -> int | None:
        """libvirt's number of an active domain; None if it is off."""
        return whole(self._kept.domain.get("id"))

    @property
    def type(self) -> str | None:
        """How the vCPUs run: `kvm`, or `qemu` for emulation."""
        return self._kept.domain.get("type")

    @property
    def settings(self) -> Mapping[str, str]:
        """What a start does not change, apart from the other fields; see `read_settings`."""
        return self._kept.settings

    @property
    def status(self) -> Mapping[str, str]:
        """`state`, `reason` and `pid` from `<domstatus>`; empty in other documents.

        `<domstatus>` is the file that libvirt keeps for an active domain.
        """
        return {} if isinstance(self._parts, UnheardError) else self._parts.status

    @cached_property
    def memory_kib(self) -> int:
        """KiB at boot, without the memory modules that `<memory>` includes.

        With NUMA cells, their sum.
        """
        cells = [cell for numa in self._find("cpu/numa") for cell in numa.iter("cell")]
        if cells:
            return sum(_kib(cell.get("memory"), cell.get("unit"), "NUMA cell") for cell in cells)
        sizes = (
            target
            for module in self._find("devices/memory")
            if module.get("model") in MODULES
            for target in module.iterfind("target/size")
        )
        modules = sum(_kib(target.text, target.get("unit"), "memory module") for target in sizes)
        return self.total_memory_kib - modules

    @cached_property
    def total_memory_kib(self) -> int:
        """KiB in all, with memory modules: `<memory>`."""
        total = self._one("memory")
        return _kib(total.text, total.get("unit"), "memory")

    @cached_property
    def current_memory_kib(self) -> int:
        """KiB that the balloon leaves to the guest, including memory modules."""
        current = self._first("currentMemory")
        if current is None:
            current = self._one("memory")
        return _kib(current.text, current.get("unit"), "currentMemory")

    @cached_property
    def vcpus(self) -> int:
        """Maximum number of vCPUs, which nova takes from the flavor."""
        vcpu = self._first("vcpu")
        count = 1 if vcpu is None else whole(vcpu.text)  # libvirt's default is 1
        return count if count is not None else unheard("the domain XML's <vcpu> can't be read")

    @cached_property
    def current_vcpus(self) -> int:
        """vCPUs that are plugged in."""
        vcpu = self._first("vcpu")
        current = None if vcpu is None else vcpu.get("current")
        if current is None:
            return self.vcpus
        count = whole(current)
        return (
            count if count is not None else unheard("the domain XML's <vcpu current> can't be read")
        )

    @cached_property
    def machine(self) -> str | None:
        """Machine type: `pc-i440fx-7.2`; None if libvirt chooses."""
        kind = self._one("os").find("type")
        return None if kind is None else kind.get("machine")

    @cached_property
    def architecture(self) -> str | None:
        """Architecture: `x86_64`; None if libvirt chooses."""
        kind = self._one("os").find("type")
        return None if kind is None else kind.get("arch")

    @cached_property
    def emulator(self) -> str | None:
        """Path of the emulator; None if libvirt chooses."""
        return next((element.text for element in self._find("devices/emulator")), None)

    @cached_property
    def processor(self) -> hardware.Processor | None:
        """CPU mode and model; None if QEMU chooses."""
        return hardware.read_processor(self._first("cpu"))

    @cached_property
    def cpu_features(self) -> Mapping[str, bool]:
        """Feature of the CPU, as QEMU writes its name → True if the guest has it.

        Only what the running domain's CPU has beside its model.
        """
        return {
            name.replace("_", "-"): policy in ("require", "force")
            for policy, name in _FEATURE.findall(self._text)
            if policy in ("require", "force", "disable", "forbid")
        }

    @cached_property
    def pins(self) -> Mapping[int, frozenset[int]]:
        """vCPU → host CPUs that it may run on; vCPUs that are not pinned are left out."""
        return hardware.read_pins(self._find("cputune"))

    @cached_property
    def is_placed(self) -> bool:
        """True if it limits the host CPUs of a thread, or lets libvirt choose them."""
        tunes = (*self._find("cputune"), *self._find("iothreads"))
        pins = (tune.find(kind) for tune in tunes for kind in _PINS)
        chosen = ((one.get("cpuset"), one.get("placement") == "auto") for one in self._find("vcpu"))
        return (
            any(pin is not None for pin in pins)
            or any(cpus or auto for cpus, auto in chosen)
            or any(True for _ in self._find("numatune"))
        )

    @cached_property
    def vcpu_percent(self) -> int | None:
        """Limit of each vCPU's CPU time, in percent of a host CPU; None if unlimited."""
        return hardware.read_cpu_percent(self._find("cputune"))

    @cached_property
    def global_percent(self) -> int | None:
        """Limit of the whole guest's CPU time, in percent of a host CPU; None if unlimited."""
        return hardware.read_cpu_percent(self._find("cputune"), "global_")

    @cached_property
    def memory_hard_limit_kib(self) -> int | None:
        """Limit of the memory of QEMU and its guest, in KiB; None if unlimited."""
        limits = (one.find("hard_limit") for one in self._find("memtune"))
        for limit in (one for one in limits if one is not None):
            kib = _kib(limit.text, limit.get("unit"), "hard_limit")
            return kib if kib < UNLIMITED_KIB else None
        return None

    @cached_property
    def memory_soft_limit_kib(self) -> int | None:
        """Memory above which the kernel takes memory away from QEMU, in KiB; None if unlimited."""
        limits = (one.find("soft_limit") for one in self._find("memtune"))
        for limit in (one for one in limits if one is not None):
            kib = _kib(limit.text, limit.get("unit"), "soft_limit")
            return kib if kib < UNLIMITED_KIB else None
        return None

    @cached_property
    def io_weight(self) -> int | None:
        """Share of the host's disks that it gets when they are busy; None for the kernel's own."""
        weights = (one.find("weight") for one in self._find("blkiotune"))
        for weight in (one for one in weights if one is not None):
            found = whole(weight.text)
            if found is None:
                raise UnheardError("the domain XML's blkiotune weight can't be read")
            return found
        return None

    @cached_property
    def io_limits(self) -> frozenset[tuple[str, int]]:
        """Limits of its access to host disks, without the disks: `read_bytes_sec`, 1048576."""
        devices = (one for tune in self._find("blkiotune") for one in tune.findall("device"))
        found = set()
        for limit in (part for device in devices for part in device if part.tag in IO_LIMITS):
            value = whole(limit.text)
            if value is None:
                raise UnheardError("the domain XML's blkiotune limit can't be read")
            if value:
                found.add((limit.tag, value))
        return frozenset(found)

    @cached_property
    def has_huge_pages(self) -> bool:
        """True if the guest's memory is in huge pages."""
        backing = self._find("memoryBacking")
        return any(element.find("hugepages") is not None for element in backing)

    @cached_property
    def firmware(self) -> hardware.Firmware:
        """Firmware of the machine."""
        return hardware.read_firmware(self._first("os"))

    @cached_property
    def tpms(self) -> tuple[hardware.Tpm, ...]:
        """Emulated TPMs."""
        return hardware.read_tpms(self._find("devices/tpm"))

    @cached_property
    def host_devices(self) -> tuple[hardware.HostDevice, ...]:
        """Host devices that are passed through to the guest, including network cards."""
        cards = [card for card in self._find("devices/interface") if card.get("type") == "hostdev"]
        return hardware.read_host_devices([*self._find("devices/hostdev"), *cards])

    @cached_property
    def unsold_devices(self) -> tuple[str, ...]:
        """USB and SCSI devices of the host that are passed through: `usb 0529:0001`."""
        return hardware.read_unsold_devices(self._find("devices/hostdev"))

    @cached_property
    def graphics(self) -> tuple[hardware.Graphics, ...]:
        """The domain's consoles."""
        return hardware.read_graphics(self._find("devices/graphics"))

    @cached_property
    def logs(self) -> tuple[str, ...]:
        """Files that the serial consoles are written to."""
        return hardware.read_logs([*self._find("devices/serial"), *self._find("devices/console")])

    @cached_property
    def labels(self) -> tuple[hardware.Label, ...]:
        """Security labels, one per driver."""
        return hardware.read_labels(self._find("seclabel"))

    @cached_property
    def disks(self) -> tuple[Disk, ...]:
        """All `<disk>` elements, in order."""
        return tuple(read_disk(element) for element in self._find("devices/disk"))

    @cached_property
    def opened(self) -> tuple[OpenedImage, ...]:
        """Images that have a number in the names of QEMU's nodes, with those below the disks."""
        pairs = zip(self.disks, self._find("devices/disk"), strict=True)
        return tuple(image for disk, element in pairs for image in read_opened(disk, element))

    @property
    def devices(self) -> Mapping[str, GuestDevice]:
        """Alias → device of a running domain. The alias is the id of QEMU's device."""
        return self._kept.devices

    @cached_property
    def boot(self) -> tuple[str, ...]:
        """Kinds of devices that the guest boots from, in order: `hd`, `network`, `cdrom`, `fd`."""
        return tuple(
            boot.get("dev", "") for element in self._find("os") for boot in element.iterfind("boot")
        )

    @cached_property
    def interfaces(self) -> tuple[Interface, ...]:
        """All `<interface>` elements, in order."""
        return tuple(_interface(element) for element in self._find("devices/interface"))

    @property
    def nova(self) -> NovaMetadata | None:
        """nova's metadata; None if nova did not make the domain, or made it before 2014."""
        return self._kept.nova

    @property
    def smbios(self) -> Mapping[str, str]:
        """SMBIOS entries that the guest sees: manufacturer, product, version, serial, uuid."""
        return self._kept.smbios

    def check(self) -> None:
        """Raise `UnheardError` if the text is not a domain document."""
        _ = self._kept

    def _text_of(self, path: str) -> str:
        return self._one(path).text or ""

    def _one(self, path: str) -> Element:
        found = self._first(path)
        return found if found is not None else unheard(f"the domain XML has no <{path}>")

    def _first(self, path: str) -> Element | None:
        found = self._find(path)
        return found[0] if found else None

    def _find(self, path: str) -> Sequence[Element]:
        """Return the elements at one of the `PLACES`."""
        return self._kept.places.get(path, ())

    @cached_property
    def _kept(self) -> _Parts:
        if isinstance(self._parts, UnheardError):
            raise UnheardError(str(self._parts))
        return self._parts

    @cached_property
    def _parts(self) -> _Parts | UnheardError:
        """The kept parts, or the error, so that a broken document is not parsed again."""
        try:
            root = parsed(_UNREAD.sub("", self._text))
        except UnheardError as reason:
            return reason
        domain = root if root.tag == "domain" else root.find("domain")
        if domain is None or root.tag not in ("domain", "domstatus"):
            return UnheardError("the document is not libvirt domain XML")
        # Most elements are never read, and there may be thousands of documents.
        places: dict[str, list[Element]] = {}
        devices: dict[str, GuestDevice] = {}
        for child in domain:
            if child.tag in PLACES:
                places.setdefault(child.tag, []).append(child)
            if child.tag in ("cpu", "devices"):
                for item in child:
                    path = f"{child.tag}/{item.tag}"
                    if path in PLACES:
                        places.setdefault(path, []).append(item)
                    alias = item.find("alias")
                    if alias is not None:
                        # A serial port and its console share an alias; the port comes first.
                        devices.setdefault(alias.get("name", ""), read_guest_device(item))
        status = root.attrib if root.tag == "domstatus" else {}
        # What takes many elements and is always read is not kept as elements.
        nova, smbios = read_metadata(places.pop("metadata", ())), _smbios(places.pop("sysinfo", ()))
        return _Parts(domain.attrib, status, places, read_settings(domain), devices, nova, smbios)


def read_domain_xml(text: str) -> DomainXML:
    """Read the output of `virsh dumpxml`, or the file that libvirt keeps for an active domain.

    Raises `UnheardError` if the text is not a domain document, is longer than anything libvirt
    sends, or has a document type: libvirt never writes one, and its entities could expand a byte
    to a gigabyte.
    """
    if len(text) > LARGEST_XML:
        raise UnheardError(f"the domain XML has {len(text)} characters, more than libvirt sends")
    xml = DomainXML(text)
    xml.check()
    return xml


class _Parts(NamedTuple):
    """The parts of a document that are kept."""

    domain: Mapping[str, str]
    """Attributes of `<domain>`."""
    status: Mapping[str, str]
    """Attributes of `<domstatus>`; empty without one."""
    places: Mapping[str, Sequence[Element]]
    """Place in `PLACES` → its elements, in order."""
    settings: Mapping[str, str]
    devices: Mapping[str, GuestDevice]
    """Alias → device."""
    nova: NovaMetadata | None
    smbios: Mapping[str, str]


_UNREAD = re.compile(r"<feature policy='\w*' name='[\w.-]*'/>", re.ASCII)
"""Elements that are never read and make up much of many documents. Line breaks are kept."""

_FEATURE = re.compile(r"<feature policy='(\w*)' name='([\w.-]*)'/>", re.ASCII)
"""The same elements, for the one check that compares them."""

PLACES = frozenset(
    [
        *("name", "uuid", "metadata", "memory", "currentMemory", "vcpu", "sysinfo", "os"),
        *("cpu", "cpu/numa", "cputune", "blkiotune", "memtune", "memoryBacking", "seclabel"),
        *("devices/emulator",),
        *("devices/memory", "devices/disk", "devices/interface", "devices/hostdev"),
        *("devices/graphics", "devices/serial", "devices/console", "devices/tpm"),
    ]
)
"""Paths of the elements that are read."""


def _kib(text: str | None, unit: str | None, what: str) -> int:
    amount = size(text or "", unit=unit or "KiB") if unit is None or unit.isalpha() else None
    if amount is None:
        raise UnheardError(f"the domain XML's {what} can't be read")
    return -(-amount // 1024)


def _smbios(elements: Iterable[Element]) -> Mapping[str, str]:
    return {
        entry.get("name", ""): entry.text or ""
        for element in elements
        for entry in element.iterfind("system/entry")
    }


def _interface(element: Element) -> Interface:
    mac, target, source = element.find("mac"), element.find("target"), element.find("source")
    address = None if mac is None else mac.get("address")
    places: Iterator[str | None] = iter(())
    if source is not None:
        places = (source.get(key) for key in ("bridge", "network", "dev", "path", "name"))
    return Interface(
        mac=None if address is None else address.lower(),
        target=None if target is None else target.get("dev"),
        type=element.get("type", ""),
        source=next((place for place in places if place), None),
        mtu=_mtu(element.find("mtu")),
        model=_attribute(element, "model", "type"),
        port_id=_attribute(element, "virtualport/parameters", "interfaceid"),
        linked=_attribute(element, "link", "state") != "down",
        limits=tuple(
            (f"{way.tag} {key}", value)
            for way in element.iterfind("bandwidth/*")
            for key, value in sorted(way.attrib.items())
        ),
    )


def _attribute(element: Element, path: str, name: str) -> str | None:
    found = element.find(path)
    return None if found is None else found.get(name)


def _mtu(element: Element | None) -> int | None:
    return None if element is None else whole(element.get("size"))
