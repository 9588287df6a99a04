"""Findings are folded under their root, and those that a host's guests share become the host's."""

from __future__ import annotations

import pytest
from bench.many import many
from tests.conftest import RecordedHost, healthy, shown

from hoodsnap.check import Check, Problem, Problems, check
from hoodsnap.checks.root_causes import CROWDS, ROOTS
from hoodsnap.evidence import Severity, hears, says
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.process.process import Process
from hoodsnap.findings.analysis import Report, analyze

# The checks below have the names of real ones and find what a test wants, for the tables go by name.


def of_guests(name: str, *guests: str, severity: Severity = Severity.ERROR) -> Check:
    """Return a check with this name that finds something about these guests; if none is named,
    about all guests with a domain."""

    def find(guest: Guest, domain: Domain) -> Problems:
        if not guests or guest.name in guests:
            yield Problem(severity, (says(domain, uuid=guest.uuid),))

    find.__name__ = name.replace("-", "_")
    return check(severity)(find)


def of_host(name: str, said: object = "something") -> Check:
    def find(host: Host) -> Problems:
        yield (hears(host.bundle.answers[0], "host", said=said),)

    find.__name__ = name.replace("-", "_")
    return check(Severity.WARNING)(find)


def of_cloud(name: str, said: object) -> Check:
    def find(cloud: Cloud) -> Problems:
        yield (hears(cloud.bundle.answers[0], "cloud", said=said),)

    find.__name__ = name.replace("-", "_")
    return check(Severity.WARNING)(find)


def analyzed(*catalog: Check) -> Report:
    return analyze(healthy(), catalog)


def _tree(report: Report) -> list[tuple[str, list[str]]]:
    return [
        (
            shown(finding).partition(":")[0],
            [shown(one).partition(":")[0] for one in list(finding.everything())[1:]],
        )
        for finding in report.findings
    ]


def _uuid(name: str) -> str:
    [guest] = [guest for guest in analyzed().cloud.guests if guest.name == name]
    return guest.uuid


def test_a_root_of_the_same_guest_explains() -> None:
    report = analyzed(
        of_guests("bdm-not-in-guest", "vm-plain", "vm-duo"),
        of_guests("bdm-attachment-or-volume-missing", "vm-plain"),
    )

    assert _tree(report) == [
        ("bdm-not-in-guest of vm-duo", []),
        ("bdm-attachment-or-volume-missing of vm-plain", ["bdm-not-in-guest of vm-plain"]),
    ]


def test_a_root_of_the_host_explains_its_guests_findings() -> None:
    report = analyzed(
        of_guests("domain-running-on-wrong-host", "vm-plain", "vm-duo"),
        of_guests("qcow2-corrupt-bit", "vm-duo"),
        of_host("host-identity-changed"),
    )

    assert _tree(report) == [
        (
            "host-identity-changed",
            ["domain-running-on-wrong-host of vm-duo", "domain-running-on-wrong-host of vm-plain"],
        ),
        ("qcow2-corrupt-bit of vm-duo", []),
    ]


def test_a_folded_root_passes_on_the_findings_it_explains() -> None:
    report = analyzed(
        of_guests("volume-size-mismatch", "vm-plain"),
        of_guests("bdm-not-in-guest", "vm-plain"),
        of_guests("bdm-attachment-or-volume-missing", "vm-plain"),
        of_host("capture-untrustworthy"),
    )

    # The capture's evidence is of nova, and these are of libvirt: it explains them not.
    assert _tree(report)[0] == ("volume-size-mismatch of vm-plain", [])
    assert _tree(report)[1:] == [
        ("bdm-attachment-or-volume-missing of vm-plain", ["bdm-not-in-guest of vm-plain"]),
        ("capture-untrustworthy", []),
    ]


def test_an_untrustworthy_capture_explains_findings_of_the_doubted_layer() -> None:
    def capture_untrustworthy(host: Host) -> Problems:
        yield (hears(host.census["libvirt"], "libvirt", guests=0),)

    report = analyzed(
        of_guests("bdm-not-in-guest", "vm-plain"),
        of_guests("bdm-attachment-or-volume-missing", "vm-plain"),
        check(Severity.ERROR)(capture_untrustworthy),
    )

    assert _tree(report) == [
        (
            "capture-untrustworthy",
            ["bdm-not-in-guest of vm-plain", "bdm-attachment-or-volume-missing of vm-plain"],
        )
    ]


