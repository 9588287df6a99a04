"""Open vSwitch as a whole: ports of one id, VLANs of one network, and interfaces with an error."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from hoodsnap.bundle import Answer
from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.traps import just_changed
from hoodsnap.evidence import Evidence, Severity, hears
from hoodsnap.facts.api.port import PREFIX, Port
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.domain.state import ON
from hoodsnap.facts.fact import UnheardError, is_true, known, text
from hoodsnap.facts.host.tap import DEAD_VLAN, NAME, OvsInterface
from hoodsnap.phrase import brief, several

Rows = Mapping[str, OvsInterface]
"""Name → interface of Open vSwitch."""


_NO_PEER = re.compile(r"No usable peer '([^']+)' exists")


@check(Severity.ERROR)
def switch_port_twice(host: Host, cloud: Cloud) -> Problems:
    """Two interfaces of one Open vSwitch bridge have the same port's id or address.

    neutron's agent finds a port's interface by the port's id (`iface-id`). With two of them it may
    wire either one, and the guest is cut off at the agent's next restart, or at once. Causes: a
    plug that broke off and was repeated, a copy that was added by hand.

    Authority: neutron, for the port's id; libvirt and the kernel, for which interface is in use.

    Traps: A trunk's parent port has an interface on two bridges. The interfaces of a bond are in
    one port of the switch. A running guest's tap that has the id of another port is reported by
    `tap-missing-or-miswired`.

    Next: Compare the two interfaces with the guest's card:

        ovs-vsctl --columns=name,ofport,type,external_ids list Interface DUPLICATE
        ovs-vsctl --columns=name,ofport,type,external_ids list Interface TAP
        virsh domiflist NAME

    If nothing uses the interface with the other name, remove it from the switch. The agent then
    takes the rules of the right one away, too, and its guest loses its network:

        ovs-vsctl --if-exists del-port DUPLICATE

    Then plug the guest's port in again, once the server's volumes and ports are confirmed to be
    right. A hard reboot does so, and switches the guest off and on. Binding the port again or
    enabling it does not:

        openstack server volume list GUEST
        openstack port list --server GUEST
        openstack server reboot --hard GUEST

    It worked if the port is ACTIVE, and only one interface has its id:

        openstack port show PORT -c status
        ovs-vsctl --columns=name,external_ids list Interface

    Not yet: Do not restart neutron-openvswitch-agent while both interfaces exist: it may wire the
    wrong one.

    Source: neutron agent/common/ovs_lib.py `get_vif_port_by_id`, `get_vif_port_set`; os-vif
    vif_plug_ovs.
    """
    rows, listing = _rows(host)
    for key, every in _same(rows).items():
        names = [name for name in every if not _is_mismarked(host, rows[name], name)]
        if len(names) < 2:
            continue
        uuid = _id(rows[names[0]], "iface-id") or ""
        users = [*dict.fromkeys(_id(rows[name], "iface-id") or "" for name in names)]
        ports = [port for user in users if (port := host.ports.by_id.get(user)) is not None]
        used = [name for name in names if _is_used(host, name)]
        named = [name for name in names if name[3:] == uuid[:PREFIX]]
        right = next((name for name in [*used, *named] if name in used or not used), None)
        spare = [name for name in names if name != right and name not in used]
        guest = _guest_of(cloud, host, ports[0]) if ports else None
        whose = f"{guest.title}'s" if guest is not None else f"host {host.name}'s"
        title = ports[0].title if ports else f"port {brief(uuid)}"
        what = f"the id of {whose} {title}" if key[1] == "iface-id" else f"MAC address {key[2]}"
        yield problem(
            f"{several(names)} on {key[0]} both have {what}",
            *(_says(listing, rows[name], name) for name in names),
            DUPLICATE=spare[0] if right is not None and len(spare) == 1 else "",
            TAP=right or "",
            PORT=uuid,
            NAME=guest.domain.name if guest is not None and guest.domain is not None else "",
            GUEST=guest.uuid if guest is not None else "",
        )


def _rows(host: Host) -> tuple[Rows, Answer]:
    """Return the interfaces and the answer that lists them. Raises `UnheardError`."""
    rows, listing = host.network.switch, host.network.switch_listing
    if isinstance(rows, UnheardError):
        raise UnheardError(str(rows))
    assert listing is not None  # noqa: S101 (the interfaces were collected)
    return rows, listing


def _same(rows: Rows) -> Mapping[tuple[str, str, str], list[str]]:
    """Return bridge, key and value → the names of two or more interfaces that share them."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for name, row in rows.items():
        uuid, mac = _id(row, "iface-id"), _id(row, "attached-mac")
        if row.bridge is None or uuid is None:
            continue
        found.setdefault((row.bridge, "iface-id", uuid), []).append(name)
        network = _config(row, "net_uuid")
        if mac is not None and network is not None:  # an address may be in two networks
            found.setdefault((row.bridge, network, mac), []).append(name)
    twice: dict[tuple[str, str, str], list[str]] = {}
    told: set[frozenset[str]] = set()
    for key, names in found.items():
        ports = {str(mapping.get("_uuid")) for name in names if (mapping := rows[name].port)}
        if len(names) > 1 and len(ports) > 1 and frozenset(names) not in told:
            told.add(frozenset(names))
            twice[key] = sorted(names)
    return twice


