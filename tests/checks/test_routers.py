"""Routers of neutron on a host."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.conftest import RecordedHost, changes

from hoodsnap.bundle import Answer, Failure
from hoodsnap.phrase import brief

HEADING = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n"

PROXY = f"   0: {'0' * 32}:25E1 {'0' * 32}:0000 0A 00000000:00000000 00:00000000 00000000\n"
"""A socket on port 9697 of all addresses, in /proc/net/tcp6 of a lab with neutron 21.0."""


def router(host: RecordedHost) -> str:
    [name] = [
        row["name"]
        for row in host.last("network", "ip -j netns").value
        if row["name"].startswith("qrouter-")
    ]
    return str(name)


def inside(host: RecordedHost, command: str, value: str | None, name: str = "") -> None:
    """Add what a command inside of a namespace printed; None: there is no such file."""
    like = host.last("network", "ip -j netns").model_dump(exclude={"value", "error", "query"})
    query = f"ip netns exec {name or router(host)} {command}"
    said: dict[str, Any] = {"value": value}
    if value is None:
        said = {"error": Failure(kind="absent", message="No such file or directory")}
    host.add(Answer(**like, query=query, **said))


def listens(host: RecordedHost, *, proxy: bool = True) -> None:
    inside(host, "cat /proc/net/tcp", HEADING)
    inside(host, "cat /proc/net/tcp6", HEADING + (PROXY if proxy else ""))


def without(host: RecordedHost, *words: str) -> None:
    """Delete the translations of the router that contain one of the words."""
    query = f"ip netns exec {router(host)} iptables-save -t nat"
    lines = host.last("network", query).value.splitlines(keepends=True)
    kept = [line for line in lines if not any(word in line for word in words)]
    assert len(kept) < len(lines)
    host.set("network", query, "".join(kept))


def of_api(host: RecordedHost, **fields: object) -> None:
    uuid = router(host).removeprefix("qrouter-")
    host._set_item("neutron", "/routers?", "routers", "id", uuid, dict(fields))


def bind(host: RecordedHost, owner: str, **fields: object) -> None:
    for port in host.report().cloud.ports.by_id.values():
        if port.device_owner.startswith(owner):
            host.port(port.id, **fields)


def test_router_forwarding_off(host: RecordedHost) -> None:
    inside(host, "sysctl net.ipv4.ip_forward", "net.ipv4.ip_forward = 0\n")

    [finding] = host.report().findings
    assert finding.check.name == "router-forwarding-off"
    assert finding.severity.word == "error"
    assert finding.headline.startswith("Router lab-router on vm does not forward packets: vm-")
    assert finding.headline.endswith("reach only their own networks")
    assert changes(finding) == [
        f"ip netns exec {router(host)} sysctl -w net.ipv4.ip_forward=1",
    ]


@pytest.mark.parametrize("text", ["net.ipv4.ip_forward = 1\n", "", "net.ipv4.ip_forward = ?\n"])
def test_a_router_that_forwards_or_is_not_known(host: RecordedHost, text: str) -> None:
    inside(host, "sysctl net.ipv4.ip_forward", text)

    assert host.findings() == []


def test_a_dhcp_server_need_not_forward(host: RecordedHost) -> None:
    network = host.ports("vm-plain")[0]["network_id"]
    inside(host, "sysctl net.ipv4.ip_forward", "net.ipv4.ip_forward = 0\n", f"qdhcp-{network}")

    assert host.findings() == []


def test_a_highly_available_router_may_be_active_elsewhere(host: RecordedHost) -> None:
    inside(host, "sysctl net.ipv4.ip_forward", "net.ipv4.ip_forward = 0\n")
    of_api(host, ha=True)

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("router-forwarding-off", "warning")


def test_a_router_that_moved_left_its_namespace_behind(host: RecordedHost) -> None:
    inside(host, "sysctl net.ipv4.ip_forward", "net.ipv4.ip_forward = 0\n")
    bind(host, "network:router", binding__host_id="compute-9")

    assert not any("router-forwarding-off" in line for line in host.findings())


def test_the_namespace_of_floating_ips_forwards(host: RecordedHost) -> None:
    inside(host, "sysctl net.ipv4.ip_forward", "net.ipv4.ip_forward = 0\n", "fip-5f38a793")

    [headline] = host.headlines()
    assert headline == "Namespace fip-5f38a793 on vm does not forward packets"


def test_router_rule_missing(host: RecordedHost) -> None:
    listens(host)
    assert host.findings() == []

    without(host, "-j REDIRECT")
    [finding] = host.report().findings
    assert finding.check.name == "router-rule-missing"
    assert finding.severity.word == "warning"
    assert finding.headline.startswith(
        "Router lab-router on vm does not redirect requests for metadata to its proxy: no metadata "
    )
    assert changes(finding) == ["systemctl restart neutron-l3-agent"]


def test_without_a_proxy_the_rule_may_be_missing(host: RecordedHost) -> None:
    """enable_metadata_proxy = False."""
    listens(host, proxy=False)
    without(host, "-j REDIRECT")

    assert host.findings() == []


def test_the_proxy_is_missing(host: RecordedHost) -> None:
    listens(host, proxy=False)

    [finding] = host.report().findings
    assert finding.headline.startswith(
        "Router lab-router on vm has no metadata proxy on port 9697: no metadata for vm-"
    )


def test_a_host_without_ipv6_has_only_one_list_of_sockets(host: RecordedHost) -> None:
    inside(host, "cat /proc/net/tcp", HEADING)
    assert host.findings() == []  # the other list was not collected

    inside(host, "cat /proc/net/tcp6", None)
    [headline] = host.headlines()
    assert " has no metadata proxy on port 9697" in headline


def test_the_rules_for_outgoing_packets_are_missing(host: RecordedHost) -> None:
    listens(host)
    without(host, "agent-snat -o ", "--ctstate DNAT -j SNAT")

    [finding] = host.report().findings
    assert finding.severity.word == "error"
    assert finding.headline.startswith("Router lab-router on vm does not translate outgoing packet")
    assert finding.headline.endswith("guests without a floating IP reach nothing outside")


def test_a_flushed_table_is_one_finding(host: RecordedHost) -> None:
    listens(host)
    without(host, "-j REDIRECT", "-j SNAT", "-j DNAT")

    [finding] = host.report().findings
    assert finding.check.name == "router-rule-missing"
    assert "reach nothing outside, and no metadata for " in finding.headline
    assert {one.check.name for one in finding.folded} == {"floating-ip-not-translated"}
    assert changes(finding) == ["systemctl restart neutron-l3-agent"]


@pytest.mark.parametrize("fields", [{"ha": True}, {"distributed": True}])
def test_other_routers_have_their_rules_elsewhere(
    host: RecordedHost, fields: dict[str, object]
) -> None:
    listens(host)
    without(host, "-j REDIRECT", "-j SNAT")
    of_api(host, **fields)

    assert not any("router-rule-missing" in line for line in host.findings())


def test_a_router_that_does_not_translate(host: RecordedHost) -> None:
    listens(host)
    without(host, "agent-snat -o ", "--ctstate DNAT -j SNAT")
    gateway = dict(host.report().cloud.ports.routers_by_id[router(host)[8:]].raw)
    info = {**gateway["external_gateway_info"], "enable_snat": False}  # type: ignore[dict-item]
    of_api(host, external_gateway_info=info)

    assert host.findings() == []


def test_a_namespace_whose_rules_are_in_the_other_iptables(host: RecordedHost) -> None:
    """iptables-save of nftables does not see the rules of an agent with legacy iptables."""
    listens(host)
    warning = "# Warning: iptables-legacy tables present, use iptables-legacy-save\n"
    host.set("network", f"ip netns exec {router(host)} iptables-save -t nat", warning)

    assert not any("router-rule-missing" in line for line in host.findings())


def test_a_router_that_was_just_changed(host: RecordedHost) -> None:
    listens(host)
    without(host, "-j REDIRECT")
    at = host.last("neutron", "GET /v2.0/agents").at
    bind(host, "network:router_interface", updated_at=f"{at:%Y-%m-%dT%H:%M:%SZ}")

    assert host.findings() == []


def devices(host: RecordedHost, name: str, kind: str, **fields: object) -> str:
    """Set fields of the device of this kind in a namespace; return the device's name."""
    query = f"ip -j -n {name} address"
    rows = json.loads(json.dumps(host.last("network", query).value))
    [row] = [row for row in rows if row["ifname"].startswith(kind)]
    row.update(fields)
    host.set("network", query, rows)
    return str(row["ifname"])


