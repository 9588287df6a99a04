"""The way of a guest's packets through its host: card, tap, bridge, Open vSwitch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from hoodsnap.check import Problems, check
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
from hoodsnap.facts.domain.domain import ON, Domain, Interface
from hoodsnap.facts.fact import Fact, UnheardError
from hoodsnap.facts.host.tap import NAME, Tap
from hoodsnap.facts.process.process import Process

WITH_TAP = frozenset(["bridge", "ethernet", "network"])
"""The types of a domain's interface that have a tap on the host."""

FAULTY = -1
"""The number that Open vSwitch gives to what it could not plug in."""


class _Word(NamedTuple):
    """What one layer says of one card."""

    value: object
    fact: Fact
    said: Mapping[str, object]

    @property
    def evidence(self) -> Evidence:
        """Made only where the words differ: nearly all agree."""
        return says(self.fact, **self.said)


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
    """A guest's network card has not the address that its port has.

    The filters of the port let only its own address out, and switches look for it there, so that
    the guest is cut off, however well everything else looks. It comes of a domain that was edited
    by hand, or of a port whose address was changed after the guest had it.

    Authority: neutron for what should be; libvirt for what the guest has.

    Traps: upper and lower case; cards plugged in later are not on QEMU's command line, which
    therefore is no witness; the tap's own address has `fe` in front; bonds of several cards, and
    cards passed through, have addresses of their own.

    Next: `openstack port show PORT -c mac_address`, `virsh domiflist NAME`, `ovs-vsctl --columns=
    external_ids list Interface TAP`; the evidence shows the odd one out. Then let nova plug the
    port in anew (`openstack server remove port`, `add port`).

    Not yet: `openstack server reboot --hard`, which takes the address of nova's info cache, before
    that is known to be right.

    Source: nova virt/libvirt/vif.py; libvirt virNetDevTapCreateInBridgePort (the tap's address);
    neutron port security.
    """
    if domain is None or domain.state not in ON:
        return
    of_tap = {tap.prefix: tap for tap in taps or ()}
    of_port = {port.id[:PREFIX]: port for port in ports or ()}
    for card, prefix in _cards(domain):
        words = [
            *_heard(of_port.get(prefix), "mac"),
            *_noted(instance, prefix),
            _Word(card.mac, domain, {"interfaces": f"{card.target} {card.mac}"}),
            *_heard(of_tap.get(prefix), "attached_mac"),
        ]
        if len({word.value for word in words if word.value}) > 1:
            yield tuple(word.evidence for word in words if word.value)


def _cards(domain: Domain) -> Iterator[tuple[Interface, str]]:
    """The cards that are named after a port, each with the beginning of the port's id."""
    for card in domain.xml.interfaces:
        if found := NAME.fullmatch(card.target or ""):
            yield card, found["prefix"]


def _heard(fact: Fact | None, field: str) -> Iterator[_Word]:
    """The fact's word if it told one."""
    try:
        value = getattr(fact, field) if fact is not None else None
    except UnheardError:
        return
    if value is not None and fact is not None:
        yield _Word(value, fact, {field: value})


