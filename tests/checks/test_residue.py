"""Leftovers of finished operations."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.conftest import RecordedHost, changes

from hoodsnap.bundle import Answer

OLD = "2026-01-01 00:00:00"
RESCUE_FILES = ("disk.rescue", "disk.config.rescue", "unrescue.xml")
KEPT = "shelved-or-soft-deleted-residue"


def _part(host: RecordedHost, name: str, query: str, value: object) -> None:
    """Set libvirt's answer to one query about a guest."""
    host.set("libvirt", query.format(host.domain(name)), value)


def _listed(host: RecordedHost, *paths: str, type: str = "f") -> None:
    """Add files to the instances directory."""
    query = "find /var/lib/nova/instances -ls"
    listing: list[dict[str, Any]] = host.last("images", query).value
    like = next(line for line in listing if line["type"] == type)
    host.set("images", query, [*listing, *(like | {"path": path} for path in paths)])


def _dumped(host: RecordedHost, name: str, old: str, new: str) -> None:
    """Edit the running and the stored definition of a guest."""
    for query in ("virsh dumpxml {}", "virsh dumpxml --inactive {}"):
        host.edit("libvirt", query.format(host.domain(name)), old, new)


def _offload(host: RecordedHost, name: str) -> str:
    uuid = host.uuid(name)
    cells = {"vm_state": "shelved_offloaded", "host": None, "node": None, "power_state": 4}
    host.row("instances", uuid, **cells)
    return uuid


def test_shelved_or_soft_deleted_residue(host: RecordedHost) -> None:
    uuid = host.uuid("vm-shelved")
    _listed(host, f"/var/lib/nova/instances/{uuid}", type="d")

    [finding] = host.report().findings
    assert finding.severity.word == "warning"
    assert host.findings() == [
        "shelved-or-soft-deleted-residue of vm-shelved: instance reports vm_state = shelved_offloaded;"
        f" images reports folder = /var/lib/nova/instances/{uuid}"
    ]
    assert host.headlines() == [
        "vm-shelved is shelved_offloaded in nova, but host vm still has its folder",
    ]
    assert changes(finding) == []


def test_shelved_or_soft_deleted_residue_is_an_error_if_it_runs(host: RecordedHost) -> None:
    uuid = _offload(host, "vm-plain")

    [finding] = [f for f in host.report().findings if f.check.topic == "residue"]
    assert finding.severity.word == "error"
    assert (
        "shelved-or-soft-deleted-residue of vm-plain: instance reports vm_state = shelved_offloaded;"
        f" domain reports state = running (unpaused); images reports folder = /var/lib/nova/instances/{uuid}"
    ) in host.findings()
    assert finding.headline == (
        "vm-plain is shelved_offloaded in nova, but host vm still has its domain, running (unpaused)"
        " and its folder"
    )


def test_a_server_that_is_being_unshelved_may_be_here(host: RecordedHost) -> None:
    uuid = _offload(host, "vm-plain")
    now = f"{host.bundle.started:%Y-%m-%d %H:%M:%S}"
    host.row("instances", uuid, task_state="spawning", updated_at=now)

    assert host.findings() == []


def _soft_delete(host: RecordedHost, since: str, interval: str | None) -> None:
    host.row("instances", host.uuid("vm-stopped"), vm_state="soft-delete", deleted_at=since)
    conf = host.last("host", "/etc/nova/nova.conf").value
    options = {k: v for k, v in conf["DEFAULT"].items() if k != "reclaim_instance_interval"}
    if interval is not None:
        options["reclaim_instance_interval"] = interval
    host.set("host", "/etc/nova/nova.conf", conf | {"DEFAULT": options})


def _kept(host: RecordedHost) -> list[str]:
    return [line for line in host.findings() if line.startswith(KEPT)]


def test_an_overdue_soft_deletion(host: RecordedHost) -> None:
    _soft_delete(host, OLD, "3600")

    assert _kept(host) == [
        f"shelved-or-soft-deleted-residue of vm-stopped: instance reports vm_state = soft-delete,"
        f" deleted_at = {OLD}; nova.conf reports reclaim_instance_interval = 3600"
    ]
    headline = host.found(KEPT).headline
    assert headline.startswith("vm-stopped has been soft-deleted since 2026-01-01 00:00 (")
    assert headline.endswith("), but host vm should have reclaimed it after 1 h")