def test_a_guest_named_in_the_evidence_explains_a_finding_about_the_host() -> None:
    uuid = _uuid("vm-plain")
    root = of_guests("live-migration-half-done", "vm-plain")

    named = analyzed(root, of_host("volume-attached-twice", f"one of {uuid}"))
    other = analyzed(root, of_host("volume-attached-twice", "one of somebody else"))

    assert _tree(named) == [
        ("live-migration-half-done of vm-plain", ["volume-attached-twice"]),
    ]
    assert _tree(other) == [
        ("live-migration-half-done of vm-plain", []),
        ("volume-attached-twice", []),
    ]


def test_a_host_named_in_the_evidence_explains_a_finding_about_the_cloud() -> None:
    root = of_host("host-identity-changed")
    [host] = analyzed().cloud.hosts

    named = analyzed(root, of_cloud("provider-vs-compute-node", host.name))
    other = analyzed(root, of_cloud("provider-vs-compute-node", f"{host.name}-2"))

    assert _tree(named) == [("host-identity-changed", ["provider-vs-compute-node"])]
    assert sorted(_tree(other)) == [("host-identity-changed", []), ("provider-vs-compute-node", [])]


def test_the_worst_folded_finding_counts_for_the_root() -> None:
    report = analyzed(
        of_guests("vcpu-chain-mismatch", "vm-duo", severity=Severity.WARNING),
        of_guests("domain-running-on-wrong-host", "vm-plain"),
        of_host("host-identity-changed"),
    )

    first, second = report.findings
    assert (first.check.name, first.severity) == ("host-identity-changed", Severity.WARNING)
    assert first.worst is report.worst is Severity.ERROR
    assert second.worst is Severity.WARNING


def test_a_finding_of_nearly_all_guests_becomes_one_finding_of_the_host() -> None:
    report = analyzed(of_guests("port-binding-bad"))

    [finding] = report.findings
    [host] = report.cloud.hosts
    guests = report.cloud.guests_of(host)
    with_domain = [guest for guest in guests if guest.domain]
    assert finding.shared is not None
    assert (finding.guest, finding.host) == (None, host.name)
    assert list(finding.shared.guests) == with_domain
    assert finding.shared.among == len(guests)
    assert [one.guest for one in finding.folded] == with_domain
    assert finding.evidence == finding.folded[0].evidence


def test_the_example_of_a_shared_finding_is_the_guest_whose_evidence_it_shows(
    host: RecordedHost,
) -> None:
    """A folder that only nova may enter; vm-stopped and vm-suspended need it at once."""
    base = f"{host.top}/_base"
    host.file(base, mode="40700")

    [finding] = host.report().findings
    assert finding.shared is not None
    example = finding.shared.guests[0]
    evidence = next(one.evidence for one in finding.folded if one.guest is example)
    assert finding.evidence == evidence
    assert finding.severity is Severity.ERROR
    assert finding.headline == (
        f"13 of 14 guests on vm: for example, {example.name}'s QEMU (user 64055:64055) can't enter"
        f" {base}: mode 0700, owner nova:nova"
    )
    assert finding.shared.path == base