def _id(row: OvsInterface, key: str) -> str | None:
    ids = row.interface.get("external_ids")
    value = ids.get(key) if isinstance(ids, dict) else None
    return value.lower() if isinstance(value, str) else None


def _config(row: OvsInterface, key: str) -> str | None:
    config = row.port.get("other_config") if row.port is not None else None
    value = config.get(key) if isinstance(config, dict) else None
    return value if isinstance(value, str) and value != "None" else None


def _says(listing: Answer, row: OvsInterface, name: str) -> Evidence:
    port, mac = _id(row, "iface-id"), _id(row, "attached-mac")
    ofport = row.interface.get("ofport")
    return hears(listing, "Open vSwitch", name, name=name, iface_id=port, mac=mac, ofport=ofport)


def _is_used(host: Host, name: str) -> bool:
    """True if a process or a domain of the host has the interface as its card."""
    held = (known(lambda: process.taps) for process in host.processes.own.values())  # noqa: B023
    if any(name in (taps or ()) for taps in held):
        return True
    domains = (known(lambda: domain.taps) for domain in host.domains.values())  # noqa: B023
    return any(name in (taps or ()) for taps in domains)


def _is_mismarked(host: Host, row: OvsInterface, name: str) -> bool:
    """True if a running domain has the interface as the tap of another port than it has in Open
    vSwitch."""
    uuid, own = _id(row, "iface-id"), NAME.fullmatch(name)
    if uuid is None or own is None or own["prefix"] == uuid[:PREFIX]:
        return False
    if not any(port[:PREFIX] == own["prefix"] for port in host.ports.by_id):
        return False  # without its own port, nothing else reports the tap
    running = (domain for domain in host.domains.values() if known(lambda: domain.state) in ON)  # noqa: B023
    return any(name in (known(lambda: domain.taps) or ()) for domain in running)  # noqa: B023


def _guest_of(cloud: Cloud, host: Host, port: Port) -> Guest | None:
    """Return the guest of this host that has the port."""
    for guest in cloud.guests_of(host):
        if port.is_guests and guest.uuid == port.device_id:
            return guest
    return None


@check(Severity.ERROR)
def switch_vlan_differs(host: Host, cloud: Cloud) -> Problems:
    """A port of the integration bridge is in another VLAN than its network.

    neutron's agent gives each network a VLAN of its own, which has a meaning on this host's
    integration bridge only. A port in another VLAN is cut off from its network, and in the network
    that the VLAN belongs to. A DHCP server or router in the wrong VLAN is missing for all guests of
    its network; they notice at their next renewal.

    Authority: The agent's own note (`other_config`) of the port's VLAN; the other ports of the
    network.

    Traps: The dead VLAN 4095. Ports that are not ACTIVE may have an earlier VLAN. OVN sets no VLAN.
    Trunk ports.

    Next: Compare the port's VLAN with the agent's note of it, and with the network's other ports:

        ovs-vsctl --columns=name,tag,other_config list Port TAP
        ovs-vsctl --columns=name,tag,other_config list Port

    Put the port back into the VLAN of its network, which connects it at once:

        ovs-vsctl set Port TAP tag=VLAN

    If the network has two VLANs, restart the agent, which gives it one. Guests keep their
    connections meanwhile:

        systemctl restart SERVICE

    It worked if all ports of the network have the same tag:

        ovs-vsctl --columns=name,tag,other_config list Port

    Not yet: Do not reboot guests for this.

    Source: neutron ovs_neutron_agent.py `port_bound`, `_bind_devices`, `provision_local_vlan`.
    """
    rows, _ = _rows(host)
    listing = next(
        (it for query, it in host.network.said.items() if query.endswith(" list Port")), None
    )
    if listing is None or listing.error is not None:
        raise UnheardError("Open vSwitch: its ports were not collected")
    networks: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for name, row in sorted(rows.items()):
        network, noted = _config(row, "net_uuid"), _config(row, "tag")
        tag = row.port.get("tag") if row.port is not None else None
        if network is None or noted is None or not noted.isdecimal() or row.bridge is None:
            continue
        if not _is_wired(host, row) or tag == DEAD_VLAN:
            continue
        if not isinstance(tag, int) or tag != int(noted):
            now = f"VLAN {tag}" if isinstance(tag, int) else "no VLAN"
            yield _of_vlan(host, cloud, listing, name, row, now, int(noted))
        else:
            networks.setdefault((row.bridge, network), []).append((name, tag))
    for (bridge, network), wired in networks.items():
        counts = Counter(tag for _, tag in wired).most_common()
        if len(counts) < 2:
            continue
        parts = [f"{several([n for n, t in wired if t == tag])} in {tag}" for tag, _ in counts]
        named = host.ports.networks.get(network)
        title = named.name if named is not None else brief(network)
        yield problem(
            f"{bridge} has network {title} in {len(counts)} VLANs: {'; '.join(parts)}",
            *(hears(listing, "Open vSwitch", n, name=n, tag=t) for n, t in wired),
            TAP=counts[-1][0] and next(n for n, t in wired if t == counts[-1][0]),
            VLAN="",
            SERVICE="neutron-openvswitch-agent",
        )


