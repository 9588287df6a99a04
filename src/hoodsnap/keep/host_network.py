"""Allow-lists for the host side of the network: Open vSwitch tables and iptables rules."""

from __future__ import annotations

import re
from typing import Any

from hoodsnap.keep.secret import WITHHELD
from hoodsnap.keep.shape import words

OVS_COLUMNS = {
    "Interface": "_uuid,name,type,ofport,admin_state,link_state,external_ids,mac_in_use,mtu"
    ",ifindex,options,ingress_policing_rate,ingress_policing_burst,error",
    "Port": "_uuid,name,tag,trunks,interfaces,external_ids,other_config",
    "Bridge": "_uuid,name,ports,datapath_type,fail_mode,external_ids,controller,mirrors",
    "Controller": "_uuid,target,is_connected",
    "Mirror": "_uuid,name,select_all,select_src_port,select_dst_port,output_port,output_vlan",
}
"""Columns that may be kept of each Open vSwitch table. `error` was added in 2.4."""


_EXTERNAL_IDS = words(
    "iface-id iface-status attached-mac vm-uuid vm-id ovn-installed skip_cleanup"
    " net_uuid network_type physical_network segmentation_id tag bridge-id peer"
)


def ovs_rows(table: Any) -> Any:
    """Keep the output of `ovs-vsctl --format=json list`, with values of unknown keys withheld."""
    if not isinstance(table, dict) or not isinstance(table.get("data"), list):
        return WITHHELD
    rows = [[_ovs_cell(cell) for cell in row] for row in table["data"] if isinstance(row, list)]
    return {**table, "data": rows}


def _ovs_cell(cell: Any) -> Any:
    """Keep the values of known keys of a map (`["map", [[key, value], …]]`)."""
    if not isinstance(cell, list) or cell[:1] != ["map"] or not isinstance(cell[-1], list):
        return cell
    pairs = [pair for pair in cell[-1] if isinstance(pair, list) and len(pair) == 2]
    return ["map", [[key, value if key in _EXTERNAL_IDS else WITHHELD] for key, value in pairs]]


OF_A_TAP = re.compile(
    # The name of a port's chain contains the first ten characters of the port's id.
    r"neutron-[\w-]{1,20}-[ios][0-9a-f]{8}-[0-9a-f]\b|--physdev-(?:in|out) (?:tap|qvb)[0-9a-f]{8}-"
)
"""Pattern for iptables rules that concern one guest's tap."""


def tap_rules(text: str) -> str:
    """Keep the rules about guests' taps in the output of `iptables-save`."""
    return "".join(line for line in text.splitlines(keepends=True) if OF_A_TAP.search(line))


_LISTENER = re.compile(r" {0,9}\d{1,9}: 0{1,32}:[0-9A-F]{4} 0{1,32}:0000 (?:0A|07) ")
"""Line of /proc/net/tcp or udp for a socket that listens on all addresses."""


def listeners(text: str) -> str:
    """Keep the heading of /proc/net/tcp or udp and the sockets that listen on all addresses.

    Other lines hold addresses of guests in hexadecimal.
    """
    heading, *lines = text.splitlines(keepends=True) or [""]
    return heading + "".join(line for line in lines if _LISTENER.match(line))
