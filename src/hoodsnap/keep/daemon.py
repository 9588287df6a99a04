"""The daemons that a host of a cloud may run, and what is kept of their processes and units.

Of other processes and units nothing is kept, and of no process the command line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple


class KnownDaemon(NamedTuple):
    """One daemon of the table."""

    accounts: tuple[str, ...]
    """Accounts that it may run as, besides root."""
    is_script: bool
    """True if it is a Python script; False if it is an executable of its own."""
    aliases: tuple[str, ...] = ()
    """Names of its systemd unit that differ from its own name."""


def _script(account: str, *aliases: str) -> KnownDaemon:
    return KnownDaemon((account,), True, aliases)


def _program(*accounts: str, aliases: tuple[str, ...] = ()) -> KnownDaemon:
    return KnownDaemon(accounts, False, aliases)


KNOWN: Mapping[str, KnownDaemon] = {
    "nova-compute": _script("nova", "n-cpu"),
    "nova-conductor": _script("nova", "n-super-cond", "n-cond-cell1"),
    "nova-scheduler": _script("nova", "n-sch"),
    "nova-api": _script("nova", "n-api"),
    "libvirtd": _program(),
    "virtqemud": _program(),
    "virtproxyd": _program(),
    "virtlogd": _program(),
    "virtlockd": _program(),
    "virtsecretd": _program(),
    "virtstoraged": _program(),
    "virtnodedevd": _program(),
    "virtnetworkd": _program(),
    "virtinterfaced": _program(),
    "virtnwfilterd": _program(),
    "neutron-openvswitch-agent": _script("neutron", "q-agt"),
    "neutron-linuxbridge-agent": _script("neutron"),
    "neutron-sriov-nic-agent": _script("neutron", "q-sriov-agt"),
    "neutron-dhcp-agent": _script("neutron", "q-dhcp"),
    "neutron-l3-agent": _script("neutron", "q-l3"),
    "neutron-metadata-agent": _script("neutron", "q-meta"),
    "neutron-ovn-metadata-agent": _script("neutron", "q-ovn-metadata-agent"),
    "neutron-ovn-agent": _script("neutron", "q-ovn-agent"),
    "neutron-server": _script("neutron", "q-svc"),
    "ovn-controller": _program("openvswitch", aliases=("ovn-host",)),
    "ovs-vswitchd": _program("openvswitch", aliases=("openvswitch-switch", "openvswitch")),
    "ovsdb-server": _program("openvswitch"),
    "cinder-volume": _script("cinder", "c-vol"),
    "iscsid": _program(),
    "multipathd": _program(),
    "tgtd": _program(aliases=("tgt",)),
    "virtiofsd": _program(),
    "swtpm": _program("swtpm", "tss", "libvirt-qemu", "qemu"),
    "qemu-pr-helper": _program(),
    "pacemakerd": _program(),
    "pacemaker-remoted": _program(aliases=("pacemaker_remote",)),
}
"""Daemon → what is known of it."""

HELPERS = frozenset(["virtiofsd", "swtpm", "qemu-pr-helper"])
"""Daemons of which each process serves a single QEMU."""

PATTERNS = (
    *("nova-*", "openstack-nova-*", "devstack@*", "tripleo_*", "edpm_*", "kolla-*", "snap.*"),
    *("libvirtd*", "virt*d.*", "virt*d-*.socket", "neutron-*", "ovn-*", "ovs*", "openvswitch*"),
    *("openstack-cinder-volume*", "cinder-volume*", "iscsid*", "multipathd*", "tgt*"),
    *("qemu-pr-helper*", "pacemaker*"),
)
"""Patterns of unit names for systemctl: a superset of those that are kept."""

_ALIASES = {alias: name for name, one in KNOWN.items() for alias in (name, *one.aliases)}
_ALIASES |= {alias.replace("-", "_"): name for alias, name in _ALIASES.items()}

_UNIT = re.compile(
    r"(?:openstack-|devstack@|tripleo_|edpm_|kolla-|snap\.[\w-]{1,60}\.)?"
    rf"({'|'.join(sorted(map(re.escape, _ALIASES), key=len, reverse=True))})"
    r"(?:-container)?(?:-(?:ro|admin|tcp|tls))?\.(service|socket)"
)

_WORD = re.compile(r"[a-z][a-z-]{0,30}")


def daemon_of_unit(unit: str) -> str | None:
    """Return the daemon that a systemd unit or its socket starts; None for any other unit.

    Packages, DevStack, Kolla, TripleO, EDPM and snaps give the same daemon units of several names.
    """
    found = _UNIT.fullmatch(unit)
    return _ALIASES[found[1]] if found else None


def units(table: str, columns: int) -> str:
    """Return the rows of the daemons' units in a table of systemctl, without descriptions.

    `columns`: number of words to keep after the unit's name, each a word of systemd's own.
    """
    kept = []
    for line in table.splitlines():
        words = line.split()
        if words and words[0] in ("●", "*", "×", "○", "↻"):
            del words[0]
        if len(words) > columns and daemon_of_unit(words[0]):
            states = words[1 : columns + 1]
            if all(_WORD.fullmatch(state) for state in states):
                kept.append(" ".join((words[0], *states)))
    return "".join(f"{row}\n" for row in kept)


PROPERTIES: Mapping[str, re.Pattern[str]] = {
    "Id": re.compile(r"[\w@.:\\-]{1,255}"),
    "Result": _WORD,
    "ExecMainCode": re.compile(r"\d{1,3}"),
    "ExecMainStatus": re.compile(r"\d{1,3}"),
    "NRestarts": re.compile(r"\d{1,9}"),
    "StateChangeTimestampMonotonic": re.compile(r"\d{1,18}"),
}
"""Property of a unit → the form of its value. Any other value is not kept."""


def properties(output: str) -> list[dict[str, str]]:
    """Return what `systemctl show` printed: an object of properties per unit."""
    found = (dict(_properties(block.splitlines())) for block in output.split("\n\n"))
    return [unit for unit in found if daemon_of_unit(unit.get("Id", ""))]


def _properties(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        name, _, value = line.partition("=")
        if name in PROPERTIES and PROPERTIES[name].fullmatch(value):
            yield name, value
