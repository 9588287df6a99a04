"""Routers of neutron on a host: whether they forward, translate and redirect, and their devices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.namespaces import name_of
from hoodsnap.checks.traps import MOMENT, just_changed
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.api.port import PREFIX, Port
from hoodsnap.facts.api.subnet import Router
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.fact import UnheardError, is_true, known
from hoodsnap.facts.host.namespace import Namespace
from hoodsnap.phrase import brief, several

KINDS = ("qrouter", "snat", "fip")
"""Namespaces through which packets are routed; those of DHCP servers forward nothing."""

METADATA_PORT = 9697
"""Port of the metadata proxy in a router's namespace, if `metadata_port` was not changed."""


@check(Severity.ERROR)
def router_forwarding_off(host: Host, cloud: Cloud) -> Problems:
    """A router's namespace does not forward IPv4 packets.

    Guests reach their router and the machines of their own network, and nothing behind the router:
    no other network, no outside, and no floating IP works. All of the router's devices, addresses,
    routes and rules are complete. The L3 agent switches forwarding on when it makes the namespace,
    and nothing of neutron switches it off. Causes: a script that hardens hosts and also writes into
    namespaces, or a change by hand.

    Authority: The kernel.

    Traps: The agent also switches forwarding on in the namespaces of standby and distributed
    routers. For a highly available router it is a warning, because another host may be the active
    one. A namespace that a router left behind when it moved to another host is not judged.

    Next: Check the setting, and whether the namespace is the router's:

        ip netns exec NAMESPACE sysctl net.ipv4.ip_forward
        openstack network agent list --router ROUTER

    Switch forwarding on, which works at once:

        ip netns exec NAMESPACE sysctl -w net.ipv4.ip_forward=1

    It worked if the value is 1 and stays so:

        ip netns exec NAMESPACE sysctl net.ipv4.ip_forward

    If it becomes 0 again, find the program that writes it: `sysctl --system`, a hardening script or
    a configuration manager.

    Not yet: Do not reboot guests or move the router. Do not delete the namespace.

    Source: neutron agent/l3/namespaces.py `Namespace.create`; kernel
    Documentation/networking/ip-sysctl.rst, `ip_forward`.
    """
    reason: UnheardError | None = None
    for name, space in sorted(host.network.namespaces.items()):
        kind, _, uuid = name.partition("-")
        if kind not in KINDS:
            continue
        try:
            router = host.ports.routers_by_id.get(uuid)
            if space.forwards or (kind != "fip" and not _is_here(host, router, uuid)):
                continue
        except UnheardError as unheard:
            reason = reason or unheard
            continue
        title = _title(router) if router is not None else f"Namespace {brief(name)}"
        cut = _guests(cloud, uuid)
        lost = f": {several(cut)} reach only their own networks" if cut else ""
        standby = router is not None and bool(router.raw.get("ha"))
        yield problem(
            f"{title} on {host.name} does not forward packets{lost}",
            hears(space.said["forward"], "namespace", name, **{"net.ipv4.ip_forward": 0}),
            *([_of_api(router, status=router.raw.get("status"))] if router is not None else []),
            severity=Severity.WARNING if standby else None,
            NAMESPACE=name,
            ROUTER=uuid if kind != "fip" else "",
        )
    if reason is not None:
        raise reason


def _is_here(host: Host, router: Router | None, uuid: str) -> bool:
    """True if the router is on the host: its ports are bound there, or it is on several hosts."""
    if router is None:
        if "routers" in host.ports.whole:
            return False
        raise UnheardError("neutron API: the router of a namespace was not collected")
    if not router.is_plain:
        return True
    return any(_bound(host, uuid))


def _bound(host: Host, router: str) -> Iterator[Port]:
    """Yield the ports of a router that are bound to the host."""
    for port in host.ports.by_id.values():
        is_routers = port.device_id == router and port.device_owner.startswith("network:router")
        if is_routers and port.host == host.nova_name:
            yield port


def _guests(cloud: Cloud, router: str) -> list[str]:
    """Return the guests of the router's networks that run."""
    return [
        guest.title
        for guest in cloud.guests
        if guest.runs
        and any(
            router in cloud.ports.routers.get(port.network_id or "", ())
            for port in guest.ports or ()
        )
    ]


