from __future__ import annotations

import socket
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import pytest

from hoodsnap.collect import libvirt_client as module
from hoodsnap.collect.libvirt_client import LibvirtClient, binding, remote_host
from hoodsnap.collect.recorder import Recorder


@pytest.fixture
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("libvirt", "libvirtmod", "libvirt_qemu", "libvirtmod_qemu"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def kind(recorder: Recorder) -> str | None:
    error = recorder.answers[-1].error
    return error.kind if error else None


def test_the_binding_of_the_distribution_is_found_from_a_virtual_environment(
    nothing_loaded: None,
) -> None:
    folder = next((at for at in module.DISTRIBUTION_FOLDERS if (at / "libvirt.py").exists()), None)
    if folder is None or not (folder / f"libvirtmod{EXTENSION_SUFFIXES[0]}").exists():
        pytest.skip("the distribution has no libvirt-python for this version of Python")
    path = list(sys.path)

    assert binding().getVersion() > 0
    assert hasattr(binding("libvirt_qemu"), "qemuMonitorCommand")
    assert sys.path == path
    assert "nova" not in sys.modules


@pytest.mark.parametrize("suffix", [".cpython-39-x86_64-linux-gnu.so", ".so"])
def test_a_binding_for_another_python_is_not_loaded(
    suffix: str, tmp_path: Path, nothing_loaded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "libvirt.py").write_text("raise AssertionError('it was loaded')")
    (tmp_path / f"libvirtmod{suffix}").write_bytes(b"\x7fELF")
    monkeypatch.setattr(module, "DISTRIBUTION_FOLDERS", (tmp_path,))
    monkeypatch.setitem(sys.modules, "libvirt", None)
    recorder = Recorder("here")

    LibvirtClient(recorder).ask("virsh uri", lambda connection: connection.getURI())

    error = recorder.answers[0].error
    assert error is not None
    assert error.kind == "missing"
    assert "apt-get install python3-libvirt" in error.message


def test_a_binding_that_does_not_load_leaves_nothing_behind(
    tmp_path: Path, nothing_loaded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "libvirt.py").write_text("")
    (tmp_path / f"libvirtmod{EXTENSION_SUFFIXES[0]}").write_bytes(b"no library")
    monkeypatch.setattr(module, "DISTRIBUTION_FOLDERS", (tmp_path,))

    monkeypatch.setitem(sys.modules, "libvirt", None)

    with pytest.raises(ImportError, match="libvirtmod"):
        binding()
    assert "libvirtmod" not in sys.modules


@pytest.mark.parametrize(
    ("uri", "host"),
    [
        ("qemu:///system", None),
        ("qemu+unix:///system?socket=/var/lib/docker/run/libvirt-sock", None),
        ("qemu+tcp://localhost/system", None),
        ("qemu+tcp://127.0.0.1:16509/system", None),
        ("qemu+tcp://[::1]/system", None),
        ("qemu+ssh://root@compute-7/system", "compute-7"),
        ("qemu+tls://[fd00::7]:16514/system", "fd00::7"),
        ("test:///default", None),
        ("qemu+tcp://[broken/system", None),
    ],
)
def test_the_remote_host_of_a_uri_is_recognized(uri: str, host: str | None) -> None:
    assert remote_host(uri) == host


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("qemu+unix:///system?socket=/nowhere", "unreachable"),
        ("qemu+tcp://127.0.0.1:1/system", "unreachable"),
        ("nonsense:///system", "unreachable"),
    ],
)
def test_a_missing_daemon_is_unreachable(uri: str, expected: str, libvirt: Any) -> None:
    recorder = Recorder("here")

    LibvirtClient(recorder, uri).ask("virsh uri", lambda connection: connection.getURI())

    assert kind(recorder) == expected


def test_errors_of_libvirt_are_distinguished(libvirt: Any) -> None:
    recorder = Recorder("here")
    daemon = LibvirtClient(recorder, "test:///default")

    daemon.ask("virsh suspend test", lambda connection: connection.lookupByName("test").suspend())
    assert kind(recorder) == "denied"
    daemon.ask("virsh dumpxml x", lambda connection: connection.lookupByName("x"))
    assert kind(recorder) == "absent"
    daemon.ask("virsh net-info x", lambda connection: connection.networkLookupByName("x"))
    assert kind(recorder) == "absent"
    daemon.ask("virsh domjobinfo", lambda connection: connection.lookupByName("test").jobStats())
    assert kind(recorder) == "missing"
    daemon.ask("virsh uri", lambda connection: connection.getURI())
    assert recorder.answers[-1].value == "test:///default"


def test_an_unreachable_daemon_is_not_tried_again_until_the_next_look(
    libvirt: Any, libvirtd: Any
) -> None:
    recorder = Recorder("here")
    daemon = LibvirtClient(recorder, libvirtd.uri)
    libvirtd.stop()
    try:
        daemon.ask("virsh uri", lambda connection: connection.getURI())
    finally:
        libvirtd.start()
    daemon.ask("virsh uri", lambda connection: connection.getURI())
    daemon.look_again()
    daemon.ask("virsh uri", lambda connection: connection.getURI())

    assert [answer.error.kind if answer.error else None for answer in recorder.answers] == [
        "unreachable",
        "unreachable",
        None,
    ]


def test_a_restarted_daemon_is_reconnected(libvirtd: Any) -> None:
    recorder = Recorder("here")
    daemon = LibvirtClient(recorder, libvirtd.uri)
    daemon.ask("virsh uri", lambda connection: connection.getURI())
    libvirtd.stop()
    libvirtd.start()
    for _ in range(2):
        daemon.ask("virsh version", lambda connection: connection.getLibVersion())

    kinds = [answer.error.kind if answer.error else None for answer in recorder.answers]
    assert kinds == [None, "unreachable", None]


def test_a_frozen_daemon_is_waited_for_only_once(
    libvirtd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    recorder = Recorder("here")
    daemon = LibvirtClient(recorder, libvirtd.uri)
    with libvirtd.frozen():
        for _ in range(20):
            daemon.ask("virsh uri", lambda connection: connection.getLibVersion())

    assert {answer.error.kind for answer in recorder.answers if answer.error} == {"timeout"}
    assert len(recorder.answers) == 20
    assert sum(answer.took for answer in recorder.answers) < 2


def test_answers_of_a_remote_daemon_name_its_host(libvirtd: Any) -> None:
    recorder = Recorder("here")

    LibvirtClient(recorder, libvirtd.remote_uri).ask("virsh hostname", lambda it: it.getHostname())

    (answer,) = recorder.answers
    assert answer.value == answer.host == socket.gethostname()


def test_an_unreachable_remote_host_has_the_name_in_its_uri(libvirt: Any) -> None:
    recorder = Recorder("here")

    LibvirtClient(recorder, "qemu+tcp://127.0.0.9:1/system").ask(
        "virsh uri", lambda it: it.getURI()
    )

    (answer,) = recorder.answers
    assert (answer.host, kind(recorder)) == ("127.0.0.9", "unreachable")
