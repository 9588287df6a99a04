"""Allow-list for cinder's API: volumes, attachments, snapshots and services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hoodsnap.keep.connection_info import connection_data
from hoodsnap.keep.glance_api import image_value
from hoodsnap.keep.secret import WITHHELD
from hoodsnap.keep.shape import is_plain, words

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
"""Kept keys of each list or single object that cinder returns."""


def volume_body(body: Any) -> Any:
    """Keep the allowed keys of a body of cinder's API."""
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
    # A volume lists its attachments, and an attachment holds the connection to its volume.
    if isinstance(attachments := thing.get("attachments"), list) and "attachments" in wanted:
        kept["attachments"] = _cinder_things(attachments, _ATTACHMENT)
    if "attachments" in wanted:
        kept |= _free_text(thing)
    if wanted is _ATTACHMENT and isinstance(info := thing.get("connection_info"), Mapping):
        kept["connection_info"] = connection_data(info) | {
            key: info[key] for key in ("driver_volume_type",) if key in info and is_plain(info[key])
        }
    return kept


_OF_VOLUMES_IMAGE = words("image_id image_name signature_verified")


def _free_text(volume: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields with users' texts, withheld. Clients fail if the fields are missing."""
    kept: dict[str, Any] = {}
    if "description" in volume:
        kept["description"] = volume["description"] and WITHHELD
    if isinstance(metadata := volume.get("metadata"), Mapping):
        kept["metadata"] = dict.fromkeys(metadata, WITHHELD)
    if isinstance(metadata := volume.get("volume_image_metadata"), Mapping):
        kept["volume_image_metadata"] = {
            key: value if key in _OF_VOLUMES_IMAGE else image_value(key, value)
            for key, value in metadata.items()
        }
    return kept
