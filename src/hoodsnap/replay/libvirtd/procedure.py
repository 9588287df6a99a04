"""Procedures of libvirt's protocol: the functions that answer them, and those that are refused.

The numbers are those of libvirt's src/remote/remote_protocol.x and qemu_protocol.x. libvirt only
ever adds numbers, so that any virsh can talk to any libvirtd.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from hoodsnap.replay.libvirtd import xdr
from hoodsnap.replay.libvirtd.host import ReplayedHost

REMOTE, QEMU = 0x20008086, 0x20008087
"""Programs of the protocol: the general one, and the one of the QEMU driver."""

Procedure = Callable[[ReplayedHost, xdr.Reader], bytes]
"""Function that takes the arguments of a call and returns the encoded result. Raises `LibvirtError`
and `NotRecordedError`."""

PROCEDURES: dict[tuple[int, int], Procedure] = {}
"""Procedures by program and number."""

_P = TypeVar("_P", bound=Procedure)


def procedure(number: int, program: int = REMOTE) -> Callable[[_P], _P]:
    """Register a function under its number in remote_protocol.x (or qemu_protocol.x)."""

    def register(function: _P) -> _P:
        if (program, number) in PROCEDURES:
            raise ValueError(f"two functions answer {program:#x}/{number}")
        PROCEDURES[program, number] = function
        return function

    return register


def counted(found: list[bytes], wanted: int) -> bytes:
    """Encode a list and its length; the list is empty if only the length is wanted."""
    return (xdr.array(found) if wanted else xdr.uint(0)) + xdr.uint(len(found))


WRITES: Mapping[int, str] = {
    8: "attach-device",
    9: "start",
    10: "create",
    11: "define",
    12: "destroy",
    13: "detach-device",
    27: "reboot",
    28: "resume",
    29: "autostart",
    31: "setmem",
    32: "setvcpus",
    33: "shutdown",
    34: "suspend",
    35: "undefine",
    39: "net-start",
    40: "net-create",
    41: "net-define",
    42: "net-destroy",
    48: "net-autostart",
    49: "net-undefine",
    53: "dump",
    54: "restore",
    55: "save",
    160: "attach-device",
    161: "detach-device",
    164: "domjobabort",
    174: "update-device",
    182: "managedsave",
    184: "managedsave-remove",
    185: "snapshot-create",
    192: "snapshot-revert",
    193: "snapshot-delete",
    196: "start",
    199: "setvcpus",
    204: "setmem",
    210: "inject-nmi",
    231: "undefine",
    234: "destroy",
    237: "blockjob --abort",
    245: "reset",
    251: "blockresize",
    258: "shutdown",
    264: "metadata",
    266: "blockcopy",
    290: "blockcommit",
}
"""Calls that change something, as named by virsh. Every other call without a procedure is answered
with "was not recorded"."""

READS: Mapping[int, str] = {
    20: "vcpuinfo",
    64: "domblkstat",
    65: "domifstat",
    102: "freecell",
    159: "dommemstat",
    163: "domjobinfo",
    194: "domblkinfo",
    200: "vcpucount",
    201: "console",
    211: "screenshot",
    227: "nodecpustats",
    228: "nodememstats",
    229: "domcontrol",
    230: "vcpupin",
    243: "domblkstat",
    262: "cpu-stats",
    263: "domblkerror",
    344: "domstats",
    353: "domifaddr",
}
"""Common calls that are not recorded, as named by virsh."""
