"""Mounts of a host: file systems of guests' disks that can't be written."""

from __future__ import annotations

import re

from tests.conftest import RecordedHost, changes

SHARE = "/var/lib/nova/mnt/12b79a0d1575f0e2a3d62627a7d10a43"
TABLE = "/proc/self/mountinfo"


def remount(host: RecordedHost, folder: str, own: str, system: str = "rw") -> None:
    """Change the options of a mount: its own, and its file system's."""
    text = host.last("kernel", TABLE).value
    line = re.compile(rf"( {re.escape(folder)} )rw(.*? - \S+ \S+ )rw", re.ASCII)
    assert len(line.findall(text)) == 1
    host.set("kernel", TABLE, line.sub(rf"\g<1>{own}\g<2>{system}", text))


def test_mount_read_only(host: RecordedHost) -> None:
    remount(host, SHARE, "ro")

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("mount-read-only", "error")
    assert finding.headline == (
        f"{SHARE} on vm is mounted read-only, but vm-bfv and vm-data write to disks there"
    )
    assert changes(finding) == [f"mount -o remount,bind,rw {SHARE}"]


def test_a_file_system_that_an_error_made_read_only(host: RecordedHost) -> None:
    remount(host, SHARE, "rw", "ro")

    [finding] = host.report().findings
    assert f"{SHARE} on vm is a read-only file system, but" in finding.headline
    assert changes(finding) == [f"mount -o remount,rw {SHARE}"]


def test_the_instances_directory_on_a_read_only_file_system(host: RecordedHost) -> None:
    remount(host, "/", "ro", "ro")

    [headline] = host.headlines()
    assert headline.startswith("/ on vm is a read-only file system, but ")
    assert "vm-bfv" not in headline


def test_a_stopped_guest_will_write_to_its_disk(host: RecordedHost) -> None:
    look = _look(host, "vm-data")
    for name in ("vm-bfv", "vm-data"):
        for query in ("", "--inactive "):
            _point(host, f"virsh dumpxml {query}{host.domain(name)}", "/elsewhere/")
    remount(host, SHARE, "ro")
    assert not any("mount-read-only" in line for line in host.findings())

    query = f"virsh dumpxml --inactive {host.domain('vm-stopped')}"
    disk = look.removeprefix("stat -L ")
    host.edit("libvirt", query, f"{host.folder('vm-stopped')}/disk'", f"{disk}'")
    assert f"{SHARE} on vm is mounted read-only, but vm-stopped writes to disks there" in (
        host.headlines()
    )


def _point(host: RecordedHost, query: str, folder: str) -> None:
    host.set("libvirt", query, host.last("libvirt", query).value.replace(f"{SHARE}/", folder))


def _look(host: RecordedHost, name: str) -> str:
    [disk] = re.findall(
        rf"{SHARE}/[^']+", host.last("libvirt", f"virsh dumpxml {host.domain(name)}").value
    )
    return f"stat -L {disk}"


def test_disks_that_guests_only_read_may_be_on_a_read_only_mount(host: RecordedHost) -> None:
    for name in ("vm-bfv", "vm-data"):
        for option in ("", "--inactive "):
            query = f"virsh dumpxml {option}{host.domain(name)}"
            text = host.last("libvirt", query).value
            read_only = re.sub(rf"(<source file='{SHARE}/[^>]*>)", r"\g<1><readonly/>", text)
            assert read_only != text
            host.set("libvirt", query, read_only)
    remount(host, SHARE, "ro")

    assert not any("mount-read-only" in line for line in host.findings())


def test_a_path_that_leads_to_another_file_system_through_a_link(host: RecordedHost) -> None:
    for name in ("vm-bfv", "vm-data"):
        look = _look(host, name)
        host.set("images", look, host.last("images", look).value | {"dev": "7:5"})
    remount(host, SHARE, "ro")

    assert not any("mount-read-only" in line for line in host.findings())


def test_a_collector_that_sees_everything_read_only(host: RecordedHost) -> None:
    """systemd's ProtectSystem=strict mounts all file systems read-only for one service."""
    remount(host, SHARE, "ro")
    remount(host, "/", "ro")

    assert host.findings() == []
