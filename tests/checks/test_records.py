"""nova's database records of a server, and their agreement."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from tests.checks.test_identity import _undefine
from tests.conftest import RecordedHost

from hoodsnap.bundle import Answer

OLD = "2026-01-01 00:00:00"

Row = dict[str, object]


def _rows(host: RecordedHost, table: str, change: Callable[[Answer, list[Row]], list[Row]]) -> None:
    """Change the rows (dicts) in every answer about a table."""
    read = re.compile(rf"SELECT [\w, `]+ FROM \S+\.{table}(\s|$)")

    def changed(answer: Answer) -> Answer:
        if answer.layer != "nova-db" or not read.match(answer.query):
            return answer
        columns = answer.value["columns"]
        rows = [dict(zip(columns, row, strict=True)) for row in answer.value["rows"]]
        kept = [[row[name] for name in columns] for row in change(answer, rows)]
        return answer.model_copy(update={"value": {"columns": columns, "rows": kept}})

    host.bundle = host.bundle.with_answers(tuple(map(changed, host.bundle.answers)))


def _without_row(host: RecordedHost, table: str, uuid: str) -> None:
    _rows(host, table, lambda answer, rows: [r for r in rows if r["instance_uuid"] != uuid])


def _copy_into_cell0(recording: RecordedHost, name: str, **cells: object) -> None:
    """Add a second row of a server, in cell0's database."""
    uuid = recording.uuid(name)
    found: dict[tuple[str, ...], Row] = {}

    def seen(answer: Answer, rows: list[Row]) -> list[Row]:
        for row in rows:
            if row.get("uuid") == uuid:
                found[tuple(row)] = row | {k: v for k, v in cells.items() if k in row}
        return rows

    def added(answer: Answer, rows: list[Row]) -> list[Row]:
        columns = tuple(answer.value["columns"])
        return [*rows, found[columns]] if "nova_cell0." in answer.query else rows

    _rows(recording, "instances", seen)
    _rows(recording, "instances", added)


def _old(host: RecordedHost, name: str) -> str:
    """Make a server's request long ago; return its UUID."""
    uuid = host.uuid(name)
    host.row("instance_mappings", uuid, created_at=OLD)
    return uuid


def test_uuid_name_chain_broken(host: RecordedHost) -> None:
    uuid, other = host.uuid("vm-plain"), host.uuid("vm-tenant")
    smbios = f"serial={uuid},uuid={uuid}"
    host.edit(
        "kernel", f"/proc/{host.pid('vm-plain')}/cmdline", smbios, f"serial={uuid},uuid={other}"
    )

    assert host.findings() == [
        f"uuid-name-chain-broken of vm-plain: domain reports uuid = {uuid}; domain reports smbios = {uuid};"
        f" process reports uuid = {uuid}; process reports smbios = {other}"
    ]
    assert host.headlines() == [
        f"vm-plain has more than one UUID: {uuid[:8]} in libvirt, libvirt's SMBIOS and QEMU and"
        f" {other[:8]} in QEMU's SMBIOS"
    ]


def test_uuid_name_chain_broken_by_the_name(host: RecordedHost) -> None:
    name = host.domain("vm-plain")
    host.edit("kernel", f"/proc/{host.pid('vm-plain')}/cmdline", f"guest={name},", "guest=mine,")

    assert host.findings() == [
        f"uuid-name-chain-broken of vm-plain: domain reports name = {name}; process reports name = mine"
    ]
    assert host.headlines() == [
        f"vm-plain has more than one domain name: {name} in libvirt and mine in QEMU"
    ]


def test_uuid_name_chain_broken_by_the_disk(host: RecordedHost) -> None:
    uuid, other, name = host.uuid("vm-plain"), host.uuid("vm-tenant"), host.domain("vm-plain")
    host.edit("libvirt", f"virsh dumpxml {name}", f"{uuid}/disk'", f"{other}/disk'")

    assert (
        f"uuid-name-chain-broken of vm-plain: domain reports uuid = {uuid},"
        f" disks = vda: /var/lib/nova/instances/{other}/disk"
    ) in host.findings()
    assert (
        f"vm-plain's disk vda is in the folder of vm-tenant: …/{other[:8]}/disk" in host.headlines()
    )


