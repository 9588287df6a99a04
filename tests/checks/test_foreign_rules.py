"""OpenFlow rules that are not neutron's, in first tables as a lab with neutron 21.0 had them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.conftest import RecordedHost, changes

from hoodsnap.bundle import Answer
from hoodsnap.checks.foreign_rules import numbers_of_agent

OWN = "0xad34e713cd7c266f"
"""Number of the agent's rules on br-int."""

BR_INT = """\
OFPST_FLOW reply (OF1.3) (xid=0x6):
 cookie=0xad34e713cd7c266f, duration=182.566s, table=0, n_packets=0, n_bytes=0, priority=65535,dl_vlan=4095 actions=drop
 cookie=0xad34e713cd7c266f, duration=182.538s, table=0, n_packets=0, n_bytes=0, priority=2,in_port=1 actions=drop
 cookie=0xad34e713cd7c266f, duration=174.344s, table=0, n_packets=0, n_bytes=0, priority=3,in_port=1,vlan_tci=0x0000/0x1fff actions=push_vlan:0x8100,set_field:4097->vlan_vid,goto_table:59
 cookie=0xad34e713cd7c266f, duration=182.572s, table=0, n_packets=114, n_bytes=9292, priority=0 actions=goto_table:59
"""

BR_EX = """\
OFPST_FLOW reply (OF1.3) (xid=0x6):
 cookie=0x846f462d6fdf6b4c, duration=174.405s, table=0, n_packets=45, n_bytes=2974, priority=4,in_port=1,dl_vlan=1 actions=pop_vlan,NORMAL
 cookie=0x846f462d6fdf6b4c, duration=182.593s, table=0, n_packets=23, n_bytes=2022, priority=2,in_port=1 actions=drop
 cookie=0x846f462d6fdf6b4c, duration=182.605s, table=0, n_packets=21, n_bytes=1442, priority=0 actions=NORMAL
"""

BR_TUN = """\
OFPST_FLOW reply (OF1.3) (xid=0x6):
 cookie=0xd24a7f38fe7cd1ef, duration=182.616s, table=0, n_packets=72, n_bytes=4772, priority=1,in_port=1 actions=goto_table:2
 cookie=0xd24a7f38fe7cd1ef, duration=182.615s, table=0, n_packets=0, n_bytes=0, priority=0 actions=drop
"""

PATCH = 1
"""Number of the patch port that leads out, on each of the three bridges."""


def rule(words: str, actions: str = "drop", cookie: str = "0x0") -> str:
    """A rule as ovs-ofctl prints it, with seven packets."""
    counters = "duration=4.869s, table=0, n_packets=7, n_bytes=294"
    return f" cookie={cookie}, {counters}, {words} actions={actions}\n"


def tables(host: RecordedHost, *rules: str, bridge: str = "br-int") -> None:
    """Add the first tables of the bridges, one of them with these rules."""
    like = host.last("network", "ip -j netns").model_dump(exclude={"value", "error", "query"})
    firewall = next(iter(numbers_of_agent(host.report().cloud.hosts[0])))
    own = f"{firewall:#x}"  # of the agent's start before this recording
    for name, text in (("br-int", BR_INT.replace(OWN, own)), ("br-ex", BR_EX), ("br-tun", BR_TUN)):
        query = f"ovs-ofctl -O OpenFlow10,OpenFlow13 dump-flows {name} table=0"
        more = "".join(rules).replace(OWN, own) if name == bridge else ""
        host.add(Answer(**like, query=query, value=text + more))


def number(host: RecordedHost, name: str) -> int:
    """The number of a guest's tap on br-int."""
    [tap] = host.guest(name).taps or ()
    assert tap.ofport is not None
    return tap.ofport


def port(host: RecordedHost, name: str) -> dict[str, Any]:
    [found] = host.ports(name)
    return found


def test_the_rules_of_neutron_are_quiet(host: RecordedHost) -> None:
    tables(host)

    report = host.report()
    assert report.findings == ()
    assert not [one for one in report.skips if one.check.name == "foreign-rule-drops-packets"]


def test_a_recording_without_first_tables_is_quiet(host: RecordedHost) -> None:
    report = host.report()

    assert report.findings == ()
    [skip] = [one for one in report.skips if one.check.name == "foreign-rule-drops-packets"]
    assert skip.reason == "Open vSwitch: the first tables of its bridges were not collected"


