"""Contradictions in a forged bundle: each rule detects a small edit, and none doubts a real bundle."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from tests.conftest import FAULTS, HEALTHY, MONITORS, ROOT, RecordedHost, healthy
from tests.test_hostile import _damage, damages

from hoodsnap.bundle import Answer, dump, load, parse
from hoodsnap.trust.plausible import RULES, doubts

RECORDINGS = [HEALTHY, MONITORS, *FAULTS.glob("*.zst"), *ROOT.glob("fixtures/two-hosts/*.zst")]

FORGED = {
    "db-task-state": {"times-in-order"},  # the row's last change is earlier than its creation
    "db-migration-stuck": {"numbers-in-order"},  # the newest row claims to be hours old
    "volume-detaching": {"times-in-order"},  # the row's last change is dated before its creation
    "attachment-attaching": {"times-in-order"},
    "db-bdm-twice": {"numbers-in-order"},  # the newest row is a copy of an old one with its times
    "action-over-task": {"numbers-in-order"},  # the newest action claims to be 41 minutes old
    "db-mapping-building": {"numbers-in-order"},  # the mapping claims to be a day old
    "evacuated-allocation": {"numbers-in-order"},  # the newest migration claims to be days old
    "volume-migrating": {"times-in-order"},
    "snapshot-stuck": {"numbers-in-order"},  # the newest action claims to be three hours old
    "record-behind": {
        "times-in-order",
        "numbers-in-order",
    },  # its migration is a row that was added
    "volume-extend-failed": {"times-in-order"},  # the last change is dated before the creation
    # Rows that were added or changed, with times from before the lab was made.
    "volume-of-deleted": {"times-in-order", "numbers-in-order"},
    "volume-of-nobody": {"times-in-order"},
    "volume-reserved": {"times-in-order"},
    "soft-deleted-forever": {"times-in-order"},
}
"""Rules that may doubt recordings of faults injected by editing the database, as a forger would do.
They only do if the lab was old enough."""

BOOT_ID = "/proc/sys/kernel/random/boot_id"


def found(host: RecordedHost) -> list[str]:
    """Return rule and reason of each contradiction, after the bundle was written and read again."""
    return [f"{doubt.rule}: {doubt.reason}" for doubt in doubts(parse(dump(host.bundle)))]


def rules(host: RecordedHost) -> list[str]:
    return [line.partition(":")[0] for line in found(host)]


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.name.partition(".json")[0])
def test_recordings_are_plausible(path: Path) -> None:
    expected = FORGED.get(path.name.partition(".")[0], set())

    assert {doubt.rule for doubt in doubts(load(path))} <= expected


@pytest.mark.parametrize("layer", sorted(healthy().by_layer))
@pytest.mark.parametrize("way", ["failed", "dropped"])
def test_a_silent_layer_is_not_doubted(host: RecordedHost, layer: str, way: str) -> None:
    if way == "failed":
        host.silence(layer)
    else:
        host.drop(lambda answer: answer.layer != layer)

    assert found(host) == []


@settings(max_examples=15)
@given(damages)
def test_a_damaged_bundle_can_be_examined(damage: Any) -> None:
    raw = json.loads(dump(healthy()))
    for number, way, instead in damage:
        _damage(raw, number, way, instead)

    assert all(doubt.reason for doubt in doubts(parse(json.dumps(raw).encode())))


def test_each_rule_has_a_test() -> None:
    assert {f"test_{rule.__name__}" for rule in RULES} <= set(globals())


def test_asked_while_collecting(host: RecordedHost) -> None:
    query = "virsh capabilities"
    asked = host.last("libvirt", query)
    earlier = asked.model_copy(update={"at": asked.at - timedelta(days=1)})
    host.drop(lambda answer: answer is not asked)
    host.add(earlier)

    [line] = found(host)
    assert line.startswith("asked-while-collecting: answers outside the time of collection (")
    assert line.endswith(
        f": 1; the first one is libvirt: {query} at {earlier.at:%Y-%m-%d %H:%M:%S}"
    )


def test_one_boot(host: RecordedHost) -> None:
    asked = host.last("kernel", BOOT_ID)
    host.add(Answer(**asked.model_dump(exclude={"error", "value"}), value="another\n"))

    first = asked.value.strip()
    assert found(host) == [f"one-boot: the answers are from 2 boots of the host: {first}, another"]


def test_clocks_go_together(host: RecordedHost) -> None:
    seconds, idle = host.last("kernel", "/proc/uptime").value.split()
    more = f"{float(seconds) + 1000:.2f}"
    host.set("kernel", "/proc/uptime", f"{more} {idle}\n")

    [line] = found(host)
    assert line.startswith(
        f"clocks-go-together: /proc/uptime shows {more} s, but by the boottime of date"
    )


def test_a_date_that_was_changed(host: RecordedHost) -> None:
    date = host.last("host", "date --utc").value
    host.set("host", "date --utc", date | {"utc": "2020-02-02T02:02:02.000000000Z"})

    assert (
        "clocks-go-together: date --utc shows 2020-02-02 02:02:02, but was run at"
        in (found(host)[0])
    )


def test_the_time_of_the_boot_was_changed(host: RecordedHost) -> None:
    if "btime" not in host.last("kernel", "/proc/stat").value:
        pytest.skip("this recording has no btime")
    [line] = [
        line
        for line in host.last("kernel", "/proc/stat").value.splitlines()
        if line.startswith("btime ")
    ]
    host.edit("kernel", "/proc/stat", line, "btime 1700000000")

    [doubt] = found(host)
    assert doubt.startswith(
        "clocks-go-together: /proc/stat shows btime 1700000000, but by the boottime of date"
    )


def test_the_uptime_of_a_container_is_not_compared(host: RecordedHost) -> None:
    mounts = host.last("kernel", "/proc/self/mountinfo").value
    lxcfs = "900 22 0:99 /proc/uptime /proc/uptime rw - fuse.lxcfs lxcfs rw\n"
    host.set("kernel", "/proc/self/mountinfo", mounts + lxcfs)
    host.set("kernel", "/proc/uptime", "12.00 3.00\n")

    assert found(host) == []


def test_numbered_alike(host: RecordedHost) -> None:
    pid = host.pid("vm-plain")
    host.edit("kernel", f"/proc/{pid}/stat", f"{pid} (", "7 (")
    host.edit("kernel", f"/proc/{pid}/status", f"\nPid:\t{pid}\n", "\nPid:\t8\n")

    assert sorted(found(host)) == [
        f"numbered-alike: /proc/{pid}/stat belongs to process 7",
        f"numbered-alike: /proc/{pid}/status belongs to process 8",
    ]


def stat(host: RecordedHost, name: str, number: int, value: int) -> None:
    """Set a field of a process's stat, by its number in proc(5)."""
    query = f"/proc/{host.pid(name)}/stat"
    head, _, tail = host.last("kernel", query).value.rpartition(") ")
    fields = tail.split(" ")
    fields[number - 3] = str(value)
    host.set("kernel", query, f"{head}) {' '.join(fields)}")


