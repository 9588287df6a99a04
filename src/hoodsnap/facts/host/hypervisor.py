"""The host itself, apart from its guests: libvirt's configuration and capabilities, open console
ports, PCI devices, and free space."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple
from xml.etree.ElementTree import Element

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.facts.domain.hardware import MachineTypes, read_machine_types
from hoodsnap.facts.domain.xml import parsed
from hoodsnap.facts.fact import UnheardError, value_of
from hoodsnap.facts.quantity import whole

CAPABILITIES = "virsh capabilities"

LISTENERS = "ss -Hltnp"

PCI_DEVICES = "ls /sys/bus/pci/devices"

AIO_USED, AIO_MOST = "/proc/sys/fs/aio-nr", "/proc/sys/fs/aio-max-nr"
"""Files with the number of events of asynchronous I/O that programs reserved, and its limit."""


class Listener(NamedTuple):
    """A TCP socket that listens for connections."""

    address: str
    """`0.0.0.0`, `*` and `::` stand for all addresses."""
    port: int
    pid: int


class FreeSpace(NamedTuple):
    """Size and free space of a file system, in bytes."""

    answer: Answer
    total: int
    free: int
    """Bytes available to users other than root."""
    inodes: int
    """0 if the file system allocates inodes as needed."""
    free_inodes: int


@dataclass(frozen=True, eq=False)
class Hypervisor:
    """One hypervisor host. A field whose answer was not collected raises `UnheardError`."""

    bundle: Bundle
    name: str

    def answer(self, layer: str, query: str) -> Answer | None:
        """Return this host's newest answer to a query; None if it was not collected."""
        return self.bundle.last(layer, query, self.name)

    def setting(self, name: str, default: str) -> str:
        """Return an option of qemu.conf; `default` if it is not set."""
        answer = self.answer("host", "/etc/libvirt/qemu.conf")
        return value_of(answer, "qemu.conf", dict[str, str]).get(name, default)

    @cached_property
    def namespaces(self) -> Mapping[str, str]:
        """The collector's namespaces: `user` → `user:[4026531837]`."""
        answer = self.answer("host", "readlink /proc/self/ns/*")
        return value_of(answer, "the collector's namespaces", dict[str, str])

    @cached_property
    def capabilities(self) -> Element:
        """libvirt's `<capabilities>`: the host and its emulators."""
        answer = self.answer("libvirt", CAPABILITIES)
        return parsed(value_of(answer, CAPABILITIES, str))

    @cached_property
    def machine_types(self) -> Mapping[str, MachineTypes]:
        """Architecture → machine types."""
        return read_machine_types(self.capabilities)

    @cached_property
    def guest_types(self) -> frozenset[str]:
        """Types of guests that libvirt can run: `kvm`, `qemu`."""
        domains = self.capabilities.iterfind("guest/arch/domain")
        return frozenset(one.get("type", "") for one in domains)

    @cached_property
    def owner(self) -> tuple[int, int]:
        """Ids of the user and the group that libvirt runs QEMU as."""
        for model in self.capabilities.iterfind("host/secmodel"):
            if model.findtext("model") == "dac":
                for label in model.iterfind("baselabel"):
                    found = re.fullmatch(r"\+(\d{1,10}):\+(\d{1,10})", label.text or "", re.ASCII)
                    if found is not None:
                        return int(found[1]), int(found[2])
        raise UnheardError(f"{CAPABILITIES}: the user that runs QEMU is missing")

    @cached_property
    def listeners(self) -> Mapping[int, tuple[Listener, ...]]:
        """TCP port → listening sockets of QEMU processes."""
        found: dict[int, list[Listener]] = {}
        for line in value_of(self.answer("kernel", LISTENERS), LISTENERS, str).splitlines():
            words = line.split()
            address, _, port = words[3].rpartition(":") if len(words) > 3 else ("", "", "")
            number = whole(port)
            if number is None:
                raise UnheardError(f"{LISTENERS}: a line can't be read")
            for pid in re.findall(r"pid=(\d{1,10})", line, re.ASCII):
                plain = address.strip("[]").partition("%")[0]
                found.setdefault(number, []).append(Listener(plain, number, int(pid)))
        return {port: tuple(listeners) for port, listeners in found.items()}

    @cached_property
    def pci_addresses(self) -> frozenset[str]:
        """Addresses of the PCI devices that the host has now."""
        answer = self.answer("kernel", PCI_DEVICES)
        return frozenset(value_of(answer, PCI_DEVICES, list[str]))

    @cached_property
    def aio_events(self) -> tuple[int, int]:
        """Number of events of asynchronous I/O that programs of the host have reserved, and the
        largest number that they may reserve together."""
        used, most = (
            whole(value_of(self.answer("kernel", path), path, str).strip())
            for path in (AIO_USED, AIO_MOST)
        )
        if used is None or most is None:
            raise UnheardError(f"{AIO_USED}: no number was read")
        return used, most

    @cached_property
    def rooms(self) -> Mapping[str, FreeSpace]:
        """Instances directory, or another folder with disks of guests → size and free space;
        unknown ones are left out."""
        found = {}
        for answer in self.bundle.asked("images", "stat -f ", self.name):
            try:
                said = value_of(answer, answer.query, dict[str, int])
                found[answer.query.removeprefix("stat -f ")] = _free_space(answer, said)
            except (UnheardError, KeyError):
                continue  # `room` then reports that it was not collected
        return found

    @cached_property
    def own_rooms(self) -> Mapping[str, FreeSpace]:
        """Folder of the host's own system → size and free space of its file system. Folders on the
        file system of an earlier one are left out."""
        answer = next(iter([*self.bundle.asked("host", "stat -f ", self.name)][-1:]), None)
        said = value_of(answer, "free space of the host's file systems", dict[str, dict[str, int]])
        assert answer is not None  # noqa: S101 (it has a value)
        return {folder: _free_space(answer, numbers) for folder, numbers in said.items()}

    def room(self, path: str) -> FreeSpace:
        """Return size and free space of the listed folder that contains a path."""
        for folder in sorted(self.rooms, key=len, reverse=True):
            if path.startswith(f"{folder}/"):
                return self.rooms[folder]
        raise UnheardError(f"the free space of the file system with {path} was not collected")


def _free_space(answer: Answer, said: Mapping[str, int]) -> FreeSpace:
    """Read the fields of statvfs(3). Raises `KeyError` if one is missing."""
    unit = said["frsize"] or said["bsize"]
    return FreeSpace(
        answer, said["blocks"] * unit, said["bavail"] * unit, said["files"], said["favail"]
    )
