"""Whole visits to the running lab."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.conftest import shown

from hoodsnap.bundle import Bundle, dump, load
from hoodsnap.collect.visit import Visit, Wishes
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.findings.analysis import analyze

pytestmark = pytest.mark.lab

SOCKET = "/run/mysqld/mysqld.sock"


@pytest.fixture(autouse=True)
def credentials(cloud: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(cloud / "clouds.yaml"))


EVERYTHING = Wishes(os_cloud="hoodlab", all_hosts=True)


def visit(
    wishes: Wishes = EVERYTHING,
    phase: Callable[[str], None] = lambda name: None,
) -> Bundle:
    visit = Visit(wishes, phase)
    visit.run()
    return visit.bundle()


def guest(bundle: Bundle, name: str) -> Guest:
    [found] = [guest for guest in analyze(bundle).cloud.guests if guest.name == name]
    return found


def sql(statement: str) -> str:
    command = ["mariadb", "--no-defaults", "-S", SOCKET, "-u", "root", "-N", "-B", "-e", statement]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def virsh(*arguments: str) -> str:
    command = ["virsh", "-c", "qemu:///system", "-q", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_healthy_cloud_has_no_findings_and_every_layer_answers() -> None:
    bundle = visit()
    report = analyze(bundle)

    assert [shown(finding) for finding in report.findings] == []
    assert {
        "nova",
        "glance",
        "nova-db",
        "libvirt",
        "kernel",
        "cgroup",
        "daemons",
        "images",
        "host",
        "placement",
        "logs",
        "cinder",
        "block",
        "neutron",
        "network",
        "keystone",
    } == set(bundle.by_layer)
    failures = [
        answer
        for answer in bundle.answers
        if answer.error
        and answer.error.kind != "absent"
        # Other tests run a libvirtd under another account.
        and not answer.query.startswith("ps -fp ")
    ]
    assert [(answer.query, answer.error) for answer in failures] == []
    running = [guest for guest in report.cloud.guests if guest.process]
    assert len(running) == virsh("list", "--name").strip().count("\n") + 1
    assert all(
        guest.server and guest.instance and guest.domain and guest.images for guest in running
    )


def test_the_bundle_contains_no_secret_of_the_lab() -> None:
    written = dump(visit()).decode()

    # The lab's only password is also its name, so search for it as a password only.
    assert not re.search(
        r"(?i)(password|passwd|secret|transport_url|auth_token)\W{1,4}hoodlab", written
    )
    assert "rabbit://" not in written
    assert "mysql+pymysql" not in written
    assert not re.search(r"gAAAAA[\w-]{20}", written), "a keystone token"
    assert "#cloud-config" not in written


@pytest.fixture
def general_log() -> Iterator[Callable[[], list[str]]]:
    """Return every statement that the database server received."""
    sql("SET GLOBAL log_output = 'TABLE'; SET GLOBAL general_log = 1; TRUNCATE mysql.general_log")
    try:
        yield lambda: sql(
            "SELECT CONCAT(thread_id, ' ', command_type, ' ', REPLACE(argument, '\\n', ' '))"
            " FROM mysql.general_log"
        ).splitlines()
    finally:
        sql("SET GLOBAL general_log = 0; TRUNCATE mysql.general_log")


def _files(*folders: str) -> dict[str, tuple[int, int, int, int]]:
    found = {}
    for folder in folders:
        for path in Path(folder).rglob("*"):
            if path.is_file():
                stat = path.stat()
                found[str(path)] = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_mode)
    return found


def test_nothing_on_the_host_is_changed(general_log: Callable[[], list[str]]) -> None:
    quiet = ("/etc/libvirt/qemu", "/run/libvirt/qemu", "/var/log/libvirt/qemu", "/etc/nova")
    images = "/var/lib/nova/instances/_base"
    api = Path("/var/log/nova/nova-api.log")
    messages = {name: virsh("dominfo", name) for name in virsh("list", "--name").split()}
    before = (_files(*quiet, images), virsh("list", "--all"), virsh("net-list", "--all"))
    asked_before = api.stat().st_size

    visit()

    assert (_files(*quiet, images), virsh("list", "--all"), virsh("net-list", "--all")) == before
    _only_reading(general_log())
    with api.open() as log:
        log.seek(asked_before)
        requests = set(re.findall(r'"([A-Z]+) /v2', log.read()))
    assert requests == {"GET", "HEAD"}
    # libvirt reports there that a command was sent to the monitor.
    for name, message in messages.items():
        assert _messages(virsh("dominfo", name)) == _messages(message)


def _messages(dominfo: str) -> str:
    return dominfo.partition("Messages:")[2]


def _only_reading(log: list[str]) -> None:
    # hoodsnap's connections are those that begin a read-only snapshot.
    ours = {line.split()[0] for line in log if "WITH CONSISTENT SNAPSHOT" in line}
    assert ours
    statements = [line.split(" ", 2)[1:] for line in log if line.split()[0] in ours]
    harmless = r"SELECT|SHOW|SET (SESSION|NAMES|AUTOCOMMIT|@@)|START TRANSACTION .*READ ONLY|ROLLBACK|COMMIT"
    for kind, *argument in statements:
        if kind == "Query":
            assert re.match(harmless, argument[0], re.IGNORECASE), argument[0]
        else:
            assert kind in ("Connect", "Quit", "Init", "Statistics", "Ping"), (kind, argument)


def test_monitors_are_asked_and_domains_tainted_only_with_qmp() -> None:
    bundle = visit(Wishes(os_cloud="hoodlab", all_hosts=True, qmp=True))
    report = analyze(bundle)

    assert [shown(finding) for finding in report.findings] == []
    answering = [guest for guest in report.cloud.guests if guest.monitor]
    assert len(answering) == virsh("list", "--name").strip().count("\n") + 1
    paused = guest(bundle, "vm-paused").monitor
    assert paused is not None
    assert paused.status == "paused"
    assert "tainted: custom monitor" in virsh("dominfo", "instance-00000001")


def test_a_frozen_qemu_is_abandoned_and_the_rest_is_collected() -> None:
    tenant = guest(visit(), "vm-tenant")
    assert tenant.process and tenant.domain
    os.kill(tenant.process.pid, signal.SIGSTOP)
    try:
        start = time.monotonic()
        bundle = visit()
        took = time.monotonic() - start
    finally:
        os.kill(tenant.process.pid, signal.SIGCONT)

    assert took < 60
    frozen = guest(bundle, "vm-tenant")
    assert frozen.process and frozen.process.state == "T"
    running = sum(1 for guest in analyze(bundle).cloud.guests if guest.process)
    assert running == virsh("list", "--name").strip().count("\n") + 1


def test_objects_that_change_during_a_visit_are_asked_again() -> None:
    name, done = guest(visit(), "vm-duo").domain, []
    assert name is not None

    def suspend(phase: str) -> None:
        if phase == "second look":
            virsh("suspend", name.name)
            done.append(phase)

    try:
        bundle = visit(phase=suspend)
    finally:
        virsh("resume", name.name)

    assert done
    states = [
        answer.value for answer in bundle.asked("libvirt", f"virsh domstate --reason {name.name}")
    ]
    assert states[0]["state"] == 1
    assert [state["state"] for state in states[-2:]] == [3, 3]
    assert len([*bundle.asked("libvirt", f"virsh dumpxml {name.name}")]) >= 2
    duo = guest(bundle, "vm-duo")
    assert duo.moving is None
    assert duo.domain and duo.domain.state == 3


def test_a_tenant_collects_what_it_may_see(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = visit(Wishes(os_cloud="hoodlab-tenant", db_url="mysql://nobody:x@127.0.0.1:1/nova"))

    names = {one.server.name for one in analyze(bundle).cloud.guests if one.server}
    assert names == {"vm-tenant"}
    denied = [
        answer
        for answer in bundle.by_layer["nova"]
        if answer.error and answer.error.kind == "denied"
    ]
    assert any("/servers/detail?all_tenants" in answer.query for answer in denied)
    assert [shown(finding) for finding in analyze(bundle).findings] == []


@pytest.mark.parametrize(
    ("wishes", "layer"),
    [
        (Wishes(os_cloud="nobody"), "nova"),
        (Wishes(os_cloud="hoodlab", db_url="mysql://nova:wrong@127.0.0.1/nova"), "nova-db"),
        (Wishes(os_cloud="hoodlab", libvirt_uri="qemu+unix:///system?socket=/nowhere"), "libvirt"),
    ],
)
def test_a_layer_that_cannot_be_asked_costs_only_its_own_answers(
    wishes: Wishes, layer: str
) -> None:
    bundle = visit(wishes)

    answering = {answer.layer for answer in bundle.answers if answer.error is None}
    assert {"nova", "nova-db", "libvirt", "kernel", "images"} - answering == {layer}
    assert [shown(finding) for finding in analyze(bundle).findings] == []


INTERRUPTED = """
import os, signal, sys
from hoodsnap import cli, collect

# A shell makes its background programs ignore ^C.
signal.signal(signal.SIGINT, signal.default_int_handler)

init = collect.Visit.__init__

def interrupted(self, wishes, phase):
    def stop(name):
        if name == "second look":
            os.kill(os.getpid(), signal.SIGINT)
        phase(name)
    init(self, wishes, stop)

collect.Visit.__init__ = interrupted
sys.argv = ["hoodsnap", "collect", "--os-cloud", "hoodlab", "-o", sys.argv[1]]
cli.main()
"""


def test_an_interruption_loses_no_collected_answers(cloud: Path, tmp_path: Path) -> None:
    path = tmp_path / "part.json"

    done = subprocess.run([sys.executable, "-c", INTERRUPTED, str(path)], capture_output=True)

    assert done.returncode == 130
    assert b"interrupted: the bundle contains the answers collected so far" in done.stderr
    bundle = load(path)
    assert {"nova", "nova-db", "libvirt", "kernel", "images"} <= set(bundle.by_layer)
    assert len([*bundle.asked("libvirt", "virsh list --all")]) == 1
