"""Names of a domain: nova's name for it, and what libvirt's own answers call it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.checks.traps import (
    building,
    migrating,
    moving_to_another_cell,
    of_another_libvirt,
    task_in_flight,
)
from hoodsnap.evidence import Evidence, Severity, derives, says
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.domain import NAME as NOVA_NAME
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.domain_xml import DomainXML
from hoodsnap.facts.fact import known
from hoodsnap.facts.host.cgroup import machine_of
from hoodsnap.facts.host.log import Log
from hoodsnap.facts.process.process import Process
from hoodsnap.facts.uuids import UUID
from hoodsnap.phrase import brief, several, sizes

DEFAULT = "instance-%08x"
"""nova's template of a domain's name, filled with the id of the server's row."""


@check(Severity.WARNING, traps=[building, task_in_flight, migrating, moving_to_another_cell])
def domain_renamed(guest: Guest, host: Host, instance: Instance, domain: Domain) -> Problems:
    """The domain has another name than nova gave it.

    nova finds a domain by its UUID, so the server works. But all that goes by the name is lost or
    mixed up: QEMU's log, the saved memory of a suspended server, backups, monitoring, and every
    search for the server's name in `virsh list`. A domain of another server may get the name.

    Authority: nova: it makes the name from the id of the server's row.

    Traps: If `instance_name_template` was changed, older domains keep their names, which nova's
    records no longer show; only the default template is judged. A server that moved to another cell
    has a row with another id.

    Next: Check which domains have the two names, and whether libvirt has saved memory under either:

        virsh list --all
        ls -l /var/lib/libvirt/qemu/save

    Then, while the domain is off, give it nova's name back. This changes nothing else:

        virsh domrename NAME NOVA_NAME

    A running domain can't be renamed. Check that the server's volumes and ports are right, then let
    nova define the domain again, which switches the guest off and on:

        openstack server volume list GUEST
        openstack port list --server GUEST
        openstack server reboot --hard GUEST

    It worked if libvirt has nova's name for the server:

        virsh domname UUID

    Not yet: Do not rename it while another domain has that name.

    Source: nova objects/instance.py `name`, conf/compute.py `instance_name_template`; libvirt
    virDomainRename.
    """
    if not guest.is_here or instance.deleted or instance.id is None:
        return
    if host.option("DEFAULT", "instance_name_template", DEFAULT) != DEFAULT:
        return
    name, wanted = domain.name, DEFAULT % instance.id
    told = known(lambda: guest.server.instance_name if guest.server is not None else None)
    if name in (wanted, told):
        return
    active = domain.id is not None
    yield problem(
        f"{guest.title}'s domain is called {name}, but nova calls it {told or wanted}",
        says(instance, id=instance.id).and_so(domain_name=wanted),
        says(domain, name=name, state=known(lambda: domain.state_words)),
        NOVA_NAME="" if active else told or wanted,
        GUEST=guest.uuid if active else "",
    )


