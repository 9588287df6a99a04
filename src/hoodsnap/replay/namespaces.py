"""Linux namespaces, mounts and privileges of a sealed process: the system calls, by ctypes.

The programs that make these calls (unshare, mount, ip, bwrap) may be missing, and each costs as
much time as all of this. Linux 5.12 or later is needed (`mount_setattr`).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import re
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path

_NEWNS, _NEWNET, _NEWUSER, _NEWPID = 0x00020000, 0x40000000, 0x10000000, 0x20000000
_NEWCGROUP, _NEWUTS, _NEWIPC = 0x02000000, 0x04000000, 0x08000000
_EVERYTHING = _NEWUSER | _NEWNS | _NEWPID | _NEWNET | _NEWIPC | _NEWUTS | _NEWCGROUP

_BIND, _REC, _PRIVATE = 0x1000, 0x4000, 1 << 18
NOSUID, NODEV, NOEXEC = 2, 4, 8
_DETACH = 2

_ATTRIBUTE_READ_ONLY = 1  # those of mount_setattr have the values of mount's NOSUID, NODEV, NOEXEC
_SYS_MOUNT_SETATTR = 442
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000

_SYS_KEYCTL = {"x86_64": 250, "aarch64": 219, "ppc64le": 271, "s390x": 280, "riscv64": 219}
_JOIN_SESSION_KEYRING = 1

_SET_PDEATHSIG, _SET_DUMPABLE, _DROP_FROM_BOUNDING = 1, 4, 24
_SET_NO_NEW_PRIVILEGES, _AMBIENT, _CLEAR_AMBIENT = 38, 47, 4
_CAPABILITIES_3 = 0x20080522
DAC_READ_SEARCH = 2
"""The one capability that is kept: files of the recording that belong to another user are read with
it. No file that only root of the host may read is in the tree."""

_libc = ctypes.CDLL(None, use_errno=True)


class NoNamespacesError(Exception):
    """This host does not let this user seal a shell. The text names what is missing."""


def enter(ask_for_map: Callable[[], None]) -> None:
    """Leave the host's users, mounts, network, IPC and name; children get PIDs of their own. The
    caller has one thread.

    Root becomes the root of a user namespace, too: the host's root could leave every other seal.
    `ask_for_map` lets the parent call `map_users`, which only a process outside may do for more
    than one user. Raises `NoNamespacesError`.
    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        call("unshare", _EVERYTHING)
        if uid == 0:
            ask_for_map()
            os.setgroups([])
        else:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
            Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        _mount("none", "/", "", _REC | _PRIVATE)
        end_with_parent()
    except OSError as error:
        raise NoNamespacesError(_what_is_missing(error, uid)) from None
    _bring_up_loopback()


def map_users(pid: int) -> None:
    """Let the root of another process's user namespace have every user that there is here."""
    for name in ("uid_map", "gid_map"):
        ours = Path(f"/proc/self/{name}").read_text().split()
        # What is mapped here is mapped there, each to itself.
        ranges = zip(ours[::3], ours[2::3], strict=True)
        text = "\n".join(f"{first} {first} {count}" for first, count in ranges)
        Path(f"/proc/{pid}/{name}").write_text(text)


_ELSE = "`hoodsnap serve` needs no namespaces"


def _what_is_missing(error: OSError, uid: int) -> str:
    why = error.strerror or str(error)
    for kind in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup"):
        name = f"user.max_{kind}_namespaces"
        if _sysctl(name) == "0":
            return (
                f"this host allows no {kind} namespaces ({name} is 0): have root run"
                f" `sysctl {name}=15000`; {_ELSE}"
            )
    switches = (
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
        ("kernel.unprivileged_userns_clone", "0", "1"),
    )
    for name, closed, value in switches if uid else ():
        if _sysctl(name) == closed:
            return (
                f"this host gives ordinary users no namespaces ({name} is {closed}): run it with"
                f" sudo, or have root run `sysctl {name}={value}`; {_ELSE}"
            )
    if uid == 0:
        return (
            f"the kernel gives no namespaces, not even to root ({why}), as in a container"
            f" without CAP_SYS_ADMIN: run it outside of the container; {_ELSE}"
        )
    return f"this host gives ordinary users no namespaces ({why}): run it with sudo; {_ELSE}"


def _sysctl(name: str) -> str | None:
    try:
        return Path("/proc/sys", *name.split(".")).read_text().strip()
    except OSError:
        return None


def allow_no_more(first_pid: int) -> None:
    """Close the user namespace to further namespaces, and start PIDs above `first_pid`, so that no
    recorded PID is the number of a process in the shell. For the first process; the host's /proc
    is still mounted.

    Both are a second line of defense: where /proc/sys can't be written, nothing else is lost.
    """
    with contextlib.suppress(OSError):
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
    with contextlib.suppress(OSError, ValueError):
        highest = int(Path("/proc/sys/kernel/pid_max").read_text())
        if first_pid < highest * 3 // 4:
            Path("/proc/sys/kernel/ns_last_pid").write_text(str(first_pid))


