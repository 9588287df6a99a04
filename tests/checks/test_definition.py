"""The disks of a domain's live and persistent definitions."""

from __future__ import annotations

import pytest
from tests.conftest import RecordedHost, changes


def _stored(host: RecordedHost, name: str) -> str:
    return f"virsh dumpxml --inactive {host.domain(name)}"


def test_chain_live_vs_persistent(host: RecordedHost) -> None:
    path = f"{host.folder('vm-plain')}/disk"
    host.edit("libvirt", _stored(host, "vm-plain"), f"'{path}'", f"'{path}.old'")

    assert host.findings() == [
        f"chain-live-vs-persistent of vm-plain: domain reports disks = vda is {path} (qcow2);"
        f" domain reports inactive_disks = vda is {path}.old (qcow2)"
    ]
    folder = f"…/{host.uuid('vm-plain')[:8]}"
    assert host.headlines() == [
        f"vm-plain runs with vda {folder}/disk, but its next start would use {folder}/disk.old"
    ]


@pytest.mark.parametrize("recorded", ["qcow2", "raw"])
def test_only_a_disks_format_differs(host: RecordedHost, recorded: str) -> None:
    """A hard reboot writes the format that nova recorded, which must be the file's own."""
    query = _stored(host, "vm-plain")
    xml = host.last("libvirt", query).value
    end = xml.index(f"'{host.folder('vm-plain')}/disk'")
    start = xml.rindex("<disk ", 0, end)
    disk = xml[start:end]
    assert disk.count("type='qcow2'") == 1
    host.edit("libvirt", query, disk, disk.replace("type='qcow2'", "type='raw'"))
    if recorded == "raw":
        info = f"cat {host.folder('vm-plain')}/disk.info"
        host.edit("images", info, '"qcow2"', '"raw"')

    found = host.found("chain-live-vs-persistent")
    assert found.headline == (
        "vm-plain's vda has format qcow2, but raw at its next start; the file has a qcow2 header, "
        "which the guest would get as its data"
    )
    reboot = [f"openstack server reboot --hard {host.uuid('vm-plain')}"]
    assert changes(found) == (reboot if recorded == "qcow2" else [])


def test_chain_live_vs_persistent_if_only_one_definition_has_a_disk(host: RecordedHost) -> None:
    volume = host.guest("vm-data").volume_ids
    assert volume is not None
    [serial] = volume
    xml = host.last("libvirt", _stored(host, "vm-data")).value
    end = xml.index("</disk>", xml.index(serial)) + len("</disk>")
    start = xml.rindex("<disk ", 0, end)
    host.edit("libvirt", _stored(host, "vm-data"), xml[start:end], "")

    found = [
        (finding.severity.word, finding.check.name)
        for finding in host.report().findings
        if finding.check.topic == "definition"
    ]
    assert found == [("warning", "chain-live-vs-persistent")]


def test_a_medium_may_be_ejected(host: RecordedHost) -> None:
    path = f"{host.folder('vm-config')}/disk.config"
    xml = host.last("libvirt", f"virsh dumpxml {host.domain('vm-config')}").value
    start = xml.index("<source", xml.rindex("<disk ", 0, xml.index(path)))
    source = xml[start : xml.index("/>", start) + 2]
    host.edit("libvirt", f"virsh dumpxml {host.domain('vm-config')}", source, "")

    assert not [line for line in host.findings() if line.startswith("chain-live")]


def test_definitions_differ_while_a_block_job_changes_them(host: RecordedHost) -> None:
    path = f"{host.folder('vm-plain')}/disk"
    host.edit("libvirt", _stored(host, "vm-plain"), f"'{path}'", f"'{path}.old'")
    job = f"virsh blockjob {host.domain('vm-plain')} vda"
    host.set("libvirt", job, {"type": 4, "cur": 1, "end": 9})

    assert not [line for line in host.findings() if line.startswith("chain-live")]


