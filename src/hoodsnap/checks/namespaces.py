"""Network namespaces in which neutron's agents route, and give out addresses and metadata."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from ipaddress import ip_address
from typing import Any

from hoodsnap.bundle import Answer
from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.traps import just_changed, passed_through
from hoodsnap.evidence import Severity, hears, says
from hoodsnap.facts.api.port import Port
from hoodsnap.facts.api.subnet import FloatingIp, Router
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.fact import UnheardError, is_true, known
from hoodsnap.facts.host.namespace import Namespace
from hoodsnap.phrase import brief, several

ROUTER = frozenset(["network:router_interface", "network:router_gateway"])
"""Owners of a router's ports that are on one host."""

METADATA = "ovnmeta-"

NEW = timedelta(minutes=2)
"""Time for the router's agent to carry out a change."""


@check(Severity.ERROR)
def network_namespace_wrong(host: Host, cloud: Cloud) -> Problems:
    """A router, DHCP or metadata namespace is missing or incomplete.

    neutron's agents route, give out addresses and serve metadata in network namespaces of the host.
    neutron lists the port there as ACTIVE. Without the namespace, its device or its addresses, the
    guests of its network cannot leave the network, get no address, or get no metadata. Without the
    router's rule for leaving packets (SNAT), guests without a floating IP get no answers from the
    external network. Causes: somebody deleted the namespace or changed it by hand, the host was
    rebooted and its agent did not start, or Open vSwitch was restarted.

    Authority: neutron, for what should be; the kernel, for what is.

    Traps: Ports that just changed. OVN's metadata needs an IPv4 subnet with DHCP, and a port that
    is not passed through. Highly available and distributed routers have addresses where they are
    active only. Agents in containers may keep their namespaces where the host does not list them. A
    router whose owner switched SNAT off needs no rule.

    Next: Check the namespace, and whether the agent runs and is alive:

        ip netns list
        ip -n NAMESPACE address
        openstack network agent list --host HOST
        journalctl -u SERVICE -n 50

    If a device in the namespace is down, switch it on:

        ip -n NAMESPACE link set LINK up

    If a device has another MAC address than its port, set the port's:

        ip -n NAMESPACE link set DEVICE address MAC

    If something is missing, restart the agent, which makes it; the namespaces that are complete
    stay as they are:

        systemctl restart SERVICE

    It worked if the namespace has the port's addresses a minute later:

        ip -n NAMESPACE address

    Not yet: Do not reboot guests for this: they would ask for addresses or metadata in vain. Do not
    add the address by hand, because the agent does not know of it.

    Source: neutron agent/l3/namespaces.py, agent/linux/dhcp.py `setup`, agent/ovn/metadata/agent.py
    `provision_datapath`; agent/l3/router_info.py `_add_snat_rules`; neutron bug 1573073.
    """
    listing = host.network.namespace_listing
    if listing is None:
        raise UnheardError("the host's network namespaces were not collected")
    reason: UnheardError | None = None
    for port in host.ports.by_id.values():
        try:
            name = name_of(host, port)
            if name is not None:
                yield from _problems(host, cloud, port, name)
        except UnheardError as unheard:
            reason = reason or unheard
    yield from _without_metadata(host, cloud)
    if reason is not None:
        raise reason


def name_of(host: Host, port: Port) -> str | None:
    """Return the namespace that must have a port's addresses; None if it may be anywhere."""
    owner = port.device_owner
    if owner not in ROUTER and owner != "network:dhcp":
        return None
    if port.host != host.nova_name or port.status != "ACTIVE" or just_changed(port):
        return None
    if owner == "network:dhcp":
        return f"qdhcp-{port.network_id}"
    router = host.ports.routers_by_id.get(port.device_id)
    return f"qrouter-{port.device_id}" if router is not None and router.is_plain else None


