"""The host as a whole: whether nova's and placement's records match it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import partial

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.api.service import read_services
from hoodsnap.facts.clock import clock_of, moment
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.cloud.release import Release
from hoodsnap.facts.database.migration import ARMED
from hoodsnap.facts.database.service import Service
from hoodsnap.facts.fact import UnheardError, known, value_of
from hoodsnap.facts.quantity import whole
from hoodsnap.phrase import brief, counted, lasting, several, since

SHOWN = 10
"""Number of guests that one finding shows; the others are only counted."""

AHEAD = 5.0
"""Seconds of tolerance for a report in the future: clocks differ a little, times are cut."""

DOWN_TIME = 60
"""Default of nova.conf's `service_down_time`, in seconds."""

LATE = 30
"""Seconds of tolerance beyond it, for one report that may have been under way."""


@check(Severity.ERROR)
def host_identity_changed(host: Host, cloud: Cloud) -> Problems:
    """The host's name differs from the name under which nova knows it.

    nova finds a host's servers by the host's name alone. nova-compute reads its name when it
    starts: one that still runs under the old name manages its servers as before. Under a new name
    it starts as an empty host: the servers stay with the old name, and no nova-compute manages
    them. Before Liberty, a starting nova-compute destroys every guest whose record names another
    host; from 2023.1 on it refuses to start.

    Authority: The host name in the guests' records and allocations, which is the old name.

    Traps: For nova, a short host name and a fully qualified one are different names. Ironic has
    many nodes on one host. If a nova-compute with the other name is active on another machine, that
    name is not this host's old name. A single guest whose record names another host is a guest in
    the wrong place, not a renamed host. A server that was resized, migrated or evacuated from this
    host leaves its domain here for a while.

    Next: Compare the host's name, nova's configuration and the compute services:

        hostname
        grep ^host /etc/nova/nova*.conf
        openstack compute service list --service nova-compute

    The old name is the one that the servers of the host have in nova. If nova lists the service of
    the old name as up, nova-compute still runs under that name: correct the name (`host` in
    nova.conf) at once, and do not stop nova-compute for it. If that service is down, correct the
    name while nova-compute is stopped, and start it then. Under the new name, it removes the base
    images of these guests after a day.

    Not yet: Do not start or restart nova-compute before the old name is back. Do not run `openstack
    compute service delete` or `nova-manage placement audit --delete`. Do not delete `compute_id`.

    Source: nova bug 1419785; nova compute/manager.py `_check_for_host_rename`; specs
    stable-compute-uuid and robustify-evacuate.
    """
    name = host.option("DEFAULT", "host") or host.name
    guests = partial(_guests_elsewhere, cloud.guests_of(host))
    undecided: UnheardError | None = None
    for part in (guests, _node_of_another, _identity_of_another):
        try:
            found = part(host, name)
        except UnheardError as reason:
            undecided = undecided or reason
            continue
        if found is not None:
            yield found
            return
    if undecided is not None:
        raise undecided


def _own_name(host: Host, name: str) -> Evidence:
    answer = host.bundle.last("host", "/etc/nova/nova.conf", host.name)
    assert answer is not None  # noqa: S101 (its option was read)
    return hears(answer, host.file_name_of("DEFAULT", "host"), "DEFAULT.host", host=name)


def _guests_elsewhere(guests: Iterable[Guest], host: Host, name: str) -> Problem | None:
    """Return a problem if all running guests belong, for nova, to one other host that was not
    captured."""
    there: Counter[str] = Counter()
    shown = []
    for guest in guests:
        if guest.domain is None or guest.hidden is not None or guest.record is None:
            continue
        if guest.believed == name:
            return None
        elsewhere = guest.believed is not None and not guest.twins and not guest.record.deleted
        if guest.believed is not None and elsewhere and not _was_moved(guest, name):
            there[guest.believed] += 1
            shown.append(says(guest.record, host=guest.believed))
    if len(there) == 1 and there.total() > 1 and not _is_another_machine(host, *there):
        own = _own_name(host, name).and_so(guests_of_another=there.total())
        [other] = there
        headline = f"Host {name} runs {there.total()} guests that nova has on host {other}"
        active = _active_service(host, other)
        if active is not None:
            file = host.file_name_of("DEFAULT", "host")
            headline = (
                f"{file} has the host name {name}, but nova-compute still runs as {other}, with "
                f"{there.total()} guests; it takes the new name when it starts again"
            )
            shown.insert(0, says(active, host=other, last_seen_up=active.last_seen_up))
        return problem(headline, own, *shown[:SHOWN])
    return None


