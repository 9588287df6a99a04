from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.collect.conftest import VNC_PASSWORD, stopped, until

from hoodsnap.collect import libvirt_client as daemon_module
from hoodsnap.collect import monitor as module
from hoodsnap.collect.domain import Domains, SeenDomain
from hoodsnap.collect.monitor import Query, ask_monitors, ask_sockets
from hoodsnap.collect.recorder import Recorder


@pytest.fixture
def folder() -> Iterator[Path]:
    """Folder with a short path: the path of a socket may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="hs-") as path:
        yield Path(path)


@pytest.fixture
def qemu(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """QEMU whose monitor has no client."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    path = folder / "qmp"
    options = ["-machine", "none", "-S", "-display", "none", "-name", "free"]
    monitor = ["-qmp", f"unix:{path},server=on,wait=off"]
    process = subprocess.Popen(["qemu-system-x86_64", *options, *monitor])
    try:
        until(path.exists)
        yield process
    finally:
        process.kill()
        process.wait()


def seen(uri: str) -> list[SeenDomain]:
    domains = Domains(Recorder("here"), uri)
    return domains.ask_about(domains.look() or ())


def kinds(recorder: Recorder) -> list[str | None]:
    return [answer.error.kind if answer.error else None for answer in recorder.answers]


def test_only_queries_can_be_sent() -> None:
    assert all(query.value.startswith("query-") for query in Query)


def test_each_active_guest_is_asked_through_libvirt(libvirtd: Any) -> None:
    recorder = Recorder("here")
    with libvirtd.guest("instance-1") as domain:
        uuid = domain.UUIDString()
        domains = [*seen(libvirtd.uri), SeenDomain("u", "off", None, {})]
        ask_monitors(recorder, domains, libvirtd.uri)

    command = "virsh qemu-monitor-command instance-1"
    asked = [answer.query for answer in recorder.answers]
    assert len(asked) == len(Query)
    assert asked[0] == command + """ '{"execute": "query-status"}'"""
    flat = '{"execute": "query-named-block-nodes", "arguments": {"flat": true}}'
    assert f"{command} '{flat}'" in asked
    assert {(answer.layer, answer.subject) for answer in recorder.answers} == {("qemu", uuid)}
    assert kinds(recorder) == [None] * len(Query)
    values = dict(zip(Query, (answer.value for answer in recorder.answers), strict=True))
    assert values[Query.STATUS]["running"] is False
    assert values[Query.UUID] == {"UUID": uuid}
    assert values[Query.NAME] == {"name": "instance-1"}
    assert values[Query.VNC]["auth"] == "vnc"
    assert VNC_PASSWORD not in json.dumps(values)


def test_only_domains_asked_through_their_monitors_are_tainted(libvirtd: Any) -> None:
    with libvirtd.guest("asked") as asked, libvirtd.guest("spared") as spared:
        before = asked.messages()
        domains = [domain for domain in seen(libvirtd.uri) if domain.name == "asked"]
        ask_monitors(Recorder("here"), domains, libvirtd.uri)

        assert not any("monitor" in message for message in before + spared.messages())
        assert any("custom monitor control" in message for message in asked.messages())


def test_a_frozen_guest_costs_one_timeout_and_other_guests_answer(
    libvirtd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "DOMAIN_PATIENCE", 0.5)
    recorder = Recorder("here")
    with libvirtd.guest("a-frozen"), libvirtd.guest("b-awake"):
        domains = seen(libvirtd.uri)
        with stopped(libvirtd.qemu("a-frozen")):
            ask_monitors(recorder, domains, libvirtd.uri)

    assert kinds(recorder) == ["timeout"] * len(Query) + [None] * len(Query)
    assert recorder.answers[0].took > 0.4
    waited = recorder.answers[0].took
    assert all(answer.took < waited for answer in recorder.answers[1 : len(Query)])


def test_a_free_monitor_is_asked_directly(folder: Path, qemu: subprocess.Popen[bytes]) -> None:
    recorder = Recorder("here")
    path = f"{folder}/qmp"

    ask_sockets(recorder, {str(qemu.pid): path})
    ask_sockets(recorder, {str(qemu.pid): path})  # the monitor is free again

    assert len(recorder.answers) == 2 * len(Query)
    values = dict(zip(Query, recorder.answers[len(Query) :], strict=True))
    assert values[Query.STATUS].query == f"qmp-shell {path}: query-status"
    assert values[Query.STATUS].subject == str(qemu.pid)
    assert values[Query.STATUS].value["status"] == "prelaunch"
    assert values[Query.NAME].value == {"name": "free"}
    nodes = values[Query.NAMED_BLOCK_NODES]
    assert (nodes.query, nodes.value) == (
        f"qmp-shell {path}: query-named-block-nodes flat=true",
        [],
    )
    balloon = values[Query.BALLOON].error
    assert balloon is not None
    assert balloon.kind == "absent"
    assert kinds(recorder).count("absent") == 2
    assert set(kinds(recorder)) == {None, "absent"}
    assert qemu.poll() is None


