"""What the kernel says of a VM: a process."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, TypeVar

from hoodsnap.bundle import Answer
from hoodsnap.facts.domain.hardware import read_cpus
from hoodsnap.facts.fact import (
    Documented,
    DocumentedField,
    Fact,
    UnheardError,
    caught,
    text,
    unheard,
    value_of,
)
from hoodsnap.facts.layer import KERNEL, Layer
from hoodsnap.facts.process.command_line import CommandLine, Display
from hoodsnap.facts.process.drive import Drive
from hoodsnap.facts.quantity import whole

T = TypeVar("T")

QUERY = re.compile(
    r"(?:readlink |ls -lL |grep -E '\S+' |awk '.*' )?/proc/[0-9]+/([a-z]+)(?:/\*)?(?:/status)?"
)

LIST_PROCESSES = KERNEL.census_query

EMULATOR = re.compile(r"\.?qemu-system-.+|\.?qemu-kvm(-.+)?|kvm(-spice)?|qemu")
"""The names of programs that run a whole machine: not qemu-img, qemu-nbd, qemu-ga, qemu-x86_64 …"""

VCPU = re.compile(r"CPU (\d{1,6})/(?:KVM|TCG|HVF)", re.ASCII)
"""What QEMU calls the thread of a vCPU, if libvirt told it to name them (`debug-threads=on`)."""

GONE = " (deleted)"
"""What the kernel puts behind the path of a file that no longer has that name."""

PAGE = 4096
"""Bytes. Kernels before 4.2 show one page of a command line, and cut off the rest."""

WRITING = 3
"""The bits of a descriptor's flags that say what it was opened for: 1 to write, 2 for both."""


