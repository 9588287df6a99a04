"""Visit to the lab during an attack by an ordinary local account.

The account starts a process named nova-compute with its own configuration, which names a command, a
database and folders; and it starts the host's QEMU with another guest's UUID.
"""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.collect.conftest import until
from tests.collect.rogue import rogue_server
from tests.conftest import shown

from hoodsnap.bundle import Bundle, load
from hoodsnap.findings.analysis import Report, analyze

pytestmark = pytest.mark.lab

ACCOUNT = "mallory"
PASSWORD = "Root-DB-S3cret"  # noqa: S105 (planted, and searched for)
SECRET = "quarterly numbers: strictly confidential 42"  # noqa: S105 (likewise)
PYTHON = "/usr/bin/python3"
NOBODYS = "00000000-1111-4222-8333-444444444444"
QEMU = "/usr/bin/qemu-system-x86_64"


class Mallory:
    """Ordinary account with a folder, which starts processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uid = pwd.getpwnam(ACCOUNT).pw_uid
        self.ran = folder / "ran"
        self._stack = ExitStack()

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        os.chown(path, self.uid, self.uid)
        os.chown(path.parent, self.uid, self.uid)
        return path

    def start(self, command: str, *words: object) -> int:
        """Start a line of shell as this account; return its PID."""
        script = ["bash", "-c", command, "bash", *map(str, words)]
        process = subprocess.Popen(["setpriv", *self._become, "--clear-groups", *script])
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process.pid

    @property
    def _become(self) -> list[str]:
        return [f"--reuid={self.uid}", f"--regid={self.uid}"]

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def mallory(cloud: Path) -> Iterator[Mallory]:
    try:
        home = Path(pwd.getpwnam(ACCOUNT).pw_dir)
    except KeyError:
        pytest.skip(f"this host has no account {ACCOUNT}")
    folder = home / f"hs-{os.getpid()}"
    folder.mkdir()
    account = Mallory(folder)
    os.chown(folder, account.uid, account.uid)
    try:
        yield account
    finally:
        account.close()
        subprocess.run(["rm", "-r", str(folder)], check=True)


def collected(cloud: Path, home: Path, out: Path, *options: str, cwd: Path | None = None) -> Bundle:
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(home),
        "OS_CLIENT_CONFIG_FILE": str(cloud / "clouds.yaml"),
    }
    command = [sys.executable, "-P", "-m", "hoodsnap", "collect", "--os-cloud", "hoodlab"]
    done = subprocess.run(
        [*command, "-o", str(out), *options], env=environment, cwd=cwd, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return load(out)


def value(bundle: Bundle, layer: str, query: str) -> Any:
    answer = bundle.last(layer, query)
    assert answer is not None and answer.error is None
    return answer.value


def refusals(bundle: Bundle) -> dict[str, str]:
    return {
        answer.query: answer.error.message
        for answer in bundle.by_layer["host"]
        if answer.error is not None and answer.error.kind == "denied"
    }


def test_an_ordinary_accounts_configuration_is_not_followed(
    mallory: Mallory, cloud: Path, closed: Path
) -> None:
    (closed / ".my.cnf").write_text(f"[client]\nuser=root\npassword={PASSWORD}\n")
    (closed / ".my.cnf").chmod(0o600)
    notes = closed / "notes"
    notes.write_text(SECRET)
    notes.chmod(0o600)
    pwn = mallory.write("pwn.sh", f"#!/bin/sh\nid > {mallory.ran}\nexit 1\n")
    (mallory.write("state/x", "").parent / "compute_id").symlink_to(notes)
    with rogue_server(b"mysql_native_password", b"\xfemysql_clear_password\0") as server:
        url = f"mysql+pymysql://root@127.0.0.1:{server.port}/nova"
        conf = mallory.write(
            "nova.conf",
            f"[DEFAULT]\nstate_path = {mallory.folder}/state\ninstances_path = {closed}\n"
            f"[libvirt]\nconnection_uri = qemu+ext:///system?command={pwn}\n"
            f"[database]\nconnection = {url}\n[api_database]\nconnection = {url}\n",
        )
        renamed = f'exec -a nova-compute {PYTHON} -c "import time; time.sleep(300)" -- "$@"'
        rogues = [
            mallory.start(renamed, "--config-file", conf),
            mallory.start(renamed, "--config-file", "/dev/zero"),
            mallory.start("exec -a libvirtd sleep 300"),
        ]
        until(lambda: all(_is_named(pid) for pid in rogues))
        bundle = collected(cloud, closed, closed / "b.json")

    assert not mallory.ran.exists()
    assert server.sent == []
    text = json.dumps([answer.as_json() for answer in bundle.answers])
    assert SECRET not in text
    assert PASSWORD not in text
    assert str(mallory.folder) not in text
    reasons = refusals(bundle)
    for pid in rogues:
        assert f"it runs as uid {mallory.uid}" in reasons[f"ps -fp {pid}"]
    # The real service's configuration is followed.
    assert value(bundle, "host", "/etc/nova/nova.conf")["libvirt"]["virt_type"] == "qemu"
    assert value(bundle, "libvirt", "virsh list --all")
    assert value(bundle, "nova-db", "SELECT VERSION()")


def _is_named(pid: int) -> bool:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return words[0] in (b"nova-compute", b"libvirtd")


def test_an_ordinary_accounts_qemu_is_listed_but_is_no_guest(
    mallory: Mallory, cloud: Path, closed: Path
) -> None:
    before = analyze(collected(cloud, closed, closed / "before.json"))
    guest = next(guest for guest in before.cloud.guests if guest.process and guest.domain)
    assert guest.domain is not None
    machine = f"{QEMU} -S -display none -nodefaults -machine pc -m 16"
    copy = f"{mallory.folder}/qemu-system-x86_64"
    lines = [
        f"exec {machine} -uuid {guest.uuid} -name guest={guest.domain.name}",
        f"exec {machine} -uuid {NOBODYS} -name guest=instance-0badcafe",
        f"cp /usr/bin/sleep {copy}; exec {copy} 300",
    ]
    pids = [mallory.start(line) for line in lines]
    until(lambda: all("qemu" in os.readlink(f"/proc/{pid}/exe") for pid in pids))

    bundle = collected(cloud, closed, closed / "after.json")
    after = analyze(bundle)

    assert {shown(it) for it in after.findings} - {shown(it) for it in before.findings} == set()
    own, unknown, copied = pids
    rows = {row["pid"]: row for row in value(bundle, "kernel", "ls -l /proc/*/exe")}
    assert rows[own]["uid"] == rows[unknown]["uid"] == mallory.uid
    assert copied not in rows
    assert "write to its executable" in refusals(bundle)[f"ps -fp {copied}"]
    again = _guest(after, guest.uuid)
    assert again.process is not None and guest.process is not None
    assert again.process.pid == guest.process.pid
    assert own not in [process.pid for process in again.processes]
    assert NOBODYS not in [it.uuid for it in after.cloud.guests]


def _guest(report: Report, uuid: str) -> Any:
    return next(guest for guest in report.cloud.guests if guest.uuid == uuid)


def test_a_clouds_yaml_in_another_accounts_folder_is_not_followed(
    mallory: Mallory, cloud: Path, closed: Path
) -> None:
    """The attacker would set the address of the cloud; the operator's file has the password."""
    mallory.write(
        "clouds.yaml",
        "clouds: {mine: {auth: {auth_url: 'http://127.0.0.1:9/', username: u, project_name: p}}}\n",
    )
    bundle = collected(cloud, closed, closed / "b.json", cwd=mallory.folder)

    path = f"{mallory.folder}/clouds.yaml"
    assert f"belongs to uid {mallory.uid}" in refusals(bundle)[f"ls -ld {path}"]