def _noted(instance: Instance | None, prefix: str) -> Iterator[_Word]:
    """The address in nova's info cache, and the one that it first gave to the port."""
    if instance is None:
        return
    try:
        for vif in instance.vifs:
            if vif.id[:PREFIX] == prefix and vif.mac is not None:
                yield _Word(vif.mac, instance, {"vifs": f"{vif.device} {vif.mac}"})
    except UnheardError:
        pass
    try:
        for port, mac in instance.macs.items():
            if port[:PREFIX] == prefix:
                yield _Word(mac, instance, {"macs": mac})
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
    """A running guest's tap is gone, or not where its packets would get on.

    The tap is the host's end of the guest's cable. QEMU holds it open, and the kernel's bridge or
    Open vSwitch must have it, with the port's id, so that neutron's agent recognizes and wires it.
    One that was deleted never comes back to a running guest; a wrong id, bridge or the dead VLAN
    4095 is mended by the agent, if it is alive.

    Authority: the kernel for the device; Open vSwitch for what is plugged in.

    Traps: vhost-user and passed-through cards have no tap; with a bridge of its own (hybrid) the
    port's end on br-int is called qvo; OVN gives no VLAN; a port that is switched off is in the
    dead VLAN on purpose; a guest in another network namespace than was looked at.

    Next: `ip -d link show TAP`, `ovs-vsctl --columns=name,ofport,error,external_ids list Interface
    TAP`, `ovs-vsctl get Port TAP tag`, `grep iff /proc/PID/fdinfo/*`, and the log of
    neutron-openvswitch-agent. Then let nova plug the port in anew (`openstack server remove port`,
    `add port`).

    Not yet: `ovs-vsctl del-br`; `openstack server reboot --hard` before its volumes and its info
    cache are known to be right.

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
        target = says(domain, taps=card.target)
        if tap is None or not tap.is_there:
            listing = guest.census["network"]
            gone = hears(listing, "network", card.target or "", **{card.target or "tap": None})
            yield (target, gone, *_switch(guest, tap, port), *_others(process, held, domain))
            continue
        wrong = [*_kernels(guest, card, tap, process, held), *_switch(guest, tap, port)]
        if wrong:
            yield (target, *wrong)


def _held(process: Process | None) -> frozenset[str] | None:
    """The taps that the guest's process holds; None if that was not heard."""
    try:
        return process.taps if process is not None else None
    except UnheardError:
        return None


def _others(
    process: Process | None, held: frozenset[str] | None, domain: Domain
) -> Iterator[Evidence]:
    """The taps that the process holds, and that are none of its domain's."""
    if process is not None and held is not None and held - set(domain.taps):
        yield says(process, pid=process.pid, taps=", ".join(sorted(held)) or None)


def _kernels(
    guest: Guest, card: Interface, tap: Tap, process: Process | None, held: frozenset[str] | None
) -> Iterator[Evidence]:
    """What of a tap that is there the kernel has otherwise."""
    if not tap.up:
        yield says(tap, name=tap.name, up=False)
    bridge = guest.host.network.links.get(card.source or "") if guest.host is not None else None
    info = bridge.get("linkinfo") if bridge is not None else None
    # Of those of Open vSwitch the kernel knows no bridge, or only that it is not its own.
    if isinstance(info, dict) and info.get("info_kind") == "bridge" and tap.master != card.source:
        yield says(tap, name=tap.name, master=tap.master).and_so(expected=card.source)
    if process is not None and held and card.target not in held:
        yield says(process, pid=process.pid, taps=", ".join(sorted(held)))


def _switch(guest: Guest, tap: Tap | None, port: Port | None) -> Iterator[Evidence]:
    """What Open vSwitch has otherwise. It is asked only where neutron has bound the port to it, or
    it knows the port itself."""
    host = guest.host
    if host is None or host.network.switch_listing is None:
        return
    is_switched = _of(lambda: tap is not None and tap.is_switched)
    if not is_switched:
        # A port bound to Open vSwitch, in a host that has one: and it is not there.
        if port is not None and _of(lambda: port.vif_type == "ovs" and port.bridge is not None):
            listing = host.network.switch_listing
            yield hears(listing, "network", port.tap, Interface=None)
        return
    assert tap is not None  # noqa: S101 (else it is not switched)
    if tap.error:
        yield says(tap, name=tap.name, error=tap.error)
    if tap.ofport == FAULTY:
        yield says(tap, name=tap.name, ofport=tap.ofport)
    if tap.vm_uuid is not None and tap.vm_uuid.lower() != guest.uuid:
        yield says(tap, name=tap.name, vm_uuid=tap.vm_uuid)
    if port is None:
        return
    if tap.iface_id is not None and tap.iface_id.lower() != port.id:
        yield says(tap, name=tap.name, iface_id=tap.iface_id)
    if _of(lambda: tap.is_dead and port.admin_state_up):
        yield says(tap, name=tap.name, tag=tap.tag)
    if _of(lambda: port.bridge is not None and tap.bridge not in (None, port.bridge)):
        yield says(tap, name=tap.name, bridge=tap.bridge)
        yield says(port, id=port.id, bridge=port.bridge)