@check(Severity.ERROR, traps=[building, task_in_flight, migrating])
def definition_of_another_domain(guest: Guest, domain: Domain) -> Problems:
    """libvirt's answers about one domain disagree on its identity or its size.

    libvirt keeps a list of domains, a live and a stored definition of each, and figures of its own.
    They are about one domain, so UUID, name, number and size must be the same in all. If they are
    not, libvirt's files were edited or restored while it ran, or the texts were put together from
    several hosts. The next start, or the next command, then meets another machine.

    Authority: libvirt's list of domains, which its commands use.

    Traps: A domain that starts, stops or is redefined while it is collected.

    Next: Compare what libvirt answers now:

        virsh list --all --uuid --name
        virsh dumpxml UUID | head -n 5
        virsh dumpxml --inactive UUID | head -n 5
        virsh dominfo UUID

    Compare libvirt's files with that, and look for files that were changed after the guest's start:

        grep -E '<(name|uuid)>' /etc/libvirt/qemu/NAME.xml
        ls -l --full-time /etc/libvirt/qemu /run/libvirt/qemu

    If the stored definition is another domain's, check that the server's volumes and ports are
    right, then let nova define the domain again, which switches the guest off and on:

        openstack server volume list UUID
        openstack port list --server UUID
        openstack server reboot --hard UUID

    It worked if both definitions have the identity of the server:

        virsh dumpxml UUID | head -n 5
        virsh dumpxml --inactive UUID | head -n 5

    Not yet: Do not restart libvirtd: it reads its files again and then has the other domain. Do not
    run `virsh define`.

    Source: libvirt src/conf/virdomainobjlist.c; libvirt formatdomain.
    """
    listed = {"uuid": domain.uuid, "name": domain.name, "smbios_uuid": domain.uuid}
    live = _heard(domain, "xml")
    stored = _heard(domain, "inactive")
    for field, xml, words in (
        ("xml", live, "its live definition"),
        ("inactive", stored, "its stored definition"),
    ):
        if xml is None:
            continue
        apart = {name: value for name, value in _identity(xml).items() if listed[name] != value}
        if apart:
            shown = several(f"{name} {brief(value)}" for name, value in apart.items())
            yield problem(
                f"libvirt lists {guest.title} with "
                f"{several(f'{name} {brief(listed[name])}' for name in apart)}, but {words} has "
                f"{shown}",
                derives(domain, "uuid", "name", **{name: listed[name] for name in apart}),
                derives(domain, field, **{f"its_{name}": value for name, value in apart.items()}),
            )
    if live is not None and domain.listed is not None and live.id != domain.id:
        yield problem(
            f"libvirt lists {guest.title} with number {domain.id or '-'}, but its live definition "
            f"has {live.id or '-'}",
            says(domain, id=domain.id),
            derives(domain, "xml", its_id=live.id),
            severity=Severity.WARNING,
        )
    xml = live if domain.id is not None else stored
    if xml is not None:
        yield from _sizes(guest, domain, xml)


def _heard(domain: Domain, part: str) -> DomainXML | None:
    """Return a definition; None if it was not collected. Raises `UnheardError` if it is broken."""
    if part not in domain.said or domain.said[part].error is not None:
        return None
    xml: DomainXML = getattr(domain, part)
    return xml


def _identity(xml: DomainXML) -> dict[str, str]:
    found = {"uuid": xml.uuid, "name": xml.name}
    inside = xml.smbios.get("uuid")
    # libvirt refuses a definition with another UUID in its SMBIOS. The live one has its own check.
    if inside and UUID.fullmatch(inside.lower()) and xml.id is None:
        found["smbios_uuid"] = inside.lower()
    return found


def _sizes(guest: Guest, domain: Domain, xml: DomainXML) -> Iterator[Problem]:
    told = known(lambda: domain.size_told)
    if told is None:
        return
    total, current, vcpus = told
    defined = (xml.total_memory_kib, xml.current_memory_kib, xml.current_vcpus)
    evidence: tuple[Evidence, ...]
    if (total, vcpus) != (defined[0], defined[2]):
        ours, theirs = sizes(total << 10, defined[0] << 10)
        evidence = (
            derives(domain, "size_told", memory_kib=total, vcpus=vcpus),
            derives(
                domain,
                "xml" if domain.id is not None else "inactive",
                memory_kib=defined[0],
                vcpus=defined[2],
            ),
        )
        yield problem(
            f"libvirt reports {guest.title} with {ours} of memory and {vcpus} vCPUs, but its "
            f"definition has {theirs} and {defined[2]}",
            *evidence,
            severity=Severity.WARNING,
        )
    elif domain.id is not None and current > total:
        ours, theirs = sizes(current << 10, total << 10)
        yield problem(
            f"libvirt reports that {guest.title} uses {ours} of its {theirs} of memory",
            derives(domain, "size_told", current_memory_kib=current, memory_kib=total),
            severity=Severity.WARNING,
        )


