"""The instances directory."""

from __future__ import annotations

import pytest
from tests.conftest import RecordedHost, changes, healthy_report

from hoodsnap.findings.advice import instructions
from hoodsnap.findings.gating import Gates

NOBODY = "00000000-0000-4000-8000-000000000001"


def _orphans(host: RecordedHost) -> list[str]:
    return [line for line in host.findings() if line.startswith("orphan-instance-dir")]


def test_instances_path_not_mounted(host: RecordedHost) -> None:
    # A running guest has its disk open on a file system that is not visible there.
    path = f"{host.folder('vm-plain')}/disk"
    host.hold("vm-plain", lambda file: {**file, "dev": "8:1"} if file["path"] == path else file)
    host.remove(host.folder("vm-plain"))

    assert [line for line in host.findings() if line.startswith("instances-path")] == [
        f"instances-path-not-mounted: process reports pid = {host.pid('vm-plain')},"
        f" files = {path} (8:1); images reports no folder"
    ]
    assert (
        f"/var/lib/nova/instances on vm lacks vm-plain's folder, open in PID {host.pid('vm-plain')}"
        in host.headlines()
    )


def test_what_covers_the_instances_directory_is_named_and_unmounted(host: RecordedHost) -> None:
    _lose_all_folders(host)
    table = host.last("kernel", "/proc/self/mountinfo").value
    line = f"900 1 0:77 / {host.top} rw - tmpfs lab-empty rw"
    host.set("kernel", "/proc/self/mountinfo", f"{table.rstrip()}\n{line}\n")

    found = host.found("instances-path-not-mounted")
    assert found.headline.endswith("; lab-empty (tmpfs) is mounted over it")
    assert changes(found) == [
        "systemctl stop nova-compute", f"umount {host.top}", "systemctl start nova-compute"
    ]  # fmt: skip


def test_nova_compute_is_started_only_after_the_folders_are_back(host: RecordedHost) -> None:
    _lose_all_folders(host)

    report = host.report()
    [found] = [one for one in report.findings if one.check.name == "instances-path-not-mounted"]
    steps = instructions(found)
    changes = [command.text for step in steps for command in step.commands if command.changes]
    assert changes == [
        "systemctl stop nova-compute", f"mount {host.top}", "systemctl start nova-compute"
    ]  # fmt: skip
    [last] = [step for step in steps if "start nova-compute" in step.prose]
    assert last.prose == "If each server has a folder there, start nova-compute:"
    assert last.commands[0].text == f"ls -l {host.top}"
    guest = next(guest for guest in report.cloud.guests if guest.name == "vm-plain")
    gates = Gates(report.findings, report.skips)
    assert "systemctl restart nova-compute" in [
        item.danger.command for item in gates.of(guest) if item.forbidden_by
    ]


def test_instances_path_not_mounted_if_all_are_missing(host: RecordedHost) -> None:
    _lose_all_folders(host)

    found = [line for line in host.findings() if line.startswith("instances-path")]
    assert len(found) == 1
    assert "vm_state = " in found[0]
    here = [guest for guest in healthy_report().cloud.guests if guest.host is not None]
    assert found[0].endswith(f"; images reports folders = none of {len(here)}")
    assert (
        "/var/lib/nova/instances on vm has none of the folders of 14 servers (vm-bfv, vm-config, vm-data and 11 more)"
        in host.headlines()
    )


def _lose_all_folders(host: RecordedHost) -> None:
    """Remove all folders, as after a boot without the mount: no guest runs."""
    names = [line["path"] for line in host.last("images", f"find {host.top} -ls").value]
    host.remove(*(path for path in names if path.count("/") == host.top.count("/") + 1))


def test_a_single_folder_may_be_lost_for_another_reason(host: RecordedHost) -> None:
    host.remove(host.folder("vm-stopped"))

    assert {line.partition(" ")[0] for line in host.findings()} == {"server-without-disk"}


def test_a_container_may_have_another_instances_directory(host: RecordedHost) -> None:
    _lose_all_folders(host)
    for answer in host.bundle.by_layer["kernel"]:
        if answer.query.startswith("awk ") and answer.error is None:
            lines = [line.split(" ") for line in answer.value.splitlines()]
            lines = [[*line[:2], "0:99", *line[3:]] if line[4] == "/" else line for line in lines]
            host.set("kernel", answer.query, "\n".join(map(" ".join, lines)))

    assert not [line for line in host.findings() if line.startswith("instances-path")]