class OpenFile(NamedTuple):
    """A file, block device or tap that a process has open."""

    fd: int
    path: str
    """As the kernel knows it, in the process's own mount namespace."""
    deleted: bool
    """That path no longer leads to it."""
    dev: str
    """`major:minor` of its filesystem; with `ino` the file itself, whatever its name."""
    ino: int
    rdev: str
    """`major:minor` of the device that it is; `0:0` for a file."""
    size: int
    mode: int
    """Kind and permissions, as of stat(2)."""
    writable: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class Process(Fact):
    """One QEMU. Whatever needs an answer that was not heard raises `UnheardError`.

    Its command line tells how it was started; what was plugged in later is not in it.
    """

    layer: ClassVar[Layer] = KERNEL
    noun: ClassVar[str] = "process"

    pid: int

    places: ClassVar[Mapping[str, tuple[str, str]]] = {
        "pid": ("stat", "field 1"),
        "argv": ("cmdline", ""),
        "name": ("cmdline", "-name"),
        "uuid": ("cmdline", "-uuid"),
        "memory_kib": ("cmdline", "-m"),
        "vcpus": ("cmdline", "-smp"),
        "max_vcpus": ("cmdline", "-smp"),
        "machine": ("cmdline", "-machine"),
        "macs": ("cmdline", "-device"),
        "disks": ("cmdline", "-blockdev"),
        "smbios": ("cmdline", "-smbios"),
        "incoming": ("cmdline", "-incoming"),
        "is_probe": ("cmdline", "-machine"),
        "state": ("stat", "field 3"),
        "threads": ("stat", "field 20"),
        "uid": ("status", "Uid"),
        "groups": ("status", "Groups"),
        "vcpu_threads": ("task", "Cpus_allowed_list"),
        "graphics": ("cmdline", "-vnc"),
        "exe": ("exe", ""),
        "files": ("fd", ""),
        "taps": ("fd", "fdinfo:iff"),
        "namespaces": ("ns", ""),
        "root_device": ("mountinfo", ""),
    }

    documented: ClassVar[Documented] = (
        DocumentedField("pid", "PID of the QEMU process."),
        *("name", "uuid", "exe", "state", "threads", "uid", "vcpus", "memory_kib"),
        *("machine", "macs"),
        DocumentedField(
            "disks",
            "The files and devices it was started with.",
            lambda process: [disk.source for disk in process.disks if disk.source is not None],
        ),
        DocumentedField(
            "files",
            "The files, block devices and taps that it has open.",
            lambda process: sorted({file.path for file in process.files}),
        ),
    )

    @classmethod
    def read_all(cls, answers: Iterable[Answer]) -> dict[int, Process]:
        """PID → process, of one host's kernel answers: every QEMU that emulates a system."""
        said: dict[str, dict[str, Answer]] = {}
        listed: set[int] | None = None
        for answer in answers:
            if answer.query == LIST_PROCESSES and answer.error is None:
                listed = _listed(answer)
            query = QUERY.fullmatch(answer.query) if answer.subject is not None else None
            if query is not None:
                said.setdefault(answer.subject or "", {})[query[1]] = answer
        numbered = ((whole(pid), parts) for pid, parts in said.items())
        processes = (cls(pid=pid, said=parts) for pid, parts in numbered if pid is not None)
        return {
            process.pid: process
            for process in processes
            # Who is not in the newest list has ended since.
            if (listed is None or process.pid in listed) and process.is_emulator
        }

    @property
    def argv(self) -> CommandLine:
        """How it was started."""
        if isinstance(self._argv, UnheardError):
            raise UnheardError(str(self._argv))
        return self._argv

    @property
    def name(self) -> str:
        """The guest's name, of `-name`."""
        return self._argument(self.argv.name, "-name")

    @property
    def uuid(self) -> str:
        """Of `-uuid`, lower case."""
        return self._argument(self.argv.uuid, "-uuid")

    @property
    def memory_kib(self) -> int:
        """KiB at boot, of `-m`."""
        return self._argument(self.argv.memory_kib, "-m")

    @property
    def vcpus(self) -> int:
        """The vCPUs at boot, of `-smp`."""
        return self._argument(self.argv.vcpus, "-smp")

    @property
    def max_vcpus(self) -> int:
        """The vCPUs that it can have at most, of `-smp`."""
        return self._argument(self.argv.max_vcpus, "-smp")

    @property
    def machine(self) -> str:
        """`pc-i440fx-7.2`."""
        return self._argument(self.argv.machine, "-machine")

    @property
    def smbios(self) -> Mapping[str, str]:
        """What the guest is told that it is. Empty if nothing, as always on arm64."""
        return self.argv.smbios or self._nothing({}, "-smbios")

    @property
    def incoming(self) -> str | None:
        """Where it waited for a migration when it was started; None if it booted."""
        return self.argv.incoming or self._nothing(None, "-incoming")

    @property
    def macs(self) -> tuple[str, ...]:
        """The network cards that it was started with, lower case."""
        return self._nothing(self.argv.macs, "network cards")

    @property
    def disks(self) -> tuple[Drive, ...]:
        """The disks that it was started with."""
        return self._nothing(self.argv.disks, "disks")

    @property
    def home(self) -> str | None:
        """The folder where the libvirt that started it keeps its files; None if none did, or that
        is not seen."""
        return self.argv.home or self._nothing(None, "libvirt's files")

    @property
    def is_probe(self) -> bool:
        """It runs no guest: somebody asks this QEMU what it can do."""
        return self.argv.is_probe or self._nothing(False, "guest")

    @property
    def is_emulator(self) -> bool:
        """Whether this is a QEMU that runs a machine, by any name under which it is installed."""
        names = []
        if not isinstance(self._argv, UnheardError):
            names.append(self._argv.binary)
        for part in ("exe", "comm"):
            try:
                names.append(value_of(self.said.get(part), part, str))
            except Exception as error:
                caught(error)
                continue
        return any(EMULATOR.fullmatch(_program(name)) for name in names)

    @property
    def state(self) -> str:
        """The kernel's letter: `S` sleeping, `R` running, `D` in I/O, `T` stopped, `Z` dead."""
        return self._stat(3)

    @property
    def threads(self) -> int:
        """How many."""
        return _count(self._stat(20), f"/proc/{self.pid}/stat")

    @property
    def swap_kib(self) -> int:
        """KiB of it that are swapped out."""
        status = self._text("status")
        found = re.search(r"^VmSwap:\s+(\d+) kB", status, re.MULTILINE | re.ASCII)
        return _count(found[1] if found else "", f"/proc/{self.pid}/status")

    @property
    def uid(self) -> int:
        """The user that it runs as (the effective one)."""
        status = self._text("status")
        found = re.search(r"^Uid:\s+\d+\s+(\d+)", status, re.MULTILINE | re.ASCII)
        return _count(found[1] if found else "", f"/proc/{self.pid}/status")

    @property
    def groups(self) -> frozenset[int]:
        """The groups that it is in."""
        status = self._text("status")
        found = re.findall(r"^(?:Gid|Groups):([\s\d]*)$", status, re.MULTILINE | re.ASCII)
        numbers = [whole(word) for line in found for word in line.split()]
        if len(found) != 2 or None in numbers:
            raise UnheardError(f"/proc/{self.pid}/status can't be read")
        return frozenset(number for number in numbers if number is not None)

    @cached_property
    def vcpu_threads(self) -> Mapping[int, frozenset[int]]:
        """vCPU → the host's processors that its thread may run on."""
        what = f"/proc/{self.pid}/task"
        threads = value_of(self.said.get("task"), what, dict[str, dict[str, str]])
        found = {}
        for thread in threads.values():
            name = VCPU.fullmatch(thread.get("comm", ""))
            if name is not None:
                found[int(name[1])] = read_cpus(thread.get("cpus"))
        return found

    @property
    def graphics(self) -> tuple[Display, ...]:
        """The consoles that it was started with."""
        return self._nothing(self.argv.graphics, "consoles")

    @property
    def exe(self) -> str:
        """The program's file. ` (deleted)` behind it: a newer one was installed meanwhile."""
        return self._text("exe")

    @cached_property
    def files(self) -> tuple[OpenFile, ...]:
        """The files, block devices and taps that it has open."""
        query = f"ls -lL /proc/{self.pid}/fd"
        return tuple(
            _open_file(raw, query)
            for raw in value_of(self.said.get("fd"), query, list[dict[str, Any]])
        )

    @cached_property
    def taps(self) -> frozenset[str]:
        """The taps that it holds, by the names that they have now."""
        query = f"ls -lL /proc/{self.pid}/fd"
        files = value_of(self.said.get("fd"), query, list[dict[str, Any]])
        tuns = [file.get("iff") for file in files if file.get("path") == "/dev/net/tun"]
        if not all(isinstance(name, str) for name in tuns):
            raise UnheardError(f"{query}: the kernel does not say which taps these are")
        return frozenset(str(name) for name in tuns)

    @property
    def namespaces(self) -> Mapping[str, str]:
        """`pid`, `mnt`, `net` → `mnt:[4026531841]`. Two processes of one number share that view."""
        return value_of(self.said.get("ns"), f"readlink /proc/{self.pid}/ns/*", dict[str, str])

    @property
    def space(self) -> str | None:
        """Its PID namespace; None if that was not told. A container may have one of its own."""
        try:
            return self.namespaces.get("pid")
        except Exception as error:
            caught(error)
            return None

    @cached_property
    def root_device(self) -> str:
        """`major:minor` of the file system that is `/` for it; in a container another one."""
        return root_device(self._text("mountinfo"))

    @cached_property
    def _argv(self) -> CommandLine | UnheardError:
        try:
            return _argv(self._text("cmdline"))
        except UnheardError as reason:
            return reason

    def _text(self, part: str) -> str:
        return value_of(self.said.get(part), f"/proc/{self.pid}/{part}", str)

    def _stat(self, number: int) -> str:
        """A field of proc(5)'s stat. The second is the program's own choice, spaces and all."""
        fields = self._text("stat").rpartition(")")[2].split()
        if len(fields) <= number - 3:
            raise UnheardError(f"/proc/{self.pid}/stat can't be read")
        return fields[number - 3]

    def _argument(self, value: T | None, option: str) -> T:
        if value is not None:
            return value
        self._nothing(None, option)
        raise UnheardError(f"the command line has no {option} that can be read")

    def _nothing(self, value: T, what: str) -> T:
        """The value, unless the command line was cut off and more may have followed."""
        if self.argv.truncated:
            raise UnheardError(
                f"the kernel cut off the command line, and {what} may have been in the rest"
            )
        return value


