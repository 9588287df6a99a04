"""Pinned CPUs: nova's count of them on the host, against the servers that have them."""

from __future__ import annotations

import json

from tests.conftest import RecordedHost, changes


def _count(host: RecordedHost, *cpus: int) -> None:
    """Let nova's record of the host have these CPUs as pinned."""
    [node] = host.report().cloud.hosts[0].records.nodes_of("vm")
    topology = json.loads(str(node.raw["numa_topology"]))
    topology["nova_object.data"]["cells"][0]["nova_object.data"]["pinned_cpus"] = list(cpus)
    host.cells("compute_nodes", node.uuid or "", numa_topology=json.dumps(topology))


def _pin(host: RecordedHost, name: str, cpu: int) -> None:
    cell = {"nova_object.data": {"cpu_pinning_raw": {"0": cpu}}}
    pins = {"nova_object.data": {"cells": [cell]}}
    host.cells("instance_extra", host.uuid(name), numa_topology=json.dumps(pins))


def test_pinned_cpus_differ(host: RecordedHost) -> None:
    _count(host, 1)

    assert host.headlines() == [
        "nova's record of host vm has as pinned: CPU 1, but no server on it has CPU 1"
    ]
    [finding] = host.report().findings
    assert (finding.check.name, finding.severity.word) == ("pinned-cpus-differ", "warning")
    assert changes(finding) == ["systemctl restart nova-compute"]


def test_pinned_cpus_differ_if_the_host_lacks_a_servers(host: RecordedHost) -> None:
    _pin(host, "vm-plain", 1)

    assert host.found("pinned-cpus-differ").headline == (
        "nova's record of host vm has as pinned: no CPU, but its servers also have CPU 1"
    )


def test_the_cpus_of_both_may_be_the_same(host: RecordedHost) -> None:
    _pin(host, "vm-plain", 1)
    _count(host, 1)

    assert "pinned-cpus-differ" not in "".join(host.findings())


def test_a_server_that_moves_is_not_judged(host: RecordedHost) -> None:
    _pin(host, "vm-verify", 1)

    assert "pinned-cpus-differ" not in "".join(host.findings())
    assert any(skip.check.name == "pinned-cpus-differ" for skip in host.report().skips)