def _active_service(host: Host, other: str) -> Service | None:
    """Return the service of the host's old name if it reports; None if it does not, or if the host
    reports under its new name too."""
    if known(lambda: host.records.services_of(host.nova_name)) != ():
        return None
    for service in known(lambda: host.records.services_of(other)) or ():
        silent = known(lambda one=service: seconds_silent(host, one))  # type: ignore[misc]
        if silent is not None and abs(silent) <= DOWN_TIME + LATE:
            return service
    return None


def _is_another_machine(host: Host, other: str) -> bool:
    """True if a nova-compute of that name is active on another machine.

    Then the two names belong to two hosts, and the guests are on the wrong one.
    """
    address = host.option("DEFAULT", "my_ip")
    alive = any(seconds_silent(host, one) <= DOWN_TIME for one in host.records.services_of(other))
    if not alive or not address:
        return False  # a nova-compute that was started under the old name keeps it
    answer = host.bundle.last("libvirt", "virsh hostname", host.name)
    own = {value_of(answer, "virsh hostname", str), address}
    nodes = host.records.nodes_of(other)
    return bool(nodes) and not any(own & {node.hypervisor_hostname, node.host_ip} for node in nodes)


def _was_moved(guest: Guest, name: str) -> bool:
    """True if nova moved the guest away from here; what is left proves nothing about the host's
    name."""
    if guest.instance is None or guest.instance.migrations is None:
        raise UnheardError("its migrations were not collected")
    return any(moved.source_compute == name for moved in guest.instance.migrations)


def _node_of_another(host: Host, name: str) -> Problem | None:
    """Return a problem if nova has this hypervisor's compute node under another host name."""
    answer = host.bundle.last("libvirt", "virsh hostname", host.name)
    hypervisor = value_of(answer, "virsh hostname", str)
    if host.records.services_of(name) or host.records.nodes_of(name):
        return None
    for node in host.records.nodes:
        if not node.deleted and node.hypervisor_hostname == hypervisor and node.host != name:
            return problem(
                f"Host {name} is hypervisor {hypervisor}, which nova has as host {node.host}",
                _own_name(host, name),
                says(node, host=node.host, hypervisor_hostname=node.hypervisor_hostname),
            )
    return None


def _identity_of_another(host: Host, name: str) -> Problem | None:
    """Return a problem if the host's compute_id is the UUID of another host's compute node."""
    kept = host.compute_id
    for node in host.records.nodes if kept is not None else ():
        if kept is not None and node.uuid == kept[0] and not node.deleted and node.host != name:
            return problem(
                f"The compute_id of host {name} ({brief(kept[0])}) is that of host {node.host}",
                _own_name(host, name),
                hears(kept[1], "compute_id", uuid=kept[0]),
                says(node, uuid=node.uuid, host=node.host),
            )
    return None


