"""Filter for system calls (seccomp), for resources that no namespace separates.

Only sockets of the families local, internet and netlink are allowed: others lead out, as AF_VSOCK
does from a virtual machine to its hypervisor. io_uring is denied because it can open sockets that
the filter does not see, and keys are denied because they belong to a user, not to a namespace.
libseccomp's Python bindings come only with distributions, and so few rules can do without them.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from dataclasses import dataclass

from hoodsnap.replay.seal import namespaces


@dataclass(frozen=True)
class _Machine:
    """System call numbers of an architecture; `arch` is AUDIT_ARCH_* of linux/audit.h."""

    arch: int
    socket: int
    keys: tuple[int, int, int]
    """Numbers of add_key, request_key and keyctl."""


_MACHINES = {
    "x86_64": _Machine(0xC000003E, 41, (248, 249, 250)),
    "aarch64": _Machine(0xC00000B7, 198, (217, 218, 219)),
}
"""Architectures with a filter; on others there is no filter."""

_IO_URING_SETUP = 425
_FAMILIES = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6, AF_NETLINK."""

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER, _ARCH, _FIRST_ARGUMENT = 0, 4, 16  # in struct seccomp_data
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_OTHER_ABI = 0x40000000
"""Bit in the numbers of x32 calls on x86_64."""

_SET_SECCOMP, _FILTER = 22, 2


def enter() -> None:
    """Permanently filter the system calls of this thread and all its children.

    To be called after privileges were dropped.
    """
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return
    program = _program(machine)
    code = ctypes.create_string_buffer(program, len(program))
    filter_ = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    namespaces.call("prctl", _SET_SECCOMP, _FILTER, filter_, 0, 0)


def _program(machine: _Machine) -> bytes:
    denied = (*machine.keys, _IO_URING_SETUP)
    lines = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, machine.arch),
        (_RETURN, 0, 0, _KILL),  # 32-bit calls have other numbers
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _OTHER_ABI),
        (_RETURN, 0, 0, _ERROR | errno.EPERM),
    ]
    for number in denied:
        lines += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERROR | errno.EPERM)]
    lines += [
        (_EQUAL, 1, 0, machine.socket),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
    ]
    for family in _FAMILIES:
        lines += [(_EQUAL, 0, 1, family), (_RETURN, 0, 0, _ALLOW)]
    lines.append((_RETURN, 0, 0, _ERROR | errno.EAFNOSUPPORT))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)