def _of(said: Callable[[], bool]) -> bool:
    """Whether a layer said so. What it did not say makes nothing of it."""
    try:
        return said()
    except UnheardError:
        return False


@check(Severity.WARNING)
def tap_orphan(host: Host) -> Problems:
    """A tap, or a port of Open vSwitch, is left here of a guest that is not.

    It costs little by itself. But with the same port's id the agent may wire it instead of the
    right one, and one of a bridge of its own keeps the guest's filters in place. It is left when a
    guest was deleted or moved while nova-compute or libvirt was away.

    Authority: libvirt and the kernel for who uses it; neutron for whose it is.

    Traps: the taps of DHCP and routers are neutron's own; what comes in by live migration has its
    tap before it has a domain; guests that are off keep their port of Open vSwitch; one whose port
    neutron still had when the taps were looked at, and a moment later no more.

    Next: `ovs-vsctl --columns=name,ofport,error,external_ids list Interface`, `openstack port show
    PORT`, `grep -l TAP /proc/*/fdinfo/*`. Then `ovs-vsctl del-port br-int TAP` or `ip link del`.

    Not yet: deleting it before its port's guest is known to run on another host, or nowhere.

    Source: os-vif vif_plug_ovs `unplug`; nova virt/libvirt/driver.py `unplug_vifs`.
    """
    for layer in ("libvirt", "kernel", "network"):
        if layer in host.unheard:
            raise UnheardError(host.unheard[layer])
    left = {prefix: tap for prefix, tap in host.network.taps.items() if _may_be_guests(host, tap)}
    if not left:
        return
    # Only now is it worth reading all that may use one.
    used = {name for process in host.processes.values() for name in process.taps}
    used |= {name for domain in host.domains.values() for name in _targets(domain)}
    prefixes = {found["prefix"] for name in used if (found := NAME.fullmatch(name))}
    listing = host.ports.of_host(host.nova_name)
    for prefix, tap in left.items():
        if prefix in prefixes or prefix in host.ports.went:
            continue
        if listing is None:
            raise UnheardError(host.ports.silence)
        ports = host.ports.by_prefix.get(prefix, ())
        if not any(_is_awaited(host, port) for port in ports):
            none = hears(listing, "neutron", tap.name, port=None)
            known = [says(port, id=port.id, host=port.host) for port in ports]
            yield (_left(tap), *(known or [none]))


def _may_be_guests(host: Host, tap: Tap) -> bool:
    """It is no device of neutron's own: nova notes the server's UUID, and theirs may be pairs."""
    if host.network.switch_listing is not None and tap.is_switched:
        return tap.vm_uuid is not None
    return not tap.is_there or tap.kind == "tun"


def _targets(domain: Domain) -> Iterator[str]:
    try:
        yield from domain.taps
    except UnheardError:
        # One that is off has only the definition of its next start.
        yield from (card.target for card in domain.inactive.interfaces if card.target)


def _is_awaited(host: Host, port: Port) -> bool:
    """It is bound here, or is on its way: then its guest is busy, or has a second binding."""
    if port.host == host.nova_name:
        return True
    try:
        return any(bound.host == host.nova_name for bound in port.bindings)
    except UnheardError:
        return False


def _left(tap: Tap) -> Evidence:
    if tap.is_there:
        return says(tap, name=tap.name, up=tap.up)
    names = ", ".join(f"{kind}{tap.prefix}" for kind in sorted(tap.links))
    if names:
        return says(tap, name=names)
    return says(tap, name=tap.name, ofport=tap.ofport, error=tap.error)