def _title(router: Router) -> str:
    return f"Router {router.name or brief(router.id)}"


def _of_api(router: Router, **values: object) -> Evidence:
    place = f"routers[id={router.id}].{next(iter(values))}"
    return hears(router.answer, "router", place, id=router.id, **values)


@check(Severity.ERROR)
def router_rule_missing(host: Host, cloud: Cloud) -> Problems:
    """A router lacks its own rule for outgoing packets or for metadata, or its metadata proxy.

    Without the rule for outgoing packets (SNAT), guests without a floating IP reach nothing
    outside; without the rule or the proxy for metadata, guests get no answer from 169.254.169.254
    (a warning). cloud-init then waits for minutes at the next start, and a new guest gets no SSH
    key. The L3 agent gives each router both rules beside those of floating IPs, and the proxy.
    Causes: rules were deleted or flushed by hand or by a firewall service, or the proxy ended while
    the agent was down.

    Authority: neutron, for the router's gateway; the kernel, for the rules and for what listens.

    Traps: The redirection is missed only if the proxy listens on its port (9697): without
    `enable_metadata_proxy` neither exists. Guests of networks without a router get their metadata
    from the DHCP server's namespace. Distributed and highly available routers have rules and
    proxies where they are active only, and are not judged. A router whose ports just changed.

    Next: Check the rules, and whether the proxy (haproxy) of the router runs:

        ip netns exec NAMESPACE iptables-save -t nat
        ps -e -o pid,user,lstart,args
        openstack network agent list --router ROUTER

    Restart the agent, which writes all rules of its routers again and starts missing proxies;
    connections through the router go on:

        systemctl restart neutron-l3-agent

    It worked if the namespace has both rules a minute later:

        ip netns exec NAMESPACE iptables-save -t nat

    Not yet: Do not reboot guests to make them ask for metadata again before the rule is back. Do
    not add the rule by hand: the agent has it in another place of its chain. Do not delete floating
    IPs that are not translated: the next ones have other addresses.

    Source: neutron agent/metadata/driver.py `metadata_nat_rules`, `after_router_added`;
    agent/l3/router_info.py `_add_snat_rules`.
    """
    reason: UnheardError | None = None
    for name, space in sorted(host.network.namespaces.items()):
        if not name.startswith("qrouter-"):
            continue
        try:
            yield from _missing(host, cloud, name, space)
        except UnheardError as unheard:
            reason = reason or unheard
    if reason is not None:
        raise reason


def _missing(host: Host, cloud: Cloud, name: str, space: Namespace) -> Iterator[Problem]:
    uuid = name.removeprefix("qrouter-")
    router = host.ports.routers_by_id.get(uuid)
    if router is None or not router.is_plain or not space.has_chains:
        return
    bound = [*_bound(host, uuid)]
    if not bound or any(port.status != "ACTIVE" or just_changed(port) for port in bound):
        return
    rules = space.said["nat"]
    words: dict[str, Any] = {"NAMESPACE": name, "ROUTER": uuid, "FLUSHED": ""}
    outside = [ip for ip in known(lambda: router.gateway_addresses) or () if ":" not in ip]
    listens, port = space.listens, space.metadata_port
    guests = _guests(cloud, uuid)
    whose = f" for {several(guests)}" if guests else ""
    title = f"{_title(router)} on {host.name}"
    unredirected = port is None and METADATA_PORT in listens
    proxy: list[Evidence] = []
    if unredirected:
        proxy = [
            hears(rules, "namespace", name, redirect=None),
            hears(listens[METADATA_PORT], "namespace", name, listens=METADATA_PORT),
        ]
    if outside and is_true(lambda: router.translates) and not space.sources:
        also = f", and no metadata{whose}" if unredirected else ""
        yield problem(
            f"{title} does not translate outgoing packets to {several(outside)}: guests without a "
            f"floating IP reach nothing outside{also}",
            _of_api(router, external_gateway_info=", ".join(outside)),
            hears(rules, "namespace", name, snat=None),
            *proxy,
            **words | {"FLUSHED": uuid},
        )
    elif unredirected:
        yield problem(
            f"{title} does not redirect requests for metadata to its proxy: no metadata{whose}",
            *proxy,
            severity=Severity.WARNING,
            **words,
        )
    if port is not None and port not in listens and _all_sockets(space):
        yield problem(
            f"{title} has no metadata proxy on port {port}: no metadata{whose}",
            hears(rules, "namespace", name, redirect=port),
            hears(space.said["tcp"], "namespace", name, listens=None),
            severity=Severity.WARNING,
            **words,
        )