def test_a_monitor_of_another_guest_is_reported(monitored: RecordedHost) -> None:
    uuid, name = monitored.uuid("vm-plain"), monitored.domain("vm-plain")
    query = f'virsh qemu-monitor-command {name} \'{{"execute": "query-uuid"}}\''
    monitored.set("qemu", query, {"UUID": monitored.uuid("vm-tenant")})

    assert monitored.findings() == [
        f"uuid-name-chain-broken of vm-plain: domain reports uuid = {uuid}; domain reports smbios = {uuid};"
        f" process reports uuid = {uuid}; process reports smbios = {uuid};"
        f" monitor reports uuid = {monitored.uuid('vm-tenant')}"
    ]


def test_the_serial_number_may_be_the_hosts(host: RecordedHost) -> None:
    uuid, name = host.uuid("vm-plain"), host.domain("vm-plain")
    serial = "44454c4c-4200-1051-8056-b4c04f4e3732"
    host.edit(
        "kernel", f"/proc/{host.pid('vm-plain')}/cmdline", f"serial={uuid}", f"serial={serial}"
    )
    for query in (f"virsh dumpxml {name}", f"virsh dumpxml --inactive {name}"):
        host.edit("libvirt", query, f"serial'>{uuid}<", f"serial'>{serial}<")

    assert host.findings() == []


def test_instance_name_collision(host: RecordedHost) -> None:
    stopped, plain = host.uuid("vm-stopped"), host.uuid("vm-plain")
    _undefine(host, "vm-stopped")
    host.server(stopped, instance_name=host.domain("vm-plain"))

    name = host.domain("vm-plain")
    assert (
        f"instance-name-collision of vm-stopped: instance reports uuid = {stopped}, vm_state = stopped,"
        f" domain_name = {name}; domain reports name = {name}, uuid = {plain}"
    ) in host.findings()
    assert (
        f"vm-stopped's domain name {name} belongs to vm-plain ({plain[:8]}) on host vm"
    ) in host.headlines()


def test_the_same_name_in_another_cell_is_no_collision(host: RecordedHost) -> None:
    """vm-error is row 1 of cell0, and vm-plain row 1 of cell1: both are instance-00000001."""
    error, plain = host.guest("vm-error"), host.guest("vm-plain")
    assert error.server is not None
    assert plain.server is not None
    assert error.server.instance_name == plain.server.instance_name

    assert host.findings() == []


def test_a_name_that_was_not_collected_is_not_guessed(host: RecordedHost) -> None:
    stopped = host.uuid("vm-stopped")
    _undefine(host, "vm-stopped")
    host.silence("nova")
    host.row("instances", stopped, id=host.guest("vm-plain").instance.id)  # type: ignore[union-attr]
    assert "instance-name-collision of vm-stopped" in "".join(host.findings())

    conf = host.last("host", "/etc/nova/nova.conf").value
    options = conf["DEFAULT"] | {"instance_name_template": "vm-%(uuid)s"}
    host.set("host", "/etc/nova/nova.conf", conf | {"DEFAULT": options})
    assert "instance-name-collision" not in "".join(host.findings())


def test_instance_in_two_cells(host: RecordedHost) -> None:
    _copy_into_cell0(host, "vm-plain")

    assert host.findings() == [
        "instance-in-two-cells of vm-plain: instance reports cell = nova, vm_state = active, host = vm;"
        " instance reports cell = nova_cell0, vm_state = active, host = vm"
    ]
    assert host.report().findings[0].severity.word == "error"
    assert host.headlines() == [
        "vm-plain has live records in cell nova (active on host vm) and cell nova_cell0 (active on"
        " host vm)"
    ]
    assert host.report().findings[0].names == {"DATABASE": "nova_cell0"}


def test_a_second_record_in_cell0_is_a_warning(host: RecordedHost) -> None:
    _copy_into_cell0(host, "vm-plain", vm_state="error", host=None, node=None)

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("instance-in-two-cells", "warning")


def test_a_deleted_row_in_another_cell_is_no_finding(host: RecordedHost) -> None:
    _copy_into_cell0(host, "vm-plain", deleted=7)

    assert host.findings() == []


def test_a_hidden_row_belongs_to_a_resize_into_another_cell(host: RecordedHost) -> None:
    _copy_into_cell0(host, "vm-plain", hidden=1)

    assert host.findings() == []


