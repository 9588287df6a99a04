"""Allow-lists for the output of lsblk, iscsiadm and tgtadm.

CHAP names and passwords, which give access to a volume, are withheld line by line, key by key.
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
"""Columns of lsblk that are kept. Labels are not kept, because they may hold any text."""

_CHAP = re.compile(r"^([ \t]*+(?:username|password)(?:_in)?:[ \t]*+)\S.*$", re.MULTILINE)

_ACCOUNTS = re.compile(r"(^ ++Account information:\n)((?>(?: {8}.*+\n?)*))", re.MULTILINE)


def block_device(device: Any) -> Any:
    """Keep the allowed columns of one lsblk device and of the devices below it."""
    if not isinstance(device, Mapping):
        return WITHHELD
    kept = {key: value for key, value in device.items() if key in _BLOCK}
    if isinstance(children := device.get("children"), list):
        kept["children"] = [block_device(child) for child in children]
    return kept


def without_chap(text: str) -> str:
    """Return iscsiadm's list of sessions without CHAP names and passwords."""
    return _CHAP.sub(rf"\g<1>{WITHHELD}", text)


def without_accounts(text: str) -> str:
    """Return tgtadm's list of targets without the accounts that may log in."""
    return _ACCOUNTS.sub(rf"\g<1>        {WITHHELD}\n", text)


def initiator(text: str) -> str:
    """Keep the lines of initiatorname.iscsi that hold the name."""
    return "\n".join(line for line in text.splitlines() if line.startswith("InitiatorName="))
