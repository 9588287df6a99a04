"""File tree of a sealed shell: a new root in memory. Of the host it has only programs and the files
in /etc that programs need, read-only.

Nothing else can be reached: no other user's files, and no socket of the host under any name.
Recorded files can't be executed or changed. New files are in memory and disappear with the shell.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable

from hoodsnap.replay.seal import namespaces
from hoodsnap.replay.seal.namespaces import NODEV, NOEXEC, NOSUID
from hoodsnap.replay.seal.programs import SYSTEM, Programs, is_within

HOST = "/host"
"""Path of the host's root while the tree is built."""

RECORDED = "/recorded"
"""Folder in which recorded files are created; its subfolders are then bind-mounted in place."""

PROCESSES = "/run/proc"
"""The real /proc of the shell's own processes."""

HOME = "/root"

WRITABLE = (HOME, "/tmp", "/var/tmp", "/dev/shm")

DATA = NOSUID | NODEV | NOEXEC

ETC = (
    *("alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ld-musl-x86_64.path"),
    *("localtime", "timezone", "locale.alias", "locale.conf", "locale.gen", "default/locale"),
    *("os-release", "debian_version", "redhat-release", "lsb-release"),
    *("protocols", "services", "rpc", "ethertypes", "networks", "gai.conf", "host.conf"),
    *("terminfo", "inputrc", "bash_completion.d", "DIR_COLORS", "magic", "magic.mime"),
    *("mime.types", "manpath.config", "nanorc", "python3", "crypto-policies"),
    *("ssl/certs", "ssl/openssl.cnf", "ca-certificates.conf", "pki/tls/certs"),
    *("pki/tls/openssl.cnf", "pki/tls/cert.pem", "pki/ca-trust/extracted", "iproute2"),
)
"""Files in the host's /etc that programs need. None holds a secret, and none leads a client to a
server."""

_LARGEST = 4 << 20
"""Largest number of bytes copied of a file in /etc."""

_OWN_ETC = {
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\nservices: files\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "my.cnf": "[client]\nsocket=/run/mysqld/mysqld.sock\n",
    "mysql/my.cnf": "[client]\nsocket=/run/mysqld/mysqld.sock\n",
    "shells": "/bin/sh\n/bin/bash\n",
}


def begin(programs: Programs) -> None:
    """Change to a new root, with the host's root at `HOST`. To be called by a process that has
    entered its own namespaces."""
    namespaces.memory("/tmp", data="mode=0755,size=64m,nr_inodes=100k")
    for name in ("host", "recorded", "run", "proc", "dev", "etc", "root", "tmp", "sys", "var"):
        os.mkdir(f"/tmp/{name}")
    for name in ("var/tmp", "run/proc", "run/lock", "dev/shm", "dev/pts", "etc/mysql"):
        os.mkdir(f"/tmp/{name}")
    namespaces.processes("/tmp/run/proc")
    namespaces.change_root("/tmp", "host")
    os.symlink("/run", "/var/run")
    os.symlink("/run/lock", "/var/lock")
    namespaces.memory(RECORDED, flags=DATA, data="mode=0755,size=1g,nr_inodes=700k")
    for name in ("images/var/lib/libvirt/qemu", "log", "proc"):
        os.makedirs(f"{RECORDED}/{name}")
    for top in SYSTEM:
        _take_over(top)
    for place, _ in programs.trees:
        # Recorded files below these folders are refused, and no recorded link can replace them.
        os.makedirs(f"{RECORDED}/images{place}", exist_ok=True)
    _make_devices()
    _make_etc()


def finish(programs: Programs, places: Iterable[str]) -> None:
    """Mount recorded files and programs in their places, and detach the host's root.

    `places`: folders for recorded images, such as `/var/lib`. Only `WRITABLE` can be written to.
    """
    namespaces.memory("/tmp", data="mode=0755,size=512m,nr_inodes=100k")
    for number, place in enumerate(WRITABLE):
        os.mkdir(f"/tmp/{number}")
        os.chmod(f"/tmp/{number}", 0o700 if place == HOME else 0o1777)
    for number, place in sorted(enumerate(WRITABLE), key=lambda pair: pair[1] == "/tmp"):
        namespaces.bind_writable(f"/tmp/{number}", place)
    for place in places:
        source = f"{RECORDED}/images{place}"
        if os.path.isdir(source):
            os.makedirs(place, exist_ok=True)
            namespaces.bind(source, place, flags=DATA)
    for name, place in (("log", "/var/log"), ("proc", "/proc")):
        os.makedirs(place, exist_ok=True)
        namespaces.bind(f"{RECORDED}/{name}", place, flags=DATA)
    for place, real in programs.trees:
        os.makedirs(place, exist_ok=True)
        namespaces.bind(HOST + real, place)
    namespaces.detach(RECORDED)
    namespaces.detach(HOST)
    os.rmdir(RECORDED)
    os.rmdir(HOST)


def close() -> None:
    """Make the root and the real /proc read-only. The stand-ins' sockets must be bound before."""
    namespaces.read_only(PROCESSES, DATA)
    namespaces.read_only("/", below=False)


def write(path: str, text: str) -> None:
    """Write a file in the new tree, and create the folders above it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", errors="surrogateescape") as file:
        file.write(text)


def _take_over(path: str) -> None:
    """Bind-mount a folder of the host or, if it is a link, create the same link."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if stat.S_ISLNK(os.lstat(HOST + path).st_mode):
            os.symlink(os.readlink(HOST + path), path)
        elif os.path.isdir(HOST + path):
            os.makedirs(path, exist_ok=True)
            namespaces.bind(HOST + path, path)


def _make_devices() -> None:
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        with open(f"/dev/{name}", "x"):
            pass
        namespaces.bind(f"{HOST}/dev/{name}", f"/dev/{name}", flags=NOSUID | NOEXEC)
    namespaces.terminals("/dev/pts")
    os.symlink("pts/ptmx", "/dev/ptmx")
    os.symlink("/proc/self/fd", "/dev/fd")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{number}", f"/dev/{name}")


def _make_etc() -> None:
    for name in ETC:
        source, place = f"{HOST}/etc/{name}", f"/etc/{name}"
        # Files that this user can't read, or that only root may read, are left out.
        with contextlib.suppress(OSError):
            kind = os.lstat(source).st_mode
            os.makedirs(os.path.dirname(place), exist_ok=True)
            if stat.S_ISLNK(kind):
                os.symlink(os.readlink(source), place)
            elif stat.S_ISDIR(kind):
                os.mkdir(place)
                namespaces.bind(source, place, flags=DATA)
            elif stat.S_ISREG(kind) and kind & stat.S_IROTH:
                with open(source, "rb") as file, open(place, "wb") as copy:
                    copy.write(file.read(_LARGEST))
    for name, text in _OWN_ETC.items():
        write(f"/etc/{name}", text)


def covers(path: str, programs: Programs) -> bool:
    """True if a recorded file at this path would be in a folder with this machine's programs."""
    return any(is_within(path, place) for place, _ in programs.trees)
