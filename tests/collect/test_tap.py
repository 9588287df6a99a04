"""Host network, with programs of the tests' own, and without any program."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from hoodsnap.collect import tap as module
from hoodsnap.collect.port import SeenNetworks
from hoodsnap.collect.recorder import Recorder, RefusedError
from hoodsnap.collect.tap import ask_taps
from hoodsnap.keep.host_network import listeners, ovs_rows
from hoodsnap.keep.secret import WITHHELD

NETWORK = "311f0106-57a0-4949-8a46-737f380685d6"
ROUTER = "5f38a793-3c44-40a7-9f2c-9df7b9b7d14c"

INTERFACES: dict[str, Any] = {
    "headings": ["_uuid", "name", "ofport", "external_ids"],
    "data": [
        [
            ["uuid", "1d94a2f0-6fa9-4c83-9314-61fc96e987de"],
            "tapd5248b1b-8d",
            20,
            ["map", [["iface-id", "d5248b1b-8d01"], ["vm-uuid", "1a26e9fc"], ["note", "sesame42"]]],
        ],
        [["uuid", "84a152f1-5ebc-4be1-8de9-381467060f53"], "patch-tun", 2, ["map", []]],
    ],
}
BRIDGES = {"headings": ["name"], "data": [["br-int"]]}

RULES = """\
*filter
-A FORWARD -j neutron-openvswi-FORWARD
-A neutron-openvswi-FORWARD -m physdev --physdev-out tapd5248b1b-8d --physdev-is-bridged -j neutron-openvswi-sg-chain
-A neutron-openvswi-id5248b1b-8 -m set --match-set NIPv46f2a src -j RETURN
-A INPUT -s 10.0.0.9/32 -m comment --comment "the boss" -j ACCEPT
COMMIT
"""
"""Rules of the hybrid iptables firewall: neutron agent/linux/iptables_firewall.py."""


def asked(
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[[Sequence[str]], str],
    seen: SeenNetworks | None = None,
) -> Recorder:
    monkeypatch.setattr(module, "run", run)
    recorder = Recorder("vm")
    ask_taps(recorder, seen)
    return recorder


def queries(recorder: Recorder) -> list[str]:
    return [answer.query for answer in recorder.answers]


def missing(command: Sequence[str]) -> str:
    raise RefusedError("missing", f"{command[0]} is not installed")


def usual(command: Sequence[str]) -> str:
    words = " ".join(command)
    if words == "ip -j netns":
        names = (f"qdhcp-{NETWORK}", f"qrouter-{ROUTER}", "qrouter-of-somebody-else", "a;b")
        return json.dumps([{"name": name} for name in names])
    if words.endswith("list Interface"):
        return json.dumps(INTERFACES)
    if words.endswith("list Bridge"):
        return json.dumps(BRIDGES)
    if words.endswith("list Port"):
        return '{"headings": [], "data": []}'
    if words == "iptables-save":
        return RULES
    return "" if command[0] in ("ip", "bridge") else words


def test_a_program_that_is_not_installed_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = asked(monkeypatch, missing)

    programs = [query.split()[0] for query in queries(recorder)]
    assert programs == ["ip", "bridge", "ovs-vsctl", "iptables-save"]
    assert {answer.error and answer.error.kind for answer in recorder.answers} == {"missing"}


def test_only_the_guests_namespaces_are_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = SeenNetworks(networks=frozenset([NETWORK]), routers=frozenset([ROUTER]))
    recorder = asked(monkeypatch, usual, seen)

    inside = [query for query in queries(recorder) if " -n " in query or "netns exec" in query]
    assert inside == [
        f"ip -j -n qdhcp-{NETWORK} address",
        f"ip -j -n qdhcp-{NETWORK} route",
        f"ip netns exec qdhcp-{NETWORK} cat /proc/net/udp",
        f"ip -j -n qrouter-{ROUTER} address",
        f"ip -j -n qrouter-{ROUTER} route",
        f"ip netns exec qrouter-{ROUTER} iptables-save -t nat",
        f"ip netns exec qrouter-{ROUTER} sysctl net.ipv4.ip_forward",
        f"ip netns exec qrouter-{ROUTER} cat /proc/net/tcp",
        f"ip netns exec qrouter-{ROUTER} cat /proc/net/tcp6",
    ]


def test_all_neutron_namespaces_are_collected_if_neutron_was_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorder = asked(monkeypatch, usual)

    assert "ip -j -n qrouter-of-somebody-else address" in queries(recorder)
    assert not any("a;b" in query for query in queries(recorder))


def test_leases_are_read_from_neutrons_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "dhcp" / NETWORK
    folder.mkdir(parents=True)
    (folder / "host").write_text("fa:16:3e:f8:83:f5,host-10-20-0-250,10.20.0.250\n")
    monkeypatch.setattr(module, "STATE_PATHS", ("/nowhere", str(tmp_path)))

    recorder = asked(monkeypatch, usual)

    answers = {answer.query: answer for answer in recorder.answers}
    assert answers[f"cat {folder}/host"].value == "fa:16:3e:f8:83:f5,host-10-20-0-250,10.20.0.250\n"
    leases = answers[f"cat {folder}/leases"].error
    assert leases is not None
    assert leases.kind == "absent"


def test_flows_are_collected_only_for_the_guests_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = asked(monkeypatch, usual)

    flows = [answer for answer in recorder.answers if "dump-flows br-int in_port" in answer.query]
    flows += [answer for answer in recorder.answers if "dump-flows br-int reg5" in answer.query]
    assert [answer.query for answer in flows] == [
        "ovs-ofctl -O OpenFlow10,OpenFlow13 dump-flows br-int in_port=20",
        "ovs-ofctl -O OpenFlow10,OpenFlow13 dump-flows br-int reg5=20",
    ]
    assert {answer.subject for answer in flows} == {"d5248b1b-8d01"}


def test_the_first_table_of_each_bridge_is_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["br-ex", "tbr-3f6c1d2a-b", "br;rm", "br-int", *(f"br-{at}" for at in range(9))]

    def bridged(command: Sequence[str]) -> str:
        if " ".join(command).endswith("list Bridge"):
            return json.dumps({"headings": ["name"], "data": [[name] for name in names]})
        return usual(command)

    recorder = asked(monkeypatch, bridged)

    first = [query.split()[4] for query in queries(recorder) if query.endswith(" table=0")]
    assert first == ["br-int", *(f"br-{at}" for at in range(7))]


def test_a_first_table_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_TABLE", 20)

    recorder = asked(monkeypatch, usual)

    [answer] = [one for one in recorder.answers if one.query.endswith(" table=0")]
    assert answer.error is not None and answer.error.kind == "too-large"
    assert any(query.endswith("in_port=20") for query in queries(recorder))


def test_of_sockets_only_those_that_listen_everywhere_are_kept() -> None:
    heading = "  sl  local_address rem_address   st tx_queue rx_queue\n"
    proxy = "   0: 00000000:25E1 00000000:0000 0A 00000000:00000000\n"
    guest = "   1: 0114140A:25E1 FA14140A:B3C4 01 00000000:00000000\n"
    local = "   2: 0100007F:0035 00000000:0000 0A 00000000:00000000\n"

    server = "  13: 00000000:0043 00000000:0000 07 00000000:00000000\n"
    assert listeners(heading + guest + proxy + server + local) == heading + proxy + server
    assert listeners("") == ""


def test_only_iptables_rules_about_taps_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorder = asked(monkeypatch, usual)

    [rules] = [answer.value for answer in recorder.answers if "iptables-save |" in answer.query]
    assert rules.splitlines() == RULES.splitlines()[2:4]


def test_an_old_open_vswitch_is_asked_without_the_error_column(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def older(command: Sequence[str]) -> str:
        if ",error" in " ".join(command):
            complaint = 'ovs-vsctl: Interface does not contain a column whose name matches "error"'
            raise RefusedError("failed", complaint)
        return usual(command)

    recorder = asked(monkeypatch, older)

    tables = [answer for answer in recorder.answers if answer.query.endswith("list Interface")]
    assert [answer.error is None for answer in tables] == [False, True]


def test_unknown_external_ids_in_open_vswitch_are_withheld() -> None:
    kept = ovs_rows(INTERFACES)

    assert kept["data"][0][3] == [
        "map",
        [["iface-id", "d5248b1b-8d01"], ["vm-uuid", "1a26e9fc"], ["note", WITHHELD]],
    ]
    assert kept["data"][1] == INTERFACES["data"][1]