def _is_wired(host: Host, row: OvsInterface) -> bool:
    """True if neutron has the port as ACTIVE on this host, so that the agent has wired it."""
    port = host.ports.by_id.get(_id(row, "iface-id") or "")
    if port is None or just_changed(port):
        return False
    return port.status == "ACTIVE" and port.host in (host.nova_name, host.name)


def _of_vlan(
    host: Host, cloud: Cloud, listing: Answer, name: str, row: OvsInterface, now: str, noted: int
) -> Problem:
    network = _config(row, "net_uuid") or ""
    named = host.ports.networks.get(network)
    title = named.name if named is not None else brief(network)
    tag = row.port.get("tag") if row.port is not None else None
    return problem(
        f"{_whose(host, cloud, row)} {name} is in {now} of {row.bridge}; its network {title} has "
        f"VLAN {noted}",
        hears(listing, "Open vSwitch", name, name=name, tag=tag if isinstance(tag, int) else None),
        hears(listing, "Open vSwitch", f"{name}.other_config", net_uuid=network, tag=noted),
        TAP=name,
        VLAN=noted,
        SERVICE="",
    )


def _whose(host: Host, cloud: Cloud, row: OvsInterface) -> str:
    """Return whose interface it is: `vm-a's tap`, `The DHCP server's interface`."""
    port = host.ports.by_id.get(_id(row, "iface-id") or "")
    if port is None:
        return "Interface"
    guest = _guest_of(cloud, host, port)
    if guest is not None:
        return f"{guest.title}'s tap"
    if port.device_owner == "network:dhcp":
        return "The DHCP server's interface"
    is_router = "router" in port.device_owner
    return f"Router {brief(port.device_id)}'s interface" if is_router else "Interface"


