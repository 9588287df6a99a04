"""The path of a guest's packets through its host: network card, tap, bridge, Open vSwitch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from hoodsnap.bundle import Answer
from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.flows import is_ovn
from hoodsnap.checks.traps import (
    building,
    migrating,
    never_launched,
    port_just_changed,
    task_in_flight,
)
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.api.port import PREFIX, Port
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.database.network_info import NetworkInterface
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.domain_xml import Interface
from hoodsnap.facts.domain.state import ON
from hoodsnap.facts.fact import Fact, UnheardError, known
from hoodsnap.facts.host.tap import NAME, Tap
from hoodsnap.facts.process.process import Process
from hoodsnap.phrase import brief, several

F = TypeVar("F", bound=Fact)

WITH_TAP = frozenset(["bridge", "ethernet", "network"])
"""Types of domain interfaces that have a tap on the host."""

MANY = 3
"""Number of layers from which on a headline no longer names each."""

FAULTY = -1
"""Port number that Open vSwitch reports for an interface it could not plug in."""


class _Word(NamedTuple):
    """One layer's value for one card."""

    value: object
    evidence: Evidence


@check(
    Severity.ERROR,
    traps=[task_in_flight, building, never_launched, migrating, port_just_changed],
)
def mac_chain_mismatch(
    guest: Guest,
    instance: Instance | None,
    domain: Domain | None,
    ports: tuple[Port, ...] | None,
    taps: tuple[Tap, ...] | None,
) -> Problems:
    """The MAC address of the guest's network card does not match its port.

    The port's filters pass only the port's own address, and switches expect that address there. The
    guest is cut off although everything else looks right. Causes: a domain edited by hand, or a
    port's address that was changed after the port was attached.

    Authority: neutron, for what should be; libvirt, for what the guest has.

    Traps: Upper and lower case in the address. Cards attached later are not on QEMU's command line,
    so the command line is not compared. The tap's own address starts with `fe`. Bonds of several
    cards and passed-through cards have addresses of their own.

    Next: Check the address in each layer:

        openstack port show PORT -c mac_address
        virsh domiflist NAME
        ovs-vsctl --columns=external_ids list Interface TAP

    If nova did not create the port (nova would delete its own), let nova attach the port again,
    which takes the card from the guest and gives it a new one:

        openstack server remove port UUID LOST_PORT
        openstack server add port UUID LOST_PORT

    If nova created the port, stop and start the server, once the address in nova's info cache is
    confirmed to be right. This ends the guest and boots it again:

        openstack server stop REPLUGGED
        openstack server start REPLUGGED

    It worked if the guest's card has the port's address:

        openstack port show PORT -c mac_address
        virsh domiflist NAME

    Not yet: Do not run `openstack server reboot --hard`, which uses the address in nova's info
    cache, before that address is confirmed to be right.

    Source: nova virt/libvirt/vif.py; libvirt virNetDevTapCreateInBridgePort (the tap's address);
    neutron port security.
    """
    if domain is None or domain.state not in ON:
        return
    of_tap = {tap.prefix: tap for tap in taps or ()}
    of_port = {port.id[:PREFIX]: port for port in ports or ()}
    for card, prefix in _cards(domain):
        words = [
            *_heard(of_port.get(prefix), lambda it: says(it, mac=it.mac)),
            *_noted(instance, prefix),
            _Word(card.mac, says(domain, interfaces=f"{card.target} {card.mac}")),
            *_heard(of_tap.get(prefix), lambda it: says(it, attached_mac=it.attached_mac)),
        ]
        if len({word.value for word in words if word.value}) > 1:
            port = of_port.get(prefix)
            lost, replugged = _lost(guest, port.id if port is not None else None)
            yield problem(
                f"{guest.title}'s card {card.target} has MAC {_by_value(words)}",
                *(word.evidence for word in words if word.value),
                PORT=port.id if port is not None else None,
                TAP=card.target,
                LOST_PORT=lost,
                REPLUGGED=replugged,
            )
        elif other := _address_of_another(guest, card, prefix, of_tap.get(prefix)):
            yield other


