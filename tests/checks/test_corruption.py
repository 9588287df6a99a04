"""Faults that destroy data."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta

import pytest
from tests.conftest import RecordedHost, changes

from hoodsnap.bundle import Answer


def _fd(pid: int) -> str:
    return f"ls -lL /proc/{pid}/fd"


def _disk(host: RecordedHost, name: str) -> dict[str, object]:
    """Return the root disk that a guest's QEMU process has open."""
    files = host.last("kernel", _fd(host.pid(name))).value
    [disk] = [file for file in files if file["path"].endswith("/disk")]
    assert isinstance(disk, dict)
    return disk


def _hold(host: RecordedHost, name: str, *files: dict[str, object]) -> None:
    query = _fd(host.pid(name))
    host.set("kernel", query, [*host.last("kernel", query).value, *files])


def test_disk_shared_by_two_qemu(host: RecordedHost) -> None:
    disk = _disk(host, "vm-plain")
    _hold(host, "vm-duo", disk)

    held = f"{disk['path']} ({disk['dev']} inode {disk['ino']}, rw)"
    plain, duo = host.pid("vm-plain"), host.pid("vm-duo")
    assert host.findings() == [
        f"disk-shared-by-two-qemu of vm-duo: process reports pid = {duo}, files = {held};"
        f" process reports pid = {plain}, files = {held}",
        f"disk-shared-by-two-qemu of vm-plain: process reports pid = {plain}, files = {held};"
        f" process reports pid = {duo}, files = {held}",
    ]
    assert host.headlines() == [
        f"vm-duo and vm-plain (PID {host.pid('vm-plain')}) both write to …/{host.uuid('vm-plain')[:8]}/disk",
        f"vm-plain and vm-duo (PID {host.pid('vm-duo')}) both write to …/{host.uuid('vm-plain')[:8]}/disk",
    ]


def test_disk_shared_by_two_qemu_during_a_cold_migration(host: RecordedHost) -> None:
    # A cold migration is between two hosts and never makes two writers on one of them.
    host.row("migrations", host.uuid("vm-verify"), status="reverting")
    host.task("vm-verify", "resize_reverting")
    _hold(host, "vm-duo", _disk(host, "vm-verify"))

    found = {finding.partition(":")[0] for finding in host.findings()}
    assert "disk-shared-by-two-qemu of vm-verify" in found
    assert host.headlines() == [
        f"vm-duo and vm-verify (PID {host.pid('vm-verify')}) both write to …/{host.uuid('vm-verify')[:8]}/disk",
        f"vm-verify and vm-duo (PID {host.pid('vm-duo')}) both write to …/{host.uuid('vm-verify')[:8]}/disk",
    ]


def test_a_base_that_two_guests_only_read_is_not_a_finding(host: RecordedHost) -> None:
    files = host.last("kernel", _fd(host.pid("vm-plain"))).value
    assert any("/_base/" in file["path"] for file in files)

    assert host.findings() == []


def test_a_shareable_disk_may_be_shared(host: RecordedHost) -> None:
    disk = _disk(host, "vm-plain")
    _hold(host, "vm-duo", disk)
    source = f"<source file='{disk['path']}' index='1'/>"
    for name in ("vm-plain", "vm-duo"):
        live = f"virsh dumpxml {host.domain(name)}"
        host.edit(
            "libvirt",
            live,
            "<devices>",
            "<devices>" + _shareable(source) if name == "vm-duo" else "<devices>",
        )
    host.edit(
        "libvirt", f"virsh dumpxml {host.domain('vm-plain')}", source, source + "<shareable/>"
    )

    assert not [line for line in host.findings() if line.startswith("disk-shared")]


