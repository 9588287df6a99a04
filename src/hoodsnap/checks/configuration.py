"""nova.conf compared with what the running guests and nova's records were made from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import NamedTuple

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.evidence import Evidence, Severity, derives, hears
from hoodsnap.facts.clock import moment
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.fact import UnheardError, known
from hoodsnap.facts.host.hypervisor import CAPABILITIES
from hoodsnap.facts.host.instances_directory import is_base
from hoodsnap.facts.quantity import is_address
from hoodsnap.phrase import counted, several

SHOWN = 10
"""Number of guests that one finding shows; the others are only counted."""

ANY = frozenset(["", "0.0.0.0", "::", "*"])  # noqa: S104 (names of addresses; nothing listens)
"""Addresses that stand for all addresses."""


CHOICES = {
    ("libvirt", "virt_type"): {"kvm", "lxc", "qemu", "uml", "xen", "parallels"},
    ("libvirt", "images_type"): {"raw", "flat", "qcow2", "lvm", "rbd", "ploop", "default"},
}
"""Options of which nova-compute accepts only some values, in any release since Kilo."""

FILES = frozenset(["raw", "qcow2"])
"""Kinds of disks that are files in the server's folder."""

OF_THE_HOST = (
    ("DEFAULT", "my_ip"),
    ("libvirt", "live_migration_inbound_addr"),
    ("vnc", "server_listen"),
    ("spice", "server_listen"),
)
"""Options with an address at which the host itself listens or is reached."""


class _Made(NamedTuple):
    """A guest that was made with another value than nova.conf has now."""

    guest: Guest
    value: str
    evidence: Evidence


@check(Severity.NOTE)
def nova_conf_not_applied(host: Host, cloud: Cloud) -> Problems:
    """nova.conf has another value than the one that the guests on the host were made with.

    nova-compute reads nova.conf when it starts, and writes addresses and kinds of disks into a
    domain when it defines it. After a change of nova.conf, guests that run keep the old value until
    their next stop and start, hard reboot or move, and then get the new one: a console that listens
    elsewhere, disks that nova looks for in another store, or emulation in place of KVM. A change
    that nobody intended (a deployment tool with a wrong variable) shows here first.

    Authority: The guests, for what is in use; nova.conf, for their next start.

    Traps: A guest that was started before an intended change. A console token that is older than
    the server's last change may be of the host that the server left. A console on a Unix socket has
    no address; one on all addresses is vnc-port-conflict-or-exposed. The disk of a server that
    boots from a volume is cinder's. A live migration keeps the kind of virtualization of the host
    that the guest was started on. Guests of other clouds and guests without a record in nova are
    not compared. An option that is not set has a default, which is not compared.

    Next: Compare nova.conf with the definitions of the guests, and check when nova-compute started:

        grep -n -E 'OPTION' NOVA_CONF
        virsh dumpxml UUID
        ps -o pid,lstart,args -C nova-compute

    If the change was intended, every stop and start of a server through nova applies it, and
    nothing has to be done, except for images_type: nova converts no existing disk. A file keeps its
    format, raw or qcow2, and new servers get the new one. With rbd or lvm on one side, nova looks
    for the disk in a store that does not have it, and the guest does not start: keep the old value
    on this host, or migrate its servers away first and change the value of the empty host.

    If the change was not intended, put the old value back into the file. A nova-compute that
    started before the change never read the new value. If it started later, restart it; guests keep
    running:

        systemctl restart nova-compute

    It worked if the file has the value that the guests have:

        grep -n -E 'OPTION' NOVA_CONF

    Not yet: Do not hard-reboot or migrate servers of the host, and do not restart nova-compute,
    before it is clear which value is the right one.

    Source: nova virt/libvirt/driver.py `_guest_add_video_device`, `get_vnc_console`; nova
    virt/libvirt/imagebackend.py `Backend.backend`.
    """
    guests = [
        guest
        for guest in cloud.guests_of(host)
        if guest.is_here and guest.domain is not None and guest.instance is not None
    ]
    undecided: UnheardError | None = None
    for part in (_consoles, _switched_off, _stores, _types):
        try:
            yield from part(host, guests)
        except UnheardError as reason:
            undecided = undecided or reason
    if undecided is not None:
        raise undecided


def _consoles(host: Host, guests: Sequence[Guest]) -> Iterator[Problem]:
    for kind in ("vnc", "spice"):
        wanted = host.option(kind, "server_listen")
        if not re.fullmatch(r"[0-9a-fA-F.:]+", wanted):
            continue
        others = [made for made in _listening(guests, kind) if made.value != wanted]
        yield from _told(host, kind, "server_listen", wanted, others, "a console on")
        wanted = host.option(kind, "server_proxyclient_address")
        yield from _unreachable(host, guests, kind, wanted)
        tokens = [made for guest in guests for made in _tokens(guest, kind, wanted)]
        yield from _told(
            host, kind, "server_proxyclient_address", wanted, tokens, "a console token for"
        )