def _address_of_another(
    guest: Guest, card: Interface, prefix: str, tap: Tap | None
) -> Problem | None:
    """Return a problem if the tap has the address that libvirt gives to another port's tap.

    libvirt gives a tap the address of its card, with `fe` in front. A tap that something else made
    has an address that no card has.
    """
    host = guest.host
    address = known(lambda: tap.mac if tap is not None and tap.is_there else None)
    if host is None or not address or address[3:] == (card.mac or "")[3:]:
        return None
    for port in host.ports.by_id.values():
        if port.mac[3:] == address[3:] and address[:2] == "fe" and port.id[:PREFIX] != prefix:
            return problem(
                f"{guest.title}'s tap {card.target} has the address of port {brief(port.id)}'s tap,"
                f" {address}",
                says(port, id=port.id, mac=port.mac),
                *([says(tap, name=tap.name, mac=address)] if tap is not None else []),
                PORT=port.id,
                TAP=card.target,
                LOST_PORT="",
                REPLUGGED=guest.uuid,
            )
    return None


def _by_value(words: Iterable[_Word]) -> str:
    """Return the values with their layers, the odd one first: `1300 in the tap, but 1450 in the
    other layers`."""
    nouns: dict[object, dict[str, None]] = {}
    for word in words:
        if word.value:
            nouns.setdefault(word.value, {})[f"the {word.evidence.noun}"] = None
    return ", but ".join(
        f"{value} in {several(names) if len(names) < MANY else 'the other layers'}"
        for value, names in sorted(nouns.items(), key=lambda group: len(group[1]))
    )


def _cards(domain: Domain) -> Iterator[tuple[Interface, str]]:
    """Yield each card that is named after a port, with the beginning of the port's id."""
    for card in domain.xml.interfaces:
        if found := NAME.fullmatch(card.target or ""):
            yield card, found["prefix"]


def _heard(fact: F | None, word: Callable[[F], Evidence]) -> Iterator[_Word]:
    """Yield the fact's value if it was collected."""
    try:
        evidence = word(fact) if fact is not None else None
    except UnheardError:
        return
    for _, value in evidence.said if evidence is not None else ():
        if evidence is not None and value is not None:
            yield _Word(value, evidence)


def _noted(instance: Instance | None, prefix: str) -> Iterator[_Word]:
    """Yield the address in nova's info cache, and the address that nova first gave to the port."""
    if instance is None:
        return
    try:
        for vif in instance.network_info:
            if vif.id[:PREFIX] == prefix and vif.mac is not None:
                yield _Word(vif.mac, says(instance, network_info=f"{vif.device} {vif.mac}"))
    except UnheardError:
        pass
    try:
        for port, mac in instance.macs.items():
            if port[:PREFIX] == prefix:
                yield _Word(mac, says(instance, macs=mac))
    except UnheardError:
        pass


