"""A guest with network disks is not asked questions that make QEMU wait for the network."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.collect.conftest import until
from tests.conftest import MONITORS, RecordedHost

from hoodsnap.bundle import Failure, load
from hoodsnap.collect import storage
from hoodsnap.collect.domain import Domains, SeenDomain, remote
from hoodsnap.collect.monitor import Query, ask_monitors, ask_sockets
from hoodsnap.collect.recorder import Recorder
from hoodsnap.collect.storage import obstacle
from hoodsnap.facts.process.command_line import CommandLine, read_command_line
from hoodsnap.findings.analysis import analyze

RBD = {"driver": "rbd", "pool": "vms", "image": "x_disk", "node-name": "libvirt-1-storage"}


def argv(*words: str) -> list[tuple[int | None, CommandLine]]:
    return [(None, read_command_line(("qemu-system-x86_64", *words)))]


def disk(kind: str, source: str, below: str = "") -> str:
    return f"<disk type='{kind}'><source {source}/><target dev='vda'/>{below}</disk>"


def document(*disks: str) -> str:
    return f"<domain><devices>{''.join(disks)}</devices></domain>"


@pytest.mark.parametrize(
    ("xml", "protocols"),
    [
        (document(disk("file", "file='/i/disk'"), disk("block", "dev='/dev/sdb'")), set()),
        (document(disk("network", "protocol='rbd' name='vms/x_disk'")), {"rbd"}),
        (document(disk("network", "protocol='nbd'"), disk("file", "file='/x'")), {"nbd"}),
        (document(disk("volume", "pool='p' volume='v'")), {"volume"}),
        (document(disk("vhostuser", "path='/s'")), {"vhostuser"}),
        (
            document(
                disk(
                    "file",
                    "file='/i/disk'",
                    "<backingStore type='network'><source protocol='https'/></backingStore>",
                )
            ),
            {"https"},
        ),
        (
            document(
                disk(
                    "file", "file='/i'", "<mirror type='network'><source protocol='nbd'/></mirror>"
                )
            ),
            {"nbd"},
        ),
    ],
)
def test_network_disks_are_found_in_a_definition(xml: str, protocols: set[str]) -> None:
    assert remote(xml) == protocols


@pytest.mark.parametrize(
    "words",
    [
        ("-blockdev", json.dumps(RBD)),
        ("-drive", "file=rbd:vms/x_disk:id=cinder,format=raw,id=d"),
        ("-drive", "file.driver=nbd,file.host=192.0.2.1,id=d"),
        ("-drive", 'file=json:{"driver":"rbd","pool":"vms","image":"x"},id=d'),
        ("-hda", "nbd://192.0.2.1/x"),
        ("-drive", "file=iscsi://192.0.2.1/iqn/0,if=none,id=d", "-device", "scsi-generic,drive=d"),
    ],
)
def test_network_disks_are_found_on_a_command_line(words: tuple[str, ...]) -> None:
    refusal = obstacle(None, argv(*words))

    assert refusal is not None
    assert refusal.kind == "denied"
    assert str(refusal).startswith("not asked: the guest has a network disk (")


def test_a_guest_with_only_local_files_is_asked(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"raw")
    seen = SeenDomain("u", "instance-1", 1, {str(tmp_path / "disk"): "raw", "/gone": None})

    assert obstacle(seen, argv("-drive", f"file={tmp_path}/disk,format=raw")) is None
    assert obstacle(None, [(os.getpid(), argv()[0][1])]) is None


def test_a_guest_without_a_collected_definition_is_not_asked() -> None:
    seen = SeenDomain("u", "instance-1", 1, {}, remote=None)

    assert "was not collected" in str(obstacle(seen, []))


def test_a_network_backing_file_is_found_in_the_image_header(tmp_path: Path) -> None:
    """Before libvirt 5.10 the command line names only the topmost image."""
    name = b"nbd://192.0.2.1/base"
    header = struct.pack(">4sIQI", b"QFI\xfb", 2, 72, len(name)) + bytes(52) + name
    (tmp_path / "disk").write_bytes(header)

    refusal = obstacle(None, argv("-drive", f"file={tmp_path}/disk,format=qcow2"))

    assert "a network disk (nbd)" in str(refusal)


def test_hanging_files_are_found_before_qemu_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A `stat` that returns only when the test ends stands for a dead NFS server."""
    dead = threading.Event()
    monkeypatch.setattr(storage, "LOOK", 0.2)
    monkeypatch.setattr(storage, "_stat", lambda path: dead.wait(30))

    refusal = obstacle(SeenDomain("u", "instance-1", 1, {"/nfs/disk": "raw"}), [])
    dead.set()

    assert "stat on the guest's disk files took more than 0.2 s" in str(refusal)


