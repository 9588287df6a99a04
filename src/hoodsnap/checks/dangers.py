"""Commands that make it worse: what each does, and which checks must be quiet before it is typed.

Like all knowledge about several checks it goes by their names. A gate is not green if its check
found something of this guest (its host, the cloud), or could not be decided.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Danger:
    """A command as a person types it, with UUID, NAME and PID for the guest's."""

    command: str
    why: str
    gates: tuple[str, ...]
    """The checks that must be quiet first."""
    only: str
    """What else must be known, which no check tells; empty if nothing."""


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
"""Its disks may be written by another guest too, or be another's."""

LAST_COPY = ("disk-deleted-but-open", "qemu-without-domain")
"""Its process may hold the only copy of a disk."""

BROKEN_CHAIN = (
    "backing-file-missing",
    "base-image-reapable",
    "backing-not-image-ref",
    "base-replaced-or-truncated",
)
"""The next start may find another base than the last one, or none."""

ATTACHMENTS = (
    "bdm-attachment-or-volume-missing",
    "cinder-attachment-without-bdm",
    "bdm-not-in-guest",
    "guest-volume-not-in-bdm",
    "bdm-alive-for-deleted-instance",
    "bdm-record-bad",
)
"""nova and cinder disagree on its volumes."""

NEXT_START = (
    "stale-managed-save",
    "chain-live-vs-persistent",
    "persistent-xml-foreign-devices",
    "rescue-residue",
)
"""Its written definition is not what runs: started from it, it would be another machine."""

