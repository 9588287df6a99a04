"""nova.conf, and what the guests were made with."""

from __future__ import annotations

import pytest
from tests.checks.test_host import option
from tests.conftest import RecordedHost


def test_nova_conf_not_applied(host: RecordedHost) -> None:
    option(host, "vnc", server_listen="192.0.2.5")

    [headline] = host.headlines()
    assert headline.startswith("nova.conf of host vm has server_listen 192.0.2.5, but ")
    assert headline.endswith(" have a console on 127.0.0.1")


def test_nova_conf_not_applied_to_the_store_of_disks(host: RecordedHost) -> None:
    option(host, "libvirt", images_type="raw")

    assert any(
        line.startswith("nova.conf of host vm has images_type raw, but ")
        and line.endswith(" have a root disk of kind qcow2")
        for line in host.headlines()
    )


@pytest.mark.parametrize("value", ["", "default"])
def test_a_default_is_not_compared(host: RecordedHost, value: str) -> None:
    option(host, "libvirt", images_type=value)
    option(host, "vnc", server_listen="")

    assert host.findings() == []


def test_nova_conf_not_applied_to_the_kind_of_virtualization(host: RecordedHost) -> None:
    option(host, "libvirt", virt_type="kvm")

    [headline] = [line for line in host.headlines() if "virt_type" in line]
    assert headline.startswith("nova.conf of host vm has virt_type kvm, but ")
    assert headline.endswith(" have a domain of type qemu")
