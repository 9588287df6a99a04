"""Unknown is not absent: a layer that does not answer makes no finding.

Without an answer a check can be undecided, and findings that need it disappear. But whatever is
found about a guest without a layer is also found with it.
"""

from __future__ import annotations

import pytest
from tests.conftest import FAULTS, RecordedHost, sample

from hoodsnap.bundle import load
from hoodsnap.evidence import Severity
from hoodsnap.facts.layer import TABLE
from hoodsnap.findings.analysis import Report

RECORDED = (
    *("qemu-without-domain", "duplicate-qemu", "attachment-deleted", "libvirt-lost", "domain-gone"),
    *("db-host", "db-row-gone", "instances-hidden", "volume-file-gone", "port-deleted"),
    *("virsh-destroy", "disk-shared", "error-and-off", "guests-killed"),
)
"""Faults of different layers; test_catalog.py silences each layer of the healthy recording."""

FIXED = (
    ("attachment-deleted", "images"),
    ("duplicate-qemu", "libvirt"),
)
"""Pairs that once made a finding."""

OTHER_WORDS = frozenset([("qemu-without-domain", "kernel")])
"""nova and libvirt disagree about the guest without the kernel, too; with it, the cause is known."""

OTHERS = [
    (name, layer.id)
    for name in RECORDED
    for layer in TABLE
    if layer.id != "qemu" and (name, layer.id) not in {*FIXED, *OTHER_WORDS}
]


def told(report: Report) -> dict[tuple[str, str], str]:
    """Return check and subject → headline of each warning and error that is not about the capture."""
    return {
        (found.check.name, subject): found.headline
        for found in report.everything()
        if found.severity >= Severity.WARNING and found.check.topic != "capture"
        for subject in [guest.uuid for guest in found.guests] or [found.host or ""]
    }


@pytest.mark.parametrize(("name", "layer"), [*FIXED, *sample(OTHERS, 24)])
def test_a_silent_layer_adds_no_finding_to_a_fault(name: str, layer: str) -> None:
    bundle = load(FAULTS / f"{name}.json.zst")
    silenced = RecordedHost(bundle)
    silenced.silence(layer)

    heard = told(RecordedHost(bundle).report())
    assert heard != {}
    assert {key: line for key, line in told(silenced.report()).items() if key not in heard} == {}
