"""Hosts that differ from nova's and placement's records."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from tests.conftest import RecordedHost, changes, healthy_report

from hoodsnap.bundle import Answer, Failure
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.render.overview import rows

CONF = "/etc/nova/nova.conf"
OTHER = "88888888-0000-4000-8000-000000000000"


def _servers() -> int:
    """Return the number of guests on the host."""
    return sum(guest.host is not None for guest in healthy_report().cloud.guests)


def _processes() -> int:
    """Return the number of running guests."""
    return sum(guest.process is not None for guest in healthy_report().cloud.guests)


def captured(host: RecordedHost) -> Host:
    [found] = host.report().cloud.hosts
    return found


def guests(host: RecordedHost) -> tuple[Guest, ...]:
    cloud = host.report().cloud
    return cloud.guests_of(cloud.hosts[0])


def node(host: RecordedHost) -> str:
    found = captured(host).node
    assert found is not None and found.uuid is not None
    return found.uuid


def service(host: RecordedHost) -> str:
    found = captured(host).service
    assert found is not None and found.uuid is not None
    return found.uuid


def rename(host: RecordedHost, name: str) -> None:
    conf = json.loads(json.dumps(host.last("host", CONF).value))
    conf["DEFAULT"]["host"] = name
    host.set("host", CONF, conf)


def option(host: RecordedHost, section: str, **values: str) -> None:
    conf = json.loads(json.dumps(host.last("host", CONF).value))
    conf.setdefault(section, {}).update(values)
    host.set("host", CONF, conf)


def listed(host: RecordedHost, **fields: object) -> None:
    """Set fields of nova-compute in the API's lists of services, as the row has them."""
    for answer in host.bundle.answers:
        if answer.layer == "nova" and "/os-services" in answer.query:
            value = json.loads(json.dumps(answer.value))
            for item in value["services"]:
                if item["binary"] == "nova-compute":
                    item.update((key, its) for key, its in fields.items() if key in item)
            host.set("nova", answer.query, value)
        if answer.layer == "nova" and "/os-hypervisors" in answer.query:
            value = json.loads(json.dumps(answer.value))
            for item in value["hypervisors"]:
                item.update((key, its) for key, its in fields.items() if key in item)
            host.set("nova", answer.query, value)


def table(host: RecordedHost, name: str) -> Answer:
    [found] = [
        answer
        for answer in host.bundle.asked("nova-db", "SELECT ")
        if answer.query.partition(" WHERE ")[0].endswith(f".{name}")
    ]
    return found


def only(host: RecordedHost, name: str, *rows: dict[str, Any]) -> None:
    """Replace a table's rows by copies of the first one, each with some cells changed."""
    found = table(host, name)
    columns = found.value["columns"]
    first = next(iter(found.value["rows"]))
    made = [[*dict(zip(columns, first, strict=True), **cells).values()] for cells in rows]
    host.set("nova-db", found.query, {"columns": columns, "rows": made})


def placement(host: RecordedHost, part: str) -> tuple[str, Any]:
    query = f"GET /resource_providers/{node(host)}/{part} [1.39]"
    return query, json.loads(json.dumps(host.last("placement", query).value))


def named(host: RecordedHost) -> set[str]:
    return {finding.check.name for finding in host.report().findings}


def test_host_identity_changed(host: RecordedHost) -> None:
    _reported(host, -timedelta(hours=1))
    rename(host, "vm.example.org")

    [finding] = [f for f in host.report().findings if f.check.name == "host-identity-changed"]
    said = str(finding.evidence[0])
    assert said == f"nova.conf reports host = vm.example.org, guests_of_another = {_servers()}"
    assert finding.severity.word == "error"
    assert (
        finding.headline == f"Host vm.example.org runs {_servers()} guests that nova has on host vm"
    )


def test_a_new_host_name_that_nova_compute_has_not_read_yet(host: RecordedHost) -> None:
    rename(host, "vm.example.org")

    found = host.found("host-identity-changed")
    assert found.headline == (
        "nova.conf has the host name vm.example.org, but nova-compute still runs as vm, with"
        f" {_servers()} guests; it takes the new name when it starts again"
    )
    assert str(found.evidence[1]).startswith("service reports host = vm, last_seen_up = ")


