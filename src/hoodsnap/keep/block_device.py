"""Allow-lists for what lsblk, iscsiadm and tgtadm print.

What opens a volume (names and passwords of CHAP) is left out line by line, key by key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hoodsnap.keep.secret import WITHHELD

_BLOCK = frozenset(
    [
        *("name", "kname", "path", "maj:min", "type", "size", "ro", "rm", "hotplug", "fstype"),
        *("mountpoint", "mountpoints", "pkname", "wwn", "serial", "vendor", "model", "rev"),
        *("tran", "hctl", "state", "rota", "ptuuid", "partuuid", "log-sec", "phy-sec", "dax"),
        *("subsystems", "children"),
    ]
)
"""The columns of lsblk that are kept: no labels, which are anybody's text."""

_CHAP = re.compile(r"^([ \t]*+(?:username|password)(?:_in)?:[ \t]*+)\S.*$", re.MULTILINE)

_ACCOUNTS = re.compile(r"(^ ++Account information:\n)((?>(?: {8}.*+\n?)*))", re.MULTILINE)


def block_device(device: Any) -> Any:
    """Keep of one of lsblk's devices, and of those below it, the columns on the allow-list."""
    if not isinstance(device, Mapping):
        return WITHHELD
    kept = {key: value for key, value in device.items() if key in _BLOCK}
    if isinstance(children := device.get("children"), list):
        kept["children"] = [block_device(child) for child in children]
    return kept


def without_chap(text: str) -> str:
    """What iscsiadm says of its sessions, without the names and passwords of CHAP."""
    return _CHAP.sub(rf"\g<1>{WITHHELD}", text)


def without_accounts(text: str) -> str:
    """What tgtadm says of its targets, without the accounts that may log in."""
    return _ACCOUNTS.sub(rf"\g<1>        {WITHHELD}\n", text)


def initiator(text: str) -> str:
    """Keep of initiatorname.iscsi the lines that hold the name."""
    return "\n".join(line for line in text.splitlines() if line.startswith("InitiatorName="))
