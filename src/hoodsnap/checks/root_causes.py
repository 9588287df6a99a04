"""Root findings and the findings that they explain: the root is shown, the others are folded.

This table refers to checks by name because it needs to know all of them. A finding is folded under
the first root in this table that was found for the same guest, its host or the cloud. A root that
explains another root comes before it.
"""

from __future__ import annotations

from collections.abc import Mapping

ROOTS: Mapping[str, tuple[str, ...]] = {
    # Neither cloud knows the other's hosts.
    "bundles-of-two-clouds": (
        "capture-untrustworthy",
        "host-identity-changed",
        "domain-running-on-wrong-host",
        "domain-without-server",
        "instance-in-two-cells",
        "provider-vs-compute-node",
        "service-state-skew",
        "allocation-orphan",
        "api-list-differs",
    ),
    # The values of another object were taken for this object's.
    "answer-about-another-object": ("image-record-differs",),
    # Absence in a bundle that contradicts itself proves nothing.
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
        "deleted-server-is-back",
    ),
    # After a rename, all of these fire for every guest of the host.
    "host-identity-changed": (
        "domain-running-on-wrong-host",
        "domain-without-server",
        "server-without-domain",
        "attachment-host-mismatch",
        "port-bound-elsewhere",
        "allocation-wrong-provider",
        "provider-vs-compute-node",
        "service-state-skew",
        "base-image-reapable",
    ),
    # The mount point is empty because the file system with the disks is not mounted.
    "instances-path-not-mounted": (
        "mount-differs-in-qemu",
        "disk-deleted-but-open",
        "backing-file-missing",
        "server-without-disk",
        "orphan-instance-dir",
        "file-owner-or-label-wrong",
        "base-cache-orphans",
        "console-log-problem",
        "capacity-lie",
    ),
    # Every volume of the share is the same finding.
    "share-not-mounted": ("mount-differs-in-qemu", "volume-share-differs", "volume-disk-differs"),
    # A file system that the kernel made read-only fails each write, and nova can't write there.
    "mount-read-only": ("io-error-paused", "paused-or-crashed-guest", "nova-folder-not-writable"),
    # Whatever is on a full file system fails at its next write.
    "file-system-full": (
        "io-error-paused",
        "paused-or-crashed-guest",
        "host-fs-overcommit",
    ),
    # The file server has lost the file that QEMU has open.
    "file-handle-stale": (
        "backing-file-missing",
        "server-without-disk",
        "io-error-paused",
        "paused-or-crashed-guest",
    ),
    # Nobody may write to the disk, and a start that fails leaves no domain behind.
    "guest-file-immutable": (
        "server-in-error",
        "server-without-domain",
        "active-but-domain-off",
        "io-error-paused",
        "paused-or-crashed-guest",
    ),
    # The guest is off because its memory can't be restored.
    "saved-memory-damaged": ("server-in-error", "active-but-domain-off"),
    # The files of volumes are on a share that is not mounted there.
    "volume-share-differs": ("disk-deleted-but-open", "volume-disk-differs"),
    # The file is gone for the next start, too.
    "disk-deleted-but-open": ("backing-file-missing", "server-without-disk", "disk-empty"),
    # The guest was evacuated but still runs on its old host.
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
    # Both hosts of an unfinished migration.
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
        "server-without-domain",
        "server-without-disk",
        "allocation-orphan",
        "allocation-missing",
    ),
    # The server's state was set by hand; whatever still shows the one before it is right.
    "state-reset-by-hand": (
        "active-without-host",
        "launch-host-unknown",
        "managed-save-mismatch",
        "active-but-domain-off",
        "power-state-stale",
        "server-without-domain",
        "server-without-disk",
        "allocation-missing",
        "info-cache-lost",
        "migration-record-stale",
        "flavor-three-way-drift",
        "orphan-instance-dir",
    ),
    # One event of the host; its guests are the consequence.
    "guests-ended-at-once": (
        "active-but-domain-off",
        "rescued-or-resized-but-off",
        "power-state-stale",
        "server-in-error",
    ),
    # Whatever the record still names was deleted with the server.
    "deleted-server-is-back": (
        "server-without-domain",
        "server-without-disk",
        "instance-mapping-skew",
        "info-cache-lost",
        "info-cache-outdated",
        "allocation-missing",
        "bdm-attachment-or-volume-missing",
        "root-bdm-broken",
        "port-guest-mismatch",
        "request-spec-skew",
        "active-but-domain-off",
        "server-in-error",
        "server-group-broken",
        "launch-host-unknown",
        "owner-copies-differ",
    ),
    # Two servers claim one domain, or a deletion stopped half way: what is missing belongs to the
    # other server, or is gone already.
    "instance-name-collision": (
        "server-without-domain",
        "server-without-disk",
        "info-cache-lost",
        "allocation-missing",
        "bdm-attachment-or-volume-missing",
        "port-guest-mismatch",
        "row-of-another-instance",
    ),
    "partial-deletion": (
        "server-without-domain",
        "server-without-disk",
        "info-cache-lost",
        "allocation-missing",
        "bdm-attachment-or-volume-missing",
        "bdm-not-in-guest",
        "active-but-domain-off",
        "server-in-error",
        "stuck-task-state",
    ),
    # The kernel has stopped the process until the dump is written.
    "qemu-crashed": ("qemu-monitor-dead", "power-state-stale"),
    # QEMU waits in the kernel, so no command for its guest can end.
    "qemu-does-not-end": (
        "qemu-monitor-dead",
        "stuck-task-state",
        "error-but-running",
        "server-in-error",
        "power-state-stale",
    ),
    # nova has given the server up; what is missing is in the finding.
    "server-in-error": ("server-without-domain", "server-without-disk"),
    # Two guests have one disk, and its owner is in the disk's name.
    # Who follows the advice pauses the guest that writes, which must not be resumed.
    "guest-writes-into-base": ("paused-or-crashed-guest",),
    "disk-shared-by-two-qemu": (
        "paused-or-crashed-guest",
        "persistent-xml-foreign-devices",
        "uuid-name-chain-broken",
        "disk-of-another-server",
    ),
    # nova does not know the domain, so none of its commands changes it.
    "alien-domain-has-servers-disk": (
        "alien-domain",
        "domain-without-server",
        "persistent-xml-foreign-devices",
        "uuid-name-chain-broken",
        "disk-of-another-server",
        "disk-locked-by-another",
    ),
    # The guest only borrows the disk, so neither its name nor nova's records have to match.
    "disk-of-another-server": (
        "uuid-name-chain-broken",
        "persistent-xml-foreign-devices",
        "chain-live-vs-persistent",
        "guest-volume-not-in-bdm",
        "disk-locked-by-another",
    ),
    # The device is another volume, so all its data is the other volume's.
    "volume-device-wrong-lun": (
        "volume-attached-twice",
        "volume-free-in-cinder-but-open",
        "volume-size-mismatch",
        "host-device-leftover",
        "encryption-secret-missing",
    ),
    # A daemon does not run, so what it reports to nova or neutron is outdated, too.
    "libvirt-not-running": ("service-state-skew",),
    # A start with this configuration ends at once.
    "nova-conf-unusable": ("nova-compute-not-running", "service-state-skew"),
    "nova-log-not-writable": ("nova-compute-not-running", "service-state-skew"),
    "nova-compute-not-running": ("service-state-skew",),
    "nova-compute-frozen": ("service-state-skew",),
    "network-agent-not-running": (
        "network-agent-dead",
        "serving-agent-dead",
        "port-binding-bad",
        "bridge-without-controller",
    ),
    "daemon-frozen": ("network-agent-dead", "serving-agent-dead"),
    # The host has lost the message queue, through which all of these report.
    "services-silent-together": (
        "service-state-skew",
        "network-agent-dead",
        "serving-agent-dead",
        "port-binding-bad",
        "dhcp-entry-missing",
        "floating-ip-not-translated",
    ),
    # No agent on the host does what neutron requests.
    "network-agent-dead": ("port-binding-bad", "port-without-flows", "bridge-without-controller"),
    # The switch deleted the rules of all ports together with its controller.
    "bridge-without-controller": ("port-without-flows", "port-binding-bad"),
    # The agent's bridge is gone with everything in it.
    "agent-bridge-missing": (
        "port-binding-bad",
        "tap-missing-or-miswired",
        "port-without-flows",
        "switch-interface-faulty",
    ),
    # Nothing answers, routes or translates in a namespace that is not there.
    "network-namespace-wrong": ("floating-ip-not-translated", "dhcp-entry-missing"),
    # The router's rules were flushed together.
    "router-rule-missing": ("floating-ip-not-translated",),
    # neutron's status follows from what the router does.
    "floating-ip-not-translated": ("floating-ip-not-served",),
    # Domain and Open vSwitch have the same wrong id.
    "card-names-another-port": ("tap-missing-or-miswired", "port-binding-bad"),
    # The tap's VLAN and the one that it should have are in the finding.
    "switch-vlan-differs": ("tap-missing-or-miswired",),
    # The agent reports a tap that it cannot wire as down.
    "tap-missing-or-miswired": ("port-binding-bad", "port-without-flows"),
    # The agents still have the address that the port had before.
    "mac-chain-mismatch": ("port-without-flows", "dhcp-entry-missing", "info-cache-outdated"),
    # Without the rules of the port, those of its security groups are gone, too.
    "port-without-flows": ("security-group-not-enforced",),
    # The cache, the files and the rules of a port are compared with the addresses that it has left.
    "port-address-lost": ("info-cache-lost", "info-cache-outdated", "xml-metadata-stale"),
    # What nova does not have in its cache cannot be compared in it, and nova writes its note of the
    # domain from it.
    "info-cache-lost": ("info-cache-outdated", "xml-metadata-stale"),
    # The volume was reset in cinder, which removed its attachment, too.
    "volume-free-in-cinder-but-open": ("bdm-attachment-or-volume-missing",),
    # A block device mapping refers to a volume that does not exist.
    "bdm-attachment-or-volume-missing": (
        "bdm-not-in-guest",
        "guest-volume-not-in-bdm",
        "root-bdm-broken",
        "error-but-running",
    ),
    # nova, and all that follows its record, looks for the guest on a host that it is not on.
    "domain-running-on-wrong-host": (
        "active-without-host",
        "server-without-domain",
        "server-without-disk",
        "allocation-wrong-provider",
        "launch-host-unknown",
    ),
    # nova's record of the server's host was changed; placement and the launch keep the old one.
    "allocation-wrong-provider": ("launch-host-unknown",),
    "active-without-host": ("launch-host-unknown",),
    # The inventory is larger than the machine, and so larger than the compute node.
    "capacity-lie": ("compute-node-outdated",),
    # The clocks that are compared are wrong.
    "clocks-apart": ("service-report-in-future",),
    # Another server's request spec has another flavor and image.
    "row-of-another-instance": ("request-spec-skew",),
    # Whatever reads the row's image compares with the wrong one.
    "image-reference-changed": (
        "backing-not-image-ref",
        "request-spec-skew",
        "xml-metadata-stale",
        "server-copies-differ",
        "image-record-differs",
        "image-properties-lost",
        "image-property-not-in-guest",
        "image-not-usable",
        "disk-record-differs",
    ),
    # Every property of the image differs from a copy that is empty.
    "image-properties-lost": ("image-record-differs", "image-property-not-in-guest"),
    # nova's copy of an image's properties was changed; the request spec has the old ones.
    "image-property-not-in-guest": ("request-spec-skew",),
    "image-record-differs": ("request-spec-skew",),
    # The host was moved into another zone, which the request names.
    "request-spec-skew": ("availability-zone-differs",),
    # The disk's header names another base image than the one QEMU uses.
    "chain-qmp-vs-ondisk": ("backing-not-image-ref",),
    "instance-extra-missing": ("flavor-three-way-drift", "row-without-instance"),
    # The server's row was edited, and the guest is right.
    "flavor-three-way-drift": ("memory-chain-mismatch", "vcpu-chain-mismatch"),
    # A guest that was given other vCPUs has another topology, too.
    "vcpu-chain-mismatch": ("machine-or-cpu-drift",),
    # The row was changed, and the API still had the old value.
    "xml-metadata-stale": ("server-copies-differ",),
    "backing-not-image-ref": ("server-copies-differ",),
    # QEMU was started with another format of the disk, which its block node then has.
    "disk-format-mismatch": ("block-node-differs",),
    # Rows that outlived the server's row, or that another server lacks.
    "domain-without-server": ("row-without-instance",),
    # nova has no mapping of a volume that the guest uses, so cinder's attachment is the right one.
    "guest-volume-not-in-bdm": (
        "cinder-attachment-without-bdm",
        "volume-record-differs",
        "volume-stuck",
    ),
    # What cinder holds for a server that does not have it.
    "cinder-attachment-without-bdm": ("volume-stuck", "attachment-stuck"),
    # The volume's operation did not end, so nova, cinder and the guest have different parts of it.
    "volume-stuck": ("attachment-stuck", "bdm-not-in-guest", "bdm-record-bad"),
    # One of two rows of a volume has another device than the guest's disk.
    "bdm-record-bad": ("volume-disk-differs",),
    # nova's record is wrong, not the guest's disk that was made from cinder's.
    "volume-record-differs": ("volume-disk-differs",),
    # A guest without its storage hangs, is paused, or can't be stopped.
    "volume-paths-lost": (
        "power-state-stale",
        "qemu-monitor-dead",
        "io-error-paused",
        "paused-or-crashed-guest",
    ),
    # nova copies the power state of a guest that it is not told about.
    "io-error-paused": ("power-state-stale",),
    "paused-or-crashed-guest": ("power-state-stale",),
    # A guest whose base image is missing can't be started again.
    "backing-file-missing": ("active-but-domain-off",),
    # Nor can one without a disk, which may be in the folder of a resize.
    "server-without-disk": ("active-but-domain-off", "orphan-instance-dir"),
    # The guest is off because its memory was saved, and must not start before that is settled.
    "managed-save-mismatch": ("active-but-domain-off",),
}
"""Root check → the checks whose findings it explains."""