def end_with_parent() -> None:
    """Be killed when the parent ends, however it ends."""
    call("prctl", _SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def drop_privileges() -> None:
    """Give up every capability but `DAC_READ_SEARCH`, for good, and the caller's keys; and let no
    other process of the namespaces look into this one."""
    # Its memory has the environment in which hoodsnap was started.
    call("prctl", _SET_DUMPABLE, 0, 0, 0, 0)
    if (keyctl := _SYS_KEYCTL.get(platform.machine())) is not None:
        with contextlib.suppress(OSError):  # a kernel without keys has none to give up
            call("syscall", keyctl, _JOIN_SESSION_KEYRING, None)
    call("prctl", _SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    with contextlib.suppress(OSError):
        call("prctl", _AMBIENT, _CLEAR_AMBIENT, 0, 0, 0)
    for capability in range(64):
        if capability == DAC_READ_SEARCH:
            continue
        try:
            call("prctl", _DROP_FROM_BOUNDING, capability, 0, 0, 0)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            break  # the kernel has no more of them
    header = struct.pack("=Ii", _CAPABILITIES_3, 0)
    kept = 1 << DAC_READ_SEARCH
    call("capset", header, struct.pack("=6I", kept, kept, 0, 0, 0, 0))


def memory(place: str, *, flags: int = NOSUID | NODEV, data: str = "mode=0755") -> None:
    """Mount an empty file system in memory. It ends with the namespaces."""
    _mount("tmpfs", place, "tmpfs", flags, data)


def processes(place: str) -> None:
    """Mount the /proc of these namespaces: its processes, and nothing else of the kernel. Raises
    `NoNamespacesError` where a part of the host's own /proc is covered."""
    try:
        _mount("proc", place, "proc", NOSUID | NODEV | NOEXEC, "subset=pid")
    except OSError as error:
        raise NoNamespacesError(
            f"the kernel gives no /proc of its own to a namespace ({error.strerror}), as in a"
            f" container that covers parts of /proc: run it outside of the container; {_ELSE}"
        ) from None


def terminals(place: str) -> None:
    """Mount pseudo terminals, apart from those of the host."""
    _mount("devpts", place, "devpts", NOSUID | NOEXEC, "newinstance,ptmxmode=0666,mode=0620")


def bind(source: str, place: str, *, flags: int = NOSUID | NODEV) -> None:
    """Mount a file or folder, and all that is mounted below it, in another place, read-only."""
    _mount(source, place, "", _BIND | _REC)
    read_only(place, flags)


def bind_writable(source: str, place: str) -> None:
    """Mount a folder in another place as it is."""
    _mount(source, place, "", _BIND)


def read_only(place: str, flags: int = NOSUID | NODEV, *, below: bool = True) -> None:
    """Make a mount read-only, and (`below`) every mount below it."""
    attributes = struct.pack("=4Q", flags | _ATTRIBUTE_READ_ONLY, 0, 0, 0)
    recursive = _AT_RECURSIVE if below else 0
    size = ctypes.c_size_t(len(attributes))
    try:
        call(
            "syscall", _SYS_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(place), recursive,
            attributes, size,
        )  # fmt: skip
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        raise NoNamespacesError(f"this kernel is older than Linux 5.12; {_ELSE}") from None


def change_root(place: str, before: str) -> None:
    """Let a mount be the root; the root before it is then at the folder `before` of it."""
    os.chdir(place)
    call("pivot_root", b".", os.fsencode(before))
    os.chdir("/")


def detach(place: str) -> None:
    """Take away a mount and all that is mounted below it."""
    call("umount2", os.fsencode(place), _DETACH)


def listening() -> tuple[str, ...]:
    """The files of all sockets that accept connections in this network namespace."""
    text = Path("/proc/net/unix").read_text(errors="surrogateescape")
    # These flags say that it accepts connections.
    found = re.findall(r"^\S+: \S+ \S+ 00010000 \S+ \S+ +\d+ (/.*)$", text, re.MULTILINE)
    return tuple(sorted(set(found)))


def _bring_up_loopback() -> None:
    get_flags, set_flags, up = 0x8913, 0x8914, 0x1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh22x", b"lo", 0)
        flags = struct.unpack("16sh22x", fcntl.ioctl(control, get_flags, request))[1]
        fcntl.ioctl(control, set_flags, struct.pack("16sh22x", b"lo", flags | up))


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    encoded = (os.fsencode(text) for text in (source, target, kind))
    call("mount", *encoded, ctypes.c_ulong(flags), os.fsencode(data))


def call(name: str, *arguments: object) -> None:
    """A function of the C library. Raises `OSError` where it fails."""
    if getattr(_libc, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