def test_foreign_rule_drops_packets(host: RecordedHost) -> None:
    at = number(host, "vm-plain")
    tables(host, rule(f"priority=100,in_port={at}"))

    assert host.findings() == [
        "foreign-rule-drops-packets: Open vSwitch reports cookie = 0x0, table = 0,"
        f" rule = priority=100,in_port={at}, actions = drop, packets = 7"
    ]
    assert host.headlines() == [
        "br-int drops what vm-plain sends, by a rule that is not neutron's: "
        f"priority=100,in_port={at}"
    ]
    assert changes(host.report().findings[0]) == [
        f"ovs-ofctl --strict del-flows br-int cookie=0x0/-1,table=0,priority=100,in_port={at}"
    ]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("priority=5,dl_src={mac}", "what vm-plain sends"),
        ("priority=5,dl_dst={mac}", "what is sent to vm-plain"),
        ("ip,nw_dst={ip}", "what is sent to vm-plain"),
        ("priority=5,arp,arp_tpa={ip}", "what is sent to vm-plain"),
        ("priority=9,in_port=1,dl_dst={mac}", "what is sent to vm-plain"),
        ("priority=1,ip", "all IPv4 packets"),
        ("priority=1,arp", "all ARP packets"),
        ("", "all packets"),
    ],
)
def test_a_rule_names_a_guest_or_everything(host: RecordedHost, words: str, what: str) -> None:
    own = port(host, "vm-plain")
    ip = own["fixed_ips"][0]["ip_address"]
    tables(host, rule(words.format(mac=own["mac_address"], ip=ip)))

    [headline] = host.headlines()
    assert headline.startswith(f"br-int drops {what}, by a rule that is not neutron's: priority=")


def test_a_rule_with_another_number_than_the_agents(host: RecordedHost) -> None:
    tables(host, rule(f"priority=100,in_port={number(host, 'vm-plain')}", cookie="0xbad"))

    assert "cookie=0xbad/-1," in changes(host.report().findings[0])[0]


def test_the_agent_has_not_deleted_its_old_rules_yet(host: RecordedHost) -> None:
    """While it starts, the bridge has rules of the start before."""
    old = rule("priority=2,in_port=1", cookie="0xbad").replace("4.869s", "9000.5s")
    tables(host)
    query = "ovs-ofctl -O OpenFlow10,OpenFlow13 dump-flows br-ex table=0"
    text = "".join(line for line in BR_EX.splitlines(keepends=True) if "=drop" not in line)
    host.set("network", query, text + old)
    assert host.findings() == []

    host.set("network", query, text + old.replace("9000.5s", "9.5s"))
    assert len(host.findings()) == 1


def test_a_rule_of_the_dhcp_server(host: RecordedHost) -> None:
    network = port(host, "vm-plain")["network_id"]
    [dhcp] = [
        one
        for one in host.report().cloud.ports.by_network[network]
        if one.device_owner == "network:dhcp"
    ]
    tables(host, rule(f"priority=7,dl_src={dhcp.mac}"))

    [headline] = host.headlines()
    assert headline.startswith(f"br-int drops what the DHCP server of network {network[:8]} sends")


def test_a_rule_of_a_floating_ip_on_the_outer_bridge(host: RecordedHost) -> None:
    [leads] = host.report().cloud.ports.floating[port(host, "vm-plain")["id"]]
    tables(host, rule(f"priority=7,ip,nw_dst={leads.address}"), bridge="br-ex")

    [headline] = host.headlines()
    assert headline.startswith("br-ex drops what is sent to vm-plain, by a rule")


@pytest.mark.parametrize("bridge", ["br-int", "br-ex", "br-tun"])
def test_all_packets_of_a_patch_port(host: RecordedHost, bridge: str) -> None:
    tables(host, rule(f"priority=10,in_port={PATCH}"), bridge=bridge)

    [headline] = host.headlines()
    assert headline.startswith(f"{bridge} drops all packets from ")


def test_the_rule_for_all_other_packets_was_replaced(host: RecordedHost) -> None:
    tables(host)
    query = "ovs-ofctl -O OpenFlow10,OpenFlow13 dump-flows br-int table=0"
    lines = host.last("network", query).value.splitlines(keepends=True)
    host.set("network", query, "".join(lines[:-1]) + rule("priority=0"))

    [finding] = host.report().findings
    assert finding.headline.startswith("br-int drops all packets, by a rule")
    assert changes(finding) == ["systemctl restart neutron-openvswitch-agent"]


def test_a_rule_that_diverts_packets_is_a_warning(host: RecordedHost) -> None:
    tables(host, rule(f"priority=100,in_port={number(host, 'vm-plain')}", "output:12"))

    [finding] = host.report().findings
    assert finding.headline.startswith("br-int diverts to output:12 what vm-plain sends")
    assert finding.severity.word == "warning"


