import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hoodsnap.bundle import Answer
from hoodsnap.collect import process as process_module
from hoodsnap.collect.process import (
    LARGEST_OF_OTHERS,
    MOST_OTHERS,
    OF_OTHERS,
    ask_again,
    ask_processes,
)
from hoodsnap.collect.recorder import Recorder
from hoodsnap.keep.secret import WITHHELD


class Qemu:
    """Real emulator without a machine that has one disk open."""

    def __init__(self, folder: Path) -> None:
        self.disk = folder / "disk"
        self.disk.write_bytes(bytes(1 << 20))
        blockdev = {"driver": "file", "filename": str(self.disk), "node-name": "disk"}
        self.argv = (
            "qemu-system-x86_64",
            "-machine", "none", "-S", "-nodefaults", "-display", "none",
            "-name", "guest=odd,, näme\n,debug-threads=on",
            "-qmp", f"unix:{folder}/qmp,server=on,wait=off",
            "-blockdev", json.dumps(blockdev),
        )  # fmt: skip
        self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL)
        self.pid = self.process.pid
        while not (folder / "qmp").exists() or str(self.disk) not in self.open_files():
            assert self.process.poll() is None, "qemu did not start"

    def open_files(self) -> set[str]:
        folder = f"/proc/{self.pid}/fd"
        return {os.readlink(f"{folder}/{fd}") for fd in os.listdir(folder)}

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[Qemu]:
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    qemu = Qemu(tmp_path)
    yield qemu
    qemu.end()


@contextmanager
def program(path: Path) -> Iterator[int]:
    """Run a program at this path that does nothing; yield its PID."""
    sleep = shutil.which("sleep")
    assert sleep is not None
    shutil.copy(sleep, path)
    process = subprocess.Popen([path, "60"])
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def answers_of(recorder: Recorder, pid: int) -> dict[str, Answer]:
    """Return the answers about a process by query, with `PID` in place of its PID."""
    return {
        answer.query.replace(str(pid), "PID"): answer
        for answer in recorder.answers
        if answer.subject == str(pid)
    }


def shell(query: str) -> str:
    done = subprocess.run(["sh", "-c", query], capture_output=True, check=True)
    return os.fsdecode(done.stdout)


def test_a_real_qemu_is_found_with_its_arguments_exactly(qemu: Qemu) -> None:
    recorder = Recorder("host")

    found = ask_processes(recorder)

    assert found[qemu.pid] == qemu.argv
    cmdline = answers_of(recorder, qemu.pid)["/proc/PID/cmdline"].value
    assert cmdline == "\0".join(qemu.argv) + "\0"


def test_a_process_is_asked_these_questions(qemu: Qemu) -> None:
    recorder = Recorder("host")

    ask_processes(recorder, [Path("/var/lib/nova/instances")])

    answers = answers_of(recorder, qemu.pid)
    assert [query for query in answers if not query.startswith("awk")] == [
        "/proc/PID/cmdline",
        "/proc/PID/comm",
        "/proc/PID/stat",
        "/proc/PID/statm",
        "/proc/PID/status",
        "/proc/PID/cgroup",
        "readlink /proc/PID/exe",
        "readlink /proc/PID/root",
        "readlink /proc/PID/ns/*",
        "grep '^Max open files' /proc/PID/limits",
        "ls /proc/PID/fd | wc -l",
        "grep -E '^(Name|Cpus_allowed_list):' /proc/PID/task/*/status",
        "ls -lL /proc/PID/fd",
    ]
    assert {query: answer.error for query, answer in answers.items() if answer.error} == {}
    size = sum(len(json.dumps(answer.as_json())) for answer in answers.values())
    assert size < 15_000


def test_a_typed_query_gives_the_recorded_answer(qemu: Qemu) -> None:
    recorder = Recorder("host")

    ask_processes(recorder, [Path("/var/lib/nova/instances")])

    typed = 0
    for answer in recorder.answers:
        of_one = answer.subject == str(qemu.pid) and answer.query.startswith(("awk ", "readlink "))
        if (
            of_one and not answer.query.endswith("/ns/*")
        ) or answer.query == "grep btime /proc/stat":
            assert shell(answer.query).removesuffix("\n") == answer.value.removesuffix("\n")
            typed += 1
    assert typed == 4


