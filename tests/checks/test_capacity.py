from __future__ import annotations

import pytest
from tests.conftest import RecordedHost, changes


def _offer(host: RecordedHost, name: str, **changed: object) -> None:
    """Change one inventory of the host's provider."""
    [answer] = [
        it
        for it in host.bundle.answers
        if it.layer == "placement" and "/inventories" in it.query and it.error is None
    ]
    inventories = answer.value["inventories"]
    inventories = {**inventories, name: inventories[name] | changed}
    host.set("placement", answer.query, answer.value | {"inventories": inventories})


def test_provider_over_capacity(host: RecordedHost) -> None:
    _offer(host, "VCPU", allocation_ratio=1.0)

    [finding] = host.report().findings
    assert (finding.severity.word, finding.check.name) == ("warning", "provider-over-capacity")
    provider = finding.names["PROVIDER"]
    assert changes(finding) == [
        f"openstack resource provider inventory set {provider} --amend --resource "
        "VCPU:allocation_ratio=16"
    ]
    assert "but placement offers 2 (ratio 1): no further server is placed there" in finding.headline


def test_a_ratio_of_nova_conf_is_not_changed_in_placement(host: RecordedHost) -> None:
    _offer(host, "VCPU", allocation_ratio=1.0)
    host.conf("DEFAULT", cpu_allocation_ratio="1.0")

    assert changes(host.found("provider-over-capacity")) == []


def test_a_reserved_amount_leaves_less_to_offer(host: RecordedHost) -> None:
    _offer(host, "MEMORY_MB", total=800, reserved=512, allocation_ratio=1.0)

    found = host.found("provider-over-capacity")
    assert " MEMORY_MB of host vm, but placement offers " in found.headline
    assert " --resource MEMORY_MB:allocation_ratio=" in changes(found)[0]


@pytest.mark.parametrize("ratio", [16.0, 9.0])
def test_a_lower_ratio_may_still_be_enough(host: RecordedHost, ratio: float) -> None:
    _offer(host, "VCPU", allocation_ratio=ratio)

    assert "provider-over-capacity" not in {one.check.name for one in host.report().everything()}
