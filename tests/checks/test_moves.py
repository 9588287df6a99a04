"""Moved guests, and what the moves left behind."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from tests.conftest import RecordedHost, changes

from hoodsnap.bundle import Answer
from hoodsnap.facts.database.request_spec import RequestSpec
from hoodsnap.findings.advice import instructions

MOVE = "77777777-0000-4000-8000-000000000000"
LONG_AGO = "2026-11-23 01:00:00"
RUNNING, PAUSED_BY_USER, PAUSED_BY_MIGRATION, OFF = (1, 1), (3, 1), (3, 2), (5, 2)


def move(host: RecordedHost, name: str, **cells: object) -> None:
    """Give a server a migration, copied from a server whose resize was confirmed long ago."""
    given = {"uuid": MOVE, "updated_at": LONG_AGO, "instance_uuid": host.uuid(name), **cells}
    host.row("migrations", host.uuid("vm-resized"), **given)


def evacuated(host: RecordedHost, name: str, status: str = "done") -> None:
    move(host, name, migration_type="evacuation", status=status, dest_compute="other")


def migrated(host: RecordedHost, name: str, status: str = "error") -> None:
    move(host, name, migration_type="live-migration", status=status, dest_compute="other")


def believe(host: RecordedHost, name: str, where: str = "other") -> None:
    """Set another host in nova's record of a server."""
    host.row("instances", host.uuid(name), host=where)


def state(host: RecordedHost, name: str, state: int, reason: int) -> None:
    query = f"virsh domstate --reason {host.domain(name)}"
    host.set("libvirt", query, {"state": state, "reason": reason})


def second(host: RecordedHost, name: str, state: tuple[int, int] | None, later: float = 5) -> None:
    """Return a bundle of another host that has the same domain in this state, or not at all."""
    uuid, domain = host.uuid(name), host.domain(name)
    found: list[Answer] = []
    for answer in host.bundle.answers:
        value = json.loads(json.dumps(answer.value))
        if answer.query == "/etc/nova/nova.conf":
            value["DEFAULT"]["host"] = "other"
        elif answer.query == "virsh list --all":
            value = [line for line in value if line["uuid"] == uuid and state]
        elif answer.query == f"virsh domstate --reason {domain}" and state:
            value = {"state": state[0], "reason": state[1]}
        elif answer.layer != "libvirt" or answer.subject != uuid or not state:
            continue
        at = answer.at + timedelta(seconds=later)
        found.append(answer.model_copy(update={"host": "other", "value": value, "at": at}))
    for answer in found:
        host.add(answer)


def about(host: RecordedHost, name: str) -> list[str]:
    """Return the findings about moves of a guest: severity, check and host."""
    return [
        f"{finding.severity.word} {finding.check.name} on {finding.host}"
        for finding in host.report().everything()
        if finding.check.topic == "moves" and finding.guest and finding.guest.name == name
    ]


def reasons(host: RecordedHost, check: str) -> set[str]:
    return {skip.reason for skip in host.report().skips if skip.check.name == check}


def test_domain_running_on_wrong_host(host: RecordedHost) -> None:
    believe(host, "vm-plain")

    own = [f for f in host.findings() if f.startswith("domain-running-on-wrong-host")]
    assert own == [
        "domain-running-on-wrong-host of vm-plain: instance reports host = other, vm_state = active;"
        " domain reports state = running (unpaused), on = vm"
    ]
    [headline] = [
        it.headline
        for it in host.report().everything()
        if it.check.name == "domain-running-on-wrong-host"
    ]
    assert headline == ("vm-plain is running (unpaused) on host vm, but nova has it on host other")


def test_domain_running_on_wrong_host_and_on_the_right_one(host: RecordedHost) -> None:
    believe(host, "vm-plain")
    second(host, "vm-plain", RUNNING)

    assert about(host, "vm-plain") == ["error domain-running-on-wrong-host on vm"]
    [own] = [f for f in host.findings() if f.startswith("domain-running-on-wrong-host")]
    assert own.endswith(
        "domain reports state = running (unpaused), on = vm; domain reports state = running (booted), on = other"
    )
    [headline] = [
        it.headline
        for it in host.report().everything()
        if it.check.name == "domain-running-on-wrong-host"
    ]
    assert headline == (
        "vm-plain is running (unpaused) on host vm, but nova has it on host other,"
        " where it is running (booted) too"
    )