def test_a_shareable_device_that_was_not_identified(host: RecordedHost) -> None:
    # A multiattach volume at two guests of one host; its link in /dev was not collected.
    for name in ("vm-plain", "vm-duo"):
        held = _disk(host, name) | {"path": "/dev/sdx", "mode": "60660", "rdev": "8:368"}
        _hold(host, name, held)
        source = "<source dev='/dev/disk/by-path/ip-192.0.2.1:3260-iscsi-iqn-lun-1'/>"
        live = f"virsh dumpxml {host.domain(name)}"
        host.edit("libvirt", live, "<devices>", "<devices>" + _shareable(source))

    assert not [line for line in host.findings() if line.startswith("disk-shared")]
    # A file that can't be that device is still reported.
    _hold(host, "vm-duo", _disk(host, "vm-plain"))
    assert len([line for line in host.findings() if line.startswith("disk-shared")]) == 2


def test_a_shareable_device_of_one_guest_leaves_nothing_undecided(host: RecordedHost) -> None:
    # Its link in /dev was not collected, but no other process holds any block device.
    source = "<source dev='/dev/disk/by-path/ip-192.0.2.1:3260-iscsi-iqn-lun-1'/>"
    live = f"virsh dumpxml {host.domain('vm-plain')}"
    host.edit("libvirt", live, "<devices>", "<devices>" + _shareable(source))

    skipped = [skip.check.name for skip in host.report().skips]
    assert "disk-shared-by-two-qemu" not in skipped


def _shareable(source: str) -> str:
    return f"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>{source}<target dev='vdz' bus='virtio'/><shareable/></disk>"


def test_duplicate_qemu_identity(host: RecordedHost) -> None:
    # vm-duo's process claims to be vm-plain, so vm-duo has no process.
    plain, duo = host.guest("vm-plain"), host.guest("vm-duo")
    host.edit(
        "kernel",
        f"/proc/{host.pid('vm-duo')}/cmdline",
        f"-uuid\0{duo.uuid}",
        f"-uuid\0{plain.uuid}",
    )

    first, second = sorted([host.pid("vm-plain"), host.pid("vm-duo")])
    names = {host.pid(name): host.domain(name) for name in ("vm-plain", "vm-duo")}
    assert (
        f"duplicate-qemu-identity of vm-plain:"
        f" process reports pid = {first}, uuid = {plain.uuid}, name = {names[first]};"
        f" process reports pid = {second}, uuid = {plain.uuid}, name = {names[second]}"
    ) in host.findings()
    assert (
        f"vm-plain runs twice on vm: PID {host.pid('vm-plain')} and PID {host.pid('vm-duo')}"
        in host.headlines()
    )


@pytest.mark.parametrize(
    ("uid", "found"),
    [
        (4242, False),  # any account may start the host's QEMU with any UUID
        (1_004_242, False),
        (0, True),  # started by hand
        (64055, True),  # the account of libvirt's guests
    ],
)
def test_an_ordinary_accounts_qemu_is_not_a_duplicate_of_a_guest(
    host: RecordedHost, uid: int, found: bool
) -> None:
    plain, duo = host.guest("vm-plain"), host.guest("vm-duo")
    pid = host.pid("vm-duo")
    host.edit("kernel", f"/proc/{pid}/cmdline", f"-uuid\0{duo.uuid}", f"-uuid\0{plain.uuid}")
    status = host.last("kernel", f"/proc/{pid}/status").value
    theirs = re.sub(r"(?m)^Uid:.*$", f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}", status)
    host.set("kernel", f"/proc/{pid}/status", theirs)

    [again] = [guest for guest in host.report().cloud.guests if guest.name == "vm-plain"]
    assert again.process is not None
    assert (pid in [process.pid for process in again.processes]) is found
    assert ("duplicate-qemu-identity of vm-plain" in "".join(host.findings())) is found
    # A guest whose process belongs to an ordinary account has no process.
    assert "domain-without-qemu of vm-duo" in "".join(host.findings() + host.folded())


