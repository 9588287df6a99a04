"""The bundle itself: contradictions that make every other check worthless."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from hoodsnap import phrase
from hoodsnap.bundle import Answer
from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.evidence import Severity, hears
from hoodsnap.facts.clock import http_moment
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.host import Host

TOLERATED_SKEW = 2.0
"""Seconds. nova compares timestamps of different machines; NTP keeps them closer than this."""


@check(Severity.ERROR)
def capture_untrustworthy(host: Host) -> Problems:
    """The bundle contradicts itself: a layer was queried in the wrong place or at another time.

    If libvirt reports running domains and the kernel lists none of their processes, one is wrong.
    Usually the collector ran in a container or another PID namespace, or queried a libvirt
    daemon that does not run the guests. Or nova's API and database belong to two clouds. For
    such a layer, hoodsnap draws no conclusion from a missing object, and lists the layer under what
    the bundle can't tell.

    Authority: Neither layer; the capture has to be repeated.

    Traps: On a host without guests both lists are empty, which is correct.

    Next: On the host where the bundle was taken, check the PID namespace and the libvirt
    connection:

        readlink /proc/self/ns/pid /proc/1/ns/pid
        virsh uri

    Then collect again on the host itself, or with `--libvirt-uri`.

    Not yet: Do not act on anything that is missing in this bundle.

    Source: nova's own `placement audit` once called every allocation of an unreachable cell
    orphaned (nova cmd/manage.py, `_check_orphaned_allocations_for_provider`).
    """
    for layer, answer in sorted(host.census.items()):
        if layer in host.unheard:
            yield _doubted(host, layer, answer)
    if host.instances.doubted is not None and "libvirt" in host.census:
        running = sum(domain.id is not None for domain in host.domains.values())
        for (_, table), answers in host.instances.tables.read.items():
            if table == "instances":
                yield problem(
                    f"libvirt on {host.name} lists {phrase.counted(running, 'running domain')}, and"
                    " nova's database knows none of them",
                    hears(host.census["libvirt"], "libvirt", guests=running),
                    hears(answers[0], "nova-db", known_instances=0),
                )
                break
    if len(host.boot_ids) > 1:
        # The host was rebooted between two visits, or two hosts have the same name.
        boots = phrase.several(boot[:8] for boot in host.boot_ids)
        yield problem(
            f"Host {host.name} has {len(host.boot_ids)} boot ids in these bundles: {boots}",
            *(hears(answer, "kernel", boot_id=boot) for boot, answer in host.boot_ids.items()),
        )


def _doubted(host: Host, layer: str, answer: Answer) -> Problem:
    neighbor = {"kernel": "libvirt", "libvirt": "kernel"}.get(layer, layer)
    running = [domain for domain in host.domains.values() if domain.id is not None]
    shown = len(host.processes.by_uuid)
    counts = {"libvirt": len(running), "kernel": shown}
    words = {
        "libvirt": f"libvirt lists {phrase.counted(len(running), 'running domain')}",
        "kernel": f"the kernel shows QEMU of {phrase.counted(shown, 'guest')}",
    }
    contradiction = f"{words['libvirt']}, but {words['kernel']}"
    return problem(
        f"On {host.name}, {contradiction if layer in words else f'{layer} was asked elsewhere'}",
        hears(answer, layer, guests=counts.get(layer)),
        hears(host.census.get(neighbor, answer), neighbor, guests=counts.get(neighbor)),
    )


@check(Severity.ERROR)
def bundles_of_two_clouds(cloud: Cloud) -> Problems:
    """The bundles given belong to two clouds.

    Two nova APIs that have no service in common belong to two clouds. Read together, a host of one
    cloud is unknown to the nova of the other, hosts with equal names become one host, and every
    conclusion from that is wrong.

    Authority: Neither API; read the bundles of each cloud separately.

    Traps: An API that lists no services, or none to this user, proves nothing. Hosts of several
    cells have one API.

    Next: Compare the endpoints where the bundles were taken:

        openstack endpoint list --service compute

    Then run `hoodsnap explain` on the bundles of each cloud separately.

    Not yet: Do not act on anything that was found in these bundles together.

    Source: nova API reference, os-services (lists the services of all cells).
    """
    listed = {asker: (answer, names) for asker, answer, names in _services(cloud) if names}
    askers = sorted(listed)
    ours = _connected([listed[asker][1] for asker in askers])
    for asker in askers:
        answer, names = listed[asker]
        if not names & ours:
            first, theirs = listed[askers[0]]
            yield problem(
                f"The bundles of {askers[0]} and {asker} are of two clouds: their nova APIs have no"
                " service in common",
                hears(first, "nova", asked_on=askers[0], service=min(theirs)),
                hears(answer, "nova", asked_on=asker, service=min(names)),
            )


def _connected(lists: Sequence[frozenset[str]]) -> set[str]:
    """Return the services of the first list's cloud: lists that share a service belong together."""
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
            continue  # a client's request without a microversion: same services, other ids
        services = answer.value.get("services")
        rows = services if isinstance(services, list) else []
        # Before 2.53 ids are numbers, and another cloud has the same numbers.
        names = (
            f"{row.get('binary')} on {row.get('host')}, id {row.get('id')}"
            for row in rows
            if isinstance(row, dict)
        )
        yield answer.host, answer, frozenset(names)


@check(Severity.WARNING)
def clocks_apart(cloud: Cloud) -> Problems:
    """The clocks of the layers differ by more than two seconds.

    Everything judged by its age is then judged wrongly, by nova too: a stuck task, a missed
    heartbeat, the order of two events. A compute service whose clock is a minute behind is "down".

    Authority: None of the clocks; NTP.

    Traps: A slow answer is not a clock difference: the duration of each request is allowed for.

    Next: Compare the clocks on the machines named. In a shell:

        date --utc +%s.%N

    In the database:

        SELECT UTC_TIMESTAMP(6)

    Not yet: Do not judge anything by its age.

    Source: nova servicegroup/drivers/db.py `is_up`.
    """
    for answer, shown in _clocks(cloud):
        offset = (shown - answer.at).total_seconds()
        # The clock was read at some point between the request and the answer.
        apart = max(-offset, offset - answer.took)
        if apart > TOLERATED_SKEW:
            behind = f"{phrase.lasting(abs(offset))} {'ahead of' if offset > 0 else 'behind'}"
            yield problem(
                f"The clock of {answer.layer} is {behind} the collector's on {answer.host}",
                hears(answer, f"clock of {answer.layer}", time=shown.isoformat(timespec="seconds")),
                hears(answer, "collector", time=answer.at.isoformat(timespec="seconds")),
            )


def _clocks(cloud: Cloud) -> Iterator[tuple[Answer, datetime]]:
    if cloud.instances.clock is not None:
        yield cloud.instances.clock
    for answer in cloud.bundle.asked("nova", "HEAD "):
        shown = http_moment(answer.value.get("date")) if isinstance(answer.value, dict) else None
        if shown is not None:
            yield answer, shown