def test_domain_running_on_wrong_host_and_not_on_the_right_one(host: RecordedHost) -> None:
    believe(host, "vm-plain")
    second(host, "vm-plain", None)

    assert about(host, "vm-plain") == ["error domain-running-on-wrong-host on vm"]
    [own] = [f for f in host.findings() if f.startswith("domain-running-on-wrong-host")]
    assert own.endswith("libvirt reports no domain, on = other")
    [headline] = [
        it.headline
        for it in host.report().everything()
        if it.check.name == "domain-running-on-wrong-host"
    ]
    assert headline == (
        "vm-plain is running (unpaused) on host vm, but nova has it on host other,"
        " where it has no domain"
    )


def test_the_domain_left_by_a_move_may_be_off(host: RecordedHost) -> None:
    """This is so after every cold migration until it is confirmed; the lab shows it."""
    believe(host, "vm-stopped")
    second(host, "vm-stopped", RUNNING)

    assert about(host, "vm-stopped") == []


@pytest.mark.parametrize(
    "cells",
    [{"task_state": "resize_migrated"}, {"vm_state": "deleted", "deleted": 7}, {"host": None}],
)
def test_guests_that_may_run_on_another_host_than_novas(
    host: RecordedHost, cells: dict[str, object]
) -> None:
    believe(host, "vm-plain")
    host.row("instances", host.uuid("vm-plain"), **cells)

    assert about(host, "vm-plain") == []


def test_a_host_whose_name_was_not_collected_may_be_the_right_one(host: RecordedHost) -> None:
    believe(host, "vm-plain", "explicit")
    host.drop(lambda answer: answer.query != "/etc/nova/nova.conf")

    assert about(host, "vm-plain") == []
    assert "nova.conf was not collected" in reasons(host, "domain-running-on-wrong-host")


def test_hosts_captured_during_a_move_are_not_compared(host: RecordedHost) -> None:
    believe(host, "vm-plain")
    second(host, "vm-plain", RUNNING)
    asked = host.last("libvirt", "virsh list --all").at
    move(
        host,
        "vm-plain",
        migration_type="migration",
        status="confirmed",
        updated_at=f"{asked:%Y-%m-%d %H:%M:%S}",
    )

    assert about(host, "vm-plain") == []
    assert any("one after the other" in r for r in reasons(host, "domain-running-on-wrong-host"))


def test_evacuated_guest_still_running(host: RecordedHost) -> None:
    believe(host, "vm-plain")
    evacuated(host, "vm-plain")

    assert about(host, "vm-plain") == ["error evacuated-guest-still-running on vm"]
    [own] = [f for f in host.findings() if f.startswith("evacuated-guest-still-running")]
    assert own == (
        "evacuated-guest-still-running of vm-plain: migration reports type = evacuation, status = done,"
        " source_compute = vm; instance reports host = other;"
        " domain reports state = running (unpaused), on = vm"
    )
    [headline] = [
        it.headline
        for it in host.report().everything()
        if it.check.name == "evacuated-guest-still-running"
    ]
    assert headline == (
        "vm-plain was evacuated from vm to other (2026-11-23 01:00), but its guest on vm is"
        " running (unpaused)"
    )


def test_evacuated_guest_still_running_on_both(host: RecordedHost) -> None:
    believe(host, "vm-plain")
    evacuated(host, "vm-plain")
    second(host, "vm-plain", RUNNING)

    assert about(host, "vm-plain") == ["error evacuated-guest-still-running on vm"]
    [own] = [f for f in host.findings() if f.startswith("evacuated-guest-still-running")]
    assert own.endswith("; domain reports state = running (booted), on = other")


@pytest.mark.parametrize("status", ["accepted", "pre-migrating"])
def test_evacuated_guest_still_running_during_the_evacuation(
    host: RecordedHost, status: str
) -> None:
    believe(host, "vm-plain")
    evacuated(host, "vm-plain", status)

    assert "error evacuated-guest-still-running on vm" in about(host, "vm-plain")


