"""Server groups, and the hosts of their members."""

from __future__ import annotations

from typing import Any

import pytest
from tests.conftest import RecordedHost

GROUP = "e4a1b2c3-5d6e-4f70-8a9b-0c1d2e3f4a5b"
QUERY = "GET /v2.1/os-server-groups?all_projects=True [2.93]"


def _group(host: RecordedHost, policy: str, *names: str, **fields: Any) -> None:
    group = {
        "id": GROUP, "name": "apart", "policy": policy, "rules": {}, "metadata": {},
        "members": [host.uuid(name) for name in names],
    }  # fmt: skip
    host.set("nova", QUERY, {"server_groups": [group | fields]})


def _row(host: RecordedHost, table: str, **cells: object) -> None:
    """Add the answer about a table with one row."""
    first = host.last("nova-db", "SELECT UTC_TIMESTAMP(6)")
    query = f"SELECT {', '.join(cells)} FROM nova_api.{table} WHERE id IN (1)"
    value = {"columns": list(cells), "rows": [list(cells.values())]}
    host.add(first.model_copy(update={"query": query, "value": value}))


def test_server_group_broken(host: RecordedHost) -> None:
    _group(host, "anti-affinity", "vm-plain", "vm-data", "vm-shelved")

    assert host.headlines() == [
        "vm-plain and vm-data are on host vm, but server group apart (anti-affinity) allows 1 member"
        " on a host"
    ]


def test_server_group_broken_by_more_than_its_rule_allows(host: RecordedHost) -> None:
    _group(host, "anti-affinity", "vm-plain", "vm-data", rules={"max_server_per_host": 2})
    assert host.findings() == []
    _group(host, "anti-affinity", "vm-plain", "vm-data", "vm-duo", rules={"max_server_per_host": 2})
    assert len(host.findings()) == 1


def test_server_group_broken_by_affinity(host: RecordedHost) -> None:
    _group(host, "affinity", "vm-plain", "vm-data")
    assert host.findings() == []
    uuid = host.uuid("vm-data")
    host.row("instances", uuid, host="vm-2", node="vm-2")
    host.server(uuid, host="vm-2")

    assert any(
        line.startswith(
            "Server group apart (affinity) allows one host, but its members are on 2 hosts: "
        )
        for line in host.headlines()
    )


@pytest.mark.parametrize("policy", ["soft-anti-affinity", "soft-affinity", "affinity"])
def test_a_soft_policy_is_a_wish(host: RecordedHost, policy: str) -> None:
    _group(host, policy, "vm-plain", "vm-data")

    assert host.findings() == []


def test_server_group_differs(host: RecordedHost) -> None:
    _group(host, "affinity", "vm-plain", "vm-data")
    _row(host, "instance_groups", id=1, uuid=GROUP, name="apart")
    _row(host, "instance_group_policy", id=1, group_id=1, policy="soft-affinity", rules=None)
    for number, name in enumerate(("vm-plain", "vm-duo")):
        member = host.uuid(name)
        _row(host, "instance_group_member", id=number, instance_uuid=member, group_id=1)

    assert host.headlines() == [
        "Server group apart has members vm-plain and vm-data in nova's API, but vm-plain and vm-duo in"
        " its database",
        "Server group apart has policy affinity in nova's API, but soft-affinity in its database",
    ]
