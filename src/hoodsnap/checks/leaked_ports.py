"""neutron's ports that belong to no server."""

from __future__ import annotations

from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.traps import just_changed, just_deleted
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.api.port import Port
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.fact import UnheardError
from hoodsnap.phrase import counted, several

SHOWN = 5
"""Number of ports that a finding about many quotes."""


@check(Severity.WARNING)
def port_of_no_server(host: Host, cloud: Cloud) -> Problems:
    """Ports that are bound to this host belong to servers that nova does not have.

    Each keeps an address of its network and counts against its project's quota, and nothing deletes
    it. Networks run out of addresses this way. Ports are left behind when a server's deletion or
    build fails while neutron cannot be reached.

    Authority: nova, for which servers exist; neutron, for the ports.

    Traps: A server that is being built, and one that was deleted a moment ago. Shelved servers keep
    their ports. Cells that were not collected may have the server.

    Next: Check the port, and that nova does not know its server:

        openstack port list --host HOST --long
        openstack port show PORT
        openstack server show SERVER

    If no guest uses the port, delete it:

        openstack port delete PORT

    It worked if neutron does not list the port:

        openstack port list --host HOST --long

    Not yet: Do not delete a port before every cell was asked for its server, and before no domain
    with its MAC address runs.

    Source: nova network/neutron.py `deallocate_for_instance`; nova bugs 1664347, 1856329.
    """
    if host.ports.of_host(host.nova_name) is None:
        raise UnheardError(host.ports.silence)
    left: dict[str, tuple[Port, Evidence]] = {}
    undecided: UnheardError | None = None
    for uuid, ports in host.ports.by_device.items():
        mine = [port for port in ports if port.host == host.nova_name and not just_changed(port)]
        # The ports of a guest that is still there are in use.
        if not mine or any(guest.domain or guest.process for guest in cloud.twins(uuid)):
            continue
        try:
            proof = proof_of_no_server(cloud, uuid) if uuid else None
        except UnheardError as reason:
            undecided = undecided or reason
            continue
        if proof is not None:
            left |= {port.id: (port, proof) for port in mine}
    if left:
        shown = [*left.values()][:SHOWN]
        first = shown[0][0]
        names = several(port.title.removeprefix("port ") for port, _ in left.values())
        servers = counted(len({port.device_id for port, _ in left.values()}), "server")
        kind = f"of {servers} that nova does not have"
        yield problem(
            f"Host {host.name} has {counted(len(left), 'port')} {kind}: {names}",
            *(says(port, id=port.id, device_id=port.device_id) for port, _ in shown),
            *dict.fromkeys(proof for _, proof in shown),
            PORT=first.id,
            SERVER=first.device_id,
            HOST=host.nova_name,
        )
    if undecided is not None:
        raise undecided


def proof_of_no_server(cloud: Cloud, uuid: str) -> Evidence | None:
    """Evidence that nova has no server with this UUID; None if it has one."""
    instance = cloud.instances.by_uuid.get(uuid)
    if instance is not None:
        gone = instance.deleted and not just_deleted(instance)
        return says(instance, uuid=uuid, deleted_at=instance.deleted_at) if gone else None
    servers = cloud.servers
    if uuid in servers.by_uuid:
        return None
    if next(cloud.instances.tables.of("build_requests", uuid), None) is not None:
        return None
    listed = servers.absent.get(uuid) or servers.everywhere
    if listed is not None and servers.sees_all and not servers.failures:
        return hears(listed, "nova", uuid, server=None)
    if reason := cloud.instances.searched(uuid):
        raise UnheardError(f"nova database: {reason}")
    asked = cloud.instances.asked(uuid)
    return hears(asked, "nova-db", uuid, instance=None) if asked is not None else None
