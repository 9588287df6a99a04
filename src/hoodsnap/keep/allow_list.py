"""Allow-lists for answers of the cloud's other APIs, nova's JSON columns and logs.

Users put passwords wherever a field takes free text: into metadata, user data, properties of
images, scheduler hints. Nobody who reads a bundle needs those.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from hoodsnap.keep.log_line import line_without_secrets
from hoodsnap.keep.nova_api import api_body
from hoodsnap.keep.secret import WITHHELD, without_secrets
from hoodsnap.keep.shape import Names, Shape, bounded, hidden, is_plain, kept_json, words

IMAGE_PROPERTIES = (
    "hw_.+|os_(type|distro|version|require_quiesce|secure_boot|shutdown_timeout)"
    "|img_(block_device_mapping|bdm_v2|config_drive|hide_hypervisor_id|hv_type|linked_clone"
    "|mappings|root_device_name|use_agent|version|compression_policy)"
    "|base_image_ref|block_device_mapping|bdm_v2|root_device_name|mappings|instance_uuid"
    "|instance_type_.+|image_type|image_state|image_location|kernel_id|ramdisk_id|architecture"
    "|hypervisor_type|vm_mode|auto_disk_config|cache_in_nova|min_disk|min_ram|disk_format"
    "|container_format"
)
"""The properties of an image that nova acts on (a regular expression that MySQL knows too)."""

SYSTEM_METADATA = (
    f"^(image_({IMAGE_PROPERTIES})"
    "|((old|new)_)?instance_type_.+|old_vm_state|clean_attempts"
    "|shelved_(at|host|image_id)|vtpm_secret_uuid)$"
)
"""The keys of instance_system_metadata whose rows are read (a regular expression for MySQL)."""


__all__ = [
    "IMAGE_PROPERTIES",
    "SYSTEM_METADATA",
    "api_body",
    "connection_info",
    "image_body",
    "log_line",
    "network_body",
    "network_info",
    "nova_object",
    "ovs_rows",
    "placement_body",
    "request_spec",
    "volume_body",
]

_IMAGE_FIELDS = words(
    "id name status visibility size virtual_size checksum os_hash_algo os_hash_value"
    " os_hidden owner min_disk min_ram disk_format container_format created_at updated_at"
    " protected self file schema stores"
)
_IMAGE_PROPERTY = re.compile(f"({IMAGE_PROPERTIES})")

_CONNECTION = words(
    "driver_volume_type serial volume_id instance status attached_at detached_at multiattach"
)
_CONNECTION_DATA = words(
    "target_iqn target_iqns target_lun target_luns target_portal target_portals"
    " target_wwn target_nqn nqn volume_nguid ns_id device_path multipath_id export name"
    " format volume_id encrypted access_mode hosts ports discard cluster_name"
)
_QOS = re.compile(r"consumer|((read|write|total)_(iops|bytes)|size_iops)_sec(_\w+)?")

_VOLUME = words(
    "id status size availability_zone created_at updated_at name volume_type volume_type_id"
    " snapshot_id source_volid bootable encrypted encryption_key_id multiattach attachments"
    " migration_status shared_targets service_uuid cluster_name group_id provider_id"
    " replication_status consistencygroup_id consumes_quota os-vol-tenant-attr:tenant_id"
    " os-vol-mig-status-attr:migstat os-vol-mig-status-attr:name_id os-vol-host-attr:host user_id"
)
_ATTACHMENT = words(
    "id attachment_id status instance volume_id server_id host_name device attached_at"
    " detached_at attach_mode"
)
_SNAPSHOT = words(
    "id name status size volume_id created_at updated_at"
    " os-extended-snapshot-attributes:project_id os-extended-snapshot-attributes:progress"
)
_CINDER_SERVICE = words(
    "binary host zone status state updated_at disabled_reason backend_state cluster frozen"
    " replication_status active_backend_id"
)
_VERSION = words("id status version min_version updated")
_LINK = words("rel href")
_CINDER = {
    "volumes": _VOLUME,
    "volume": _VOLUME,
    "attachments": _ATTACHMENT,
    "attachment": _ATTACHMENT,
    "snapshots": _SNAPSHOT,
    "services": _CINDER_SERVICE,
    "versions": _VERSION,
    "volumes_links": _LINK,
    "attachments_links": _LINK,
    "snapshots_links": _LINK,
}
"""For each list, or single thing, that cinder answers with: which of its keys are kept."""
_LINKS = Shape(words("rel href"))
_PROVIDER = words("uuid name generation parent_provider_uuid root_provider_uuid")
_PLACEMENT = Shape(
    _PROVIDER
    | words(
        "traits aggregates resource_provider_generation consumer_generation consumer_type"
        " project_id user_id"
    ),
    {
        # Each provider comes with the URLs of all that can be asked of it: most of the list.
        "resource_providers": Shape(_PROVIDER),
        "versions": Shape(words("id status max_version min_version"), {"links": _LINKS}),
        "inventories": Names(
            Shape(words("total reserved min_unit max_unit step_size allocation_ratio"))
        ),
        "usages": Names(),
        "mappings": Names(),
        "allocations": Names(
            Shape(words("generation consumer_generation"), {"resources": Names()})
        ),
    },
)

_SPEC = words(
    "image numa_topology pci_requests project_id user_id availability_zone flavor"
    " num_instances ignore_hosts force_hosts force_nodes requested_destination limits"
    " instance_group scheduler_hints instance_uuid is_bfv requested_resources"
)
_HINTS = words("group same_host different_host target_cell different_cell cidr build_near_host_ip")


_DATA = "nova_object.data"


def is_image_property(name: str) -> bool:
    """Return whether nova acts on a property of an image."""
    return _IMAGE_PROPERTY.fullmatch(name) is not None


def image_body(body: Any) -> Any:
    """What glance said about an image. Of properties unknown to nova only the name stays."""
    if not isinstance(body, Mapping):
        return WITHHELD
    return {bounded(key): _image_value(key, value) for key, value in body.items()}


def _image_value(key: str, value: Any) -> Any:
    if key in _IMAGE_FIELDS or _IMAGE_PROPERTY.fullmatch(key):
        return bounded(value) if is_plain(value) else WITHHELD
    if key == "tags":
        return hidden(value)
    if key == "direct_url":
        return _location(value)
    if key == "locations" and isinstance(value, list):
        return [{"url": _location(item.get("url"))} for item in value if isinstance(item, Mapping)]
    return WITHHELD


_LONGEST_LINE = 300


def log_line(line: str) -> str:
    """A line of a log, cut short, without what may be a secret in it."""
    line = line_without_secrets(line[: 10 * _LONGEST_LINE])  # some are megabytes long
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…"


def _location(url: Any) -> str:
    """Where an image lies. Object stores carry their credentials in the URL."""
    if isinstance(url, str) and re.match(r"(rbd|file|cinder)://", url) and "@" not in url:
        return url
    return WITHHELD


def placement_body(body: Any) -> Any:
    """Keep of a body of placement the numbers, and the names of what they count."""
    return _PLACEMENT.kept(body) if isinstance(body, Mapping) else WITHHELD


def connection_info(text: str) -> str:
    """The column block_device_mapping.connection_info without what opens the volume."""
    info = _object(text)
    if info is None:
        return WITHHELD
    kept = {key: value for key, value in info.items() if key in _CONNECTION and is_plain(value)}
    if isinstance(data := info.get("data"), dict):
        kept["data"] = _connection_data(data)
    return json.dumps(kept)


def _connection_data(data: Mapping[str, Any]) -> dict[str, Any]:
    kept = {
        key: _way(value) if key in ("export", "name", "device_path") else bounded(value)
        for key, value in data.items()
        if key in _CONNECTION_DATA and is_plain(value)
    }
    if isinstance(qos := data.get("qos_specs"), dict):
        kept["qos_specs"] = {
            key: value for key, value in qos.items() if _QOS.fullmatch(key) and is_plain(value)
        }
    return kept


def _way(value: Any) -> Any:
    """Return where a volume lies, without the user and the options that some drivers add."""
    if not isinstance(value, str):
        return bounded(value)
    place, options, _ = bounded(value).partition("?")
    user, at, rest = place.rpartition("@")
    if at and ":" in user.rpartition("//")[2]:
        place = f"{user[: len(user) - len(user.rpartition('//')[2])]}{WITHHELD}@{rest}"
    return str(without_secrets(place)) + (options and f"?{WITHHELD}")


def volume_body(body: Any) -> Any:
    """What cinder's API said of volumes, attachments, snapshots and services."""
    if not isinstance(body, Mapping):
        return WITHHELD
    return {
        key: _cinder_things(value, _CINDER[key]) for key, value in body.items() if key in _CINDER
    }


