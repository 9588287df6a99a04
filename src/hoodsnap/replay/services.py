"""The APIs of an OpenStack, and where their stand-ins are reached."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReplayedApi:
    """One API: where its stand-in is reached, and how it spells things."""

    layer: str
    types: tuple[str, ...]
    prefix: str
    """Of its paths here; the recorded path follows."""
    endpoint: str
    """What the catalogue says."""
    header: str | None = None
    """Its name in `OpenStack-API-Version`; None if it has no microversions."""


SERVICES = (
    ReplayedApi("nova", ("compute",), "/compute", "/compute/v2.1", "compute"),
    ReplayedApi("glance", ("image",), "/image", "/image"),
    ReplayedApi("neutron", ("network",), "/network", "/network"),
    ReplayedApi("cinder", ("block-storage", "volumev3"), "/volume", "/volume/v3", "volume"),
    ReplayedApi("placement", ("placement",), "/placement", "/placement", "placement"),
)
