"""Allow-list for nova's API, by the kind of object.

It works for any microversion: keys that a later microversion adds are unknown and are dropped.
Names are kept, because people refer to objects by name. Texts about an object (description, reason
for a lock, metadata values, tags) are withheld: no reader of a bundle needs them, and they may hold
passwords.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hoodsnap.keep.secret import WITHHELD
from hoodsnap.keep.shape import NOBODY, Names, Shape, words

_LINKS = Shape(words("rel href type"))
_METADATA = Names(known=NOBODY)
_ID = Shape(words("id"), {"links": _LINKS})
_SPECS = Names()

_FLAVOR = Shape(
    words(
        "id name ram disk swap vcpus rxtx_factor ephemeral original_name"
        " OS-FLV-EXT-DATA:ephemeral OS-FLV-DISABLED:disabled os-flavor-access:is_public"
    ),
    {"links": _LINKS, "extra_specs": _SPECS},
    hidden=words("description"),
)

_FAULT = Shape(words("code created"), sayings=words("message"), hidden=words("details"))

_SERVER = Shape(
    words(
        "id name status tenant_id user_id hostId created updated accessIPv4 accessIPv6 progress"
        " config_drive key_name locked host_status trusted_image_certificates server_groups"
        " pinned_availability_zone OS-DCF:diskConfig OS-EXT-AZ:availability_zone"
        " OS-SRV-USG:launched_at OS-SRV-USG:terminated_at OS-EXT-SRV-ATTR:host"
        " OS-EXT-SRV-ATTR:instance_name OS-EXT-SRV-ATTR:hypervisor_hostname"
        " OS-EXT-SRV-ATTR:reservation_id OS-EXT-SRV-ATTR:launch_index OS-EXT-SRV-ATTR:hostname"
        " OS-EXT-SRV-ATTR:kernel_id OS-EXT-SRV-ATTR:ramdisk_id OS-EXT-SRV-ATTR:root_device_name"
        " OS-EXT-STS:task_state OS-EXT-STS:vm_state OS-EXT-STS:power_state"
    ),
    {
        "links": _LINKS,
        "metadata": _METADATA,
        "image": _ID,
        "flavor": _FLAVOR,
        "addresses": Names(Shape(words("version addr OS-EXT-IPS:type OS-EXT-IPS-MAC:mac_addr"))),
        "security_groups": Shape(words("name id")),
        "os-extended-volumes:volumes_attached": Shape(words("id delete_on_termination")),
        "fault": _FAULT,
    },
    hidden=words(
        "description locked_reason tags adminPass admin_pass user_data personality"
        " OS-EXT-SRV-ATTR:user_data"
    ),
)

_CPU = Shape(
    words("arch model vendor features"),
    {"topology": Shape(words("cells sockets cores threads"))},
)

_HYPERVISOR = Shape(
    words(
        "id hypervisor_hostname state status hypervisor_type hypervisor_version host_ip vcpus"
        " memory_mb local_gb vcpus_used memory_mb_used local_gb_used free_ram_mb free_disk_gb"
        " current_workload running_vms disk_available_least uptime"
    ),
    {
        "service": Shape(words("id host disabled_reason")),
        "servers": Shape(words("name uuid")),
    },
    documents={"cpu_info": _CPU},
)

_SERVICE = Shape(words("id binary host zone status state updated_at disabled_reason forced_down"))

_MIGRATION = Shape(
    words(
        "id uuid server_uuid instance_uuid migration_type status source_compute source_node"
        " dest_compute dest_node dest_host old_instance_type_id new_instance_type_id user_id"
        " project_id created_at updated_at memory_total_bytes memory_processed_bytes"
        " memory_remaining_bytes disk_total_bytes disk_processed_bytes disk_remaining_bytes"
    ),
    {"links": _LINKS},
)

_GROUP = Shape(
    words("id name policies policy members project_id user_id"),
    {"rules": Shape(words("max_server_per_host")), "metadata": _METADATA},
)

_AGGREGATE = Shape(
    words("id uuid name availability_zone hosts created_at updated_at deleted_at deleted"),
    {"metadata": Names(known=re.compile("availability_zone"))},
)

_ACTION = Shape(
    words(
        "action instance_uuid request_id user_id project_id start_time finish_time message"
        " updated_at"
    ),
    {
        "events": Shape(
            words("event start_time finish_time result host hostId"),
            hidden=words("traceback details"),
        )
    },
)

_VERSION = Shape(
    words("id status version min_version updated"),
    {"links": _LINKS, "media-types": Shape(words("base type"))},
)

_KEYPAIR = Shape(
    words("id name type fingerprint user_id created_at updated_at deleted_at deleted"),
    hidden=words("public_key private_key"),
)

_ATTACHMENT = Shape(
    words("id volumeId serverId device delete_on_termination attachment_id bdm_uuid"),
    hidden=words("tag"),
)

_INTERFACE = Shape(
    words("port_id net_id mac_addr port_state"),
    {"fixed_ips": Shape(words("subnet_id ip_address"))},
    hidden=words("tag"),
)

KINDS: Mapping[str, Shape] = {
    "server": _SERVER,
    "servers": _SERVER,
    "flavor": _FLAVOR,
    "flavors": _FLAVOR,
    "hypervisor": _HYPERVISOR,
    "hypervisors": _HYPERVISOR,
    "service": _SERVICE,
    "services": _SERVICE,
    "migration": _MIGRATION,
    "migrations": _MIGRATION,
    "server_group": _GROUP,
    "server_groups": _GROUP,
    "aggregate": _AGGREGATE,
    "aggregates": _AGGREGATE,
    "instanceAction": _ACTION,
    "instanceActions": _ACTION,
    "version": _VERSION,
    "versions": _VERSION,
    "keypair": _KEYPAIR,
    "keypairs": Shape(inner={"keypair": _KEYPAIR}),
    "volumeAttachment": _ATTACHMENT,
    "volumeAttachments": _ATTACHMENT,
    "interfaceAttachment": _INTERFACE,
    "interfaceAttachments": _INTERFACE,
}
"""Kept fields of each list or single object that nova returns."""


def api_body(body: Any) -> Any:
    """Keep the allowed keys of a body of nova's API."""
    if not isinstance(body, Mapping):
        return WITHHELD
    kept: dict[str, Any] = {}
    for key, value in body.items():
        if key in KINDS:
            kept[key] = KINDS[key].kept(value)
        elif isinstance(key, str) and key.endswith("_links") and key[:-6] in KINDS:
            kept[key] = _LINKS.kept(value)
    return kept
