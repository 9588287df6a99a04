"""Ends of logs, and the lines that may be kept of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hoodsnap.bundle import Answer
from hoodsnap.collect import log
from hoodsnap.collect.recorder import Recorder, RefusedError
from hoodsnap.keep.log_line import log_line

UUID = "5ff9ffcb-a23f-4a79-8e0a-1f1f2d0e8b11"
OTHER = "0a9d8b7c-1111-4222-8333-444455556666"

START = f"""\
2026-11-25 13:15:10.466+0000: starting up libvirt version: 9.0.0, qemu version: 7.2.22, hostname: vm
LC_ALL=C \\
HOME=/var/lib/libvirt/qemu/domain-6-instance-00000006 \\
/usr/bin/qemu-system-x86_64 \\
-name guest=instance-00000006,debug-threads=on \\
-object '{{"qom-type":"secret","id":"s0","data":"sesame42"}}' \\
-uuid {UUID} \\
-msg timestamp=on
char device redirected to /dev/pts/7 (label charserial0)
"""

END = """\
2026-11-25T13:15:18.707135Z qemu-system-x86_64: terminating on signal 15 from pid 1 (/usr/sbin/libvirtd)
2026-11-25 13:15:20.309+0000: shutting down, reason=destroyed
"""


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folder of logs of the test's own; the kernel's log is empty."""
    monkeypatch.setattr(log, "QEMU_FOLDERS", (str(tmp_path / "none"), str(tmp_path / "qemu")))
    monkeypatch.setattr(log, "NOVA_LOGS", (str(tmp_path / "nova-compute.log"),))
    monkeypatch.setattr(log, "service", lambda: None)
    monkeypatch.setattr(log, "run", lambda command: "")
    (tmp_path / "qemu").mkdir()
    yield tmp_path


def _ask(logs: Path, conf: dict[str, dict[str, str]] | None = None) -> list[Answer]:
    recorder = Recorder("vm")
    conf = conf or {"DEFAULT": {"log_dir": str(logs)}}
    log.ask_logs(recorder, conf, {UUID: "instance-00000006"})
    return recorder.answers


def _qemu(logs: Path, text: str) -> str:
    (logs / "qemu/instance-00000006.log").write_text(text)
    [answer] = [answer for answer in _ask(logs) if answer.subject == UUID]
    assert answer.query == f"tail -c 65536 {logs}/qemu/instance-00000006.log"
    assert isinstance(answer.value, str)
    return answer.value


def _nova(logs: Path, text: str) -> list[str]:
    (logs / "nova-compute.log").write_text(text)
    [answer] = [answer for answer in _ask(logs) if "nova-compute.log" in answer.query]
    assert isinstance(answer.value, str)
    return answer.value.splitlines()


def test_a_start_keeps_only_its_uuid_of_its_arguments(logs: Path) -> None:
    assert _qemu(logs, START + END).splitlines() == [
        START.splitlines()[0],
        f"-uuid {UUID}",
        START.splitlines()[-1],
        *END.splitlines(),
    ]


def test_a_start_in_one_line_from_libvirt_before_4_7_keeps_only_its_uuid(logs: Path) -> None:
    start = "2018-01-02 03:04:05.678+0000: starting up libvirt version: 3.6.0, hostname: vm"
    command = f"LC_ALL=C PATH=/bin /usr/bin/kvm -name guest=x -uuid {UUID} -vnc 0.0.0.0:1,password"

    assert _qemu(logs, f"{start}\n{command}\n{END}").splitlines() == [
        start,
        f"-uuid {UUID}",
        *END.splitlines(),
    ]


def test_the_last_start_is_kept_after_any_number_of_lines(logs: Path) -> None:
    later = "2026-11-25T13:15:18Z qemu-system-x86_64: usb: port 1 reset\n" * 200
    lines = _qemu(logs, START + later).splitlines()

    assert lines[:2] == [START.splitlines()[0], f"-uuid {UUID}"]
    assert len(lines) == 52


