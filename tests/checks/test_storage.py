"""Storage of a host: shares, file servers, free space, and the key for Ceph."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from tests.conftest import RecordedHost

from hoodsnap.bundle import Answer

KEY_OF_CEPH = "1d2e3f40-5162-4738-94a5-b6c7d8e9fa0b"


def _fd(host: RecordedHost, name: str, part: str) -> dict[str, Any]:
    files = host.last("kernel", f"ls -lL /proc/{host.pid(name)}/fd").value
    found: dict[str, Any] = next(file for file in files if part in file["path"])
    return found


def _unmount(host: RecordedHost, name: str) -> dict[str, Any]:
    """Take the share of a guest's volume away, as `umount -l` does: return the open file."""
    held = _fd(host, name, "/volume-")
    folder = held["path"].rpartition("/")[0]
    for one in ("vm-bfv", "vm-data"):
        host.hold(
            one,
            lambda file: (
                {**file, "path": file["path"].removeprefix(folder)}
                if file["path"].startswith(f"{folder}/")
                else file
            ),
        )
    host.drop(lambda answer: "qemu-img" not in answer.query or folder not in answer.query)
    mounts = host.last("kernel", "/proc/self/mountinfo").value
    kept = [line for line in mounts.splitlines() if f" {folder} " not in line]
    host.set("kernel", "/proc/self/mountinfo", "\n".join(kept) + "\n")
    for answer in [*host.bundle.by_layer["images"]]:
        if answer.query.startswith(f"stat -L {folder}/"):
            host.fail("images", answer.query)
    return held


def test_share_not_mounted(host: RecordedHost) -> None:
    held = _unmount(host, "vm-data")

    folder = held["path"].rpartition("/")[0]
    [finding] = host.findings()
    assert finding.startswith("share-not-mounted: ")
    [root] = host.report().findings
    assert root.headline == (
        f"{folder} is not mounted on vm, but vm-bfv and vm-data have a disk open in it"
    )
    assert [folded.check.name for folded in root.folded] == ["volume-share-differs"] * 2


def test_a_volume_that_was_deleted_is_no_missing_share(host: RecordedHost) -> None:
    held = _fd(host, "vm-data", "/volume-")
    host.hold(
        "vm-data",
        lambda file: (
            {**file, "path": f"{file['path']} (deleted)"} if file["fd"] == held["fd"] else file
        ),
    )
    host.fail("images", f"stat -L {held['path']}")

    names = {line.partition(" ")[0] for line in host.findings()}
    assert "disk-deleted-but-open" in names
    assert "share-not-mounted" not in names


def test_file_handle_stale(host: RecordedHost) -> None:
    base = _fd(host, "vm-snap", "/_base/")["path"]
    _lose(host, "vm-snap", base, "Stale file handle")

    report = host.report()
    [finding] = report.findings
    assert finding.check.name == "file-handle-stale"
    assert finding.headline == (
        f"vm-snap's base image …/_base/{base.rpartition('/')[2][:8]} is gone from its file server"
        f" while QEMU has it open (fd {_fd(host, 'vm-snap', '/_base/')['fd']}: Stale file handle)"
    )


def _lose(host: RecordedHost, name: str, path: str, error: str) -> None:
    """Let stat(2) of an open file fail, as of one that another host removed."""
    host.hold(
        name,
        lambda file: (
            {**{key: file[key] for key in ("fd", "path", "flags")}, "error": error}
            if file["path"] == path
            else file
        ),
    )


def test_a_stale_file_that_is_no_disk_is_not_reported(host: RecordedHost) -> None:
    query = f"ls -lL /proc/{host.pid('vm-snap')}/fd"
    other = {"fd": 99, "path": "/usr/share/seabios/bios.bin", "flags": "0100000", "error": "Stale"}
    host.set("kernel", query, [*host.last("kernel", query).value, other])

    assert host.findings() == []


def test_file_system_full(host: RecordedHost) -> None:
    room = host.last("images", f"stat -f {host.top}").value
    host.set("images", f"stat -f {host.top}", room | {"bfree": 0, "bavail": 0})

    assert [line.partition(":")[0] for line in host.findings()] == ["file-system-full"]
    assert f"{host.top} on vm is full" in host.headlines()
    assert [line.partition(":")[0] for line in host.folded()] == [
        "file-system-full ← host-fs-overcommit"
    ]