@check(Severity.ERROR)
def duplicate_mac_or_port(cloud: Cloud) -> Problems:
    """Two guests have the same port, or the same address in one network.

    Switches send packets to the one that spoke last: both lose connections, at random. It comes of
    a domain that was copied by hand, and of a server that was deleted only in nova.

    Authority: libvirt for what runs; neutron for whose the port is.

    Traps: one guest on two hosts is a live migration, or a split brain, which others tell; the
    same address in two networks is nobody's harm; guests that are off.

    Next: `virsh domiflist NAME` of both, `openstack port show PORT -c device_id`. Then see which of
    them nova knows, and switch the other off from inside.

    Not yet: `virsh destroy` before you know which of them is the server.

    Source: neutron's unique constraint on network and MAC address; nova bug 1414065.
    """
    cards: dict[tuple[str, ...], list[tuple[Guest, Domain, Interface]]] = {}
    for guest, domain, card, prefix in _running_cards(cloud):
        if prefix is not None:
            cards.setdefault(("port", prefix), []).append((guest, domain, card))
        network = _network_of(cloud, guest, prefix, card)
        if card.mac is not None and network is not None:
            cards.setdefault((network, card.mac), []).append((guest, domain, card))
    told = set()
    for same in cards.values():
        uuids = frozenset(guest.uuid for guest, _, _ in same)
        if len(uuids) > 1 and uuids not in told:
            told.add(uuids)
            yield tuple(
                says(domain, name=domain.name, interfaces=f"{card.target} {card.mac}")
                for _, domain, card in same
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
            continue  # what can't be read has nothing in common with others


def _network_of(cloud: Cloud, guest: Guest, prefix: str | None, card: Interface) -> str | None:
    """The network that neutron has the card in."""
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
    """The guest's network carries packets of another size than the guest is told.

    Small packets get through and large ones don't: connections open, and then hang. It comes of a
    network whose MTU was changed while guests are in it: nova keeps the old one in its info cache
    and in the domain, and a live migration may fail for that.

    Authority: neutron for the network; the kernel for the tap.

    Traps: a tap may carry more than the network does; releases before Newton note no MTU, and older
    domains are told none.

    Next: `openstack network show NETWORK -c mtu`, `ip link show TAP`, `virsh dumpxml NAME | grep
    mtu`. Then attaching and detaching a port lets nova ask neutron anew; a hard reboot writes the
    domain.

    Not yet: `openstack server reboot --hard` before its info cache is known to be complete.

    Source: nova network/neutron.py, virt/libvirt/vif.py `set_config_mtu`; nova bug 2080531.
    """
    if not guest.is_here or domain.state not in ON:
        return
    of_tap = {tap.prefix: tap for tap in taps or ()}
    noted = {vif.id: vif for vif in _vifs(instance)}
    cards = {prefix: card for card, prefix in _cards(domain)}
    for port in ports:
        network = port.network
        wanted = network.mtu if network is not None else None
        if network is None or wanted is None:
            continue
        words = [_Word(wanted, network, {"name": network.name, "mtu": wanted})]
        vif, card = noted.get(port.id), cards.get(port.id[:PREFIX])
        if vif is not None and vif.mtu is not None and instance is not None:
            said = f"{vif.device} mtu {vif.mtu}"
            words.append(_Word(vif.mtu, instance, {"vifs": said}))
        if card is not None and card.mtu is not None:
            said = f"{card.target} mtu {card.mtu}"
            words.append(_Word(card.mtu, domain, {"interfaces": said}))
        words += [
            word for word in _heard(of_tap.get(port.id[:PREFIX]), "mtu") if _is_less(word, wanted)
        ]
        if len({word.value for word in words}) > 1:
            yield tuple(word.evidence for word in words)


def _vifs(instance: Instance | None) -> Iterable[NetworkInterface]:
    try:
        return instance.vifs if instance is not None else ()
    except UnheardError:
        return ()


def _is_less(word: _Word, wanted: int) -> bool:
    return isinstance(word.value, int) and word.value < wanted
