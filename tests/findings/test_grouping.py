"""Many findings of one check are one to read; nothing is lost and nothing changes its place."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.findings.test_folding import analyzed, of_cloud, of_guests

from hoodsnap.check import Problem, Problems, check
from hoodsnap.evidence import Severity, says
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.findings.finding import Finding
from hoodsnap.findings.grouping import MOST_ALONE, alone, grouped

SOME = ("vm-plain", "vm-duo", "vm-snap", "vm-config")
CHECKS = tuple(of_cloud(name, "something") for name in ("a-check", "b-check", "c-check"))


def _finding(number: int) -> Finding:
    return Finding(CHECKS[number], Severity.ERROR, None, None, ())


@given(st.lists(st.integers(0, 2), max_size=12))
def test_every_finding_is_in_one_group_at_the_place_of_its_first(numbers: list[int]) -> None:
    findings = [_finding(number) for number in numbers]
    groups = grouped(findings)

    assert sorted(id(one) for group in groups for one in group.findings) == sorted(
        map(id, findings)
    )
    firsts = [findings.index(group.first) for group in groups]
    assert firsts == sorted(firsts)
    for group in groups:
        count = numbers.count(CHECKS.index(group.check))
        assert len(group.findings) == (count if count > MOST_ALONE else 1)
        assert group.is_many == (len(group.findings) > 1)
    assert len(alone(findings)) == len(findings)


def test_a_group_names_its_guests_and_hosts_once_and_is_as_bad_as_its_worst() -> None:
    def port_binding_bad(guest: Guest, domain: Domain) -> Problems:
        if guest.name in SOME:
            for severity in (Severity.NOTE, Severity.WARNING):
                yield Problem(severity, (says(domain, uuid=guest.uuid),))

    report = analyzed(check(Severity.ERROR)(port_binding_bad))
    [group] = grouped(report.findings)

    assert len(group.findings) == 2 * len(SOME)
    assert {guest.name for guest in group.guests} == set(SOME)
    assert len(group.guests) == len(SOME)
    assert group.hosts == ("vm",)
    assert group.severity is group.first.severity is Severity.WARNING


def test_findings_of_few_guests_stay_apart() -> None:
    report = analyzed(of_guests("port-binding-bad", *SOME[:MOST_ALONE]))

    assert len(grouped(report.findings)) == MOST_ALONE
