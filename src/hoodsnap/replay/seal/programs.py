"""The programs of this machine that a sealed shell can run, and the folders that contain them.

These are folders of the system, Python's own, and the virtual environments of clients found through
the caller's PATH. Only a user who may replace the programs can bind a socket in one of them.
"""

from __future__ import annotations

import os
import shutil
import site
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import hoodsnap

CLIENTS = (
    *("ps", "pgrep", "pidof", "pidwait", "top", "pstree", "w"),
    *("virsh", "mysql", "openstack", "nova", "qemu-img", "qmp-shell"),
)
"""Programs that talk to the recording."""

SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
    "/gnu/store",
)

SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")

_NO_PROGRAMS = ("/", "/home", "/root", "/etc", "/var", "/tmp", "/run", "/dev", "/proc", "/sys")  # noqa: S108 none of them is written
"""Folders that hold no programs, even if Python or PATH names them."""


@dataclass(frozen=True)
class Programs:
    """Folders with programs, as absolute paths."""

    trees: tuple[tuple[str, str], ...]
    """Folders besides those of the system: path in the shell, and path on this machine."""
    path: tuple[str, ...]
    """Folders for PATH."""


def found() -> Programs:
    """Find this machine's programs, from this Python and the caller's PATH and home."""
    wanted = [*_of_python(), *_of_clients()]
    trees: dict[str, str] = {}
    for folder in wanted:
        real = os.path.realpath(folder)
        for place in (folder, real):
            if _may_be_seen(place) and _may_be_seen(real) and os.path.isdir(real):
                trees.setdefault(place, real)
    # A folder below another one is included with it.
    kept = {
        place: real
        for place, real in trees.items()
        if not any(is_within(place, other) for other in trees if other != place)
    }
    visible = (*SYSTEM, *kept)
    path = [os.path.normpath(each) for each in os.environ.get("PATH", "").split(":") if each]
    path += [os.path.dirname(sys.executable), *SYSTEM_PATH]
    shown = (each for each in path if any(is_within(each, top) for top in visible))
    return Programs(tuple(sorted(kept.items())), tuple(dict.fromkeys(shown)))


def is_within(path: str, folder: str) -> bool:
    """True if a path is the folder or is below it. Both are absolute."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _may_be_seen(place: str) -> bool:
    home = os.path.realpath(os.path.expanduser("~"))
    if not os.path.isabs(place) or place in (*_NO_PROGRAMS, home):
        return False
    return not any(is_within(place, top) for top in SYSTEM)


def _of_python() -> Iterator[str]:
    """Yield Python's prefixes and libraries, and this package. Other contents of the folder above
    the package stay hidden, because it may be a working folder."""
    yield from (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix)
    yield from site.getsitepackages()
    if site.ENABLE_USER_SITE:
        yield site.getusersitepackages()
    yield os.path.dirname(os.path.abspath(hoodsnap.__file__))


def _of_clients() -> Iterator[str]:
    """Yield the virtual environments of the clients, and the prefixes of their Pythons."""
    for name in CLIENTS:
        program = shutil.which(name)
        if program is None or not os.path.isabs(program):
            continue
        for each in (program, os.path.realpath(program)):
            top = os.path.dirname(os.path.dirname(each))
            if os.path.isfile(f"{top}/pyvenv.cfg"):
                yield top
                python = os.path.realpath(f"{top}/bin/python")
                yield os.path.dirname(os.path.dirname(python))
