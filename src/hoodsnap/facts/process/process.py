"""The kernel's view of a VM: a process."""

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
    r"(?:readlink |ls -lL |grep (?:-E )?'[^']+' |awk '.*' )?"
    r"/proc/[0-9]+/([a-z]+)(?:/\*)?(?:/status)?"
)

COUNT_FILES = re.compile(r"ls /proc/[0-9]+/fd \| wc -l")

NAME_OF_TRACER = re.compile(r"cat /proc/[0-9]+/comm")
"""Question for the name of the program that traces a process; its number is the tracer's."""

MOST_FILES = re.compile(
    r"Max open files +(\d{1,20}|unlimited) +(\d{1,20}|unlimited) +files\s*", re.ASCII
)
"""Line of proc(5)'s limits: the limit that applies (soft), and the one that it may be raised to."""

LIST_PROCESSES = KERNEL.census_query

EMULATOR = re.compile(r"\.?qemu-system-.+|\.?qemu-kvm(-.+)?|kvm(-spice)?|qemu")
"""Names of programs that run a whole machine; qemu-img, qemu-nbd, qemu-ga, qemu-x86_64 do not."""

VCPU = re.compile(r"CPU (\d{1,6})/(?:KVM|TCG|HVF)", re.ASCII)
"""Name of a vCPU's thread; QEMU names threads if libvirt asks for it (`debug-threads=on`)."""

GONE = " (deleted)"
"""Suffix that the kernel adds to the path of a file that no longer has that name."""

PAGE = 4096
"""Bytes in a page. Kernels before 4.2 truncate a command line to one page."""

WRITING = 3
"""Access mode bits in a descriptor's flags: 1 for writing, 2 for reading and writing."""


class OpenFile(NamedTuple):
    """A file, block device or tap that a process has open."""

    fd: int
    path: str
    """As the kernel reports it, in the process's own mount namespace."""
    deleted: bool
    """True if the path no longer leads to the file."""
    dev: str
    """`major:minor` of its file system; together with `ino` it identifies the file."""
    ino: int
    rdev: str
    """`major:minor` if it is a device; `0:0` for a file."""
    size: int
    mode: int
    """File type and permissions, as in stat(2)."""
    writable: bool


class FileLimit(NamedTuple):
    """Number of files that a process may have open; None: as many as the kernel allows."""

    soft: int | None
    """The limit that applies."""
    hard: int | None
    """The limit to which the process may raise it."""


