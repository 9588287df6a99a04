"""Wrong holders of a disk."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.checks.test_error import fail, fault_in_api
from tests.conftest import FAULTS, RecordedHost

from hoodsnap.bundle import load


def _base(host: RecordedHost, name: str) -> dict[str, object]:
    files = host.last("kernel", f"ls -lL /proc/{host.pid(name)}/fd").value
    found: dict[str, object] = next(file for file in files if "/_base/" in file["path"])
    return found


def test_guest_writes_into_base(host: RecordedHost) -> None:
    base = _base(host, "vm-plain")
    query = f"ls -lL /proc/{host.pid('vm-duo')}/fd"
    written = {**base, "fd": 98, "flags": "02100002"}
    host.set("kernel", query, [*host.last("kernel", query).value, written])

    assert host.findings() == [
        f"guest-writes-into-base: process reports pid = {host.pid('vm-duo')}, files = {base['path']} (rw)"
    ]
    assert host.headlines() == [
        "vm-duo writes into base image …/_base/2f8e0c22, which vm-config, vm-data, vm-paused and 7 more also use"
    ]


def test_a_disk_that_was_committed_into_its_base(host: RecordedHost) -> None:
    base, disk = str(_base(host, "vm-snap")["path"]), f"{host.folder('vm-snap')}/disk"
    live = f"virsh dumpxml {host.domain('vm-snap')}"
    host.set("libvirt", live, host.last("libvirt", live).value.replace(disk, base))

    assert "vm-snap writes into base image …/_base/a11ab982" in host.headlines()
    assert not any("guest-volume-not-in-bdm" in line for line in host.findings())


def test_a_base_that_guests_only_read_is_not_a_finding(host: RecordedHost) -> None:
    assert _base(host, "vm-plain")["flags"] != "02100002"

    assert host.findings() == []


def _lock(host: RecordedHost, name: str, line: str) -> None:
    """Add a lock on a guest's disk: `{}` in the line stands for device and inode."""
    listing = host.last("images", f"find {host.top} -ls").value
    disk = next(one for one in listing if one["path"] == f"{host.folder(name)}/disk")
    major, minor = map(int, disk["dev"].split(":"))
    file = f"{major:02x}:{minor:02x}:{disk['ino']}"
    locks = host.last("kernel", "/proc/locks").value
    host.set("kernel", "/proc/locks", f"{locks}{line.format(file)}\n")


def test_disk_locked_by_another(host: RecordedHost) -> None:
    _lock(host, "vm-stopped", "999: OFDLCK ADVISORY  READ -1 {} 100 101")

    [finding] = host.findings()
    assert finding.startswith(
        "disk-locked-by-another of vm-stopped: kernel reports lock = 999: OFDLCK"
    )
    assert host.headlines() == [
        f"A program has locked vm-stopped's disk …/{host.uuid('vm-stopped')[:8]}/disk; vm-stopped is off"
    ]


def test_a_tool_of_qemu_may_hold_the_lock(host: RecordedHost) -> None:
    _lock(host, "vm-stopped", "999: OFDLCK ADVISORY  READ -1 {} 100 101")
    query = "pgrep qemu | xargs ps ww"
    listed = host.last("kernel", query).value
    host.set("kernel", query, f"{listed}\n 4709 ?        Ssl    0:00 qemu-nbd [withheld]\n")

    [headline] = host.headlines()
    assert headline.startswith("A program, perhaps qemu-nbd (PID 4709), has locked vm-stopped's")


def test_a_backup_that_locks_the_disk_of_a_running_guest(host: RecordedHost) -> None:
    _lock(host, "vm-plain", "999: FLOCK  ADVISORY  WRITE 4711 {} 0 EOF")

    assert host.headlines() == [
        f"PID 4711 has locked vm-plain's disk …/{host.uuid('vm-plain')[:8]}/disk"
    ]


def test_locks_of_the_guests_qemu_and_of_libvirt_are_legal(host: RecordedHost) -> None:
    _lock(host, "vm-plain", "997: OFDLCK ADVISORY  READ -1 {} 100 101")
    _lock(host, "vm-plain", f"998: POSIX  ADVISORY  READ {host.pid('vm-plain')} {{}} 201 201")
    _lock(host, "vm-stopped", "999: POSIX  ADVISORY  WRITE 815 {} 0 0")
    _lock(host, "vm-stopped", "996: -> OFDLCK ADVISORY  READ -1 {} 100 101")

    assert host.findings() == []