def test_a_monitor_with_another_client_costs_one_timeout(
    folder: Path, qemu: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    recorder = Recorder("here")
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(f"{folder}/qmp")
        assert b"QMP" in other.recv(4096)
        start = time.monotonic()
        ask_sockets(recorder, {"1": f"{folder}/qmp"})
        took = time.monotonic() - start

    assert kinds(recorder) == ["timeout"] * len(Query)
    assert took < len(Query) * 0.5  # the time that a timeout for each query would take


def test_a_frozen_qemu_costs_one_timeout(
    folder: Path, qemu: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    recorder = Recorder("here")
    with stopped(qemu.pid):
        ask_sockets(recorder, {"1": f"{folder}/qmp"})

    assert kinds(recorder) == ["timeout"] * len(Query)
    assert sum(answer.took for answer in recorder.answers) < 1


def test_a_socket_without_qemu_is_unreachable(folder: Path) -> None:
    recorder = Recorder("here")
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(f"{folder}/closed")
    ask_sockets(recorder, {"1": f"{folder}/nothing", "2": f"{folder}/closed"})

    assert kinds(recorder) == ["unreachable"] * 2 * len(Query)


@pytest.mark.skipif(os.getuid() == 0, reason="root may connect to any socket")
def test_a_socket_without_permission_is_denied(folder: Path) -> None:
    recorder = Recorder("here")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"{folder}/other")
        os.chmod(f"{folder}/other", 0)
        ask_sockets(recorder, {"1": f"{folder}/other"})

    assert set(kinds(recorder)) == {"denied"}


@contextmanager
def old_qemu(path: Path, *, answers: int) -> Iterator[None]:
    """Run a server that speaks QMP like QEMU 4.2 and disconnects after some answers."""
    server = socket.create_server(str(path), family=socket.AF_UNIX)

    def serve() -> None:
        version = {"qemu": {"micro": 0, "minor": 2, "major": 4}, "package": ""}
        reply: Any = {"QMP": {"version": version, "capabilities": []}}
        with server.accept()[0] as connection:
            connection.sendall(json.dumps(reply).encode() + b"\r\n")
            for _ in range(answers + 1):  # one more for the negotiation
                received = connection.recv(4096)
                if not received:
                    return
                message = json.loads(received)
                reply = {"return": {"asked": message["execute"]}}
                if "flat" in message.get("arguments", {}):
                    error = {"class": "GenericError", "desc": "Parameter 'flat' is unexpected"}
                    reply = {"error": error}
                if "id" in message:
                    reply["id"] = message["id"]
                connection.sendall(json.dumps(reply).encode() + b"\r\n")

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        thread.join(timeout=5)
        server.close()


def test_an_old_qemu_is_asked_for_its_block_nodes_without_flat(folder: Path) -> None:
    recorder = Recorder("here")
    with old_qemu(folder / "old", answers=100):
        ask_sockets(recorder, {"1": f"{folder}/old"})

    nodes = [answer for answer in recorder.answers if Query.NAMED_BLOCK_NODES in answer.query]
    refused, accepted = nodes
    assert refused.error is not None
    assert refused.error.kind == "failed"
    assert accepted.query == f"qmp-shell {folder}/old: query-named-block-nodes"
    assert accepted.value == {"asked": "query-named-block-nodes"}


def test_answers_before_a_disconnect_are_kept(folder: Path) -> None:
    recorder = Recorder("here")
    with old_qemu(folder / "old", answers=3):
        ask_sockets(recorder, {"1": f"{folder}/old"})

    assert kinds(recorder) == [None] * 3 + ["unreachable"] * (len(Query) - 3)


def test_each_query_fails_as_missing_without_libvirt_python(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(daemon_module, "DISTRIBUTION_FOLDERS", ())
    monkeypatch.setitem(sys.modules, "libvirt", None)
    recorder = Recorder("here")

    ask_monitors(recorder, [SeenDomain("u", "instance-1", 1, {})])

    assert kinds(recorder) == ["missing"] * len(Query)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as two accounts")
def test_a_socket_of_an_ordinary_account_is_not_connected_to(folder: Path) -> None:
    folder.chmod(0o755)
    path = folder / "theirs"
    recorder = Recorder("here")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(0.1)
        os.chown(path, 4242, 4242)
        (folder / "link").symlink_to(path)
        sockets = {"1": str(path), "2": "relative", "3": str(folder / "link"), "4": "/etc/hostname"}
        ask_sockets(recorder, sockets)

        with pytest.raises(TimeoutError):
            listener.accept()

    kinds = {answer.error.kind for answer in recorder.answers if answer.error}
    assert kinds == {"denied"}
    assert all(answer.error for answer in recorder.answers)
