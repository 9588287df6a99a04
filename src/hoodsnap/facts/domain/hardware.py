"""Readers for the rest of a domain's machine: CPUs, firmware, consoles, TPMs and host devices; and
for the machine types that libvirt lists.

The functions take XML elements; `DomainXML` has the fields.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple
from xml.etree.ElementTree import Element

from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.quantity import whole

DEFAULT_PERIOD = 100_000
"""libvirt's default period for CPU quotas, in µs."""

MOST_CPUS = 1 << 16
"""Limit of CPU numbers: no host has more, and a longer range could fill the memory."""


class Graphics(NamedTuple):
    """One `<graphics>`: a console that is reached over the network."""

    type: str
    """`vnc` or `spice`. Others, such as `sdl`, have no port."""
    port: int | None
    """TCP port; None until libvirt has chosen one, and for a console on a Unix socket."""
    listens: tuple[str, ...]
    """Addresses; if empty, the address in qemu.conf applies, by default 127.0.0.1."""
    password: bool
    """True if the console asks for a password. The password itself is not collected."""


class Firmware(NamedTuple):
    """Firmware of a machine; both paths are None with QEMU's own BIOS."""

    loader: str | None
    """Path of the firmware image."""
    nvram: str | None
    """Path of the variable store; None without one, or if libvirt will choose it."""


class Tpm(NamedTuple):
    """One emulated TPM."""

    version: str | None
    source: str | None
    """Path of its state; None if it is in libvirt's own folder."""
    secret: str | None
    """UUID of the secret that encrypts its state; None without encryption."""


class HostDevice(NamedTuple):
    """A host device that is passed through to the guest."""

    type: str
    """`pci` or `mdev`."""
    address: str
    """`0000:81:00.1`; the UUID of an mdev, lower case."""


class Processor(NamedTuple):
    """`<cpu>`."""

    mode: str
    """`custom`, `host-model`, `host-passthrough`, `maximum`."""
    model: str | None
    topology: Mapping[str, int] = MappingProxyType({})
    """Number of `sockets`, `dies`, `clusters`, `cores` and `threads`; empty if QEMU chooses."""


class Label(NamedTuple):
    """Settings of one security driver for the domain."""

    model: str
    """`dac`, `selinux`, `apparmor`."""
    relabel: bool
    """True if the driver labels the guest's files when it starts."""
    image: str | None
    """Label of the images while the guest runs."""
    process: str | None = None
    """Label of QEMU: `+64055:+64055` for `dac`."""


TPMS = "/var/lib/libvirt/swtpm"
"""Folder in which libvirt keeps the state of TPMs."""


def home_of(path: str) -> str:
    """Return the folder above a file: it exists without the file, if the right host is examined."""
    return TPMS if path.startswith(f"{TPMS}/") else posixpath.dirname(path)


def tpm_state(uuid: str, version: str | None) -> str:
    """Return the path of the state of a domain's TPM."""
    folder = "tpm1.2/tpm-00.permall" if version == "1.2" else "tpm2/tpm2-00.permall"
    return f"{TPMS}/{uuid}/{folder}"


def read_cpus(text: str | None) -> frozenset[int]:
    """Return the CPUs in a list such as `0-3,^2,8`. Raises `UnheardError` if it can't be read."""
    found: set[int] = set()
    for word in (text or "").replace(" ", "").split(","):
        match = re.fullmatch(r"(\^?)(\d{1,6})(?:-(\d{1,6}))?", word, re.ASCII)
        if match is None:
            raise UnheardError("a list of CPUs can't be read")
        first, last = int(match[2]), int(match[3] or match[2])
        if last > MOST_CPUS:
            raise UnheardError("a list of CPUs can't be read")
        cpus = range(first, last + 1)
        found = found.difference(cpus) if match[1] else found.union(cpus)
    return frozenset(found)


def read_graphics(elements: Iterable[Element]) -> tuple[Graphics, ...]:
    """Read every `<graphics>`, in order."""
    return tuple(_graphics(element) for element in elements)