def test_servers_of_a_renamed_host_did_not_move(host: RecordedHost) -> None:
    rename(host, "vm.example.org")

    report = host.report()
    stopped = [it for it in report.cloud.guests if it.uuid == host.uuid("vm-stopped")]
    [row] = rows(report, stopped)
    assert row.verdict == "on host vm in nova; switched off here"


@pytest.mark.parametrize("damaged", [{}, [], 7, None])
def test_an_unreadable_host_name_in_nova_conf_is_not_another_name(
    host: RecordedHost, damaged: object
) -> None:
    host.conf("DEFAULT", host=damaged)  # type: ignore[arg-type]

    assert host.findings() == []
    assert "nova.conf: [DEFAULT]host could not be read" in {
        skip.reason for skip in host.report().skips
    }


def test_host_identity_changed_of_an_empty_host(host: RecordedHost) -> None:
    rename(host, "new")
    host.set("libvirt", "virsh list --all", [])
    host.drop(lambda answer: answer.layer not in ("kernel", "images"))
    host.drop(lambda answer: not (answer.layer == "libvirt" and answer.subject))

    shown = [f for f in host.findings() if f.startswith("host-identity-changed")]
    assert shown == [
        "host-identity-changed: nova.conf reports host = new;"
        " compute node reports host = vm, hypervisor_hostname = vm"
    ]


def test_host_identity_changed_by_its_compute_id(host: RecordedHost) -> None:
    query = next(a.query for a in host.bundle.asked("host", "cat ") if "compute_id" in a.query)
    only(host, "compute_nodes", {}, {"id": 2, "uuid": OTHER, "host": "old"})
    host.set("host", query, f"{OTHER}\n")

    assert (
        f"host-identity-changed: nova.conf reports host = vm; compute_id reports uuid = {OTHER};"
        f" compute node reports uuid = {OTHER}, host = old"
    ) in host.findings()


def test_a_single_guest_elsewhere_does_not_make_another_host(host: RecordedHost) -> None:
    for guest in guests(host):
        if guest.name != "vm-plain":
            host.row("instances", guest.uuid, vm_state="deleted", deleted=99)
    rename(host, "new")
    host.drop(lambda answer: ".compute_nodes" not in answer.query)

    assert "host-identity-changed" not in named(host)


@pytest.mark.parametrize(("source", "changed"), [("vm", False), ("third", True)])
def test_a_guest_that_was_moved_away_proves_nothing_about_the_hosts_name(
    host: RecordedHost, source: str, changed: bool
) -> None:
    # The host was drained: two domains that are off wait here for their confirmation.
    waiting = {host.uuid("vm-verify"), host.uuid("vm-resized")}
    for guest in guests(host):
        if guest.uuid in waiting:
            host.row("instances", guest.uuid, host="other", node="other")
            host.row("migrations", guest.uuid, source_compute=source)
        elif guest.instance is not None:
            host.row("instances", guest.uuid, vm_state="deleted", deleted=99)

    assert ("host-identity-changed" in named(host)) == changed


@pytest.mark.parametrize(
    ("address", "silent", "changed"),
    [("10.0.0.8", 0, False), ("127.0.0.1", 0, True), ("10.0.0.8", 3600, True)],
)
def test_the_name_of_another_active_nova_compute_is_not_an_old_name(
    host: RecordedHost, address: str, silent: int, changed: bool
) -> None:
    """For nova, all guests here are on `other`, whose nova-compute reports from another machine:
    the guests are on the wrong host."""
    for guest in guests(host):
        if guest.instance is not None and guest.instance.host is not None:
            host.row("instances", guest.uuid, host="other")
    seen = table(host, "services").at - timedelta(seconds=silent + 5)
    columns = table(host, "services").value["columns"]
    rows = [dict(zip(columns, row, strict=True)) for row in table(host, "services").value["rows"]]
    compute = next(row for row in rows if row["binary"] == "nova-compute")
    other = compute | {
        "id": 99,
        "uuid": OTHER,
        "host": "other",
        "last_seen_up": f"{seen:%Y-%m-%d %H:%M:%S}",
    }
    value = {"columns": columns, "rows": [[*row.values()] for row in (*rows, other)]}
    host.set("nova-db", table(host, "services").query, value)
    node = {"id": 2, "uuid": OTHER, "host": "other"}
    only(host, "compute_nodes", {}, node | {"hypervisor_hostname": "other", "host_ip": address})

    checks = {finding.check.name for finding in host.report().everything()}
    assert ("host-identity-changed" in checks) is changed
    assert "domain-running-on-wrong-host" in checks