def _cinder_things(value: Any, wanted: frozenset[str]) -> Any:
    if isinstance(value, list):
        return [_cinder_thing(item, wanted) for item in value if isinstance(item, Mapping)]
    return _cinder_thing(value, wanted) if isinstance(value, Mapping) else WITHHELD


def _cinder_thing(thing: Mapping[str, Any], wanted: frozenset[str]) -> dict[str, Any]:
    kept = {key: value for key, value in thing.items() if key in wanted and is_plain(value)}
    # A volume names its attachments, and an attachment the way to its volume.
    if isinstance(attachments := thing.get("attachments"), list) and "attachments" in wanted:
        kept["attachments"] = _cinder_things(attachments, _ATTACHMENT)
    if "attachments" in wanted:
        kept |= _free_text(thing)
    if wanted is _ATTACHMENT and isinstance(info := thing.get("connection_info"), Mapping):
        kept["connection_info"] = _connection_data(info) | {
            key: info[key] for key in ("driver_volume_type",) if key in info and is_plain(info[key])
        }
    return kept


_OF_VOLUMES_IMAGE = words("image_id image_name signature_verified")


def _free_text(volume: Mapping[str, Any]) -> dict[str, Any]:
    """What somebody wrote of a volume. Clients fail where the fields themselves are missing."""
    kept: dict[str, Any] = {}
    if "description" in volume:
        kept["description"] = volume["description"] and WITHHELD
    if isinstance(said := volume.get("metadata"), Mapping):
        kept["metadata"] = dict.fromkeys(said, WITHHELD)
    if isinstance(said := volume.get("volume_image_metadata"), Mapping):
        kept["volume_image_metadata"] = {
            key: value if key in _OF_VOLUMES_IMAGE else _image_value(key, value)
            for key, value in said.items()
        }
    return kept