@check(Severity.ERROR)
def service_state_skew(host: Host, cloud: Cloud) -> Problems:
    """nova's record of the host's compute service does not match the host.

    Guests keep running, so the fault goes unnoticed: commands for them fail or are never carried
    out, and an operator may consider the host dead and evacuate guests that still run. A service
    that was forced down counts as down until it is set up again, even if nova-compute works. A host
    that is mapped to no cell gets no new servers, and can't be disabled or enabled.

    Authority: The host, for what runs; nova's records, for what operators have set.

    Traps: Clocks that differ (`clocks-apart`). A service that was restarted a moment ago. A host
    that is disabled for maintenance.

    Next: Check the compute service in nova and on the host, its log, libvirt, and whether servers
    were evacuated:

        openstack compute service list --host HOST --long
        systemctl status nova-compute
        tail -n 50 /var/log/nova/nova-compute.log
        systemctl status libvirtd virtqemud
        openstack server migration list --host HOST --type evacuation

    If the service does not run and no server of the host was evacuated, start it (libvirt is
    virtqemud on a host with modular daemons). Guests keep running, and nova-compute enables itself
    once it reaches libvirt again:

        systemctl start SERVICE

    If an operator disabled the service and the reason is gone, enable it, which places servers on
    the host again:

        openstack compute service set --enable DISABLED nova-compute

    If the service was forced down but reports, and no server was evacuated from the host, ask who
    forced it down and why. If the reason is gone, set it up:

        openstack --os-compute-api-version 2.11 compute service set --up FORCED_DOWN nova-compute

    If the host has no host mapping, map it to its cell, which places servers on the host. The list
    of services is compared, because nova marks a compute node as mapped for ever:

        nova-manage cell_v2 discover_hosts --by-service --cell_uuid CELL

    It worked if the service is enabled and up:

        openstack compute service list --host HOST --long

    Not yet: Do not mark the service as up before the evacuated guests are off. Do
    not run `openstack compute service delete` while the host has servers. Do not evacuate running
    guests.

    Source: nova admin guide, services; nova bugs 1763183, 1852610; nova servicegroup/drivers/db.py.
    """
    services, guests = host.records.services_of(host.nova_name), cloud.guests_of(host)
    believed = [g for g in guests if g.is_here and g.record and not g.record.deleted]
    if not services:
        if believed:
            absent = host.records.read("services")
            evidence = hears(absent, "nova-db", "nova-compute", service=None)
            evidence = evidence.and_so(host=host.nova_name, servers=len(believed))
            yield problem(
                f"Host {host.nova_name} has {_servers(believed)}, but no nova-compute in nova",
                evidence,
                *_named(believed),
                SERVICE="nova-compute",
                DISABLED="",
                FORCED_DOWN="",
                CELL="",
            )
        return
    if len(services) > 1:
        rows = [says(one, id=one.id, host=one.host) for one in services]
        numbers = several(one.id for one in services)
        headline = f"nova has {len(rows)} nova-compute services of {host.nova_name}: ids {numbers}"
        yield problem(headline, *rows, SERVICE="", DISABLED="", FORCED_DOWN="", CELL="")
    running = [guest for guest in guests if guest.is_served]
    for service in services:
        yield from _commanded(host, cloud, service, running)
    yield from _late(host, services[0], running)
    yield from _unmapped(host, services[0])


def _named(guests: list[Guest]) -> list[Evidence]:
    return [says(g.record, host=g.believed) for g in guests[:SHOWN] if g.record is not None]


def _servers(guests: list[Guest]) -> str:
    """Return a count with names: `1 server (vm-a)`."""
    return f"{counted(len(guests), 'server')} ({several(guest.title for guest in guests)})"


def _commanded(
    host: Host, cloud: Cloud, service: Service, running: list[Guest]
) -> Iterator[Problem]:
    """Yield what an operator, or nova-compute itself, has set for the service."""
    if "forced_down" in service.raw and service.forced_down and running:
        forced = says(service, forced_down=True).and_so(running_guests=len(running))
        age = _seconds_since_report(host, service)
        left = _evacuated(host, cloud)
        pids = [
            says(g.process, pid=g.process.pid).and_so(uuid=g.uuid)
            for g in running[:SHOWN]
            if g.process
        ]
        yield problem(
            _forced(host, running, age, left),
            forced,
            *([says(service, last_seen_up=service.last_seen_up)] if age is not None else []),
            *pids,
            severity=Severity.ERROR,
            SERVICE="",
            DISABLED="",
            FORCED_DOWN=host.nova_name if age is not None and left == 0 else "",
            CELL="",
        )
    if service.disabled:
        reason = service.disabled_reason
        itself = (reason or "").startswith("AUTO:")
        said = says(service, disabled=True, disabled_reason=reason)
        severity = Severity.WARNING if itself else Severity.NOTE
        lost, off = ("libvirtd", "") if itself else ("", host.nova_name)
        headline = _disabled(host, reason or "", itself)
        yield problem(
            headline, said, severity=severity, SERVICE=lost, DISABLED=off, FORCED_DOWN="", CELL=""
        )