def test_an_open_disk_has_its_inode_and_flags(qemu: Qemu) -> None:
    recorder = Recorder("host")

    ask_processes(recorder)

    files = answers_of(recorder, qemu.pid)["ls -lL /proc/PID/fd"].value
    status = qemu.disk.stat()
    assert [file for file in files if file["path"] == str(qemu.disk)] == [
        {
            "fd": files[-1]["fd"],
            "path": str(qemu.disk),
            "flags": files[-1]["flags"],
            "dev": f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}",
            "ino": status.st_ino,
            "rdev": "0:0",
            "size": 1 << 20,
            "mode": f"{status.st_mode:o}",
        }
    ]
    assert int(files[-1]["flags"], 8) & os.O_ACCMODE == os.O_RDWR


def test_a_disk_that_was_deleted_keeps_its_inode(qemu: Qemu) -> None:
    inode = qemu.disk.stat().st_ino
    qemu.disk.unlink()
    recorder = Recorder("host")

    ask_processes(recorder)

    files = answers_of(recorder, qemu.pid)["ls -lL /proc/PID/fd"].value
    assert [file["path"] for file in files if file["ino"] == inode] == [f"{qemu.disk} (deleted)"]


def test_each_thread_has_its_name_and_its_cpus(qemu: Qemu) -> None:
    os.sched_setaffinity(qemu.pid, {0})
    recorder = Recorder("host")

    ask_processes(recorder)

    query = "grep -E '^(Name|Cpus_allowed_list):' /proc/PID/task/*/status"
    threads = answers_of(recorder, qemu.pid)[query].value
    assert threads[str(qemu.pid)] == {"comm": "qemu-system-x86", "cpus": "0"}
    assert len(threads) > 1


def test_only_mounts_around_its_disks_are_kept(qemu: Qemu) -> None:
    recorder = Recorder("host")

    ask_processes(recorder, [Path("/proc/sys")])

    (mounts,) = (
        answer.value
        for query, answer in answers_of(recorder, qemu.pid).items()
        if query.startswith("awk")
    )
    kept = {line.split(" ")[4] for line in mounts.splitlines()}
    assert {"/", "/proc"} <= kept
    assert all(f"{qemu.disk}".startswith(place) or place.startswith("/proc") for place in kept)


def test_a_frozen_qemu_answers_as_fast_as_any(qemu: Qemu) -> None:
    os.kill(qemu.pid, signal.SIGSTOP)
    recorder = Recorder("host")

    ask_processes(recorder)

    answers = answers_of(recorder, qemu.pid)
    assert sum(answer.took for answer in answers.values()) < 1
    assert "\nState:\tT (stopped)\n" in answers["/proc/PID/status"].value


def test_an_ended_process_is_absent(qemu: Qemu) -> None:
    recorder = Recorder("host")
    qemu.end()

    ask_again(recorder, [qemu.pid], known=[qemu.pid])

    answers = answers_of(recorder, qemu.pid).values()
    assert {answer.error and answer.error.kind for answer in answers} == {"absent"}
    assert len(answers) == 14


def test_asking_again_finds_new_processes_and_skips_known_ones(qemu: Qemu) -> None:
    recorder = Recorder("host")

    again = ask_again(recorder, [], known=[qemu.pid])
    new = ask_again(recorder, [], known=[])

    assert qemu.pid not in again
    assert new[qemu.pid] == qemu.argv