def test_a_host_without_nova_conf_may_have_any_name(host: RecordedHost) -> None:
    host.drop(lambda answer: answer.query != CONF)
    for guest in guests(host):
        if guest.instance is not None:
            host.row("instances", guest.uuid, host="explicit")

    assert "host-identity-changed" not in named(host)


def test_service_state_skew_of_a_host_without_a_service(host: RecordedHost) -> None:
    host.row("services", service(host), deleted=5)

    [finding] = [f for f in host.findings() if f.startswith("service-state-skew")]
    assert finding.startswith(
        f"service-state-skew: nova-db reports no service, host = vm, servers = {_servers()};"
    )


def test_service_state_skew_of_a_service_that_is_forced_down(host: RecordedHost) -> None:
    host.row("services", service(host), forced_down=1)
    listed(host, forced_down=True)

    [finding] = host.report().findings
    assert finding.severity.word == "error"
    assert (
        str(finding.evidence[0])
        == f"service reports forced_down = True, running_guests = {_processes()}"
    )
    assert finding.headline.endswith("; no evacuation is recorded")
    assert changes(finding) == [
        "openstack --os-compute-api-version 2.11 compute service set --up vm nova-compute"
    ]


@pytest.mark.parametrize("why", ["silent", "evacuated", "unknown"])
def test_a_service_that_is_forced_down_for_a_reason_is_not_set_up(
    host: RecordedHost, why: str
) -> None:
    host.row("services", service(host), forced_down=1)
    listed(host, forced_down=True)
    if why == "silent":
        host.row("services", service(host), last_seen_up="2026-11-23 01:00:00")
    elif why == "evacuated":
        move = {"migration_type": "evacuation", "status": "done", "source_compute": "vm"}
        host.row("migrations", host.uuid("vm-resized"), dest_compute="other", **move)
    else:
        host.drop(lambda answer: "FROM nova.migrations" not in answer.query)

    found = [one for one in host.report().everything() if "forced down" in one.headline]
    assert [("--up" in "".join(changes(one))) for one in found] == [False]


@pytest.mark.parametrize(
    ("reason", "word"),
    [("maintenance", "note"), ("AUTO: Connection to libvirt lost: 1", "warning")],
)
def test_service_state_skew_of_a_disabled_service(
    host: RecordedHost, reason: str, word: str
) -> None:
    host.row("services", service(host), disabled=1, disabled_reason=reason)
    listed(host, status="disabled", disabled_reason=reason)

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("service-state-skew", word)
    assert host.findings() == [
        f"service-state-skew: service reports disabled = True, disabled_reason = {reason}"
    ]


def test_service_state_skew(host: RecordedHost) -> None:
    host.row("services", service(host), last_seen_up="2026-11-23 01:00:00")

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("service-state-skew", "warning")
    assert "last_seen_up = 2026-11-23 01:00:00" in host.findings()[0]
    [headline] = host.headlines()
    assert headline.startswith(
        "nova-compute on vm, with 12 guests, has not reported since 2026-11-23 01:00 (2 d "
    )


def test_a_service_may_be_allowed_to_be_silent(host: RecordedHost) -> None:
    host.row("services", service(host), last_seen_up="2026-11-23 01:00:00")
    option(host, "DEFAULT", service_down_time="999999999")

    assert host.findings() == []


