"""The XML of a libvirt domain.

A host has hundreds of these documents, and most of each is never asked for: a document is parsed
when the first question comes, and only what is read of it is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from hoodsnap.facts import hardware
from hoodsnap.facts.fact import Unheard, unheard
from hoodsnap.facts.quantity import size, whole

LARGEST_XML = 4 << 20
"""Characters. libvirt sends no longer text to its clients."""

NOVA = "http://openstack.org/xmlns/libvirt/nova/"

MODULES = frozenset(["dimm", "nvdimm", "virtio-mem", "virtio-pmem", "sgx-epc"])
"""The memory devices, whose size libvirt counts in `<memory>`."""


class Image(NamedTuple):
    """One image of a disk: the disk's own, or one that it is backed by."""

    type: str
    """`file`, `block`, `network`, `dir`, `volume` …"""

    source: str | None
    """A path, `pool/image` or `pool/image@snapshot` of rbd, or another protocol's name of it; None:
    no medium."""

    format: str | None
    """`qcow2`, `raw` …; None if libvirt does not say."""


class Disk(NamedTuple):
    """One `<disk>`."""

    target: str | None
    """`vda`."""
    bus: str | None
    device: str
    """`disk`, `cdrom`, `floppy` or `lun`."""
    image: Image
    protocol: str | None
    """Of a network disk: `rbd`, `iscsi` …"""
    serial: str | None
    """A volume's UUID."""
    read_only: bool
    shareable: bool
    transient: bool
    """Writes go to an overlay that is thrown away."""
    tray_open: bool
    backing: tuple[Image, ...] | None
    """What the image is backed by, nearest first; None if libvirt does not say."""
    keys: tuple[str, ...] = ()
    """The UUIDs of the secrets that it is decrypted with."""

    @property
    def source(self) -> str | None:
        """Where the image is; None: no medium."""
        return self.image.source

    @property
    def format(self) -> str | None:
        """How it is read: `qcow2`, `raw` …"""
        return self.image.format


class Interface(NamedTuple):
    """One `<interface>`."""

    mac: str | None
    """Lower case."""
    target: str | None
    """`tap3f6c1d2a-bb`."""
    type: str
    """`bridge`, `ethernet`, `network`, `vhostuser`, `hostdev` …"""
    source: str | None
    """The bridge, network, device or socket it is plugged into."""
    mtu: int | None = None
    """Bytes, as the guest is told; None if it is not."""


class NovaMetadata(NamedTuple):
    """What nova writes into a domain, for people. It is as old as the XML is."""

    package: str | None
    """The version of nova-compute."""
    name: str | None
    created: str | None
    """When the XML was made: `2026-11-23 06:52:09`, UTC."""
    flavor: str | None
    memory_mib: int | None
    vcpus: int | None
    disk_gb: int | None
    ephemeral_gb: int | None
    swap_mib: int | None
    user: str | None
    project: str | None
    root_image: str | None
    """UUID of the image; None when it boots from a volume."""
    ports: tuple[str, ...]
    """UUIDs."""