@pytest.mark.parametrize(
    ("name", "is_emulator"),
    [
        ("qemu-system-aarch64", True),
        ("qemu-kvm", True),
        ("kvm", True),
        (".qemu-system-x86_64-wrapped", True),
        ("qemu-nbd", False),
        ("qemu-img", False),
        ("qemu-x86_64", False),
        ("kvm-pit", False),
    ],
)
def test_system_emulators_are_recognized_by_their_program(
    tmp_path: Path, name: str, is_emulator: bool
) -> None:
    recorder = Recorder("host")

    with program(tmp_path / name) as pid:
        found = ask_processes(recorder)

    assert (pid in found) == is_emulator
    (listed,) = (answer for answer in recorder.answers if answer.query == "ls -l /proc/*/exe")
    entry = {"pid": pid, "comm": name[:15], "exe": str(tmp_path / name), "uid": os.getuid()}
    assert (entry in listed.value) == is_emulator


def test_an_emulator_is_recognized_after_its_program_was_replaced(tmp_path: Path) -> None:
    with program(tmp_path / "qemu-kvm") as pid:
        (tmp_path / "qemu-kvm").unlink()
        recorder = Recorder("host")
        found = ask_processes(recorder)

    assert pid in found
    exe = answers_of(recorder, pid)["readlink /proc/PID/exe"].value
    assert exe == f"{tmp_path}/qemu-kvm (deleted)"


def test_the_list_is_the_output_of_the_shell_command(tmp_path: Path) -> None:
    recorder = Recorder("host")

    with program(tmp_path / "qemu-nbd") as pid:
        ask_processes(recorder)
        typed = shell("pgrep qemu | xargs ps ww")

    listed = of(recorder, "pgrep qemu | xargs ps ww").value
    # Other processes may start and end meanwhile; TIME may grow.
    assert listed.splitlines()[0] == typed.splitlines()[0]
    (row,) = (line for line in listed.splitlines() if line.split()[0] == str(pid))
    assert row.replace(f"qemu-nbd {WITHHELD}", f"{tmp_path}/qemu-nbd 60") in typed.splitlines()


SECRET_ARGUMENTS = [
    *("--auth", "a:S3CRET", "-p", "S3CRET", "--api-secret", "S3CRET", "-u", "root:S3CRET"),
    *("Authorization: Bearer S3CRET", "MYSQL_PWD=S3CRET", "--token=S3CRET", "--key", "S3CRET"),
    *("--secret", "S3CRET", "--pass=S3CRET", "-passin", "pass:S3CRET"),
]


def test_only_the_name_is_kept_of_a_program_that_is_no_emulator(tmp_path: Path) -> None:
    backup = tmp_path / "backup-qemu"
    shutil.copy(shutil.which("bash") or "/bin/bash", backup)
    command = [str(backup), "-c", "read _", *SECRET_ARGUMENTS]
    recorder = Recorder("host")
    with subprocess.Popen(command, stdin=subprocess.PIPE) as running:
        try:
            ask_processes(recorder)
        finally:
            running.kill()

    listed = of(recorder, "pgrep qemu | xargs ps ww").value
    (row,) = (line for line in listed.splitlines() if line.split()[0] == str(running.pid))
    assert row.endswith(f"backup-qemu {WITHHELD}")
    assert "S3CRET" not in json.dumps([answer.as_json() for answer in recorder.answers])