def _forced(host: Host, running: list[Guest], age: float | None, left: int | None) -> str:
    name = f"nova-compute on {host.nova_name}"
    if age is None:
        return f"{name} is forced down, but runs {_servers(running)}"
    headline = f"{name} is forced down, but reported {lasting(age)} before and runs"
    if left:
        return f"{headline} {_servers(running)}; evacuations from it: {left}"
    none = "; no evacuation is recorded" if left == 0 else ""
    return f"{headline} {_servers(running)}{none}"


def _seconds_since_report(host: Host, service: Service) -> float | None:
    """Return the seconds since the last report of a service that reports; None if it does not, or
    if that is unknown."""
    if host.option("DEFAULT", "servicegroup_driver", "db") != "db":
        return None  # the service reports elsewhere
    age = known(partial(seconds_silent, host, service))
    allowed = whole(host.option("DEFAULT", "service_down_time")) or DOWN_TIME
    return age if age is not None and -LATE <= age <= allowed else None


def _evacuated(host: Host, cloud: Cloud) -> int | None:
    """Return how many servers were evacuated from the host and may still have something there.

    None if that is unknown: the migrations of a server of the host were not collected.
    """
    here = {guest.uuid for guest in cloud.guests_of(host)}
    if any(guest.instance is None for guest in cloud.guests_of(host)):
        return None
    left = 0
    for instance in cloud.instances.by_uuid.values():
        if instance.migrations is None:
            if instance.uuid in here:
                return None
            continue
        left += any(
            moved.type == "evacuation"
            and moved.status in ARMED
            and not moved.deleted
            and moved.source_compute == host.nova_name
            for moved in instance.migrations
        )
    return left


def _disabled(host: Host, reason: str, itself: bool) -> str:
    name = f"nova-compute on {host.nova_name}"
    if not itself:
        return f"{name} is disabled: {reason}" if reason else f"{name} is disabled without a reason"
    silent = ", and libvirt does not answer" if "libvirt" in host.unheard else ""
    return f"{name} disabled itself: {reason.removeprefix('AUTO:').strip()}{silent}"


def _late(host: Host, service: Service, running: list[Guest]) -> Iterator[Problem]:
    if host.option("DEFAULT", "servicegroup_driver", "db") != "db":
        return  # the service reports elsewhere (memcached), and its row is never updated
    allowed = whole(host.option("DEFAULT", "service_down_time")) or DOWN_TIME
    age = seconds_silent(host, service)
    if age > allowed + LATE:
        late = says(service, last_seen_up=service.last_seen_up).and_so(
            seconds_ago=round(age), running_guests=len(running)
        )
        last = moment(service.last_seen_up)
        when = f" {since(last, _asked_at(host, service))}" if last is not None else ""
        guests = counted(len(running), "guest")
        headline = f"nova-compute on {host.nova_name}, with {guests}, has not reported{when}"
        severity = Severity.WARNING
        yield problem(
            headline,
            late,
            severity=severity,
            SERVICE="nova-compute",
            DISABLED="",
            FORCED_DOWN="",
            CELL="",
        )


def seconds_silent(host: Host, service: Service) -> float:
    """Return the seconds between a service's last report and the time at which its row was read.

    Raises `UnheardError` if either is unknown.
    """
    since = moment(service.last_seen_up)
    if since is None:
        raise UnheardError("the time of the service's last report can't be read")
    return (_asked_at(host, service) - since).total_seconds()


def _asked_at(host: Host, service: Service) -> datetime:
    """Return when the row was read, by the database's clock if known (ours may differ)."""
    asked = next(iter(service.said.values()))
    clock = clock_of(host.bundle.asked("nova-db", "SELECT UTC_TIMESTAMP", asked.host))
    return asked.at + (clock[1] - clock[0].at) if clock is not None else asked.at


