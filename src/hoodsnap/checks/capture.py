"""Whether the bundle can be believed: the gate before every other check."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from hoodsnap.bundle import Answer
from hoodsnap.check import Problems, check
from hoodsnap.evidence import Evidence, Severity, hears
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.host import Host

TOLERATED_SKEW = 2.0
"""Seconds. nova compares timestamps of different machines; below this NTP is doing its work."""


@check(Severity.ERROR)
def capture_untrustworthy(host: Host) -> Problems:
    """The bundle contradicts itself: a layer was asked in the wrong place, or at another time.

    libvirt with running domains and a kernel without one of their processes can't both be right.
    Usually the collector ran in a container or another PID namespace, or asked another libvirt
    daemon than the one that runs the guests; or nova's API and database are of two clouds.
    Everything that would follow from "it is not there" is withdrawn for that layer and listed under
    what this bundle can't tell.

    Authority: neither; the capture has to be repeated.

    Traps: a host that really is empty has both lists empty, which is legal.

    Next: run `readlink /proc/self/ns/pid /proc/1/ns/pid` and `virsh uri` where the bundle was
    taken, then collect again on the host itself (or with `--libvirt-uri`).

    Not yet: act on any absence in this bundle.

    Source: nova's own `placement audit` once called every allocation of an unreachable cell
    orphaned (nova cmd/manage.py, `_check_orphaned_allocations_for_provider`).
    """
    for layer, answer in sorted(host.census.items()):
        if layer in host.unheard:
            yield _doubted(host, layer, answer)
    if host.instances.doubted is not None and "libvirt" in host.census:
        running = sum(domain.id is not None for domain in host.domains.values())
        for answers in host.instances.tables.read.values():
            here = hears(host.census["libvirt"], "libvirt", guests=running)
            yield here, hears(answers[0], "nova-db", instances_of_these=0)
            break
    if len(host.boot_ids) > 1:
        # Two visits with a reboot in between, or two hosts that call themselves the same.
        yield tuple(hears(answer, "kernel", boot_id=boot) for boot, answer in host.boot_ids.items())


def _doubted(host: Host, layer: str, answer: Answer) -> tuple[Evidence, ...]:
    neighbour = {"kernel": "libvirt", "libvirt": "kernel"}.get(layer, layer)
    running = [domain for domain in host.domains.values() if domain.id is not None]
    counts = {"libvirt": len(running), "kernel": len(host.by_uuid)}
    return (
        hears(answer, layer, guests=counts.get(layer)),
        hears(host.census.get(neighbour, answer), neighbour, guests=counts.get(neighbour)),
    )


@check(Severity.ERROR)
def bundles_of_two_clouds(cloud: Cloud) -> Problems:
    """Bundles of two clouds were given as one.

    Two nova APIs that name not a single service in common are of two clouds. Read as one, a host
    of the one is unknown to the nova of the other, equal host names become one host, and whatever
    is said of that is wrong.

    Authority: neither; they have to be read apart.

    Traps: an API that lists no service, or not to this user, says nothing; hosts of several cells
    have one API.

    Next: compare `openstack endpoint list --service compute` where the bundles were taken. Then
    `hoodsnap explain` the bundles of each cloud by themselves.

    Not yet: act on anything that was found in them together.

    Source: nova API reference, os-services (lists the services of all cells).
    """
    listed = {asker: (answer, names) for asker, answer, names in _services(cloud) if names}
    askers = sorted(listed)
    ours = _connected([listed[asker][1] for asker in askers])
    for asker in askers:
        answer, names = listed[asker]
        if not names & ours:
            first, theirs = listed[askers[0]]
            yield (
                hears(first, "nova", asked_on=askers[0], service=min(theirs)),
                hears(answer, "nova", asked_on=asker, service=min(names)),
            )


def _connected(lists: Sequence[frozenset[str]]) -> set[str]:
    """The services of the first list's cloud: of it is whoever shares one with it."""
    ours: set[str] = set()
    grown = set(lists[0]) if lists else set()
    while len(grown) > len(ours):
        ours = grown
        grown = ours.union(*(names for names in lists if names & ours))
    return ours


def _services(cloud: Cloud) -> Iterator[tuple[str, Answer, frozenset[str]]]:
    for answer in cloud.bundle.asked("nova", "GET /"):
        path = answer.query.split()[1].partition("?")[0]
        if not path.endswith("/os-services") or not isinstance(answer.value, dict):
            continue
        if " [" not in answer.query:
            continue  # without a microversion, as clients ask: the same services by other ids
        services = answer.value.get("services")
        rows = services if isinstance(services, list) else []
        # Before 2.53 an id is a number, and another cloud has the same ones.
        names = (
            f"{row.get('binary')} on {row.get('host')}, id {row.get('id')}"
            for row in rows
            if isinstance(row, dict)
        )
        yield answer.host, answer, frozenset(names)


@check(Severity.WARNING)
def clocks_apart(cloud: Cloud) -> Problems:
    """The clocks of the layers differ by more than two seconds.

    Everything that is judged by its age (a stuck task, a missed heartbeat, which of two happened
    first) is judged wrongly then, by nova too: a compute service whose clock is a minute behind is
    "down".

    Authority: none of the clocks; NTP.

    Traps: a slow answer is no skew: the time that each question took is allowed for.

    Next: compare `date --utc +%s.%N` with `SELECT UTC_TIMESTAMP(6)` on the machines named.

    Not yet: judge anything by its age.

    Source: nova servicegroup/drivers/db.py `is_up`.
    """
    for answer, shown in _clocks(cloud):
        offset = (shown - answer.at).total_seconds()
        # The clock was read somewhere between the question and the answer.
        apart = max(-offset, offset - answer.took)
        if apart > TOLERATED_SKEW:
            yield (
                hears(answer, f"clock of {answer.layer}", time=shown.isoformat(timespec="seconds")),
                hears(answer, "collector", time=answer.at.isoformat(timespec="seconds")),
            )


def _clocks(cloud: Cloud) -> Iterator[tuple[Answer, datetime]]:
    if cloud.instances.clock is not None:
        yield cloud.instances.clock
    for answer in cloud.bundle.asked("nova", "HEAD "):
        shown = _http_date(answer.value)
        if shown is not None:
            yield answer, shown


def _http_date(value: object) -> datetime | None:
    from email.utils import parsedate_to_datetime

    written = value.get("date") if isinstance(value, dict) else None
    if not isinstance(written, str):
        return None
    try:
        shown = parsedate_to_datetime(written)
    except (ValueError, TypeError, OverflowError):
        return None
    return shown if shown.tzinfo else shown.replace(tzinfo=UTC)