@pytest.mark.parametrize(("count", "kind"), [(3, None), (12, "too-large")])
@pytest.mark.parametrize("unit", ["secret,", "-object ", "://a:", "keyvalue-pairs", '\\"x'])
def test_no_arguments_make_the_collector_slow(
    tmp_path: Path, unit: str, count: int, kind: str | None
) -> None:
    """The longest arguments that the kernel allows once made `secret.py` run forever."""
    emulator = tmp_path / "qemu-system-x86_64"
    shutil.copy(shutil.which("bash") or "/bin/bash", emulator)
    long = (unit * (126_000 // len(unit) + 1))[:126_000]
    recorder = Recorder("host")
    with subprocess.Popen(
        [str(emulator), "-c", "read _", *[long] * count], stdin=subprocess.PIPE
    ) as running:
        try:
            ask_processes(recorder)
        finally:
            running.kill()

    answers = {answer.query: answer for answer in recorder.answers}
    cmdline = answers[f"/proc/{running.pid}/cmdline"]
    assert (cmdline.error and cmdline.error.kind) == kind
    assert all(len(word) < 20_000 for word in (cmdline.value or "").split("\0"))
    assert answers["pgrep qemu | xargs ps ww"].error is None


def test_the_list_is_empty_if_no_qemu_runs() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may make a PID namespace")
    script = (
        "import json; from hoodsnap.collect.process import ask_processes;"
        "from hoodsnap.collect.recorder import Recorder; from hoodsnap.keep.secret import WITHHELD; r = Recorder('host');"
        "found = list(ask_processes(r));"
        "print(json.dumps([found, [a.value for a in r.answers[:2]]]))"
    )
    namespace = ["unshare", "--pid", "--fork", "--mount-proc"]

    done = subprocess.run(
        [*namespace, sys.executable, "-c", script], capture_output=True, check=True, text=True
    )

    assert json.loads(done.stdout) == [[], ["", []]]


def test_denied_questions_are_recorded_without_root_and_others_are_answered(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can have a process that others may not look into")
    recorder = Recorder("host")

    with program(tmp_path / "qemu-kvm") as pid:
        os.seteuid(65534)
        try:
            found = ask_processes(recorder)
        finally:
            os.seteuid(0)

    assert found[pid] == (f"{tmp_path}/qemu-kvm", "60")
    answers = answers_of(recorder, pid)
    denied = {query for query, answer in answers.items() if answer.error is not None}
    assert {"readlink /proc/PID/exe", "ls -lL /proc/PID/fd", "readlink /proc/PID/ns/*"} <= denied
    assert {answer.error and answer.error.kind for answer in answers.values()} == {None, "denied"}
    answered = answers.keys() - denied
    assert {"/proc/PID/cmdline", "/proc/PID/stat", "/proc/PID/status"} <= answered


def test_the_host_is_asked_these_questions() -> None:
    recorder = Recorder("host")

    ask_processes(recorder)

    answers: dict[str, Any] = {
        answer.query: answer for answer in recorder.answers if answer.subject is None
    }
    assert list(answers)[2:] == [
        "/proc/locks",
        "grep btime /proc/stat",
        "ss -Hltnp",
        "ls /sys/bus/pci/devices",
        "ls /sys/bus/mdev/devices",
    ]
    assert answers["grep btime /proc/stat"].value.startswith("btime ")


@pytest.mark.lab
def test_every_guest_of_the_cloud_holds_its_tap_and_its_disk(cloud: Path) -> None:
    recorder = Recorder("host")

    found = ask_processes(recorder)

    names = shell("virsh list --name").split()
    assert names
    for name in names:
        pid = next(pid for pid, argv in found.items() if f"guest={name},debug-threads=on" in argv)
        answers = answers_of(recorder, pid)
        assert not [answer.query for answer in answers.values() if answer.error]
        files = answers["ls -lL /proc/PID/fd"].value
        taps = [file["iff"] for file in files if file["path"] == "/dev/net/tun"]
        assert taps and all(tap.startswith("tap") for tap in taps)
        assert [file for file in files if "disk" in file["path"] or "volume" in file["path"]]
        assert sum(len(json.dumps(answer.as_json())) for answer in answers.values()) < 15_000


@contextmanager
def emulators(folder: Path, count: int, *words: str) -> Iterator[list[int]]:
    """Run processes with the name of QEMU and these arguments; yield their PIDs."""
    path = folder / "qemu-system-x86_64"
    shutil.copy(shutil.which("perl") or "", path)
    command = [str(path), "-e", "sleep 60", *words]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def of(recorder: Recorder, query: str) -> Answer:
    return next(answer for answer in recorder.answers if answer.query == query)


def test_only_a_few_processes_of_accounts_without_guests_are_asked(tmp_path: Path) -> None:
    recorder = Recorder("vm")
    with emulators(tmp_path, MOST_OTHERS + 5) as pids:
        asked = ask_processes(recorder, may_be_guest=lambda uid: False)

    assert len(asked) == MOST_OTHERS
    assert set(pids) <= {one["pid"] for one in of(recorder, "ls -l /proc/*/exe").value}
    left = of(recorder, "pgrep -c qemu")
    assert left.error is not None
    assert "more QEMU processes of accounts that run no guests" in left.error.message


def test_processes_of_other_accounts_share_a_limit_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "MOST_OTHERS", 1000)  # this host may have guests
    monkeypatch.setattr(process_module, "TIME_OF_OTHERS", 60.0)
    recorder = Recorder("vm")
    with emulators(tmp_path, 8, *["{" * 10_000] * 40) as pids:
        ask_processes(recorder, may_be_guest=lambda uid: False)

    lines = [of(recorder, f"/proc/{pid}/cmdline") for pid in pids]
    kept = sum(len(line.value) for line in lines if line.error is None)
    assert 0 < kept < OF_OTHERS
    assert {line.error.kind for line in lines if line.error is not None} == {"too-large"}
    # The list of all processes is short enough to be kept.
    listed = of(recorder, "pgrep qemu | xargs ps ww")
    assert len(listed.value) < 2 * LARGEST_OF_OTHERS
    assert all(str(pid) in listed.value for pid in pids)


def test_possible_guests_are_asked_whatever_other_accounts_run(tmp_path: Path) -> None:
    recorder = Recorder("vm")
    with (
        emulators(tmp_path, MOST_OTHERS + 1, *["{" * 10_000] * 10),
        program(tmp_path / "qemu-kvm") as guest,
    ):
        found = ask_processes(recorder, may_be_guest=lambda uid: uid is None)
        found = ask_again(recorder, [guest], found, may_be_guest=lambda uid: True)

    assert found[guest] == (str(tmp_path / "qemu-kvm"), "60")


@pytest.mark.parametrize("name", ['qemu",pid=1', '\n"qemu', 'qemu",pid=1)\n'])
def test_no_process_can_claim_another_process_listens(name: str) -> None:
    listens = (
        "import socket, sys, time; s = socket.create_server(('127.0.0.1', 0));"
        "open('/proc/self/comm', 'w').write(sys.argv[1]); print(s.getsockname()[1], flush=True);"
        "time.sleep(60)"
    )
    recorder = Recorder("vm")
    command = [sys.executable, "-c", listens, name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        ask_processes(recorder)
        process.kill()

    lines = of(recorder, "ss -Hltnp").value.splitlines()
    assert not any(f":{port} " in line for line in lines)
    assert all(line.startswith("LISTEN ") for line in lines)


def test_names_and_arguments_cannot_add_rows_to_the_list(tmp_path: Path) -> None:
    recorder = Recorder("vm")
    row = "\n 1 ? Sl 0:00 qemu -uuid x"
    with program(tmp_path / f"qemu{row}") as pid, emulators(tmp_path, 1, f"x{row}") as [other]:
        ask_processes(recorder)

    listed = of(recorder, "pgrep qemu | xargs ps ww").value.splitlines()
    assert [line for line in listed[1:] if not line.split()[0].isdecimal()] == []
    rows = {line.split()[0]: line for line in listed}
    assert rows[str(pid)].endswith("qemu? 1 ? Sl 0:00 qemu -uuid x [withheld]")
    assert rows[str(other)].endswith(" sleep 60 x? 1 ? Sl 0:00 qemu -uuid x")


def test_the_open_files_are_counted_with_their_limit(qemu: Qemu) -> None:
    recorder = Recorder("host")

    ask_processes(recorder)

    answers = answers_of(recorder, qemu.pid)
    count, limit = (
        answers["ls /proc/PID/fd | wc -l"],
        answers["grep '^Max open files' /proc/PID/limits"],
    )
    assert count.value == int(shell(count.query)) > len(answers["ls -lL /proc/PID/fd"].value)
    assert limit.value == shell(limit.query)
