"""What a host says of itself, beside its guests: how libvirt is set up, what its QEMU can emulate,
which consoles are open, how full its file systems are."""

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


class Listener(NamedTuple):
    """A TCP socket that waits for somebody."""

    address: str
    """`0.0.0.0`, `*` or `::`: everywhere."""
    port: int
    pid: int


class FreeSpace(NamedTuple):
    """How full a file system is, in bytes."""

    answer: Answer
    total: int
    free: int
    """What is left to those who are not root."""
    inodes: int
    """0 where they are made as needed."""
    free_inodes: int


@dataclass(frozen=True, eq=False)
class Hypervisor:
    """One host. Whatever needs an answer that was not heard raises `UnheardError`."""

    bundle: Bundle
    name: str

    def answer(self, layer: str, query: str) -> Answer | None:
        """The newest answer of this host to a question."""
        return self.bundle.last(layer, query, self.name)

    def setting(self, name: str, default: str) -> str:
        """A line of qemu.conf, or what holds without it."""
        answer = self.answer("host", "/etc/libvirt/qemu.conf")
        return value_of(answer, "qemu.conf", dict[str, str]).get(name, default)

    @cached_property
    def capabilities(self) -> Element:
        """What libvirt says of the host and of its emulators."""
        answer = self.answer("libvirt", CAPABILITIES)
        return parsed(value_of(answer, CAPABILITIES, str))

    @cached_property
    def machine_types(self) -> Mapping[str, MachineTypes]:
        """By architecture."""
        return read_machine_types(self.capabilities)

    @cached_property
    def owner(self) -> tuple[int, int]:
        """The user and group by whose numbers libvirt runs QEMU."""
        for model in self.capabilities.iterfind("host/secmodel"):
            if model.findtext("model") == "dac":
                for label in model.iterfind("baselabel"):
                    found = re.fullmatch(r"\+(\d{1,10}):\+(\d{1,10})", label.text or "", re.ASCII)
                    if found is not None:
                        return int(found[1]), int(found[2])
        raise UnheardError(f"{CAPABILITIES}: which user runs QEMU was not told")

    @cached_property
    def listeners(self) -> Mapping[int, tuple[Listener, ...]]:
        """The sockets of QEMU processes, by port."""
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
        """The PCI devices that the host has now."""
        answer = self.answer("kernel", PCI_DEVICES)
        return frozenset(value_of(answer, PCI_DEVICES, list[str]))

    @cached_property
    def rooms(self) -> Mapping[str, FreeSpace]:
        """By instances directory."""
        found = {}
        for answer in self.bundle.asked("images", "stat -f ", self.name):
            try:
                said = value_of(answer, answer.query, dict[str, int])
                unit = said["frsize"] or said["bsize"]
                found[answer.query.removeprefix("stat -f ")] = FreeSpace(
                    answer,
                    said["blocks"] * unit,
                    said["bavail"] * unit,
                    said["files"],
                    said["favail"],
                )
            except (UnheardError, KeyError):
                continue  # who asks for this directory's hears that it was not told
        return found

    def room(self, path: str) -> FreeSpace:
        """How full the instances directory is that a path lies in."""
        for folder, room in self.rooms.items():
            if path.startswith(f"{folder}/"):
                return room
        raise UnheardError(f"how full the file system of {path} is was not asked")
