"""Security groups against the rules of neutron's Open vSwitch firewall."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.conftest import RecordedHost, changes


def _flows(host: RecordedHost, name: str, change: Callable[[list[str]], list[str]]) -> str:
    """Change the lines of the guest's rules; return its tap."""
    [port] = host.ports(name)
    tap = next(one for one in host.guest(name).taps or () if port["id"].startswith(one.prefix))
    query = f"ovs-ofctl -O OpenFlow10,OpenFlow13 dump-flows br-int reg5={tap.ofport}"
    lines = host.last("network", query).value.splitlines()
    host.set("network", query, "\n".join(change(lines)))
    return tap.name


def _group(host: RecordedHost, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the security group of a guest's port."""
    [uuid] = host.ports(name)[0]["security_groups"]
    [query] = {
        answer.query
        for answer in host.bundle.by_layer["neutron"]
        if answer.query.startswith("GET /v2.0/security-groups")
    }
    body = json.loads(json.dumps(host.last("neutron", query).value))
    [group] = [one for one in body["security_groups"] if one["id"] == uuid]
    change(group)
    host.set("neutron", query, body)


def _is_tcp(line: str) -> bool:
    return "table=82" in line and ",tcp," in line


def test_security_group_not_enforced(host: RecordedHost) -> None:
    tap = _flows(host, "vm-plain", lambda lines: [one for one in lines if not _is_tcp(one)])

    [finding] = host.report().findings
    assert finding.check.name == "security-group-not-enforced"
    assert finding.headline == (
        f"The firewall of vm-plain's tap {tap} has no rule for ingress of tcp, as its security"
        " groups do"
    )
    assert changes(finding) == ["systemctl restart neutron-openvswitch-agent"]


def test_a_rule_that_no_group_has_lets_packets_pass(host: RecordedHost) -> None:
    tap = _flows(
        host,
        "vm-plain",
        lambda lines: [*lines, *(one.replace(",tcp,", ",udp,") for one in lines if _is_tcp(one))],
    )

    assert host.headlines() == [
        f"The firewall of vm-plain's tap {tap} lets ingress of udp pass, unlike its security groups"
    ]


def test_a_group_that_just_changed_is_not_compared(host: RecordedHost) -> None:
    _flows(host, "vm-plain", lambda lines: [one for one in lines if not _is_tcp(one)])
    at = host.report().cloud.now
    _group(host, "vm-plain", lambda group: group.update(updated_at=f"{at:%Y-%m-%dT%H:%M:%SZ}"))

    assert host.findings() == []


def test_a_group_without_state_is_not_compared(host: RecordedHost) -> None:
    _flows(host, "vm-plain", lambda lines: [one for one in lines if not _is_tcp(one)])
    _group(host, "vm-plain", lambda group: group.update(stateful=False))

    assert host.findings() == []


def test_a_rule_for_a_remote_group_is_not_compared(host: RecordedHost) -> None:
    _group(
        host,
        "vm-plain",
        lambda group: group["security_group_rules"].append(
            {
                "direction": "ingress",
                "ethertype": "IPv4",
                "protocol": "udp",
                "remote_group_id": group["id"],
            }
        ),
    )

    assert host.findings() == []