def _unmapped(host: Host, service: Service) -> Iterator[Problem]:
    if not host.release.since(Release.OCATA):
        return  # before Ocata cells were optional: in Newton the table exists and is empty
    read = host.records.read("host_mappings")
    if any(mapping.host == host.nova_name for mapping in host.records.mappings):
        return
    yield problem(
        f"Host {host.nova_name} has a nova-compute service, but is mapped to no cell",
        says(service, host=service.host),
        hears(read, "nova-db", f"host_mappings[host={host.nova_name}]", host_mapping=None),
        severity=Severity.ERROR,
        SERVICE="",
        DISABLED="",
        FORCED_DOWN="",
    )


@check(Severity.WARNING)
def service_report_in_future(cloud: Cloud) -> Problems:
    """A service's last report to nova is in the future.

    nova takes the distance between the report and the clock of nova-api or of the scheduler, in
    either direction: a report more than `service_down_time` (60 s) ahead counts as down. The
    service runs and its guests too, but nova schedules nothing there, refuses commands for its
    servers, and lets an operator evacuate guests that run. The clock of the machine that writes the
    report is ahead; for nova-compute that is the conductor's, or the host's own if nova-compute
    writes to the database itself. If the clock is set back, the report stays in the future.

    Authority: The database's clock.

    Traps: A few seconds are no fault. If services report to memcached, their rows are never
    updated. A collector whose own clock is behind is no reason: the database's clock is compared.

    Next: Compare the reports with the clocks of the controllers and of the service's host:

        openstack compute service list --long
        SELECT host, last_seen_up, UTC_TIMESTAMP() FROM DATABASE.services WHERE deleted = 0
        date --utc
        chronyc tracking

    If a clock is ahead, let NTP correct it. The next report, ten seconds later, is then written
    with the right time.

    If all clocks are right and the report stays ahead, check that the service runs and reports:

        systemctl status nova-compute
        tail -n 50 /var/log/nova/nova-compute.log

    Not yet: Do not evacuate the host's servers: they run. Do not force the service down. Do not
    delete the service.

    Source: nova servicegroup/drivers/db.py `is_up`; nova db/main/api.py `service_update`.
    """
    answers = cloud.bundle.asked("nova-db", "SELECT UTC_TIMESTAMP")
    clock = clock_of(answers)
    apart = clock[1] - clock[0].at if clock is not None else None
    ahead: list[tuple[Service, float]] = []
    for service in cloud.instances.hosts.services:
        last = known(lambda one=service: moment(one.last_seen_up))  # type: ignore[misc]
        if last is None or known(lambda one=service: one.deleted):  # type: ignore[misc]
            continue
        asked = next(iter(service.said.values())).at
        seconds = (last - (asked + apart if apart is not None else asked)).total_seconds()
        if seconds > AHEAD:
            ahead.append((service, seconds))
    if ahead and not any(_reports_to_rows(host) for host in cloud.hosts or ()) and cloud.hosts:
        return
    for service, seconds in ahead:
        counts = seconds > DOWN_TIME
        down = "; nova counts it as down" if counts else ""
        yield problem(
            f"{service.binary} on {service.host} last reported {lasting(seconds)} in the "
            f"future{down}",
            says(service, last_seen_up=service.last_seen_up).and_so(seconds_ahead=round(seconds)),
            *_listed_state(cloud, service),
            severity=Severity.ERROR if counts else Severity.WARNING,
            DATABASE=service.database,
        )


def _reports_to_rows(host: Host) -> bool:
    """True if services report to the database, as far as known."""
    return known(lambda: host.option("DEFAULT", "servicegroup_driver", "db")) in ("db", None)


def _listed_state(cloud: Cloud, service: Service) -> Iterator[Evidence]:
    """Evidence of the service's state in nova's API, if that was collected."""
    for listed in known(lambda: read_services(cloud.bundle)) or ():
        if (listed.binary, listed.host) == (service.binary, service.host):
            yield says(listed, state=listed.state)