DANGERS = (
    Danger(
        "openstack server reboot --hard UUID",
        "writes the domain anew from nova's records on the host that nova believes in: a second "
        "writer if it runs elsewhere, no NICs if the info cache is empty, another base if it was "
        "fetched again; since 2023.2 block devices without an attachment are destroyed and "
        "attachments that nova does not know deleted; a suspended guest loses its memory",
        (*TWO_WRITERS, *LAST_COPY, *BROKEN_CHAIN, *ATTACHMENTS, "info-cache-lost"),
        "",
    ),
    Danger(
        "openstack server delete UUID",
        "removes its folder, its rbd image and its delete-on-termination volumes, also where a "
        "healthy twin uses them",
        (
            *TWO_WRITERS,
            "uuid-name-chain-broken",
            "instance-name-collision",
            "instance-in-two-cells",
        ),
        "the guest that goes shares no file, volume or inode with one that stays",
    ),
    Danger(
        "systemctl restart nova-compute",
        "destroys what it takes for evacuated, and finishes, aborts or repeats every task it finds "
        "set; may refuse to start, or make a new compute node",
        (
            "evacuated-guest-still-running",
            "host-identity-changed",
            "evacuation-record-armed",
            "stuck-task-state",
        ),
        "",
    ),
    Danger(
        "virsh start NAME",
        "bypasses nova: a second writer if it runs elsewhere, and an old definition",
        (*TWO_WRITERS, *LAST_COPY, *NEXT_START, "domain-of-deleted-server"),
        "there is no reason to: `openstack server start UUID` does it with nova's knowledge",
    ),
    Danger(
        "virsh destroy NAME",
        "cuts the power: a file that is deleted and still open is gone for ever",
        LAST_COPY,
        "",
    ),
    Danger(
        "virsh undefine NAME --remove-all-storage --nvram --managed-save",
        "deletes its disks, UEFI variables, vTPM and saved memory",
        (
            *TWO_WRITERS,
            "domain-of-deleted-server",
            "domain-without-server",
            "stale-managed-save",
            "firmware-state-missing",
            "resize-source-copy-missing",
        ),
        "there is a copy",
    ),
    Danger(
        "virsh managedsave-remove NAME",
        "a guest that is suspended has its memory nowhere else",
        (),
        "stale-managed-save found that the memory is older than the disk",
    ),
    Danger(
        "virsh resume NAME",
        "a guest that was paused at the end of its migration runs on the other host already",
        (*TWO_WRITERS, "stale-managed-save", "io-error-paused", "paused-or-crashed-guest"),
        "`virsh domstate --reason NAME` says why it is paused",
    ),
    Danger(
        "virsh blockjob NAME --pivot, blockcommit, blockpull",
        "changes the chain of images under nova and cinder",
        (
            "chain-live-vs-persistent",
            "chain-qmp-vs-ondisk",
            "snapshot-or-blockjob-residue",
            "live-migration-half-done",
        ),
        "the chain is known, link by link",
    ),
    Danger(
        "qemu-img rebase -u, commit, resize, check -r, amend, snapshot",
        "corrupts an image that is in use",
        (
            *TWO_WRITERS,
            *LAST_COPY,
            *BROKEN_CHAIN,
            "qcow2-corrupt-bit",
            "chain-live-vs-persistent",
            "chain-qmp-vs-ondisk",
        ),
        "the guest is off, the image locked by nobody, and a copy made",
    ),
    Danger(
        "qemu-img info, convert without -f",
        "guesses the format of what a guest may have written: a header in a raw disk reads any "
        "file of the host",
        ("disk-format-mismatch", "image-unsafe-reference"),
        "",
    ),
    Danger(
        "rm, mv, touch -d in _base, *_resize, *_del, snapshots",
        "breaks the chains above a base, and the way back of a resize",
        (
            *BROKEN_CHAIN,
            "resize-source-copy-missing",
            "orphan-instance-dir",
            "instances-path-not-mounted",
            "shared-cache-registry-stale",
        ),
        "",
    ),
    Danger(
        "chown -R, restorecon -R in the instances directory",
        "takes the owner and label away under running guests",
        ("file-owner-or-label-wrong", "instances-path-not-mounted"),
        "the guests are off",
    ),
    Danger(
        "openstack server set --state active UUID",
        "hides a migration or deletion that is half done; the next power sync then stops the guest",
        (
            "live-migration-half-done",
            "domain-running-on-wrong-host",
            "domain-of-deleted-server",
            "partial-deletion",
            "active-without-host",
            "stuck-task-state",
            "migration-record-stale",
        ),
        "",
    ),
    Danger(
        "UPDATE instances SET host = …",
        "changes neither node, compute_id, ports, allocations nor the connections of its volumes",
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
        "all of them are changed together, with nova-compute stopped on both hosts",
    ),
    Danger(
        "UPDATE instances SET deleted = …",
        "leaves a guest that nobody knows and allocations that nobody frees",
        (
            "domain-of-deleted-server",
            "domain-without-server",
            "partial-deletion",
            "bdm-alive-for-deleted-instance",
            "allocation-orphan",
        ),
        "there is no reason to",
    ),
    Danger(
        "nova-manage db archive_deleted_rows, purge",
        "after it a guest that was left behind can neither be reaped nor explained",
        ("domain-of-deleted-server", "partial-deletion"),
        "",
    ),
    Danger(
        "nova-manage placement audit --delete",
        "takes a cell that did not answer for one that is empty, and frees what is in use",
        (
            "capture-untrustworthy",
            "host-identity-changed",
            "instance-in-two-cells",
            "instance-mapping-skew",
            "allocation-orphan",
            "provider-vs-compute-node",
        ),
        "every cell is up, and the audit without --delete was read",
    ),
    Danger(
        "nova-manage placement heal_allocations --force; openstack resource provider allocation "
        "delete UUID",
        "loses what is nested (vGPU, PCI, bandwidth); deletes a living guest's claim",
        (
            "allocation-missing",
            "allocation-wrong-provider",
            "allocation-orphan",
            "pci-or-mdev-claim-mismatch",
        ),
        "",
    ),
    Danger(
        "nova-manage cell_v2 map_instances, delete_host, delete_cell --force",
        "leaves mappings to nothing",
        ("instance-name-collision", "instance-in-two-cells", "instance-mapping-skew"),
        "there is a copy of the API database",
    ),
    Danger(
        "cinder reset-state, attachment-delete; openstack volume delete --force; rbd rm, lock rm",
        "lets two write one volume, or removes it while it is in use",
        (*TWO_WRITERS[-3:], *ATTACHMENTS, "rbd-lock-or-orphan"),
        "no process holds it and no client watches it",
    ),
    Danger(
        "multipath -F; iscsiadm -m node -u; rescan-scsi-bus -r; dmsetup remove -f",
        "gives another volume's device to a guest, or I/O errors to all of them",
        ("volume-free-in-cinder-but-open", "volume-device-wrong-lun", "host-device-leftover"),
        "it is one map, and no process holds it",
    ),
    Danger(
        "openstack server evacuate UUID",
        "starts it elsewhere: two writers, if this host is not dead",
        (*TWO_WRITERS, "evacuation-record-armed", "service-state-skew"),
        "the host's power is off, by IPMI or PDU",
    ),
    Danger(
        "openstack compute service set --up; compute service delete",
        "brings back a host whose guests run elsewhere by now; leaves providers behind",
        (
            "evacuated-guest-still-running",
            "evacuation-record-armed",
            "provider-vs-compute-node",
        ),
        "",
    ),
    Danger(
        "openstack port set --host, --device; ovs-vsctl del-br",
        "cuts the traffic of a guest that works",
        ("port-bound-elsewhere", "port-guest-mismatch", "tap-missing-or-miswired"),
        "",
    ),
    Danger(
        "kill -9 PID",
        "what QEMU has in its cache is lost, and a lock of rbd stays",
        (*LAST_COPY, "qemu-monitor-dead", "libvirt-vs-qmp-status"),
        "`virsh destroy --graceful NAME` did not end it",
    ),
    Danger(
        "restarting the container or unit of libvirt",
        "may end every QEMU of its control group or PID namespace",
        ("qemu-without-domain", "domain-transient"),
        "it was tried with one test guest",
    ),
    Danger(
        "virsh autostart NAME; systemctl start libvirt-guests",
        "starts guests that nova has elsewhere or off",
        ("stale-managed-save", "guest-autostart-enabled"),
        "",
    ),
)
"""In the order in which people reach for them."""
