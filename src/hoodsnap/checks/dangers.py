"""Commands that make it worse: what each one does, and which checks must be quiet before it is run.

This is a table by check name, like all knowledge that concerns several checks. A command is
forbidden if one of its checks found something for the guest, its host or the cloud, or could not be
decided.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Danger:
    """A command as a person types it, with UUID, NAME and PID for the guest's own values."""

    command: str
    why: str
    """The harm it does: a predicate whose subject is the command ("writes …")."""
    gates: tuple[str, ...]
    """The checks that must be quiet first."""
    only: str
    """Another condition, which no check can decide; `never …` if there is no reason to run it;
    empty if there is no other condition."""


TWO_WRITERS = (
    "disk-shared-by-two-qemu",
    "duplicate-qemu-identity",
    "domain-running-on-wrong-host",
    "evacuated-guest-still-running",
    "live-migration-half-done",
    "volume-attached-twice",
    "volume-free-in-cinder-but-open",
    "volume-device-wrong-lun",
)
"""Another guest may write to the guest's disks too, or the disks may belong to another guest."""

LAST_COPY = ("disk-deleted-but-open", "qemu-without-domain", "share-not-mounted")
"""The guest's process may hold the only copy of a disk, or the only access to it."""

BROKEN_CHAIN = (
    "backing-file-missing",
    "base-image-reapable",
    "backing-not-image-ref",
    "base-replaced-or-truncated",
    "guest-writes-into-base",
    "file-handle-stale",
)
"""The next start may find another base image than the last start, or no base image."""

ATTACHMENTS = (
    "bdm-attachment-or-volume-missing",
    "cinder-attachment-without-bdm",
    "bdm-not-in-guest",
    "guest-volume-not-in-bdm",
    "bdm-alive-for-deleted-instance",
    "bdm-record-bad",
)
"""nova and cinder disagree on the guest's volumes."""

NEXT_START = (
    "chain-live-vs-persistent",
    "persistent-xml-foreign-devices",
    "rescue-residue",
)
"""The stored definition differs from what runs: the next start would be another machine."""

