"""Limits on a guest's traffic that nothing asks for."""

from __future__ import annotations

import pytest
from tests.conftest import RecordedHost

from hoodsnap.findings.advice import instructions


def _tap(host: RecordedHost, name: str) -> tuple[str, str]:
    [port] = host.ports(name)
    return port["id"], f"tap{port['id'][:11]}"


@pytest.mark.parametrize(
    ("qdisc", "does"), [("tbf", "limits the bandwidth"), ("netem", "delays or drops packets")]
)
def test_traffic_limited_by_hand(host: RecordedHost, qdisc: str, does: str) -> None:
    _, tap = _tap(host, "vm-plain")
    host.link(tap, qdisc=qdisc)

    assert host.headlines() == [
        f"vm-plain's tap {tap} {does} (qdisc {qdisc}), and no policy asks for it"
    ]
    steps = [
        command.text
        for step in instructions(host.report().findings[0])
        for command in step.commands
    ]
    assert f"tc qdisc del dev {tap} root" in steps
    assert not any("ingress_policing_rate=0" in step for step in steps)


def test_the_switch_drops_what_a_guest_sends(host: RecordedHost) -> None:
    _, tap = _tap(host, "vm-plain")
    host.switch("Interface", tap, ingress_policing_rate=10)

    [line] = host.headlines()
    assert line.startswith(f"vm-plain's tap {tap} drops what the guest sends above 10 kbit/s")
    steps = [
        command.text
        for step in instructions(host.report().findings[0])
        for command in step.commands
    ]
    assert (
        f"ovs-vsctl set Interface {tap} ingress_policing_rate=0 ingress_policing_burst=0" in steps
    )
    assert not any(step.startswith("tc qdisc del") for step in steps)


@pytest.mark.parametrize("qdisc", ["htb", "fq_codel", "pfifo_fast"])
def test_the_kernels_disciplines_limit_nothing(host: RecordedHost, qdisc: str) -> None:
    host.link(_tap(host, "vm-plain")[1], qdisc=qdisc)

    assert host.findings() == []


def test_a_port_with_a_policy_is_limited_on_purpose(host: RecordedHost) -> None:
    uuid, tap = _tap(host, "vm-plain")
    host.port(uuid, qos_policy_id="5a5a5a5a-0000-4000-8000-5a5a5a5a5a5a")
    host.link(tap, qdisc="tbf")

    assert host.findings() == []
