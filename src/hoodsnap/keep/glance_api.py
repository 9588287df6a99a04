"""Allow-list for glance's images.

Users put passwords wherever a field takes free text, properties of images among them. Those that
nova acts on are kept; of any other property the name stays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hoodsnap.keep.secret import WITHHELD
from hoodsnap.keep.shape import bounded, hidden, is_plain, words

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


_IMAGE_FIELDS = words(
    "id name status visibility size virtual_size checksum os_hash_algo os_hash_value"
    " os_hidden owner min_disk min_ram disk_format container_format created_at updated_at"
    " protected self file schema stores"
)
_IMAGE_PROPERTY = re.compile(f"({IMAGE_PROPERTIES})")


def is_image_property(name: str) -> bool:
    """Return whether nova acts on a property of an image."""
    return _IMAGE_PROPERTY.fullmatch(name) is not None


def image_body(body: Any) -> Any:
    """What glance said about an image. Of properties unknown to nova only the name stays."""
    if not isinstance(body, Mapping):
        return WITHHELD
    return {bounded(key): image_value(key, value) for key, value in body.items()}


def image_value(key: str, value: Any) -> Any:
    """Keep the value of an image's field or property, if nova acts on it."""
    if key in _IMAGE_FIELDS or _IMAGE_PROPERTY.fullmatch(key):
        return bounded(value) if is_plain(value) else WITHHELD
    if key == "tags":
        return hidden(value)
    if key == "direct_url":
        return _location(value)
    if key == "locations" and isinstance(value, list):
        return [{"url": _location(item.get("url"))} for item in value if isinstance(item, Mapping)]
    return WITHHELD


def _location(url: Any) -> str:
    """Where an image lies. Object stores carry their credentials in the URL."""
    if isinstance(url, str) and re.match(r"(rbd|file|cinder)://", url) and "@" not in url:
        return url
    return WITHHELD