def test_a_rule_for_some_packets_is_a_warning(host: RecordedHost) -> None:
    tables(host, rule(f"priority=100,tcp,in_port={number(host, 'vm-plain')},tp_dst=25"))

    [finding] = host.report().findings
    assert finding.severity.word == "warning"


@pytest.mark.parametrize(
    "line",
    [
        rule("priority=100,in_port=77"),  # of no port of neutron's
        rule("priority=100,udp,tp_dst=67"),  # somebody's own filter
        rule("priority=100,ip,nw_dst=169.254.0.0/16"),
        rule("priority=100,in_port={at}", "resubmit(,60)"),
        rule("priority=100,in_port={at}", "NORMAL"),
        rule("priority=100,in_port={at}", "output:12", "0x77"),  # a service that chains ports
        rule("priority=65535,in_port={at},reg2=0", "set_queue:1,resubmit(,0)", "0x77"),
        rule("priority=0,in_port={at}"),  # not above the agent's rule for all other packets
        rule("priority=9,in_port=1,dl_src={mac}"),  # its own packets, back from outside
        rule("priority=2,in_port=1"),  # below the agent's rule of the same port
        rule("priority=100,in_port={at}", "drop", OWN),  # the agent's own
        " priority=100,in_port={at} actions=drop\n",
        "NXST_FLOW reply\n",
    ],
)
def test_legal_rules(host: RecordedHost, line: str) -> None:
    mac = port(host, "vm-plain")["mac_address"]
    tables(host, line.replace("{at}", str(number(host, "vm-plain"))).replace("{mac}", mac))

    assert host.findings() == []


def test_the_iptables_firewall_has_rules_of_each_port(host: RecordedHost) -> None:
    """A foreign rule below them is never met."""
    at = number(host, "vm-plain")
    checked = rule(f"priority=9,in_port={at}", "goto_table:25", OWN)
    tables(host, checked, rule(f"priority=8,in_port={at}"))
    assert host.findings() == []

    tables(host, checked, rule(f"priority=10,in_port={at}"))
    assert len(host.findings()) == 1


def test_before_liberty_no_rule_had_a_number(host: RecordedHost) -> None:
    tables(host, rule(f"priority=100,in_port={number(host, 'vm-plain')}"))
    for answer in host.bundle.by_layer["network"]:
        if answer.query.startswith("ovs-ofctl"):
            text = "".join(
                f" cookie=0x0,{line.partition(',')[2]}\n" if "cookie=" in line else f"{line}\n"
                for line in answer.value.splitlines()
            )
            host.set("network", answer.query, text)

    assert host.findings() == []


def test_ovns_rules_have_many_numbers(host: RecordedHost) -> None:
    """OVN 22.12 and later drop explicitly what no rule matches."""
    at = number(host, "vm-plain")
    agents = json.loads(json.dumps(host.last("neutron", "GET /v2.0/agents").value))
    own = {"agent_type": "OVN Controller agent", "binary": "ovn-controller", "id": "7d0f"}
    agents["agents"].append({**agents["agents"][0], "alive": True, **own})
    host.set("neutron", "GET /v2.0/agents", agents)
    tables(host)
    query = "ovs-ofctl -O OpenFlow10,OpenFlow13 dump-flows br-int table=0"
    table = "OFPST_FLOW reply (OF1.3) (xid=0x6):\n" + rule("priority=0")
    table += rule(f"priority=100,in_port={at}", "load:0x1->NXM_NX_REG13[],resubmit(,8)", "0x4d53be")
    table += rule("priority=150,in_port=77,dl_vlan=5", "drop", "0x5f7cc1")
    host.set("network", query, table)
    assert host.findings() == []

    host.set("network", query, table + rule(f"priority=200,in_port={at}"))
    [headline] = host.headlines()
    assert headline.startswith("br-int drops what vm-plain sends")


def test_a_rule_in_a_later_table(host: RecordedHost) -> None:
    """Those of a guest's port have been recorded before the first tables were."""
    own = port(host, "vm-plain")["id"]
    [query] = [
        answer.query
        for answer in host.bundle.by_layer["network"]
        if answer.subject == own and " in_port=" in answer.query
    ]
    text, at = host.last("network", query).value, number(host, "vm-plain")
    foreign = rule(f"priority=200,in_port={at}").replace("table=0", "table=71")
    host.set("network", query, text + foreign)

    [finding] = host.report().findings
    assert finding.headline.startswith("br-int drops what vm-plain sends")
    assert changes(finding) == [
        f"ovs-ofctl --strict del-flows br-int cookie=0x0/-1,table=71,priority=200,in_port={at}"
    ]

    host.set("network", query, text + foreign.replace("priority=200", "priority=1"))
    assert host.findings() == []