@pytest.mark.parametrize("kind", ["rbd", "lvm"])
def test_disks_in_other_storage_have_no_folders(host: RecordedHost, kind: str) -> None:
    _lose_all_folders(host)
    conf = host.last("host", "/etc/nova/nova.conf").value
    libvirt = {**conf["libvirt"], "images_type": kind}
    host.set("host", "/etc/nova/nova.conf", {**conf, "libvirt": libvirt})

    assert not [line for line in host.findings() if line.startswith("instances-path")]


def test_resize_source_copy_missing(host: RecordedHost) -> None:
    host.remove(f"{host.folder('vm-verify')}_resize")

    assert host.findings() == [
        f"resize-source-copy-missing: instance reports uuid = {host.uuid('vm-verify')},"
        " vm_state = resized; images reports no copy"
    ]
    assert host.headlines() == [
        f"vm-verify's resize can't be reverted: {host.uuid('vm-verify')[:8]}_resize/disk is missing on its source host vm",
    ]


def test_a_renamed_copy_of_a_resize_gets_its_name_back(host: RecordedHost) -> None:
    """Confirming the resize would end the possibility to revert it, and the copy still exists."""
    copy = f"{host.folder('vm-verify')}_resize"
    host.list_files(lambda line: {**line, "path": line["path"].replace(f"{copy}", f"{copy}.old")})

    found = host.found("resize-source-copy-missing")
    assert changes(found) == [f"mv -T {copy}.old {copy}"]
    short = host.uuid("vm-verify")[:8]
    assert found.headline.endswith(f", but …/instances/{short}_resize.old has a disk")


def test_an_empty_folder_is_no_copy_of_a_resize(host: RecordedHost) -> None:
    copy = f"{host.folder('vm-verify')}_resize"
    host.list_files(
        lambda line: (
            {**line, "path": f"{copy}.old"}
            if line["path"] == copy
            else None
            if line["path"].startswith(f"{copy}/")
            else line
        )
    )

    assert changes(host.found("resize-source-copy-missing")) == [
        f"openstack server resize confirm {host.uuid('vm-verify')}"
    ]


def test_a_resize_that_cannot_be_decided_hides_no_other(host: RecordedHost) -> None:
    """Another server waits for its confirmation, and its boot disk can't be read."""
    host.remove(f"{host.folder('vm-verify')}_resize")
    host.row("instances", host.uuid("vm-bfv"), vm_state="resized")
    host.row("block_device_mapping", host.uuid("vm-bfv"), boot_index="?")

    report = host.report()
    assert "resize-source-copy-missing" in {finding.check.name for finding in report.findings}
    assert "resize-source-copy-missing" in {skip.check.name for skip in report.skips}


def test_before_icehouse_another_option_set_the_kind_of_storage(host: RecordedHost) -> None:
    host.remove(f"{host.folder('vm-verify')}_resize")
    host.conf("libvirt", images_type="default")
    assert "resize-source-copy-missing" in "".join(host.findings())
    conf = host.last("host", "/etc/nova/nova.conf").value
    older = conf["DEFAULT"] | {"libvirt_images_type": "lvm"}
    host.set("host", "/etc/nova/nova.conf", {"DEFAULT": older})

    assert "resize-source-copy-missing" not in "".join(host.findings())


def test_a_copy_on_another_host_is_not_missing_here(host: RecordedHost) -> None:
    host.remove(f"{host.folder('vm-verify')}_resize")
    host.row("migrations", host.uuid("vm-verify"), source_compute="other")

    assert host.findings() == []


def test_the_copy_is_removed_while_the_resize_is_confirmed(host: RecordedHost) -> None:
    host.remove(f"{host.folder('vm-verify')}_resize")
    host.task("vm-verify", "deleting")

    assert not [line for line in host.findings() if line.startswith("resize-source")]


def _leave(host: RecordedHost, folder: str) -> None:
    """Leave a folder behind, with a disk like vm-stopped's."""
    query, like = f"find {host.top} -ls", host.folder("vm-stopped")
    lines = host.last("images", query).value
    left = [line for line in lines if line["path"] in (like, f"{like}/disk")]
    assert len(left) == 2
    copies = [{**line, "path": line["path"].replace(like, folder)} for line in left]
    host.set("images", query, [*lines, *copies])


def _search(host: RecordedHost, uuid: str) -> None:
    """Search every cell for a UUID that nova did not list, as the collector does."""
    first = host.last("nova-db", "SELECT UTC_TIMESTAMP(6)")
    for cell in ("nova", "nova_cell0"):
        query = f"SELECT id, uuid FROM {cell}.instances WHERE uuid IN ('{uuid}')"
        value = {"columns": ["id", "uuid"], "rows": []}
        host.add(first.model_copy(update={"query": query, "value": value}))


