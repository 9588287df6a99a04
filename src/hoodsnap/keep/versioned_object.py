"""Allow-list for the columns in which nova stores versioned objects as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from hoodsnap.keep.glance_api import is_image_property
from hoodsnap.keep.secret import WITHHELD
from hoodsnap.keep.shape import Names, bounded, hidden, is_plain, json_object, kept_json, words

_SPEC = words(
    "image numa_topology pci_requests project_id user_id availability_zone flavor"
    " num_instances ignore_hosts force_hosts force_nodes requested_destination limits"
    " instance_group scheduler_hints instance_uuid is_bfv requested_resources"
)
_HINTS = words("group same_host different_host target_cell different_cell cidr build_near_host_ip")


_DATA = "nova_object.data"


def request_spec(text: str) -> str:
    """Keep the fields of the column request_specs.spec that decide about the next move."""
    spec = json_object(text)
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
    """Keep the allowed fields of an image in a request spec, and the properties nova acts on."""
    data = image.get(_DATA)
    if not isinstance(data, dict):
        return WITHHELD
    properties = data.get("properties")
    named = properties.get(_DATA) if isinstance(properties, dict) else None
    kept = {
        key: value
        for key, value in (named.items() if isinstance(named, dict) else ())
        if is_image_property(key) or key == "traits_required"
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
    # destinations and groups
    " host node cell aggregates allow_cross_cell_move require_tenant_aggregate"
    " required_traits forbidden_traits forbidden_aggregates provider_uuids use_same_provider"
    " in_tree vcpu disk_gb limits user_id project_id policies rules members hosts"
    " max_server_per_host resource_type aggregate_uuids description"
)
"""Keys of all of nova's versioned objects. The URLs of a cell, which a requested destination may
hold, are not included."""

_OF_OBJECT = words("nova_object.namespace nova_object.changes")
"""Fields that are also kept, except in a request spec, where they take a third of the text."""

_OBJECT_NAMES = words(
    "extra_specs capabilities resources rules limits extra_info cpu_pinning cpu_pinning_raw"
)
"""Properties whose keys users choose; their values are kept if they are plain."""


def nova_object(text: str) -> str:
    """Keep the known keys of a column that holds versioned objects as JSON."""
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
    if key == "spec" and isinstance(value, list):  # properties of devices in a PCI request
        return [Names().kept(item) for item in value]
    return _object_kept(value, known)
