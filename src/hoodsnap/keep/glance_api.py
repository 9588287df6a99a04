"""Allow-list for glance's images.

Users put passwords into any field that takes free text, image properties included. Properties
that nova acts on are kept; of all others only the name is kept.
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
"""Image properties that nova acts on, as a regular expression for both Python and MySQL."""


_IMAGE_FIELDS = words(
    "id name status visibility size virtual_size checksum os_hash_algo os_hash_value"
    " os_hidden owner min_disk min_ram disk_format container_format created_at updated_at"
    " protected self file schema stores instance_owner"
)
_IMAGE_PROPERTY = re.compile(f"({IMAGE_PROPERTIES})")


def is_image_property(name: str) -> bool:
    """Return True if nova acts on this image property."""
    return _IMAGE_PROPERTY.fullmatch(name) is not None


def image_body(body: Any) -> Any:
    """Keep the allowed fields of an image; of properties that nova does not know, only the name."""
    if not isinstance(body, Mapping):
        return WITHHELD
    return {bounded(key): image_value(key, value) for key, value in body.items()}


def image_value(key: str, value: Any) -> Any:
    """Keep the value of an image's field, or of a property that nova acts on."""
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
    """Keep the location of an image, if it is safe: URLs of object stores contain credentials."""
    if isinstance(url, str) and re.match(r"(rbd|file|cinder)://", url) and "@" not in url:
        return url
    return WITHHELD