def uptime(host: RecordedHost) -> float:
    return float(host.last("kernel", "/proc/uptime").value.split()[0])


def test_started_before_seen(host: RecordedHost) -> None:
    stat(host, "vm-plain", 22, int(uptime(host) + 60) * 100)

    lines = found(host)
    query = f"/proc/{host.pid('vm-plain')}/stat"
    assert lines[0].startswith(f"started-before-seen: {query} shows that the process started ")


def test_busy_no_longer_than_alive(host: RecordedHost) -> None:
    stat(host, "vm-plain", 14, int(uptime(host)) * 100 * 1000)

    [line] = found(host)
    query = f"/proc/{host.pid('vm-plain')}/stat"
    assert line.startswith(f"busy-no-longer-than-alive: {query} shows ")
    assert " s of CPU time, but the process had started only " in line


def test_command_line_twice(host: RecordedHost) -> None:
    pid = host.pid("vm-plain")
    host.edit("kernel", f"/proc/{pid}/cmdline", "\0-smp\x001,", "\0-smp\x002,")

    [line] = found(host)
    assert line.startswith("command-line-twice: ps shows the argument 1,sockets=1,")
    assert f"/proc/{pid}/cmdline shows 2,sockets=1" in line


def test_a_line_truncated_by_ps_is_not_doubted(host: RecordedHost) -> None:
    query = "pgrep qemu | xargs ps ww"
    lines = [line[:400] for line in host.last("kernel", query).value.splitlines()]
    host.set("kernel", query, "\n".join(lines))

    assert found(host) == []


def running_id(host: RecordedHost, name: str) -> int:
    lines = host.last("libvirt", "virsh list --all").value
    [number] = [line["id"] for line in lines if line["uuid"] == host.uuid(name)]
    assert isinstance(number, int)
    return number


def test_domain_id_twice(host: RecordedHost) -> None:
    uuid, number = host.uuid("vm-plain"), running_id(host, "vm-plain")
    lines = host.last("libvirt", "virsh list --all").value
    forged = [line | {"id": 977} if line["uuid"] == uuid else line for line in lines]
    host.set("libvirt", "virsh list --all", forged)

    assert found(host) == [
        f"domain-id-twice: domain {uuid} has id 977 in virsh list, {number} in virsh dumpxml,"
        f" {number} in the command line of process {host.pid('vm-plain')}"
    ]


def test_a_domain_that_was_restarted_during_the_collection_is_not_doubted(
    host: RecordedHost,
) -> None:
    uuid = host.uuid("vm-plain")
    asked = host.last("libvirt", "virsh list --all")
    lines = [line | {"id": 977} if line["uuid"] == uuid else line for line in asked.value]
    host.add(Answer(**asked.model_dump(exclude={"error", "value"}), value=lines))

    assert found(host) == []


def test_a_process_that_ended_during_the_collection_is_not_doubted(host: RecordedHost) -> None:
    pid = host.pid("vm-plain")
    query = "ls -l /proc/*/exe"
    host.set("kernel", query, [x for x in host.last("kernel", query).value if x["pid"] != pid])
    stat(host, "vm-plain", 22, 100)

    assert found(host) == []


