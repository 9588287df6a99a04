"""Host side of the guests' networks: taps, bridges, Open vSwitch, namespaces, filters.

These are the commands with which a person traces a packet. All of them only read.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hoodsnap.bundle import Answer
from hoodsnap.collect import file
from hoodsnap.collect.port import SeenNetworks
from hoodsnap.collect.program import run
from hoodsnap.collect.recorder import Recorder, RefusedError
from hoodsnap.keep.host_network import OF_A_TAP, OVS_COLUMNS, listeners, ovs_rows, tap_rules

LAYER = "network"

STATE_PATHS = ("/var/lib/neutron", "/opt/stack/data/neutron")
"""Folders in which neutron's DHCP agent keeps its files: of packages, of DevStack."""

FLOWS_TIME = 20.0
"""Seconds for the flows of all guests together; each guest takes two commands."""

MOST_BRIDGES = 8
"""Bridges of Open vSwitch whose first table is collected. neutron's agent has one, one for tunnels,
and one for each physical network; those of trunks are left out."""

LARGEST_TABLE = 1 << 20
"""Bytes of a bridge's first table. With the iptables firewall it has 600 for each guest."""

LARGEST_LEASES = 4 << 20
"""Bytes of a network's `host` or `leases` file, which has a line of a hundred bytes per port."""

MOST_NAMESPACES = 32
"""Namespaces that are collected if neutron's networks were not collected."""


def ask_taps(recorder: Recorder, seen: SeenNetworks | None) -> None:
    """Ask for the host's network. `seen`: networks and routers of the guests; None if neutron's
    ports were not collected."""
    links = _ask_json(recorder, "ip -d -j link")
    if links.error is None or links.error.kind != "missing":
        _ask_json(recorder, "ip -j address")
        _ask_namespaces(recorder, seen)
    if _ask_json(recorder, "bridge -j link").error is None:
        _ask_json(recorder, "bridge -j vlan")
    _ask_switch(recorder)
    query = f"iptables-save | grep -E '{OF_A_TAP.pattern}'"
    recorder.ask(LAYER, query, _filter_rules)


def _ask_json(recorder: Recorder, command: str) -> Answer:
    # `bridge` and `ip netns` print nothing instead of an empty list.
    return recorder.ask(LAYER, command, lambda: json.loads(run(command.split()) or "[]"))


# Open vSwitch


def _ask_switch(recorder: Recorder) -> None:
    interfaces = _ask_table(recorder, "Interface")
    if interfaces.error is not None:
        return  # one failure is enough: Open vSwitch is not installed, or access is denied
    _ask_table(recorder, "Port")
    bridges = [str(row.get("name")) for row in _rows(_ask_table(recorder, "Bridge"))]
    _ask_table(recorder, "Controller")
    _ask_table(recorder, "Mirror")
    _ask_first_tables(recorder, bridges)
    if "br-int" in bridges:
        _ask_flows(recorder, _rows(interfaces))


def _ask_table(recorder: Recorder, table: str) -> Answer:
    answer = _list(recorder, table, OVS_COLUMNS[table])
    if answer.error is not None and "does not contain a column" in answer.error.message:
        answer = _list(recorder, table, OVS_COLUMNS[table].removesuffix(",error"))
    return answer


def _list(recorder: Recorder, table: str, columns: str) -> Answer:
    command = f"ovs-vsctl --timeout=5 --format=json --columns={columns} list {table}"
    return recorder.ask(LAYER, command, lambda: ovs_rows(json.loads(run(command.split()))))


def _ask_first_tables(recorder: Recorder, bridges: Iterable[str]) -> None:
    """Ask for the flows that each packet meets first, on each bridge.

    A flow that somebody added by hand need not match a guest's port number.
    """
    found = (name for name in bridges if re.fullmatch(r"(?!tbr-)[\w.-]{1,64}", name))
    for name in sorted(found, key=lambda name: (name != "br-int", name))[:MOST_BRIDGES]:
        command = f"ovs-ofctl -O OpenFlow10,OpenFlow13 dump-flows {name} table=0"
        if recorder.ask(LAYER, command, partial(_table, command)).error is not None:
            return