def request_spec(text: str) -> str:
    """The column request_specs.spec: what decides about the next move, without free text."""
    spec = _object(text)
    data = spec.get(_DATA) if spec is not None else None
    if spec is None or not isinstance(data, dict):
        return WITHHELD
    kept = {key: value for key, value in data.items() if key in _SPEC}
    if isinstance(image := kept.get("image"), dict):
        kept["image"] = _spec_image(image)
    if isinstance(hints := kept.get("scheduler_hints"), dict):
        kept["scheduler_hints"] = {
            bounded(key): bounded(value) if key in _HINTS and is_plain(value) else WITHHELD
            for key, value in hints.items()
        }
    return json.dumps(
        {
            "nova_object.name": spec.get("nova_object.name"),
            "nova_object.version": spec.get("nova_object.version"),
            _DATA: _spec_kept(kept),
        }
    )


def _spec_kept(spec: Mapping[str, Any]) -> dict[str, Any]:
    of_image = ("image", "scheduler_hints")
    return {
        key: value if key in of_image else _object_value(key, value) for key, value in spec.items()
    }


def _spec_image(image: Mapping[str, Any]) -> Any:
    """An image in a request spec: of its properties those that nova acts on when it places."""
    data = image.get(_DATA)
    if not isinstance(data, dict):
        return WITHHELD
    properties = data.get("properties")
    said = properties.get(_DATA) if isinstance(properties, dict) else None
    kept = {
        key: value
        for key, value in (said.items() if isinstance(said, dict) else ())
        if _IMAGE_PROPERTY.fullmatch(key) or key == "traits_required"
    }
    plain = {
        key: bounded(value)
        for key, value in data.items()
        if key in _OBJECT_KEYS and key != "properties" and is_plain(value)
    }
    names = {key: image[key] for key in ("nova_object.name", "nova_object.version") if key in image}
    kept = {key: bounded(value) for key, value in kept.items() if is_plain(value)}
    return {**names, _DATA: {**plain, "properties": {_DATA: kept}}}