def _problems(host: Host, cloud: Cloud, port: Port, name: str) -> Iterator[Problem]:
    assert host.network.namespace_listing is not None  # noqa: S101 (checked by the caller)
    names, listing = host.network.namespace_listing
    network = port.network
    of = f"network {network.name}" if network is not None else f"network {port.network_id}"
    words = _words(host, name)
    wanted = says(port, id=port.id, addresses=", ".join(port.addresses), host=port.host)
    if name not in names:
        if not _shows_namespaces(host, port):
            raise UnheardError("neutron's namespaces may be in a container")
        gone = hears(listing, "namespace", name, **{name: None})
        headline = f"Host {host.name} has no namespace {brief(name)}, which serves {of}"
        yield problem(headline, wanted, gone, **words)
        return
    space = host.network.namespaces.get(name)
    if space is None:
        return  # it serves no guest that was collected
    has = {_plain(ip) for ip in space.addresses}
    if lacking := [ip for ip in port.addresses if _plain(ip) not in has]:
        found = hears(space.said["address"], "namespace", name, addresses=", ".join(sorted(has)))
        headline = f"{brief(name)} of {of} lacks {several(lacking)}"
        yield problem(headline, wanted, found, **words)
    if off := [device for device in sorted(space.down) if device.endswith(port.id[:11])]:
        found = hears(space.said["address"], "namespace", name, **{off[0]: "down"})
        yield problem(
            f"{brief(name)}'s device {off[0]} of {of} is down",
            wanted,
            found,
            **{**words, "LINK": off[0]},
        )
    own = [device for device in sorted(space.cut_off) if device.endswith(port.id[:11])]
    for device in own:
        yield problem(
            f"{brief(name)}'s device {device} of {of} has no carrier",
            wanted,
            hears(space.said["address"], "namespace", name, **{device: "no carrier"}),
            **words,
        )
    yield from _device(port, space, of, words)
    yield from _translation(host, port, space, words)


def _device(port: Port, space: Namespace, of: str, words: Mapping[str, Any]) -> Iterator[Problem]:
    """Report the port's device if it has another MAC address.

    Its MTU is not compared: Open vSwitch lowers that of its own devices to the bridge's least.
    """
    for device, mac in space.macs.items():
        if device.endswith(port.id[:11]) and mac != port.mac:
            yield problem(
                f"{brief(space.name)}'s device {device} of {of} has MAC address {mac}, but its "
                f"port in neutron has {port.mac}",
                says(port, id=port.id, mac=port.mac),
                hears(space.said["address"], "namespace", device, address=mac),
                **{**words, "DEVICE": device, "MAC": port.mac},
            )


def _translation(
    host: Host, port: Port, space: Namespace, words: Mapping[str, Any]
) -> Iterator[Problem]:
    """Report a router that translates its guests' packets otherwise than neutron has it."""
    router = host.ports.routers_by_id.get(port.device_id)
    if port.device_owner != "network:router_gateway" or router is None or "nat" not in space.said:
        return
    changed = moment(router.updated_at)
    if router.snat is None or (changed is not None and router.answer.at - changed < NEW):
        return
    own = [ip for ip in port.addresses if "." in ip]
    if not own:
        return  # IPv6 is not translated
    wanted, sources = (own if router.snat else []), space.sources
    if not sources or (set(sources) & {*wanted}):
        return  # a router without the rule has a check of its own
    what = f"to {several(sources)}"
    expected = f"neutron has {several(wanted)}" if wanted else "SNAT is off in neutron"
    place = f"routers[id={router.id}].external_gateway_info.enable_snat"
    yield problem(
        f"{brief(space.name)} translates the packets of its guests {what}; {expected}",
        says(port, id=port.id, addresses=", ".join(port.addresses)),
        hears(router.answer, "router", place, enable_snat=router.snat),
        hears(space.said["nat"], "namespace", space.name, snat=", ".join(sources)),
        severity=None if wanted else Severity.WARNING,
        **words,
    )


def _shows_namespaces(host: Host, port: Port) -> bool:
    """True if the host lists neutron's namespaces, or has the port in Open vSwitch."""
    assert host.network.namespace_listing is not None  # noqa: S101 (checked by the caller)
    names, _ = host.network.namespace_listing
    if any(name.startswith(("qrouter-", "qdhcp-")) for name in names):
        return True
    rows = host.network.switch
    return not isinstance(rows, UnheardError) and any(port.id[:11] in name for name in rows)


def _plain(ip: str) -> str:
    try:
        return str(ip_address(ip))
    except ValueError:
        return ip