def cells_of(host: RecordedHost) -> dict[str, str]:
    """Return database → UUID of the cells."""
    query = "SELECT id, uuid, name, disabled, database_connection FROM nova_api.cell_mappings"
    return {row[5]: row[1] for row in host.last("nova-db", query).value["rows"]}


def test_instance_mapping_skew(host: RecordedHost) -> None:
    uuid = _old(host, "vm-plain")
    _without_row(host, "instance_mappings", uuid)

    assert host.findings() == [
        "instance-mapping-skew of vm-plain: instance reports cell = nova, vm_state = active;"
        " mapping reports no row"
    ]
    assert host.headlines() == [
        "vm-plain is active in cell nova, but nova's API database has no mapping for it"
    ]
    [finding] = host.report().findings
    assert cells_of(host)["nova"] == finding.names["CELL"]
    assert finding.names["COLUMN"] == "", "a row that does not exist can't be changed"


@pytest.mark.parametrize(("table", "cells", "severity", "said", "headline"), [
    ("instance_mappings", {"cell_id": None}, "error", f"no cell_id, created_at = {OLD}",
     "vm-plain is active in cell nova, but its mapping has had no cell since 2026-01-01 00:00"),
    ("instance_mappings", {"cell_id": 1}, "error", "cell = nova_cell0",
     "vm-plain's record is in cell nova, but its mapping leads to cell nova_cell0"),
    ("instance_mappings", {"queued_for_delete": 1}, "warning", "queued_for_delete = True",
     "vm-plain is active, but its mapping is marked for deletion"),
])  # fmt: skip
def test_instance_mapping_skew_of_a_row(
    host: RecordedHost, table: str, cells: Row, severity: str, said: str, headline: str
) -> None:
    host.row(table, _old(host, "vm-plain"), **cells)

    [finding] = host.report().findings
    assert finding.severity.word == severity
    assert host.findings() == [
        "instance-mapping-skew of vm-plain: instance reports cell = nova, vm_state = active;"
        f" mapping reports {said}"
    ]
    assert finding.headline.startswith(headline)
    assert finding.names["CELL"] == "", "the mapping exists"
    assert finding.names["COLUMN"] in cells


def test_a_build_request_that_ended_between_two_looks_is_none(host: RecordedHost) -> None:
    uuid = _old(host, "vm-plain")
    row = {"id": 1, "instance_uuid": uuid, "created_at": OLD, "updated_at": None}
    _rows(host, "build_requests", lambda answer, rows: [row])
    [first] = [
        answer
        for answer in host.bundle.by_layer["nova-db"]
        if re.match(r"SELECT .* FROM \S+\.build_requests", answer.query) and uuid in answer.query
    ]
    ended = {"at": first.at + timedelta(seconds=9), "value": first.value | {"rows": []}}
    again = first.model_copy(update=ended)
    host.bundle = host.bundle.with_answers((*host.bundle.answers, again))

    assert host.findings() == []


def test_a_leftover_build_request_is_a_warning(host: RecordedHost) -> None:
    uuid = _old(host, "vm-plain")
    row = {"id": 1, "instance_uuid": uuid, "created_at": OLD, "updated_at": None}
    _rows(host, "build_requests", lambda answer, rows: [row])

    assert host.findings() == [
        "instance-mapping-skew of vm-plain: instance reports cell = nova, vm_state = active;"
        " mapping reports cell = nova, build_requests = 1"
    ]
    assert host.headlines() == [
        "vm-plain is active, but nova still has 1 build request for it",
    ]


def test_a_deleted_server_with_a_live_mapping_is_a_note(host: RecordedHost) -> None:
    uuid = _old(host, "vm-plain")
    host.row("instances", uuid, deleted=1, deleted_at=OLD, vm_state="deleted")
    notes = [f for f in host.findings() if f.startswith("instance-mapping-skew")]

    assert notes == [
        f"instance-mapping-skew of vm-plain: instance reports deleted_at = {OLD};"
        " mapping reports queued_for_delete = False"
    ]
    [headline] = [it for it in host.headlines() if "mapping" in it]
    assert headline.startswith("vm-plain has been deleted since 2026-01-01 00:00 (")
    assert headline.endswith("), but its mapping is not marked for deletion")