class DomainXML:
    """One document. What is not in it, or can't be read, raises `Unheard`."""

    def __init__(self, text: str) -> None:
        self._text = text

    @cached_property
    def name(self) -> str:
        """The domain's name."""
        return self._text_of("name")

    @cached_property
    def uuid(self) -> str:
        """Lower case."""
        return self._text_of("uuid").lower()

    @property
    def id(self) -> int | None:
        """The number of a running domain; None when it is off."""
        return whole(self._kept.domain.get("id"))

    @property
    def status(self) -> Mapping[str, str]:
        """`state`, `reason` and `pid`, if this is the note (`<domstatus>`) that libvirt keeps of a
        running domain."""
        return {} if isinstance(self._parts, Unheard) else self._parts.status

    @cached_property
    def memory_kib(self) -> int:
        """KiB at boot: without the modules that `<memory>` counts too. NUMA cells, where there are
        some, are what counts."""
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
        total = self._one("memory")
        return _kib(total.text, total.get("unit"), "memory") - modules

    @cached_property
    def current_memory_kib(self) -> int:
        """KiB that the balloon leaves to the guest, modules included."""
        current = self._first("currentMemory")
        if current is None:
            current = self._one("memory")
        return _kib(current.text, current.get("unit"), "currentMemory")

    @cached_property
    def vcpus(self) -> int:
        """The vCPUs it can have at most: those that were sold."""
        vcpu = self._first("vcpu")
        count = 1 if vcpu is None else whole(vcpu.text)  # one, says libvirt, unless told otherwise
        return count if count is not None else unheard("the XML's <vcpu> can't be read")

    @cached_property
    def current_vcpus(self) -> int:
        """The vCPUs that are plugged in."""
        vcpu = self._first("vcpu")
        current = None if vcpu is None else vcpu.get("current")
        if current is None:
            return self.vcpus
        count = whole(current)
        return count if count is not None else unheard("the XML's <vcpu current> can't be read")

    @cached_property
    def machine(self) -> str | None:
        """`pc-i440fx-7.2`; None if libvirt chooses."""
        kind = self._one("os").find("type")
        return None if kind is None else kind.get("machine")

    @cached_property
    def architecture(self) -> str | None:
        """`x86_64`; None if libvirt chooses."""
        kind = self._one("os").find("type")
        return None if kind is None else kind.get("arch")

    @cached_property
    def emulator(self) -> str | None:
        """The program that runs it; None if libvirt chooses."""
        return next((element.text for element in self._find("devices/emulator")), None)

    @cached_property
    def processor(self) -> hardware.Processor | None:
        """What the guest takes its processors for; None if that is left to QEMU."""
        return hardware.read_processor(self._first("cpu"))

    @cached_property
    def pins(self) -> Mapping[int, frozenset[int]]:
        """vCPU → the host's processors it may run on; those that are not pinned are not in it."""
        return hardware.read_pins(self._find("cputune"))

    @cached_property
    def firmware(self) -> hardware.Firmware:
        """What it boots with."""
        return hardware.read_firmware(self._first("os"))

    @cached_property
    def tpms(self) -> tuple[hardware.Tpm, ...]:
        """Its emulated TPMs."""
        return hardware.read_tpms(self._find("devices/tpm"))

    @cached_property
    def host_devices(self) -> tuple[hardware.HostDevice, ...]:
        """The host's devices that it has to itself, network cards among them."""
        cards = [card for card in self._find("devices/interface") if card.get("type") == "hostdev"]
        return hardware.read_host_devices([*self._find("devices/hostdev"), *cards])

    @cached_property
    def graphics(self) -> tuple[hardware.Graphics, ...]:
        """Its consoles."""
        return hardware.read_graphics(self._find("devices/graphics"))

    @cached_property
    def logs(self) -> tuple[str, ...]:
        """The files that its serial consoles are written to."""
        return hardware.read_logs([*self._find("devices/serial"), *self._find("devices/console")])

    @cached_property
    def labels(self) -> tuple[hardware.Label, ...]:
        """What the security drivers were told."""
        return hardware.read_labels(self._find("seclabel"))

    @cached_property
    def disks(self) -> tuple[Disk, ...]:
        """Every `<disk>`, in order."""
        return tuple(_disk(element) for element in self._find("devices/disk"))

    @cached_property
    def interfaces(self) -> tuple[Interface, ...]:
        """Every `<interface>`, in order."""
        return tuple(_interface(element) for element in self._find("devices/interface"))

    @cached_property
    def nova(self) -> NovaMetadata | None:
        """What nova noted down; None if nova did not make this domain, or before 2014."""
        for metadata in self._find("metadata"):
            for child in metadata:
                # A prefix is anybody's choice, and a paste may have lost its declaration.
                if child.tag == "nova:instance" or any(
                    value.startswith(NOVA) for value in child.attrib.values()
                ):
                    return _nova(child)
        return None

    @cached_property
    def smbios(self) -> Mapping[str, str]:
        """What the guest is told that it is: manufacturer, product, version, serial, uuid."""
        found: dict[str, str] = {}
        for sysinfo in self._find("sysinfo"):
            for entry in sysinfo.iterfind("system/entry"):
                found[entry.get("name", "")] = entry.text or ""
        return found

    def check(self) -> None:
        """Raise `Unheard` if this is no document at all."""
        _ = self._kept

    def _text_of(self, path: str) -> str:
        return self._one(path).text or ""

    def _one(self, path: str) -> Element:
        found = self._first(path)
        return found if found is not None else unheard(f"the XML has no <{path}>")

    def _first(self, path: str) -> Element | None:
        return next(iter(self._find(path)), None)

    def _find(self, path: str) -> Sequence[Element]:
        """The elements at one of the `PLACES`."""
        return self._kept.places.get(path, ())

    @property
    def _kept(self) -> _Parts:
        if isinstance(self._parts, Unheard):
            raise Unheard(str(self._parts))
        return self._parts

    @cached_property
    def _parts(self) -> _Parts | Unheard:
        """What is kept of it, or why there is none: no document is parsed twice in vain."""
        try:
            root = parsed(_UNREAD.sub("", self._text))
        except Unheard as reason:
            return reason
        domain = root if root.tag == "domain" else root.find("domain")
        if domain is None or root.tag not in ("domain", "domstatus"):
            return Unheard("this is no XML of a domain")
        # All that is never asked for is most of it, and there may be thousands.
        places: dict[str, list[Element]] = {}
        for child in domain:
            if child.tag in PLACES:
                places.setdefault(child.tag, []).append(child)
            if child.tag in ("cpu", "devices"):
                for item in child:
                    path = f"{child.tag}/{item.tag}"
                    if path in PLACES:
                        places.setdefault(path, []).append(item)
        status = root.attrib if root.tag == "domstatus" else {}
        return _Parts(domain.attrib, status, places)


