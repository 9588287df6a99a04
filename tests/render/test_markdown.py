"""The report for a bug tracker."""

from __future__ import annotations

from tests.command import hoodsnap
from tests.conftest import HEALTHY, RecordedHost

from hoodsnap.render import markdown
from hoodsnap.trust.fingerprint import fingerprint


def rendered(host: RecordedHost, *names: str) -> str:
    report = host.report()
    guests = [guest for guest in report.cloud.guests if not names or guest.name in names]
    return markdown.render(report, guests)


def test_it_contains_versions_fingerprint_guest_and_findings(host: RecordedHost) -> None:
    host.end("vm-plain")
    version = host.last("host", "nova-compute --version").value

    document = rendered(host, "vm-plain")

    assert f"nova-compute: {version}" in document
    assert fingerprint(host.bundle) in document
    assert "ERROR domain-without-qemu" in document
    assert host.uuid("vm-plain") in document
    assert host.uuid("vm-duo") not in document


def test_a_changed_bundle_is_not_called_unchanged(host: RecordedHost) -> None:
    assert " (unchanged)" in rendered(host)

    host.end("vm-plain")

    assert " (changed since collection, or never sealed)" in rendered(host)


def test_recorded_text_can_not_leave_its_block(host: RecordedHost) -> None:
    name = "x ````\n# @everyone <img src=x> ```"
    host.row("instances", host.uuid("vm-plain"), display_name=name)
    host.end("vm-plain")

    lines = rendered(host).splitlines()

    fences = [number for number, line in enumerate(lines) if line.lstrip("`") in ("", "text")]
    fences = [number for number in fences if lines[number].startswith("```")]
    assert len(fences) == 4
    _, _, start, last = fences
    assert last == len(lines) - 1
    for number, line in enumerate(lines):
        if "everyone" in line:
            assert start < number < last
            assert "`" * len(lines[last]) not in line


def test_it_fits_into_a_tracker_and_keeps_the_verdict(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-plain"), display_name="x" * (2 * markdown.LIMIT))
    host.end("vm-plain")

    document = rendered(host)

    assert len(document) <= markdown.LIMIT
    assert "lines left out" in document
    assert document.endswith("```\n")


def test_the_command_writes_it() -> None:
    done = hoodsnap("explain", "--format", "markdown", "--server", "vm-plain", HEALTHY)

    assert done.returncode == 0
    assert done.stdout.startswith(b"### hoodsnap ")