def _all_sockets(space: Namespace) -> bool:
    """True if the sockets of IPv4 and of IPv6, which the proxy prefers, were collected."""
    answers = [space.said.get(part) for part in ("tcp", "tcp6")]
    missing = [one.error.kind for one in answers if one is not None and one.error is not None]
    return None not in answers and not {*missing} - {"absent"}


@check(Severity.WARNING)
def router_device_mtu_differs(host: Host) -> Problems:
    """A router's or DHCP server's device has another MTU than its network.

    If the device's MTU is smaller, the router drops or splits large packets; if it is larger, it
    passes packets on that the network loses. Small packets pass in both cases: connections open and
    then hang. A DHCP server has no large packets to send (a note). Causes: the MTU was changed by
    hand, or the network's MTU was changed while the agent was down.

    Authority: neutron, for the network; the kernel, for the device.

    Traps: A network that just changed. Releases before Newton record no MTU. Distributed and highly
    available routers are not judged. Open vSwitch may lower the MTU of a router's outer device to
    the smallest on the bridge: it is wrong only if it is less than a network of guests behind the
    router has.

    Next: Compare the MTUs:

        openstack network show NETWORK -c mtu
        ip -n NAMESPACE address

    Set the MTU of the network, which works at once:

        ip -n NAMESPACE link set LINK mtu WIDTH

    It worked if the device has the MTU of the network:

        ip -n NAMESPACE address

    Not yet: Do not change the MTU of the network in neutron: its guests keep the old one until they
    renew their address. Do not reboot guests.

    Source: neutron agent/l3/router_info.py `_internal_network_updated`; agent/linux/dhcp.py
    `DeviceManager.setup`; agent/linux/interface.py `set_mtu`.
    """
    reason: UnheardError | None = None
    for port in host.ports.by_id.values():
        try:
            name = name_of(host, port)
            space = host.network.namespaces.get(name or "")
            if name is not None and space is not None:
                yield from _wrong_width(host, port, name, space)
        except UnheardError as unheard:
            reason = reason or unheard
    if reason is not None:
        raise reason


def _wrong_width(host: Host, port: Port, name: str, space: Namespace) -> Iterator[Problem]:
    network = port.network
    wanted = network.mtu if network is not None else None
    if network is None or wanted is None:
        return
    changed = moment(known(lambda: network.raw["updated_at"]))
    answer = space.said["address"]
    if changed is not None and abs(answer.at - changed) < MOMENT:
        return
    least, most = wanted, wanted
    if port.device_owner == "network:router_gateway":
        # Packets of the guests behind the router are no larger than their own networks allow.
        least = min(wanted, _largest_inside(host, port.device_id))
    severity = Severity.NOTE if port.device_owner == "network:dhcp" else None
    for device, width in space.widths.items():
        if device[3:] == port.id[:PREFIX] and not least <= width <= most:
            yield problem(
                f"{brief(name)}'s device {device} on {host.name} has MTU {width}; its network "
                f"{network.name} has {wanted}",
                says(network, name=network.name, mtu=wanted),
                hears(answer, "namespace", name, device=device, mtu=width),
                severity=severity,
                NETWORK=port.network_id,
                NAMESPACE=name,
                LINK=device,
                WIDTH=wanted,
            )


def _largest_inside(host: Host, router: str) -> int:
    """Return the largest MTU of the networks behind a router; 0 if none is known."""
    inside = (
        port.network.mtu
        for port in host.ports.by_id.values()
        if port.device_id == router
        and port.device_owner == "network:router_interface"
        and port.network is not None
    )
    return max((mtu for mtu in inside if mtu is not None), default=0)