def read_domain_xml(text: str) -> DomainXML:
    """What `virsh dumpxml` printed, or the file that libvirt keeps of a running domain.

    Raises `Unheard` if it is no domain's XML, has a document type (libvirt's never has one, and it
    could make one byte a gigabyte), or is longer than anything libvirt sends.
    """
    if len(text) > LARGEST_XML:
        raise Unheard(f"the XML has {len(text)} characters, more than libvirt sends")
    xml = DomainXML(text)
    xml.check()
    return xml


class _Parts(NamedTuple):
    """What is kept of a document."""

    domain: Mapping[str, str]
    """The attributes of `<domain>`."""
    status: Mapping[str, str]
    """Those of `<domstatus>`."""
    places: Mapping[str, Sequence[Element]]
    """Of each of the `PLACES` the elements, in order."""


_UNREAD = re.compile(r" *<(?:feature policy='\w*' name|alias name)='[\w.-]*'/>", re.ASCII)
"""Elements that are half of many a document, and that nobody asks for. Lines stay as they are."""

PLACES = frozenset(
    [
        *("name", "uuid", "metadata", "memory", "currentMemory", "vcpu", "sysinfo", "os"),
        *("cpu", "cpu/numa", "cputune", "seclabel", "devices/emulator"),
        *("devices/memory", "devices/disk", "devices/interface", "devices/hostdev"),
        *("devices/graphics", "devices/serial", "devices/console", "devices/tpm"),
    ]
)
"""What is read of a document."""


def parsed(text: str) -> Element:
    """The root of a document; names keep their prefixes. `Unheard` if it has a document type."""
    # Without namespaces: a long one, repeated by the parser for each element, fills any memory.
    parser, builder = expat.ParserCreate(), TreeBuilder()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(text, True)
    except (expat.ExpatError, UnicodeError) as error:
        raise Unheard(f"the XML can't be read: {error}") from None
    return builder.close()


