"""Servers in error whose guests do not run: what failed, what is left, and the way back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from hoodsnap import phrase
from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.identity import SetAside, expected_files, set_aside
from hoodsnap.checks.state import (
    after_a_fault,
    ending,
    failed_action,
    fault,
    since_logged,
)
from hoodsnap.checks.traps import migrating, task_in_flight
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.api.port import Port
from hoodsnap.facts.api.server import Server
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.state import DomainState
from hoodsnap.facts.fact import UnheardError, known
from hoodsnap.phrase import brief, several

OFF = frozenset([DomainState.SHUTOFF, DomainState.CRASHED])
"""States in which a domain has no QEMU that could run."""

FAILED = frozenset(["error", "failed"])
"""Statuses of a move that failed."""


class _Rest(NamedTuple):
    """Parts of a server besides its domain that still exist."""

    there: list[str]
    """Kinds of parts that are complete: `disk`, `volumes` …"""
    wrong: list[str]
    """Parts that are missing or wrong: `its disk is missing`."""
    evidence: list[Evidence]


@check(Severity.WARNING, traps=[task_in_flight, migrating])
def server_in_error(
    guest: Guest, record: Server | Instance, instance: Instance | None, domain: Domain | None
) -> Problems:
    """The server is in error in nova, and its guest does not run.

    An operation failed, or an operator set the state, and nova has given the server up: it neither
    starts the guest nor corrects its record. The evidence shows the fault and the action, if nova
    kept them. What the operation had not touched is still there.

    Authority: nova's fault and its last action, for what failed; the layers below, for what is
    left.

    Traps: A server whose build failed never had a guest; its owner deletes it. A guest that runs
    although the server is in error is reported by `error-but-running`. A guest that is shutting
    down still has its QEMU: wait until the domain is shut off (qemu-does-not-end reports a QEMU
    that is stuck).

    Next: Read the fault and the server's history, and search nova's logs on the host of the failed
    step for the request id:

        openstack server show UUID
        openstack server event list UUID
        openstack server migration list --server UUID

    Check that the guest runs on no other host, and that its disks, volumes and ports are there; run
    the first command on each host:

        virsh list --all --uuid
        ls -l INSTANCES_PATH/UUID
        openstack server volume list UUID
        openstack port list --server UUID

    If a disk, a volume or a port is missing, bring it back first.

    If the disk is in `UUID_resize`, and the guest does not run on the other host of the move, give
    the folder its name back, which copies nothing:

        mv -T RESIZE_FOLDER FOLDER

    Then, once the cause of the fault is gone, stop the server in nova, which ends the error, and
    start it, which defines its domain again and boots the guest:

        openstack server stop IN_ERROR
        openstack server start IN_ERROR

    It worked if nova reports the server as ACTIVE and its domain runs:

        openstack server show UUID
        virsh domstate --reason UUID

    Not yet: Do not run `openstack server rebuild`, which makes the root disk anew. Do not run
    `virsh start`: nova does not notice it. Do not run `openstack server set --state active` while
    the guest is off.

    Source: nova compute/api.py (`stop` is allowed in ERROR, `start` is not), `_hard_reboot`; nova
    admin guide, "reset the state of an instance".
    """
    if record.deleted or record.vm_state != "error" or not guest.carries_record:
        return
    nowhere = guest.is_nowhere
    ends = domain is not None and domain.state == DomainState.SHUTDOWN
    if not (guest.is_here or nowhere) or (guest.process is not None and not ends):
        return
    for layer in ("libvirt", "kernel"):
        if layer in guest.unheard and not nowhere:
            raise UnheardError(guest.unheard[layer])
    if domain is None and not record.launched_at:
        return  # its build failed; the walk shows the fault
    if domain is not None and domain.state not in OFF and not ends:
        return
    rest = _rest(guest, record)
    kept = _set_aside(guest, rest)
    wrong = several(rest.wrong, 4)
    there = f"{several(rest.there, 4)} {'is' if rest.there == ['its disk'] else 'are'} there"
    left = wrong if rest.wrong else there if rest.there else ""
    yield problem(
        f"{guest.title} is in error in nova{after_a_fault(instance or record)}, and "
        f"{_guest_words(guest, domain)}{f'; {left}' if left else ''}",
        *fault(instance or record),
        *failed_action(instance),
        *_failed_move(instance),
        says(record, vm_state=record.vm_state, host=known(lambda: record.host)),
        *([says(domain, state=domain.state_words)] if domain is not None else _lacks(guest)),
        *rest.evidence,
        *ending(guest.log if domain is not None else None),
        severity=Severity.ERROR if rest.wrong else Severity.WARNING,
        IN_ERROR="" if nowhere or ends or (rest.wrong and kept is None) else guest.uuid,
        RESIZE_FOLDER=kept.path if kept is not None else "",
        FOLDER=kept.path.removesuffix("_resize") if kept is not None else None,
    )


def _guest_words(guest: Guest, domain: Domain | None) -> str:
    if domain is not None:
        log = guest.log
        since = since_logged(lambda: log.ended if log is not None else None, domain, "state")
        return f"its domain {'has been' if since else 'is'} {domain.state_words}{since}"
    if guest.host is None:
        return "it is on no host"
    return f"libvirt has no domain for it on {guest.host.name}"


def _set_aside(guest: Guest, rest: _Rest) -> SetAside | None:
    """Return the folder of a resize that has the disk, if nothing else is wrong."""
    if guest.host is None or not rest.wrong or not all("_resize" in one for one in rest.wrong):
        return None
    return set_aside(guest.host, guest.uuid, "disk")


def _lacks(guest: Guest) -> Iterator[Evidence]:
    if (listing := guest.census.get("libvirt")) is not None:
        yield hears(listing, "libvirt", guest.uuid, domain=None)


def _failed_move(instance: Instance | None) -> Iterator[Evidence]:
    """Yield the server's last move if it failed: the guest may be on its other host."""
    moves = instance.migrations if instance is not None else None
    last = max(moves or (), key=lambda moved: moved.id or 0, default=None)
    if last is not None and last.status in FAILED:
        yield says(
            last,
            type=last.type,
            status=last.status,
            source_compute=last.source_compute,
            dest_compute=last.dest_compute,
        )