def _graphics(element: Element) -> Graphics:
    listens = [element.get("listen")]
    listens += [listen.get("address") for listen in element.iterfind("listen")]
    return Graphics(
        type=element.get("type", ""),
        port=_port(element.get("port")),
        listens=tuple(dict.fromkeys(address for address in listens if address)),
        password=element.get("passwd") is not None or element.get("passwdValidTo") is not None,
    )


def _port(text: str | None) -> int | None:
    port = whole(text)
    return port if port is not None and port > 0 else None


def read_firmware(system: Element | None) -> Firmware:
    """Read the firmware in `<os>`."""
    if system is None:
        return Firmware(None, None)
    nvram = system.find("nvram")
    path = None
    if nvram is not None:
        source = nvram.find("source")
        path = nvram.text if source is None else source.get("file")
    loader = system.findtext("loader")
    return Firmware(_path(loader), _path(path))


def _path(text: str | None) -> str | None:
    path = (text or "").strip()
    return path if path.startswith("/") else None


def read_tpms(elements: Iterable[Element]) -> tuple[Tpm, ...]:
    """Read the emulated TPMs of all `<tpm>` elements."""
    found = []
    for element in elements:
        for backend in element.iterfind("backend"):
            if backend.get("type") == "emulator":
                source, secret = backend.find("source"), backend.find("encryption")
                found.append(
                    Tpm(
                        backend.get("version"),
                        None if source is None else source.get("path", ""),
                        None if secret is None else (secret.get("secret") or "").lower(),
                    )
                )
    return tuple(found)


def read_host_devices(elements: Iterable[Element]) -> tuple[HostDevice, ...]:
    """Read the PCI devices and mdevs in `<hostdev>` and `<interface type='hostdev'>`."""
    found = []
    for element in elements:
        address = element.find("source/address")
        if address is None:
            continue
        kind = element.get("type") if element.tag == "hostdev" else "pci"
        if kind == "mdev":
            found.append(HostDevice("mdev", address.get("uuid", "").lower()))
        elif kind == "pci" and (place := _pci_address(address)) is not None:
            found.append(HostDevice("pci", place))
    return tuple(found)


UNSOLD = frozenset(["usb", "scsi", "scsi_host"])
"""Types of host devices that no flavor, image or port asks for."""


def read_unsold_devices(elements: Iterable[Element]) -> tuple[str, ...]:
    """Read the USB and SCSI devices in `<hostdev>`, in words: `usb 0529:0001`, `scsi`."""
    return tuple(
        " ".join(filter(None, (element.get("type"), _usb_ids(element))))
        for element in elements
        if element.get("type") in UNSOLD
    )


def _usb_ids(element: Element) -> str:
    ids = (element.find(f"source/{part}") for part in ("vendor", "product"))
    return ":".join(one.get("id", "").removeprefix("0x") for one in ids if one is not None)


def _pci_address(address: Element) -> str | None:
    try:
        domain, bus, slot, function = (
            int(address.get(part, "0"), 0) for part in ("domain", "bus", "slot", "function")
        )
    except ValueError:
        return None
    return f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"


def read_processor(element: Element | None) -> Processor | None:
    """Read `<cpu>`; None without one."""
    if element is None:
        return None
    model = element.find("model")
    parts = element.find("topology")
    counts = {name: whole(count) for name, count in ({} if parts is None else parts.attrib).items()}
    topology = {name: count for name, count in counts.items() if count is not None}
    name = None if model is None else model.text
    return Processor(element.get("mode", "custom"), name, topology)


def read_pins(elements: Iterable[Element]) -> Mapping[int, frozenset[int]]:
    """Read vCPU → host CPUs that it may run on, in `<cputune>`."""
    return {
        number: read_cpus(pin.get("cpuset"))
        for element in elements
        for pin in element.iterfind("vcpupin")
        if (number := whole(pin.get("vcpu"))) is not None
    }


