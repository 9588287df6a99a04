"""Servers in error whose guests do not run."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from tests.checks.test_moves import migrated
from tests.checks.test_moves import state as set_state
from tests.conftest import RecordedHost

from hoodsnap.findings.advice import instructions


def fail(host: RecordedHost, name: str) -> None:
    """Put a server in error in nova's database and API."""
    uuid = host.uuid(name)
    host.row("instances", uuid, vm_state="error", power_state=4)
    host.server(uuid, status="ERROR", **{"OS-EXT-STS:vm_state": "error"})


def fault_in_api(host: RecordedHost, name: str, message: str) -> None:
    """Add a fault to a server's body, and let nova's databases not answer."""
    uuid = host.uuid(name)
    host.silence("nova-db")
    for answer in host.bundle.by_layer["nova"]:
        if "/servers/detail" not in answer.query or answer.error:
            continue
        value: Any = json.loads(json.dumps(answer.value))
        for server in value["servers"]:
            if server["id"] == uuid:
                server["fault"] = {"code": 500, "created": "2026-11-25T18:36:00Z"}
                server["fault"]["message"] = message
        host.set("nova", answer.query, value)


def switch_off(host: RecordedHost, name: str, reason: int = 2) -> None:
    """End a guest's process and switch its domain off."""
    uuid = host.uuid(name)
    host.end(name)
    set_state(host, name, 5, reason)
    listed = host.last("libvirt", "virsh list --all").value
    now = [line | {"id": None} if line["uuid"] == uuid else line for line in listed]
    host.set("libvirt", "virsh list --all", now)
    live = f"virsh dumpxml {host.domain(name)}"
    xml = str(host.last("libvirt", live).value)
    host.set("libvirt", live, re.sub(r"(<domain type='\w+') id='\d+'", r"\1", xml))


def changes(host: RecordedHost) -> list[str]:
    """Return the commands of the only finding's advice that change something."""
    [finding] = host.report().findings
    steps = instructions(finding)
    return [command.text for step in steps for command in step.commands if command.changes]


def test_server_in_error(host: RecordedHost) -> None:
    fail(host, "vm-plain")
    switch_off(host, "vm-plain")

    uuid = host.uuid("vm-plain")
    assert host.headlines() == [
        "vm-plain is in error in nova, and its domain is shut off (destroyed); its disk and ports"
        " are there"
    ]
    assert changes(host) == [f"openstack server stop {uuid}", f"openstack server start {uuid}"]
    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("server-in-error", "warning")


def test_server_in_error_tells_the_fault_of_the_api(host: RecordedHost) -> None:
    fail(host, "vm-plain")
    switch_off(host, "vm-plain")
    fault_in_api(host, "vm-plain", "Resize error: no ssh")

    [headline] = [finding.headline for finding in host.report().findings]
    assert headline.startswith(
        "vm-plain is in error in nova after a fault (Resize error: no ssh), and its domain"
    )


def test_server_in_error_without_a_domain(host: RecordedHost) -> None:
    fail(host, "vm-stopped")
    uuid, domain = host.uuid("vm-stopped"), host.domain("vm-stopped")
    listed = host.last("libvirt", "virsh list --all").value
    host.set("libvirt", "virsh list --all", [line for line in listed if line["uuid"] != uuid])
    host.drop(lambda answer: answer.layer != "libvirt" or domain not in answer.query.split())

    [headline] = [finding.headline for finding in host.report().findings]
    assert headline.startswith("vm-stopped is in error in nova, and libvirt has no domain for it")
    [folded] = host.folded()
    assert folded.startswith("server-in-error ← server-without-domain of vm-stopped")


def test_server_in_error_and_without_its_disk(host: RecordedHost) -> None:
    fail(host, "vm-plain")
    switch_off(host, "vm-plain")
    host.remove(f"{host.folder('vm-plain')}/disk")

    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("server-in-error", "error")
    assert finding.headline.endswith("; its disk is missing")
    assert changes(host) == []


def test_server_in_error_after_a_failed_move(host: RecordedHost) -> None:
    fail(host, "vm-plain")
    switch_off(host, "vm-plain")
    migrated(host, "vm-plain", "error")

    [text] = host.findings()
    assert "migration reports type = live-migration, status = error" in text


def test_a_server_whose_build_failed_never_had_a_guest(host: RecordedHost) -> None:
    assert host.guest("vm-error").record is not None
    assert host.findings() == []


@pytest.mark.parametrize("layer", ["libvirt", "kernel", "images", "cinder", "neutron"])
def test_a_server_in_error_is_not_judged_by_what_is_unknown(host: RecordedHost, layer: str) -> None:
    fail(host, "vm-plain")
    switch_off(host, "vm-plain")
    host.silence(layer)

    found = [one for one in host.headlines() if "missing" in one or "does not exist" in one]
    assert found == []
    assert bool(host.headlines()) == (layer not in ("libvirt", "kernel"))


def test_a_server_in_error_may_be_on_no_host(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-shelved"), vm_state="error")

    [headline] = host.headlines()
    assert headline.startswith("vm-shelved is in error in nova, and it is on no host")
    assert changes(host) == []


@pytest.mark.parametrize(
    ("fault", "shown"),
    [
        (
            "internal error: process exited while connecting to monitor: 2026-11-25T12:00:00.1Z"
            " qemu-system-x86_64: -blockdev {[withheld]}: Could not open"
            " '/var/lib/nova/instances/018ef94c-d60a-43e2-8ef2-d07abd6be462/disk': No such file",
            "Could not open '…/018ef94c/disk': No such file",
        ),
        (
            "internal error: process exited while connecting to monitor: Cannot allocate memory",
            "Cannot allocate memory",
        ),
        ("No valid host was found. ", "No valid host was found."),
    ],
)
def test_the_headline_has_the_end_of_libvirts_error(
    host: RecordedHost, fault: str, shown: str
) -> None:
    fail(host, "vm-plain")
    switch_off(host, "vm-plain")
    fault_in_api(host, "vm-plain", fault)

    assert f"vm-plain is in error in nova after a fault ({shown}), and" in host.headlines()[0]


def test_server_in_error_whose_disk_a_resize_has_set_aside(host: RecordedHost) -> None:
    fail(host, "vm-stopped")
    set_aside(host, "vm-stopped")

    uuid, folder = host.uuid("vm-stopped"), host.folder("vm-stopped")
    assert host.headlines()[0].endswith(
        f"; its disk is in …/instances/{uuid[:8]}_resize, where an unfinished resize left it"
    )
    assert changes(host) == [
        f"mv -T {folder}_resize {folder}",
        f"openstack server stop {uuid}",
        f"openstack server start {uuid}",
    ]


def set_aside(host: RecordedHost, name: str) -> None:
    """Rename a guest's folder as a resize does."""
    folder = host.folder(name)
    host.list_files(
        lambda line: (
            line | {"path": line["path"].replace(folder, f"{folder}_resize")}
            if line["path"].startswith(folder)
            else line
        )
    )
    host.drop(
        lambda answer: (
            not (answer.layer == "images" and (answer.subject or "").startswith(f"{folder}/"))
        )
    )