def test_orphan_instance_dir(host: RecordedHost) -> None:
    _leave(host, f"{host.top}/{NOBODY}")
    _search(host, NOBODY)

    size = next(
        line["size"]
        for line in host.last("images", f"find {host.top} -ls").value
        if line["path"] == f"{host.folder('vm-stopped')}/disk"
    )
    assert _orphans(host) == [
        f"orphan-instance-dir of {NOBODY}: nova-db reports no instance;"
        f" images reports folder = {host.top}/{NOBODY}, disk_bytes = {size}"
    ]
    assert host.headlines() == [
        "/var/lib/nova/instances/00000000-0000-4000-8000-000000000001 on vm belongs to no server in nova's databases",
    ]


def test_a_folder_that_was_not_searched_in_the_databases_is_not_an_orphan(
    host: RecordedHost,
) -> None:
    _leave(host, f"{host.top}/{NOBODY}")
    host.bundle = host.bundle.with_answers(
        tuple(
            answer.model_copy(update={"query": f"{answer.query} WHERE uuid IN ('x')"})
            if answer.layer == "nova-db"
            and ".instances" in answer.query
            and " WHERE " not in answer.query
            else answer
            for answer in host.bundle.answers
        )
    )

    assert _orphans(host) == []


def test_orphan_instance_dir_of_a_finished_resize(host: RecordedHost) -> None:
    folder = f"{host.folder('vm-resized')}_resize"
    _leave(host, folder)

    [finding] = _orphans(host)
    assert finding.startswith(
        "orphan-instance-dir of vm-resized: instance reports vm_state = active;"
        f" images reports folder = {folder}, "
    )
    assert host.headlines() == [
        f"vm-resized has no resize in progress (it is active), but vm still has {host.uuid('vm-resized')[:8]}_resize",
    ]


def test_orphan_instance_dir_of_a_deleted_server(host: RecordedHost) -> None:
    _delete(host, "vm-stopped", "2020-01-01 00:00:00")

    assert _orphans(host)[0].startswith(
        "orphan-instance-dir of vm-stopped: instance reports deleted_at = 2020-01-01 00:00:00; "
    )


def test_a_deletion_takes_a_while(host: RecordedHost) -> None:
    clock = host.last("nova-db", "SELECT UTC_TIMESTAMP(6)").value["rows"][0][0]
    _delete(host, "vm-stopped", clock.partition(".")[0])

    assert _orphans(host) == []


def _delete(host: RecordedHost, name: str, deleted_at: str) -> None:
    """Let nova have deleted the server, and libvirt have undefined the domain."""
    uuid = host.uuid(name)
    lines = host.last("libvirt", "virsh list --all").value
    host.set("libvirt", "virsh list --all", [line for line in lines if line["uuid"] != uuid])
    host.drop(lambda answer: not (answer.layer == "libvirt" and answer.subject == uuid))
    host.row("instances", uuid, deleted=14, deleted_at=deleted_at, vm_state="deleted")


def test_a_folder_may_be_odd_while_nova_moves_the_server(host: RecordedHost) -> None:
    _leave(host, f"{host.folder('vm-resized')}_resize")
    host.task("vm-resized", "resize_migrating")

    assert _orphans(host) == []


def test_a_guest_that_never_left_for_its_resize_has_its_disk(host: RecordedHost) -> None:
    """domain-running-on-wrong-host reports it, and no copy of its disk can be missing."""
    uuid = host.uuid("vm-verify")
    for table in ("instances", "migrations"):
        moved = {"host": "compute2", "node": "compute2"} if table == "instances" else {}
        host.row(table, uuid, **(moved or {"dest_compute": "compute2", "dest_node": "compute2"}))
    host.remove(f"{host.folder('vm-verify')}_resize")

    assert not any("resize-source-copy-missing" in line for line in host.findings())


def test_nova_folder_not_writable(host: RecordedHost) -> None:
    host.file(f"{host.top}/locks", mode="40700", uid=0, gid=0, user="root", group="root")

    assert host.headlines() == [
        "nova-compute on vm (user nova) can't write to …/instances/locks: mode 0700, owner root:root"
    ]


def test_a_folder_that_nova_may_write_as_another_account_is_open(host: RecordedHost) -> None:
    host.file(f"{host.top}/locks", mode="40777", uid=0, gid=0, user="root", group="root")

    assert host.findings() == []