FOLDER = re.compile(r"domain-(\d{1,9})-(.+)")


@check(Severity.ERROR, traps=[building, task_in_flight, migrating, of_another_libvirt])
def process_has_another_domains_files(
    guest: Guest, domain: Domain, process: Process, log: Log | None
) -> Problems:
    """The guest's QEMU has the control group, the secrets, the process file or the log of another
    domain.

    libvirt names all of them after the domain when it starts QEMU. If one has another name, limits,
    keys, signals and messages that are meant for one guest reach another. Causes: a process that
    was moved to another group by hand, files in /run/libvirt/qemu that were copied or restored, two
    libvirt daemons that share folders, or texts of a bundle that were put together from several
    guests.

    Authority: The kernel, for the process; libvirt's list of domains, for the name and the number.

    Traps: Only nova's own names of domains are compared, because libvirt shortens others. Old
    releases of libvirt put no number into these names. A log that was rotated has no start in it.
    A domain that was renamed while it was off has its new name everywhere.

    Next: Compare the names that the process carries with libvirt's list:

        virsh list --all --uuid --name
        cat /proc/PID/cgroup
        ls -l /proc/PID/fd
        ls -l /run/libvirt/qemu
        grep -h uuid /var/log/libvirt/qemu/NAME.log

    If they are as in the evidence, check that the server's volumes and ports are right, then stop
    and start the server at a time that suits its owner, which ends the guest and makes all of them
    anew:

        openstack server volume list UUID
        openstack port list --server UUID
        openstack server stop UUID
        openstack server start UUID

    It worked if the new process has the name of its own domain:

        cat /proc/$(cat /run/libvirt/qemu/NAME.pid)/cgroup

    Not yet: Do not send a signal to a process whose number was read from a file in
    /run/libvirt/qemu, and do not run `virsh destroy`, before it is clear which guest it is.

    Source: libvirt src/qemu/qemu_domain.c `qemuDomainSetPrivatePaths`; src/hypervisor/
    domain_driver.c `virDomainDriverGenerateMachineName`; src/qemu/qemu_process.c.
    """
    number, name = domain.id, domain.name
    if number is None or NOVA_NAME.fullmatch(name) is None:
        return
    for what, other, carried in _carried(process, log):
        if other not in ((number, name), (None, name), (None, domain.uuid)):
            shown = other[1] if other[1] != name else f"domain number {other[0]}"
            yield problem(
                f"{guest.title}'s QEMU (PID {process.pid}) has the {what} of {brief(str(shown))},"
                f" not of {name}",
                says(domain, id=number, name=name),
                carried(),
            )


def _carried(
    process: Process, log: Log | None
) -> Iterator[tuple[str, tuple[int | None, str], Callable[[], Evidence]]]:
    """Yield what libvirt names after a domain, the number and name in it, and the evidence, which
    is made only for the few that differ."""
    groups = known(lambda: process.control_groups) or ()
    parts = {part for path in groups for part in path.split("/")}
    for machine in sorted({found for part in parts if (found := machine_of(part))}):
        group = "-".join(map(str, machine))
        yield (
            "control group",
            machine,
            partial(derives, process, "control_groups", control_group=group),
        )
    folder = known(lambda: process.argv.folder)
    if folder is not None and (start := FOLDER.fullmatch(folder)):
        yield (
            "folder",
            (int(start[1]), start[2]),
            partial(derives, process, "argv", folder=folder),
        )
    for file in known(lambda: process.files) or ():
        directory, _, name = file.path.rpartition("/")
        if directory.endswith("/libvirt/qemu") and name.endswith(".pid"):
            pid_file = partial(says, process, files=file.path)
            yield "PID file", (None, name.removesuffix(".pid")), pid_file
    owner = known(lambda: log.owner) if log is not None else None
    if owner is not None and log is not None:
        yield "log", (None, owner), partial(says, log, owner=owner)