def _routes(
    host: Host, port: Port, space: Namespace, words: Mapping[str, Any]
) -> Iterator[Problem]:
    """Report a default route that leads elsewhere than the subnet's gateway, or is missing."""
    is_router = port.device_owner == "network:router_gateway"
    if port.device_owner == "network:router_interface":
        return
    router = host.ports.routers_by_id.get(port.device_id)
    if is_router and (router is None or router.has_own_default):
        return
    subnets = [
        subnet for subnet in host.ports.subnets_of.get(port.network_id or "", ()) if subnet.is_ipv4
    ]
    try:
        ways = space.gateways
    except UnheardError:
        return
    if not subnets:
        yield from _without_route(port, router, space, ways, words)
        return
    wanted = {subnet.gateway for subnet in subnets if subnet.gateway}
    # A DHCP server has a default route through a subnet that it serves.
    needed = {it.gateway for it in subnets if it.gateway and (is_router or it.serves_dhcp)}
    if any(way not in wanted for way in ways) or (needed and not ways):
        route = hears(space.said["route"], "namespace", space.name, gateway=", ".join(ways) or None)
        subnet = next((one for one in subnets if one.gateway), None)
        asked = (
            [hears(subnet.answer, "subnet", f"subnets[id={subnet.id}]", gateway_ip=subnet.gateway)]
            if subnet is not None
            else []
        )
        leads = f"leads to {several(ways)}" if ways else "is missing"
        headline = (
            f"{brief(space.name)}'s default route {leads}; neutron has {several(sorted(wanted))}"
        )
        if not wanted:
            headline = (
                f"{brief(space.name)} has a default route to {several(ways)}, neutron no gateway"
            )
        severity = None if is_router else Severity.WARNING
        yield problem(headline, *asked, route, severity=severity, **words)


def _without_route(
    port: Port,
    router: Router | None,
    space: Namespace,
    ways: Sequence[str],
    words: Mapping[str, Any],
) -> Iterator[Problem]:
    """Report a router without a default route, where the external subnet was not collected.

    A subnet may have no gateway, but then nothing outside of it is reachable, and nobody needs
    floating IPs or the translation of leaving packets.
    """
    if ways or router is None or not any("." in ip for ip in port.addresses):
        return
    if is_true(lambda: router.translates):
        yield problem(
            f"{brief(space.name)} on {words['HOST']} has no default route, but router "
            f"{brief(router.id)} translates its guests' packets to the external network",
            says(port, id=port.id, addresses=", ".join(port.addresses)),
            hears(space.said["route"], "namespace", space.name, gateway=None),
            **words,
        )


@check(Severity.ERROR)
def namespace_route_wrong(host: Host) -> Problems:
    """A router or DHCP server has no default route, or one to a wrong gateway.

    Without it, a router sends nothing outside: its guests reach their own networks only, and
    nobody reaches their floating IPs. A DHCP server (a warning) does not reach name servers outside
    of its network. Causes: the route was deleted by hand, a device was switched off and on, or the
    subnet's gateway was changed while the agent was down.

    Authority: neutron, for the subnet's gateway; the kernel, for the route.

    Traps: A subnet without a gateway needs no default route. A router's owner may have given it a
    default route of its own. Highly available and distributed routers have theirs elsewhere.

    Next: Check the routes, the router's external network and whether the agent is alive:

        ip -n NAMESPACE route
        openstack subnet list --long
        openstack network agent list --host HOST

    Restart the agent, which writes the routes again; namespaces that are complete stay as they are:

        systemctl restart SERVICE

    It worked if the namespace has a default route to the subnet's gateway a minute later:

        ip -n NAMESPACE route

    Not yet: Do not set the router's gateway anew: it may get another address. Do not reboot guests
    for this.

    Source: neutron agent/l3/router_info.py `_external_gateway_added`; agent/linux/dhcp.py
    `DeviceManager._set_default_route`.
    """
    reason: UnheardError | None = None
    for port in host.ports.by_id.values():
        try:
            name = name_of(host, port)
            space = host.network.namespaces.get(name or "")
            if name is not None and space is not None:
                yield from _routes(host, port, space, _words(host, name))
        except UnheardError as unheard:
            reason = reason or unheard
    if reason is not None:
        raise reason


