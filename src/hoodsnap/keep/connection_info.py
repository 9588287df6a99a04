"""Allow-list for connection_info: the connection to a volume, which cinder gives nova to store.

Its fields include users and passwords of the storage.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from hoodsnap.keep.secret import WITHHELD, without_secrets
from hoodsnap.keep.shape import bounded, is_plain, json_object, words

_CONNECTION = words(
    "driver_volume_type serial volume_id instance status attached_at detached_at multiattach"
)
_CONNECTION_DATA = words(
    "target_iqn target_iqns target_lun target_luns target_portal target_portals"
    " target_wwn target_nqn nqn volume_nguid ns_id device_path multipath_id export name"
    " format volume_id encrypted access_mode hosts ports discard cluster_name"
)
_QOS = re.compile(r"consumer|((read|write|total)_(iops|bytes)|size_iops)_sec(_\w+)?")


def connection_info(text: str) -> str:
    """Keep the allowed keys of the column block_device_mapping.connection_info."""
    info = json_object(text)
    if info is None:
        return WITHHELD
    kept = {key: value for key, value in info.items() if key in _CONNECTION and is_plain(value)}
    if isinstance(data := info.get("data"), dict):
        kept["data"] = connection_data(data)
    return json.dumps(kept)


def connection_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the fields of a driver that locate a volume, and its QoS limits."""
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
    """Return a volume's location, without the user and options that some drivers add to it."""
    if not isinstance(value, str):
        return bounded(value)
    place, options, _ = bounded(value).partition("?")
    user, at, rest = place.rpartition("@")
    if at and ":" in user.rpartition("//")[2]:
        place = f"{user[: len(user) - len(user.rpartition('//')[2])]}{WITHHELD}@{rest}"
    return str(without_secrets(place)) + (options and f"?{WITHHELD}")