@pytest.mark.parametrize(
    "cells", [{"task_state": "spawning"}, {"vm_state": "building"}, {"vm_state": "soft-delete"}]
)
def test_a_mapping_may_be_behind_while_nova_works_on_the_server(
    host: RecordedHost, cells: Row
) -> None:
    uuid = _old(host, "vm-stopped")
    host.row("instance_mappings", uuid, queued_for_delete=1)
    now = f"{host.bundle.started:%Y-%m-%d %H:%M:%S}"
    host.row("instances", uuid, updated_at=now, **cells)

    assert host.findings() == []


def test_a_server_that_was_just_requested_and_runs_has_a_cell(host: RecordedHost) -> None:
    """nova maps a server to its cell before it sends the build to a host."""
    uuid, started = host.uuid("vm-plain"), host.bundle.started
    ordered, launched = started - timedelta(minutes=3), started - timedelta(minutes=2)
    host.row("instances", uuid, launched_at=f"{launched:%Y-%m-%d %H:%M:%S}")
    host.row("instance_mappings", uuid, cell_id=None, created_at=f"{ordered:%Y-%m-%d %H:%M:%S}")

    assert any(line.startswith("instance-mapping-skew of vm-plain") for line in host.findings())


def test_a_server_that_was_just_requested_has_no_cell_yet(host: RecordedHost) -> None:
    now = f"{host.bundle.started:%Y-%m-%d %H:%M:%S}"
    host.row("instance_mappings", host.uuid("vm-plain"), cell_id=None, created_at=now)

    assert host.findings() == []


def test_before_rocky_an_instance_may_have_no_mapping(host: RecordedHost) -> None:
    uuid = _old(host, "vm-plain")
    _without_row(host, "instance_mappings", uuid)

    def older(answer: Answer) -> Answer:
        if ".instance_mappings" not in answer.query or not answer.query.startswith("SELECT"):
            return answer
        columns, rows = answer.value["columns"], answer.value["rows"]
        at = columns.index("queued_for_delete")
        cut = [row[:at] + row[at + 1 :] for row in rows]
        value = {"columns": columns[:at] + columns[at + 1 :], "rows": cut}
        return answer.model_copy(update={"value": value})

    host.bundle = host.bundle.with_answers(tuple(map(older, host.bundle.answers)))

    assert host.findings() == []


def test_an_empty_queued_for_delete_is_no_finding(host: RecordedHost) -> None:
    host.row("instance_mappings", _old(host, "vm-plain"), queued_for_delete=None)

    assert host.findings() == []


