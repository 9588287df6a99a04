"""Records of nova's services on other hosts: too old, or left behind."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from hoodsnap.check import Problem, Problems, check, problem
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.clock import clock_of, moment
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.cloud.release import OLDEST_SERVICES, Release
from hoodsnap.facts.database.service import Service
from hoodsnap.facts.fact import known
from hoodsnap.phrase import since

DOWN = 3_600
"""Seconds without a report after which a host's service is not taken for one that is in use."""

GONE = 90 * 86_400
"""Seconds without a report after which a host is taken for scrapped: no repair takes so long."""

REPORTING = ("nova-compute", "nova-conductor", "nova-scheduler")
"""Services that report. nova-osapi_compute and nova-metadata have rows too, but never report."""


@check(Severity.WARNING)
def compute_record_too_old(cloud: Cloud) -> Problems:
    """The record of a nova-compute is too old: nova's services refuse to start.

    From Wallaby on, nova's services end at their start with `TooOldComputeService` while there is a
    nova-compute record with an older service version than their release supports. The record of a
    host that is down counts too. Services that already run go on until their next start, and send
    messages in the old release's format.

    Authority: The service versions that nova's release supports.

    Traps: A host that is forced down does not count, nor does a deleted record. An upgrade passes
    through the previous release, which is supported. With `disable_compute_service_check_for_ffu`
    the services start anyway.

    Next: Check what nova lists, and whether the host still has servers:

        openstack --os-compute-api-version 2.53 compute service list --long
        openstack server list --all-projects --long --host OLD_HOST

    If the host is in use, upgrade its nova-compute, and delete nothing. If it has servers but is
    lost, force its service down, which also ends the refusal, and evacuate them.

    If the host is gone for good and has no servers, delete its service:

        openstack --os-compute-api-version 2.53 compute service delete OLD_SERVICE

    It worked if nova no longer lists it:

        openstack --os-compute-api-version 2.53 compute service list --long

    Not yet: Do not restart nova's services, on any host. Do not delete the service of a host that
    has servers. Do not change the version in the row.

    Source: nova utils.py `raise_if_old_compute`; nova objects/service.py
    `OLDEST_SUPPORTED_SERVICE_VERSION`; nova db/main/api.py `service_get_minimum_version`.
    """
    limit = _oldest_supported(cloud)
    if limit is not None:
        for service in _too_old(cloud, limit):
            yield _refused(cloud, service, limit)


@check(Severity.NOTE)
def service_record_left(cloud: Cloud) -> Problems:
    """nova still lists a service that has not reported for months.

    The host was scrapped or renamed, but its record was left behind. nova counts it as down in
    every list, and monitoring reports it for ever. The record of a nova-compute becomes a problem
    with an upgrade: services of a release that does not support its version refuse to start.

    Authority: The last report in nova's database.

    Traps: A disabled service, or one that is forced down, may rest for long. If services report to
    memcached, their rows are never updated. nova-api and the metadata API never report. A host that
    was collected is judged by other checks.

    Next: Check what nova lists, and whether the host still has servers:

        openstack --os-compute-api-version 2.53 compute service list --long
        openstack server list --all-projects --long --host OLD_HOST

    If it has servers, they are not lost: find the host, or evacuate them.

    If the host is gone for good and has no servers, delete its service:

        openstack --os-compute-api-version 2.53 compute service delete OLD_SERVICE

    It worked if nova no longer lists it:

        openstack --os-compute-api-version 2.53 compute service list --long

    Not yet: Do not delete the service of a host that has servers.

    Source: nova api/openstack/compute/services.py `delete`; nova admin guide, compute service.
    """
    limit = _oldest_supported(cloud)
    reported = _too_old(cloud, limit) if limit is not None else []
    for service in _live(cloud):
        silent = _silent(cloud, service)
        if silent is None or silent <= GONE or _is_excused(cloud, service) or service in reported:
            continue
        yield problem(
            f"{service.binary} on {service.host} has not reported {_since(cloud, service)}",
            says(service, host=service.host, last_seen_up=service.last_seen_up),
            OLD_HOST=service.host,
            OLD_SERVICE=service.uuid,
        )