def test_evacuated_guest_still_running_is_a_note_if_off(host: RecordedHost) -> None:
    believe(host, "vm-stopped")
    evacuated(host, "vm-stopped")

    assert about(host, "vm-stopped") == ["note evacuated-guest-still-running on vm"]


def test_a_host_that_was_not_asked_may_still_have_an_evacuated_guest(host: RecordedHost) -> None:
    believe(host, "vm-plain")
    evacuated(host, "vm-plain")
    host.silence("libvirt")
    host.silence("kernel")

    report = host.report()
    assert "evacuated-guest-still-running" not in {one.check.name for one in report.everything()}
    skips = [skip for skip in report.skips if skip.guest and skip.guest.name == "vm-plain"]
    assert "evacuated-guest-still-running" in [skip.check.name for skip in skips]


@pytest.mark.parametrize("status", ["completed", "failed", "error"])
def test_a_finished_evacuation_is_no_finding(host: RecordedHost, status: str) -> None:
    believe(host, "vm-stopped")
    evacuated(host, "vm-stopped", status)

    assert about(host, "vm-stopped") == []


def test_live_migration_half_done(host: RecordedHost) -> None:
    believe(host, "vm-plain")
    migrated(host, "vm-plain")
    second(host, "vm-plain", RUNNING)

    assert about(host, "vm-plain") == ["error live-migration-half-done on vm"]
    [own] = [f for f in host.findings() if f.startswith("live-migration-half-done")]
    assert own == (
        "live-migration-half-done of vm-plain: migration reports type = live-migration, status = error,"
        " source_compute = vm, dest_compute = other; instance reports host = other, no task_state;"
        " domain reports state = running (unpaused), on = vm;"
        " domain reports state = running (booted), on = other"
    )
    [headline] = [
        it.headline
        for it in host.report().everything()
        if it.check.name == "live-migration-half-done"
    ]
    assert headline == (
        "vm-plain is running (unpaused) on host vm after its live migration (error), but nova has it"
        " on host other, where it is running (booted) too"
    )


@pytest.mark.parametrize(
    ("here", "there", "found"),
    [
        # Split brain, whichever host nova has.
        (RUNNING, RUNNING, "error"),
        # It runs on this host, and nova has the host where it does not run.
        (RUNNING, PAUSED_BY_MIGRATION, "error"),
        (RUNNING, None, "error"),
        (RUNNING, OFF, "error"),
        # Neither runs.
        (PAUSED_BY_MIGRATION, PAUSED_BY_MIGRATION, "error"),
        # The leftover on this host is only in the way.
        (PAUSED_BY_MIGRATION, RUNNING, "warning"),
        (OFF, RUNNING, None),
    ],
)
def test_live_migration_half_done_by_state_on_both_hosts(
    host: RecordedHost,
    here: tuple[int, int],
    there: tuple[int, int] | None,
    found: str | None,
) -> None:
    host.end("vm-plain") if here == OFF else None
    state(host, "vm-plain", *here)
    believe(host, "vm-plain")
    migrated(host, "vm-plain")
    second(host, "vm-plain", there)

    expected = [f"{found} live-migration-half-done on vm"] if found else []
    assert about(host, "vm-plain") == expected


def test_live_migration_half_done_on_novas_host(host: RecordedHost) -> None:
    state(host, "vm-plain", 3, 13)
    migrated(host, "vm-plain")

    assert about(host, "vm-plain") == ["error live-migration-half-done on vm"]
    [headline] = [
        it.headline
        for it in host.report().everything()
        if it.check.name == "live-migration-half-done"
    ]
    assert headline == (
        "vm-plain is paused (post-copy failed) on host vm, and runs on no other collected host"
    )


def test_a_guest_paused_by_its_owner_is_no_half_done_migration(host: RecordedHost) -> None:
    migrated(host, "vm-paused")

    assert about(host, "vm-paused") == []


