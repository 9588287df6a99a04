"""Settings of the guest's network cards: model, link, limits, and the port that they name."""

from __future__ import annotations

from collections import Counter

from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.traps import (
    building,
    just_changed,
    migrating,
    never_launched,
    rescued,
    task_in_flight,
)
from hoodsnap.evidence import Severity, says
from hoodsnap.facts.api.port import PREFIX, Port
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.domain_xml import Interface
from hoodsnap.facts.domain.state import ON
from hoodsnap.facts.fact import UnheardError, known
from hoodsnap.facts.host.tap import NAME
from hoodsnap.phrase import brief


@check(Severity.ERROR, traps=[task_in_flight, building, never_launched, migrating])
def card_changed_by_hand(guest: Guest, domain: Domain) -> Problems:
    """The guest's network card is unplugged or limited, which nova did not set.

    Somebody changed the running domain with virsh: the guest sees its cable unplugged, or its
    bandwidth is limited (a warning) although its definition has no such limit. nova and neutron
    know nothing of it. The next start of the guest ends it.

    Authority: libvirt's definition, which nova wrote, for what should be; the running domain, for
    what is.

    Traps: Limits that the flavor or the definition has. A card that was attached to the running
    guest only, and is not in the definition.

    Next: Compare the running domain with its definition:

        virsh domif-getlink NAME TAP
        virsh domiftune NAME TAP
        virsh dumpxml --inactive NAME

    If nobody unplugged the card on purpose, plug it in, which connects the guest:

        virsh domif-setlink NAME TAP up

    If nobody limited the card on purpose, remove the limits of the running domain:

        virsh domiftune NAME LIMITED --inbound 0 --outbound 0 --live

    It worked if the link is up, and no limit is set:

        virsh domif-getlink NAME CARD
        virsh domiftune NAME CARD

    Not yet: Do not run `openstack server reboot --hard` for this: plugging the card in needs no
    reboot.

    Source: nova virt/libvirt/config.py `LibvirtConfigGuestInterface`, which never writes a link
    state; virsh(1) domif-setlink, domiftune.
    """
    if not guest.is_here or domain.state not in ON:
        return
    stored = {_key(card): card for card in _stored(domain)}
    for card in domain.xml.interfaces:
        defined = stored.get(_key(card))
        name = card.target or card.mac or card.type
        if not card.linked:
            yield problem(
                f"{guest.title}'s card {name} is unplugged in libvirt (link state down)",
                says(domain, interfaces=f"{name} link down"),
                *([says(domain, inactive=f"{name} link up")] if defined and defined.linked else []),
                TAP=name,
                LIMITED="",
                CARD=name,
            )
        if defined is not None and card.limits != defined.limits:
            limited, wanted = _limits(card), _limits(defined)
            yield problem(
                f"{guest.title}'s card {name} runs with {limited or 'no limit'}, but is defined "
                f"with {wanted or 'no limit'}",
                says(domain, interfaces=f"{name} {limited}" if limited else None),
                says(domain, inactive=f"{name} {wanted}" if wanted else None),
                severity=Severity.WARNING,
                TAP="",
                LIMITED=name if not defined.limits else "",
                CARD=name,
            )


def _stored(domain: Domain) -> tuple[Interface, ...]:
    try:
        return domain.inactive.interfaces
    except UnheardError:
        return ()


def _key(card: Interface) -> str | None:
    return card.mac


def _limits(card: Interface) -> str:
    return ", ".join(f"{name} {value}" for name, value in card.limits)


OF_THE_HOST = frozenset(["hostdev", "vdpa", "vhostuser"])
"""Types of cards whose model the image does not choose."""

MODELS = {"VirtualE1000": "e1000", "VirtualE1000e": "e1000e"}
"""Names of card models of other hypervisors → libvirt's."""