@check(
    Severity.ERROR,
    traps=[task_in_flight, building, never_launched, migrating, port_just_changed],
)
def tap_missing_or_miswired(
    guest: Guest,
    domain: Domain,
    taps: tuple[Tap, ...],
    process: Process | None,
    ports: tuple[Port, ...] | None,
) -> Problems:
    """The running guest's tap is missing, down or wired to the wrong place.

    The tap is the host's end of the guest's network cable. QEMU holds it open, and the kernel's
    bridge or Open vSwitch must have it with the port's id, so that neutron's agent recognizes and
    wires it. A deleted tap never comes back while the guest runs. A wrong id, a wrong bridge or the
    dead VLAN 4095 is corrected by the agent, if the agent is alive.

    Authority: The kernel, for the device; Open vSwitch, for what is plugged in.

    Traps: vhost-user and passed-through cards have no tap. If the port has a bridge of its own
    (hybrid), its end on br-int is named qvo. OVN sets no VLAN. A port that is administratively down
    is in the dead VLAN on purpose. The guest may be in another network namespace than the one that
    was collected.

    Next: Check the device, Open vSwitch and QEMU, and read the log of neutron-openvswitch-agent:

        ip -d link show TAP
        ovs-vsctl --columns=name,ofport,error,external_ids list Interface TAP
        ovs-vsctl get Port TAP tag
        grep iff /proc/PID/fdinfo/*

    If the tap was renamed, give it its name back. The guest has no network meanwhile:

        ip link set LINK down
        ip link set LINK name TAP
        ip link set TAP up

    If the tap is down, switch it on, which connects the guest:

        ip link set DEVICE up

    If only the VLAN is wrong, restart neutron's agent, which wires all taps of the host again
    without interrupting the others:

        systemctl restart REWIRING

    If Open vSwitch does not have the port's id, set it, and the agent wires the tap:

        ovs-vsctl set Interface UNMARKED external_ids:iface-id=PORT

    If the tap was deleted and nova did not create the port (nova would delete its own), let nova
    attach the port again, which gives the guest a new card:

        openstack server remove port UUID LOST_PORT
        openstack server add port UUID LOST_PORT

    If nova created the port, check that the server's volumes and ports are right, because a stop
    and start defines the guest again from all of nova's records. Then stop and start the server,
    which ends the guest and boots it again:

        openstack server stop REPLUGGED
        openstack server start REPLUGGED

    It worked if the tap is up, Open vSwitch reports no error and another VLAN than 4095, and the
    port is ACTIVE:

        ip -d link show TAP
        ovs-vsctl --columns=name,ofport,error,external_ids list Interface TAP
        ovs-vsctl get Port TAP tag
        openstack port show PORT -c status

    Not yet: Do not run `ovs-vsctl del-br`. Do not run `openstack server reboot --hard` before the
    guest's volumes and its info cache are confirmed to be right.

    Source: os-vif vif_plug_ovs/ovsdb `ovs_vif_port_external_ids`; neutron agent/common/ovs_lib.py
    (DEAD_VLAN_TAG); kernel drivers/net/tun.c (fdinfo).
    """
    if domain.state not in ON or guest.process is None:
        return
    of_tap = {tap.prefix: tap for tap in taps}
    of_port = {port.id[:PREFIX]: port for port in ports or ()}
    for card, prefix in _cards(domain):
        if card.type not in WITH_TAP:
            continue
        held = _held(process)
        tap, port = of_tap.get(prefix), of_port.get(prefix)
        target, port_id = says(domain, taps=card.target), port.id if port is not None else None
        if tap is None or not tap.is_there:
            listing = guest.census["network"]
            gone = hears(listing, "network", card.target or "", **{card.target or "tap": None})
            unplugged = _switch(guest, tap, port)
            link = _renamed(guest, card, held)
            lost, replugged = _lost(guest, port_id) if link is None else ("", "")
            yield problem(
                f"{guest.title}'s tap {card.target} was renamed to {link}"
                if link is not None
                else f"{guest.title}'s tap {card.target} does not exist on host {_host_of(guest)}",
                *(target, gone, *(one.evidence for one in unplugged)),
                *_others(process, held, domain),
                *([_link(guest, listing, link)] if link is not None else []),
                TAP=card.target,
                LINK=link or "",
                DEVICE="",
                REWIRING="",
                UNMARKED="",
                PORT=port_id,
                LOST_PORT=lost,
                REPLUGGED=replugged,
            )
            continue
        wrong = (*_kernels(guest, card, tap, process, held), *_switch(guest, tap, port))
        if wrong:
            marks = any(one.of_id for one in wrong)
            rewired = all(one.of_vlan for one in wrong)
            mended = marks or rewired or [one.fault for one in wrong] == ["is down"]
            lost, replugged = ("", "") if mended else _lost(guest, port_id)
            yield problem(
                f"{guest.title}'s tap {card.target} {wrong[0].fault}",
                target,
                *(one.evidence for one in wrong),
                TAP=card.target,
                LINK="",
                DEVICE=card.target if not tap.up else "",
                REWIRING="neutron-openvswitch-agent" if rewired else "",
                UNMARKED=card.target if marks else "",
                PORT=port_id,
                LOST_PORT=lost,
                REPLUGGED=replugged,
            )


