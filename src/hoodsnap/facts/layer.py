"""The layers that a guest is joined from."""

from __future__ import annotations

LAYERS = {
    "nova": "nova API",
    "nova-db": "nova database",
    "placement": "placement",
    "libvirt": "libvirt",
    "kernel": "kernel",
    "qemu": "QEMU",
    "images": "disk images",
    "block": "block devices",
    "cinder": "cinder",
    "neutron": "neutron API",
    "network": "host network",
    "logs": "logs",
}
"""The layers that a guest is joined from, outermost first, and their names for people."""
