"""Floating IPs of a guest, and what the router translates."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.conftest import RecordedHost, changes

from hoodsnap.phrase import brief


def _port(host: RecordedHost, name: str) -> dict[str, Any]:
    [port] = host.ports(name)
    return port


def _router(host: RecordedHost) -> str:
    [name] = [name for name in _namespaces(host) if name.startswith("qrouter-")]
    return name


def _namespaces(host: RecordedHost) -> list[str]:
    return [row["name"] for row in host.last("network", "ip -j netns").value]


def _rules(host: RecordedHost) -> str:
    return f"ip netns exec {_router(host)} iptables-save -t nat"


def _floating(host: RecordedHost, name: str) -> str:
    port = _port(host, name)["id"]
    listed = host.last("neutron", "GET /v2.0/floatingips?limit=1000").value["floatingips"]
    [found] = [one["floating_ip_address"] for one in listed if one["port_id"] == port]
    return str(found)


def _drop_rules(host: RecordedHost, *words: str) -> None:
    rules = host.last("network", _rules(host)).value.splitlines(keepends=True)
    kept = [rule for rule in rules if not all(word in rule for word in words)]
    assert len(kept) < len(rules)
    host.set("network", _rules(host), "".join(kept))


def test_floating_ip_not_translated(host: RecordedHost) -> None:
    address = _floating(host, "vm-plain")
    fixed = _port(host, "vm-plain")["fixed_ips"][0]["ip_address"]
    _drop_rules(host, address)

    assert host.findings() == [
        f"floating-ip-not-translated of vm-plain: floating IP reports address = {address},"
        f" fixed_ip_address = {fixed}, status = ACTIVE; namespace reports no dnat;"
        " namespace reports no snat"
    ]
    assert host.headlines() == [
        f"vm-plain is not reachable by its floating IP {address}: {brief(_router(host))} does not"
        f" translate it and does not translate {fixed} to it"
    ]


@pytest.mark.parametrize("chain", ["PREROUTING", "float-snat"])
def test_one_of_the_rules_is_missing(host: RecordedHost, chain: str) -> None:
    _drop_rules(host, _floating(host, "vm-plain"), chain)

    assert [line.partition(" of ")[0] for line in host.findings()] == ["floating-ip-not-translated"]


def test_the_rules_lead_to_another_guest(host: RecordedHost) -> None:
    rules = host.last("network", _rules(host)).value
    fixed = _port(host, "vm-plain")["fixed_ips"][0]["ip_address"]
    host.set(
        "network",
        _rules(host),
        rules.replace(f"--to-destination {fixed}\n", "--to-destination 10.20.0.9\n"),
    )

    [headline] = host.headlines()
    assert headline.endswith("translates it to 10.20.0.9")


def test_the_router_does_not_have_the_address(host: RecordedHost) -> None:
    query = f"ip -j -n {_router(host)} address"
    address = _floating(host, "vm-plain")
    links = json.loads(json.dumps(host.last("network", query).value))
    for link in links:
        link["addr_info"] = [ip for ip in link["addr_info"] if ip["local"] != address]
    host.set("network", query, links)

    [headline] = host.headlines()
    assert headline.endswith(f"{brief(_router(host))} does not have the address")


def test_the_router_is_disabled(host: RecordedHost) -> None:
    router = _router(host).removeprefix("qrouter-")
    disabled: dict[str, object] = {"admin_state_up": False}
    host._set_item("neutron", "/routers?", "routers", "id", router, disabled)
    name = _router(host)  # its agent removed the namespace
    host.drop(lambda answer: answer.layer != "network" or name not in answer.query)

    assert sorted(host.headlines()) == [
        f"{guest} is not reachable by its floating IP {address}: router lab-router is disabled "
        "(admin_state_up = False)"
        for guest, address in (
            ("vm-linux", _floating(host, "vm-linux")),
            ("vm-plain", _floating(host, "vm-plain")),
        )
    ]
    assert changes(host.report().findings[0]) == [f"openstack router set --enable {router}"]


def test_a_new_floating_ip_is_not_set_up_yet(host: RecordedHost) -> None:
    address = _floating(host, "vm-plain")
    at = f"{host.bundle.started:%Y-%m-%dT%H:%M:%SZ}"
    fields: dict[str, object] = {"updated_at": at}
    host._set_item("neutron", "/floatingips", "floatingips", "floating_ip_address", address, fields)
    _drop_rules(host, address)

    assert host.findings() == []


@pytest.mark.parametrize("kind", ["distributed", "ha"])
def test_other_routers_have_the_rules_elsewhere(host: RecordedHost, kind: str) -> None:
    router = _router(host).removeprefix("qrouter-")
    host._set_item("neutron", "/routers?", "routers", "id", router, {kind: True})
    _drop_rules(host, _floating(host, "vm-plain"))

    assert host.findings() == []


def test_a_router_on_another_host_is_not_judged(host: RecordedHost) -> None:
    name = _router(host)
    host.drop(lambda answer: answer.layer != "network" or name not in answer.query)

    assert host.findings() == []


def _of_record(host: RecordedHost, name: str, **fields: object) -> str:
    """Set fields of a guest's floating IP in neutron; return the address."""
    [port] = host.ports(name)
    [leads] = host.report().cloud.ports.floating[port["id"]]
    host._set_item("neutron", "/floatingips?", "floatingips", "id", leads.id, dict(fields))
    return leads.address