def test_an_ordinary_account_cannot_hide_that_a_process_is_missing(host: RecordedHost) -> None:
    """Its process has an unreadable command line and ends during the capture."""
    host.end("vm-plain")
    before = host.findings()
    listed = host.last("kernel", "ls -l /proc/*/exe").value
    row = {"pid": 999_999, "comm": "qemu", "exe": "/usr/bin/qemu-system-x86_64", "uid": 4242}
    host.set("kernel", "ls -l /proc/*/exe", [*listed, row])

    assert before
    assert host.findings() == before


def test_duplicate_qemu_identity_by_name(host: RecordedHost) -> None:
    cmdline = f"/proc/{host.pid('vm-duo')}/cmdline"
    host.edit(
        "kernel", cmdline, f"guest={host.domain('vm-duo')},", f"guest={host.domain('vm-plain')},"
    )

    found = {finding.partition(":")[0] for finding in host.findings()}
    assert found == {
        "duplicate-qemu-identity of vm-duo",
        "duplicate-qemu-identity of vm-plain",
        "uuid-name-chain-broken of vm-duo",
    }
    assert (
        f"vm-duo and PID {host.pid('vm-plain')} on vm are both called instance-00000001"
        in host.headlines()
    )


def test_a_guest_in_another_container_may_have_the_same_name(host: RecordedHost) -> None:
    cmdline = f"/proc/{host.pid('vm-duo')}/cmdline"
    host.edit(
        "kernel", cmdline, f"guest={host.domain('vm-duo')},", f"guest={host.domain('vm-plain')},"
    )
    query = f"readlink /proc/{host.pid('vm-duo')}/ns/*"
    spaces = host.last("kernel", query).value
    host.set("kernel", query, spaces | {"pid": "pid:[4026539999]"})

    assert "duplicate-qemu-identity" not in "".join(host.findings())


def test_a_uuid_is_unique_across_containers(host: RecordedHost) -> None:
    plain, duo = host.uuid("vm-plain"), host.uuid("vm-duo")
    host.edit("kernel", f"/proc/{host.pid('vm-duo')}/cmdline", f"-uuid\0{duo}", f"-uuid\0{plain}")
    query = f"readlink /proc/{host.pid('vm-duo')}/ns/*"
    spaces = host.last("kernel", query).value
    host.set("kernel", query, spaces | {"pid": "pid:[4026539999]"})

    assert "duplicate-qemu-identity of vm-plain" in "".join(host.findings())


def test_io_error_paused(host: RecordedHost) -> None:
    name = host.domain("vm-plain")
    host.set("libvirt", f"virsh domstate --reason {name}", {"state": 3, "reason": 5})

    assert host.findings() == [
        "io-error-paused of vm-plain: domain reports state = paused (I/O error)"
    ]
    assert host.headlines() == [
        "vm-plain is paused (I/O error)",
    ]


def test_io_error_paused_by_a_full_file_system(host: RecordedHost) -> None:
    query = f"virsh domstate --reason {host.domain('vm-plain')}"
    host.set("libvirt", query, {"state": 3, "reason": 5})
    room = host.last("images", f"stat -f {host.top}").value
    host.set("images", f"stat -f {host.top}", room | {"bfree": 0, "bavail": 0})

    # The full file system is the root.
    [finding] = [line for line in host.folded() if "← io-error-paused of" in line]
    assert finding.endswith(f"; images reports file_system = {host.top}, bytes_free = 0")


def test_a_guest_paused_by_nova_has_no_io_error(host: RecordedHost) -> None:
    name = host.domain("vm-paused")
    assert host.last("libvirt", f"virsh domstate --reason {name}").value == {
        "state": 3,
        "reason": 1,
    }

    assert json.dumps(host.findings()) == "[]"


def _domain_in(host: RecordedHost, name: str) -> str:
    [guest] = [guest for guest in host.report().cloud.guests if guest.name == name]
    assert guest.domain_name is not None
    return guest.domain_name


