"""Addresses that neutron's DHCP server gives to guests."""

from __future__ import annotations

from collections.abc import Iterator

from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.traps import (
    building,
    migrating,
    never_launched,
    port_just_changed,
    task_in_flight,
)
from hoodsnap.evidence import Severity, hears, says
from hoodsnap.facts.api.port import RESERVED, Port, Ports
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.fact import is_true
from hoodsnap.facts.host.dhcp import DhcpHosts
from hoodsnap.phrase import several


@check(
    Severity.WARNING,
    traps=[task_in_flight, building, never_launched, migrating, port_just_changed],
)
def dhcp_entry_missing(guest: Guest, cloud: Cloud, ports: tuple[Port, ...]) -> Problems:
    """The DHCP server does not have the address of the guest's port, so the guest may get none.

    dnsmasq answers only the MAC addresses in its file, with the address there. A guest that is not
    in it keeps its address until its lease ends or it boots, and then has no network. Causes: the
    DHCP agent missed a message, could not write to its folder, or stopped serving the network
    because it is disabled (`admin_state_up`).

    Authority: neutron, for the port's address; the agent's file, for what the guest is given.

    Traps: Ports that just changed. Subnets without DHCP. Routed networks, where each agent serves
    its own segment. Agents on hosts that were not collected. IPv6 is not compared. OVN serves DHCP
    without an agent, and a disabled network is not reported there.

    Next: Compare the port with dnsmasq's file, and look in the log of the agent:

        openstack port show PORT -c mac_address -c fixed_ips -c status
        grep -i MAC /var/lib/neutron/dhcp/NETWORK/host
        openstack network agent list --network NETWORK --agent-type dhcp
        journalctl -u neutron-dhcp-agent -n 50

    If the network is disabled and nobody did that on purpose, enable it, which starts its DHCP
    servers again:

        openstack network set --enable DISABLED_NETWORK

    If the agent is alive, restart the agent, which writes its files again; dnsmasq goes on
    meanwhile:

        systemctl restart SERVICE

    It worked if the file has the port's addresses a minute later:

        grep -i MAC /var/lib/neutron/dhcp/NETWORK/host

    Not yet: Do not write to the file by hand: the agent overwrites it. Do not reboot the guest: it
    would lose the address that it still has.

    Source: neutron agent/linux/dhcp.py `_output_hosts_file`; agent/dhcp/agent.py
    `port_update_end`; neutron bugs 1732458, 1864711.
    """
    if guest.record is None or guest.record.deleted:
        return
    for port in ports:
        network = port.network
        if network is not None and network.enabled is False:
            if guest.runs and _needs_agent(cloud, port):
                yield problem(
                    f"{guest.title}'s network {network.name} is disabled (admin_state_up = False), "
                    "so no DHCP server gives the guest its address",
                    says(port, id=port.id, mac=port.mac, addresses=", ".join(port.addresses)),
                    says(network, enabled=False),
                    PORT=port.id,
                    MAC=port.mac,
                    NETWORK=port.network_id,
                    DISABLED_NETWORK=port.network_id,
                    SERVICE="",
                )
            continue
        for wanted, file in _lacking(cloud, port):
            has = sorted({line.mac for line in file.lines if wanted in line.addresses})
            gets = [ip for line in file.lines if line.mac == port.mac for ip in line.addresses]
            what = f"gives it to {several(has)}" if has else "does not have it"
            if gets:
                what += f", and gives the guest {several(sorted(gets))}"
            yield problem(
                f"{guest.title}'s port {port.id[:8]} has {wanted} ({port.mac}) in neutron, but the "
                f"DHCP server {what}",
                says(port, id=port.id, mac=port.mac, addresses=", ".join(port.addresses)),
                hears(file.answer, "DHCP server", wanted, **{wanted: ", ".join(has) or None}),
                PORT=port.id,
                MAC=port.mac,
                NETWORK=port.network_id,
                DISABLED_NETWORK="",
                SERVICE="neutron-dhcp-agent",
            )


def _needs_agent(cloud: Cloud, port: Port) -> bool:
    """True if agents serve DHCP in this cloud, and the port has an address that one gives out."""
    subnets = [cloud.ports.subnets.get(uuid) for uuid in port.subnet_ids]
    agents = [it for listed in cloud.ports.agents_on.values() for it in listed]
    return any(it.kind == "DHCP agent" for it in agents) and any(
        subnet is not None and subnet.serves_dhcp and subnet.is_ipv4 for subnet in subnets
    )


def _lacking(cloud: Cloud, port: Port) -> Iterator[tuple[str, DhcpHosts]]:
    """Yield each IPv4 address of a port that the DHCP server on a captured host does not give."""
    subnets = [cloud.ports.subnets.get(uuid) for uuid in port.subnet_ids]
    for host in cloud.hosts:
        file = host.network.dhcp.get(port.network_id or "")
        if file is None or not serves(cloud.ports, port.network_id or "", host.nova_name):
            continue
        for subnet, ip in zip(subnets, port.addresses, strict=False):
            if subnet is None or subnet.segment or not (subnet.serves_dhcp and subnet.is_ipv4):
                continue
            if (port.mac, ip) not in file.given:
                yield ip, file


def serves(ports: Ports, network: str, host: str) -> bool:
    """True if the network's DHCP port is bound to a host, whose DHCP agent is alive.

    Files of a network that an agent gave up stay behind.
    """
    if not any(it.kind == "DHCP agent" and it.alive for it in ports.agents_on.get(host, ())):
        return False
    return any(
        is_true(lambda: port.device_owner == "network:dhcp" and port.host == host)  # noqa: B023
        for port in ports.by_network.get(network, ())
        if port.device_id != RESERVED
    )