def _rest(guest: Guest, record: Server | Instance) -> _Rest:
    rest = _Rest([], [], [])
    for look in (_look_at_disks, _look_at_volumes, _look_at_ports):
        try:
            look(guest, record, rest)
        except UnheardError:
            continue  # this part is unknown; the others still count
    return rest


def _look_at_disks(guest: Guest, record: Server | Instance, rest: _Rest) -> None:
    host = guest.host
    if host is None or "images" not in guest.census or host.keeps_disks_elsewhere:
        return
    sizes = {name: host.images.size_of(guest.uuid, name) for name in expected_files(guest, record)}
    for name, size in sizes.items():
        if size:
            continue
        kept = set_aside(host, guest.uuid, name)
        found = "missing" if size is None else "empty"
        rest.wrong.append(f"its {name} is {found if kept is None else f'in {kept.words}'}")
    if sizes:
        listing = guest.census["images"]
        rest.evidence.append(hears(listing, "images", guest.uuid, **sizes))
        if all(sizes.values()):
            rest.there.append("its disk" if len(sizes) == 1 else "its disks")


def _look_at_volumes(guest: Guest, record: Server | Instance, rest: _Rest) -> None:
    instance = guest.instance
    mapped = instance.mappings_shown if instance is not None else ()
    named = [mapping.volume_id for mapping in mapped if mapping.volume_id is not None]
    if guest.volumes is None:
        return
    wrong = len(rest.wrong)
    for one in named:
        volume = guest.storage.volumes.volume(one)
        if volume is None:
            rest.wrong.append(f"its volume {brief(one)} does not exist")
        elif volume.status != "in-use":
            rest.wrong.append(f"its volume {brief(one)} is {phrase.state(volume.status)}")
        if volume is not None:
            rest.evidence.append(says(volume, id=volume.id, status=volume.status))
    if named and len(rest.wrong) == wrong:
        rest.there.append("volumes" if rest.there else "its volumes")


def _look_at_ports(guest: Guest, record: Server | Instance, rest: _Rest) -> None:
    instance = guest.instance
    if guest.ports is None:
        return
    cached = set(instance.cached_ports) if instance is not None else set()
    gone = cached - {port.id for port in guest.ports}
    if gone:
        rest.wrong.append(f"its port {several(brief(one) for one in sorted(gone))} does not exist")
    for port in guest.ports:
        rest.evidence.append(says(port, id=port.id, **_of_port(port)))
    if guest.ports and not gone:
        rest.there.append("ports" if rest.there else "its ports")


def _of_port(port: Port) -> dict[str, object]:
    return {"status": known(lambda: port.status), "host": known(lambda: port.host)}