DANGERS = (
    Danger(
        "openstack server reboot --hard UUID",
        "defines the domain again from nova's records, on the host in nova's records: the guest "
        "gets a second writer if it runs elsewhere, no NICs if the info cache is empty, and "
        "another base image if that was downloaded again; since 2023.2 block device mappings "
        "without an attachment are destroyed and attachments that nova does not know are deleted; "
        "a suspended guest loses its memory",
        (
            *TWO_WRITERS,
            *LAST_COPY,
            *BROKEN_CHAIN,
            *ATTACHMENTS,
            "info-cache-lost",
            "port-address-lost",
            "managed-save-mismatch",
            "state-reset-by-hand",
        ),
        "",
    ),
    Danger(
        "openstack server delete UUID",
        "removes the guest's folder, its rbd image and its delete-on-termination volumes, even if "
        "a healthy twin uses them",
        (
            *TWO_WRITERS,
            "uuid-name-chain-broken",
            "instance-name-collision",
            "instance-in-two-cells",
        ),
        "the deleted guest shares no file, volume or inode with a guest that remains",
    ),
    Danger(
        "systemctl restart nova-compute",
        "destroys guests that nova-compute considers evacuated, and finishes, aborts or repeats "
        "every task in flight; nova-compute may refuse to start, or create a new compute node; "
        "without the file system of the disks it makes base images and disks in the wrong place",
        (
            "evacuated-guest-still-running",
            "host-identity-changed",
            "compute-record-too-old",
            "evacuation-record-armed",
            "live-migration-half-done",
            "base-image-reapable",
            "instances-path-not-mounted",
            *LAST_COPY,
        ),
        "you know what the restart does to each server that has a task (stuck-task-state shows it)",
    ),
    Danger(
        "virsh start NAME",
        "bypasses nova: it makes a second writer if the guest runs elsewhere, and may use an old "
        "definition",
        (*TWO_WRITERS, *LAST_COPY, *NEXT_START, "domain-of-deleted-server"),
        "never; `openstack server start UUID` starts the guest with nova's knowledge",
    ),
    Danger(
        "virsh destroy NAME",
        "cuts the guest's power: a file that is deleted but still open is lost forever",
        LAST_COPY,
        "",
    ),
    Danger(
        "virsh undefine NAME --remove-all-storage --nvram --managed-save",
        "deletes the guest's disks, UEFI variables, vTPM and saved memory",
        (
            *TWO_WRITERS,
            "domain-of-deleted-server",
            "domain-without-server",
            "managed-save-mismatch",
            "firmware-state-missing",
            "resize-source-copy-missing",
        ),
        "there is a copy",
    ),
    Danger(
        "virsh managedsave-remove NAME",
        "deletes the saved memory, which is the only copy of a suspended guest's memory",
        (),
        "managed-save-mismatch reports that the saved memory is older than the disk, or "
        "saved-memory-damaged that it is damaged, and the file was copied",
    ),
    Danger(
        "virsh resume NAME",
        "makes a second writer if the guest was paused at the end of its migration and already "
        "runs on the other host",
        (*TWO_WRITERS, "guest-writes-into-base", "managed-save-mismatch", "libvirt-vs-qmp-status"),
        "`virsh domstate --reason NAME` shows why the guest is paused, and the cause is gone",
    ),
    Danger(
        "virsh blockjob NAME --pivot, blockcommit, blockpull",
        "changes the backing chain without nova's and cinder's knowledge",
        (
            "chain-live-vs-persistent",
            "chain-qmp-vs-ondisk",
            "snapshot-or-blockjob-residue",
            "live-migration-half-done",
        ),
        "every link of the chain is known",
    ),
    Danger(
        "qemu-img rebase -u, commit, resize, check -r, amend, snapshot",
        "corrupts an image that is in use",
        (
            *TWO_WRITERS,
            *LAST_COPY,
            # Whose disk was rebased by hand has to be rebased back.
            *(name for name in BROKEN_CHAIN if name != "backing-not-image-ref"),
            "qcow2-corrupt-bit",
            "chain-live-vs-persistent",
            "chain-qmp-vs-ondisk",
        ),
        "the guest is off, no process has locked the image, and there is a copy",
    ),
    Danger(
        "qemu-img info or convert without -f",
        "guesses the format from content that a guest may have written: a header in a raw disk can "
        "make it read any file of the host",
        ("disk-format-mismatch", "image-unsafe-reference"),
        "",
    ),
    Danger(
        "rm, mv, touch -d in _base, *_resize, *_del, snapshots",
        "breaks the chains above a base image, and the revert of a resize",
        (
            *BROKEN_CHAIN,
            "resize-source-copy-missing",
            "orphan-instance-dir",
            "instances-path-not-mounted",
            "shared-cache-registry-stale",
            "state-reset-by-hand",
        ),
        "",
    ),
    Danger(
        "chown -R, restorecon -R in the instances directory",
        "changes the owner and label of files that running guests use",
        ("file-owner-or-label-wrong", "instances-path-not-mounted"),
        "the guests are off",
    ),
    Danger(
        "openstack server set --state active UUID",
        "hides an incomplete migration or deletion; the next power sync then stops the guest",
        (
            "live-migration-half-done",
            "domain-running-on-wrong-host",
            "domain-of-deleted-server",
            "partial-deletion",
            "active-without-host",
            "migration-record-stale",
            "state-reset-by-hand",
        ),
        "",
    ),
    Danger(
        "UPDATE instances SET host = …, and nothing else",
        "does not change the node, compute_id, ports, allocations or volume connections",
        (
            "domain-running-on-wrong-host",
            "evacuated-guest-still-running",
            "live-migration-half-done",
            "host-identity-changed",
            "attachment-host-mismatch",
            "port-bound-elsewhere",
            "allocation-wrong-provider",
            "active-without-host",
        ),
        "all of these are changed together, with nova-compute stopped on both hosts",
    ),
    Danger(
        "UPDATE instances SET deleted = …",
        "leaves a guest that nova no longer knows, and allocations that are never freed",
        (
            "domain-of-deleted-server",
            "domain-without-server",
            "partial-deletion",
            "bdm-alive-for-deleted-instance",
            "allocation-orphan",
        ),
        "never",
    ),
    Danger(
        "nova-manage db archive_deleted_rows, purge",
        "removes the records without which a leftover guest can be neither reaped nor explained",
        ("domain-of-deleted-server", "partial-deletion"),
        "",
    ),
    Danger(
        "nova-manage placement audit --delete",
        "treats a cell that did not answer as empty, and frees allocations that are in use",
        (
            "capture-untrustworthy",
            "host-identity-changed",
            "instance-in-two-cells",
            "instance-mapping-skew",
            "allocation-orphan",
            "provider-vs-compute-node",
        ),
        "every cell is up, and the output of the audit without --delete has been read",
    ),
    Danger(
        "nova-manage placement heal_allocations --force",
        "loses nested allocations (vGPU, PCI, bandwidth)",
        (
            "allocation-missing",
            "allocation-wrong-provider",
            "allocation-orphan",
            "pci-or-mdev-claim-mismatch",
        ),
        "",
    ),
    Danger(
        "openstack resource provider allocation delete UUID",
        "deletes a live guest's claim, so that its resources are offered to other servers",
        ("allocation-missing", "allocation-wrong-provider", "domain-of-deleted-server"),
        "no guest uses the resources",
    ),
    Danger(
        "nova-manage cell_v2 delete_host, delete_cell --force",
        "deletes the mappings through which the API finds the servers and their host",
        ("instance-name-collision", "instance-in-two-cells", "instance-mapping-skew"),
        "there is a copy of the API database",
    ),
    Danger(
        "nova-manage cell_v2 map_instances --cell_uuid CELL",
        "maps every server of the cell that has no mapping, even if its guest belongs to the "
        "record in another cell",
        ("instance-name-collision", "instance-in-two-cells"),
        "there is a copy of the API database",
    ),
    Danger(
        "cinder reset-state; openstack volume delete --force; rbd rm, lock rm",
        "lets two guests write to one volume, or removes a volume that is in use",
        (*TWO_WRITERS[-3:], *ATTACHMENTS, "rbd-lock-or-orphan"),
        "no process has the volume open and no client watches it",
    ),
    Danger(
        "cinder attachment-delete ATTACHMENT",
        "frees a volume that a guest may still write to, so that another guest can get it",
        (
            *TWO_WRITERS[-2:],  # of two attachments, the one that no guest uses has to go
            "bdm-attachment-or-volume-missing",
            "bdm-not-in-guest",
            "guest-volume-not-in-bdm",
            "bdm-record-bad",
        ),
        "no process has the volume open and no client watches it",
    ),
    Danger(
        "multipath -F; iscsiadm -m node -u; rescan-scsi-bus.sh -r; dmsetup remove -f",
        "may give a guest another volume's device, or cause I/O errors in all guests",
        ("volume-free-in-cinder-but-open", "volume-device-wrong-lun", "host-device-leftover"),
        "it concerns a single map, and no process has it open",
    ),
    Danger(
        "openstack server evacuate UUID",
        "starts the guest elsewhere, which makes a second writer if this host is not down",
        (*TWO_WRITERS, "evacuation-record-armed", "service-state-skew"),
        "the host has been powered off by IPMI or PDU",
    ),
    Danger(
        "openstack compute service set --up; compute service delete",
        "brings back a host whose guests run elsewhere by now, or leaves resource providers behind",
        (
            "evacuated-guest-still-running",
            "evacuation-record-armed",
            "provider-vs-compute-node",
        ),
        "",
    ),
    Danger(
        "openstack port set --device; ovs-vsctl del-br",
        "cuts the traffic of a working guest",
        ("port-bound-elsewhere", "port-guest-mismatch", "tap-missing-or-miswired"),
        "",
    ),
    Danger(
        "openstack port set --host HOST PORT",
        "wires the port on that host, which cuts the traffic of a guest that runs on another",
        (
            "domain-running-on-wrong-host",
            "evacuated-guest-still-running",
            "live-migration-half-done",
        ),
        "the guest runs on HOST and nowhere else",
    ),
    Danger(
        "kill -9 PID",
        "loses what QEMU has in its cache, and leaves an rbd lock behind",
        (*LAST_COPY, "qemu-monitor-dead", "libvirt-vs-qmp-status"),
        "`virsh destroy --graceful NAME` did not end the process",
    ),
    Danger(
        "restarting the container or unit of libvirt",
        "may end every QEMU process in its control group or PID namespace",
        ("qemu-without-domain", "domain-transient"),
        "the restart was tried with one test guest",
    ),
    Danger(
        "virsh autostart NAME; systemctl start libvirt-guests",
        "starts guests that, for nova, are on another host or off",
        ("managed-save-mismatch", "guest-autostart-enabled"),
        "",
    ),
)
"""Sorted by how likely people are to run them."""