def _unreachable(host: Host, guests: Sequence[Guest], kind: str, wanted: str) -> Iterator[Problem]:
    """Yield consoles at which nobody listens on the address that nova gives to its proxy."""
    if not is_address(wanted) or wanted in ANY:
        return
    others = [
        made
        for made in _listening(guests, kind)
        if made.value == host.option(kind, "server_listen") and made.value != wanted
    ]
    yield from _told(host, kind, "server_proxyclient_address", wanted, others, "a console on")


def _listening(guests: Sequence[Guest], kind: str) -> Iterator[_Made]:
    """Yield each address at which a running guest's console of a kind listens, but wildcards."""
    for guest in guests:
        domain = guest.domain
        if domain is None or domain.id is None:
            continue
        for console in known(lambda domain=domain: domain.graphics) or ():  # type: ignore[misc]
            for address in console.listens if console.type == kind else ():
                if address not in ANY and is_address(address):
                    yield _Made(guest, address, derives(domain, "graphics", listen=address))


def _switched_off(host: Host, guests: Sequence[Guest]) -> Iterator[Problem]:
    for kind in ("vnc", "spice"):
        wanted = host.option(kind, "enabled")
        if wanted.lower() in ("false", "0", "no", "off"):
            others = [
                _Made(made.guest, kind.upper(), made.evidence) for made in _listening(guests, kind)
            ]
            yield from _told(host, kind, "enabled", wanted, others, "a console of kind")


def _types(host: Host, guests: Sequence[Guest]) -> Iterator[Problem]:
    wanted = host.option("libvirt", "virt_type")
    if wanted not in ("kvm", "qemu"):
        return
    others = []
    for guest in guests:
        domain = guest.domain
        its = known(lambda domain=domain: domain.current.type) if domain is not None else None  # type: ignore[misc]
        if domain is not None and its in ("kvm", "qemu") and its != wanted:
            others.append(_Made(guest, its, derives(domain, "xml", type=its)))
    yield from _told(host, "libvirt", "virt_type", wanted, others, "a domain of type")


def _tokens(guest: Guest, kind: str, wanted: str) -> Iterator[_Made]:
    """Yield the console tokens, still valid, that lead to another address."""
    instance = guest.instance
    if not wanted or instance is None or instance.tables is None:
        return
    for row in instance.tables.of("console_auth_tokens", guest.uuid, instance.database):
        host, expires = row.cells.get("host"), row.cells.get("expires")
        is_kind = {"novnc": "vnc", "xvpvnc": "vnc", "spice-html5": "spice"}.get(
            str(row.cells.get("console_type"))
        )
        now = row.answer.at.timestamp()
        valid = isinstance(expires, int | float) and expires > now
        if _is_from_before(row.cells.get("created_at"), guest):
            continue
        if isinstance(host, str) and is_kind == kind and valid and host != wanted:
            place = f"console_auth_tokens[id={row.cells.get('id')}]"
            yield _Made(guest, host, hears(row.answer, "nova-db", place, host=host))


def _is_from_before(created: object, guest: Guest) -> bool:
    """True if a token is older than the guest's last change: it may be of another host."""
    at = moment(created)
    record = guest.record
    changed = known(lambda: moment(record.updated_at)) if record is not None else None
    return at is not None and changed is not None and at < changed


def _stores(host: Host, guests: Sequence[Guest]) -> Iterator[Problem]:
    wanted = host.option("libvirt", "images_type")
    store = {"flat": "raw"}.get(wanted, wanted)
    if store not in ("raw", "qcow2", "rbd", "lvm", "ploop"):
        return
    others = []
    for guest in guests:
        domain, instance = guest.domain, guest.instance
        if domain is None or instance is None or guest.record is None:
            continue
        if known(lambda one=instance: one.boots_from_volume) is not False:  # type: ignore[misc]
            continue
        if guest.record.vm_state == "rescued":
            continue
        for disk in known(lambda domain=domain: domain.current.disks) or ():  # type: ignore[misc]
            if disk.target not in ("vda", "sda", "hda", "xvda") or disk.device != "disk":
                continue
            if is_base(disk.source or ""):
                continue  # guest-writes-into-base
            kind = disk.image.type
            its = {"block": "lvm", "network": disk.protocol}.get(kind, disk.format)
            if its and its != store and its in ("raw", "qcow2", "rbd", "lvm"):
                seen = derives(domain, "disks", disk=disk.target, store=its)
                others.append(_Made(guest, its, seen))
    # A file keeps its format, but a disk in another store is not found at the next start.
    apart = store not in FILES or any(made.value not in FILES for made in others)
    severity = Severity.WARNING if apart else None
    what = "a root disk of kind"
    yield from _told(host, "libvirt", "images_type", wanted, others, what, severity)