@pytest.mark.parametrize("interval", [None, "0"])
def test_a_soft_deletion_that_nova_compute_never_ends(
    host: RecordedHost, interval: str | None
) -> None:
    _soft_delete(host, OLD, interval)

    found = host.found(KEPT)
    assert found.severity.word == "note"
    assert str(found.evidence[-1]) == "nova.conf reports reclaim_instance_interval = 0"
    assert found.headline.endswith("), but host vm never reclaims such servers")
    uuid = host.uuid("vm-stopped")
    assert changes(found) == [
        f"openstack server restore {uuid}",
        f"openstack server delete --force {uuid}",
    ]


@pytest.mark.parametrize("interval", ["9999999999", "{}", "-"])
def test_a_soft_deletion_that_waits_for_its_time(host: RecordedHost, interval: str | None) -> None:
    _soft_delete(host, OLD, interval)

    assert _kept(host) == []


def test_a_soft_deletion_of_this_day_is_not_reported_yet(host: RecordedHost) -> None:
    since = host.bundle.started - timedelta(hours=23)
    _soft_delete(host, f"{since:%Y-%m-%d %H:%M:%S}", None)

    assert _kept(host) == []


def test_a_soft_deletion_without_a_nova_conf_is_not_judged(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-stopped"), vm_state="soft-delete", deleted_at=OLD)
    host.drop(lambda answer: answer.query != "/etc/nova/nova.conf")

    assert _kept(host) == []
    assert "nova.conf was not collected" in {skip.reason for skip in host.report().skips}


def test_rescue_residue(host: RecordedHost) -> None:
    uuid = host.uuid("vm-rescued")
    host.row("instances", uuid, vm_state="active")

    assert host.findings() == [
        "rescue-residue of vm-rescued: instance reports vm_state = active;"
        f" domain reports disks = vda: /var/lib/nova/instances/{uuid}/disk.rescue"
    ]
    assert host.headlines() == [
        f"vm-rescued is active in nova, but its disk vda is …/{uuid[:8]}/disk.rescue"
    ]


def test_rescue_residue_in_the_folder(host: RecordedHost) -> None:
    uuid = host.uuid("vm-stopped")
    _listed(host, f"/var/lib/nova/instances/{uuid}/unrescue.xml")

    assert host.findings() == [
        "rescue-residue of vm-stopped: instance reports vm_state = stopped;"
        " images reports files = unrescue.xml"
    ]
    assert host.headlines() == [
        "vm-stopped is stopped in nova, but its folder still has unrescue.xml",
    ]


def test_rescue_residue_if_only_nova_has_the_rescue(host: RecordedHost) -> None:
    uuid = host.uuid("vm-plain")
    host.row("instances", uuid, vm_state="rescued")

    assert host.findings() == [
        "rescue-residue of vm-plain: instance reports vm_state = rescued; domain reports"
        f" state = running (unpaused), disks = vda: /var/lib/nova/instances/{uuid}/disk"
    ]
    assert host.headlines() == [
        f"vm-plain is rescued in nova, but its domain is running (unpaused) from …/{uuid[:8]}/disk"
    ]


@pytest.mark.parametrize(("size", "found"), [(None, "missing"), (0, "empty")])
def test_rescue_residue_if_the_rescue_cannot_end(
    host: RecordedHost, size: int | None, found: str
) -> None:
    uuid = host.uuid("vm-rescued")
    path = f"{host.top}/{uuid}/unrescue.xml"
    if size is None:
        host.remove(path)
    else:
        host.file(path, size=size)

    assert host.headlines() == [
        f"vm-rescued is rescued, but …/{uuid[:8]}/unrescue.xml, by which nova ends the rescue, is "
        f"{found}"
    ]
    [finding] = host.report().findings
    assert finding.severity.word == "error"
    assert changes(finding) == [
        f"openstack server set --state active {uuid}",
        f"openstack server reboot --hard {uuid}",
        *(f"rm -f {host.top}/{uuid}/{name}" for name in RESCUE_FILES),
    ]


def test_a_rescue_of_a_server_without_a_listed_folder_is_not_judged(host: RecordedHost) -> None:
    host.fail("images", "find /var/lib/nova/instances -ls", "unreachable", "down")

    assert "rescue-residue" not in "".join(host.findings())
    assert any(skip.check.name == "rescue-residue" for skip in host.report().skips)


def test_a_rescue_disk_may_be_the_last(host: RecordedHost) -> None:
    """This is so with a stable device rescue, where the guest keeps its own root disk."""
    uuid = host.uuid("vm-rescued")
    for query in ("virsh dumpxml {}", "virsh dumpxml --inactive {}"):
        query = query.format(host.domain("vm-rescued"))
        xml = host.last("libvirt", query).value.replace(f"{uuid}/disk'", f"{uuid}/OWN'")
        xml = xml.replace(f"{uuid}/disk.rescue'", f"{uuid}/disk'")
        host.set("libvirt", query, xml.replace(f"{uuid}/OWN'", f"{uuid}/disk.rescue'"))

    assert "rescue-residue" not in "".join(host.findings())


def test_a_server_that_is_being_unrescued_may_have_both(host: RecordedHost) -> None:
    now = f"{host.bundle.started:%Y-%m-%d %H:%M:%S}"
    uuid = host.uuid("vm-rescued")
    host.row("instances", uuid, vm_state="active", task_state="unrescuing", updated_at=now)

    assert host.findings() == []


def test_domain_transient(host: RecordedHost) -> None:
    info = host.last("libvirt", f"virsh dominfo {host.domain('vm-plain')}").value
    _part(host, "vm-plain", "virsh dominfo {}", info | {"persistent": False})

    assert host.findings() == [
        "domain-transient of vm-plain: instance reports vm_state = active;"
        " domain reports state = running (unpaused), persistent = False"
    ]
    assert host.headlines() == [
        "vm-plain is running (unpaused) on host vm, but libvirt stores no definition of it",
    ]


@pytest.mark.parametrize(("query", "value"), [
    ("virsh blockjob {} vda", {"type": 2, "bandwidth": 0, "cur": 5, "end": 10}),
    ("virsh domjobinfo {}", {"type": 2, "time_elapsed": 7}),
])  # fmt: skip
def test_a_domain_may_be_transient_while_libvirt_runs_a_job(
    host: RecordedHost, query: str, value: object
) -> None:
    info = host.last("libvirt", f"virsh dominfo {host.domain('vm-plain')}").value
    _part(host, "vm-plain", "virsh dominfo {}", info | {"persistent": False})
    _part(host, "vm-plain", query, value)

    assert "domain-transient" not in "".join(host.findings())


def test_a_domain_may_be_transient_while_nova_takes_a_snapshot(host: RecordedHost) -> None:
    info = host.last("libvirt", f"virsh dominfo {host.domain('vm-plain')}").value
    _part(host, "vm-plain", "virsh dominfo {}", info | {"persistent": False})
    now = f"{host.bundle.started:%Y-%m-%d %H:%M:%S}"
    row = {"task_state": "image_pending_upload", "updated_at": now}
    host.row("instances", host.uuid("vm-plain"), **row)

    assert host.findings() == []


def test_a_transient_domain_that_nova_does_not_manage_is_ignored(host: RecordedHost) -> None:
    info = host.last("libvirt", f"virsh dominfo {host.domain('vm-plain')}").value
    _part(host, "vm-plain", "virsh dominfo {}", info | {"persistent": False})
    host.drop(lambda answer: answer.layer not in ("nova", "nova-db"))

    assert host.findings() == []


def _inside(host: RecordedHost, name: str) -> str:
    """Put a snapshot into the file of a guest's disk; return its path."""
    [path] = [it.path for it in host.guest(name).images or () if it.path.endswith("/disk")]
    listed = [{"id": "1", "name": "before", "vm-state-size": 0}]
    host.image(path, lambda layers: layers[0].update({"snapshots": listed}))
    _part(host, name, "virsh snapshot-list {}", [])
    return path


def test_a_snapshot_inside_the_file_of_a_disk(host: RecordedHost) -> None:
    path = _inside(host, "vm-stopped")

    [finding] = host.report().findings
    assert finding.check.name == "snapshot-or-blockjob-residue"
    assert finding.severity.word == "note"
    assert host.headlines() == [
        f"vm-stopped's disk …/{host.uuid('vm-stopped')[:8]}/disk has snapshots inside its file that"
        " neither nova nor libvirt knows: before"
    ]
    assert changes(finding) == [f"qemu-img snapshot -d before {path}"]


def test_a_snapshot_inside_a_disk_in_use_is_not_to_be_deleted(host: RecordedHost) -> None:
    _inside(host, "vm-plain")

    [finding] = host.report().findings
    assert changes(finding) == []


def test_a_snapshot_inside_a_disk_that_libvirt_knows(host: RecordedHost) -> None:
    _inside(host, "vm-plain")
    _part(host, "vm-plain", "virsh snapshot-list {}", [{"name": "before", "current": True}])

    assert not [it for it in host.headlines() if "inside its file" in it]


def test_snapshot_or_blockjob_residue(host: RecordedHost) -> None:
    _part(host, "vm-plain", "virsh snapshot-list {}", [{"name": "before", "current": True}])

    assert host.findings() == [
        "snapshot-or-blockjob-residue of vm-plain: domain reports snapshots = before"
    ]
    assert host.headlines() == [
        "vm-plain has snapshots that nova does not know: before",
    ]


def test_snapshot_or_blockjob_residue_of_a_copy(host: RecordedHost) -> None:
    job = {"type": 2, "bandwidth": 0, "cur": 5, "end": 20}
    _part(host, "vm-plain", "virsh blockjob {} vda", job)

    assert host.findings() == [
        "snapshot-or-blockjob-residue of vm-plain: domain reports job_of_vda = copy, 25 %"
    ]
    assert host.report().findings[0].severity.word == "warning"
    assert host.headlines() == [
        "vm-plain's disk vda has a running job that nova did not start: copy, 25 %",
    ]


def test_a_copy_of_a_volume_may_be_novas_own(host: RecordedHost) -> None:
    _part(host, "vm-bfv", "virsh blockjob {} vda", {"type": 2, "cur": 5, "end": 20})
    _only_a_note(host)


def test_a_copy_for_a_backup_is_a_note(host: RecordedHost) -> None:
    _part(host, "vm-plain", "virsh blockjob {} vda", {"type": 5, "cur": 5, "end": 20})
    _only_a_note(host)


def _only_a_note(host: RecordedHost) -> None:
    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("snapshot-or-blockjob-residue", "note")


def test_an_external_snapshot_is_an_error(host: RecordedHost) -> None:
    uuid, name = host.uuid("vm-plain"), host.domain("vm-plain")
    source = f"<source file='/var/lib/nova/instances/{uuid}/disk'"
    live = host.last("libvirt", f"virsh dumpxml {name}").value
    at = live.index(source)
    rest = live[at:].partition("<backingStore")
    below = f"<backingStore type='file'><format type='qcow2'/>{source}/>"
    above = rest[0].replace("/disk'", "/disk.snap'")
    depth = rest[2].index("</backingStore>") + len("</backingStore>")
    nested = f"<backingStore{rest[2][:depth]}"
    changed = f"{live[:at]}{above}{below}{nested}</backingStore>{rest[2][depth:]}"
    host.set("libvirt", f"virsh dumpxml {name}", changed)

    [found] = [f for f in host.report().findings if f.check.topic == "residue"]
    assert found.severity.word == "error"
    [shown] = [f for f in host.findings() if f.startswith("snapshot-or-blockjob-residue")]
    assert "of vm-plain: domain reports disks = vda: disk.snap → disk → " in shown
    assert found.headline == (
        "vm-plain's disk vda is disk.snap on top of disk: a snapshot that nova does not know"
    )


def test_a_snapshot_of_a_volume_belongs_to_cinder(host: RecordedHost) -> None:
    """A file on NFS has a chain of its own for each snapshot that cinder took."""
    name = host.domain("vm-bfv")
    live = host.last("libvirt", f"virsh dumpxml {name}").value
    at = live.index("<backingStore/>")
    one = "<backingStore type='file'><format type='qcow2'/><source file='/mnt/volume-a'/>"
    chain = f"{one}{one}<backingStore/></backingStore></backingStore>"
    host.set("libvirt", f"virsh dumpxml {name}", live[:at] + chain + live[at + 15 :])

    assert "snapshot-or-blockjob-residue" not in "".join(host.findings())


def test_a_snapshot_is_expected_while_nova_takes_one(host: RecordedHost) -> None:
    _part(host, "vm-plain", "virsh blockjob {} vda", {"type": 2, "cur": 5, "end": 20})
    now = f"{host.bundle.started:%Y-%m-%d %H:%M:%S}"
    row = {"task_state": "image_snapshot", "updated_at": now}
    host.row("instances", host.uuid("vm-plain"), **row)

    assert host.findings() == []


def test_snapshots_that_were_not_listed_are_not_judged(host: RecordedHost) -> None:
    query = f"virsh snapshot-list {host.domain('vm-plain')}"
    _part(host, "vm-plain", "virsh snapshot-list {}", [{"name": "before", "current": True}])
    kept: list[Answer] = [a for a in host.bundle.answers if a.query != query]
    host.bundle = host.bundle.with_answers(kept)

    assert host.findings() == []
