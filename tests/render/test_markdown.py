"""The report for a bug tracker."""

from __future__ import annotations

import re
from dataclasses import replace

from bench.many import many
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.command import hoodsnap
from tests.conftest import HEALTHY, RecordedHost, healthy
from tests.findings.test_folding import of_guests

from hoodsnap.findings.analysis import analyze
from hoodsnap.render import markdown
from hoodsnap.trust.fingerprint import fingerprint


def rendered(host: RecordedHost, *names: str, walk: bool = False) -> str:
    report = host.report()
    guests = [guest for guest in report.cloud.guests if not names or guest.name in names]
    return markdown.render(report, guests, walk=walk)


def outside_code(document: str) -> str:
    """Return what is rendered as text: without fenced blocks and spans of code."""
    kept, fence = [], ""
    for line in document.splitlines():
        ticks = line[: len(line) - len(line.lstrip("`"))]
        if fence:
            fence = "" if line == fence else fence
        elif len(ticks) >= 3 and "`" not in line[len(ticks) :]:  # otherwise it is a span
            fence = ticks
        else:
            kept.append(line)
    assert not fence
    # A span ends at the next run of as many backticks.
    return re.sub(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)", "", "\n".join(kept))


def test_it_contains_versions_fingerprint_guest_and_findings(host: RecordedHost) -> None:
    host.end("vm-plain")
    version = host.last("host", "nova-compute --version").value

    document = rendered(host, "vm-plain")

    assert f"nova-compute: {version}" in document
    assert fingerprint(host.bundle) in document
    heading = f"### ✗ ERROR domain-without-qemu: `vm-plain  {host.uuid('vm-plain')}`"
    assert heading in document.splitlines()
    assert "1 error in 1 of 1 server: vm-plain" in document
    assert host.uuid("vm-duo") not in document


def test_evidence_is_unfolded_on_demand_and_commands_are_blocks(host: RecordedHost) -> None:
    host.end("vm-plain")
    lines = rendered(host, "vm-plain").splitlines()

    at = lines.index("<details><summary>Evidence</summary>")
    assert lines[at + 1 : at + 3] == ["", "```text"]
    assert lines[lines.index("```", at + 3) : lines.index("</details>")] == ["```", ""]
    name = host.domain("vm-plain")
    look = lines.index("```sh")
    assert any(name in line for line in lines[look : lines.index("```", look)])
    assert "More: `hoodsnap checks domain-without-qemu`" in lines


def test_the_walk_is_added_for_chosen_servers(host: RecordedHost) -> None:
    assert "  allocation 1 VCPU" not in rendered(host, "vm-plain")
    assert "  allocation 1 VCPU" in rendered(host, "vm-plain", walk=True)


def test_many_findings_of_one_check_are_one_section() -> None:
    report = analyze(many(healthy(), 500), (of_guests("port-binding-bad", "vm-plain", "vm-duo"),))
    document = markdown.render(report, report.cloud.guests)

    assert len(report.findings) > 50
    assert document.count("### ✗ ERROR port-binding-bad") == 1
    assert f"{len(report.findings)} findings in " in document
    assert len(document) < 10_000


def test_a_changed_bundle_is_not_called_unchanged(host: RecordedHost) -> None:
    assert " (unchanged)" in rendered(host)

    host.end("vm-plain")

    assert " (changed since collection, or never sealed)" in rendered(host)


EVIL = "x` ````\n# @everyone <img src=x> ``` </details> https://evil.example ~~~ #1"


def test_recorded_text_can_not_leave_its_code(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-plain"), display_name=EVIL)
    host.end("vm-plain")

    for walk in (False, True):
        document = rendered(host, walk=walk)
        assert document.count("everyone") > 2
        for word in ("everyone", "<img", "evil.example", "#1", "~~~"):
            assert word not in outside_code(document)
        assert outside_code(document).count("</details>") == document.count("<details>")


@given(st.text("`x ~\n\\*", max_size=24))
@settings(max_examples=15)
def test_no_name_leaves_its_code(name: str) -> None:
    host = RecordedHost(healthy())
    host.row("instances", host.uuid("vm-plain"), display_name=f"{name}@all")
    host.end("vm-plain")

    document = rendered(host)

    assert "@all" in document
    assert "@all" not in outside_code(document)


def test_it_fits_into_a_tracker_and_keeps_the_last_line(host: RecordedHost) -> None:
    name = "x" * (2 * markdown.LIMIT)
    host.row("instances", host.uuid("vm-plain"), display_name=name)
    host.server(host.uuid("vm-plain"), name=name)
    host.end("vm-plain")

    document = rendered(host)

    assert len(document) <= markdown.LIMIT
    assert "\n1 error, 1 note in 1 of 16 servers:" in document
    assert "### ✗ ERROR domain-without-qemu" in document


def test_findings_that_do_not_fit_are_counted() -> None:
    names = [f"a-check-{number}" for number in range(120)]
    report = analyze(healthy(), tuple(of_guests(name, "vm-plain") for name in names))
    long = [replace(one, headline=f"{one.check.name} {'x' * 1000}") for one in report.findings]

    document = markdown.render(replace(report, findings=tuple(long)), report.cloud.guests)

    assert len(document) <= markdown.LIMIT
    left = int(document.splitlines()[-1].split()[0])
    shown = document.count("### ✗ ERROR a-check-")
    assert (shown + left, left > 0) == (120, True)


def test_the_command_writes_it() -> None:
    done = hoodsnap("explain", "--format", "markdown", "--server", "vm-plain", HEALTHY)

    assert done.returncode == 0
    assert done.stdout.startswith(b"### hoodsnap ")