def _refuse(*declaration: object) -> None:
    raise Unheard("the XML has a document type, which libvirt's never has")


def _kib(text: str | None, unit: str | None, what: str) -> int:
    amount = size(text or "", unit=unit or "KiB") if unit is None or unit.isalpha() else None
    if amount is None:
        raise Unheard(f"the XML's {what} can't be read")
    return -(-amount // 1024)


def _disk(element: Element) -> Disk:
    target, driver = element.find("target"), element.find("driver")
    source, serial = element.find("source"), element.find("serial")
    form = None if driver is None else driver.get("type")
    return Disk(
        target=None if target is None else target.get("dev"),
        bus=None if target is None else target.get("bus"),
        device=element.get("device", "disk"),
        image=Image(element.get("type", "file"), _source(source), form),
        protocol=None if source is None else source.get("protocol"),
        serial=None if serial is None else serial.text,
        read_only=element.find("readonly") is not None,
        shareable=element.find("shareable") is not None,
        transient=element.find("transient") is not None,
        tray_open=target is not None and target.get("tray") == "open",
        backing=_backing(element),
        keys=tuple(
            uuid.lower()
            for encryption in element.iter("encryption")
            for secret in encryption.iterfind("secret")
            if (uuid := secret.get("uuid"))
        ),
    )


def _source(source: Element | None) -> str | None:
    if source is None:
        return None
    if source.get("volume"):
        return f"{source.get('pool')}/{source.get('volume')}"
    places = (source.get(key) for key in ("file", "dev", "dir", "name", "path"))
    place = next((place for place in places if place), None)
    snapshot = source.find("snapshot")
    return place if snapshot is None else f"{place}@{snapshot.get('name')}"


def _backing(disk: Element) -> tuple[Image, ...] | None:
    chain: list[Image] = []
    store = disk.find("backingStore")
    while store is not None:
        source, form = store.find("source"), store.find("format")
        if source is None:  # <backingStore/> says that there is nothing below
            return tuple(chain)
        form_name = None if form is None else form.get("type")
        chain.append(Image(store.get("type", "file"), _source(source), form_name))
        store = store.find("backingStore")
    return None


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
    )


def _mtu(element: Element | None) -> int | None:
    return None if element is None else whole(element.get("size"))


def _nova(element: Element) -> NovaMetadata:
    parts = _parts(element)
    flavor, owner, root = parts.get("flavor"), _parts(parts.get("owner")), parts.get("root")
    sold = _parts(flavor)
    ports = parts.get("ports")
    return NovaMetadata(
        package=_attribute(parts.get("package"), "version"),
        name=_content(parts.get("name")),
        created=_content(parts.get("creationTime")),
        flavor=_attribute(flavor, "name"),
        memory_mib=whole(_content(sold.get("memory"))),
        vcpus=whole(_content(sold.get("vcpus"))),
        disk_gb=whole(_content(sold.get("disk"))),
        ephemeral_gb=whole(_content(sold.get("ephemeral"))),
        swap_mib=whole(_content(sold.get("swap"))),
        user=_attribute(owner.get("user"), "uuid"),
        project=_attribute(owner.get("project"), "uuid"),
        root_image=_attribute(root, "uuid") if _attribute(root, "type") == "image" else None,
        ports=tuple(port.get("uuid", "") for port in (ports if ports is not None else ())),
    )


def _parts(element: Element | None) -> Mapping[str, Element]:
    """The children by name, without the prefix of their namespace."""
    return {
        child.tag.rpartition(":")[2]: child for child in (element if element is not None else ())
    }


def _attribute(element: Element | None, name: str) -> str | None:
    return None if element is None else element.get(name)


def _content(element: Element | None) -> str | None:
    return None if element is None else element.text