_NONE: Mapping[str, Any] = {"LINK": "", "DEVICE": "", "MAC": ""}
"""Placeholders of the steps that do not apply to a problem."""


def _words(host: Host, name: str) -> Mapping[str, Any]:
    service = "neutron-dhcp-agent" if name.startswith("qdhcp") else "neutron-l3-agent"
    return {"NAMESPACE": name, "HOST": host.nova_name, "SERVICE": service, **_NONE}


@check(Severity.ERROR)
def address_used_twice(host: Host, cloud: Cloud) -> Problems:
    """A device of this host has an address that neutron gave to a guest in the same network.

    Both answer for the address, and each machine of the network sends to the one that answered
    last. The guest loses connections at random. Causes: an address that was added by hand for a
    test, and an agent that did not remove it.

    Authority: neutron, for which port has the address.

    Traps: Two networks may have the same addresses: only devices in the guest's own network count.
    A port that neutron just changed. The router of a floating IP has its address, too.

    Next: Check which device has the address, and which port:

        ip -n NAMESPACE address
        ip -brief address
        openstack port list --fixed-ip ip-address=ADDRESS --long
        openstack floating ip show FLOATING_IP

    If the device belongs to neutron's DHCP server or router, remove the address from the device;
    neutron has other addresses for it:

        ip -n NAMESPACE address del PREFIXED dev DEVICE

    If the device belongs to the host, find out first who uses the address. Then remove it from
    the device, which interrupts connections of the host to that address:

        ip address del PREFIXED dev OWN_DEVICE

    It worked if no other device has the address:

        ip -n NAMESPACE address
        ip -brief address

    Not yet: Do not give the guest another address, and do not reboot it.

    Source: neutron agent/linux/dhcp.py `DeviceManager.setup`; RFC 5227.
    """
    owned: dict[str, list[tuple[Guest, Port, str]]] = {}
    floating: dict[str, list[tuple[Guest, FloatingIp]]] = {}
    for guest in cloud.guests_of(host):
        for port in guest.ports or ():
            for ip in () if just_changed(port) else port.addresses:
                owned.setdefault(_plain(ip), []).append((guest, port, port.network_id or ""))
            for leads in cloud.ports.floating.get(port.id, ()):
                floating.setdefault(_plain(leads.address), []).append((guest, leads))
    for name, space in sorted(host.network.namespaces.items()):
        devices = known(lambda: space.devices) or {}  # noqa: B023
        for device, prefixed in ((one, ip) for one in devices for ip in devices[one]):
            for guest, port, network in owned.get(_plain(prefixed.partition("/")[0]), ()):
                if network == _network_in(host, name, device) and port.id[:11] not in device:
                    answer = space.said["address"]
                    yield _duplicate(host, guest, port, answer, name, device, prefixed)
    own = host.network.devices
    bridges = _provider_bridges(host)
    for device, prefixed in ((one, ip) for one in own[0] for ip in own[0][one]) if own else ():
        for guest, port, _ in owned.get(_plain(prefixed.partition("/")[0]), ()):
            physical = known(lambda: port.network.physical if port.network else None)  # noqa: B023
            if device == port.tap or (physical is not None and bridges.get(device) == physical):
                assert own is not None  # noqa: S101 (else there is no device)
                yield _duplicate(host, guest, port, own[1], None, device, prefixed)
        for guest, leads in floating.get(_plain(prefixed.partition("/")[0]), ()):
            if own is not None and _leads_to(cloud, bridges.get(device), leads):
                yield _of_floating_ip(host, guest, leads, own[1], device, prefixed)
    if not host.network.namespaces and own is None:
        raise UnheardError("the host's addresses were not collected")


def _leads_to(cloud: Cloud, physical: str | None, leads: FloatingIp) -> bool:
    """True if a bridge's physical network may be the one of a floating IP."""
    network = cloud.ports.networks.get(leads.outside or "")
    its = known(lambda: network.physical) if network is not None else None
    return physical is not None and its in (None, physical)