def root_device(mountinfo: str) -> str:
    """`major:minor` of what is mounted at `/`, of proc(5)'s mountinfo. `UnheardError` if it is
    not."""
    for line in reversed(mountinfo.splitlines()):  # the last one lies on top
        fields = line.split(" ", 5)
        if len(fields) > 5 and fields[4] == "/":
            return fields[2]
    raise UnheardError("mountinfo does not tell what / is")


def _listed(answer: Answer) -> set[int] | None:
    try:
        rows = value_of(answer, LIST_PROCESSES, list[dict[str, Any]])
    except Exception as error:
        caught(error)
        return None
    return {pid for row in rows if (pid := whole(row.get("pid"))) is not None}


def _argv(cmdline: str) -> CommandLine:
    if not cmdline.strip("\0"):
        raise UnheardError("the process has no command line: it is dead, or the kernel's own")
    size = len(cmdline.encode(errors="replace"))  # what was no UTF-8 is one byte each
    words = cmdline.split("\0")
    if words.pop():  # the end of the last word is missing, and then nobody knows what it was
        return CommandLine(tuple(words), truncated=True)
    return CommandLine(tuple(words), truncated=size % PAGE == 0)


def _program(path: str) -> str:
    return path.strip().removesuffix(GONE).rpartition("/")[2]


def _count(value: str, what: str) -> int:
    count = whole(value)
    return count if count is not None else unheard(f"{what} can't be read")


def _open_file(raw: Mapping[str, object], query: str) -> OpenFile:
    path = text(raw, "path") or ""
    flags, mode = _octal(raw, "flags"), _octal(raw, "mode")
    numbers = [whole(raw.get(key)) for key in ("fd", "ino", "size")]
    if None in numbers:
        raise UnheardError(f"{query} can't be read")
    fd, ino, size = (number or 0 for number in numbers)
    return OpenFile(
        fd=fd,
        path=path.removesuffix(GONE),
        deleted=path.endswith(GONE),
        dev=text(raw, "dev") or "",
        ino=ino,
        rdev=text(raw, "rdev") or "",
        size=size,
        mode=mode,
        writable=flags & WRITING != 0,
    )


_OCTAL = re.compile(r"[0-7]{1,20}")


def _octal(raw: Mapping[str, object], key: str) -> int:
    digits = text(raw, key) or ""
    if not _OCTAL.fullmatch(digits):
        raise UnheardError(f"{key} can't be read")
    return int(digits, 8)
