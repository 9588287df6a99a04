"""QEMU system emulators, told apart from processes that merely carry their name.

An emulator is known by its executable: a file of an emulator's name that belongs to root and that
nobody else can write to. The command line is the process's own word. Any account may run the
host's QEMU, so being an emulator does not make a process a guest of nova's: its account tells
(`hoodsnap.facts.host.account`).
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from hoodsnap.collect.recorder import RefusedError
from hoodsnap.collect.running_process import RunningProcess, is_trusted_program
from hoodsnap.collect.service import account

# qemu-kvm is Red Hat's name, kvm Debian's and Proxmox', qemu that of the oldest; Nix wraps it in a
# `.qemu-system-x86_64-wrapped`. Not meant: qemu-img, qemu-nbd, qemu-ga, the kernel's own kvm-pit.
NAME = re.compile(r"\.?(qemu-system-.+|qemu-kvm(-.+)?|kvm(-spice)?|qemu)")

ACCOUNTS = ("libvirt-qemu", "qemu")
"""The accounts that distributions' libvirt runs guests as, beside root's."""

KOLLA_UID = 42427
"""The account `qemu` of Kolla's and TripleO's images."""


def is_emulator(pid: int) -> bool:
    """Return whether a process is a QEMU that runs a machine.

    Only root may see the executable of others' processes; of those that may not be seen, the ones
    of accounts that libvirt runs guests as are taken by their name. Raises `OSError` if the process
    has ended.
    """
    try:
        return emulator_of(pid) is not None
    except RefusedError:
        return False


class Emulator(NamedTuple):
    """The emulator that a process runs."""

    exe: str | None
    """Its path; None if only root may see it."""
    uid: int | None
    """The process's account; None if it has the rights of more than one."""


def emulator_of(pid: int) -> Emulator | None:
    """Return the emulator that a process runs; None if it has another program.

    Raises `RefusedError` (`denied`) if it carries an emulator's name and is not believed, and
    `OSError` if it has ended.
    """
    with RunningProcess(pid) as process:
        try:
            if process.is_recorded:  # its program need not be on this machine
                path = process.exe_path
                return Emulator(path, process.uid) if _is_named(path) else None
            path, status = process.exe
        except FileNotFoundError:  # a thread of the kernel, or a zombie
            return None
        except PermissionError:
            words = process.words
            if not words or not _is_named(words[0]):
                return None
            if not _is_of_libvirt(process):
                raise RefusedError("denied", "only root can see which executable it runs") from None
            return Emulator(None, process.uid)
        if not _is_named(path):
            return None
        # The operator may have built an emulator.
        if not is_trusted_program(status, frozenset({os.geteuid()})):
            raise RefusedError("denied", f"others than root can write to its executable {path}")
        return Emulator(path, process.uid)


def _is_named(path: str) -> bool:
    return NAME.fullmatch(os.path.basename(path.removesuffix(" (deleted)"))) is not None


def _is_of_libvirt(process: RunningProcess) -> bool:
    uid = process.uid
    if uid in (0, os.geteuid()):
        return True
    own = [found.pw_uid for name in ACCOUNTS if (found := account(name)) is not None]
    return uid in own or uid == KOLLA_UID
