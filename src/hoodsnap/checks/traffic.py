"""Limits on a guest's traffic that neither neutron, libvirt nor the flavor has set."""

from __future__ import annotations

from collections.abc import Iterator

from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.traps import building, migrating, port_just_changed, task_in_flight
from hoodsnap.evidence import Evidence, Severity, says
from hoodsnap.facts.api.port import PREFIX, Port
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.state import ON
from hoodsnap.facts.fact import UnheardError, is_true, known
from hoodsnap.facts.host.tap import Tap

SHAPERS = frozenset(["tbf", "hfsc", "cbq"])
"""Queueing disciplines that limit the bandwidth. htb is not judged: libvirt leaves one without a
limit behind when it removes a limit."""

EMULATORS = frozenset(["netem"])
"""Queueing disciplines that delay or lose packets; neither libvirt nor neutron uses one."""


@check(Severity.WARNING, traps=[building, task_in_flight, migrating, port_just_changed])
def traffic_limited_by_hand(
    guest: Guest, domain: Domain, taps: tuple[Tap, ...], ports: tuple[Port, ...]
) -> Problems:
    """The guest's tap limits, delays or drops its traffic, which no policy asks for.

    The guest's network is slow, and nova, neutron and libvirt show no reason. Somebody set a
    queueing discipline on the tap (`tc`), or a policing rate in Open vSwitch.

    Authority: The kernel and Open vSwitch, for what is in force; neutron's QoS policy and libvirt's
    `<bandwidth>`, for what should be.

    Traps: Ports or networks with a QoS policy, and cards with `<bandwidth>` (from the flavor's
    `quota:vif_*`), are limited on purpose. The kernel's own disciplines (noqueue, pfifo_fast,
    fq_codel) limit nothing. libvirt leaves an htb without a limit behind.

    Next: Check the disciplines, the policing rate, and whether the port has a policy:

        tc -s qdisc show dev TAP
        ovs-vsctl --columns=name,ingress_policing_rate,ingress_policing_burst list Interface TAP
        openstack port show PORT -c qos_policy_id -c qos_network_policy_id

    If nobody wants the discipline, remove it, which works at once:

        tc qdisc del dev SHAPED root

    If nobody wants the policing rate, remove it, which works at once:

        ovs-vsctl set Interface POLICED ingress_policing_rate=0 ingress_policing_burst=0

    It worked if neither is there:

        tc -s qdisc show dev TAP
        ovs-vsctl --columns=name,ingress_policing_rate,ingress_policing_burst list Interface TAP

    Not yet: Do not reboot the guest or attach another port for this.

    Source: tc(8); ovs-vswitchd.conf.db(5), Interface `ingress_policing_rate`; neutron
    agent/linux/tc_lib.py; libvirt src/util/virnetdevbandwidth.c.
    """
    if domain.state not in ON or not guest.is_here:
        return
    of_port = {port.id[:PREFIX]: port for port in ports}
    limited = {card.target for card in domain.xml.interfaces if card.limits}
    for tap in taps:
        port = of_port.get(tap.prefix)
        if port is None or not is_true(lambda: tap.is_there):  # noqa: B023
            continue
        asked = port.has_policy or tap.name in limited
        found = [*_of_kernel(tap, asked=asked), *_of_switch(tap, asked=asked)]
        if found:
            yield problem(
                f"{guest.title}'s tap {tap.name} {found[0][0]}, and no policy asks for it",
                says(port, id=port.id, qos_policy=None),
                *(evidence for _, evidence in found),
                TAP=tap.name,
                PORT=port.id,
                SHAPED=tap.name if any(one.fields == ("name", "qdisc") for _, one in found) else "",
                POLICED=tap.row_name if "rate" in str([one.fields for _, one in found]) else "",
            )


def _of_kernel(tap: Tap, *, asked: bool) -> Iterator[tuple[str, Evidence]]:
    kind = known(lambda: tap.qdisc)
    if kind in EMULATORS or (kind in SHAPERS and not asked):
        does = "delays or drops packets" if kind in EMULATORS else "limits the bandwidth"
        yield f"{does} (qdisc {kind})", says(tap, name=tap.name, qdisc=kind)


def _of_switch(tap: Tap, *, asked: bool) -> Iterator[tuple[str, Evidence]]:
    try:
        rate = tap.policing_rate
    except UnheardError:
        return
    if rate and not asked:
        limit = says(tap, name=tap.name, policing_rate=rate)
        yield f"drops what the guest sends above {rate} kbit/s (ingress_policing_rate)", limit