def test_io_error_paused_that_only_qemu_reports(monitored: RecordedHost) -> None:
    query = f"""virsh qemu-monitor-command {_domain_in(monitored, "vm-plain")} '{{"execute": "query-status"}}'"""
    said = monitored.last("qemu", query).value
    assert said["status"] == "running"
    monitored.set("qemu", query, {**said, "status": "io-error", "running": False})

    [finding] = monitored.findings()
    assert finding.startswith("io-error-paused of vm-plain: domain reports state = running (")
    assert "; monitor reports status = io-error" in finding
    assert monitored.headlines() == [
        "vm-plain's QEMU reports I/O errors (io-error)",
    ]


def _root(host: RecordedHost, name: str) -> str:
    """Return the path of a guest's root disk."""
    return f"{host.folder(name)}/disk"


def test_disk_deleted_but_open(host: RecordedHost) -> None:
    path, pid = _root(host, "vm-plain"), host.pid("vm-plain")
    fd = _disk(host, "vm-plain")["fd"]
    host.hold(
        "vm-plain", lambda file: {**file, "path": f"{path} (deleted)"} if file["fd"] == fd else file
    )
    host.remove(path)

    assert [line for line in host.findings() if "without-disk" not in line] == [
        f"disk-deleted-but-open of vm-plain: process reports pid = {pid}, files = {path} (deleted, fd {fd})"
    ]
    assert (
        f"vm-plain's disk …/{host.uuid('vm-plain')[:8]}/disk was deleted while QEMU has it open (fd 14, 384 KiB)"
        in host.headlines()
    )


def test_disk_deleted_but_open_if_it_was_renamed(host: RecordedHost) -> None:
    path, pid = _root(host, "vm-plain"), host.pid("vm-plain")
    host.hold(
        "vm-plain", lambda file: {**file, "path": f"{path}.old"} if file["path"] == path else file
    )
    host.remove(path)

    assert [line for line in host.findings() if "without-disk" not in line] == [
        f"disk-deleted-but-open of vm-plain: process reports pid = {pid}; domain reports disks = {path};"
        " images reports file = missing"
    ]
    assert (
        f"vm-plain's disk …/{host.uuid('vm-plain')[:8]}/disk is missing while QEMU (PID {host.pid('vm-plain')}) runs on it"
        in host.headlines()
    )


def test_disk_deleted_but_open_if_another_file_took_its_place(host: RecordedHost) -> None:
    path, pid = _root(host, "vm-plain"), host.pid("vm-plain")
    disk = _disk(host, "vm-plain")
    host.file(path, ino=4711)

    assert host.findings() == [
        f"disk-deleted-but-open of vm-plain: process reports pid = {pid},"
        f" files = {path} ({disk['dev']} inode {disk['ino']}, rw); domain reports disks = {path};"
        " images reports inode = 4711"
    ]
    assert host.headlines() == [
        f"vm-plain's disk …/{host.uuid('vm-plain')[:8]}/disk was replaced: QEMU has inode 1515784 open, and the path leads to inode 4711",
    ]


def test_a_deleted_disk_may_have_its_name_back(host: RecordedHost) -> None:
    # The kernel still marks the file as deleted, although a new link has its old name.
    path, fd = _root(host, "vm-plain"), _disk(host, "vm-plain")["fd"]
    host.hold(
        "vm-plain",
        lambda file: {**file, "path": f"{path} (deleted)"} if file["fd"] == fd else file,
    )

    assert host.findings() == []


def test_a_deleted_file_that_is_not_a_disk_is_ignored(host: RecordedHost) -> None:
    disk = _disk(host, "vm-plain")
    for path in ("/dev/shm/memory", "/usr/lib/qemu/block-nfs.so", "/memfd:pages"):
        _hold(host, "vm-plain", {**disk, "path": f"{path} (deleted)", "ino": 1})

    assert host.findings() == []