def test_partial_deletion(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-paused"), task_state="deleting", updated_at=OLD)

    assert host.findings() == [
        f"partial-deletion of vm-paused: instance reports task_state = deleting, updated_at = {OLD}"
    ]
    [headline] = host.headlines()
    assert headline.startswith("vm-paused has been stuck in deleting since 2026-01-01 00:00 (")


def test_a_deletion_may_take_minutes(host: RecordedHost) -> None:
    since = f"{host.bundle.started - timedelta(minutes=9):%Y-%m-%d %H:%M:%S}"
    host.row("instances", host.uuid("vm-paused"), task_state="deleting", updated_at=since)

    assert host.findings() == []


def test_a_deletion_that_stopped_before_the_row_was_marked(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-paused"), vm_state="deleted", updated_at=OLD)

    assert host.findings() == [
        f"partial-deletion of vm-paused: instance reports vm_state = deleted, updated_at = {OLD},"
        " its_row = is not marked deleted"
    ]
    [headline] = host.headlines()
    assert headline.startswith("vm-paused has had vm_state deleted since 2026-01-01 00:00 (")
    assert headline.endswith("), but its row is not marked deleted")


def test_files_that_nova_gave_up_removing(host: RecordedHost) -> None:
    uuid = host.uuid("vm-stopped")
    host.row("instances", uuid, deleted=6, deleted_at=OLD, vm_state="deleted", cleaned=0)
    _clean_attempts(host, uuid, 5)

    assert (
        f"partial-deletion of vm-stopped: instance reports deleted_at = {OLD}, clean_attempts = 5"
    ) in host.findings()
    [headline] = [it for it in host.headlines() if "gave up" in it]
    assert headline.startswith("vm-stopped has been deleted since 2026-01-01 00:00 (")
    assert headline.endswith("), but nova-compute gave up on its files after 5 attempts")


def test_files_that_nova_still_tries_to_remove(host: RecordedHost) -> None:
    uuid = host.uuid("vm-stopped")
    host.row("instances", uuid, deleted=6, deleted_at=OLD, vm_state="deleted", cleaned=0)
    _clean_attempts(host, uuid, 4)

    assert "partial-deletion" not in "".join(host.findings())


def test_partial_deletion_names_the_fault_that_stopped_it(host: RecordedHost) -> None:
    """vm-error is the only server of the recording with a fault in its history."""
    uuid = host.uuid("vm-error")
    instance = host.guest("vm-error").instance
    assert instance is not None and instance.fault_message and instance.fault_at
    half_an_hour_ago = f"{host.bundle.started - timedelta(minutes=30):%Y-%m-%d %H:%M:%S}"
    host.row("instances", uuid, task_state="deleting", updated_at=half_an_hour_ago)

    found = [it for it in host.report().findings if it.check.name == "partial-deletion"]
    assert [it.headline.partition(" after a fault (")[2][:20] for it in found] == [
        instance.fault_message[:20]
    ]
    assert str(found[0].evidence[1]) == (
        f"instance reports fault_message = {instance.fault_message}, fault_at = {instance.fault_at}"
    )


def _clean_attempts(host: RecordedHost, uuid: str, count: int) -> None:
    row = {"instance_uuid": uuid, "key": "clean_attempts", "value": str(count), "deleted": 6}

    def added(answer: Answer, rows: list[Row]) -> list[Row]:
        return [*rows, row] if "nova." in answer.query else rows

    _rows(host, "instance_system_metadata", added)


def test_active_without_host(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-plain"), host=None, node=None)

    assert host.findings() == [
        "active-without-host of vm-plain: instance reports vm_state = active, no host,"
        " no node; domain reports state = running (unpaused)"
    ]
    assert host.headlines() == [
        "vm-plain is active in nova, but its record has no host; on host vm it is running (unpaused)",
    ]


def test_active_without_host_if_only_the_node_is_missing(host: RecordedHost) -> None:
    guest = host.guest("vm-plain")
    assert guest.instance is not None
    host.row("instances", guest.uuid, node=None)

    assert (
        "active-without-host of vm-plain: instance reports vm_state = active,"
        f" host = {guest.instance.host}, no node; domain reports state = running (unpaused)"
    ) in host.findings()
    assert (
        "vm-plain is active in nova, but its record has no node; on host vm it is running (unpaused)"
    ) in host.headlines()


def test_active_without_host_if_the_host_does_not_exist(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-plain"), host="vm-old", node="vm-old")

    assert (
        "domain-running-on-wrong-host ← active-without-host of vm-plain: instance reports"
        " vm_state = active, host = vm-old; services reports no nova_compute;"
        " domain reports state = running (unpaused)"
    ) in host.folded()
    assert (
        "vm-plain is active on host vm-old in nova, but no nova-compute has that name;"
        " on host vm it is running (unpaused)"
    ) in host.headlines()


def test_active_without_host_if_the_guest_runs_after_a_failed_build(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-plain"), host=None, node=None, vm_state="error")

    assert (
        "active-without-host of vm-plain: instance reports vm_state = error, no host;"
        " domain reports state = running (unpaused)"
    ) in host.findings()
    assert (
        "vm-plain is in error and on no host in nova; on host vm it is running (unpaused)"
    ) in host.headlines()


def test_hosts_whose_services_were_not_collected_may_exist(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-plain"), host="vm-old", node="vm-old")
    host.drop(lambda answer: ".services" not in answer.query)

    assert "active-without-host" not in "".join(host.findings())


@pytest.mark.parametrize("name", ["vm-shelved", "vm-error"])
def test_servers_that_need_no_host(host: RecordedHost, name: str) -> None:
    guest = host.guest(name)
    assert guest.instance is not None
    assert guest.instance.host is None

    assert host.findings() == []


def test_a_server_that_is_being_scheduled_has_no_host_yet(host: RecordedHost) -> None:
    now = f"{host.bundle.started:%Y-%m-%d %H:%M:%S}"
    uuid = host.uuid("vm-stopped")
    host.row("instances", uuid, host=None, node=None, task_state="powering-on", updated_at=now)

    assert "active-without-host" not in "".join(host.findings())
