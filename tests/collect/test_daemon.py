"""The collector of daemons, on this host and on what systemd printed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.collect.conftest import until
from tests.daemons import FILES_SHOWN, PROPERTIES_SHOWN, UNITS_SHOWN

from hoodsnap.collect import daemon as module
from hoodsnap.collect.recorder import Recorder, RefusedError
from hoodsnap.facts.host.daemon import CENSUS, PROPERTIES, UNIT_FILES, UNITS

NAME = "neutron-sriov-nic-agent"
"""A daemon that no host that runs these tests has."""

PYTHON = "/usr/bin/python3"

MALLORY = 4242

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists(PYTHON),
    reason="only root can start processes of other accounts",
)


@pytest.fixture
def script() -> Iterator[Path]:
    """A script with a daemon's name, which every account may read."""
    folder = Path("/var/lib") / f"hs-daemon-{os.getpid()}"
    folder.mkdir()
    (folder / NAME).write_text("import time\ntime.sleep(60)\n")
    try:
        yield folder / NAME
    finally:
        shutil.rmtree(folder)


def rows(pid: int) -> list[dict[str, object]]:
    return [row for row in module._daemons() if row["pid"] == pid]


@pytest.fixture
def running(script: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """The script, run by the account that the test names."""
    command = [PYTHON, str(script)]
    with subprocess.Popen(command, user=request.param) as process:
        try:
            until(lambda: rows(process.pid) != [])
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()


@needs_root
@pytest.mark.parametrize("running", [0], indirect=True)
def test_a_daemon_of_root_is_listed(running: subprocess.Popen[bytes]) -> None:
    until(lambda: rows(running.pid)[0]["state"] == "S")  # it has started, and waits
    [row] = rows(running.pid)

    assert row.keys() == {
        *("name", "pid", "state", "switches", "started", "unit", "open_files", "limit"),
        *("lost_sockets", "umask"),
    }
    assert row["lost_sockets"] == []
    assert row["name"] == NAME
    assert isinstance(row["started"], int) and row["started"] > 0


@needs_root
@pytest.mark.parametrize("running", [0], indirect=True)
def test_a_daemon_that_was_stopped_shows_it(running: subprocess.Popen[bytes]) -> None:
    running.send_signal(signal.SIGSTOP)

    until(lambda: rows(running.pid)[0]["state"] == "T")


@needs_root
@pytest.mark.parametrize("running", [MALLORY], indirect=True)
def test_another_accounts_process_of_that_name_is_doubted(
    running: subprocess.Popen[bytes],
) -> None:
    [row] = rows(running.pid)

    assert row["doubt"] == f"it runs as uid {MALLORY}, which is neither root nor neutron"
    assert "unit" not in row


@needs_root
def test_a_daemon_that_replaces_its_command_line_is_recognized(script: Path) -> None:
    title = f"{NAME} ({PYTHON} {script} --config-file /etc/neutron/neutron.conf)"
    command = ["bash", "-c", 'exec -a "$0" "$@"', title, PYTHON, str(script)]
    with subprocess.Popen(command) as process:
        try:
            until(lambda: rows(process.pid) != [])
            assert rows(process.pid)[0]["name"] == NAME
        finally:
            process.kill()


@needs_root
@pytest.mark.parametrize(
    ("mode", "doubt"),
    [(0o755, None), (0o777, "accounts other than root can write to its executable")],
)
def test_an_executable_counts_only_if_others_can_not_write_to_it(
    script: Path, mode: int, doubt: str | None
) -> None:
    program = script.parent / "virtinterfaced"
    shutil.copy("/bin/sleep", program)
    program.chmod(mode)
    with subprocess.Popen([program, "60"]) as process:
        try:
            until(lambda: rows(process.pid) != [])
            said = rows(process.pid)[0].get("doubt")
            assert said is None if doubt is None else str(said).startswith(doubt)
        finally:
            process.kill()


def test_a_program_that_names_a_daemon_in_its_arguments_is_none() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            assert rows(process.pid) == []
        finally:
            process.kill()


def test_the_answers_of_systemd_are_asked_for_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(command: list[str]) -> str:
        commands.append(command)
        if "show" in command:
            return PROPERTIES_SHOWN
        return UNITS_SHOWN if "list-units" in command else FILES_SHOWN

    monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr(os.path, "isdir", lambda path: True)
    recorder = Recorder("vm")

    module.ask_daemons(recorder)

    assert [answer.query for answer in recorder.answers] == [CENSUS, UNITS, UNIT_FILES, PROPERTIES]
    assert all(command[0] == "systemctl" for command in commands)
    assert commands[0][: len(UNITS.split())] == UNITS.split()
    assert "nova-compute.service" in commands[-1] and "customer-acme.service" not in commands[-1]
    assert "acme" not in str([answer.value for answer in recorder.answers]).lower()


def test_a_host_without_systemd_is_not_asked_about_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "isdir", lambda path: False)
    recorder = Recorder("vm")

    module.ask_daemons(recorder)

    assert [answer.query for answer in recorder.answers] == [CENSUS]


@needs_root
@pytest.mark.parametrize("running", [0], indirect=True)
def test_too_many_daemons_are_refused(
    running: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST", 0)

    with pytest.raises(RefusedError, match="more than 0 processes of daemons"):
        module._daemons()


@needs_root
@pytest.mark.parametrize(
    ("uid", "passwd", "is_doubted"),
    [
        (42435, "", False),  # Kolla's number is known
        (42999, "neutron:x:42999:42999::/:/bin/sh\n", False),
        (42999, "acme:x:42999:42999::/:/bin/sh\n", True),
    ],
)
def test_a_daemon_in_a_container_needs_no_privileges(
    script: Path, uid: int, passwd: str, is_doubted: bool
) -> None:
    """Kolla's and Kubernetes' containers: own root and network, no rights of the host."""
    root = script.parent / "root"
    root.mkdir()
    steps = f"""
        mount -t tmpfs -o mode=755 tmpfs {root}; cd {root}
        mkdir usr etc proc; mount --bind /usr usr; mount -t proc proc proc
        for name in bin lib lib64 sbin; do ln -s usr/$name $name; done
        printf '{passwd}' > etc/passwd; cp {script} .
        exec setpriv --bounding-set=-sys_admin chroot --userspec={uid}:{uid} . {PYTHON} /{NAME}
    """
    command = ["unshare", "--mount", "--net", "sh", "-ec", steps]
    with subprocess.Popen(command) as process:
        try:
            until(lambda: rows(process.pid) != [])
            [row] = rows(process.pid)
        finally:
            process.kill()

    assert ("doubt" in row) == is_doubted