def test_a_disk_may_be_replaced_while_it_is_copied(host: RecordedHost) -> None:
    host.file(_root(host, "vm-plain"), ino=4711)
    host.set(
        "libvirt", f"virsh blockjob {host.domain('vm-plain')} vda", {"type": 2, "cur": 1, "end": 9}
    )

    assert not [line for line in host.findings() if line.startswith("disk-deleted")]


def test_in_a_container_the_same_path_leads_elsewhere(host: RecordedHost) -> None:
    host.file(_root(host, "vm-plain"), ino=4711)
    host.contain("vm-plain")

    assert host.findings() == []


def test_a_guest_that_is_off_will_run_in_a_container_like_the_others(host: RecordedHost) -> None:
    disk = f"{host.folder('vm-stopped')}/disk"
    host.remove(disk)
    assert host.findings() != []
    host.contain("vm-plain")

    assert not [line for line in host.findings() if " of vm-stopped" in line]


def test_a_console_log_in_a_bundle_with_a_single_listing(host: RecordedHost) -> None:
    path = f"{host.folder('vm-plain')}/console.log"
    listed = host.last("images", f"find {host.top} -ls")
    gone = listed.model_dump(exclude={"value"}) | {"query": f"stat -L {path}", "subject": path}
    gone["error"] = {"kind": "absent", "message": "No such file or directory"}
    host.drop(lambda answer: not answer.query.startswith("find "))
    host.add(Answer(**gone))

    assert not [line for line in host.findings() if line.startswith("console-log")]


def test_the_console_log_of_a_container_has_another_path(host: RecordedHost) -> None:
    host.remove(f"{host.folder('vm-plain')}/console.log")
    assert host.findings() != []
    host.contain("vm-plain")

    assert host.findings() == []


def test_qcow2_corrupt_bit(host: RecordedHost) -> None:
    path = _root(host, "vm-stopped")
    host.image(path, lambda layers: layers[0]["format-specific"]["data"].update(corrupt=True))

    assert host.findings() == [
        f"qcow2-corrupt-bit of vm-stopped: image reports path = {path}, corrupt = True"
    ]
    assert host.headlines() == [
        f"vm-stopped's disk …/{host.uuid('vm-stopped')[:8]}/disk is marked as corrupt",
    ]


def test_qcow2_corrupt_bit_that_only_qemu_reports(monitored: RecordedHost) -> None:
    [guest] = [guest for guest in monitored.report().cloud.guests if guest.name == "vm-plain"]
    query = f"""virsh qemu-monitor-command {guest.domain_name} '{{"execute": "query-block"}}'"""
    monitored.edit("qemu", query, '"corrupt": false', '"corrupt": true')

    assert guest.images
    assert monitored.findings() == [
        f"qcow2-corrupt-bit of vm-plain: monitor reports disks = {guest.images[0].path}, corrupt = True"
    ]
    assert monitored.headlines() == [
        "vm-plain's QEMU found …/018ef94c/disk corrupt, and won't write to it",
    ]


def test_qcow2_dirty_bit(host: RecordedHost) -> None:
    for name in ("vm-plain", "vm-stopped"):
        host.image(_root(host, name), lambda layers: layers[0].update({"dirty-flag": True}))

    report = host.report()

    assert [(finding.severity.word, finding.check.name) for finding in report.findings] == [
        ("note", "qcow2-dirty-bit")
    ]
    # An image in use is dirty by design.
    assert report.findings[0].guest and report.findings[0].guest.name == "vm-stopped"


def _save(host: RecordedHost, name: str) -> str:
    return f"stat -L /var/lib/libvirt/qemu/save/{host.domain(name)}.save"