def test_floating_ip_not_served(host: RecordedHost) -> None:
    address = _of_record(host, "vm-plain", router_id=None)

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("floating-ip-not-served", "error")
    assert finding.headline == (
        f"vm-plain's floating IP {address} has no router, so nothing translates it"
    )
    assert changes(finding) == [
        f"openstack floating ip unset --port {address}",
        f"openstack floating ip set --port {host.ports('vm-plain')[0]['id']} {address}",
    ]


@pytest.mark.parametrize(("status", "severity"), [("ERROR", "error"), ("DOWN", "warning")])
def test_the_agent_did_not_set_a_floating_ip_up(
    host: RecordedHost, status: str, severity: str
) -> None:
    address = _of_record(host, "vm-plain", status=status)

    [finding] = host.report().findings
    assert finding.severity.word == severity
    assert finding.headline.startswith(f"vm-plain's floating IP {address} is in status {status}: ")


@pytest.mark.parametrize("fields", [{"ha": True}, {"distributed": True}, {"admin_state_up": False}])
def test_floating_ips_of_other_routers_may_be_down(
    host: RecordedHost, fields: dict[str, object]
) -> None:
    _of_record(host, "vm-plain", status="DOWN")
    [router] = host.report().cloud.ports.routers_by_id
    host._set_item("neutron", "/routers?", "routers", "id", router, dict(fields))

    assert not any("floating-ip-not-served" in line for line in host.findings())


def test_a_floating_ip_without_rules_is_down(host: RecordedHost) -> None:
    _of_record(host, "vm-plain", status="DOWN")
    [query] = {
        answer.query
        for answer in host.bundle.by_layer["network"]
        if answer.query.endswith(" iptables-save -t nat")
    }
    lines = host.last("network", query).value.splitlines(keepends=True)
    host.set("network", query, "".join(line for line in lines if "DNAT --to" not in line))

    found = [one for one in host.report().findings if one.guest and one.guest.name == "vm-plain"]
    assert [one.check.name for one in found] == ["floating-ip-not-translated"]
    assert [one.check.name for one in found[0].folded] == ["floating-ip-not-served"]


def test_a_new_floating_ip_may_be_down(host: RecordedHost) -> None:
    at = host.report().cloud.now
    _of_record(host, "vm-plain", status="DOWN", updated_at=f"{at:%Y-%m-%dT%H:%M:%SZ}")

    assert host.findings() == []