OF_ITS_GUESTS = frozenset(["guests-ended-at-once", "guest-writes-into-base"])
"""The roots of a host that explain only findings about guests in their own evidence."""

OF_ITS_OBJECT: Mapping[str, str] = {
    "disk-of-another-server": "DISK",
    "disk-format-mismatch": "DISK",
    "volume-free-in-cinder-but-open": "VOLUME",
    "bdm-record-bad": "VOLUME",
    "flavor-three-way-drift": "EDITED",
    "router-rule-missing": "FLUSHED",
    "switch-vlan-differs": "TAP",
}
"""The roots that explain only findings about the same disk, volume or tap, of any guest → the
placeholder in the advice of both that names it."""

OF_ITS_LAYERS = frozenset(["answer-about-another-object", "capture-untrustworthy"])
"""The roots that explain only findings about layers in their own evidence."""

CROWDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "availability-zone-differs": ("the host was moved into another availability zone", ()),
    "disks-outside-instances-path": ("instances_path in nova.conf was changed", ()),
    "disk-cache-mode-differs": (
        "disk_cachemodes in nova.conf was changed after the guests started",
        (),
    ),
    "io-error-paused": (
        "the guests' storage failed or is full",
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
        "the guests' storage does not answer",
        ("io-error-paused", "paused-or-crashed-guest", "active-but-domain-off"),
    ),
    "server-without-domain": (
        "libvirt lost its state: its container was recreated, or /etc/libvirt is not persistent",
        ("qemu-without-domain", "domain-transient", "guest-autostart-enabled"),
    ),
    "qemu-without-domain": (
        "libvirt lost its state: its container was recreated, or /run/libvirt was cleaned",
        ("server-without-domain", "domain-transient", "guest-autostart-enabled"),
    ),
    "domain-without-server": (
        "nova's database is older than its guests: it was restored from a backup, or one of its "
        "cells was not read",
        (
            "instance-name-collision",
            "instance-in-two-cells",
            "instance-mapping-skew",
            "allocation-orphan",
        ),
    ),
}
"""Findings with another meaning if nearly all guests of a host share them: the cause in that case,
and the other findings on the host that it explains."""
