"""What destroys data."""

from __future__ import annotations

import json

from tests.conftest import RecordedHost

from hoodsnap.bundle import Answer, Failure


def _fd(pid: int) -> str:
    return f"ls -lL /proc/{pid}/fd"


def _disk(host: RecordedHost, name: str) -> dict[str, object]:
    """The root disk that a guest's QEMU has open."""
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
        f"disk-shared-by-two-qemu of vm-duo: process says pid = {duo}, files = {held};"
        f" process says pid = {plain}, files = {held}",
        f"disk-shared-by-two-qemu of vm-plain: process says pid = {plain}, files = {held};"
        f" process says pid = {duo}, files = {held}",
    ]


def test_a_base_that_two_guests_read_is_not_shared(host: RecordedHost) -> None:
    files = host.last("kernel", _fd(host.pid("vm-plain"))).value
    assert any("/_base/" in file["path"] for file in files)

    assert host.findings() == []


def test_disk_shared_by_two_qemu_if_one_of_them_writes_to_the_base(host: RecordedHost) -> None:
    files = host.last("kernel", _fd(host.pid("vm-plain"))).value
    base = next(file for file in files if "/_base/" in file["path"])
    _hold(host, "vm-duo", {**base, "flags": "02100002"})

    # Everybody whose overlay stands on that base is told.
    found = {finding.partition(":")[0] for finding in host.findings()}
    assert {"disk-shared-by-two-qemu of vm-plain", "disk-shared-by-two-qemu of vm-duo"} <= found
    assert all(name.startswith("disk-shared-by-two-qemu of ") for name in found)


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

    assert host.findings() == []


def _shareable(source: str) -> str:
    return f"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>{source}<target dev='vdz' bus='virtio'/><shareable/></disk>"


def test_duplicate_qemu_identity(host: RecordedHost) -> None:
    # vm-duo's process claims to be vm-plain: then vm-duo has none.
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
        f" process says pid = {first}, uuid = {plain.uuid}, name = {names[first]};"
        f" process says pid = {second}, uuid = {plain.uuid}, name = {names[second]}"
    ) in host.findings()


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


def _lose_base(host: RecordedHost, base: str) -> None:
    """Let qemu-img not find the base of vm-snap's disk."""
    guest = host.guest("vm-snap")
    assert guest.images
    chain = guest.images[0].said["chain"]
    gone = f"qemu-img: Could not open '{base}': No such file or directory"
    said = chain.model_dump(exclude={"value", "error", "query"})

    def broken(answer: Answer) -> Answer:
        if answer.query != chain.query:
            return answer
        return Answer(**said, query=chain.query, error=Failure(kind="absent", message=gone))

    header = chain.query.replace(" --backing-chain", "")
    host.bundle = host.bundle.with_answers(map(broken, host.bundle.answers))
    host.add(Answer(**said, query=header, value=chain.value[0]))


def test_backing_file_missing(host: RecordedHost) -> None:
    _lose_base(host, "/var/lib/nova/instances/_base/x")

    guest = host.guest("vm-snap")
    assert guest.images and guest.process
    assert host.findings() == [
        f"backing-file-missing of vm-snap: image says path = {guest.images[0].path},"
        f" backing_filename = {guest.images[0].backing_filename}, that_file = missing;"
        f" process says pid = {guest.process.pid}, state = {guest.process.state}"
    ]


def test_io_error_paused(host: RecordedHost) -> None:
    name = host.domain("vm-plain")
    host.set("libvirt", f"virsh domstate --reason {name}", {"state": 3, "reason": 5})

    assert host.findings() == [
        "io-error-paused of vm-plain: domain says state = paused (I/O error)"
    ]


def test_a_guest_that_nova_paused_has_no_io_error(host: RecordedHost) -> None:
    name = host.domain("vm-paused")
    assert host.last("libvirt", f"virsh domstate --reason {name}").value == {
        "state": 3,
        "reason": 1,
    }

    assert json.dumps(host.findings()) == "[]"


def test_a_base_whose_folder_nobody_looked_into_may_be_there(host: RecordedHost) -> None:
    _lose_base(host, "/opt/kolla/instances/_base/x")

    assert host.findings() == []


def test_leftovers_need_no_base(host: RecordedHost) -> None:
    _lose_base(host, "/var/lib/nova/instances/_base/x")
    assert len(host.findings()) == 1
    uuid = host.uuid("vm-snap")
    host.end("vm-snap")
    lines = host.last("libvirt", "virsh list --all").value
    host.set("libvirt", "virsh list --all", [line for line in lines if line["uuid"] != uuid])
    host.drop(lambda answer: not (answer.layer == "libvirt" and answer.subject == uuid))
    host.row("instances", uuid, deleted=14, vm_state="deleted")
    host.row("instance_mappings", uuid, queued_for_delete=1)
    [port] = host.ports("vm-snap")
    host.unlist(port["id"])
    host.unlink(f"tap{port['id'][:11]}")
    host.switch("Interface", f"tap{port['id'][:11]}", name="another")

    assert host.findings() == []


def _domain_in(host: RecordedHost, name: str) -> str:
    [guest] = [guest for guest in host.report().cloud.guests if guest.name == name]
    assert guest.domain_name is not None
    return guest.domain_name


def test_io_error_paused_that_only_qemu_tells(monitored: RecordedHost) -> None:
    query = f"""virsh qemu-monitor-command {_domain_in(monitored, "vm-plain")} '{{"execute": "query-status"}}'"""
    said = monitored.last("qemu", query).value
    assert said["status"] == "running"
    monitored.set("qemu", query, {**said, "status": "io-error", "running": False})

    [finding] = monitored.findings()
    assert finding.startswith("io-error-paused of vm-plain: domain says state = running (")
    assert "; monitor says status = io-error" in finding