def _live(cloud: Cloud) -> list[Service]:
    """Return the records that nova counts. Raises `UnheardError` if they were not all collected."""
    records = cloud.instances.hosts
    records.read("services")
    return [one for one in records.services if known(lambda one=one: _counts(one))]  # type: ignore[misc]


def _counts(service: Service) -> bool:
    """True if nova counts the record; raises `UnheardError`."""
    return service.binary in REPORTING and not service.deleted and not service.forced_down


class Limit(NamedTuple):
    """The oldest service version with which nova's services start."""

    version: int
    release: Release
    """The release that demands it."""


def _oldest_supported(cloud: Cloud) -> Limit | None:
    """Return the limit of the newest release that is known to be in use.

    None before Wallaby, if the release is unknown, or if the services start anyway.
    """
    release = max(one.earliest for one in (cloud.release, *(h.release for h in cloud.hosts)))
    if release not in OLDEST_SERVICES or any(_starts_anyway(host) for host in cloud.hosts):
        return None
    return Limit(OLDEST_SERVICES[release], release)


def _starts_anyway(host: Host) -> bool:
    option = known(lambda: host.option("workarounds", "disable_compute_service_check_for_ffu"))
    return (option or "").strip().lower() in ("true", "1", "yes", "on")


def _too_old(cloud: Cloud, limit: Limit) -> list[Service]:
    computes = [one for one in _live(cloud) if one.binary == "nova-compute"]
    versions = [known(lambda one=one: one.version) for one in computes]  # type: ignore[misc]
    if not all(versions):
        return []  # nova takes a 0 for a cloud without computes, and starts
    return [one for one in computes if (one.version or 0) < limit.version]


def _refused(cloud: Cloud, service: Service, limit: Limit) -> Problem:
    silent = _silent(cloud, service)
    is_dead = silent is None or silent > DOWN
    down = f", which has not reported {_since(cloud, service)}," if silent and is_dead else ""
    shown = says(service, host=service.host, version=service.version)
    return problem(
        f"nova-compute on {service.host}{down} has service version {service.version}, but "
        f"{limit.release.word} needs {limit.version} to start",
        shown.and_so(oldest_supported=limit.version),
        *_clues(cloud, limit.release),
        OLD_HOST=service.host,
        OLD_SERVICE=service.uuid if is_dead else "",
    )


def _clues(cloud: Cloud, release: Release) -> list[Evidence]:
    """Return what shows the release, if that is the version of an installed package."""
    for host in cloud.hosts:
        answer = host.bundle.last("host", "nova-compute --version", host.name)
        if host.release.earliest == release and answer is not None and answer.error is None:
            return [hears(answer, "nova-compute", "", version=str(answer.value).strip())]
    return []


def _is_excused(cloud: Cloud, service: Service) -> bool:
    """True if a record without reports is expected, or another check reports it."""
    if known(lambda: service.disabled) is not False:
        return True
    own = {name for host in cloud.hosts for name in (host.name, host.nova_name)}
    return service.host in own or any(map(_reports_to_memcached, cloud.hosts))


def _reports_to_memcached(host: Host) -> bool:
    return known(lambda: host.option("DEFAULT", "servicegroup_driver", "db")) == "mc"


def _now(cloud: Cloud, service: Service) -> datetime:
    """Return when the row was read, by the database's clock if that was collected."""
    asked = next(iter(service.said.values())).at
    clock = clock_of(cloud.bundle.asked("nova-db", "SELECT UTC_TIMESTAMP"))
    return asked + (clock[1] - clock[0].at) if clock is not None else asked


def _silent(cloud: Cloud, service: Service) -> float | None:
    """Return the seconds since a service's last report; None if it never reported."""
    last = known(lambda: moment(service.last_seen_up))
    return (_now(cloud, service) - last).total_seconds() if last is not None else None


def _since(cloud: Cloud, service: Service) -> str:
    last = moment(service.last_seen_up)
    return since(last, _now(cloud, service)) if last is not None else ""