class _Fault(NamedTuple):
    """One difference of a tap, and its evidence."""

    fault: str
    """Predicate of a sentence about the tap: `is down`."""
    evidence: Evidence
    of_vlan: bool = False
    """The tap is wired, but to another VLAN: the agent mends that."""
    of_id: bool = False
    """The tap has no id of a port in Open vSwitch, or another port's: setting it mends the tap."""


def _lost(guest: Guest, port: str | None) -> tuple[str | None, str]:
    """Return how to attach a card again: the port that nova can attach, and the server that must be
    stopped and started because nova created the port and would delete it.

    The one that does not apply is empty; none is if nova's info cache was not collected.
    """
    cached = known(lambda: guest.instance.network_info if guest.instance is not None else ()) or ()
    [kept, *_] = [*(one.kept for one in cached if one.id == port), None]
    return "" if kept is False else port, "" if kept else guest.uuid


def _host_of(guest: Guest) -> str:
    return guest.host.name if guest.host is not None else "?"


def _link(guest: Guest, listing: Answer, link: str) -> Evidence:
    links = guest.host.network.links if guest.host is not None else {}
    return hears(listing, "network", link, link=link, address=links.get(link, {}).get("address"))


def _renamed(guest: Guest, card: Interface, held: frozenset[str] | None) -> str | None:
    """Return the present name of the card's tap, if the guest's process holds it open.

    libvirt gives a tap the MAC address of its card, with `fe` in front.
    """
    links = guest.host.network.links if guest.host is not None else {}
    for name in sorted(held or ()):
        address = links.get(name, {}).get("address")
        is_its = isinstance(address, str) and address.lower()[3:] == (card.mac or "?")[3:]
        if is_its and name != card.target:
            return name
    return None


def _held(process: Process | None) -> frozenset[str] | None:
    """Return the taps that the guest's process holds; None if they were not collected."""
    try:
        return process.taps if process is not None else None
    except UnheardError:
        return None


def _others(
    process: Process | None, held: frozenset[str] | None, domain: Domain
) -> Iterator[Evidence]:
    """Evidence of taps that the process holds but its domain does not list."""
    if process is not None and held is not None and held - set(domain.taps):
        yield says(process, pid=process.pid, taps=", ".join(sorted(held)) or None)


def _kernels(
    guest: Guest, card: Interface, tap: Tap, process: Process | None, held: frozenset[str] | None
) -> Iterator[_Fault]:
    """Yield what the kernel reports differently about an existing tap."""
    if not tap.up:
        yield _Fault("is down", says(tap, name=tap.name, up=False))
    bridge = guest.host.network.links.get(card.source or "") if guest.host is not None else None
    info = bridge.get("linkinfo") if bridge is not None else None
    # An Open vSwitch bridge is unknown to the kernel, or not of its kind `bridge`.
    if isinstance(info, dict) and info.get("info_kind") == "bridge" and tap.master != card.source:
        place = says(tap, name=tap.name, master=tap.master).and_so(expected=card.source)
        yield _Fault(f"is in {tap.master or 'no bridge'} instead of bridge {card.source}", place)
    if process is not None and held and card.target not in held:
        taps = says(process, pid=process.pid, taps=", ".join(sorted(held)))
        yield _Fault(f"is not open in QEMU, which has {several(sorted(held))}", taps)