_OBJECT_KEYS = words(
    "nova_object.name nova_object.version nova_object.data objects"
    # flavors
    " cur old new id name memory_mb vcpus root_gb ephemeral_gb flavorid swap rxtx_factor"
    " vcpu_weight disabled is_public extra_specs created_at updated_at deleted_at deleted"
    # images
    " status checksum owner size container_format disk_format min_ram min_disk properties"
    # topologies of CPUs and memory
    " cells cpuset pcpuset cpuset_reserved memory pagesize cpu_topology sockets cores threads"
    " cpu_pinning cpu_pinning_raw cpu_policy cpu_thread_policy emulator_threads_policy"
    " cpu_emulator_threads numa_topology arch vendor topology features policy match model mode"
    # devices
    " requests instance_uuid count spec alias_name is_new request_id numa_policy requester_id"
    " vendor_id product_id physical_network dev_type capabilities address compute_node_id"
    " dev_id label extra_info numa_node parent_addr uuid managed remote_managed trusted"
    " live_migratable resource_class traits parent_ifname mac_address pf_mac_address vf_num"
    # migrations and resources
    " migration_id new_numa_topology old_numa_topology new_pci_devices old_pci_devices"
    " new_pci_requests old_pci_requests new_resources old_resources new_vpmems old_vpmems"
    " resources identifier provider_uuid metadata path align"
    # where to
    " host node cell aggregates allow_cross_cell_move require_tenant_aggregate"
    " required_traits forbidden_traits forbidden_aggregates provider_uuids use_same_provider"
    " in_tree vcpu disk_gb limits user_id project_id policies rules members hosts"
    " max_server_per_host resource_type aggregate_uuids description"
)
"""Keys of nova's versioned objects, whichever of them they are of. The URLs of a cell, which a
requested destination may hold, are not here."""

_OF_OBJECT = words("nova_object.namespace nova_object.changes")
"""Fields that are kept, too, except in a request spec, where they are a third of the text."""

_OBJECT_NAMES = words(
    "extra_specs capabilities resources rules limits extra_info cpu_pinning cpu_pinning_raw"
)
"""Properties whose keys people choose; their values are kept if they are plain."""


def nova_object(text: str) -> str:
    """A column that holds versioned objects in JSON: what of them is known."""
    return str(kept_json(text, partial(_object_kept, known=_OBJECT_KEYS | _OF_OBJECT)))


def _object_kept(value: Any, known: frozenset[str] = _OBJECT_KEYS) -> Any:
    if isinstance(value, Mapping):
        return {key: _object_value(key, item, known) for key, item in value.items() if key in known}
    if isinstance(value, list):
        return [_object_kept(item, known) for item in value]
    return bounded(value)


def _object_value(key: str, value: Any, known: frozenset[str] = _OBJECT_KEYS) -> Any:
    if key == "description":
        return hidden(value)
    if key in _OBJECT_NAMES and isinstance(value, Mapping) and _DATA not in value:
        return Names().kept(value)
    if key == "spec" and isinstance(value, list):  # of a PCI request: properties of devices
        return [Names().kept(item) for item in value]
    return _object_kept(value, known)


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


_NETWORK_LISTS = words(
    "ports networks subnets routers floatingips security_groups agents bindings extensions"
)

_NETWORK_FIELDS = _NETWORK_LISTS | words(
    # of all of them
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
    # of the profile and of the details of a binding
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

# Their keys are names of somebody's choice, their values plain.
_NETWORK_MAPS = words("bridge_mappings interface_mappings bound_drivers device_mappings")


_OF_NEUTRON = "Default security group"
"""The one description that neutron writes itself."""

_EXTENSION = Shape(words("name alias description updated"), {"links": _LINKS})


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping)