@contextmanager
def frozen_nbd(path: Path) -> Iterator[list[bytes]]:
    """Run an NBD server that exports an image, but answers no read."""
    server = socket.create_server(str(path), family=socket.AF_UNIX)
    requests: list[bytes] = []

    def serve() -> None:
        with server.accept()[0] as connection:
            connection.sendall(b"NBDMAGIC" + struct.pack(">QQQ", 0x420281861253, 1 << 20, 0))
            connection.sendall(bytes(120))
            while received := connection.recv(4096):
                requests.append(received)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield requests
    finally:
        server.close()


def test_a_real_qemu_is_not_asked_about_its_network_disk() -> None:
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    with tempfile.TemporaryDirectory(prefix="hs-") as name:
        folder = Path(name)
        with frozen_nbd(folder / "nbd"), _qemu(folder) as (process, words):
            recorder = Recorder("here")
            sent: list[str] = []
            guests = [(process.pid, read_command_line(words))]
            _spy(folder / "qmp", folder / "seen", sent)
            ask_sockets(recorder, {"u": f"{folder}/seen"}, lambda uuid: obstacle(None, guests))

    refused = [answer for answer in recorder.answers if answer.error and answer.query in _asked()]
    commands = " ".join(sent)
    assert '"query-status"' in commands
    assert '"query-block"' not in commands
    assert '"query-named-block-nodes"' not in commands
    answers = {answer.query.rpartition(": ")[2]: answer for answer in recorder.answers}
    for query in ("query-block", "query-named-block-nodes flat=true"):
        error = answers[query].error
        assert error is not None
        assert (error.kind, error.message[:10]) == ("denied", "not asked:")
    assert answers["query-blockstats"].error is None
    assert refused == []


def _asked() -> set[str]:
    return {query.value for query in Query}


@contextmanager
def _qemu(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], list[str]]]:
    words = ["qemu-system-x86_64", "-machine", "none", "-S", "-display", "none"]
    words += ["-drive", f"file=nbd:unix:{folder}/nbd,format=raw,if=none,id=d"]
    words += ["-qmp", f"unix:{folder}/qmp,server=on,wait=off"]
    process = subprocess.Popen(words)
    try:
        until((folder / "qmp").exists)
        yield process, words
    finally:
        process.kill()
        process.wait()


def _spy(monitor: Path, path: Path, sent: list[str]) -> None:
    """Forward between a client and a monitor, and add what the client sends to `sent`."""
    server = socket.create_server(str(path), family=socket.AF_UNIX)

    def forward(source: socket.socket, target: socket.socket, keep: bool) -> None:
        while data := source.recv(65536):
            if keep:
                sent.append(data.decode())
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with server.accept()[0] as client, socket.socket(socket.AF_UNIX) as qemu:
            qemu.connect(str(monitor))
            back = threading.Thread(target=partial(forward, qemu, client, False), daemon=True)
            back.start()
            forward(client, qemu, True)
            back.join(timeout=5)
        server.close()

    threading.Thread(target=serve, daemon=True).start()


def test_libvirt_is_not_asked_about_a_network_disk(libvirtd: Any) -> None:
    recorder = Recorder("here")
    with libvirtd.guest("instance-1"):
        domains = Domains(Recorder("here"), libvirtd.uri)
        seen = [
            dataclasses.replace(domain, remote=frozenset(["rbd"]))
            for domain in domains.ask_about(domains.look() or ())
        ]
        ask_monitors(recorder, seen, libvirtd.uri)

    kinds = dict(
        zip(Query, [answer.error and answer.error.kind for answer in recorder.answers], strict=True)
    )
    assert {query for query, kind in kinds.items() if kind == "denied"} == {
        Query.BLOCK,
        Query.NAMED_BLOCK_NODES,
    }
    assert set(kinds.values()) == {None, "denied"}


def test_a_question_that_was_not_asked_does_not_mean_qemu_is_dead() -> None:
    host = RecordedHost(load(MONITORS))
    before = _names(host)
    kind, message = "denied", "not asked: the guest has a network disk (rbd), and …"
    answers = []
    for answer in host.bundle.answers:
        if answer.layer == "qemu" and any(
            f'"{query}"' in answer.query for query in (Query.BLOCK, Query.NAMED_BLOCK_NODES)
        ):
            raw: dict[str, Any] = answer.model_dump(exclude={"value", "error"})
            answer = type(answer)(**raw, error=Failure(kind=kind, message=message))
        answers.append(answer)
    host.bundle = host.bundle.model_copy(update={"answers": tuple(answers)})

    assert "qemu-monitor-dead" not in _names(host)
    assert _names(host) <= before


def _names(host: RecordedHost) -> set[str]:
    return {finding.check.name for finding in analyze(host.bundle).findings}