def test_a_full_file_system_explains_the_guests_that_it_paused(host: RecordedHost) -> None:
    query = f"virsh domstate --reason {host.domain('vm-plain')}"
    host.set("libvirt", query, {"state": 3, "reason": 5})
    room = host.last("images", f"stat -f {host.top}").value
    host.set("images", f"stat -f {host.top}", room | {"bfree": 0, "bavail": 0})

    assert f"{host.top} on vm is full; QEMU paused vm-plain" in host.headlines()
    assert len(host.findings()) == 1
    assert any("← io-error-paused of vm-plain" in line for line in host.folded())


def test_a_nearly_full_file_system_is_not_full(host: RecordedHost) -> None:
    room = host.last("images", f"stat -f {host.top}").value
    host.set("images", f"stat -f {host.top}", room | {"bavail": 1024})

    assert not any("file-system-full" in line for line in host.findings())


FOLDERS = "stat -f / /run /tmp /var /var/lib/libvirt /var/lib/nova /var/log"


def rooms(host: RecordedHost, **fields: int) -> None:
    """Add the answer about the host's own file systems; /var/log has these fields."""
    room = host.last("images", f"stat -f {host.top}").value
    log = room | {"blocks": 1 << 18} | fields
    raw = host.last("host", "hostname").model_dump(exclude={"value", "error"})
    host.add(Answer(**raw | {"query": FOLDERS, "value": {"/": room, "/var/log": log}}))


def test_host_file_system_full(host: RecordedHost) -> None:
    rooms(host, bavail=0)

    assert host.headlines() == ["/var/log on vm is full: no space is free"]
    [finding] = host.report().findings
    assert finding.severity.word == "warning"


def test_a_file_system_without_inodes_is_full(host: RecordedHost) -> None:
    rooms(host, files=1000, favail=0)

    assert host.headlines() == ["/var/log on vm is full: no inode is free"]


def test_the_hosts_own_file_systems_may_be_nearly_full(host: RecordedHost) -> None:
    rooms(host, bavail=1024, files=0, favail=0)

    assert host.findings() == []


def test_the_file_system_of_the_disks_is_reported_once(host: RecordedHost) -> None:
    room = host.last("images", f"stat -f {host.top}").value
    host.set("images", f"stat -f {host.top}", room | {"bfree": 0, "bavail": 0})
    rooms(host, bavail=1024)

    assert [line.partition(":")[0] for line in host.findings()] == ["file-system-full"]


def test_a_full_share_of_volumes_is_full(host: RecordedHost) -> None:
    room = host.last("images", f"stat -f {host.top}")
    raw = room.model_dump(exclude={"value", "error"})
    share = "/var/lib/nova/mnt/12b79a0d1575f0e2a3d62627a7d10a43"
    full = room.value | {"bfree": 0, "bavail": 0, "files": 10, "favail": 0}
    host.add(Answer(**raw | {"query": f"stat -f {share}", "subject": share, "value": full}))

    assert host.headlines() == [f"{share} on vm is full: disks of vm-bfv and vm-data are on it"]


def to_rbd(host: RecordedHost, *names: str) -> None:
    """Put the root disks of guests into rbd: in both definitions and on the command line."""
    for name in names:
        path, image = f"{host.folder(name)}/disk", f"{host.uuid(name)}_disk"
        for query in (
            f"virsh dumpxml {host.domain(name)}",
            f"virsh dumpxml --inactive {host.domain(name)}",
        ):
            host.set("libvirt", query, _in_rbd(host.last("libvirt", query).value, path, image))
        query = f"/proc/{host.pid(name)}/cmdline"
        argv = host.last("kernel", query).value
        file = f'"driver":"file","filename":"{path}"'
        assert file in argv
        rbd = f'"driver":"rbd","pool":"vms","image":"{image}","server":[{{"host":"192.0.2.21","port":"6789"}}],"key-secret":"libvirt-1-storage-auth-secret0"'
        host.set("kernel", query, argv.replace(file, rbd))
        host.hold(name, partial(_without, path))


def _without(path: str, held: dict[str, Any]) -> dict[str, Any] | None:
    return None if held["path"] == path else held