def test_during_a_live_migration_both_hosts_have_the_guest(host: RecordedHost) -> None:
    believe(host, "vm-plain")
    second(host, "vm-plain", PAUSED_BY_MIGRATION)
    row = host.last("nova-db", "SELECT UTC_TIMESTAMP(6)").at
    move(
        host,
        "vm-plain",
        migration_type="live-migration",
        status="running",
        dest_compute="other",
        updated_at=f"{row - timedelta(minutes=5):%Y-%m-%d %H:%M:%S}",
    )

    assert about(host, "vm-plain") == []
    assert any(
        "a live migration is in progress" in reason
        for reason in reasons(host, "live-migration-half-done")
    )


def test_an_abandoned_live_migration_is_half_done(host: RecordedHost) -> None:
    believe(host, "vm-plain")
    host.row("instances", host.uuid("vm-plain"), task_state="migrating")
    second(host, "vm-plain", RUNNING)
    migrated(host, "vm-plain", "running")

    assert "error live-migration-half-done on vm" in about(host, "vm-plain")


def test_evacuation_record_armed(host: RecordedHost) -> None:
    evacuated(host, "vm-plain")

    assert host.findings() == [
        "evacuation-record-armed of vm-plain: migration reports type = evacuation, status = done,"
        " source_compute = vm, dest_compute = other; instance reports host = vm, vm_state = active"
    ]
    [headline] = [
        it.headline
        for it in host.report().everything()
        if it.check.name == "evacuation-record-armed"
    ]
    assert headline == (
        "vm-plain will be destroyed when nova-compute starts on vm: its evacuation from there"
        " (2026-11-23 01:00) is still done"
    )


@pytest.mark.parametrize(
    ("status", "cells"),
    [
        ("completed", {}),
        ("done", {"vm_state": "deleted", "deleted": 7}),
        ("accepted", {"task_state": "rebuilding"}),
    ],
)
def test_harmless_evacuations_are_no_finding(
    host: RecordedHost, status: str, cells: dict[str, object]
) -> None:
    evacuated(host, "vm-plain", status)
    if cells:
        host.row("instances", host.uuid("vm-plain"), **cells)

    assert about(host, "vm-plain") == []


def test_migration_record_stale(host: RecordedHost) -> None:
    migrated(host, "vm-plain", "running")

    assert host.findings() == [
        "migration-record-stale of vm-plain: migration reports type = live-migration, status = running,"
        f" updated_at = {LONG_AGO}; instance reports vm_state = active, no task_state"
    ]
    [found] = host.report().findings
    assert found.headline.startswith(
        "vm-plain's live-migration from vm to other has been running since 2026-11-23 01:00 ("
    )
    assert not any("resize" in step.prose for step in instructions(found)[3:])
    assert found.headline.endswith("), but nova has no task for it")
    assert found.names["STATUS"] == "error"
    assert found.names["DATABASE"] == "nova"


def test_migration_record_stale_if_the_resize_cannot_be_confirmed(host: RecordedHost) -> None:
    host.row("migrations", host.uuid("vm-verify"), status="error")

    assert about(host, "vm-verify") == ["error migration-record-stale on vm"]
    [found] = host.report().findings
    resize = dict(found.evidence[-1].said)
    assert (resize["action"], str(resize["request"])[:4]) == ("resize", "req-")
    [headline] = [
        it.headline
        for it in host.report().everything()
        if it.check.name == "migration-record-stale"
    ]
    number = found.names["UNCONFIRMED"]
    assert changes(found) == [f"UPDATE nova.migrations SET status = 'finished' WHERE id = {number}"]
    assert headline == (
        f"vm-verify waits for its resize to be confirmed, but its record (migration {number}) has "
        "status error, not finished"
    )


@pytest.mark.parametrize(("seconds", "found"), [(5, 0), (90, 1)])
def test_confirming_a_resize_updates_the_migration_first(
    host: RecordedHost, seconds: int, found: int
) -> None:
    since = host.last("nova-db", "SELECT UTC_TIMESTAMP(6)").at - timedelta(seconds=seconds)
    host.row(
        "migrations",
        host.uuid("vm-verify"),
        status="confirmed",
        updated_at=f"{since:%Y-%m-%d %H:%M:%S}",
    )

    assert about(host, "vm-verify") == ["error migration-record-stale on vm"] * found


