"""Which finding explains which others: print the root, fold the rest.

Checks go by name here, since this is knowledge about all of them. A finding is folded under the
first root of this table that was found of the same guest, of its host or of the cloud. What
explains a root comes before it.
"""

from __future__ import annotations

from collections.abc import Mapping

ROOTS: Mapping[str, tuple[str, ...]] = {
    # Hosts of the one cloud are strangers to the other.
    "bundles-of-two-clouds": (
        "capture-untrustworthy",
        "host-identity-changed",
        "domain-running-on-wrong-host",
        "domain-without-server",
        "instance-in-two-cells",
        "provider-vs-compute-node",
        "service-state-skew",
        "allocation-orphan",
    ),
    # Absences in a bundle that contradicts itself prove nothing.
    "capture-untrustworthy": (
        "qemu-without-domain",
        "domain-without-qemu",
        "domain-without-server",
        "server-without-domain",
        "server-without-disk",
        "active-but-domain-off",
        "tap-missing-or-miswired",
        "port-guest-mismatch",
        "bdm-attachment-or-volume-missing",
        "bdm-not-in-guest",
        "allocation-missing",
        "allocation-orphan",
        "orphan-instance-dir",
    ),
    # One host renamed, and all of these fire for all of its guests.
    "host-identity-changed": (
        "domain-running-on-wrong-host",
        "domain-without-server",
        "server-without-domain",
        "attachment-host-mismatch",
        "port-bound-elsewhere",
        "allocation-wrong-provider",
        "provider-vs-compute-node",
        "service-state-skew",
    ),
    # An empty folder instead of the file system that has the disks.
    "instances-path-not-mounted": (
        "disk-deleted-but-open",
        "backing-file-missing",
        "server-without-disk",
        "orphan-instance-dir",
        "file-owner-or-label-wrong",
        "base-cache-orphans",
    ),
    # A guest that was evacuated, and lives on where it was.
    "evacuated-guest-still-running": (
        "disk-shared-by-two-qemu",
        "domain-running-on-wrong-host",
        "service-state-skew",
        "allocation-wrong-provider",
        "allocation-orphan",
    ),
    "evacuation-record-armed": (
        "disk-shared-by-two-qemu",
        "domain-running-on-wrong-host",
        "service-state-skew",
        "allocation-wrong-provider",
        "allocation-orphan",
    ),
    # Both ends of a migration that nobody finished.
    "live-migration-half-done": (
        "disk-shared-by-two-qemu",
        "duplicate-qemu-identity",
        "domain-running-on-wrong-host",
        "volume-attached-twice",
        "volume-free-in-cinder-but-open",
        "attachment-host-mismatch",
        "port-bound-elsewhere",
        "duplicate-mac-or-port",
        "allocation-wrong-provider",
        "migration-record-stale",
        "stuck-task-state",
    ),
    # The device is another volume, so everything that is read of it is another's.
    "volume-device-wrong-lun": (
        "volume-attached-twice",
        "volume-free-in-cinder-but-open",
        "volume-size-mismatch",
        "host-device-leftover",
        "encryption-secret-missing",
    ),
    # Nobody on the host does what neutron wants there.
    "network-agent-dead": ("port-binding-bad",),
    # A block device mapping of a volume that is not there.
    "bdm-attachment-or-volume-missing": (
        "bdm-not-in-guest",
        "guest-volume-not-in-bdm",
        "root-bdm-broken",
        "error-but-running",
    ),
}
"""For each root the checks whose findings it explains."""

OF_ITS_LAYERS = frozenset(["capture-untrustworthy"])
"""The roots that explain only what was said by a layer that their own evidence is of."""

CROWDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "io-error-paused": (
        "the storage under them failed or is full",
        (
            "paused-or-crashed-guest",
            "qemu-monitor-dead",
            "active-but-domain-off",
            "qcow2-corrupt-bit",
            "rbd-lock-or-orphan",
            "file-owner-or-label-wrong",
        ),
    ),
    "qemu-monitor-dead": (
        "the storage under them does not answer",
        ("io-error-paused", "paused-or-crashed-guest", "active-but-domain-off"),
    ),
    "server-without-domain": (
        "libvirt lost its state: its container was made anew, or /etc/libvirt is not kept",
        ("qemu-without-domain", "domain-transient", "guest-autostart-enabled"),
    ),
    "qemu-without-domain": (
        "libvirt lost its state: its container was made anew, or /run/libvirt was cleaned",
        ("server-without-domain", "domain-transient", "guest-autostart-enabled"),
    ),
    "domain-without-server": (
        "nova's database is older than its guests: it was restored from a backup, or a cell of it "
        "was not read",
        (
            "instance-name-collision",
            "instance-in-two-cells",
            "instance-mapping-skew",
            "allocation-orphan",
        ),
    ),
}
"""Findings that mean something else when nearly all guests of a host share them: what is behind
them then, and what else of this host that explains."""
