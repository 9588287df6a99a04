"""Which procedures libvirt's protocol has: what answers each of them here, and what none does.

The numbers are those of libvirt's src/remote/remote_protocol.x and qemu_protocol.x; they are only
ever appended to, so that any virsh speaks to any libvirtd.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from hoodsnap.replay import xdr
from hoodsnap.replay.host import ReplayedHost

REMOTE, QEMU = 0x20008086, 0x20008087
"""The programs: everything, and what only QEMU's driver has."""

Procedure = Callable[[ReplayedHost, xdr.Reader], bytes]
"""Takes what a call says; returns the result, encoded. Raises `Refusal`, and `NotRecorded`."""

PROCEDURES: dict[tuple[int, int], Procedure] = {}
"""(program, number) → what answers it."""

_P = TypeVar("_P", bound=Procedure)


def procedure(number: int, program: int = REMOTE) -> Callable[[_P], _P]:
    """Register what answers under its number in remote_protocol.x (qemu_protocol.x)."""

    def register(function: _P) -> _P:
        if (program, number) in PROCEDURES:
            raise ValueError(f"two functions answer {program:#x}/{number}")
        PROCEDURES[program, number] = function
        return function

    return register


def counted(found: list[bytes], wanted: int) -> bytes:
    """A list, as calls answer that may ask only for how many there are."""
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
"""What would change something, by virsh's word for it; every other call that has no procedure here
was not recorded."""

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
"""What is asked for often and was not recorded, by virsh's word for it."""