def _told(
    host: Host,
    section: str,
    option: str,
    wanted: str,
    others: Sequence[_Made],
    what: str,
    severity: Severity | None = None,
) -> Iterator[Problem]:
    if not others or not wanted:
        return
    values = several(sorted({made.value for made in others}))
    titles = several(dict.fromkeys(made.guest.title for made in others))
    answer = host.bundle.last("host", "/etc/nova/nova.conf", host.name)
    assert answer is not None  # noqa: S101 (its option was read)
    file = host.file_of(section, option)
    count = counted(len({made.guest.uuid for made in others}), "guest")
    yield problem(
        f"{_name(file)} of host {host.name} has {option} {wanted}, but {count} ({titles}) "
        f"{'has' if count.startswith('1 ') else 'have'} {what} {values}",
        hears(answer, _name(file), f"{section}.{option}", **{option: wanted}),
        *(made.evidence for made in others[:SHOWN]),
        severity=severity,
        OPTION=option,
        NOVA_CONF=file,
        UUID=others[0].guest.uuid,
    )


@check(Severity.WARNING)
def nova_conf_wrong(host: Host) -> Problems:
    """nova.conf names an address that the host does not have, or a value that can't work there.

    With a value that it does not know, nova-compute refuses its next start. With virt_type kvm on a
    host without KVM (a machine without `/dev/kvm`: virtualization is switched off in the firmware,
    or the host is a VM itself), no guest starts. With an address of
    another host, live migrations to this host end on the other one or fail, new consoles do not
    start, and volumes are exported to the wrong address. A deployment tool with a wrong variable,
    or a host that got new addresses, leaves such a file; the running nova-compute still has the old
    values.

    Authority: The kernel, for the host's addresses; libvirt, for the types of guests.

    Traps: Host names are not resolved. An address that the host had only while another network was
    up. An address that is translated in between is on no device of the host.

    Next: Compare the option with the host's addresses:

        grep -n -E 'OPTION' NOVA_CONF
        ip -brief address
        virsh capabilities
        ls -l /dev/kvm
        ps -o pid,lstart,args -C nova-compute

    Then, while nova-compute is stopped, correct the option; a deployment tool would write it again,
    so correct its variable, too.

    Not yet: Do not restart nova-compute before the value is right. Do not live-migrate servers to
    the host.

    Source: nova configuration reference, `virt_type`, `images_type`, `my_ip`,
    `live_migration_inbound_addr`, `server_listen`.
    """
    answer = host.bundle.last("host", "/etc/nova/nova.conf", host.name)
    for (section, option), choices in CHOICES.items():
        value = host.option(section, option)
        if value and value not in choices and answer is not None:
            file = host.file_of(section, option)
            yield problem(
                f"{_name(file)} of host {host.name} has {option} {value}, which nova does not know",
                hears(answer, _name(file), f"{section}.{option}", **{option: value}),
                OPTION=option,
                NOVA_CONF=file,
            )
    yield from _without_kvm(host)
    there = host.network.addresses
    if there is None or answer is None:
        raise UnheardError("the host's addresses were not collected")
    for section, option in OF_THE_HOST:
        value = host.option(section, option)
        if is_foreign(host, value):
            file = host.file_of(section, option)
            yield problem(
                f"{_name(file)} of host {host.name} has {option} {value}, which is no address of "
                "the host",
                hears(answer, _name(file), f"{section}.{option}", **{option: value}),
                hears(there[1], "network", value, address=None),
                OPTION=option,
                NOVA_CONF=file,
            )


def _name(path: str) -> str:
    """Return the name by which a finding calls a configuration file."""
    return path.rpartition("/")[2]


def _without_kvm(host: Host) -> Iterator[Problem]:
    """Yield the problem that the host can't run guests of type kvm, which nova would define."""
    answer = host.bundle.last("host", "/etc/nova/nova.conf", host.name)
    if host.option("libvirt", "virt_type") != "kvm" or answer is None:
        return
    types = known(lambda: host.hypervisor.guest_types)
    capabilities = host.hypervisor.answer("libvirt", CAPABILITIES)
    if not types or "kvm" in types or capabilities is None:
        return
    file = host.file_of("libvirt", "virt_type")
    yield problem(
        f"{_name(file)} of host {host.name} has virt_type kvm, but libvirt there offers only "
        f"{several(sorted(types))}",
        hears(answer, _name(file), "libvirt.virt_type", virt_type="kvm"),
        hears(capabilities, "libvirt", "/capabilities/guest/arch/domain", types=sorted(types)),
        OPTION="virt_type",
        NOVA_CONF=file,
    )


def is_foreign(host: Host, value: str) -> bool:
    """True if an option's value is an address that the host does not have; False if unknown."""
    there = host.network.addresses
    if there is None or not is_address(value):
        return False
    is_local = value in ANY or value.startswith("127.") or value == "::1"
    return not is_local and _plain(value) not in {_plain(one) for one in there[0]}


def _plain(address: str) -> str:
    """Return an address in its shortest form: IPv6 addresses may be written in several ways."""
    try:
        return str(ip_address(address))
    except ValueError:
        return address