def _in_rbd(xml: str, path: str, image: str) -> str:
    def moved(found: re.Match[str]) -> str:
        disk = found.group()
        if f"'{path}'" not in disk:
            return disk
        disk = disk.replace("type='file'", "type='network'", 1).replace("'qcow2'", "'raw'", 1)
        source = (
            f"<auth username='cinder'><secret type='ceph' uuid='{KEY_OF_CEPH}'/></auth>"
            f"<source protocol='rbd' name='vms/{image}'><host name='192.0.2.21' port='6789'/></source>"
        )
        disk = re.sub(r"<source file='[^']*'[^>]*/>", source, disk, count=1)
        return re.sub(r"<backingStore type=.*?</backingStore>\s*(?=<target)", "", disk, flags=re.S)

    return re.sub(r"<disk(?:(?!</disk>).)*</disk>", moved, xml, flags=re.S)


def _ceph(host: RecordedHost) -> None:
    """Let libvirt have the secret."""
    host.set(
        "libvirt",
        "virsh secret-list",
        [{"uuid": KEY_OF_CEPH, "usage_type": 2, "usage_id": "client.cinder"}],
    )


def test_storage_secret_missing(host: RecordedHost) -> None:
    to_rbd(host, "vm-plain", "vm-duo")

    assert [line for line in host.headlines() if "secret" in line] == [
        f"libvirt on vm has no ceph secret {KEY_OF_CEPH[:8]}, which the disks of vm-duo and vm-plain need"
    ]


def test_a_qemu_that_reads_a_keyring_needs_no_secret(host: RecordedHost) -> None:
    to_rbd(host, "vm-plain")
    query = f"/proc/{host.pid('vm-plain')}/cmdline"
    key = ',"key-secret":"libvirt-1-storage-auth-secret0"'
    host.set("kernel", query, host.last("kernel", query).value.replace(key, ""))

    assert not [line for line in host.findings() if "secret" in line]


def test_guests_in_rbd_with_their_secret_are_quiet(host: RecordedHost) -> None:
    to_rbd(host, "vm-plain", "vm-duo")
    _ceph(host)

    assert not [line for line in host.findings() if "secret" in line or "shared" in line]


def test_two_guests_that_write_one_rbd_image(host: RecordedHost) -> None:
    to_rbd(host, "vm-plain", "vm-duo")
    _ceph(host)
    mine, other = f"vms/{host.uuid('vm-duo')}_disk", f"vms/{host.uuid('vm-plain')}_disk"
    host.edit("libvirt", f"virsh dumpxml {host.domain('vm-duo')}", mine, other)

    assert (
        f"vm-plain and vm-duo (PID {host.pid('vm-duo')}) both write to rbd image vms/{host.uuid('vm-plain')[:8]}_disk"
        in host.headlines()
    )


def test_two_writers_of_one_rbd_image_that_only_a_command_line_shows(host: RecordedHost) -> None:
    to_rbd(host, "vm-plain", "vm-duo")
    _ceph(host)
    query = f"/proc/{host.pid('vm-duo')}/cmdline"
    argv = host.last("kernel", query).value
    changed = argv.replace(f"{host.uuid('vm-duo')}_disk", f"{host.uuid('vm-plain')}_disk")
    assert changed != argv
    host.set("kernel", query, changed)

    assert {line.partition(":")[0] for line in host.findings()} >= {
        "disk-shared-by-two-qemu of vm-duo",
        "disk-shared-by-two-qemu of vm-plain",
    }


def test_two_clusters_may_have_images_of_one_name(host: RecordedHost) -> None:
    to_rbd(host, "vm-plain", "vm-duo")
    _ceph(host)
    for query in (f"virsh dumpxml {host.domain('vm-duo')}", f"/proc/{host.pid('vm-duo')}/cmdline"):
        layer = "kernel" if query.startswith("/proc") else "libvirt"
        text = host.last(layer, query).value.replace("192.0.2.21", "198.51.100.7")
        host.set(
            layer,
            query,
            text.replace(f"{host.uuid('vm-duo')}_disk", f"{host.uuid('vm-plain')}_disk"),
        )

    assert not any("disk-shared" in line for line in host.findings())


def test_qemu_was_started_with_an_image_in_another_pool(host: RecordedHost) -> None:
    to_rbd(host, "vm-plain")
    _ceph(host)
    query = f"/proc/{host.pid('vm-plain')}/cmdline"
    argv = host.last("kernel", query).value
    host.set("kernel", query, argv.replace('"pool":"vms"', '"pool":"old"'))

    image = f"{host.uuid('vm-plain')[:8]}_disk"
    assert (
        f"vm-plain's QEMU was started with vda old/{image}, but libvirt has vms/{image}"
        in host.headlines()
    )
