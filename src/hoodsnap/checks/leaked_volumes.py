"""cinder's attachments of volumes to servers that nova does not have."""

from __future__ import annotations

from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.leaked_ports import proof_of_no_server
from hoodsnap.evidence import Evidence, Severity, says
from hoodsnap.facts.api.volume import GONE, Attachment
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.fact import UnheardError
from hoodsnap.phrase import counted, several

SHOWN = 5
"""Number of attachments that a finding about many quotes."""


@check(Severity.WARNING)
def volume_of_no_server(host: Host, cloud: Cloud) -> Problems:
    """Volumes that cinder has attached to this host belong to servers that nova does not have.

    Nobody can detach, delete or extend such a volume: nova has no server to detach it from, and
    cinder refuses to delete a volume that is in use. The attachment is left behind when a server's
    deletion fails while cinder cannot be reached, or when nova's database was restored.

    Authority: nova, for which servers exist; cinder, for the attachments.

    Traps: A server that is being built, and one that was deleted a moment ago. Cells that were not
    collected may have the server. Without `--all-hosts`, only the attachments of this host's
    servers are collected. Ironic without nova attaches volumes to its own nodes. A guest that still
    runs with the volume has checks of its own.

    Next: Check the attachment, and that nova does not know its server:

        openstack volume show VOLUME -c status -c attachments
        cinder --os-volume-api-version 3.27 attachment-list --all-tenants --volume-id VOLUME
        openstack server show SERVER

    Check on every host that no guest has the volume open:

        virsh list --all --uuid
        lsblk

    Then, if no guest uses the volume, delete the attachment. cinder makes the volume available when
    its last attachment is gone:

        cinder --os-volume-api-version 3.27 attachment-delete ATTACHMENT

    It worked if the volume is available:

        openstack volume show VOLUME -c status -c attachments

    Not yet: Do not run `cinder reset-state --attach-status detached`, which leaves the attachment
    and the host's connection behind. Do not delete the volume before its owner confirmed it.

    Source: cinder API, attachments; nova `_shutdown_instance`, which logs cinder's errors and
    deletes the server.
    """
    volumes = cloud.storage.volumes
    if not volumes.heard:
        raise UnheardError(volumes.silence)
    left: list[tuple[Attachment, Evidence]] = []
    undecided: UnheardError | None = None
    for uuid, attachments in volumes.by_server.items():
        mine = [one for one in attachments if _holds(cloud, host, one)]
        if not mine or any(guest.domain or guest.process for guest in cloud.twins(uuid)):
            continue
        try:
            proof = proof_of_no_server(cloud, uuid)
        except UnheardError as reason:
            undecided = undecided or reason
            continue
        if proof is not None:
            left += [(one, proof) for one in mine]
    if left:
        first = left[0][0]
        names = several(volumes.title_of(one.volume_id).removeprefix("volume ") for one, _ in left)
        servers = counted(len({one.instance for one, _ in left}), "server")
        yield problem(
            f"cinder has {counted(len(left), 'volume')} attached to {host.name} for {servers} that "
            f"nova does not have: {names}",
            *(
                says(one, id=one.id, volume_id=one.volume_id, instance=one.instance)
                for one, _ in left[:SHOWN]
            ),
            *dict.fromkeys(proof for _, proof in left[:SHOWN]),
            VOLUME=first.volume_id,
            ATTACHMENT=first.id,
            SERVER=first.instance,
        )
    if undecided is not None:
        raise undecided
    # Before Ocata, only the volumes list their attachments.
    volumes.require_whole("attachments", "volumes")


def _holds(cloud: Cloud, host: Host, attachment: Attachment) -> bool:
    """True if a volume is attached to this host, and neither nova nor a captured guest has it."""
    if attachment.host != host.nova_name or attachment.status in GONE:
        return False
    storage, volume = cloud.storage, attachment.volume_id
    # bdm-alive-for-deleted-instance reports the rows of deleted servers.
    rows = [*storage.mapped(volume), *(row for _, row in storage.outlived)]
    return not storage.plugged(volume) and volume not in {row.volume_id for row in rows}
