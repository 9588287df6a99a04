"""A fact quotes the answer that a field was read from, or none."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.conftest import FAULTS, healthy_report, sample

from hoodsnap.bundle import Answer, load
from hoodsnap.evidence import Where
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import Fact
from hoodsnap.findings.analysis import analyze


def answer(query: str) -> Answer:
    at = datetime(2026, 11, 25, tzinfo=UTC)
    return Answer(layer="libvirt", host="vm", query=query, at=at, took=0.0, value={})


def test_a_field_whose_answer_was_not_collected_quotes_no_other() -> None:
    domain = Domain(uuid="", said={"list": answer("virsh list"), "info": answer("virsh dominfo")})

    assert domain.where("disks") == (None, "/domain/devices/disk")
    assert domain.where("unknown") == (None, "unknown")


def test_a_domain_that_is_off_quotes_its_stored_definition() -> None:
    stored = answer("virsh dumpxml --inactive")
    domain = Domain(uuid="", said={"list": answer("virsh list"), "inactive": stored})

    assert domain.where("disks") == (stored, "/domain/devices/disk")


def test_a_field_without_a_place_is_in_the_facts_own_answer() -> None:
    [instance] = [
        guest.instance for guest in healthy_report().cloud.guests if guest.name == "vm-plain"
    ]
    assert isinstance(instance, Instance)

    assert instance.where("user_id")[0] is instance.said["row"]
    assert instance.where("devices")[0] is instance.said["mappings"]


@pytest.mark.parametrize("path", sample(sorted(FAULTS.glob("*.json.zst")), 12), ids=str)
def test_all_evidence_quotes_an_answer(path: object) -> None:
    """A fact of several answers names the one that each quoted field was read from."""
    for finding in analyze(load(FAULTS / str(path))).everything():
        for evidence in finding.evidence:
            fact = evidence.source
            if isinstance(fact, Where) or len(fact.said) < 2:
                continue
            assert isinstance(fact, Fact)
            assert fact.own or set(evidence.fields) <= fact.places.keys()
            assert evidence.where != ()