def network_body(body: Any) -> Any:
    """Keep of neutron's body the values of known keys; of others the key stays, for its clients."""
    if isinstance(body, Mapping):
        return {bounded(key): _network_value(key, value) for key, value in body.items()}
    if isinstance(body, list):
        return [network_body(item) for item in body]
    return bounded(body)


def _network_value(key: str, value: Any) -> Any:
    if key in _NETWORK_MAPS and isinstance(value, Mapping):
        return Names().kept(value)
    if key == "extensions" and isinstance(value, list) and all(map(_is_object, value)):
        return _EXTENSION.kept(value)  # what neutron's own programmers wrote
    if key in ("tags", "description"):
        return value if value == _OF_NEUTRON else hidden(value)
    if key in _NETWORK_FIELDS or key.removesuffix("_links") in _NETWORK_LISTS:
        return network_body(value)
    return None if value is None else WITHHELD


_VIF_META = Shape(
    words(
        "injected tenant_id mtu physical_network tunneled multi_host bridge vlan rxtx_cap"
        " should_create_bridge should_create_vlan bridge_interface"
    )
)
_VIF_ADDRESS = Shape(words("address type version"), {"meta": Shape()})
_VIF_SUBNET = Shape(
    words("cidr version"),
    {
        "dns": _VIF_ADDRESS,
        "gateway": _VIF_ADDRESS,
        "ips": Shape(
            words("address type version"), {"meta": Shape(), "floating_ips": _VIF_ADDRESS}
        ),
        "routes": Shape(words("cidr interface"), {"gateway": _VIF_ADDRESS, "meta": Shape()}),
        "meta": Shape(words("dhcp_server")),
    },
)
_VIF = Shape(
    words(
        "id address type devname ovs_interfaceid active vnic_type preserve_on_delete"
        " delegate_create"
    ),
    {
        "network": Shape(
            words("id bridge label"),
            {
                "subnets": _VIF_SUBNET,
                "meta": _VIF_META,
            },
        ),
        "meta": _VIF_META,
        "qbh_params": Shape(),
        "qbg_params": Shape(words("profileid")),
    },
)


def network_info(text: str) -> str:
    """The column instance_info_caches.network_info: what nova knew of the ports of an instance."""
    return str(kept_json(text, _vifs)) if text else WITHHELD


def _vifs(vifs: Any) -> Any:
    if not isinstance(vifs, list) or not all(isinstance(vif, dict) for vif in vifs):
        raise ValueError
    return [_vif(vif) for vif in vifs]


def _vif(vif: Mapping[str, Any]) -> dict[str, Any]:
    """One port. What a driver noted of its binding is kept as neutron's own may be."""
    kept = _VIF.kept(vif)
    of_driver = {key: network_body(vif[key]) for key in ("details", "profile") if key in vif}
    return {key: {**kept, **of_driver}[key] for key in vif if key in kept or key in of_driver}


_EXTERNAL_IDS = words(
    "iface-id iface-status attached-mac vm-uuid vm-id ovn-installed skip_cleanup"
    " net_uuid network_type physical_network segmentation_id tag bridge-id"
)


def ovs_rows(table: Any) -> Any:
    """What `ovs-vsctl --format=json list` printed, without the keys of others' making in it."""
    if not isinstance(table, dict) or not isinstance(table.get("data"), list):
        return WITHHELD
    rows = [[_ovs_cell(cell) for cell in row] for row in table["data"] if isinstance(row, list)]
    return {**table, "data": rows}


def _ovs_cell(cell: Any) -> Any:
    """Of a map (`["map", [[key, value], …]]`) the values of known keys stay."""
    if not isinstance(cell, list) or cell[:1] != ["map"] or not isinstance(cell[-1], list):
        return cell
    pairs = [pair for pair in cell[-1] if isinstance(pair, list) and len(pair) == 2]
    return ["map", [[key, value if key in _EXTERNAL_IDS else WITHHELD] for key, value in pairs]]
