"""nova.conf, and what the guests were made with."""

from __future__ import annotations

from typing import Any

import pytest
from tests.checks.test_host import option
from tests.conftest import RecordedHost

from hoodsnap.bundle import Answer

FILES = ("/etc/nova/nova.conf", "/etc/nova/nova-compute.conf")


def folder(path: str, **other: Any) -> dict[str, Any]:
    return {"path": path, "uid": 0, "gid": 0, "mode": "755", **other}


def examine(host: RecordedHost, **own: Any) -> None:
    """Add an answer about nova-compute's files; `own`: fields of the second one."""
    above = [folder("/"), folder("/etc"), folder("/etc/nova", uid=116, gid=116, mode="750")]
    row = {"uid": 0, "gid": 116, "mode": "640", "folders": above}
    first = {"path": FILES[0], **row, "sets": ["libvirt.virt_type", "DEFAULT.my_ip"]}
    second = {"path": FILES[1], **row, "sets": ["libvirt.virt_type"], **own}
    raw = host.last("host", "/etc/nova/nova.conf").model_dump(exclude={"value", "error", "query"})
    value = {"reader": {"uid": 116, "gids": [64, 116]}, "files": [first, second]}
    host.add(Answer(**raw, query=f"stat -L {' '.join(FILES)}", value=value))


def test_an_option_is_named_with_the_file_that_decides_it(host: RecordedHost) -> None:
    examine(host)
    option(host, "libvirt", virt_type="kvm")
    option(host, "DEFAULT", my_ip="192.0.2.77")

    found = {one.check.name: one for one in host.report().findings}
    applied, wrong = found["nova-conf-not-applied"], found["nova-conf-wrong"]
    assert applied.title.startswith("nova-compute.conf of host vm has virt_type kvm, but ")
    assert applied.names["NOVA_CONF"] == FILES[1]
    assert wrong.title.startswith("nova.conf of host vm has my_ip 192.0.2.77, ")


def test_nova_conf_not_applied(host: RecordedHost) -> None:
    option(host, "vnc", server_listen="192.0.2.5")

    missing, headline = host.headlines()
    assert missing.endswith("has server_listen 192.0.2.5, which is no address of the host")
    assert headline.startswith("nova.conf of host vm has server_listen 192.0.2.5, but ")
    assert headline.endswith(" have a console on 127.0.0.1")


def test_nova_conf_not_applied_to_the_store_of_disks(host: RecordedHost) -> None:
    option(host, "libvirt", images_type="raw")

    assert any(
        line.startswith("nova.conf of host vm has images_type raw, but ")
        and line.endswith(" have a root disk of kind qcow2")
        for line in host.headlines()
    )


@pytest.mark.parametrize(("value", "severity"), [("raw", "note"), ("rbd", "warning")])
def test_a_store_that_does_not_have_the_disks_is_a_warning(
    host: RecordedHost, value: str, severity: str
) -> None:
    option(host, "libvirt", images_type=value)

    found = [it for it in host.report().everything() if it.check.name == "nova-conf-not-applied"]
    assert {it.severity.word for it in found} == {severity}


@pytest.mark.parametrize("value", ["", "default"])
def test_a_default_is_not_compared(host: RecordedHost, value: str) -> None:
    option(host, "libvirt", images_type=value)
    option(host, "vnc", server_listen="")

    assert host.findings() == []


def test_nova_conf_wrong(host: RecordedHost) -> None:
    option(host, "libvirt", live_migration_inbound_addr="192.0.2.77")

    assert host.headlines() == [
        "nova.conf of host vm has live_migration_inbound_addr 192.0.2.77, which is no address of "
        "the host"
    ]
    assert host.findings() == [
        "nova-conf-wrong: nova.conf reports live_migration_inbound_addr = 192.0.2.77;"
        " network reports no address"
    ]


def test_nova_conf_wrong_with_an_unknown_value(host: RecordedHost) -> None:
    option(host, "libvirt", images_type="qcow3")

    assert host.headlines() == [
        "nova.conf of host vm has images_type qcow3, which nova does not know"
    ]


@pytest.mark.parametrize("value", ["0.0.0.0", "127.0.0.1", "compute-1.example.org", ""])  # noqa: S104
def test_an_address_that_is_no_device_s_is_not_compared(host: RecordedHost, value: str) -> None:
    option(host, "libvirt", live_migration_inbound_addr=value)

    assert host.findings() == []


@pytest.mark.parametrize(
    ("section", "options", "shown"),
    [
        ("libvirt", {"virt_type": "kvm"}, "have a domain of type qemu"),
        ("vnc", {"enabled": "false"}, "have a console of kind VNC"),
        ("vnc", {"server_proxyclient_address": "192.0.2.7"}, "have a console on 127.0.0.1"),
    ],
)
def test_other_options_that_guests_were_made_without_are_found(
    host: RecordedHost, section: str, options: dict[str, str], shown: str
) -> None:
    option(host, section, **options)

    assert any(line.endswith(shown) for line in host.headlines())
    assert {line.split(":")[0] for line in host.findings()} == {"nova-conf-not-applied"}


def test_nova_conf_not_applied_to_the_kind_of_virtualization(host: RecordedHost) -> None:
    option(host, "libvirt", virt_type="kvm")

    [headline] = [line for line in host.headlines() if "virt_type" in line]
    assert headline.startswith("nova.conf of host vm has virt_type kvm, but ")
    assert headline.endswith(" have a domain of type qemu")


def test_kvm_is_configured_on_a_host_without_it(host: RecordedHost) -> None:
    option(host, "libvirt", virt_type="kvm")
    offered = host.last("libvirt", "virsh capabilities").value
    host.set("libvirt", "virsh capabilities", offered.replace("<domain type='kvm'/>", ""))

    assert "nova.conf of host vm has virt_type kvm, but libvirt there offers only qemu" in (
        host.headlines()
    )


def test_kvm_is_configured_on_a_host_with_it(host: RecordedHost) -> None:
    option(host, "libvirt", virt_type="kvm")

    [headline] = host.headlines()
    assert "have a domain of type qemu" in headline