class LostFile(NamedTuple):
    """An open file whose file system no longer answers for it."""

    fd: int
    path: str
    error: str
    """As stat(2) reports it: `Stale file handle`."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Process(Fact):
    """One QEMU process. A field whose answer was not collected raises `UnheardError`.

    Its command line shows how it was started, not what was plugged in later.
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
        "gid": ("status", "Gid"),
        "owners": ("status", "Uid"),
        "groups": ("status", "Groups"),
        "capabilities": ("status", "CapEff"),
        "seccomp": ("status", "Seccomp"),
        "tracer": ("status", "TracerPid"),
        "is_dumping_core": ("status", "CoreDumping"),
        "tracer_name": ("tracer", ""),
        "vcpu_threads": ("task", "Cpus_allowed_list"),
        "thread_cpus": ("task", "Cpus_allowed_list"),
        "control_groups": ("cgroup", ""),
        "graphics": ("cmdline", "-vnc"),
        "exe": ("exe", ""),
        "files": ("fd", ""),
        "lost_files": ("fd", "error"),
        "open_files": ("fds", ""),
        "file_limit": ("limits", "Max open files"),
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
            "Sources of the disks that it was started with: paths of files and devices, or URLs.",
            lambda process: [disk.source for disk in process.disks if disk.source is not None],
        ),
        DocumentedField(
            "files",
            "Paths of the files, block devices and taps that it has open.",
            lambda process: sorted({file.path for file in process.files}),
        ),
    )

    @classmethod
    def read_all(cls, answers: Iterable[Answer]) -> dict[int, Process]:
        """Return PID → process, from one host's kernel answers: every QEMU that runs a machine."""
        said: dict[str, dict[str, Answer]] = {}
        listed: set[int] | None = None
        for answer in answers:
            if answer.query == LIST_PROCESSES and answer.error is None:
                listed = _listed(answer)
            query = QUERY.fullmatch(answer.query) if answer.subject is not None else None
            if query is not None:
                said.setdefault(answer.subject or "", {})[query[1]] = answer
            elif answer.subject in said and COUNT_FILES.fullmatch(answer.query):
                said[answer.subject]["fds"] = answer
            elif answer.subject in said and NAME_OF_TRACER.fullmatch(answer.query):
                said[answer.subject]["tracer"] = answer
        numbered = ((whole(pid), parts) for pid, parts in said.items())
        processes = (cls(pid=pid, said=parts) for pid, parts in numbered if pid is not None)
        return {
            process.pid: process
            for process in processes
            # A process that is missing in the newest list has ended since.
            if (listed is None or process.pid in listed) and process.is_emulator
        }

    @property
    def argv(self) -> CommandLine:
        """Command line that the process was started with."""
        if isinstance(self._argv, UnheardError):
            raise UnheardError(str(self._argv))
        return self._argv

    @property
    def name(self) -> str:
        """Guest name from `-name`."""
        return self._argument(self.argv.name, "-name")

    @property
    def uuid(self) -> str:
        """UUID from `-uuid`, lower case."""
        return self._argument(self.argv.uuid, "-uuid")

    @property
    def memory_kib(self) -> int:
        """Memory at boot in KiB, from `-m`."""
        return self._argument(self.argv.memory_kib, "-m")

    @property
    def vcpus(self) -> int:
        """Number of vCPUs at boot, from `-smp`."""
        return self._argument(self.argv.vcpus, "-smp")

    @property
    def max_vcpus(self) -> int:
        """Maximum number of vCPUs, from `-smp`."""
        return self._argument(self.argv.max_vcpus, "-smp")

    @property
    def machine(self) -> str:
        """Machine type: `pc-i440fx-7.2`."""
        return self._argument(self.argv.machine, "-machine")

    @property
    def smbios(self) -> Mapping[str, str]:
        """System information that the guest sees; empty without any, as always on arm64."""
        return self.argv.smbios or self._nothing({}, "-smbios")

    @property
    def incoming(self) -> str | None:
        """Value of `-incoming`: address or `defer`; None if the process booted the guest."""
        return self.argv.incoming or self._nothing(None, "-incoming")

    @property
    def macs(self) -> tuple[str, ...]:
        """MAC addresses of the network cards that it was started with, lower case."""
        return self._nothing(self.argv.macs, "network cards")

    @property
    def disks(self) -> tuple[Drive, ...]:
        """Disks that it was started with."""
        return self._nothing(self.argv.disks, "disks")

    @property
    def home(self) -> str | None:
        """Folder of the libvirt that started the process; None if the command line names none."""
        return self.argv.home or self._nothing(None, "libvirt's paths")

    @property
    def is_probe(self) -> bool:
        """True if it runs no guest and only reports this QEMU's capabilities."""
        return self.argv.is_probe or self._nothing(False, "-machine")

    @property
    def is_emulator(self) -> bool:
        """True if the program is a QEMU that runs a machine, under any of its installed names."""
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
        """State: `S` sleeping, `R` running, `D` waiting for I/O, `T` stopped, `Z` zombie."""
        return self._stat(3)

    @property
    def threads(self) -> int:
        """Number of threads."""
        return _count(self._stat(20), f"/proc/{self.pid}/stat")

    @property
    def swap_kib(self) -> int:
        """Swapped-out memory in KiB."""
        status = self._text("status")
        found = re.search(r"^VmSwap:\s+(\d+) kB", status, re.MULTILINE | re.ASCII)
        return _count(found[1] if found else "", f"/proc/{self.pid}/status")

    @cached_property
    def uid(self) -> int:
        """Effective user id."""
        status = self._text("status")
        found = re.search(r"^Uid:\s+\d+\s+(\d+)", status, re.MULTILINE | re.ASCII)
        return _count(found[1] if found else "", f"/proc/{self.pid}/status")

    @cached_property
    def gid(self) -> int:
        """Effective group id."""
        status = self._text("status")
        found = re.search(r"^Gid:\s+\d+\s+(\d+)", status, re.MULTILINE | re.ASCII)
        return _count(found[1] if found else "", f"/proc/{self.pid}/status")

    @property
    def capabilities(self) -> str:
        """Effective capabilities, hexadecimal; only zeros if it has none."""
        status = self._text("status")
        found = re.search(r"^CapEff:\s+([0-9a-f]{1,16})$", status, re.MULTILINE)
        return found[1] if found else unheard(f"/proc/{self.pid}/status has no CapEff")

    @property
    def seccomp(self) -> bool:
        """True if the kernel filters its system calls."""
        status = self._text("status")
        found = re.search(r"^Seccomp:\s+([0-2])$", status, re.MULTILINE)
        return found[1] == "2" if found else unheard(f"/proc/{self.pid}/status has no Seccomp")

    @property
    def tracer(self) -> int | None:
        """PID of the program that traces its first thread (gdb, strace); None if none does.

        A tracer in another PID namespace is not seen.
        """
        found = re.search(r"^TracerPid:\s+(\d+)$", self._text("status"), re.MULTILINE | re.ASCII)
        pid = whole(found[1]) if found else unheard(f"/proc/{self.pid}/status has no TracerPid")
        return pid or None

    @property
    def tracer_name(self) -> str:
        """Name of the program that traces it, as the kernel cuts it: 15 characters."""
        return self._text("tracer").removesuffix("\n")

    @property
    def is_dumping_core(self) -> bool:
        """True if it crashed and the kernel writes its memory to a file. Linux 4.15 and later."""
        found = re.search(r"^CoreDumping:\s+([01])$", self._text("status"), re.MULTILINE)
        return found[1] == "1" if found else unheard(f"/proc/{self.pid}/status has no CoreDumping")

    @property
    def groups(self) -> frozenset[int]:
        """Ids of its groups."""
        status = self._text("status")
        found = re.findall(r"^(?:Gid|Groups):([\s\d]*)$", status, re.MULTILINE | re.ASCII)
        numbers = [whole(word) for line in found for word in line.split()]
        if len(found) != 2 or None in numbers:
            raise UnheardError(f"/proc/{self.pid}/status can't be read")
        return frozenset(number for number in numbers if number is not None)

    @cached_property
    def vcpu_threads(self) -> Mapping[int, frozenset[int]]:
        """vCPU → host processors on which its thread may run."""
        what = f"/proc/{self.pid}/task"
        threads = value_of(self.said.get("task"), what, dict[str, dict[str, str]])
        found = {}
        for thread in threads.values():
            name = VCPU.fullmatch(thread.get("comm", ""))
            if name is not None:
                found[int(name[1])] = read_cpus(thread.get("cpus"))
        return found

    @cached_property
    def threads_of_vcpus(self) -> Mapping[int, int]:
        """vCPU → number of its thread; empty if QEMU does not name its threads."""
        what = f"/proc/{self.pid}/task"
        threads = value_of(self.said.get("task"), what, dict[str, dict[str, str]])
        found = {}
        for number, thread in threads.items():
            name, at = VCPU.fullmatch(thread.get("comm", "")), whole(number)
            if name is not None and at is not None:
                found[int(name[1])] = at
        return found

    @property
    def owners(self) -> frozenset[tuple[int, int]]:
        """User and group of each kind: real, effective, saved, and of the file system."""
        status = self._text("status")
        found = re.findall(r"^[UG]id:((?:\s+\d+){4})$", status, re.MULTILINE | re.ASCII)
        if len(found) != 2:
            raise UnheardError(f"/proc/{self.pid}/status can't be read")
        users, groups = ([whole(word) for word in line.split()] for line in found)
        return frozenset(
            (user, group)
            for user, group in zip(users, groups, strict=True)
            if user is not None and group is not None
        )

    @cached_property
    def thread_cpus(self) -> Mapping[str, frozenset[int]]:
        """Name and number of each thread → host processors on which it may run."""
        what = f"/proc/{self.pid}/task"
        threads = value_of(self.said.get("task"), what, dict[str, dict[str, str]])
        return {
            f"{thread.get('comm', '')} ({tid})": read_cpus(thread.get("cpus"))
            for tid, thread in threads.items()
        }

    @property
    def control_groups(self) -> tuple[str, ...]:
        """Paths of its control groups, one for each hierarchy, without duplicates."""
        lines = self._text("cgroup").splitlines()
        paths = [line.split(":", 2)[2] for line in lines if line.count(":") > 1]
        return tuple(dict.fromkeys(paths))

    @property
    def graphics(self) -> tuple[Display, ...]:
        """Consoles that it was started with."""
        return self._nothing(self.argv.graphics, "consoles")

    @property
    def exe(self) -> str:
        """Path of the executable; ends in ` (deleted)` once an upgrade has replaced the file."""
        return self._text("exe")

    @cached_property
    def files(self) -> tuple[OpenFile, ...]:
        """Files, block devices and taps that it has open, without `lost_files`."""
        query = f"ls -lL /proc/{self.pid}/fd"
        return tuple(
            _open_file(raw, query)
            for raw in value_of(self.said.get("fd"), query, list[dict[str, Any]])
            if "error" not in raw
        )

    @property
    def open_files(self) -> int:
        """Number of open files, with sockets, pipes and events."""
        count = value_of(self.said.get("fds"), "the number of a process's open files", int)
        return count if count >= 0 else unheard(f"/proc/{self.pid}/fd can't be read")

    @property
    def file_limit(self) -> FileLimit:
        """Number of files that it may have open."""
        return read_file_limit(self._text("limits"))

    @cached_property
    def lost_files(self) -> tuple[LostFile, ...]:
        """Open files that the kernel can't stat: a file server removed them."""
        query = f"ls -lL /proc/{self.pid}/fd"
        return tuple(
            LostFile(whole(raw.get("fd")) or 0, (text(raw, "path") or "").removesuffix(GONE), error)
            for raw in value_of(self.said.get("fd"), query, list[dict[str, Any]])
            if "error" in raw and (error := text(raw, "error"))
        )

    @cached_property
    def taps(self) -> frozenset[str]:
        """Current names of the taps that it has open."""
        query = f"ls -lL /proc/{self.pid}/fd"
        files = value_of(self.said.get("fd"), query, list[dict[str, Any]])
        tuns = [file.get("iff") for file in files if file.get("path") == "/dev/net/tun"]
        if not all(isinstance(name, str) for name in tuns):
            raise UnheardError(f"{query}: the kernel did not report the names of the taps")
        return frozenset(str(name) for name in tuns)

    @cached_property
    def namespaces(self) -> Mapping[str, str]:
        """`pid`, `mnt`, `net` → `mnt:[4026531841]`; processes with the same number share one."""
        return value_of(self.said.get("ns"), f"readlink /proc/{self.pid}/ns/*", dict[str, str])

    @cached_property
    def space(self) -> str | None:
        """PID namespace; None if it was not collected. A container may have its own."""
        try:
            return self.namespaces.get("pid")
        except Exception as error:
            caught(error)
            return None

    @cached_property
    def root_device(self) -> str:
        """`major:minor` of its root file system, which differs from the host's in a container."""
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
        """Return a field of proc(5)'s stat; a program may put spaces and `)` into field 2."""
        fields = self._text("stat").rpartition(")")[2].split()
        if len(fields) <= number - 3:
            raise UnheardError(f"/proc/{self.pid}/stat can't be read")
        return fields[number - 3]

    def _argument(self, value: T | None, option: str) -> T:
        if value is not None:
            return value
        self._nothing(None, option)
        raise UnheardError(f"the command line contains no readable {option}")

    def _nothing(self, value: T, what: str) -> T:
        """Return the value; raise `UnheardError` if the truncated rest may have held more."""
        if self.argv.truncated:
            raise UnheardError(
                f"the kernel truncated the command line; the missing rest may contain {what}"
            )
        return value