def _switch(guest: Guest, tap: Tap | None, port: Port | None) -> Iterator[_Fault]:
    """Yield what Open vSwitch reports differently.

    It is compared only if neutron has bound the port to it, or if it knows the port itself.
    """
    host = guest.host
    if host is None or host.network.switch_listing is None:
        return
    is_switched = _of(lambda: tap is not None and tap.is_switched)
    if not is_switched:
        # The port is bound to Open vSwitch but missing in it.
        if port is not None and _of(lambda: port.vif_type == "ovs" and port.bridge is not None):
            listing = host.network.switch_listing
            none = hears(listing, "network", port.tap, Interface=None)
            yield _Fault("is missing in Open vSwitch", none)
        return
    assert tap is not None  # noqa: S101 (else it is not switched)
    if tap.error:
        error = says(tap, name=tap.name, error=tap.error)
        yield _Fault(f"has an error in Open vSwitch: {tap.error}", error)
    if tap.ofport == FAULTY:
        number = says(tap, name=tap.name, ofport=tap.ofport)
        yield _Fault("could not be attached to Open vSwitch (ofport -1)", number)
    if tap.vm_uuid is not None and tap.vm_uuid.lower() != guest.uuid:
        owner = says(tap, name=tap.name, vm_uuid=tap.vm_uuid)
        yield _Fault(f"has another server's UUID in Open vSwitch: {brief(tap.vm_uuid)}", owner)
    if port is None:
        return
    yield from _unrecognized(guest, tap, port)
    if tap.iface_id is not None and tap.iface_id.lower() != port.id:
        named = says(tap, name=tap.name, iface_id=tap.iface_id)
        fault = f"has the id of another port in Open vSwitch: {brief(tap.iface_id)}"
        yield _Fault(fault, named, of_id=True)
    if _of(lambda: tap.is_dead and port.admin_state_up):
        tag = says(tap, name=tap.name, tag=tap.tag)
        yield _Fault(f"is in the dead VLAN {tap.tag}, but its port is up", tag, of_vlan=True)
    # The agent sets a tap's tag before it reports its port as up.
    if _of(lambda: tap.tag is None and port.status == "ACTIVE" and _has_tags(host, tap)):
        none = says(tap, name=tap.name, tag=None)
        yield _Fault("has no VLAN in Open vSwitch, unlike the other taps", none, of_vlan=True)
    if _of(lambda: port.bridge is not None and tap.bridge not in (None, port.bridge)):
        fault = f"is on bridge {tap.bridge}, but neutron expects {port.bridge}"
        yield _Fault(fault, says(tap, name=tap.name, bridge=tap.bridge))
        yield _Fault(fault, says(port, id=port.id, bridge=port.bridge))


def _has_tags(host: Host, tap: Tap) -> bool:
    """True if all other taps on the tap's bridge have a VLAN: OVN uses none."""
    others = [it for it in host.network.taps.values() if it is not tap and it.is_switched]
    tags = [it.tag for it in others if it.bridge == tap.bridge]
    return bool(tags) and None not in tags


