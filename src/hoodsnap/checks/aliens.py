"""Domains that nova does not know, and what they take from nova's servers."""

from __future__ import annotations

from collections.abc import Iterator

from hoodsnap.check import Problems, check, problem
from hoodsnap.evidence import Severity, says
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.cloud.volume_owners import volume_of
from hoodsnap.facts.domain.disk import Disk
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.host.instances_directory import disk_owner
from hoodsnap.phrase import place


@check(Severity.ERROR)
def alien_domain_has_servers_disk(
    guest: Guest, host: Host, cloud: Cloud, domain: Domain
) -> Problems:
    """A domain that nova does not know has the disk of a server.

    Somebody defined it by hand, usually to repair the server from another system, or to run a copy
    of it. nova neither sees the domain nor stops it. When both run, two guests write to one disk
    and destroy it; when the domain is removed together with its storage, the server loses its disk.

    Authority: The name of the disk, for the server that owns it: nova puts the server's UUID into
    it; nova's block device mappings, for the owner of a volume; nova's records, for which domains
    are its own.

    Traps: A disk that is shareable. A domain with nova's metadata and a disk of its own is a server
    that nova lost: `domain-without-server` reports it.

    Next: Ask who defined the domain, and check which disks it has and whether it runs:

        virsh dumpxml NAME
        virsh domstate --reason NAME
        openstack server show OTHER -c status

    If it runs, shut it down once its user agrees:

        virsh shutdown RUNNING_DOMAIN

    Then, if nobody needs it, remove its definition. The disk stays:

        virsh undefine DEFINED_DOMAIN

    It worked if libvirt no longer lists the domain, and the disk is still there:

        virsh list --all
        ls -l DISK

    Not yet: Do not run `virsh start NAME`: it makes a second writer when the server runs. Do not
    run `virsh undefine --remove-all-storage`, and do not delete the disk: it is the server's. While
    the domain runs, do not start the server.

    Source: libvirt virDomainUndefineFlags; nova virt/libvirt/utils.py `get_instance_path`.
    """
    if not guest.lacks_record:
        return
    stored = domain.inactive_disks if domain.persistent else ()
    disks = {disk.source or "": disk for disk in (*domain.current.disks, *stored)}
    if domain.is_nova and any(disk_owner(source) == guest.uuid for source in disks):
        return
    runs = domain.id is not None
    for source, disk in disks.items():
        for owner in _owners(guest, host, cloud, disk):
            title = cloud.title_of(owner)
            records = [twin.record for twin in cloud.twins(owner) if twin.record is not None]
            yield problem(
                f"{guest.title}, which nova does not know, {'runs with' if runs else 'names'} "
                f"{title}'s disk as its {disk.target}: {place(source)}; "
                f"{f'do not start {title}' if runs else 'do not start it'}",
                says(domain, name=domain.name, state=domain.state_words).and_so(
                    disks=f"{disk.target} is {source}", disk_of=owner
                ),
                *(says(record, vm_state=record.vm_state) for record in records[:1]),
                OTHER=owner,
                DISK=source if source.startswith("/") else "",
                RUNNING_DOMAIN=domain.name if runs else "",
                DEFINED_DOMAIN=domain.name if domain.persistent else "",
            )


def _owners(guest: Guest, host: Host, cloud: Cloud, disk: Disk) -> Iterator[str]:
    """Yield the UUIDs of the servers that the disk belongs to."""
    if disk.source is None or disk.shareable:
        return
    owner = disk_owner(disk.source)
    if owner is not None:
        yield from {owner} - {guest.uuid}
        return
    volume = volume_of(disk)
    attached = cloud.exclusive(host).volumes.get(volume, ()) if volume is not None else ()
    yield from sorted({*attached} - {guest.uuid})