def read_file_limit(line: str) -> FileLimit:
    """Read the line about open files in proc(5)'s limits. Raises `UnheardError`."""
    found = MOST_FILES.fullmatch(line)
    if found is None:
        raise UnheardError("the limit of open files can't be read")
    return FileLimit(whole(found[1]), whole(found[2]))


def root_device(mountinfo: str) -> str:
    """Return `major:minor` of the file system at `/`, from proc(5)'s mountinfo.

    Raises `UnheardError` if nothing is mounted there.
    """
    for line in reversed(mountinfo.splitlines()):  # a later mount covers earlier ones
        fields = line.split(" ", 5)
        if len(fields) > 5 and fields[4] == "/":
            return fields[2]
    raise UnheardError("mountinfo: no file system is mounted at /")


def _listed(answer: Answer) -> set[int] | None:
    try:
        rows = value_of(answer, LIST_PROCESSES, list[dict[str, Any]])
    except Exception as error:
        caught(error)
        return None
    return {pid for row in rows if (pid := whole(row.get("pid"))) is not None}


def _argv(cmdline: str) -> CommandLine:
    if not cmdline.strip("\0"):
        raise UnheardError("the process has no command line: it is dead or a kernel thread")
    size = len(cmdline.encode(errors="replace"))  # each invalid byte counts as one
    words = cmdline.split("\0")
    if words.pop():  # the last word has no end, so its meaning is unknown
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
        raise UnheardError(f"the {key} of an open file can't be read")
    return int(digits, 8)