def _unrecognized(guest: Guest, tap: Tap, port: Port) -> Iterator[_Fault]:
    """Yield why the agent does not recognize the tap, or has wired it into another network."""
    if tap.iface_id is None:
        none = says(tap, name=tap.name, iface_id=None)
        fault = "has no port id (iface-id) in Open vSwitch, so no agent wires it"
        yield _Fault(fault, none, of_id=True)
    elif tap.attached_mac is None:
        none = says(tap, name=tap.name, attached_mac=None)
        yield _Fault("has no attached-mac in Open vSwitch, so no agent wires it", none)
    assert guest.host is not None  # noqa: S101 (checked by the caller)
    # Releases of OVN before 20.12 mark no tap.
    marks = is_ovn(guest.host, port) and guest.host.network.has_installed
    if marks and _of(lambda: not tap.installed):
        none = says(tap, name=tap.name, installed=False)
        yield _Fault("was not installed by ovn-controller (no ovn-installed)", none)
    name = known(lambda: tap.port_name)
    if name is not None and name != tap.row_name:
        other = says(tap, name=tap.name, port_name=name)
        yield _Fault(f"is in a port of another name in Open vSwitch: {name}", other)
    wired, segment = known(lambda: tap.network_id), known(lambda: tap.segment)
    real = known(lambda: port.network.segment if port.network is not None else None)
    if wired is not None and wired != port.network_id:
        fault = f"is wired into another network: {brief(wired)}"
        yield _Fault(fault, says(tap, name=tap.name, network_id=wired))
        yield _Fault(fault, says(port, id=port.id, network_id=port.network_id))
    elif segment is not None and real is not None and segment != str(real):
        fault = f"is wired into segment {segment}, its network has {real}"
        yield _Fault(fault, says(tap, name=tap.name, segment=segment))
        if port.network is not None:
            yield _Fault(fault, says(port.network, name=port.network.name, segment=real))


def _of(said: Callable[[], bool]) -> bool:
    """True if the layer's value is true; False if it is false or was not collected."""
    try:
        return said()
    except UnheardError:
        return False


@check(Severity.ERROR)
def duplicate_mac_or_port(cloud: Cloud) -> Problems:
    """Two guests have the same port, or the same MAC address in one network.

    Switches send packets to whichever guest sent last, so both lose connections at random. Causes:
    a domain that was copied by hand, or a server that was deleted only in nova.

    Authority: libvirt, for what runs; neutron, for which server the port belongs to.

    Traps: One guest on two hosts is a live migration or a split brain, which other checks report.
    The same address in two networks is harmless. Guests that are off.

    Next: Compare both guests and the port:

        virsh domiflist NAME
        virsh domiflist OTHER
        openstack port show PORT -c device_id

    Then find out which guest nova knows, and shut the other down from inside.

    Not yet: Do not run `virsh destroy` before you know which of them is the server.

    Source: neutron's unique constraint on network and MAC address; nova bug 1414065.
    """
    cards: dict[tuple[str, str], list[tuple[Guest, Domain, Interface]]] = {}
    for guest, domain, card, prefix in _running_cards(cloud):
        if prefix is not None:
            cards.setdefault(("port", prefix), []).append((guest, domain, card))
        network = _network_of(cloud, guest, prefix, card)
        if card.mac is not None and network is not None:
            cards.setdefault((network, card.mac), []).append((guest, domain, card))
    told = set()
    for (kind, value), same in cards.items():
        uuids = frozenset(guest.uuid for guest, _, _ in same)
        if len(uuids) > 1 and uuids not in told:
            told.add(uuids)
            ports = cloud.ports.by_prefix.get(value, ()) if kind == "port" else ()
            what = f"port {value}" if kind == "port" else f"MAC address {value} in one network"
            yield problem(
                f"{several(sorted({guest.title for guest, _, _ in same}))} have the same {what}",
                *(
                    says(domain, name=domain.name, interfaces=f"{card.target} {card.mac}")
                    for _, domain, card in same
                ),
                NAME=same[0][1].name,
                OTHER=next(guest.uuid for guest, _, _ in same if guest.uuid != same[0][0].uuid),
                PORT=ports[0].id if ports else None,
            )


def _running_cards(cloud: Cloud) -> Iterator[tuple[Guest, Domain, Interface, str | None]]:
    for guest in cloud.guests:
        try:
            if guest.domain is None or guest.domain.state not in ON:
                continue
            for card in guest.domain.xml.interfaces:
                found = NAME.fullmatch(card.target or "")
                yield guest, guest.domain, card, found["prefix"] if found else None
        except UnheardError:
            continue  # an unreadable guest can't be compared


