"""Definitions of one guest that have drifted apart."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.conftest import RecordedHost, changes


def _stored(host: RecordedHost, name: str) -> str:
    return f"virsh dumpxml --inactive {host.domain(name)}"


def _flavor(host: RecordedHost, name: str) -> dict[str, Any]:
    """Return the flavors that an instance keeps, as stored."""
    instance = host.guest(name).instance
    assert instance is not None and instance.instance_extra is not None
    stored: dict[str, Any] = json.loads(str(instance.instance_extra["flavor"]))
    return stored


def test_flavor_three_way_drift(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-plain"), root_gb=20)

    assert host.findings() == [
        "flavor-three-way-drift of vm-plain: instance reports root_gb = 20;"
        " instance reports flavor = lab.tiny, flavor_root_gb = 1"
    ]
    assert host.headlines() == [
        "vm-plain's database row has 20 GiB of root disk, but its stored flavor lab.tiny has 1 GiB of root disk",
    ]


def test_flavor_three_way_drift_after_a_resize_that_broke_off(host: RecordedHost) -> None:
    flavors = _flavor(host, "vm-plain")
    left = json.dumps(flavors | {"old": flavors["cur"]})
    host.row("instance_extra", host.uuid("vm-plain"), flavor=left)

    assert host.findings() == [
        "flavor-three-way-drift of vm-plain: instance reports vm_state = active, flavor = lab.tiny,"
        " old_flavor = lab.tiny"
    ]
    assert host.headlines() == [
        "vm-plain still stores the old flavor lab.tiny of a resize that is over",
    ]


def test_flavors_kept_until_a_resize_is_confirmed_are_not_drift(host: RecordedHost) -> None:
    assert _flavor(host, "vm-verify")["old"] is not None

    assert host.findings() == []


def _flavor_row(host: RecordedHost, name: str, **cells: object) -> None:
    """Set cells of a flavor's row in nova's API database."""
    [answer] = [
        it
        for it in host.bundle.by_layer["nova-db"]
        if it.query.startswith("SELECT") and ".flavors " in it.query
    ]
    columns, rows = answer.value["columns"], []
    for row in answer.value["rows"]:
        named = dict(zip(columns, row, strict=True))
        rows.append([*(named | cells).values()] if named["name"] == name else row)
    assert rows != answer.value["rows"]
    host.set("nova-db", answer.query, {"columns": columns, "rows": rows})


def test_a_flavor_that_was_created_again_is_a_note(host: RecordedHost) -> None:
    listed = [it for it in host.bundle.by_layer["nova"] if "/flavors/detail?" in it.query]
    for answer in listed:  # the collector's request, and the openstack command's
        flavors = answer.value["flavors"]
        made = [it | {"ram": 512} if it["name"] == "lab.duo" else it for it in flavors]
        host.set("nova", answer.query, {"flavors": made})
    _flavor_row(host, "lab.duo", memory_mb=512)

    [finding] = host.report().findings
    assert finding.severity.word == "note"
    assert host.findings() == [
        "flavor-three-way-drift of vm-duo: instance reports flavor = lab.duo, flavor_memory_mb = 128;"
        " flavor reports memory_mb = 512"
    ]
    assert host.headlines() == [
        "vm-duo was sold flavor lab.duo with 128 MiB of memory; today lab.duo has 512 MiB of memory",
    ]


def test_a_name_that_two_flavors_share_is_no_drift(host: RecordedHost) -> None:
    listed = [it for it in host.bundle.by_layer["nova"] if "/flavors/detail?" in it.query]
    for answer in listed:
        flavors = answer.value["flavors"]
        others = [it | {"id": "again", "ram": 512} for it in flavors if it["name"] == "lab.duo"]
        assert others
        host.set("nova", answer.query, {"flavors": [*others, *flavors]})

    assert host.findings() == []


def test_a_flavor_that_no_longer_exists_is_not_drift(host: RecordedHost) -> None:
    query = "GET /v2.1/flavors/detail?is_public=None [2.93]"
    host.set("nova", query, {"flavors": []})

    assert host.findings() == []


def test_machine_or_cpu_drift(host: RecordedHost) -> None:
    live = host.guest("vm-plain").domain.machine  # type: ignore[union-attr]
    host.edit("libvirt", _stored(host, "vm-plain"), f"machine='{live}'", "machine='pc-i440fx-6.2'")

    [finding] = host.report().findings
    assert finding.severity.word == "warning"
    assert host.findings() == [
        f"machine-or-cpu-drift of vm-plain: domain reports machine = {live};"
        " domain reports next_machine = pc-i440fx-6.2"
    ]
    assert host.headlines() == [
        f"vm-plain runs with machine type {live}, but libvirt would start it with pc-i440fx-6.2"
    ]


def test_an_alias_equals_the_machine_type_it_stands_for(host: RecordedHost) -> None:
    live = host.guest("vm-plain").domain.machine  # type: ignore[union-attr]
    assert f"<machine canonical='{live}'" in host.last("libvirt", "virsh capabilities").value
    host.edit("libvirt", _stored(host, "vm-plain"), f"machine='{live}'", "machine='pc'")

    assert host.findings() == []


def test_machine_or_cpu_drift_to_a_type_that_qemu_dropped(host: RecordedHost) -> None:
    live = host.guest("vm-stopped").domain.inactive.machine  # type: ignore[union-attr]
    host.edit("libvirt", _stored(host, "vm-stopped"), f"machine='{live}'", "machine='pc-0.12'")

    [finding] = host.report().findings
    assert finding.severity.word == "error"
    assert host.findings() == [
        "machine-or-cpu-drift of vm-stopped: domain reports machine = pc-0.12;"
        " libvirt reports no that_machine"
    ]
    assert host.headlines() == [
        "vm-stopped has machine type pc-0.12, which the QEMU on host vm does not support: nova would "
        "start it with pc",
    ]
    assert "nova-manage libvirt update_machine_type" not in "".join(changes(finding))


@pytest.mark.parametrize("name", ["vm-plain", "vm-stopped"])
def test_machine_or_cpu_drift_to_a_type_in_novas_record_that_qemu_lacks(
    host: RecordedHost, name: str
) -> None:
    _note_machine(host, name, "pc-i440fx-99.0")
    uuid, machine = host.uuid(name), host.guest(name).domain.definition.machine  # type: ignore[union-attr]

    [finding] = [it for it in host.report().findings if it.check.name == "machine-or-cpu-drift"]
    assert finding.severity.word == "error"
    assert finding.headline == (
        f"{name} has machine type pc-i440fx-99.0 in nova's record, which the QEMU on host vm does "
        "not support: its next start fails"
    )
    assert changes(finding) == [
        f"openstack server stop {uuid}",
        f"nova-manage libvirt update_machine_type --force {uuid} {machine}",
        f"openstack server start {uuid}",
    ]


def test_another_emulator_has_other_machine_types(host: RecordedHost) -> None:
    stored = _stored(host, "vm-stopped")
    live = host.guest("vm-stopped").domain.inactive.machine  # type: ignore[union-attr]
    host.edit("libvirt", stored, f"machine='{live}'", "machine='pc-0.12'")
    host.edit(
        "libvirt", stored, "/usr/bin/qemu-system-x86_64<", "/opt/qemu/bin/qemu-system-x86_64<"
    )

    assert host.findings() == []


def _note_machine(host: RecordedHost, name: str, machine: str) -> None:
    """Let nova have recorded another machine type."""
    for answer in host.bundle.asked("nova-db", "SELECT instance_uuid, `key`, value"):
        rows = answer.value["rows"]
        noted = [
            [row[0], row[1], machine, *row[3:]]
            if (row[0], row[1]) == (host.uuid(name), "image_hw_machine_type")
            else row
            for row in rows
        ]
        if noted != rows:
            host.set("nova-db", answer.query, answer.value | {"rows": noted})
            return
    raise AssertionError("nova has noted no machine type")


def test_machine_or_cpu_drift_from_novas_record(host: RecordedHost) -> None:
    _note_machine(host, "vm-plain", "pc-q35-7.2")
    live = host.guest("vm-plain").domain.machine  # type: ignore[union-attr]

    assert host.findings() == [
        "machine-or-cpu-drift of vm-plain: instance reports image_hw_machine_type = pc-q35-7.2;"
        f" domain reports machine = {live}"
    ]
    assert host.headlines() == [
        f"vm-plain runs with machine type {live}, but nova's record has pc-q35-7.2"
    ]


def test_a_type_changed_while_the_guest_is_off_takes_effect_later(host: RecordedHost) -> None:
    _note_machine(host, "vm-stopped", "pc-q35-7.2")

    assert host.findings() == []


def test_machine_or_cpu_drift_of_the_processor(host: RecordedHost) -> None:
    host.edit(
        "libvirt",
        _stored(host, "vm-plain"),
        "<cpu mode='host-model' check='partial'>",
        "<cpu mode='custom' match='exact'><model fallback='allow'>Nehalem</model>",
    )

    assert host.findings() == [
        "machine-or-cpu-drift of vm-plain: domain reports cpu_model = EPYC;"
        " domain reports next_cpu_model = Nehalem"
    ]
    assert host.headlines() == [
        "vm-plain runs with CPU model EPYC, but libvirt would start it with Nehalem",
    ]


def test_xml_metadata_stale(host: RecordedHost) -> None:
    live = f"virsh dumpxml {host.domain('vm-plain')}"
    created = host.guest("vm-plain").domain.nova.created  # type: ignore[union-attr]
    host.edit("libvirt", live, "<nova:name>vm-plain<", "<nova:name>old-name<")

    [finding] = host.report().findings
    assert finding.severity.word == "note"
    assert host.findings() == [
        f"xml-metadata-stale of vm-plain: domain reports metadata_written = {created}, name = old-name;"
        " instance reports name = vm-plain"
    ]
    assert host.headlines() == [
        "vm-plain's metadata in libvirt has name old-name, but nova has name vm-plain",
    ]


def test_xml_metadata_stale_of_the_project(host: RecordedHost) -> None:
    instance = host.guest("vm-plain").instance
    assert instance is not None
    project = instance.raw["project_id"]
    live = f"virsh dumpxml {host.domain('vm-plain')}"
    host.edit("libvirt", live, f'<nova:project uuid="{project}"', '<nova:project uuid="other"')

    [finding] = host.report().findings
    assert finding.severity.word == "warning"
    assert host.findings() == [
        "xml-metadata-stale of vm-plain: domain reports project = other;"
        f" instance reports project_id = {project}"
    ]
    assert host.headlines() == [
        f"vm-plain's metadata in libvirt has project other, but nova has project {str(project)[:8]}"
    ]


@pytest.mark.parametrize("version", ["15.1.5", "2015.1.4", "0.0.0", "unknown"])
def test_before_pike_the_note_names_the_user_of_the_last_request(
    host: RecordedHost, version: str
) -> None:
    domain, instance = host.guest("vm-plain").domain, host.guest("vm-plain").instance
    assert domain is not None and domain.nova is not None and instance is not None
    live = f"virsh dumpxml {host.domain('vm-plain')}"
    project = instance.raw["project_id"]
    host.edit("libvirt", live, f'<nova:project uuid="{project}"', '<nova:project uuid="other"')
    host.edit(
        "libvirt",
        live,
        f'<nova:package version="{domain.nova.package}"',
        f'<nova:package version="{version}"',
    )

    assert host.findings() == []


def test_a_note_names_no_image_for_a_server_that_boots_from_a_volume(host: RecordedHost) -> None:
    note = host.guest("vm-bfv").domain.nova  # type: ignore[union-attr]
    assert note is not None and note.root_image is None

    assert host.findings() == []


def test_the_note_for_the_next_start_names_its_owner_too(host: RecordedHost) -> None:
    instance = host.guest("vm-plain").instance
    assert instance is not None
    user = str(instance.raw["user_id"])
    host.edit(
        "libvirt", _stored(host, "vm-plain"), f'<nova:user uuid="{user}"', '<nova:user uuid="b"'
    )

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("xml-metadata-stale", "note")
    assert finding.headline == (
        f"vm-plain's metadata in libvirt has user b, but nova has user {user[:8]}"
    )


def test_a_note_with_the_port_of_another_server_is_stale(host: RecordedHost) -> None:
    note, other = (host.guest(name).domain.nova for name in ("vm-plain", "vm-duo"))  # type: ignore[union-attr]
    assert note is not None and other is not None
    live = f"virsh dumpxml {host.domain('vm-plain')}"
    host.edit(
        "libvirt", live, f'<nova:port uuid="{note.ports[0]}"', f'<nova:port uuid="{other.ports[0]}"'
    )

    assert host.headlines() == [
        f"vm-plain's metadata in libvirt has port {other.ports[0][:8]}, which neither libvirt nor "
        "neutron has for this server"
    ]


def test_a_note_with_an_address_of_another_server_is_stale(host: RecordedHost) -> None:
    note = host.guest("vm-plain").domain.nova  # type: ignore[union-attr]
    assert note is not None
    live = f"virsh dumpxml {host.domain('vm-plain')}"
    host.edit("libvirt", live, f'address="{note.addresses[0]}"', 'address="10.20.0.9"')

    assert host.headlines() == [
        "vm-plain's metadata in libvirt has address 10.20.0.9, which no port of the server has in "
        "neutron"
    ]


@pytest.mark.parametrize("part", ["sockets", "cores", "threads"])
def test_machine_or_cpu_drift_of_the_topology(host: RecordedHost, part: str) -> None:
    instance = host.guest("vm-duo").instance
    assert instance is not None and instance.instance_extra
    model = json.loads(str(instance.instance_extra["vcpu_model"]))
    model["nova_object.data"]["topology"]["nova_object.data"][part] = 8
    host.row("instance_extra", host.uuid("vm-duo"), vcpu_model=json.dumps(model))

    [headline] = host.headlines()
    assert headline.endswith(f", but nova's record of its CPU has 8 {part}")