@check(Severity.WARNING, traps=[task_in_flight, building, never_launched, migrating, rescued])
def card_model_mismatch(guest: Guest, instance: Instance, domain: Domain) -> Problems:
    """The model of the guest's network card is not the one that its image asks for.

    The image's property hw_vif_model decides the model, because its system may have no driver for
    another one. The domain was edited by hand, or the server was rebuilt and not started anew. The
    guest may lose its network at its next boot, or have renamed its interfaces.

    Authority: nova's copy of the image's properties.

    Traps: Images without the property, for which nova decides. Passed-through cards have no model.
    A card that was added by hand, which `port-guest-mismatch` reports.
    A server in rescue has the cards that the rescue image asks for.

    Next: Compare the domain with the property of the image:

        virsh dumpxml NAME
        openstack server show UUID -c image -c properties
        openstack image show IMAGE -c properties

    If the property is right, hard-reboot the server, which restarts the guest and writes its
    definition anew:

        openstack server reboot --hard UUID

    It worked if all cards have the model:

        virsh dumpxml NAME

    Not yet: Do not hard-reboot the server before the guest's owner knows that its system has the
    driver, and before its volumes and its info cache are confirmed to be right.

    Source: nova virt/libvirt/vif.py `get_vif_model`.
    """
    if not guest.is_here or domain.state not in ON:
        return
    wanted = instance.card_model
    if wanted is None:
        return
    cached = known(lambda: instance.network_info)
    own = None if cached is None else {vif.mac for vif in cached}
    for card in domain.xml.interfaces:
        if card.type in OF_THE_HOST or card.model is None:
            continue
        if own is not None and card.mac not in own and not NAME.fullmatch(card.target or ""):
            continue
        if card.model not in (wanted, MODELS.get(wanted)):
            name = card.target or card.mac or card.type
            yield problem(
                f"{guest.title}'s card {name} is a {card.model}, but its image asks for {wanted}",
                says(instance, card_model=wanted),
                says(domain, interfaces=f"{name} {card.model}"),
                IMAGE=known(lambda: instance.image),
            )


@check(Severity.ERROR, traps=[task_in_flight, building, never_launched, migrating])
def card_names_another_port(
    guest: Guest, domain: Domain, ports: tuple[Port, ...] | None
) -> Problems:
    """The guest's domain plugs its card into Open vSwitch with another port's id.

    Where libvirt plugs the card, it writes the id in the domain (interfaceid) into Open vSwitch,
    and neutron's agent wires the card like that port: into its network, with its addresses. A
    definition with a wrong id does that at the next start (a warning).

    Authority: neutron, for which port has the card's MAC address.

    Traps: Since Xena, os-vif plugs the card, and the domain has no id.

    Next: Compare the domain with the port and with Open vSwitch:

        virsh domiflist NAME
        virsh dumpxml NAME
        openstack port list --server UUID --long
        ovs-vsctl --columns=external_ids list Interface TAP

    Hard-reboot the server, which restarts the guest with a definition that nova writes from its
    info cache, once the cache is confirmed to be right:

        openstack server reboot --hard UUID

    It worked if the domain has the id of its own port:

        virsh dumpxml NAME

    Not yet: Do not change the id in Open vSwitch by hand before it is confirmed which port is the
    right one.

    Source: libvirt virNetDevOpenvswitchAddPort (`external-ids:iface-id`); nova bug 1933517.
    """
    if not guest.is_here:
        return
    # A server may have two ports of one MAC address, in two networks.
    macs = Counter(port.mac for port in ports or ())
    of_mac = {
        port.mac: port for port in ports or () if macs[port.mac] == 1 and not just_changed(port)
    }
    documents = [("runs", domain.xml)] if domain.state in ON else []
    documents += [("is defined", domain.inactive)] if _stored(domain) else []
    told = set()
    for verb, document in documents:
        for card in document.interfaces:
            named = NAME.fullmatch(card.target or "")
            port = of_mac.get(card.mac or "")
            wanted = port.id[:PREFIX] if port is not None else named["prefix"] if named else None
            if wanted is None or card.mac in told or macs[card.mac or ""] > 1:
                continue
            real = port.id if port is not None else wanted
            names = card.port_id.lower() if card.port_id is not None else real
            device = verb == "is defined" and named is not None and named["prefix"] != wanted
            if not device and names[: len(real)] == real:
                continue
            told.add(card.mac)
            what = f"port {brief(names)}" if names[: len(real)] != real else "another port's device"
            name, field = card.target or card.mac, "interfaces" if verb == "runs" else "inactive"
            yield problem(
                f"{guest.title} {verb} with card {name} of {what}, its port is {wanted}",
                says(domain, **{field: f"{name} {card.port_id or ''}".strip()}),
                *([says(port, id=port.id, mac=port.mac)] if port is not None else []),
                severity=None if verb == "runs" else Severity.WARNING,
                TAP=card.target,
            )