def test_a_finding_of_only_some_guests_stays_theirs() -> None:
    names = [guest.name for guest in analyzed().cloud.guests if guest.host and guest.domain]
    some = names[: len(names) * 7 // 10]

    report = analyzed(of_guests("port-binding-bad", *some))

    assert len(report.findings) == len(some)
    assert {finding.shared for finding in report.findings} == {None}


def test_two_guests_are_not_a_crowd() -> None:
    bundle = healthy()
    uuids = {_uuid("vm-plain"), _uuid("vm-duo")}
    listed = bundle.last("libvirt", "virsh list --all")
    assert listed is not None
    kept = [line for line in listed.value if line["uuid"] in uuids]
    answers = [
        answer.model_copy(update={"value": kept}) if answer.query == listed.query else answer
        for answer in bundle.answers
        if answer.layer == "libvirt" and (answer.subject in uuids or not answer.subject)
    ]

    report = analyze(bundle.with_answers(answers), (of_guests("port-binding-bad"),))

    assert len(report.cloud.guests) == 2
    assert {finding.guest and finding.guest.uuid for finding in report.findings} == uuids


def test_a_shared_finding_has_the_worst_severity() -> None:
    def port_binding_bad(guest: Guest, domain: Domain) -> Problems:
        severity = Severity.ERROR if guest.name == "vm-plain" else Severity.NOTE
        yield Problem(severity, (says(domain, name=domain.name),))

    report = analyzed(check(Severity.WARNING)(port_binding_bad))

    [finding] = report.findings
    assert finding.severity is Severity.ERROR
    assert str(finding.evidence[0]).startswith("domain reports name = ")
    assert finding.evidence == next(
        one.evidence for one in finding.folded if one.guest and one.guest.name == "vm-plain"
    )


def test_a_crowd_may_have_its_own_cause_and_explain_other_findings() -> None:
    report = analyzed(
        of_guests("io-error-paused"),
        of_guests("qemu-monitor-dead", "vm-plain"),
        of_guests("port-binding-bad", "vm-plain"),
    )

    storage, port = report.findings
    assert storage.shared and storage.shared.cause == "the guests' storage failed or is full"
    assert [one.check.name for one in storage.folded if one.check is not storage.check] == [
        "qemu-monitor-dead"
    ]
    assert port.check.name == "port-binding-bad"


def test_of_two_crowds_the_first_explains_the_other() -> None:
    report = analyzed(of_guests("qemu-without-domain"), of_guests("server-without-domain"))

    [finding] = report.findings
    assert finding.check.name == "server-without-domain"
    assert {one.check.name for one in finding.folded} == {
        "server-without-domain", "qemu-without-domain",
    }  # fmt: skip


def test_nothing_is_lost() -> None:
    catalog = [of_guests(name) for names in ROOTS.values() for name in names]
    catalog += [of_guests(name, "vm-plain") for name in CROWDS]
    catalog += [of_host(name) for name in ROOTS]
    each = {one.name: one for one in catalog}

    report = analyzed(*each.values())
    found = [one for one in report.everything() if one.shared is None]

    alone = [analyze(healthy(), (one,)) for one in each.values()]
    expected = [one for report in alone for one in report.everything() if one.shared is None]
    assert sorted(map(shown, found)) == sorted(map(shown, expected))
    assert len(report.findings) < len(expected) / 10


def test_a_check_that_finds_more_than_a_handful_is_doubted() -> None:
    names = [guest.name for guest in analyzed().cloud.guests if guest.host and guest.domain]

    assert analyzed(of_guests("port-binding-bad", *names[:5])).crowds == {}
    assert analyzed(of_guests("port-binding-bad", *names[:6])).crowds == {"port-binding-bad": 6}
    assert analyzed(of_guests("port-binding-bad")).crowds == {}, "that is one finding"


@pytest.mark.parametrize("root", ROOTS)
def test_a_root_stands_before_the_roots_it_explains(root: str) -> None:
    order = list(ROOTS)

    explaining = [name for name, explained in ROOTS.items() if root in explained]
    assert all(order.index(name) < order.index(root) for name in explaining)


def test_a_renamed_host_of_a_thousand_guests_is_one_finding() -> None:
    report = analyze(
        many(healthy(), 1000),
        (
            of_host("host-identity-changed"),
            of_guests("domain-running-on-wrong-host"),
            of_guests("allocation-wrong-provider"),
        ),
    )

    [finding] = report.findings
    assert finding.check.name == "host-identity-changed"
    assert len(finding.folded) > 1500


def test_only_guests_that_a_check_applies_to_count_for_nearly_all() -> None:
    """Twelve of sixteen guests have a process: a check of processes can find no more."""

    def qemu_monitor_dead(guest: Guest, process: Process) -> Problems:
        yield (says(process, pid=process.pid),)

    report = analyzed(check(Severity.ERROR)(qemu_monitor_dead))

    [finding] = report.findings
    [host] = report.cloud.hosts
    running = [guest for guest in report.cloud.guests_of(host) if guest.process is not None]
    assert finding.shared is not None
    assert finding.shared.among == len(running) < len(report.cloud.guests_of(host))