def read_cpu_percent(elements: Iterable[Element], of: str = "") -> int | None:
    """Return a limit of CPU time in `<cputune>`, in percent of a CPU; None if unlimited.

    `of` is what it limits: "" for each vCPU, `global_` for the whole guest.

    As in libvirt, a quota of 0 or below means no limit.
    """
    for element in elements:
        quota = whole(element.findtext(f"{of}quota"))
        period = whole(element.findtext(f"{of}period"))
        if quota:
            return percent_of(quota, period or DEFAULT_PERIOD)
    return None


def percent_of(quota: int, period: int) -> int:
    """Return a CPU quota per period, both in µs, as a rounded percentage of one CPU."""
    if not period:
        raise UnheardError("the period of the CPU quota is 0")
    return round(quota * 100 / period)


def read_labels(elements: Iterable[Element]) -> tuple[Label, ...]:
    """Read every `<seclabel>`, in order."""
    return tuple(
        Label(
            model=element.get("model", ""),
            relabel=element.get("relabel") != "no" and element.get("type") != "none",
            image=element.findtext("imagelabel"),
            process=element.findtext("label"),
        )
        for element in elements
    )


def read_logs(elements: Iterable[Element]) -> tuple[str, ...]:
    """Return the files that `<serial>` and `<console>` are written to."""
    return tuple(dict.fromkeys(path for element in elements for path in _logs(element)))


def _logs(element: Element) -> Iterator[str]:
    for log in element.iterfind("log"):
        if (path := _path(log.get("file"))) is not None:
            yield path
    if element.get("type") == "file":
        for source in element.iterfind("source"):
            if (path := _path(source.get("path"))) is not None:
                yield path


@dataclass(frozen=True)
class MachineTypes:
    """Machine types of the installed emulators for one architecture."""

    emulators: frozenset[str]
    names: frozenset[str]
    canonical: Mapping[str, str]
    """Alias → machine type: `pc` → `pc-i440fx-7.2`."""

    def same(self, one: str, other: str) -> bool:
        """True if two names, possibly aliases, mean the same machine type."""
        return self.canonical.get(one, one) == self.canonical.get(other, other)

    def fits(self, wanted: str, machine: str) -> bool:
        """True if a machine type is the wanted one. An alias accepts any version of its family."""
        stands_for = self.canonical.get(wanted)
        if stands_for is None:
            return self.same(wanted, machine)
        return _family(stands_for) == _family(self.canonical.get(machine, machine))

    def newest_like(self, machine: str) -> str | None:
        """Return the newest type of a machine type's family; None if the family is not offered."""
        like = [name for name in self.names if _family(name) == _family(machine)]
        versions = [name for name in like if name not in self.canonical]
        return max(versions or like, key=_version, default=None)


_FAMILY = re.compile(r"(pc-i440fx|pc-q35|pseries|virt|s390-ccw-virtio|pc)\b")


def _family(machine: str) -> str:
    """Return the family of a machine type: `pc-i440fx` for `pc-i440fx-7.2`, Red Hat's
    `pc-i440fx-rhel7.6.0` and Ubuntu's `pc-i440fx-jammy-hpb`."""
    found = _FAMILY.match(machine)
    return found[0] if found else machine


def _version(machine: str) -> tuple[int, ...]:
    """Return the numbers in a machine type's version: `pc-i440fx-7.2` → 7, 2."""
    return tuple(map(int, re.findall(r"\d{1,9}", machine.removeprefix(_family(machine)), re.ASCII)))


def read_machine_types(capabilities: Element) -> Mapping[str, MachineTypes]:
    """Return architecture → its machine types, from the output of `virsh capabilities`."""
    found = {}
    for guest in capabilities.iterfind("guest"):
        for architecture in guest.iterfind("arch"):
            machines = list(architecture.iter("machine"))
            names = frozenset(machine.text or "" for machine in machines)
            if names:
                found[architecture.get("name", "")] = MachineTypes(
                    frozenset(emulator.text or "" for emulator in architecture.iter("emulator")),
                    names | frozenset(machine.get("canonical", "") for machine in machines),
                    {
                        machine.text or "": machine.get("canonical", "")
                        for machine in machines
                        if machine.get("canonical")
                    },
                )
    return found