def _die(host: RecordedHost, name: str, *, after_the_locks: bool) -> None:
    """Let a guest that nova calls active be off, without a line about it in a log."""
    host.end(name)
    query = f"virsh domstate --reason {host.domain(name)}"
    host.set("libvirt", query, {"state": 5, "reason": 3})
    rows = host.last("libvirt", "virsh list --all").value
    off = [row | {"id": None} if row["uuid"] == host.uuid(name) else row for row in rows]
    host.set("libvirt", "virsh list --all", off)
    if after_the_locks:
        read = host.last("kernel", "/proc/locks").at
        host.bundle = host.bundle.with_answers(
            answer.model_copy(update={"at": read + timedelta(seconds=1)})
            if answer.query == query
            else answer
            for answer in host.bundle.answers
        )


def test_the_locks_of_a_guest_that_has_just_died_are_not_reported(host: RecordedHost) -> None:
    _die(host, "vm-plain", after_the_locks=True)
    _lock(host, "vm-plain", "999: OFDLCK ADVISORY  READ -1 {} 100 101")

    report = host.report()
    assert not any(one.check.name == "disk-locked-by-another" for one in report.everything())
    assert "its QEMU may have ended after the locks were read" in [
        skip.reason for skip in report.skips if skip.check.name == "disk-locked-by-another"
    ]


@pytest.mark.parametrize("state", ["active", "error"])
def test_a_lock_on_the_disk_of_a_guest_that_was_off_before(host: RecordedHost, state: str) -> None:
    """nova wants such a server to run, or gave it up; no log tells of the lock."""
    _die(host, "vm-plain", after_the_locks=False)
    _lock(host, "vm-plain", "999: POSIX  ADVISORY  WRITE 4711 {} 100 101")
    host.row("instances", host.uuid("vm-plain"), vm_state=state)
    host.server(host.uuid("vm-plain"), vm_state=state)

    assert (
        f"PID 4711 has locked vm-plain's disk …/{host.uuid('vm-plain')[:8]}/disk; vm-plain is off"
        in host.headlines()
    )


def test_a_guest_that_is_off_without_a_lock_is_decided(host: RecordedHost) -> None:
    _die(host, "vm-plain", after_the_locks=True)
    assert "disk-locked-by-another" not in [
        skip.check.name
        for skip in host.report().skips
        if skip.guest is not None and skip.guest.name == "vm-plain"
    ]


def test_disk_locked_by_another_of_a_server_in_error(host: RecordedHost) -> None:
    """Its start failed on the lock, and nova starts it no more."""
    fail(host, "vm-stopped")
    fault_in_api(host, "vm-stopped", 'internal error: … monitor: Failed to get "write" lock')
    _lock(host, "vm-stopped", "999: POSIX  ADVISORY  WRITE 4711 {} 100 101")

    assert [line.partition(":")[0] for line in host.findings()] == [
        "disk-locked-by-another of vm-stopped",
        "server-in-error of vm-stopped",
    ]


def test_a_failed_block_of_a_disk_is_no_complaint_about_a_lock(host: RecordedHost) -> None:
    _lock(host, "vm-plain", "999: OFDLCK ADVISORY  READ -1 {} 100 101")
    host.end("vm-plain")
    query = f"virsh domstate --reason {host.domain('vm-plain')}"
    host.set("libvirt", query, {"state": 5, "reason": 3})
    log = f"tail -c 65536 /var/log/libvirt/qemu/{host.domain('vm-plain')}.log"
    said = "2026-11-25T18:35:00Z qemu-system-x86_64: {} (28)"
    error = said.format("block I/O error in device 'libvirt-1-format': No space left on device")
    host.set("logs", log, f"{host.last('logs', log).value}\n{error}")

    assert not any("disk-locked-by-another" in line for line in host.findings())


def test_the_guest_that_the_advice_pauses_is_not_to_be_resumed() -> None:
    host = RecordedHost(load(FAULTS / "base-committed.json.zst"))
    [finding] = host.report().findings
    name = finding.names["NAME"]
    host.set("libvirt", f"virsh domstate --reason {name}", {"state": 3, "reason": 1})

    report = host.report()

    assert [one.check.name for one in report.findings] == ["guest-writes-into-base"]
    assert [one.check.name for one in report.everything()] == [
        "guest-writes-into-base", "paused-or-crashed-guest",
    ]  # fmt: skip