def _network_of(cloud: Cloud, guest: Guest, prefix: str | None, card: Interface) -> str | None:
    """Return the network of the card's port in neutron; None if the port is not found."""
    ports = cloud.ports.by_prefix.get(prefix or "", ()) or guest.ports or ()
    for port in ports:
        try:
            if prefix == port.id[:PREFIX] or port.mac == card.mac:
                return port.network_id
        except UnheardError:
            continue
    return None


@check(
    Severity.WARNING,
    traps=[task_in_flight, building, never_launched, migrating, port_just_changed],
)
def mtu_mismatch(
    guest: Guest,
    instance: Instance | None,
    domain: Domain,
    ports: tuple[Port, ...],
    taps: tuple[Tap, ...] | None,
) -> Problems:
    """The network's MTU does not match the MTU in nova, the domain or the tap.

    Small packets get through and large ones do not, so connections open and then hang. The MTU of
    the network was changed while guests were using it: nova keeps the old MTU in its info cache and
    in the domain, and a live migration may fail because of it.

    Authority: neutron, for the network; the kernel, for the tap.

    Traps: A tap's MTU may be larger than the network's. Releases before Newton record no MTU, and
    older domains have none.

    Next: Compare the MTUs:

        openstack network show NETWORK -c mtu
        ip link show TAP
        virsh dumpxml NAME | grep mtu

    If only the tap differs, it was changed by hand on the host. Set it back; the guest's
    connections go on:

        ip link set TAP mtu WIDTH

    It worked if the tap has the MTU of the network:

        ip link show TAP

    If nova or the domain differs, attach a port of the network to the server, so that nova asks
    neutron for the MTU, and detach that port again. After that, a hard reboot writes the domain
    with the new MTU:

        openstack server add network OUTDATED NETWORK

    It worked if the domain has the MTU of the network:

        virsh dumpxml OUTDATED | grep mtu

    Not yet: Do not run `openstack server reboot --hard` before the info cache is confirmed to be
    complete.

    Source: nova network/neutron.py, virt/libvirt/vif.py `set_config_mtu`; nova bug 2080531.
    """
    if not guest.is_here or domain.state not in ON:
        return
    of_tap = {tap.prefix: tap for tap in taps or ()}
    noted = {vif.id: vif for vif in _network_info(instance)}
    cards = {prefix: card for card, prefix in _cards(domain)}
    for port in ports:
        network = port.network
        wanted = network.mtu if network is not None else None
        if network is None or wanted is None:
            continue
        words = [_Word(wanted, says(network, name=network.name, mtu=wanted))]
        vif, card = noted.get(port.id), cards.get(port.id[:PREFIX])
        if vif is not None and vif.mtu is not None and instance is not None:
            said = f"{vif.device} mtu {vif.mtu}"
            words.append(_Word(vif.mtu, says(instance, network_info=said)))
        if card is not None and card.mtu is not None:
            said = f"{card.target} mtu {card.mtu}"
            words.append(_Word(card.mtu, says(domain, interfaces=said)))
        of_host = _heard(of_tap.get(port.id[:PREFIX]), lambda it: says(it, mtu=it.mtu))
        recorded = {word.value for word in words}
        words += [word for word in of_host if _is_less(word, wanted)]
        if len({word.value for word in words}) > 1:
            of_tap_only = recorded == {wanted}
            yield problem(
                f"{guest.title}'s card {port.tap} has MTU {_by_value(words)}",
                *(word.evidence for word in words),
                NETWORK=port.network_id,
                TAP=port.tap,
                WIDTH=wanted if of_tap_only else "",
                OUTDATED="" if of_tap_only else guest.uuid,
            )


def _network_info(instance: Instance | None) -> Iterable[NetworkInterface]:
    try:
        return instance.network_info if instance is not None else ()
    except UnheardError:
        return ()


def _is_less(word: _Word, wanted: int) -> bool:
    return isinstance(word.value, int) and word.value < wanted