def test_migration_record_stale_if_the_server_is_not_resized(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-verify"), vm_state="active")
    host.row("migrations", host.uuid("vm-verify"), updated_at=LONG_AGO)

    assert about(host, "vm-verify") == ["warning migration-record-stale on vm"]


def test_a_move_with_a_task_is_not_stale(host: RecordedHost) -> None:
    migrated(host, "vm-plain", "running")
    host.row("instances", host.uuid("vm-plain"), task_state="migrating")

    assert about(host, "vm-plain") == []


@pytest.mark.parametrize(("age", "found"), [(timedelta(hours=20), 0), (timedelta(hours=30), 1)])
def test_a_task_that_is_days_old_is_no_excuse(
    host: RecordedHost, age: timedelta, found: int
) -> None:
    believe(host, "vm-plain")
    since = host.last("nova-db", "SELECT UTC_TIMESTAMP(6)").at - age
    uuid = host.uuid("vm-plain")
    host.row("instances", uuid, task_state="resize_prep", updated_at=f"{since:%Y-%m-%d %H:%M:%S}")

    assert about(host, "vm-plain") == ["error domain-running-on-wrong-host on vm"] * found


def test_a_resize_may_wait_for_months(host: RecordedHost) -> None:
    host.row("migrations", host.uuid("vm-verify"), updated_at="2019-01-01 00:00:00")

    assert host.findings() == []


def spec(host: RecordedHost, name: str, old: str, new: str) -> None:
    """Edit the request spec that the scheduler uses."""
    uuid, edited = host.uuid(name), 0

    def change(answer: Answer) -> Answer:
        nonlocal edited
        if answer.layer != "nova-db" or ".request_specs WHERE" not in answer.query:
            return answer
        columns = answer.value["columns"]
        rows = [[*row] for row in answer.value["rows"]]
        for row in rows:
            if row[columns.index("instance_uuid")] == uuid:
                at = columns.index("spec")
                assert row[at].count(old) == 1, f"{old} stands {row[at].count(old)} times"
                row[at] = row[at].replace(old, new)
                edited += 1
        return answer.model_copy(update={"value": {"columns": columns, "rows": rows}})

    host.bundle = host.bundle.with_answers(map(change, host.bundle.answers))
    assert edited


def without_spec(host: RecordedHost, name: str) -> None:
    def change(answer: Answer) -> Answer:
        if answer.layer != "nova-db" or ".request_specs WHERE" not in answer.query:
            return answer
        at = answer.value["columns"].index("instance_uuid")
        rows = [row for row in answer.value["rows"] if row[at] != host.uuid(name)]
        return answer.model_copy(update={"value": {**answer.value, "rows": rows}})

    host.bundle = host.bundle.with_answers(map(change, host.bundle.answers))


def in_zone(host: RecordedHost, zone: str) -> None:
    """Put the host into an aggregate with a zone."""
    for table, rows in (
        ("aggregate_hosts", [[1, "vm", 7]]),
        ("aggregate_metadata", [[1, 7, "availability_zone", zone]]),
    ):
        [found] = [
            answer
            for answer in host.bundle.asked("nova-db", "SELECT ")
            if f".{table}" in answer.query
        ]
        host.set("nova-db", found.query, {**found.value, "rows": rows})
    for guest in host.report().cloud.guests:  # as nova writes it when a server is built there
        if guest.host_name is not None:
            host.row("instances", guest.uuid, availability_zone=zone)
            host.server(guest.uuid, availability_zone=zone)
    for answer in host.bundle.asked("nova", "GET "):
        if "/os-services" in answer.query and answer.error is None:
            services = [
                item | ({"zone": zone} if item["binary"] == "nova-compute" else {})
                for item in answer.value["services"]
            ]
            host.set("nova", answer.query, {**answer.value, "services": services})


def test_request_spec_skew(host: RecordedHost) -> None:
    spec(host, "vm-plain", '"memory_mb": 64', '"memory_mb": 4096')

    assert host.findings() == [
        "request-spec-skew of vm-plain: instance reports flavor = lab.tiny, memory_mb = 64;"
        " request spec reports flavor_name = lab.tiny, memory_mb = 4096"
    ]
    assert host.headlines() == [
        "vm-plain's request spec has 4096 MiB of memory, but its flavor lab.tiny has 64 MiB of memory",
    ]


def test_request_spec_skew_without_a_spec(host: RecordedHost) -> None:
    without_spec(host, "vm-bfv")

    assert host.findings() == [
        "request-spec-skew of vm-bfv: instance reports vm_state = active, host = vm;"
        " nova-db reports no request_spec"
    ]
    assert host.headlines() == [
        "vm-bfv has no request spec: nova can't migrate, evacuate or unshelve it",
    ]


def test_request_spec_skew_of_the_image(host: RecordedHost) -> None:
    image = (host.guest("vm-plain").instance or pytest.fail()).image or ""
    other = "77777777-0000-4000-8000-000000000000"
    spec(host, "vm-plain", image, other)

    assert host.findings() == [
        f"request-spec-skew of vm-plain: instance reports image = {image}; request spec reports image = {other}"
    ]
    [headline] = host.headlines()
    assert image[:8] in headline
    assert headline.endswith("but its request spec has image 77777777")


@pytest.mark.parametrize(
    ("name", "old", "new", "headline"),
    [
        (
            "vm-bfv",
            "true",
            "false",
            "vm-bfv boots from a volume, but its request spec (is_bfv) claims a root disk on its "
            "next host",
        ),
        (
            "vm-plain",
            "false",
            "true",
            "vm-plain boots from a local disk, but its request spec (is_bfv) claims no root disk "
            "on its next host",
        ),
    ],
)
def test_request_spec_skew_of_the_root_disk(
    host: RecordedHost, name: str, old: str, new: str, headline: str
) -> None:
    spec(host, name, f'"is_bfv": {old}', f'"is_bfv": {new}')

    assert host.headlines() == [headline]


def test_a_request_spec_from_before_rocky_tells_nothing_of_the_root_disk(
    host: RecordedHost,
) -> None:
    spec(host, "vm-bfv", '"is_bfv": true', '"other": true')

    assert host.findings() == []


def test_request_spec_skew_of_the_hardware(host: RecordedHost) -> None:
    spec(host, "vm-plain", '"hw_disk_bus": "virtio"', '"hw_disk_bus": "scsi"')

    [finding] = host.report().findings
    assert finding.severity.word == "note"
    assert finding.headline == (
        "vm-plain is defined with hw_disk_bus virtio, but its request spec looks for a host with "
        "hw_disk_bus scsi"
    )


@pytest.mark.parametrize(
    "told",
    ['"hw_disk_bus": "VIRTIO"', '"hw_rng_model": "virtio"', '"os_distro": "other"'],
)
def test_request_specs_may_spell_hardware_otherwise(host: RecordedHost, told: str) -> None:
    spec(host, "vm-plain", '"hw_disk_bus": "virtio"', told)

    assert host.findings() == []


def test_request_spec_skew_of_the_zone(host: RecordedHost) -> None:
    in_zone(host, "east")
    spec(host, "vm-plain", '"availability_zone": null', '"availability_zone": "west"')

    assert host.findings() == [
        "request-spec-skew of vm-plain: instance reports host = vm; request spec reports zone = west;"
        " aggregate reports zone = east"
    ]
    assert host.headlines() == [
        "vm-plain was requested for zone west, but its host vm is in zone east, and no host is in "
        "zone west",
    ]


def test_request_spec_skew_of_a_zone_that_was_renamed(host: RecordedHost) -> None:
    spec(host, "vm-plain", '"availability_zone": null', '"availability_zone": "west"')

    [found] = host.findings()
    assert found.startswith(
        "request-spec-skew of vm-plain: instance reports host = vm; request spec reports zone = west;"
        " service reports host = vm, zone = nova"
    )
    assert host.headlines() == [
        "vm-plain was requested for zone west, but its host vm is in zone nova, and no host is in "
        "zone west",
    ]


def test_request_spec_skew_of_a_shelved_server_without_a_zone_to_go_to(host: RecordedHost) -> None:
    spec(host, "vm-shelved", '"availability_zone": null', '"availability_zone": "west"')

    [found] = host.report().findings
    assert found.headline == "vm-shelved was requested for zone west, but no host is in it"
    assert changes(found) == [
        "openstack --os-compute-api-version 2.91 server unshelve --no-availability-zone "
        + host.uuid("vm-shelved")
    ]


@pytest.mark.parametrize("name", ["vm-plain", "vm-shelved"])
@pytest.mark.parametrize("unheard", ["/os-services", ".aggregate_metadata"])
def test_a_zone_is_not_missing_if_the_zones_were_not_collected(
    host: RecordedHost, name: str, unheard: str
) -> None:
    spec(host, name, '"availability_zone": null', '"availability_zone": "west"')
    host.drop(lambda answer: unheard not in answer.query)

    assert "request-spec-skew" not in {one.check.name for one in host.report().findings}


def test_an_empty_zone_exists(host: RecordedHost) -> None:
    [asked] = [
        answer
        for answer in host.bundle.asked("nova-db", "SELECT ")
        if ".aggregate_metadata" in answer.query
    ]
    rows = [[1, 7, "availability_zone", "west"]]
    host.set("nova-db", asked.query, {**asked.value, "rows": rows})
    spec(host, "vm-shelved", '"availability_zone": null', '"availability_zone": "west"')

    assert host.findings() == []


@pytest.mark.parametrize(
    ("wanted", "zone"), [("null", "east"), ('"nova"', None), ('"east"', "east")]
)
def test_matching_zones_are_no_finding(host: RecordedHost, wanted: str, zone: str | None) -> None:
    if zone is not None:
        in_zone(host, zone)
    if wanted != "null":
        spec(host, "vm-plain", '"availability_zone": null', f'"availability_zone": {wanted}')

    assert host.findings() == []


def test_a_resized_server_may_request_its_new_flavor(host: RecordedHost) -> None:
    spec(host, "vm-verify", '"memory_mb": 128', '"memory_mb": 64')

    assert host.findings() == []


def test_request_specs_that_were_not_collected_are_not_missing(host: RecordedHost) -> None:
    host.drop(lambda answer: ".request_specs" not in answer.query)

    assert host.findings() == []
    assert "the instance's request spec was not collected" in reasons(host, "request-spec-skew")


def test_live_migration_half_done_told_by_the_source_alone(host: RecordedHost) -> None:
    migrated(host, "vm-plain", "completed")
    uuid, domain = host.uuid("vm-plain"), host.domain("vm-plain")
    host.row("instances", uuid, task_state="migrating", updated_at=LONG_AGO)
    host.end("vm-plain")
    listed = host.last("libvirt", "virsh list --all").value
    host.set("libvirt", "virsh list --all", [line for line in listed if line["uuid"] != uuid])
    host.drop(lambda answer: answer.layer != "libvirt" or domain not in answer.query.split())

    [headline] = [one for one in host.headlines() if one.startswith("vm-plain's live migration")]
    assert headline.startswith("vm-plain's live migration to other has been completed since")
    assert headline.endswith("nova has it on vm, where no domain exists")
    assert about(host, "vm-plain") == ["error live-migration-half-done on vm"]


def test_a_live_migration_that_ended_this_minute_is_still_recorded_here(host: RecordedHost) -> None:
    now = f"{host.bundle.started:%Y-%m-%d %H:%M:%S}"
    migrated(host, "vm-plain", "completed")
    host.row("migrations", host.uuid("vm-plain"), updated_at=now)
    host.row("instances", host.uuid("vm-plain"), task_state="migrating", updated_at=now)
    host.end("vm-plain")
    state(host, "vm-plain", *OFF)

    assert about(host, "vm-plain") == []


def test_a_request_demands_a_host_that_nova_does_not_have(host: RecordedHost) -> None:
    uuid = host.uuid("vm-plain")
    guest = host.guest("vm-plain")
    assert guest.instance is not None and isinstance(guest.instance.request_spec, RequestSpec)
    spec = json.loads(str(guest.instance.request_spec.raw["spec"]))
    data = spec["nova_object.data"]
    for hosts, found in (
        (["vm"], []),
        (
            ["compute-old"],
            ["vm-plain's request spec demands host compute-old, which nova does not have"],
        ),
    ):
        data["force_hosts"] = hosts
        host.row("request_specs", uuid, spec=json.dumps(spec))
        assert host.headlines() == found
