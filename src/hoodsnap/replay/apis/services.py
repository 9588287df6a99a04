"""OpenStack's APIs, and the paths of their stand-ins."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReplayedApi:
    """One API: the paths of its stand-in, and its names in the protocol."""

    layer: str
    types: tuple[str, ...]
    prefix: str
    """Prefix of the paths here, before the recorded path."""
    endpoint: str
    """Path of the endpoint in keystone's catalog."""
    header: str | None = None
    """The API's name in `OpenStack-API-Version`; None if it has no microversions."""


SERVICES = (
    ReplayedApi("nova", ("compute",), "/compute", "/compute/v2.1", "compute"),
    ReplayedApi("glance", ("image",), "/image", "/image"),
    ReplayedApi("neutron", ("network",), "/network", "/network"),
    ReplayedApi("cinder", ("block-storage", "volumev3"), "/volume", "/volume/v3", "volume"),
    ReplayedApi("placement", ("placement",), "/placement", "/placement", "placement"),
)