def _network_in(host: Host, name: str, device: str) -> str | None:
    """Return the network that a device in a namespace is in; None if that is not known."""
    if name.startswith("qdhcp-") and device.startswith("tap"):
        return name.removeprefix("qdhcp-")
    ports = host.ports.by_prefix.get(device[3:], ()) if device[2:3] == "-" else ()
    return ports[0].network_id if len(ports) == 1 else None


def _provider_bridges(host: Host) -> Mapping[str, str]:
    """Return bridge → the physical network that it leads to, of this host's agents."""
    agents = [it for it in (host.ports.agents or {}).values() if it.host == host.nova_name]
    mapped = (known(lambda: agent.bridge_mappings) or {} for agent in agents)  # noqa: B023
    return {bridge: network for pairs in mapped for network, bridge in pairs.items()}


def _duplicate(
    host: Host,
    guest: Guest,
    port: Port,
    answer: Answer,
    name: str | None,
    device: str,
    prefixed: str,
) -> Problem:
    ip = prefixed.partition("/")[0]
    where = f"{brief(name)}'s device {device}" if name else f"host {host.name}'s device {device}"
    return problem(
        f"{guest.title}'s address {ip} is also on {where}",
        says(port, id=port.id, addresses=", ".join(port.addresses)),
        hears(answer, "namespace" if name else "host", name or device, **{device: prefixed}),
        NAMESPACE=name or "",
        ADDRESS=ip,
        FLOATING_IP="",
        PREFIXED=prefixed,
        DEVICE=device if name else "",
        OWN_DEVICE="" if name else device,
    )


def _of_floating_ip(
    host: Host, guest: Guest, leads: FloatingIp, answer: Answer, device: str, prefixed: str
) -> Problem:
    place = f"floatingips[id={leads.id}].floating_ip_address"
    return problem(
        f"{guest.title}'s floating IP {leads.address} is also on host {host.name}'s device "
        f"{device}",
        hears(leads.answer, "floating IP", place, address=leads.address, fixed=leads.fixed),
        hears(answer, "host", device, **{device: prefixed}),
        NAMESPACE="",
        ADDRESS=leads.address,
        FLOATING_IP=leads.address,
        PREFIXED=prefixed,
        DEVICE="",
        OWN_DEVICE=device,
    )


def _without_metadata(host: Host, cloud: Cloud) -> Iterator[Problem]:
    """Report networks of running guests for which OVN's metadata agent has no namespace."""
    assert host.network.namespace_listing is not None  # noqa: S101 (checked by the caller)
    names, listing = host.network.namespace_listing
    agents = (host.ports.agents or {}).values()
    alive = [it for it in agents if it.kind == "OVN Metadata agent" and it.host == host.nova_name]
    if not any(is_true(lambda: agent.alive) for agent in alive):  # noqa: B023
        return
    rows = host.network.switch
    devices = rows if not isinstance(rows, UnheardError) else {}
    shows = any(name.startswith(METADATA) for name in names)
    waiting: dict[str, list[Guest]] = {}
    for guest in cloud.guests_of(host):
        for port in (guest.ports or ()) if guest.runs else ():
            # The cards of passed-through ports get their metadata from another host.
            if passed_through(port) or just_changed(port):
                continue
            if port.host == host.nova_name and port.network_id:
                waiting.setdefault(port.network_id, []).append(guest)
    for network, guests in waiting.items():
        name = METADATA + network
        has_device = f"tap{network[:10]}0" in devices
        if name in names or not (shows or has_device) or not _serves_dhcp(host, network):
            continue
        titles = several(guest.title for guest in guests)
        yield problem(
            f"Host {host.name} has no namespace {brief(name)}: no metadata for {titles}",
            hears(listing, "namespace", name, **{name: None}),
            says(alive[0], kind=alive[0].kind, alive=True),
            NAMESPACE=name,
            HOST=host.nova_name,
            SERVICE="neutron-ovn-metadata-agent",
            **_NONE,
        )


def _serves_dhcp(host: Host, network: str) -> bool:
    """True if an IPv4 subnet has DHCP: only then does OVN's metadata port have an IPv4 address."""
    subnets = host.ports.subnets_of.get(network, ())
    return any(subnet.serves_dhcp and subnet.is_ipv4 for subnet in subnets)