def _table(command: str) -> str:
    text = run(command.split())
    if len(text) > LARGEST_TABLE:
        raise RefusedError("too-large", f"the table has more than {LARGEST_TABLE} bytes")
    return text


def _ask_flows(recorder: Recorder, interfaces: Iterable[dict[str, Any]]) -> None:
    """Ask for the flows of each guest's port on the integration bridge.

    With the Open vSwitch firewall they include the port's security groups, which match `reg5`.
    """
    end = time.monotonic() + FLOWS_TIME
    for row in interfaces:
        ids, number = row.get("external_ids"), row.get("ofport")
        ids = dict(ids[1]) if isinstance(ids, list) and ids[:1] == ["map"] else {}
        port = ids.get("iface-id")
        if not {"vm-uuid", "vm-id"} & ids.keys() or not isinstance(number, int) or number < 1:
            continue
        for match in (f"in_port={number}", f"reg5={number}"):
            if time.monotonic() > end:
                return
            # Neutron allows OpenFlow 1.3 since Liberty, and only 1.0 before.
            command = f"ovs-ofctl -O OpenFlow10,OpenFlow13 dump-flows br-int {match}"
            answer = recorder.ask(LAYER, command, partial(run, command.split()), subject=port)
            if answer.error is not None:
                return


def _rows(answer: Answer) -> list[dict[str, Any]]:
    if answer.error is not None or not isinstance(answer.value, dict):
        return []
    headings = answer.value.get("headings", [])
    return [dict(zip(headings, row, strict=False)) for row in answer.value.get("data", [])]


# Filters


def _filter_rules() -> str:
    # Without `-t filter`, which would load the kernel's filter module if it is not loaded.
    return tap_rules(run(["iptables-save"]))


# Namespaces


def _ask_namespaces(recorder: Recorder, seen: SeenNetworks | None) -> None:
    listed = _ask_json(recorder, "ip -j netns")
    items = listed.value if listed.error is None and isinstance(listed.value, list) else []
    names = [item["name"] for item in items if isinstance(item, dict) and "name" in item]
    for name in _wanted(names, seen):
        _ask_json(recorder, f"ip -j -n {name} address")
        _ask_json(recorder, f"ip -j -n {name} route")
        kind, _, uuid = name.partition("-")
        if kind == "qdhcp":
            _ask_leases(recorder, uuid)
            _ask_inside(recorder, name, "cat /proc/net/udp", listeners)
        else:
            for command in ("iptables-save -t nat", "sysctl net.ipv4.ip_forward"):
                _ask_inside(recorder, name, command)
        if kind == "qrouter":
            for command in ("cat /proc/net/tcp", "cat /proc/net/tcp6"):
                _ask_inside(recorder, name, command, listeners)


def _ask_inside(
    recorder: Recorder, name: str, command: str, keep: Callable[[str], str] = str
) -> None:
    query = f"ip netns exec {name} {command}"
    recorder.ask(LAYER, query, lambda: keep(run(query.split())))


def _wanted(names: Sequence[str], seen: SeenNetworks | None) -> list[str]:
    found = [
        name for name in sorted(names) if re.fullmatch(r"(qrouter|snat|fip|qdhcp)-[\w-]+", name)
    ]
    if seen is None:
        return found[:MOST_NAMESPACES]
    theirs = seen.networks | seen.routers
    return [name for name in found if name.partition("-")[2] in theirs]


def _ask_leases(recorder: Recorder, network: str) -> None:
    folders = [Path(path, "dhcp", network) for path in STATE_PATHS]
    folder = next((path for path in folders if _is_there(recorder, path)), folders[0])
    for name in ("host", "leases"):
        path = folder / name
        how = partial(file.text, path, LARGEST_LEASES)
        recorder.ask(LAYER, f"cat {path}", how, subject=network, source=str(folder.parent))


def _is_there(recorder: Recorder, path: Path) -> bool:
    found = recorder.wait(LAYER, partial(file.exists, path), 2.0, source=str(path.parent))
    return found is True