@check(Severity.ERROR)
def switch_interface_faulty(host: Host, cloud: Cloud) -> Problems:
    """An interface of Open vSwitch that guests' packets pass is not connected.

    Two bridges are connected by a pair of patch ports, each of which names the other as its peer. A
    patch port without its peer, or with another one, drops every packet: guests do not reach the
    physical network, or guests on other hosts. An interface that the switch could not open drops
    them, too (a warning). The switch notes the error, and neutron does not read it.

    Authority: Open vSwitch.

    Traps: The taps of guests that are off have no device, and are judged with their guest. Rows of
    devices that neutron does not have are leftovers.

    Next: Check the error, and the peer of each patch port:

        ovs-vsctl --columns=name,type,error,options list Interface
        ovs-vsctl show

    If both patch ports exist and the peer is wrong, set it, which connects the bridges at once:

        ovs-vsctl set Interface PATCH options:peer=PEER

    Otherwise let the agent make the interface again:

        systemctl restart SERVICE

    It worked if the interface has no error:

        ovs-vsctl --columns=name,type,error,options list Interface

    Not yet: Do not delete a bridge or a patch port: the guests' rules name its number.

    Source: ovs-vswitchd.conf.db(5), Interface `error`, patch `options:peer`; neutron
    ovs_neutron_agent.py `setup_physical_bridges`.
    """
    rows, listing = _rows(host)
    for name, row in sorted(rows.items()):
        kind, wrong = text(row.interface, "type") or "", _error(row)
        if kind == "patch":
            peer, wanted = _peer(row, wrong), _other_end(name, rows)
            if peer is not None and peer == wanted and (wrong is None or _is_faulty(rows[wanted])):
                continue  # the other end is the wrong one
            if wrong is None and (peer is None or wanted is None):
                continue
            now = f"has an error: {wrong}"
            if peer is not None and peer != wanted:
                now = f"has {peer} as its peer" + (f" instead of {wanted}" if wanted else "")
            yield problem(
                f"Patch port {name} of {row.bridge or '?'} {now}{_cut_off(host, cloud, name)}",
                hears(listing, "Open vSwitch", name, name=name, peer=peer, error=wrong),
                PATCH=name if wanted is not None else "",
                PEER=wanted or "",
                SERVICE="" if wanted is not None else _service(host, None),
            )
        elif wrong is not None and "vm-uuid" not in _ids(row) and "vm-id" not in _ids(row):
            port = host.ports.by_id.get(_id(row, "iface-id") or "")
            if _id(row, "iface-id") is not None and (port is None or not _is_wired(host, row)):
                continue  # a leftover of a DHCP server or router that moved
            yield problem(
                f"{_whose(host, cloud, row)} {name} of {row.bridge or '?'} has an error: {wrong}",
                hears(listing, "Open vSwitch", name, name=name, type=kind or None, error=wrong),
                severity=Severity.WARNING,
                PATCH="",
                PEER="",
                SERVICE=_service(host, port),
            )


def _ids(row: OvsInterface) -> Mapping[str, object]:
    ids = row.interface.get("external_ids")
    return ids if isinstance(ids, dict) else {}


def _error(row: OvsInterface) -> str | None:
    error = row.interface.get("error")
    return error.rstrip(".") or None if isinstance(error, str) else None


def _is_faulty(row: OvsInterface) -> bool:
    return _error(row) is not None


def _peer(row: OvsInterface, error: str | None) -> str | None:
    """Return the peer that a patch port names; None if neither it nor an error names one."""
    options = row.interface.get("options")
    peer = options.get("peer") if isinstance(options, dict) else None
    if isinstance(peer, str):
        return peer
    named = _NO_PEER.match(error or "")
    return named[1] if named is not None else None


def _other_end(name: str, rows: Rows) -> str | None:
    """Return the patch port that neutron or OVN pairs with this one, if the switch has it."""
    pairs = [("int-", "phy-"), ("phy-", "int-"), ("tpi-", "tpt-"), ("tpt-", "tpi-")]
    wanted = {"patch-int": "patch-tun", "patch-tun": "patch-int"}.get(name)
    for one, other in pairs:
        if name.startswith(one):
            wanted = other + name.removeprefix(one)
    if wanted is None and name.startswith("patch-") and "-to-" in name:
        one, _, other = name.removeprefix("patch-").partition("-to-")
        wanted = f"patch-{other}-to-{one}"
    row = rows.get(wanted or "")
    return wanted if row is not None and row.interface.get("type") == "patch" else None


def _cut_off(host: Host, cloud: Cloud, name: str) -> str:
    """Return what the patch port leads to, and so what is cut off; "" if that is not known."""
    if name in ("patch-int", "patch-tun"):
        return "; guests do not reach guests on other hosts"
    kind, _, bridge = name.partition("-")
    if kind not in ("int", "phy"):
        return ""
    for agent in (host.ports.agents or {}).values():
        if agent.host == host.nova_name:
            mapped = known(lambda: agent.bridge_mappings) or {}  # noqa: B023
            for network, mapped_bridge in mapped.items():
                if mapped_bridge == bridge:
                    return f"; no guest on {host.name} reaches physical network {network}"
    return ""


def _service(host: Host, port: Port | None) -> str:
    if port is not None and port.device_owner == "network:dhcp":
        return "neutron-dhcp-agent"
    if port is not None and "router" in port.device_owner:
        return "neutron-l3-agent"
    agents = (host.ports.agents or {}).values()
    own = [agent for agent in agents if agent.host == host.nova_name]
    if any(is_true(lambda: agent.kind == "OVN Controller agent") for agent in own):  # noqa: B023
        return "ovn-controller"
    return "neutron-openvswitch-agent"
