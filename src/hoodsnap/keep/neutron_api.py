"""Allow-list for neutron's API, and for the binding details that a driver stores in a port."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hoodsnap.keep.secret import WITHHELD
from hoodsnap.keep.shape import Names, Shape, bounded, hidden, words

_NETWORK_LISTS = words(
    "ports networks subnets routers floatingips security_groups agents bindings extensions"
)

_NETWORK_FIELDS = _NETWORK_LISTS | words(
    # all of them
    "id name status admin_state_up tenant_id project_id shared created_at"
    " updated_at revision_number availability_zone availability_zones availability_zone_hints"
    " rel href links alias updated"
    # ports and their bindings
    " network_id mac_address device_id device_owner fixed_ips subnet_id ip_address"
    " allowed_address_pairs binding:vnic_type binding:host_id binding:vif_type"
    " binding:vif_details binding:profile port_security_enabled propagate_uplink_status"
    " dns_name dns_domain dns_assignment hostname fqdn ip_allocation qos_policy_id"
    " qos_network_policy_id resource_request trunk_details trunk_id sub_ports port_id"
    " segmentation_type numa_affinity_policy device_profile hardware_offload_type"
    " host vif_type vnic_type profile vif_details"
    # profile and details of a binding
    " pci_slot pci_vendor_info physical_network migrating_to card_serial_number pf_mac_address"
    " vf_num trusted allocation os_vif_delegation capabilities local_link_information"
    " port_filter ovs_hybrid_plug connectivity bound_drivers datapath_type bridge_name vlan"
    " vhostuser_mode vhostuser_ovs_plug vhostuser_socket vhostuser_vrouter_plug macvtap_mode"
    " macvtap_source physical_interface profileid backend"
    # networks and subnets
    " mtu subnets provider:network_type provider:physical_network provider:segmentation_id"
    " segments router:external vlan_transparent is_default l2_adjacency ipv4_address_scope"
    " ipv6_address_scope ip_version cidr gateway_ip enable_dhcp allocation_pools start end"
    " host_routes destination nexthop dns_nameservers ipv6_ra_mode ipv6_address_mode"
    " subnetpool_id service_types segment_id"
    # routers and floating IPs
    " external_gateway_info external_fixed_ips enable_snat distributed ha routes flavor_id"
    " floating_ip_address fixed_ip_address floating_network_id router_id port_details"
    # security groups
    " security_group_rules security_group_id direction ethertype protocol port_range_min"
    " port_range_max remote_ip_prefix remote_group_id remote_address_group_id normalized_cidr"
    " stateful"
    # agents
    " agent_type binary topic started_at heartbeat_timestamp alive resources_synced"
    " configurations bridge_mappings interface_mappings integration_bridge tunnel_types"
    " tunneling_ip tunneling_ips l2_population arp_responder_enabled in_distributed_mode"
    " enable_distributed_routing agent_mode devices device_mappings vhostuser_socket_dir"
    " extension_drivers chassis_name bridge-mappings"
)

# Maps whose keys users choose, and whose values are plain.
_NETWORK_MAPS = words("bridge_mappings interface_mappings bound_drivers device_mappings")


_OF_NEUTRON = "Default security group"
"""The only description that neutron itself writes."""

_EXTENSION = Shape(words("name alias description updated"), {"links": Shape(words("rel href"))})


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping)


def network_body(body: Any) -> Any:
    """Keep the values of known keys in a body of neutron's API.

    Unknown keys stay, because clients may need them, but their values are withheld.
    """
    if isinstance(body, Mapping):
        return {bounded(key): _network_value(key, value) for key, value in body.items()}
    if isinstance(body, list):
        return [network_body(item) for item in body]
    return bounded(body)


def _network_value(key: str, value: Any) -> Any:
    if key in _NETWORK_MAPS and isinstance(value, Mapping):
        return Names().kept(value)
    if key == "extensions" and isinstance(value, list) and all(map(_is_object, value)):
        return _EXTENSION.kept(value)  # texts from neutron's own source code
    if key in ("tags", "description"):
        return value if value == _OF_NEUTRON else hidden(value)
    if key in _NETWORK_FIELDS or key.removesuffix("_links") in _NETWORK_LISTS:
        return network_body(value)
    return None if value is None else WITHHELD
