"""QEMU system emulators, distinguished from processes that only have an emulator's name.

An emulator is identified by its executable: a file with an emulator's name that belongs to root
and that no other account can write to. The command line proves nothing, because the process chose
it. Any account may run the host's QEMU, so an emulator is not necessarily one of nova's guests; its
account decides (`hoodsnap.facts.host.account`).
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from hoodsnap.collect.recorder import RefusedError
from hoodsnap.collect.trusted.running_process import RunningProcess, is_trusted_program
from hoodsnap.collect.trusted.service import account

# qemu-kvm is Red Hat's name, kvm is Debian's and Proxmox', qemu that of the oldest releases. Nix
# runs it as `.qemu-system-x86_64-wrapped`. qemu-img, qemu-nbd, qemu-ga and the kernel's kvm-pit
# must not match.
NAME = re.compile(r"\.?(qemu-system-.+|qemu-kvm(-.+)?|kvm(-spice)?|qemu)")

ACCOUNTS = ("libvirt-qemu", "qemu")
"""Accounts under which the distributions' libvirt runs guests, besides root."""

KOLLA_UID = 42427
"""UID of the account `qemu` in Kolla's and TripleO's images."""


def is_emulator(pid: int) -> bool:
    """Return True if a process is a QEMU system emulator.

    Only root may see the executables of other accounts' processes. A process whose executable can't
    be seen is accepted by its name if its account is one under which libvirt runs guests. Raises
    `OSError` if the process has ended.
    """
    try:
        return emulator_of(pid) is not None
    except RefusedError:
        return False


class Emulator(NamedTuple):
    """The emulator that a process runs, and the account that runs it."""

    exe: str | None
    """Path of the executable; None if only root may see it."""
    uid: int | None
    """UID of the process; None if the process has the rights of more than one account."""


def emulator_of(pid: int) -> Emulator | None:
    """Return the emulator that a process runs; None if it runs another program.

    Raises `RefusedError` (`denied`) if the process has an emulator's name but is not trusted, and
    `OSError` if it has ended.
    """
    with RunningProcess(pid) as process:
        try:
            if process.is_recorded:  # its executable need not exist on this machine
                path = process.exe_path
                return Emulator(path, process.uid) if _is_named(path) else None
            path, status = process.exe
        except FileNotFoundError:  # a kernel thread or a zombie
            return None
        except PermissionError:
            words = process.words
            if not words or not _is_named(words[0]):
                return None
            if not _is_of_libvirt(process):
                message = "only root can see which executable it runs"
                raise RefusedError("denied", message) from None
            return Emulator(None, process.uid)
        if not _is_named(path):
            return None
        # The operator may run a QEMU of their own build.
        if not is_trusted_program(status, frozenset({os.geteuid()})):
            message = f"accounts other than root can write to its executable {path}"
            raise RefusedError("denied", message)
        return Emulator(path, process.uid)


def _is_named(path: str) -> bool:
    return NAME.fullmatch(os.path.basename(path.removesuffix(" (deleted)"))) is not None


def _is_of_libvirt(process: RunningProcess) -> bool:
    uid = process.uid
    if uid in (0, os.geteuid()):
        return True
    own = [found.pw_uid for name in ACCOUNTS if (found := account(name)) is not None]
    return uid in own or uid == KOLLA_UID
