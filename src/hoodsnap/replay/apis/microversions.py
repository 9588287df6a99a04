"""Microversions: when an answer recorded in one microversion is valid for another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hoodsnap.replay.apis.services import ReplayedApi

CHANGES: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("nova", "servers"): (
        *("2.3", "2.9", "2.16", "2.19", "2.26", "2.47", "2.63", "2.69", "2.71", "2.73", "2.75"),
        *("2.96", "2.98", "2.100"),
    ),
    ("nova", "flavors"): ("2.55", "2.61", "2.75"),
    ("nova", "os-hypervisors"): ("2.28", "2.53", "2.88"),
    ("nova", "os-services"): ("2.11", "2.53", "2.69"),
    ("nova", "os-migrations"): ("2.23", "2.59", "2.80"),
    ("nova", "os-server-groups"): ("2.13", "2.64"),
    ("nova", "os-instance-actions"): ("2.21", "2.51", "2.58", "2.62", "2.84"),
    ("nova", "os-aggregates"): ("2.41",),
}
"""Microversions that changed the fields of each kind (nova's REST API version history). Two
microversions with none of these between them give the same answer."""

SINCE: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("cinder", "volumes"): {
        "group_id": "3.13",
        "provider_id": "3.21",
        "service_uuid": "3.48",
        "shared_targets": "3.48",
        "cluster_name": "3.61",
        "volume_type_id": "3.63",
        "encryption_key_id": "3.64",
        "consumes_quota": "3.65",
    },
    ("cinder", "snapshots"): {
        "group_snapshot_id": "3.14",
        "user_id": "3.41",
        "consumes_quota": "3.65",
    },
}
"""Microversions that only added a field (cinder's REST API version history). An answer in an older
microversion is the newer answer without that field."""


DEFAULTS = {"nova": "2.1", "cinder": "3.0", "placement": "1.0"}
"""Microversions that an API uses for clients that request none."""


def wanted_by(service: ReplayedApi, headers: Mapping[str, str]) -> str:
    """Return the requested microversion; if none is requested, the API's default."""
    named = {key.lower(): value for key, value in headers.items()}
    name, _, number = (named.get("openstack-api-version") or "").partition(" ")
    if name == service.header and number:
        return number.strip()
    if service.layer == "nova":
        return headers.get("X-OpenStack-Nova-API-Version") or "2.1"
    return DEFAULTS.get(service.layer, "")


def same(service: ReplayedApi, path: str, recorded: str, wanted: str) -> bool:
    """True if an answer in one microversion is valid for the other."""
    if recorded == wanted or wanted == "latest" or not recorded:
        return True
    changes = CHANGES.get((service.layer, _kind(path)))
    if changes is None:
        return service.layer != "nova"
    low, high = sorted((_number(recorded), _number(wanted)))
    return not any(low < _number(change) <= high for change in changes)


def as_of(
    service: ReplayedApi, path: str, item: Mapping[str, Any], wanted: str
) -> Mapping[str, Any]:
    """Return an item as an older microversion shows it: without the fields added later."""
    added = SINCE.get((service.layer, _kind(path)), {})
    later = {name for name, number in added.items() if not since(wanted, number)}
    return {name: value for name, value in item.items() if name not in later}


def newest(versions: Iterable[str]) -> str:
    """Return the highest of several microversions."""
    return max(versions, key=_number)


def since(version: str, first: str) -> bool:
    """True if a microversion is `first` or later."""
    return _number(version) >= _number(first)


def _number(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)


def _kind(path: str) -> str:
    return path.removesuffix("/detail").rpartition("/")[2]