def test_a_start_without_its_first_line_leaves_no_arguments(logs: Path) -> None:
    padding = "-device virtio-net-pci,host_mtu=1450 \\\n" * 3000

    assert _qemu(logs, START.replace("-msg", f"{padding}-msg") + END).splitlines() == [
        START.splitlines()[-1],
        *END.splitlines(),
    ]


def test_only_the_end_of_a_file_is_read(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (logs / "qemu/instance-00000006.log").open("wb") as file:
        file.truncate(5 << 30)
        file.seek(0, 2)
        file.write(f"\n{END}".encode())

    [answer] = [answer for answer in _ask(logs) if answer.subject == UUID]
    assert answer.value == END.rstrip()


def test_existing_logs_are_listed_and_missing_ones_are_not_read(logs: Path) -> None:
    (logs / "qemu/instance-00000007.log").write_text(END)

    [listed] = [answer for answer in _ask(logs) if answer.query.startswith("ls -l ")]
    assert [entry["name"] for entry in listed.value] == ["instance-00000007.log"]
    assert not any(answer.subject for answer in _ask(logs))


def test_a_missing_folder_is_recorded_as_absent(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "QEMU_FOLDERS", (str(logs / "none"),))

    listed = _ask(logs)[0]
    assert listed.error is not None
    assert listed.error.kind == "absent"


def test_only_kernel_lines_about_memory_and_storage_are_kept(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill = (
        "2026-11-25T13:15:16,1+00:00 oom-kill:constraint=CONSTRAINT_NONE,task=qemu-system-x86,pid=7"
    )
    disk = "2026-11-25T13:15:17,1+00:00 I/O error, dev sda, sector 2048 op 0x0:(READ) flags 0x0"
    other = "2026-11-25T13:15:18,1+00:00 tap95c91693-c9: entered promiscuous mode"
    monkeypatch.setattr(log, "run", lambda command: f"{kill}\n{other}\n{disk}\n")

    asked = {answer.query: answer.value for answer in _ask(logs)}
    assert asked["dmesg --time-format iso"] == f"{kill}\n{disk}"
    assert "journalctl -k -o short-iso" not in asked


def test_the_journal_is_read_if_dmesg_is_denied(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: tuple[str, ...]) -> str:
        if command[0] == "dmesg":
            raise RefusedError("denied", "read kernel buffer failed: Operation not permitted")
        return "2026-11-25T13:15:16+0000 vm kernel: Out of memory: Killed process 7 (qemu)\n"

    monkeypatch.setattr(log, "run", run)

    asked = {answer.query: answer for answer in _ask(logs)}
    assert asked["dmesg --time-format iso"].error is not None
    assert "Killed process 7" in asked["journalctl -k -o short-iso"].value


def test_only_nova_lines_about_the_life_of_an_instance_are_kept(logs: Path) -> None:
    def line(level: str, message: str, uuid: str = UUID) -> str:
        return f"2026-11-25 13:15:18.707 12955 {level} nova.compute.manager [-] [instance: {uuid}] {message}\n"

    lines = [
        line("DEBUG", "Start _get_guest_xml network_info=[]"),
        line("INFO", "Updating resource usage from migration"),
        line("INFO", "VM Stopped (Lifecycle Event)"),
        line("ERROR", "Traceback (most recent call last):"),
        line("ERROR", '  File "/usr/lib/python3/nova.py", line 7, in main'),
        line("ERROR", "libvirt.libvirtError: Failed to get write lock"),
        line("WARNING", "Instance shutdown by itself.", OTHER),
        "2026-11-25 13:15:18.707 12955 WARNING oslo [-] of no instance\n",
    ]

    assert _nova(logs, "".join(lines)) == [
        f"2026-11-25 13:15:18.707 INFO [instance: {UUID}] VM Stopped (Lifecycle Event)",
        f"2026-11-25 13:15:18.707 ERROR [instance: {UUID}] libvirt.libvirtError: Failed to get write lock",
        f"2026-11-25 13:15:18.707 WARNING [instance: {OTHER}] Instance shutdown by itself.",
    ]


def test_only_the_last_lines_of_each_instance_are_kept(logs: Path) -> None:
    text = "".join(
        f"2026-11-25 13:15:18.{number:03} 1 INFO nova [-] [instance: {UUID}] VM Paused (Lifecycle Event)\n"
        for number in range(100)
    )
    lines = _nova(logs, text)

    assert len(lines) == 12
    assert lines[-1].startswith("2026-11-25 13:15:18.099 ")


@pytest.mark.parametrize("offset", ["+0000", "-0500"])
def test_nova_computes_journal_is_read_if_it_has_no_log_file(
    logs: Path, monkeypatch: pytest.MonkeyPatch, offset: str
) -> None:
    line = f"2026-11-25T13:15:18{offset} vm nova-compute[7]: ERROR nova [-] [instance: {UUID}] it failed"
    monkeypatch.setattr(log, "run", lambda command: line if "-u" in command else "")

    [answer] = [a for a in _ask(logs) if a.query.startswith("journalctl -u nova-compute ")]
    assert answer.value == f"2026-11-25T13:15:18{offset} ERROR [instance: {UUID}] it failed"


@pytest.mark.parametrize(
    "line",
    [
        "Cannot connect to mysql+pymysql://nova:sesame42@db/nova",
        "Booting with adminPass: sesame42",
        "password 'x' auth_password='sesame42 too' failed",
        "connection_info {'data': {'auth_username': 'sesame42'}}",
        "headers X-Auth-Token: sesame42",
        "Authorization: Bearer sesame42",
        f"got gAAAAAB{'sesame42' * 12}",
        "user_data=sesame42",
        "instance {'metadata': 'sesame42'",
        f"connection_info {{'data': 'sesame42', {'x' * 5000}}}",
    ],
)
def test_a_log_line_is_kept_without_secrets(line: str) -> None:
    assert "sesame42" not in log_line(line)


def test_a_long_log_line_is_cut() -> None:
    assert len(log_line("word " * 1000)) == 301
    assert len(log_line("a- " * 2_000_000)) == 301


def test_names_of_guests_stay_in_a_log_line() -> None:
    line = (
        f"could not open disk image /var/lib/nova/instances/{UUID}/disk: Failed to get "
        '"write" lock (ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356)'
    )

    assert log_line(line) == line


@pytest.mark.parametrize("path", ["/proc/kmsg", "/var/log/../../sys/kernel/x", "/dev/kmsg"])
def test_files_that_reading_changes_are_not_read_as_logs(logs: Path, path: str) -> None:
    queries = [answer.query for answer in _ask(logs, {"DEFAULT": {"log_file": path}})]

    assert not any(os.path.basename(path) in query for query in queries)


def test_requests_that_were_refused_are_kept(logs: Path) -> None:
    start = "2026-11-25 13:15:18.707 12955"
    lines = [
        f"{start} ERROR nova.scheduler.client.report [None req-1 - - - - - -]"
        " Placement service credentials do not work.",
        f"{start} ERROR oslo_service.periodic_task     raise exceptions.http.Unauthorized()",
        f"{start} ERROR oslo_service.periodic_task keystoneauth1.exceptions.http.Unauthorized:"
        " It requires authentication. (HTTP 401)",
        f"{start} INFO nova.compute.manager [-] (HTTP 401)",
    ]

    assert _nova(logs, "\n".join(lines)) == [
        "2026-11-25 13:15:18.707 ERROR Placement service credentials [withheld] not work.",
        "2026-11-25 13:15:18.707 ERROR keystoneauth1.exceptions.http.Unauthorized:"
        " [withheld] requires authentication. (HTTP 401)",
    ]