def test_started_as_logged(host: RecordedHost) -> None:
    uuid = host.uuid("vm-plain")
    [asked] = [
        answer
        for answer in host.bundle.by_layer["logs"]
        if answer.subject == uuid and answer.query.startswith("tail -c 65536 ")
    ]
    before, _, after = asked.value.rpartition("+0000: starting up")
    host.set("logs", asked.query, f"{before[:-23]}2020-02-02 02:02:02.000+0000: starting up{after}")

    [line] = found(host)
    assert line.startswith(f"started-as-logged: process {host.pid('vm-plain')} started at")
    assert line.endswith(f"{host.domain('vm-plain')}.log shows a start at 2020-02-02 02:02:02")


def test_younger_than_its_row(host: RecordedHost) -> None:
    stat(host, "vm-plain", 22, 100)

    assert rules(host) == ["started-as-logged", "younger-than-its-row"]
    assert found(host)[1].startswith(
        f"younger-than-its-row: process {host.pid('vm-plain')} started at"
    )


def test_one_path_one_file(host: RecordedHost) -> None:
    disk = f"{host.folder('vm-plain')}/disk"
    [held] = [
        file["ino"]
        for file in host.last("kernel", f"ls -lL /proc/{host.pid('vm-plain')}/fd").value
        if file["path"] == disk
    ]
    host.file(disk, ino=held + 10**9)

    assert found(host) == [
        f"one-path-one-file: {disk} is inode {held + 10**9} in the list of files, but process"
        f" {host.pid('vm-plain')} has it open as inode {held}"
    ]


def test_a_file_that_was_replaced_while_open_is_not_doubted(host: RecordedHost) -> None:
    disk = f"{host.folder('vm-plain')}/disk"
    host.file(disk, ino=10**9)
    gone = f"{disk} (deleted)"
    host.hold("vm-plain", lambda file: file | {"path": gone} if file["path"] == disk else file)

    assert found(host) == []


def test_the_files_of_a_process_in_a_container_are_not_compared(host: RecordedHost) -> None:
    pid = host.pid("vm-plain")
    host.file(f"{host.folder('vm-plain')}/disk", ino=10**9)
    [query] = [
        answer.query
        for answer in host.bundle.by_layer["kernel"]
        if answer.query.startswith("awk ") and answer.subject == str(pid)
    ]
    host.edit("kernel", query, " / / ", " /containers/7 / ")

    assert found(host) == []


def test_one_file_one_path(host: RecordedHost) -> None:
    folder, other = host.folder("vm-plain"), host.folder("vm-duo")
    lines = host.last("images", f"find {host.top} -ls").value
    [entry] = [line for line in lines if line["path"] == f"{folder}/console.log"]
    host.file(f"{other}/console.log", ino=entry["ino"])

    [line] = found(host)
    assert line.startswith("one-file-one-path: ")
    assert f"{folder}/console.log" in line
    assert line.endswith(f"are the same file (inode {entry['ino']}), but it has a link count of 1")


def test_changed_before_seen(host: RecordedHost) -> None:
    path = f"{host.folder('vm-plain')}/console.log"
    later = host.bundle.ended + timedelta(days=1)
    host.file(path, ctime=later.isoformat())

    assert found(host) == [
        f"changed-before-seen: {path} changed at {later:%Y-%m-%d %H:%M:%S}, after the collection"
    ]


def test_a_clock_one_minute_ahead_is_not_doubted(host: RecordedHost) -> None:
    later = host.bundle.ended + timedelta(minutes=1)
    host.file(f"{host.folder('vm-plain')}/console.log", ctime=later.isoformat())

    assert found(host) == []


def test_times_in_order(host: RecordedHost) -> None:
    uuid = host.uuid("vm-plain")
    host.row("instances", uuid, terminated_at="2020-02-02 02:02:02")

    [line] = found(host)
    assert line.startswith("times-in-order: nova.instances row ")
    assert line.endswith("later than terminated_at, 2020-02-02 02:02:02")
    assert uuid in line


def test_times_before_seen(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-plain"), launched_at="2099-02-02 02:02:02")

    [line] = found(host)
    assert line.startswith("times-before-seen: nova.instances row ")
    assert "launched_at is 2099-02-02 02:02:02, which was in the future at" in line


def test_numbers_in_order(host: RecordedHost) -> None:
    host.row("instance_actions", host.uuid("vm-snap"), created_at="2020-02-02 02:02:02")

    assert "numbers-in-order" in rules(host)
    [line] = [line for line in found(host) if line.startswith("numbers-in-order")]
    assert line.startswith("numbers-in-order: nova.instance_actions: row ")
    assert "was created at 2020-02-02 02:02:02, but the earlier row " in line


def test_created_twice(host: RecordedHost) -> None:
    uuid = host.uuid("vm-plain")
    host.server(uuid, created="2020-02-02T02:02:02Z")

    [line] = found(host)
    assert line.startswith(
        f"created-twice: server {uuid} was created at 2020-02-02 02:02:02 according to the API,"
        " but at "
    )