def test_managed_save_mismatch(host: RecordedHost) -> None:
    query, path = _save(host, "vm-suspended"), _root(host, "vm-suspended")
    saved = host.last("images", query).value["mtime"]
    host.file(path, mtime="2031-01-01T00:00:00.000000Z")

    assert host.findings() == [
        "managed-save-mismatch of vm-suspended: instance reports vm_state = suspended;"
        " domain reports state = shut off (saved), managed_save = True;"
        f" images reports saved = {_shown(saved)}, written = 2031-01-01 00:00:00+00:00"
    ]
    assert host.headlines() == [
        f"vm-suspended's saved memory is stale: its disk …/{host.uuid('vm-suspended')[:8]}/disk was written to 1497 d 5 h later",
    ]


def _shown(moment: str) -> str:
    return str(datetime.fromisoformat(moment))


def test_qemu_may_close_the_disk_after_saving_the_memory(host: RecordedHost) -> None:
    saved = datetime.fromisoformat(host.last("images", _save(host, "vm-suspended")).value["mtime"])
    later = (saved + timedelta(seconds=2)).isoformat()
    host.file(_root(host, "vm-suspended"), mtime=later)

    assert host.findings() == []


def _stop(host: RecordedHost, name: str) -> None:
    host.row("instances", host.uuid(name), vm_state="stopped", power_state=4)
    host.server(host.uuid(name), vm_state="stopped", status="SHUTOFF", power_state=4)


def test_managed_save_mismatch_of_a_server_that_is_not_suspended(host: RecordedHost) -> None:
    _stop(host, "vm-suspended")
    saved = host.last("images", _save(host, "vm-suspended")).value["mtime"][11:19]

    [finding] = host.report().findings
    assert (finding.severity.word, finding.check.name) == ("warning", "managed-save-mismatch")
    assert host.headlines() == [
        f"vm-suspended is stopped in nova, but its memory was saved without nova at {saved} and is "
        "good: no disk was written to since",
    ]
    assert changes(finding) == [
        f"openstack server set --state active {host.uuid('vm-suspended')}",
        f"virsh start {host.domain('vm-suspended')}",
    ]