def test_persistent_xml_foreign_devices(host: RecordedHost) -> None:
    mine, other = (f"{host.folder(name)}/disk" for name in ("vm-stopped", "vm-plain"))
    host.edit("libvirt", _stored(host, "vm-stopped"), f"'{mine}'", f"'{other}'")

    foreign, chain = host.findings()
    assert foreign == (
        "persistent-xml-foreign-devices of vm-stopped: domain reports inactive_disks = vda is"
        f" {other} (qcow2), disk_of = {host.uuid('vm-plain')}"
    )
    assert chain.startswith("uuid-name-chain-broken of vm-stopped: ")
    assert host.headlines()[0] == (
        f"vm-stopped's definition has a disk of vm-plain as its vda: …/{host.uuid('vm-plain')[:8]}/disk"
    )


def test_persistent_xml_foreign_devices_by_volume(host: RecordedHost) -> None:
    mine, others = host.guest("vm-data").volume_ids, host.guest("vm-bfv").volume_ids
    assert mine and others
    [ours], [theirs] = mine, others
    host.edit("libvirt", _stored(host, "vm-data"), f"<serial>{ours}<", f"<serial>{theirs}<")

    found = [line for line in host.findings() if line.startswith("persistent-xml-foreign")]
    assert len(found) == 1
    assert found[0].endswith(f"serial {theirs}), belongs_to = {host.uuid('vm-bfv')}")


def test_persistent_xml_foreign_devices_by_the_guest_that_runs_with_it(host: RecordedHost) -> None:
    # The path belongs to another guest by now, and neither disk has a serial.
    path = f"{host.folder('vm-stopped')}/disk"
    host.edit("libvirt", _stored(host, "vm-stopped"), f"'{path}'", "'/dev/sdx'")
    live = f"virsh dumpxml {host.domain('vm-plain')}"
    disk = "<disk type='block' device='disk'><source dev='/dev/sdx'/><target dev='vdz'/></disk>"
    host.edit("libvirt", live, "<devices>", f"<devices>{disk}")

    found = [line for line in host.findings() if line.startswith("persistent-xml-foreign")]
    assert found == [
        "persistent-xml-foreign-devices of vm-stopped: domain reports inactive_disks = vda is"
        f" /dev/sdx (qcow2), belongs_to = {host.uuid('vm-plain')}"
    ]


@pytest.mark.parametrize("database", [True, False])
def test_the_device_of_a_server_that_is_off_may_belong_to_another_by_now(
    host: RecordedHost, database: bool
) -> None:
    # nova disconnected the volume at the stop, and connects it again by its serial.
    volume, _ = host.volume("vm-data")
    path = f"{host.folder('vm-stopped')}/disk"
    stored = _stored(host, "vm-stopped")
    old = f"<source file='{path}'/>"
    host.edit("libvirt", stored, old, f"<source dev='/dev/sdx'/><serial>{volume}</serial>")
    host.row("block_device_mapping", host.uuid("vm-stopped"), volume_id=volume)
    live = f"virsh dumpxml {host.domain('vm-plain')}"
    disk = "<disk type='block' device='disk'><source dev='/dev/sdx'/><target dev='vdz'/></disk>"
    host.edit("libvirt", live, "<devices>", f"<devices>{disk}")
    if not database:
        host.silence("nova-db")

    assert not [line for line in host.findings() if line.startswith("persistent-xml-foreign")]


def test_a_volume_attached_to_several_servers_is_foreign_to_none(host: RecordedHost) -> None:
    mine, others = host.guest("vm-data").volume_ids, host.guest("vm-bfv").volume_ids
    assert mine and others
    [ours], [theirs] = mine, others
    host.edit("libvirt", _stored(host, "vm-data"), f"<serial>{ours}<", f"<serial>{theirs}<")
    host.row("block_device_mapping", host.uuid("vm-data"), volume_id=theirs)

    assert not [line for line in host.findings() if line.startswith("persistent-xml-foreign")]


def test_a_disk_may_be_foreign_while_nova_moves_it(host: RecordedHost) -> None:
    mine, other = (f"{host.folder(name)}/disk" for name in ("vm-stopped", "vm-plain"))
    host.edit("libvirt", _stored(host, "vm-stopped"), f"'{mine}'", f"'{other}'")
    host.task("vm-stopped", "rebuilding")

    assert not [line for line in host.findings() if line.startswith("persistent-xml-foreign")]


