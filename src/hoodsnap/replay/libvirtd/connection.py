"""Procedures about libvirt itself, its host, and the host's networks and secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from hoodsnap.replay.libvirtd import xdr
from hoodsnap.replay.libvirtd.host import ReplayedHost
from hoodsnap.replay.libvirtd.procedure import counted, procedure
from hoodsnap.replay.libvirtd.virterror import FROM_NETWORK, INTERNAL, LibvirtError
from hoodsnap.replay.recording import NotRecordedError


@procedure(66)
def auth_list(_: ReplayedHost, __: xdr.Reader) -> bytes:
    """Offer no authentication: none is needed."""
    return xdr.array([xdr.int_(0)])


@procedure(60)
def supports_feature(_: ReplayedHost, __: xdr.Reader) -> bytes:
    """Return 0: keepalive, events and file descriptors are not supported."""
    return xdr.int_(0)


@procedure(1)
def connect_open(_: ReplayedHost, __: xdr.Reader) -> bytes:
    """Accept any URI."""
    return b""


@procedure(2)
def connect_close(_: ReplayedHost, __: xdr.Reader) -> bytes:
    """Accept the end of a connection; nothing needs to be done."""
    return b""


@procedure(149)
def is_secure(_: ReplayedHost, __: xdr.Reader) -> bytes:
    """Return 1: a UNIX socket is secure."""
    return xdr.int_(1)


@procedure(3)
def hypervisor_type(host: ReplayedHost, _: xdr.Reader) -> bytes:
    """Return the type of the hypervisor: `QEMU`."""
    return xdr.string(host.value("virsh version")["type"])


@procedure(4)
def version(host: ReplayedHost, _: xdr.Reader) -> bytes:
    """Return QEMU's version."""
    return xdr.hyper(host.value("virsh version")["hypervisor"])


@procedure(157)
def library_version(host: ReplayedHost, _: xdr.Reader) -> bytes:
    """Return libvirtd's version."""
    return xdr.hyper(host.value("virsh version")["daemon"])


@procedure(59)
def hostname(host: ReplayedHost, _: xdr.Reader) -> bytes:
    """Return libvirt's name of the host."""
    return xdr.string(host.value("virsh hostname"))


@procedure(110)
def uri(host: ReplayedHost, _: xdr.Reader) -> bytes:
    """Return the connection's URI: `qemu:///system`."""
    return xdr.string(host.value("virsh uri"))


@procedure(7)
def capabilities(host: ReplayedHost, _: xdr.Reader) -> bytes:
    """Return the XML document of the capabilities."""
    return xdr.string(host.value("virsh capabilities"))


@procedure(6)
def node_info(host: ReplayedHost, _: xdr.Reader) -> bytes:
    """Return struct remote_node_get_info_ret; the model is 32 characters, each an int."""
    info = host.value("virsh nodeinfo")
    model = info["cpu_model"].encode()[:31].ljust(32, b"\0")
    names = ("cpus", "mhz", "numa_cells", "sockets", "cores", "threads")
    numbers = b"".join(xdr.int_(info[name]) for name in names)
    # The recorded MiB are rounded: libvirt's Python binding divides KiB by 1024.
    memory = _host_memory(host.value("virsh capabilities"), info["memory_mib"])
    return b"".join(map(xdr.int_, model)) + xdr.hyper(memory) + numbers


@procedure(122)
def security_model(host: ReplayedHost, _: xdr.Reader) -> bytes:
    """Return the security model and its domain of interpretation, each an array of characters."""
    model = host.value("virsh nodeinfo").get("security_model")
    if model is None:
        raise NotRecordedError("the host's security model was not recorded")
    return xdr.characters(model["model"]) + xdr.characters(model["doi"])


def _host_memory(capabilities: str, mib: int) -> int:
    """Return the host's memory in KiB: from the capabilities if they match, else from the MiB."""
    cells = re.findall(r"<memory unit='KiB'>(\d+)</memory>", capabilities)
    return sum(map(int, cells)) if cells and sum(map(int, cells)) >> 10 == mib else mib << 10


@procedure(283)
def list_all_networks(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """List all networks, or those selected by the flags (VIR_CONNECT_LIST_NETWORKS_*)."""
    wanted, flags = arguments.int(), arguments.uint()
    pairs = ((2, 1, "active"), (4, 8, "persistent"), (16, 32, "autostart"))
    found = [
        _encoded(row)
        for row in host.networks.values()
        if all(
            flags & (yes | no) in (0, yes | no) or bool(row[field]) == bool(flags & yes)
            for yes, no, field in pairs
        )
    ]
    return counted(found, wanted)


@procedure(46)
def network_by_name(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """Return the network with a name."""
    return _encoded(host.network_called(arguments.string()))


@procedure(152)
def network_is_active(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """Return 1 if the network is active, else 0."""
    return xdr.int_(host.network(arguments)["active"])


@procedure(153)
def network_is_persistent(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """Return 1 if the network is persistent, else 0."""
    return xdr.int_(host.network(arguments)["persistent"])


@procedure(44)
def network_autostart(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """Return 1 if the network starts with the host, else 0."""
    return xdr.int_(host.network(arguments)["autostart"])


@procedure(43)
def network_xml(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """Return the network's XML document."""
    network = host.network(arguments)
    return xdr.string(host.value(f"virsh net-dumpxml {network['name']}"))


@procedure(45)
def network_bridge(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """Return the name of the network's bridge, from its XML document."""
    network = host.network(arguments)
    found = re.search(r"<bridge name='([^']*)'", host.value(f"virsh net-dumpxml {network['name']}"))
    if found is None:
        text = f"internal error: network '{network['name']}' does not have a bridge name."
        raise LibvirtError(INTERNAL, text, FROM_NETWORK)
    return xdr.string(found[1])


@procedure(287)
def list_all_secrets(host: ReplayedHost, arguments: xdr.Reader) -> bytes:
    """List the secrets with their usage; their values are never collected."""
    wanted, flags = arguments.int(), arguments.uint()
    if flags:
        raise NotRecordedError(f"the list of secrets with the flags {flags:#x} was not recorded")
    found = [
        UUID(row["uuid"]).bytes + xdr.int_(row["usage_type"]) + xdr.string(row["usage_id"])
        for row in host.value("virsh secret-list")
    ]
    return counted(found, wanted)


def _encoded(network: Mapping[str, Any]) -> bytes:
    return xdr.string(network["name"]) + UUID(network["uuid"]).bytes
