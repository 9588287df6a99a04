"""A libvirtd of the tests' own, beside the host's, whose guests may be frozen and tainted."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.collect.small_cloud import small as small

from hoodsnap.collect.libvirt_client import binding
from hoodsnap.collect.recorder import RefusedError

NOBODY = 65534

TCP = "127.0.0.3"
"""Loopback address that hoodsnap does not count as this host."""

GUEST = """
<domain type='qemu'>
  <name>{name}</name>
  <memory>16384</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    {devices}
    <graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1' passwd='{password}'/>
  </devices>
</domain>
"""

VNC_PASSWORD = "sesame42"  # noqa: S105 (planted, and searched for)


class PrivateLibvirtd:
    """Session daemon in its own folder, under its own account if root runs the tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = f"qemu+unix:///session?socket={folder}/run/libvirt/libvirt-sock"
        with socket.create_server((TCP, 0)) as probe:
            port = probe.getsockname()[1]
        self.remote_uri = f"qemu+tcp://{TCP}:{port}/session"
        (folder / "config/libvirt").mkdir(parents=True)
        # Otherwise libvirtd starts a virtlogd, which would outlive it.
        (folder / "config/libvirt/qemu.conf").write_text('stdio_handler = "file"\n')
        (folder / "libvirtd.conf").write_text(
            f'listen_tls = 0\nlisten_tcp = 1\nauth_tcp = "none"\nlog_level = 4\n'
            f'listen_addr = "{TCP}"\ntcp_port = "{port}"\n'
        )
        for name in ("run", "cache", "home", "disks"):
            (folder / name).mkdir()
        self._become: list[str] = []
        if os.getuid() == 0:
            # Without access to /dev/kvm, libvirt probes QEMU again for each guest.
            kvm = os.stat("/dev/kvm").st_gid if os.path.exists("/dev/kvm") else NOBODY
            self._become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", f"--groups={kvm}"]
            for path in (folder, *folder.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
        self.start()

    def start(self) -> None:
        listening = self.folder / "run/libvirt/libvirt-sock"
        listening.unlink(missing_ok=True)
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": f"{self.folder}/home",
            "XDG_RUNTIME_DIR": f"{self.folder}/run",
            "XDG_CONFIG_HOME": f"{self.folder}/config",
            "XDG_CACHE_HOME": f"{self.folder}/cache",
        }
        self._process = subprocess.Popen(
            [*self._become, "libvirtd", "--listen", "--config", f"{self.folder}/libvirtd.conf"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(lambda: listening.exists() and self.connection().getLibVersion() > 0)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=20)

    def connection(self) -> Any:
        return binding().open(self.uri)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        with stopped(self._process.pid):
            yield

    @contextmanager
    def guest(self, name: str, devices: str = "") -> Iterator[Any]:
        """Start a transient domain whose vCPU stays paused."""
        xml = GUEST.format(name=name, devices=devices, password=VNC_PASSWORD)
        paused = binding().VIR_DOMAIN_START_PAUSED
        domain = self.connection().createXML(xml, paused)
        try:
            yield domain
        finally:
            if self._pid_file(name).exists():
                self.connection().lookupByName(name).destroy()

    def disk(self, name: str) -> Path:
        """Make an empty qcow2 file that a guest may use."""
        path = self.folder / f"disks/{name}.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1M"], check=True)
        if os.getuid() == 0:
            os.chown(path, NOBODY, NOBODY)
        return path

    def qemu(self, name: str) -> int:
        """Return the PID of a guest's QEMU."""
        return int(self._pid_file(name).read_text())

    def _pid_file(self, name: str) -> Path:
        return self.folder / f"run/libvirt/qemu/run/{name}.pid"


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Freeze a process within this context."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def closed_folder() -> Path:
    """Make a folder in a path that no other account can write to, unlike /tmp."""
    home = Path(pwd.getpwuid(os.geteuid()).pw_dir)
    folder = Path(tempfile.mkdtemp(prefix="hs-", dir=home))
    folder.chmod(0o755)
    return folder


@pytest.fixture
def closed() -> Iterator[Path]:
    """Folder in a path that no other account can write to."""
    folder = closed_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def until(there: Callable[[], object], patience: float = 20.0) -> None:
    """Wait until `there` returns a true value; errors until then are ignored."""
    end = time.monotonic() + patience
    while True:
        try:
            if there():
                return
        except Exception:  # what is missing may still appear
            if time.monotonic() > end:
                raise
        assert time.monotonic() < end, "it did not appear in time"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def _libvirt_module() -> Any:
    try:
        return binding()
    except RefusedError as refusal:
        pytest.skip(str(refusal))


@pytest.fixture
def libvirt(_libvirt_module: Any) -> Any:
    """Return libvirt-python, whose `test:///default` needs no daemon."""
    return _libvirt_module


@pytest.fixture(scope="session")
def libvirtd(_libvirt_module: Any) -> Iterator[PrivateLibvirtd]:
    """Real libvirtd without guests."""
    for program in ("libvirtd", "qemu-system-x86_64", "qemu-img", "setpriv"):
        if shutil.which(program, path="/usr/sbin:/usr/bin") is None:
            pytest.skip(f"{program} is not installed")
    folder = Path(tempfile.mkdtemp(prefix="hs-"))
    folder.chmod(0o755)
    daemon = PrivateLibvirtd(folder)
    try:
        yield daemon
    finally:
        daemon.stop()
        shutil.rmtree(folder)