def _borrow(host: RecordedHost, name: str, source: str) -> None:
    """Plug a qcow2 file into a running guest, as `virsh attach-disk --live` does."""
    live = f"virsh dumpxml {host.domain(name)}"
    disk = (
        f"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{source}'/>"
        "<target dev='vdz' bus='virtio'/></disk>"
    )
    xml = host.last("libvirt", live).value
    end = xml.rindex("</disk>") + len("</disk>")
    host.set("libvirt", live, xml[:end] + disk + xml[end:])
    held = f"ls -lL /proc/{host.pid(name)}/fd"
    files = host.last("kernel", held).value
    [own] = [file for file in files if file["path"] == f"{host.folder(name)}/disk"]
    inode = host.last("images", f"find {host.top} -ls").value
    [entry] = [file for file in inode if file["path"] == source]
    host.set("kernel", held, [*files, own | {"path": source, "ino": entry["ino"], "fd": 99}])
    job = host.last("libvirt", f"virsh blockjob {host.domain(name)} vda")
    host.add(job.model_copy(update={"query": f"virsh blockjob {host.domain(name)} vdz"}))


def test_disk_of_another_server(host: RecordedHost) -> None:
    owner, path = host.uuid("vm-stopped"), f"{host.folder('vm-stopped')}/disk"
    _borrow(host, "vm-plain", path)

    [finding] = host.report().findings
    assert (finding.severity.word, finding.check.name) == ("error", "disk-of-another-server")
    assert finding.headline == (
        f"vm-plain has vm-stopped's disk as vdz: …/{owner[:8]}/disk; vm-stopped is off: do not "
        "start it"
    )
    assert {it.check.name for it in finding.folded} == {
        "chain-live-vs-persistent",
        "uuid-name-chain-broken",
    }
    assert changes(finding) == [f"virsh detach-disk {host.domain('vm-plain')} vdz --live"]


def test_a_borrowed_disk_may_be_in_the_stored_definition_too(host: RecordedHost) -> None:
    path, name = f"{host.folder('vm-stopped')}/disk", host.domain("vm-plain")
    _borrow(host, "vm-plain", path)
    host.set(
        "libvirt", _stored(host, "vm-plain"), host.last("libvirt", f"virsh dumpxml {name}").value
    )

    assert changes(host.found("disk-of-another-server")) == [
        f"virsh detach-disk {name} vdz --live",
        f"virsh detach-disk {name} vdz --config",
    ]


def test_a_shareable_disk_is_nobodys_alone(host: RecordedHost) -> None:
    _borrow(host, "vm-plain", f"{host.folder('vm-stopped')}/disk")
    live = f"virsh dumpxml {host.domain('vm-plain')}"
    host.edit("libvirt", live, "<target dev='vdz'", "<shareable/><target dev='vdz'")

    assert not [it for it in host.findings() if it.startswith("disk-of-another-server")]


def test_the_format_that_nova_recorded_for_a_borrowed_disk_is_its_owners(
    host: RecordedHost,
) -> None:
    path = f"{host.folder('vm-stopped')}/disk"
    _borrow(host, "vm-plain", path)
    host.set("images", f"cat {host.folder('vm-stopped')}/disk.info", f'{{"{path}": "raw"}}')

    found = [it for it in host.report().findings if it.check.name == "disk-format-mismatch"]
    assert [it.guest.name for it in found if it.guest is not None] == ["vm-stopped"]


def test_disks_outside_instances_path(host: RecordedHost) -> None:
    host.conf("DEFAULT", instances_path="/srv/nova/instances")

    found = host.report().findings
    assert {it.check.name for it in found} == {"disks-outside-instances-path"}
    assert {it.severity.word for it in found} == {"error"}
    assert "but nova-compute will look for it in /srv/nova/instances" in found[0].headline


@pytest.mark.parametrize(
    ("option", "path"),
    [("instances_path", "/var/lib/nova/instances/"), ("instances_path", "$state_path/instances")],
)
def test_another_spelling_of_the_path_is_quiet(host: RecordedHost, option: str, path: str) -> None:
    host.conf("DEFAULT", **{option: path})

    assert host.findings() == []


def test_a_state_path_that_was_changed_is_found(host: RecordedHost) -> None:
    host.conf("DEFAULT", state_path="/srv/nova")

    assert {it.check.name for it in host.report().findings} == {"disks-outside-instances-path"}
