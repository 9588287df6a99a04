"""The namespaces that a shell lives in: its own mounts, its own network, and nobody else's sockets.

System calls by ctypes: the programs that make them (unshare, mount, ip) may be missing, and each
costs as much time as all of this.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import socket
import stat
import struct
from collections.abc import Callable
from pathlib import Path

_NEWNS, _NEWNET, _NEWUSER = 0x00020000, 0x40000000, 0x10000000
_BIND, _REC, _PRIVATE, _NOSUID, _NODEV, _NOEXEC = 0x1000, 0x4000, 1 << 18, 2, 4, 8
_RDONLY, _REMOUNT = 1, 32

_libc = ctypes.CDLL(None, use_errno=True)


class NoNamespaces(Exception):
    """This kernel does not let this user have namespaces of its own. The text says what to do."""


def enter(ask_for_map: Callable[[], None]) -> None:
    """Leave the host's users, mounts and network for ones of our own. Of a process with one thread.

    Root, too, becomes the root of a namespace only: else `ip netns exec` or `nsenter` would lead
    back. `ask_for_map` lets the parent call `map_users`, since only who stayed outside may let
    root keep more than one user. Raises `NoNamespaces`.
    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        _call("unshare", _NEWUSER | _NEWNS | _NEWNET)
        if uid == 0:
            ask_for_map()
        else:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
            Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        _mount("none", "/", "", _REC | _PRIVATE)
    except OSError as error:
        raise NoNamespaces(_what_to_do(error, uid)) from None
    _bring_up_loopback()


def map_users(pid: int) -> None:
    """Let the root of another process's user namespace have every user that there is here."""
    for name in ("uid_map", "gid_map"):
        ours = Path(f"/proc/self/{name}").read_text().split()
        # What is mapped here is mapped there, each to itself.
        ranges = zip(ours[::3], ours[2::3], strict=True)
        text = "\n".join(f"{first} {first} {count}" for first, count in ranges)
        Path(f"/proc/{pid}/{name}").write_text(text)


def _what_to_do(error: OSError, uid: int) -> str:
    why = error.strerror or str(error)
    if uid == 0:
        return f"the kernel refuses namespaces even to root ({why}): `hoodsnap serve` needs none"
    switches = {
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": ("1", "=0"),
        "/proc/sys/kernel/unprivileged_userns_clone": ("0", "=1"),
    }
    for path, (closed, value) in switches.items():
        try:
            is_closed = Path(path).read_text().strip() == closed
        except OSError:
            continue
        if is_closed:
            name = path.removeprefix("/proc/sys/").replace("/", ".")
            return (
                f"this host gives ordinary users no namespaces ({name}): run it with sudo, or have"
                f" root run `sysctl {name}{value}`; `hoodsnap serve` needs none"
            )
    return (
        f"this host gives ordinary users no namespaces ({why}): run it with sudo; `hoodsnap serve`"
        " needs none"
    )


_memory: set[int] = set()
"""The devices of the file systems that we have in memory."""


def memory(place: Path, *, programs: bool = True) -> None:
    """A file system in memory, which ends with us; `programs`: from which some may be run."""
    flags = _NOSUID | _NODEV | (0 if programs else _NOEXEC)
    _mount("tmpfs", str(place), "tmpfs", flags, "mode=0755")
    _memory.add(place.stat().st_dev)


def bind(source: Path, place: Path) -> None:
    """Let a file or folder stand in another's place, which is made if it is not there.

    Nothing is made on the host's own file systems: a folder that would get a new entry is shadowed
    by one in memory, which has all its entries.
    """
    if not os.path.lexists(place):
        _shadow_above(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            place.mkdir()
        else:
            place.touch()
    _mount(str(source), os.path.realpath(place), "", _BIND | _REC)


def _shadow_above(place: Path) -> None:
    parent = place.parent
    while not parent.is_dir():
        parent = parent.parent
    parent = Path(os.path.realpath(parent))
    if _is_ours(parent):
        return
    names = sorted(os.listdir(parent))
    # What is in it is reached through a descriptor: the path will lead to the new one.
    handle = os.open(parent, os.O_PATH | os.O_DIRECTORY)
    try:
        mode = stat.S_IMODE(os.fstat(handle).st_mode)
        memory(parent)
        parent.chmod(mode)
        for name in names:
            _take_over(f"/proc/self/fd/{handle}/{name}", parent / name)
    finally:
        os.close(handle)


def _is_ours(folder: Path) -> bool:
    return folder.stat().st_dev in _memory


def _take_over(old: str, new: Path) -> None:
    try:
        kind = os.lstat(old).st_mode
        if stat.S_ISLNK(kind):
            new.symlink_to(os.readlink(old))
            return
        if stat.S_ISDIR(kind):
            new.mkdir()
        else:
            new.touch()
        _mount(old, str(new), "", _BIND | _REC)
    except OSError:
        return  # it went away, or is not ours to see: it is not needed


def silence(sockets: tuple[str, ...], cover: Path) -> None:
    """Put an empty file over each of these sockets, so that none leads out of the namespaces.

    A network namespace does not hold these, and a client's own configuration may name any.
    """
    cover.touch()
    for path in sockets:
        try:
            if stat.S_ISSOCK(os.stat(path).st_mode):
                _mount(str(cover), os.path.realpath(path), "", _BIND)
        except OSError:
            continue  # it is not there (any more), or out of reach for us as well


def listening() -> tuple[str, ...]:
    """The files of all sockets that somebody listens on. A network namespace shows its own only,
    so ask before you enter one."""
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
    _call("mount", *encoded, ctypes.c_ulong(flags), os.fsencode(data))


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