def test_a_service_may_report_elsewhere(host: RecordedHost) -> None:
    host.row("services", service(host), last_seen_up="2026-11-23 01:00:00")
    option(host, "DEFAULT", servicegroup_driver="mc")

    assert host.findings() == []


def test_a_service_is_late_by_the_databases_clock(host: RecordedHost) -> None:
    """The collector's clock is a day ahead, which alone does not make a service late."""
    asked = table(host, "services").at
    clock = f"{asked.replace(year=asked.year - 1):%Y-%m-%d %H:%M:%S}"
    host.row("services", service(host), last_seen_up=clock)
    host.set(
        "nova-db",
        "SELECT UTC_TIMESTAMP(6)",
        {"columns": ["UTC_TIMESTAMP(6)"], "rows": [[f"{clock}.000000"]]},
    )

    assert named(host) == {"clocks-apart"}


def test_each_bundle_has_its_own_clock(host: RecordedHost) -> None:
    """Two collectors asked the same database, and the other one's clock is a day behind."""
    clock = host.last("nova-db", "SELECT UTC_TIMESTAMP(6)")
    there = {"host": "other", "at": clock.at - timedelta(days=1)}
    host.bundle = host.bundle.with_answers([clock.model_copy(update=there), *host.bundle.answers])

    assert "service-state-skew" not in named(host)


def test_an_aggregate_with_an_invalid_id_has_no_hosts(host: RecordedHost) -> None:
    for name, row in (
        ("aggregate_hosts", [1, "vm", [7]]),
        ("aggregate_metadata", [1, [8], "k", "z"]),
    ):
        found = next(a for a in host.bundle.asked("nova-db", "SELECT ") if f".{name}" in a.query)
        host.set("nova-db", found.query, {**found.value, "rows": [row]})

    assert captured(host).records.zone_of("vm") is None


def test_service_state_skew_of_a_host_without_a_cell(host: RecordedHost) -> None:
    found = table(host, "host_mappings")
    host.set("nova-db", found.query, {**found.value, "rows": []})

    assert host.findings() == [
        "service-state-skew: service reports host = vm; nova-db reports no host_mapping"
    ]


def test_before_ocata_a_host_may_have_no_cell(host: RecordedHost) -> None:
    found = table(host, "host_mappings")
    host.set("nova-db", found.query, {**found.value, "rows": []})
    host.drop(lambda answer: answer.query != "nova-compute --version")
    host.row("services", service(host), version=15)

    assert not [line for line in host.findings() if "host_mapping" in line]


def test_a_cloud_without_an_api_database_has_no_mappings(host: RecordedHost) -> None:
    host.drop(lambda answer: ".host_mappings" not in answer.query)

    assert host.findings() == []


def test_a_services_table_that_could_not_be_read_proves_nothing(host: RecordedHost) -> None:
    found = table(host, "services")
    said = found.model_dump(exclude={"value", "error"})
    error = Failure(kind="denied", message="SELECT command denied")
    host.drop(lambda answer: answer.query != found.query)
    host.add(Answer(**said, error=error))

    assert host.findings() == []


def _reported(host: RecordedHost, ahead: timedelta) -> None:
    rows = table(host, "services")
    when = rows.at.replace(tzinfo=None) + ahead
    host.row("services", service(host), last_seen_up=f"{when:%Y-%m-%d %H:%M:%S}")


def test_service_report_in_future(host: RecordedHost) -> None:
    _reported(host, timedelta(hours=1))

    assert (
        host.headlines()
        == ["nova-compute on vm last reported 60 min in the future; nova counts it as down"]
        or "in the future; nova counts it as down" in host.headlines()[0]
    )
    [found] = host.report().findings
    assert found.check.name == "service-report-in-future"
    assert found.severity.word == "error"


def test_a_service_may_be_a_few_seconds_ahead(host: RecordedHost) -> None:
    _reported(host, timedelta(seconds=3))

    assert host.findings() == []


def test_a_service_may_report_to_memcached(host: RecordedHost) -> None:
    _reported(host, timedelta(hours=1))
    option(host, "DEFAULT", servicegroup_driver="mc")

    assert host.findings() == []