@pytest.mark.parametrize("width", [900, 1500])
def test_router_device_mtu_differs(host: RecordedHost, width: int) -> None:
    device = devices(host, router(host), "qr-", mtu=width)

    assert host.headlines() == [
        f"{brief(router(host))}'s device {device} on vm has MTU {width}; its network lab-net has "
        "1450"
    ]
    [finding] = host.report().findings
    assert changes(finding) == [f"ip -n {router(host)} link set {device} mtu 1450"]


def test_the_outer_device_carries_what_its_guests_send(host: RecordedHost) -> None:
    """Open vSwitch sets an internal port to the smallest MTU of its bridge."""
    devices(host, router(host), "qg-", mtu=1450)
    assert host.findings() == []

    device = devices(host, router(host), "qg-", mtu=1400)
    [headline] = host.headlines()
    assert f"device {device} on vm has MTU 1400; its network lab-ext has 1500" in headline


def test_the_mtu_of_a_dhcp_server_is_a_note(host: RecordedHost) -> None:
    network = host.ports("vm-plain")[0]["network_id"]
    devices(host, f"qdhcp-{network}", "tap", mtu=900)

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("router-device-mtu-differs", "note")


def test_a_network_whose_mtu_was_just_changed(host: RecordedHost) -> None:
    devices(host, router(host), "qr-", mtu=900)
    at = host.last("network", f"ip -j -n {router(host)} address").at
    network = host.ports("vm-plain")[0]["network_id"]
    fields: dict[str, object] = {"updated_at": f"{at:%Y-%m-%dT%H:%M:%SZ}"}
    host._set_item("neutron", "/networks?", "networks", "id", network, fields)

    assert host.findings() == []


@pytest.mark.parametrize("kind", ["qr-", "qg-", "tap"])
@pytest.mark.parametrize(
    ("flags", "words"),
    [(["BROADCAST"], "is down"), (["BROADCAST", "UP", "NO-CARRIER"], "has no carrier")],
)
def test_a_device_that_passes_nothing(
    host: RecordedHost, kind: str, flags: list[str], words: str
) -> None:
    name = router(host)
    if kind == "tap":
        name = f"qdhcp-{host.ports('vm-plain')[0]['network_id']}"
    device = devices(host, name, kind, flags=flags)

    [headline] = host.headlines()
    assert headline.startswith(f"{brief(name)}'s device {device} of network lab-")
    assert headline.endswith(words)
