"""System calls, through ctypes, for the namespaces, mounts and privileges of a sealed process.

The programs that make these calls (unshare, mount, ip, bwrap) may not be installed, and each takes
as long as all of this. Linux 5.12 or later is required (`mount_setattr`).
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

_ATTRIBUTE_READ_ONLY = 1  # mount_setattr's other attributes equal NOSUID, NODEV and NOEXEC
_SYS_MOUNT_SETATTR = 442
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000

_SYS_KEYCTL = {"x86_64": 250, "aarch64": 219, "ppc64le": 271, "s390x": 280, "riscv64": 219}
_JOIN_SESSION_KEYRING = 1

_SET_PDEATHSIG, _SET_DUMPABLE, _DROP_FROM_BOUNDING = 1, 4, 24
_SET_NO_NEW_PRIVILEGES, _AMBIENT, _CLEAR_AMBIENT = 38, 47, 4
_CAPABILITIES_3 = 0x20080522
DAC_READ_SEARCH = 2
"""The only capability that is kept: it is needed to read recorded files that belong to other users.
The tree holds no file that only the host's root may read."""

_libc = ctypes.CDLL(None, use_errno=True)


class NoNamespacesError(Exception):
    """This host does not let this user create a sealed shell. The text names what is missing."""


def enter(ask_for_map: Callable[[], None]) -> None:
    """Enter new namespaces for users, mounts, network, IPC, host name and cgroups; children get
    PIDs of their own. The caller must have only one thread.

    Root enters a user namespace as well, because the host's root could break any other seal.
    `ask_for_map` makes the parent call `map_users`: to map more than one user, a process outside
    is needed. Raises `NoNamespacesError`.
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
    """Map all users and groups of this user namespace into that of another process."""
    for name in ("uid_map", "gid_map"):
        ours = Path(f"/proc/self/{name}").read_text().split()
        # Every id that is mapped here is mapped there, to itself.
        ranges = zip(ours[::3], ours[2::3], strict=True)
        text = "\n".join(f"{first} {first} {count}" for first, count in ranges)
        Path(f"/proc/{pid}/{name}").write_text(text)


_ELSE = "`hoodsnap serve` works without namespaces"


def _what_is_missing(error: OSError, uid: int) -> str:
    why = error.strerror or str(error)
    for kind in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup"):
        name = f"user.max_{kind}_namespaces"
        if _sysctl(name) == "0":
            return (
                f"this host allows no {kind} namespaces ({name} is 0): as root, run"
                f" `sysctl {name}=15000`; {_ELSE}"
            )
    switches = (
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
        ("kernel.unprivileged_userns_clone", "0", "1"),
    )
    for name, closed, value in switches if uid else ():
        if _sysctl(name) == closed:
            return (
                f"this host allows no namespaces for ordinary users ({name} is {closed}): run the"
                f" command with sudo or, as root, run `sysctl {name}={value}`; {_ELSE}"
            )
    if uid == 0:
        return (
            f"the kernel allows no namespaces, not even for root ({why}), as in a container"
            f" without CAP_SYS_ADMIN: run the command outside the container; {_ELSE}"
        )
    return (
        f"this host allows no namespaces for ordinary users ({why}): run the command with sudo;"
        f" {_ELSE}"
    )


def _sysctl(name: str) -> str | None:
    try:
        return Path("/proc/sys", *name.split(".")).read_text().strip()
    except OSError:
        return None


def allow_no_more(first_pid: int) -> None:
    """Forbid further namespaces in the user namespace, and start PIDs above `first_pid`, so that no
    process in the shell has a recorded PID. To be called by the first process, while the host's
    /proc is still mounted.

    Both are a second line of defense: if /proc/sys can't be written, the seal still holds.
    """
    with contextlib.suppress(OSError):
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
    with contextlib.suppress(OSError, ValueError):
        highest = int(Path("/proc/sys/kernel/pid_max").read_text())
        if first_pid < highest * 3 // 4:
            Path("/proc/sys/kernel/ns_last_pid").write_text(str(first_pid))


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent ends for any reason."""
    call("prctl", _SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def drop_privileges() -> None:
    """Permanently drop all capabilities but `DAC_READ_SEARCH`, and the caller's keys; and protect
    this process from inspection by other processes of the namespaces."""
    # The memory of this process holds the environment in which hoodsnap was started.
    call("prctl", _SET_DUMPABLE, 0, 0, 0, 0)
    if (keyctl := _SYS_KEYCTL.get(platform.machine())) is not None:
        with contextlib.suppress(OSError):  # the kernel may be built without keys
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
            break  # the kernel has no more capabilities
    header = struct.pack("=Ii", _CAPABILITIES_3, 0)
    kept = 1 << DAC_READ_SEARCH
    call("capset", header, struct.pack("=6I", kept, kept, 0, 0, 0, 0))


def memory(place: str, *, flags: int = NOSUID | NODEV, data: str = "mode=0755") -> None:
    """Mount an empty file system in memory, which disappears with the namespaces."""
    _mount("tmpfs", place, "tmpfs", flags, data)


def processes(place: str) -> None:
    """Mount the /proc of these namespaces, with processes only.

    Raises `NoNamespacesError` if parts of the host's own /proc are covered by other mounts.
    """
    try:
        _mount("proc", place, "proc", NOSUID | NODEV | NOEXEC, "subset=pid")
    except OSError as error:
        raise NoNamespacesError(
            f"the kernel does not allow a namespace to mount /proc ({error.strerror}), as in a"
            f" container that covers parts of /proc: run the command outside the container; {_ELSE}"
        ) from None


def terminals(place: str) -> None:
    """Mount pseudo-terminals, separate from those of the host."""
    _mount("devpts", place, "devpts", NOSUID | NOEXEC, "newinstance,ptmxmode=0666,mode=0620")


def bind(source: str, place: str, *, flags: int = NOSUID | NODEV) -> None:
    """Bind-mount a file or folder, with all mounts below it, at another place, read-only."""
    _mount(source, place, "", _BIND | _REC)
    read_only(place, flags)


def bind_writable(source: str, place: str) -> None:
    """Bind-mount a folder at another place, without changing its flags."""
    _mount(source, place, "", _BIND)


def read_only(place: str, flags: int = NOSUID | NODEV, *, below: bool = True) -> None:
    """Make a mount read-only and, with `below`, every mount below it."""
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
    """Make a mount the new root; the old root is then at the folder `before` of the new one."""
    os.chdir(place)
    call("pivot_root", b".", os.fsencode(before))
    os.chdir("/")


def detach(place: str) -> None:
    """Unmount a mount and all mounts below it."""
    call("umount2", os.fsencode(place), _DETACH)


def listening() -> tuple[str, ...]:
    """Return the paths of all UNIX sockets that accept connections in this network namespace."""
    text = Path("/proc/net/unix").read_text(errors="surrogateescape")
    # The flags 00010000 mean that a socket accepts connections.
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
    """Call a function of the C library. Raises `OSError` if it fails."""
    if getattr(_libc, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
