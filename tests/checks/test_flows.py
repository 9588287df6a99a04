"""OpenFlow rules of the guests on the integration bridge."""

from __future__ import annotations

from typing import Any

import pytest
from tests.conftest import RecordedHost


def _port(host: RecordedHost, name: str) -> dict[str, Any]:
    [port] = host.ports(name)
    return port


def _flows(host: RecordedHost, name: str, match: str = "in_port") -> str:
    port = _port(host, name)["id"]
    [query] = [
        answer.query
        for answer in host.bundle.by_layer["network"]
        if answer.subject == port and f"dump-flows br-int {match}=" in answer.query
    ]
    return query


def _drop_flows(host: RecordedHost, name: str, *words: str, match: str = "in_port") -> None:
    query = _flows(host, name, match)
    lines = host.last("network", query).value.splitlines(keepends=True)
    kept = [line for line in lines if not any(word in line for word in words)]
    assert len(kept) < len(lines)
    host.set("network", query, "".join(kept))


def test_port_without_flows(host: RecordedHost) -> None:
    port = _port(host, "vm-plain")
    _drop_flows(host, "vm-plain", "table=")
    number = _flows(host, "vm-plain").rpartition("=")[2]

    assert host.findings() == [
        f"port-without-flows of vm-plain: port reports id = {port['id']}, status = ACTIVE;"
        f" tap reports name = tap{port['id'][:11]}, ofport = {number}; flows reports no rules"
    ]
    assert host.headlines() == [f"vm-plain's tap tap{port['id'][:11]} has no rules on br-int"]


@pytest.mark.parametrize("table", [60, 71])
def test_a_table_has_no_rule_for_the_port(host: RecordedHost, table: int) -> None:
    _drop_flows(host, "vm-plain", f"table={table},")

    [headline] = host.headlines()
    assert headline.endswith(f"has no rule in table {table} of br-int")


def test_no_rule_lets_packets_in(host: RecordedHost) -> None:
    _drop_flows(host, "vm-plain", "table=81,", "table=82,", match="reg5")

    [headline, explained] = host.headlines()
    assert "no rule for ingress of icmp and ingress of tcp" in explained
    assert headline.endswith("has no rule that lets packets in")


def test_the_rules_are_for_another_address(host: RecordedHost) -> None:
    query, ip = _flows(host, "vm-plain"), _port(host, "vm-plain")["fixed_ips"][0]["ip_address"]
    text = host.last("network", query).value
    host.set("network", query, text.replace(f"={ip}", "=10.20.0.9"))

    [headline] = host.headlines()
    assert headline.endswith(f"may send from 10.20.0.9, not from {ip}")


def test_the_rules_are_for_another_card(host: RecordedHost) -> None:
    query, mac = _flows(host, "vm-plain"), _port(host, "vm-plain")["mac_address"]
    text = host.last("network", query).value
    host.set("network", query, text.replace(mac, "fa:16:3e:00:00:01"))

    [headline] = host.headlines()
    assert headline.endswith(f"may send as fa:16:3e:00:00:01, not as {mac}")


def test_without_port_security_a_port_may_send_as_anybody(host: RecordedHost) -> None:
    _drop_flows(host, "vm-plain", "table=71,")
    host.port(_port(host, "vm-plain")["id"], port_security_enabled=False)

    assert host.findings() == []


@pytest.mark.parametrize("status", ["DOWN", "BUILD"])
def test_a_port_that_neutron_does_not_report_as_wired(host: RecordedHost, status: str) -> None:
    _drop_flows(host, "vm-plain", "table=")
    host.port(_port(host, "vm-plain")["id"], status=status)

    assert not any("port-without-flows" in line for line in host.findings())


def test_another_firewall_needs_other_rules(host: RecordedHost) -> None:
    """The iptables firewall leaves one rule in table 0, against false ARP senders."""
    for answer in host.bundle.by_layer["network"]:
        if "dump-flows br-int in_port=" in answer.query:
            number = answer.query.rpartition("=")[2]
            rule = f" cookie=0x1, table=0, priority=10,arp,in_port={number} actions=resubmit(,24)\n"
            host.set("network", answer.query, rule)
    assert host.findings() == []

    host.set("network", _flows(host, "vm-plain"), "OFPST_FLOW reply (OF1.3) (xid=0x6):\n")
    [headline] = host.headlines()
    assert headline.endswith("has no rules on br-int")


def test_ovn_receives_packets_in_table_0(host: RecordedHost) -> None:
    """The rule was recorded on a lab with OVN 23.03."""
    names = [guest.name for guest in host.report().cloud.guests if guest.taps and guest.ports]
    for name in names:
        for port in host.ports(name):
            host.port(port["id"], binding__vif_details={"bound_drivers": {"0": "ovn"}})
    for answer in host.bundle.by_layer["network"]:
        if "dump-flows br-int in_port=" in answer.query:
            number = answer.query.rpartition("=")[2]
            rule = (
                f" cookie=0x4d53be57, table=0, priority=100,in_port={number} actions=resubmit(,8)\n"
            )
            host.set("network", answer.query, rule)
    assert not any("port-without-flows" in line for line in host.findings())

    host.set("network", _flows(host, "vm-plain"), "OFPST_FLOW reply (OF1.3) (xid=0x6):\n")
    found = [line for line in host.headlines() if "table 0" in line]
    tap = f"tap{_port(host, 'vm-plain')['id'][:11]}"
    assert found == [f"vm-plain's tap {tap} has no rule in table 0 of br-int"]


def test_rules_that_were_not_collected_are_not_missing(host: RecordedHost) -> None:
    host.drop(lambda answer: not answer.query.startswith("ovs-ofctl"))

    assert host.findings() == []


def test_rules_for_the_sender_of_another_port_are_found(host: RecordedHost) -> None:
    [own], [other] = (host.guest(name).ports or () for name in ("vm-plain", "vm-bfv"))
    query = next(
        answer.query
        for answer in host.bundle.by_layer["network"]
        if "reg5=" in answer.query and answer.subject == own.id
    )
    text = host.last("network", query).value
    host.set("network", query, text.replace(own.mac, other.mac, 1))

    [headline] = host.headlines()
    assert headline.endswith(f"has rules for {other.mac}, not only for {own.mac}")
