"""Whatever freezes while it is asked, a collection ends, and keeps everything else.

The servers are the stand-ins of a recording. A proxy in front of each passes a number of bytes and
then nothing more, like a stopped process: its sockets stay open, and swallow what is sent.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import HEALTHY

from hoodsnap.bundle import Bundle, load
from hoodsnap.replay import stage
from hoodsnap.replay.apis import http_server
from hoodsnap.replay.apis.openstack import OpenStack
from hoodsnap.replay.recording import Recording, hosts

COLLECTS = """
import sys
from hoodsnap.collect import patience, recorder

patience.WORN, patience.OVERTIME = 0.1, 1.0
recorder.Patience = lambda: patience.Patience(8.0)

from hoodsnap.cli import start

sys.argv = ["hoodsnap", "collect", *sys.argv[1:]]
start()
"""
"""`hoodsnap collect` with a third of its patience."""

LONGEST = 55.0
"""Seconds for a collection on a busy machine. Without the silence, it takes three."""

ENDLESS = 1 << 40


class Proxy:
    """Relay in front of a server, which passes `left` bytes of its answers."""

    def __init__(self, listener: socket.socket, connect: Callable[[], socket.socket]) -> None:
        self.left = ENDLESS
        self._listener, self._connect = listener, connect
        self._open: list[socket.socket] = []  # a frozen server closes nothing
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            server = self._connect()
            self._open += [client, server]
            for way in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._relay, args=way, daemon=True).start()

    def _relay(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                if is_answer:
                    self.left -= len(data)
                if self.left > 0:
                    target.sendall(data)
            if self.left > 0:
                target.shutdown(socket.SHUT_WR)


def _at(path: Path) -> Callable[[], socket.socket]:
    def connect() -> socket.socket:
        found = socket.socket(socket.AF_UNIX)
        found.connect(str(path))
        return found

    return connect


class Servers:
    """Stand-ins of the healthy recording: libvirtd, the database and the APIs."""

    def __init__(self, folder: Path) -> None:
        bundle = load(HEALTHY)
        recording = Recording(bundle, hosts(bundle)[0])
        (folder / "behind").mkdir()
        listeners = stage.listen(recording, folder / "behind", ports=False)
        stage.answer(recording, listeners, print)
        api: Any = http_server.server(recording, socket.create_server(("127.0.0.1", 0)), None)
        threading.Thread(target=api.serve_forever, daemon=True).start()
        front = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = front.getsockname()[1]
        # The catalog leads to the proxy.
        api.door = http_server.Door(self.port, None)
        api.stand_in = OpenStack(recording, f"http://127.0.0.1:{self.port}")
        # The stand-ins load while they listen; a real server is up long before it is asked.
        with _at(folder / "behind/mysqld/mysqld.sock")() as greeted:
            assert greeted.recv(1)
        self.folder = folder
        self.proxies = {
            "libvirt": self._front("libvirt", folder / "behind/libvirt/libvirt-sock"),
            "nova-db": self._front("nova-db", folder / "behind/mysqld/mysqld.sock"),
            "nova": Proxy(front, lambda: socket.create_connection(api.server_address[:2])),
        }

    def _front(self, name: str, behind: Path) -> Proxy:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.folder / name))
        listener.listen(128)
        return Proxy(listener, _at(behind))

    def collect(self, output: Path) -> tuple[int, float, str]:
        """Collect; return the exit status, the seconds it took, and what it printed."""
        cloud = stage.CLOUD | {"OS_AUTH_URL": f"http://127.0.0.1:{self.port}/v3"}
        command = [sys.executable, "-c", COLLECTS, "-o", str(output)]
        command += ["--libvirt-uri", f"qemu+unix:///system?socket={self.folder}/libvirt"]
        command += ["--db-url", f"mysql://root@localhost/nova?unix_socket={self.folder}/nova-db"]
        start = time.monotonic()
        done = subprocess.run(
            command,
            env=os.environ | cloud | {"OS_PASSWORD": "recorded"},
            stderr=subprocess.PIPE,
            timeout=3 * LONGEST,
        )
        return done.returncode, time.monotonic() - start, done.stderr.decode()


@pytest.fixture
def servers() -> Iterator[Servers]:
    # A socket's path may have 107 characters; pytest's own folders have more.
    with tempfile.TemporaryDirectory() as folder:
        yield Servers(Path(folder))


def heard(bundle: Bundle) -> set[str]:
    return {answer.layer for answer in bundle.answers if answer.error is None}


@pytest.mark.parametrize(
    ("frozen", "left"),
    [
        ("libvirt", 30_000),
        ("nova-db", 20_000),
        ("nova", 60_000),
        ("libvirt nova-db nova", 9_000),
    ],
)
def test_a_frozen_server_costs_only_its_own_answers(
    servers: Servers, frozen: str, left: int, tmp_path: Path, libvirt: object
) -> None:
    for name in frozen.split():
        servers.proxies[name].left = left

    status, took, said = servers.collect(tmp_path / "b.json")

    assert took < LONGEST, said
    assert status == 4, said
    assert {"nova", "nova-db", "libvirt", "kernel", "host"} - set(frozen.split()) <= heard(
        load(tmp_path / "b.json")
    )
    (line,) = (line for line in said.splitlines() if "the bundle lacks answers of" in line)
    assert all(name in line for name in frozen.split())
