"""The commands, run the way a person runs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.command import hoodsnap, process
from tests.conftest import FAULTS, HEALTHY, RecordedHost

from hoodsnap.bundle import dump, save


@pytest.fixture
def broken(host: RecordedHost, tmp_path: Path) -> Path:
    """A bundle with one error."""
    host.end("vm-plain")
    query = f"virsh domstate --reason {host.domain('vm-plain')}"
    host.set("libvirt", query, {"state": 5, "reason": 3})
    save(host.bundle, tmp_path / "broken.json.gz")
    return tmp_path / "broken.json.gz"


def test_nothing_is_imported_from_the_current_folder(tmp_path: Path) -> None:
    """Root's current folder may belong to another account, or be an unpacked mail attachment."""
    for name in ("typer", "json", "rich", "pydantic"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken from here')\n")
    environment = {name: it for name, it in os.environ.items() if name != "PYTHONSAFEPATH"}
    command = [sys.executable, "-m", "hoodsnap", "--version"]

    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)

    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"hoodsnap ")


def test_layers_that_agree_end_with_0() -> None:
    done = hoodsnap("explain", HEALTHY)

    assert (done.returncode, done.stderr) == (0, b"")
    assert b"the collected layers agree" in done.stdout


def test_layers_that_disagree_end_with_1(broken: Path) -> None:
    done = hoodsnap("explain", broken)

    assert done.returncode == 1
    assert b"ERROR active-but-domain-off" in done.stdout


@pytest.mark.parametrize(("limit", "status"), [("error", 1), ("warning", 1), ("never", 0)])
def test_fail_on_is_the_lowest_severity_that_fails(broken: Path, limit: str, status: int) -> None:
    assert hoodsnap("explain", "--fail-on", limit, broken).returncode == status


def test_a_note_fails_only_on_request(host: RecordedHost, tmp_path: Path) -> None:
    uuid = host.uuid("vm-stopped")
    lines = host.last("libvirt", "virsh list --all").value
    kept = [line for line in lines if line["uuid"] != uuid]
    host.set("libvirt", "virsh list --all", kept)
    host.drop(lambda answer: not (answer.layer == "libvirt" and answer.subject == uuid))
    save(host.bundle, tmp_path / "note.json")

    assert hoodsnap("explain", tmp_path / "note.json").returncode == 0
    assert hoodsnap("explain", "--fail-on", "note", tmp_path / "note.json").returncode == 1


@pytest.mark.parametrize("name", ["vm-plain", "uuid", "domain"])
def test_a_server_can_be_chosen_by_any_of_its_names(host: RecordedHost, name: str) -> None:
    wanted = {"uuid": host.uuid("vm-plain"), "domain": host.domain("vm-plain")}.get(name, name)

    done = hoodsnap("explain", HEALTHY, "--server", wanted)

    assert b"\nvm-plain  " in done.stdout
    assert b"vm-duo" not in done.stdout


def test_an_unknown_server_is_a_usage_error() -> None:
    done = hoodsnap("explain", HEALTHY, "--server", "nobody")

    assert done.returncode == 2
    assert done.stderr == b"hoodsnap: no server in this bundle is named nobody\n"


def test_a_wrong_value_of_an_option_is_named_in_plain_words() -> None:
    done = hoodsnap("explain", HEALTHY, "--format", "pdf")

    assert done.returncode == 2
    assert (
        b"hoodsnap: --format can't be pdf; it can be: text, json, markdown, html\n" in done.stderr
    )


def test_an_empty_standard_input_is_named() -> None:
    done = hoodsnap("explain", "-", stdin=b"")

    assert done.returncode == 3
    assert done.stderr == b"hoodsnap: standard input can't be read: it is empty\n"