def test_a_good_save_that_nova_has_not_noticed(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-suspended"), vm_state="active", power_state=1)

    finding = host.found("managed-save-mismatch")
    assert changes(finding) == [f"virsh start {host.domain('vm-suspended')}"]


def test_a_save_of_unknown_time_is_not_called_good(host: RecordedHost) -> None:
    _stop(host, "vm-suspended")
    stored = f"virsh dumpxml --inactive {host.domain('vm-suspended')}"
    path = _root(host, "vm-suspended")
    host.edit("libvirt", stored, f"<source file='{path}'", "<source dev='/dev/vg/root'")
    host.edit(
        "libvirt", stored, "<disk type='file' device='disk'>", "<disk type='block' device='disk'>"
    )

    finding = host.found("managed-save-mismatch")
    assert finding.headline == (
        "vm-suspended is stopped in nova, but its memory was saved without nova: it is shut off "
        "(saved)"
    )
    assert [line.split()[:3] for line in changes(finding)] == [
        ["virsh", "managedsave-remove", host.domain("vm-suspended")],
        ["openstack", "server", "start"],
        ["openstack", "server", "set"],
        ["virsh", "start", host.domain("vm-suspended")],
    ]


def test_managed_save_mismatch_that_is_missing(host: RecordedHost) -> None:
    info = f"virsh dominfo {host.domain('vm-suspended')}"
    host.edit("libvirt", info, '"managed_save": true', '"managed_save": false')

    assert host.findings() == [
        "managed-save-mismatch of vm-suspended: instance reports vm_state = suspended;"
        " domain reports state = shut off (saved), managed_save = False"
    ]
    assert host.headlines() == [
        "vm-suspended is suspended in nova, but shut off (saved) in libvirt without saved memory",
    ]


def test_a_resume_in_flight_consumes_its_managed_save(host: RecordedHost) -> None:
    info = f"virsh dominfo {host.domain('vm-suspended')}"
    host.edit("libvirt", info, '"managed_save": true', '"managed_save": false')
    host.task("vm-suspended", "resuming")

    assert host.findings() == []


def _on_rbd(host: RecordedHost, name: str) -> str:
    """Put a guest's root disk on Ceph, and return the name of its image."""
    disk = f"{host.folder(name)}/disk"
    image = f"vms/{host.uuid(name)}_disk"
    for query in (
        f"virsh dumpxml {host.domain(name)}",
        f"virsh dumpxml --inactive {host.domain(name)}",
    ):
        xml = host.last("libvirt", query).value
        start = xml.rindex("<disk ", 0, xml.index(f"<source file='{disk}'"))
        end = xml.index("</disk>", start) + len("</disk>")
        source = (
            f"<source protocol='rbd' name='{image}'><host name='192.0.2.1' port='6789'/></source>"
        )
        new = "<disk type='network' device='disk'><driver name='qemu' type='raw'/>"
        new += f"{source}<target dev='vda' bus='virtio'/></disk>"
        host.set("libvirt", query, xml[:start] + new + xml[end:])
    host.hold(name, lambda file: None if file["path"] in (disk, _base_of(host)) else file)
    return image


def _base_of(host: RecordedHost) -> str:
    [path] = {
        file["path"]
        for file in host.last("kernel", _fd(host.pid("vm-plain"))).value
        if "/_base/" in file["path"]
    }
    return str(path)


def _start(host: RecordedHost, pid: int, like: int, *words: str) -> None:
    """Start another QEMU that is no guest."""
    for answer in host.bundle.by_layer["kernel"]:
        if answer.subject != str(like):
            continue
        raw = json.loads(json.dumps(answer.model_dump(mode="json")).replace(str(like), str(pid)))
        raw["at"] = answer.at
        if answer.query.endswith("/cmdline"):
            raw["value"] = "\0".join(("qemu-system-x86_64", *words, ""))
        if answer.query.endswith("/fd"):
            raw["value"] = []
        host.add(Answer(**{name: value for name, value in raw.items() if value is not None}))
    listed = host.last("kernel", "ls -l /proc/*/exe").value
    [own] = [line for line in listed if line["pid"] == like]
    host.set("kernel", "ls -l /proc/*/exe", [*listed, own | {"pid": pid}])


@pytest.mark.parametrize("mode", ["false", "true"])
def test_disk_shared_by_two_qemu_one_of_which_is_no_guest(host: RecordedHost, mode: str) -> None:
    pool, _, image = _on_rbd(host, "vm-duo").partition("/")
    drive = (
        f'{{"driver":"rbd","pool":"{pool}","image":"{image}","read-only":{mode},"node-name":"a"}}'
    )
    _start(host, 29674, host.pid("vm-duo"), "-machine", "none", "-blockdev", drive)

    used = "both write to" if mode == "false" else "writes to"
    [headline] = [one for one in host.headlines() if used in one]
    assert "another QEMU (PID 29674)" in headline


def test_a_qemu_that_is_no_guest_may_have_another_image(host: RecordedHost) -> None:
    _on_rbd(host, "vm-duo")
    drive = '{"driver":"rbd","pool":"vms","image":"other","node-name":"a"}'
    _start(host, 29674, host.pid("vm-duo"), "-machine", "none", "-blockdev", drive)

    assert not any("disk-shared-by-two-qemu" in line for line in host.findings())


def test_io_error_paused_names_the_error(host: RecordedHost) -> None:
    host.set(
        "libvirt", f"virsh domstate --reason {host.domain('vm-plain')}", {"state": 3, "reason": 5}
    )
    query = f"tail -c 65536 /var/log/libvirt/qemu/{host.domain('vm-plain')}.log"
    said = "block I/O error in device 'libvirt-1-format': Stale file handle (116)"
    line = f"2026-11-25T18:35:00Z qemu-system-x86_64: {said}"
    host.set("logs", query, f"{host.last('logs', query).value}\n{line}")

    assert host.headlines() == ["vm-plain is paused (I/O error): Stale file handle"]
