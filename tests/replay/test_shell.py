"""A shell on a recording: real clients, if they are installed, in real namespaces."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import HEALTHY, NOT_SEALED, RecordedHost

from hoodsnap.bundle import save


def replay(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "hoodsnap", *arguments], capture_output=True, text=True
    )
    if NOT_SEALED in done.stderr:
        pytest.skip(done.stderr.strip())
    return done


def needs(program: str) -> pytest.MarkDecorator:
    reason = f"{program} is not installed"
    return pytest.mark.skipif(shutil.which(program) is None, reason=reason)


def test_status_and_output_of_a_command_are_passed_on() -> None:
    done = replay("shell", HEALTHY, "-c", "echo here; exit 7")

    assert (done.returncode, done.stdout, done.stderr) == (7, "here\n", "")


@pytest.mark.parametrize("name", ["TERM", "INT", "KILL"])
def test_a_command_ended_by_a_signal_has_a_shell_s_status(name: str) -> None:
    done = replay("shell", HEALTHY, "-c", f"kill -{name} $$")

    assert done.returncode == 128 + signal.Signals[f"SIG{name}"]


def test_a_command_that_is_not_installed() -> None:
    done = replay("replay", HEALTHY, "--", "no-such-program")

    assert done.returncode == 127
    assert done.stderr == "hoodsnap: no-such-program is not installed\n"


@needs("virsh")
def test_virsh_lists_the_recorded_domains(host: RecordedHost) -> None:
    done = replay("replay", HEALTHY, "--", "virsh", "list", "--all", "--uuid")

    listed = host.last("libvirt", "virsh list --all").value
    assert sorted(done.stdout.split()) == sorted(row["uuid"] for row in listed)


@needs("ps")
@needs("pgrep")
def test_the_commands_of_the_exercise(host: RecordedHost) -> None:
    done = replay("shell", HEALTHY, "-c", "pgrep qemu | xargs ps ww")

    recorded = host.last("kernel", "pgrep qemu | xargs ps ww").value
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        line.split()[0] for line in recorded.splitlines()
    ]
    assert [line[27:] for line in done.stdout.splitlines()] == [
        line[27:] for line in recorded.splitlines()
    ]


@needs("mysql")
def test_the_query_of_the_exercise(host: RecordedHost) -> None:
    asked = "select uuid from instances where display_name = 'vm-plain'"

    done = replay("shell", HEALTHY, "-c", f'sudo mysql -N nova -e "{asked}"')

    assert done.stdout == host.uuid("vm-plain") + "\n"


def test_a_recorded_folder_can_be_listed(host: RecordedHost) -> None:
    folder = f"/var/lib/nova/instances/{host.uuid('vm-plain')}"

    done = replay("shell", HEALTHY, "-c", f"ls -1 {folder}")

    assert done.stdout.split() == ["console.log", "disk", "disk.info"]


def test_the_shell_has_no_network() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    program = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"

    done = replay("replay", HEALTHY, "--", sys.executable, "-c", program)

    listener.close()
    assert "ConnectionRefusedError" in done.stderr


def test_no_socket_in_a_file_leads_out(tmp_path: Path) -> None:
    path = tmp_path / "live.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    program = f"import socket; socket.socket(socket.AF_UNIX).connect({str(path)!r})"

    done = replay("replay", HEALTHY, "--", sys.executable, "-c", program)

    listener.close()
    assert "Error" in done.stderr
    assert done.returncode == 1


def test_the_host_is_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Others may be at work on this host: what counts is what could be of the shell.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    made = Path("/var/lib/nova/instances/made-in-the-shell")

    def mounts() -> list[str]:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return [line for line in lines if "hoodsnap" in line or "/recorded" in line]

    before = mounts()
    done = replay("shell", HEALTHY, "-c", f"touch ~/mine && mkdir {made}")

    assert done.returncode == 1
    assert "Read-only file system" in done.stderr
    assert mounts() == before
    assert list(tmp_path.iterdir()) == []
    assert not made.exists()


def test_coverage_lists_missed_requests(tmp_path: Path) -> None:
    if shutil.which("virsh") is None:
        pytest.skip("virsh is not installed")
    done = replay("shell", HEALTHY, "-c", "virsh domstats; virsh list >/dev/null", "--coverage")

    assert "hoodsnap: requested, but not recorded:" in done.stderr
    assert "domstats was not recorded" in done.stderr.splitlines()[-1]


def test_the_host_must_be_named_if_there_are_several(host: RecordedHost, tmp_path: Path) -> None:
    answers = host.bundle.answers
    other = tuple(answer.model_copy(update={"host": "other"}) for answer in answers)
    both = tmp_path / "both.json"
    save(host.bundle.with_answers((*answers, *other)), both)

    done = replay("shell", both, "-c", "true")
    chosen = replay("shell", both, "--host", "other", "-c", "true")

    assert done.returncode == 2
    assert "choose one with --host; hosts in this bundle:" in done.stderr
    assert chosen.returncode == 0


def test_serving_is_refused_beside_a_live_server(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "mysqld.sock"))
    listener.listen()

    done = replay("serve", HEALTHY)

    listener.close()
    assert done.returncode == 2
    assert "a live server listens at" in done.stderr


@needs("nsenter")
def test_no_namespace_leads_back() -> None:
    done = replay("replay", HEALTHY, "--", "nsenter", "--target", "1", "--net", "true")

    assert done.returncode != 0
    assert "cannot open" in done.stderr


@needs("ip")
def test_no_network_of_the_host_is_entered() -> None:
    listed = subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout.split()
    if not listed:
        pytest.skip("this host has no network namespaces")

    done = replay("replay", HEALTHY, "--", "ip", "netns", "exec", listed[0], "true")

    assert done.returncode != 0


@needs("mysql")
def test_the_end_of_a_shell_is_noticed_while_a_client_keeps_it_busy() -> None:
    # It takes for ever to find out that this does not match.
    question = f"select '{'a' * 60}' rlike '(a|a)+b'"
    line = f'mysql nova -e "{question}" & sleep 1; echo ended; exit 6'

    done = subprocess.run(
        [sys.executable, "-m", "hoodsnap", "shell", HEALTHY, "-c", line],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if NOT_SEALED in done.stderr:
        pytest.skip(done.stderr.strip())

    assert (done.returncode, done.stdout) == (6, "ended\n")


HANGS_UP = """
import socket, sys, tempfile
from pathlib import Path
from hoodsnap.bundle import load
from hoodsnap.replay import stage
from hoodsnap.replay.recording import Recording, hosts
bundle = load(Path(sys.argv[1]))
recording = Recording(bundle, *hosts(bundle))
sys.modules["hoodsnap.replay.mysqld.mysqld"] = None  # it can't be imported
with tempfile.TemporaryDirectory() as folder:
    listeners = stage.listen(recording, Path(folder), ports=False)
    client = socket.socket(socket.AF_UNIX)
    client.connect(f"{folder}/libvirt/libvirt-sock")
    stage.answer(recording, listeners, print)
    try: client.recv(1)
    except ConnectionError: pass
"""


def test_a_stand_in_that_can_t_be_started_hangs_up() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGS_UP, HEALTHY], capture_output=True, text=True, timeout=60
    )

    assert done.stdout == "a stand-in can't be started: ModuleNotFoundError\n", done.stderr
