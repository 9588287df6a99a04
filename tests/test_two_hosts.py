"""Two real hosts, each in its own bundle: the findings that must follow, and no others."""

from __future__ import annotations

import pytest
from tests.conftest import ROOT

from hoodsnap.bundle import load, merge
from hoodsnap.findings.analysis import Report, analyze

PAIRS = ROOT / "fixtures/two-hosts"

FOUND: dict[str, list[str]] = {
    "healthy": [],
    "migrated-cold": [],
    "migrating": [],
    "migrated-live": [],
    "evacuated": [
        "error evacuated-guest-still-running of pair-evac on compute2",
        "error service-state-skew of  on compute2",
        "warning base-image-reapable of  on compute2",
    ],
    "split-brain": [
        "error evacuated-guest-still-running of pair-split on compute2",
        "error service-state-skew of  on compute2",
        "warning base-image-reapable of  on compute2",
    ],
    # The leftover domain is off, and its folder may be on a share: the walk shows it, no check
    # reports it.
    "left-behind": [],
    "evacuation-armed": ["error evacuation-record-armed of pair-armed on compute2"],
    "wrong-host": [
        "error domain-running-on-wrong-host of pair-wrong on compute2",
        "error server-without-domain of pair-wrong on vm",
        "error server-without-disk of pair-wrong on vm",
        "error allocation-wrong-provider of pair-wrong on vm",
        "warning base-image-reapable of  on compute2",
        "note launch-host-unknown of pair-wrong on compute2",
        "note launch-host-unknown of pair-wrong on vm",
    ],
}
"""Scene of `lab/pairs.sh` → the findings that must follow, with check, guest and host."""


def both(name: str) -> Report:
    paths = (PAIRS / f"{name}.{which}.json.zst" for which in ("first", "second"))
    return analyze(merge([load(path) for path in paths]))


RECORDED = sorted({path.name.split(".")[0] for path in PAIRS.glob("*.json.zst")})


def test_every_recorded_pair_has_expected_findings() -> None:
    assert set(RECORDED) == FOUND.keys()


@pytest.mark.parametrize("pair", RECORDED)
def test_a_real_fault_between_two_hosts_is_found_and_nothing_else(pair: str) -> None:
    found = [
        f"{finding.severity.word} {finding.check.name} of "
        f"{finding.guest.name if finding.guest else ''} on {finding.host}"
        for finding in both(pair).everything()
    ]
    assert sorted(found) == sorted(FOUND[pair])


def test_each_host_has_its_own_guests_only() -> None:
    cloud = both("healthy").cloud

    names = {
        host.nova_name: {guest.name for guest in cloud.guests_of(host)} for host in cloud.hosts
    }
    assert "pair-second" in names["compute2"]
    assert not any(name.startswith("vm-") for name in names["compute2"])
    (first,) = names.keys() - {"compute2"}
    assert {"pair-first", "vm-plain"} <= names[first]
    assert "pair-second" not in names[first]


def test_a_migrating_guest_exists_on_both_hosts() -> None:
    cloud = both("migrating").cloud

    seen = {
        guest.host.nova_name
        for guest in cloud.guests
        if guest.name == "pair-live" and guest.host and guest.domain and guest.process
    }
    assert len(seen) == 2