def test_a_fifo_is_announced_and_a_pipe_of_the_shell_is_not(tmp_path: Path) -> None:
    """Opening a FIFO waits for a program that writes, however long that takes."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_bytes(HEALTHY.read_bytes()))
    writer.start()
    done = hoodsnap("check", fifo)
    writer.join()

    assert done.returncode == 0
    assert (
        f"hoodsnap: reading {fifo}, a FIFO: another program has to write the bundle\n"
        in done.stderr.decode()
    )
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(HEALTHY.read_bytes())

    writer = threading.Thread(target=write)
    writer.start()
    done = hoodsnap("check", f"/dev/fd/{reading}")
    writer.join()
    os.close(reading)

    assert done.returncode == 0
    assert b"FIFO" not in done.stderr


def test_a_finding_of_another_server_does_not_fail_the_chosen_one(broken: Path) -> None:
    assert hoodsnap("explain", broken, "--server", "vm-duo").returncode == 0
    assert hoodsnap("explain", broken, "--server", "vm-plain").returncode == 1


@pytest.mark.parametrize("damage", [slice(0, 1000), slice(1, None)])
def test_an_unreadable_bundle_is_one_sentence_and_status_3(
    recorded: bytes, tmp_path: Path, damage: slice
) -> None:
    (tmp_path / "bad.json").write_bytes(recorded[damage])

    done = hoodsnap("explain", tmp_path / "bad.json")

    assert (done.returncode, done.stdout) == (3, b"")
    assert done.stderr.startswith(f"hoodsnap: {tmp_path}/bad.json can't be read: it ".encode())
    assert done.stderr.count(b"\n") == 1


def test_a_missing_file_is_one_sentence_and_status_3() -> None:
    done = hoodsnap("explain", "/no/such/bundle.json")

    assert done.returncode == 3
    assert (
        done.stderr == b"hoodsnap: /no/such/bundle.json can't be read: No such file or directory\n"
    )


def test_a_dash_means_standard_input(host: RecordedHost) -> None:
    done = hoodsnap("explain", "-", stdin=dump(host.bundle))

    assert done.returncode == 0


def test_several_bundles_are_joined(host: RecordedHost, tmp_path: Path) -> None:
    controller, compute = RecordedHost(host.bundle), RecordedHost(host.bundle)
    controller.drop(lambda answer: answer.layer in ("nova", "glance", "nova-db"))
    compute.drop(lambda answer: answer.layer not in ("nova", "glance", "nova-db"))
    save(controller.bundle, tmp_path / "controller.json")
    save(compute.bundle, tmp_path / "compute.json")

    both = hoodsnap("explain", tmp_path / "controller.json", tmp_path / "compute.json")
    whole = hoodsnap("explain", HEALTHY)

    assert both.returncode == 0
    assert both.stdout.splitlines()[1:] == whole.stdout.splitlines()[1:]


def test_json_is_the_published_contract(broken: Path, host: RecordedHost) -> None:
    done = hoodsnap("explain", broken, "--format", "json")

    report = json.loads(done.stdout)
    assert list(report) == [
        *("format", "findings", "doubts", "skips", "not_collected", "guests", "hosts"),
    ]
    assert report["format"] == 3
    [finding] = report["findings"]
    asked = host.last("libvirt", f"virsh domstate --reason {host.domain('vm-plain')}")
    assert finding["check"] == "active-but-domain-off"
    assert finding["severity"] == "error"
    assert (finding["host"], finding["guest"]) == ("vm", host.uuid("vm-plain"))
    assert (
        finding["message"] == "nova reports the server as active or paused, but its guest is off."
    )
    assert [(one["layer"], one["said"]) for one in finding["evidence"]] == [
        ("nova-db", {"vm_state": "active"}),
        ("libvirt", {"state": "shut off (crashed)"}),
    ]
    assert finding["evidence"][1]["where"] == [
        {
            "host": "vm",
            "query": asked.query,
            "at": asked.at.isoformat().replace("+00:00", "Z"),
            "place": "state",
        }
    ]
    assert set(finding) == {
        "check", "severity", "host", "guest", "server", "message", "headline", "evidence",
        "location", "fingerprint", "why", "next", "not_yet", "forbids", "worst", "shared", "folded",
    }  # fmt: skip
    assert set(report["skips"][0]) == {"check", "host", "guest", "reason", "legal"}
    assert set(report["guests"][0]) == {
        "uuid", "name", "host", "layers", "moving", "not_yet",
    }  # fmt: skip


def test_the_same_bundle_gives_the_same_report() -> None:
    """Python orders sets by hashes that differ from process to process."""
    hidden = FAULTS / "instances-hidden.json.zst"
    once = process("explain", hidden, "--format", "json", PYTHONHASHSEED="1")
    again = process("explain", hidden, "--format", "json", PYTHONHASHSEED="2")

    assert once.stdout == again.stdout


def test_no_color_in_a_pipe_or_with_no_color(broken: Path) -> None:
    assert b"\x1b" not in hoodsnap("explain", broken).stdout
    assert b"\x1b" not in hoodsnap("explain", broken, NO_COLOR="1", FORCE_COLOR="").stdout


def test_color_on_request(broken: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    done = subprocess.run(
        [sys.executable, "-m", "hoodsnap", "explain", str(broken)],
        capture_output=True,
        env=environment | {"FORCE_COLOR": "1", "TERM": "xterm"},
    )

    assert b"\x1b[1;31m" in done.stdout


def test_a_closed_pipe_is_not_an_error() -> None:
    command = f"{sys.executable} -m hoodsnap explain --verbose {HEALTHY} | head -n 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True)

    assert done.stderr == b""


def test_version() -> None:
    assert hoodsnap("--version").stdout.startswith(b"hoodsnap 0.")


def test_explain_needs_a_bundle() -> None:
    assert hoodsnap("explain").returncode == 2


def test_an_unwritable_output_is_one_sentence(tmp_path: Path) -> None:
    done = hoodsnap(
        "collect", "-o", tmp_path / "no" / "where.json",
        "--libvirt-uri", f"qemu+unix:///system?socket={tmp_path}/none",
        OS_CLOUD="", OS_AUTH_URL="", HOME=str(tmp_path),
    )  # fmt: skip

    assert done.returncode == 3
    last = done.stderr.splitlines()[-1]
    assert (
        last
        == f"hoodsnap: {tmp_path}/no/where.json can't be written: No such file or directory".encode()
    )


def test_the_demo_explains_and_replays(tmp_path: Path) -> None:
    """On a host with Nova or libvirt the demo collects it; elsewhere it uses the recording."""
    command = [sys.executable, "-m", "hoodsnap", "demo"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode == 0
    assert done.stdout.startswith("host ")
    program = f"{sys.executable} -m hoodsnap"
    assert f"hoodsnap: to print this report again: {program} explain " in done.stderr
    replayed = f"hoodsnap: the recording answers real clients: {program} replay "
    assert (replayed in done.stderr) == any(map(shutil.which, ("virsh", "pgrep")))
    assert "defect" not in done.stderr


def test_a_bundle_that_may_not_be_read_is_named_like_a_missing_one(tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_bytes(b"{}")
    secret.chmod(0)
    # Root without its capabilities may not read it either.
    ordinary = [] if os.geteuid() else ["setpriv", "--bounding-set=-all"]
    command = [*ordinary, sys.executable, "-m", "hoodsnap", "explain", str(secret)]

    done = subprocess.run(command, capture_output=True)

    assert done.returncode == 3
    assert done.stderr == f"hoodsnap: {secret} can't be read: Permission denied\n".encode()


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ("explain /no/such/bundle.json", 3),
        ("explain", 2),
        ("explain @demo --format pdf", 2),
        ("check @demo/virsh-destroy", 1),
        ("redact @demo -o /dev/null", 0),
    ],
)
@pytest.mark.parametrize("stream", ["2>/dev/full", "2>&-"])
def test_a_full_or_closed_standard_error_changes_no_exit_status(
    arguments: str, status: int, stream: str, tmp_path: Path
) -> None:
    command = f"{sys.executable} -m hoodsnap {arguments} >/dev/null {stream}"

    assert subprocess.run(["sh", "-c", command], cwd=tmp_path).returncode == status
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stream", [">/dev/full", ">&-"])
@pytest.mark.parametrize("command", ["explain @demo", "checks", "help", "demo --list", "version"])
def test_a_full_or_closed_standard_output_is_no_defect(
    command: str, stream: str, tmp_path: Path
) -> None:
    line = f"{sys.executable} -m hoodsnap {command} {stream}"

    done = subprocess.run(["sh", "-c", line], cwd=tmp_path, stderr=subprocess.PIPE, text=True)

    assert "defect" not in done.stderr
    assert done.returncode == (3 if "full" in stream else 0)
    assert not list(tmp_path.iterdir())
