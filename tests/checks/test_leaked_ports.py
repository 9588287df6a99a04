"""neutron's ports that belong to no server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.conftest import RecordedHost


def _port(host: RecordedHost, name: str) -> dict[str, Any]:
    [port] = host.ports(name)
    return port


NOBODY = "deadbeef-1111-4222-8333-444455556666"


def _delete(host: RecordedHost, name: str, at: str = "2026-11-23 01:00:00") -> None:
    host.row("instances", host.uuid(name), deleted=1, deleted_at=at, vm_state="deleted")
    host.row("instance_mappings", host.uuid(name), queued_for_delete=1)


def _leak(host: RecordedHost, **fields: object) -> dict[str, Any]:
    """Add a port of a server that does not exist."""
    query = "GET /v2.0/ports?limit=1000"
    body = json.loads(json.dumps(host.last("neutron", query).value))
    port: dict[str, Any] = {**_port(host, "vm-plain"), "device_id": NOBODY}
    port |= {"id": "c0ffee00-1111-4222-8333-444455556666", "mac_address": "fa:16:3e:00:01:02"}
    port |= {"fixed_ips": [{**port["fixed_ips"][0], "ip_address": "10.20.0.220"}], **fields}
    body["ports"].append(port)
    host.set("neutron", query, body)
    return port


def test_port_of_no_server(host: RecordedHost) -> None:
    port = _leak(host)

    assert host.findings() == [
        f"port-of-no-server: port reports id = {port['id']}, device_id = {NOBODY};"
        " nova reports no server"
    ]
    assert host.headlines() == [
        "Host vm has 1 port of 1 server that nova does not have: c0ffee00 (10.20.0.220)"
    ]


def test_the_port_of_a_deleted_server(host: RecordedHost) -> None:
    port = _port(host, "vm-shelved")["id"]
    _delete(host, "vm-shelved")

    assert host.findings() == [
        f"port-of-no-server: port reports id = {port}, device_id = {host.uuid('vm-shelved')};"
        f" instance reports uuid = {host.uuid('vm-shelved')}, deleted_at = 2026-11-23 01:00:00"
    ]


def test_a_deleted_servers_port_is_reported_on_the_host_it_is_bound_to(host: RecordedHost) -> None:
    _delete(host, "vm-shelved")
    host.port(_port(host, "vm-shelved")["id"], binding__host_id="compute-9")

    assert host.findings() == []


def test_a_port_that_was_just_made_may_belong_to_a_new_server(host: RecordedHost) -> None:
    _leak(host, updated_at=f"{host.bundle.started:%Y-%m-%dT%H:%M:%SZ}")

    assert host.findings() == []


@pytest.mark.parametrize("owner", ["", "network:dhcp", "baremetal:none", "Octavia"])
def test_ports_of_others_are_not_novas(host: RecordedHost, owner: str) -> None:
    _leak(host, device_owner=owner)

    assert not any("port-of-no-server" in line for line in host.findings())


def test_a_server_that_nobody_searched_for_may_exist(host: RecordedHost) -> None:
    _leak(host)
    host.drop(lambda answer: "servers/detail" not in answer.query)

    assert host.findings() == []
    assert [skip for skip in host.report().skips if skip.check.name == "port-of-no-server"]
