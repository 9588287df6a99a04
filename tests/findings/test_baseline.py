"""`hoodsnap check`, and a baseline of accepted findings."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.command import hoodsnap
from tests.conftest import HEALTHY, RecordedHost
from tests.findings.test_folding import analyzed, of_guests, of_host

from hoodsnap.bundle import save
from hoodsnap.findings.baseline import BaselineEntry, fingerprint, part, read, written
from hoodsnap.findings.finding import Finding

TODAY = datetime.now(UTC).date()


def _switch_off(host: RecordedHost, *names: str) -> None:
    for name in names:
        host.end(name)
        query = f"virsh domstate --reason {host.domain(name)}"
        host.set("libvirt", query, {"state": 5, "reason": 3})


@pytest.fixture
def broken(host: RecordedHost, tmp_path: Path) -> Path:
    """A bundle with one error."""
    _switch_off(host, "vm-plain")
    save(host.bundle, tmp_path / "broken.json")
    return tmp_path / "broken.json"


def _written(bundle: Path, to: Path, *, reason: str = "known", days: int = 10) -> None:
    """A baseline of a bundle's findings, filled in."""
    assert hoodsnap("check", bundle, "--write-baseline", to).returncode == 0
    entries = to.read_text().replace('reason = ""', f'reason = "{reason}"')
    last = next(line for line in entries.splitlines() if line.startswith("expires"))
    to.write_text(entries.replace(last, f"expires = {TODAY + timedelta(days=days)}"))


def _entries(findings: Iterable[Finding], path: Path) -> tuple[BaselineEntry, ...]:
    """Return the baseline entries written for these findings, with a reason."""
    path.write_text(
        written(part(findings, (), TODAY), TODAY).replace('reason = ""', 'reason = "x"')
    )
    return read(path)


def test_a_healthy_cloud_gives_cron_no_output() -> None:
    done = hoodsnap("check", HEALTHY)

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_finding_is_a_line(broken: Path, host: RecordedHost) -> None:
    done = hoodsnap("check", broken)

    assert done.returncode == 1
    assert done.stdout.decode() == (
        f"error active-but-domain-off vm {host.uuid('vm-plain')} vm-plain:"
        " vm-plain is active in nova, but its domain is shut off (crashed)"
        " [instance reports vm_state = active; domain reports state = shut off (crashed)]\n"
    )


def test_as_text_it_is_the_whole_finding_and_no_walk(broken: Path, host: RecordedHost) -> None:
    lines = hoodsnap("check", broken, "--format", "text").stdout.decode().splitlines()

    assert lines[0] == f"✗ ERROR active-but-domain-off  vm-plain  {host.uuid('vm-plain')}"
    assert not any(line.startswith(("  server ", "✓")) for line in lines)


def test_as_json_it_is_the_report_of_the_guests_with_findings(
    broken: Path, host: RecordedHost
) -> None:
    report = json.loads(hoodsnap("check", broken, "--format", "json").stdout)

    assert [guest["uuid"] for guest in report["guests"]] == [host.uuid("vm-plain")]
    assert [finding["check"] for finding in report["findings"]] == ["active-but-domain-off"]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--select", "state"], 1),
        (["--select", "active-*"], 1),
        (["--select", "identity,state"], 1),
        (["--select", "identity"], 0),
        (["--ignore", "state"], 0),
        (["--ignore", "active-but-domain-off"], 0),
        (["--select", "state", "--ignore", "active-but-*"], 0),
        (["--fail-on", "never"], 0),
    ],
)
def test_only_the_named_checks_are_run(broken: Path, arguments: list[str], status: int) -> None:
    assert hoodsnap("check", broken, *arguments).returncode == status


def test_an_unknown_check_is_a_usage_error(broken: Path) -> None:
    done = hoodsnap("check", broken, "--ignore", "active-but-domain-of")

    assert done.returncode == 2
    assert b"no check or topic matches active-but-domain-of" in done.stderr


def test_a_layer_that_was_not_collected_is_reported(host: RecordedHost, tmp_path: Path) -> None:
    host.silence("libvirt")
    save(host.bundle, tmp_path / "deaf.json")

    done = hoodsnap("check", tmp_path / "deaf.json")

    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr == b"hoodsnap: not collected: libvirt of vm (no answer)\n"


def test_an_accepted_finding_is_not_reported(broken: Path, tmp_path: Path) -> None:
    _written(broken, tmp_path / "accepted.toml")

    done = hoodsnap("check", broken, "--baseline", tmp_path / "accepted.toml")

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_without_a_reason_nothing_is_accepted(broken: Path, tmp_path: Path) -> None:
    _written(broken, tmp_path / "accepted.toml", reason="")

    done = hoodsnap("check", broken, "--baseline", tmp_path / "accepted.toml")

    assert done.returncode == 1
    assert b"has no reason, so it accepts nothing" in done.stderr


@pytest.mark.parametrize(("days", "status"), [(0, 0), (-1, 1)])
def test_an_entry_is_valid_through_its_last_day(
    broken: Path, tmp_path: Path, days: int, status: int
) -> None:
    _written(broken, tmp_path / "accepted.toml", days=days)

    done = hoodsnap("check", broken, "--baseline", tmp_path / "accepted.toml")

    assert done.returncode == status
    said = f"was accepted until {TODAY + timedelta(days=days)} (known)"
    assert (said.encode() in done.stderr) is (days < 0)


def test_an_entry_still_matches_after_another_capture(
    host: RecordedHost, broken: Path, tmp_path: Path
) -> None:
    _written(broken, tmp_path / "accepted.toml")
    later = [
        answer.model_copy(update={"at": answer.at + timedelta(days=3), "took": answer.took * 2})
        for answer in host.bundle.answers
    ]
    save(host.bundle.with_answers(later), tmp_path / "later.json")

    done = hoodsnap(
        "check", tmp_path / "later.json", "--select", "state",
        "--baseline", tmp_path / "accepted.toml",
    )  # fmt: skip

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_another_process_id_is_the_same_finding(host: RecordedHost, tmp_path: Path) -> None:
    """The fingerprint of a finding about a process stays the same after its restart."""

    def first(pid: int) -> str:
        files = host.last("kernel", f"ls -lL /proc/{host.pid('vm-plain')}/fd").value
        disk = next(file for file in files if file["path"].endswith("/disk"))
        other = RecordedHost(host.bundle)
        query = f"ls -lL /proc/{host.pid('vm-duo')}/fd"
        other.set("kernel", query, [*other.last("kernel", query).value, disk])
        listed = json.dumps(other.last("kernel", "ls -l /proc/*/exe").value)
        own = host.pid("vm-plain")
        answers = []
        for answer in other.bundle.answers:
            if answer.layer == "kernel" and answer.subject == str(own):
                answer = answer.model_copy(
                    update={
                        "subject": str(pid),
                        "query": answer.query.replace(f"/proc/{own}/", f"/proc/{pid}/"),
                    }
                )
            answers.append(answer)
        other.bundle = other.bundle.with_answers(answers)
        other.set(
            "kernel", "ls -l /proc/*/exe",
            json.loads(listed.replace(f'"pid": {own}', f'"pid": {pid}')),
        )  # fmt: skip
        [finding] = [
            one
            for one in other.report().findings
            if one.guest
            and one.guest.name == "vm-plain"
            and one.check.name == "disk-shared-by-two-qemu"
        ]
        return fingerprint(finding)

    assert first(host.pid("vm-plain")) == first(4_000_001)


def test_other_evidence_is_another_finding(
    host: RecordedHost, broken: Path, tmp_path: Path
) -> None:
    _written(broken, tmp_path / "accepted.toml")
    query = f"virsh domstate --reason {host.domain('vm-plain')}"
    host.set("libvirt", query, {"state": 5, "reason": 2})
    save(host.bundle, tmp_path / "other.json")

    done = hoodsnap("check", tmp_path / "other.json", "--baseline", tmp_path / "accepted.toml")

    assert done.returncode == 1
    assert b"shut off (destroyed)" in done.stdout


def test_an_omitted_field_matches_anything(broken: Path, tmp_path: Path) -> None:
    (tmp_path / "accepted.toml").write_text(
        f'[[accepted]]\ncheck = "active-but-domain-off"\nreason = "a drill"\nexpires = {TODAY}\n'
    )

    assert hoodsnap("check", broken, "--baseline", tmp_path / "accepted.toml").returncode == 0


def test_an_entry_without_a_finding_is_removed_once_and_on_request(
    broken: Path, tmp_path: Path
) -> None:
    accepted = tmp_path / "accepted.toml"
    _written(broken, accepted)
    before = accepted.read_text()

    quiet = hoodsnap("check", HEALTHY, "--baseline", accepted)

    assert (quiet.returncode, quiet.stderr, accepted.read_text()) == (0, b"", before)
    first = hoodsnap("check", HEALTHY, "--baseline", accepted, "--prune")
    assert b"removed active-but-domain-off" in first.stderr
    assert b"which matches no finding" in first.stderr
    assert "[[accepted]]" not in accepted.read_text()
    assert hoodsnap("check", HEALTHY, "--baseline", accepted, "--prune").stderr == b""


def test_an_entry_of_a_check_that_could_not_be_decided_stays(
    host: RecordedHost, broken: Path, tmp_path: Path
) -> None:
    accepted = tmp_path / "accepted.toml"
    _written(broken, accepted)
    host.silence("libvirt")
    save(host.bundle, tmp_path / "silent.json")

    done = hoodsnap("check", tmp_path / "silent.json", "--baseline", accepted, "--prune")

    assert b"removed" not in done.stderr
    assert 'check = "active-but-domain-off"' in accepted.read_text()


def test_only_a_whole_report_prunes(broken: Path, tmp_path: Path) -> None:
    """A check or server that is left out would seem to match nothing."""
    _written(broken, tmp_path / "accepted.toml")
    accepted = ("--baseline", tmp_path / "accepted.toml", "--prune")

    for others in (("--select", "shape"), ("--ignore", "shape"), ("--server", "vm-duo")):
        assert hoodsnap("check", broken, *accepted, *others).returncode == 2
    assert hoodsnap("check", broken, "--prune").returncode == 2


def test_a_baseline_is_brought_up_to_date(host: RecordedHost, broken: Path, tmp_path: Path) -> None:
    path = tmp_path / "accepted.toml"
    _written(broken, path)
    _switch_off(host, "vm-duo")
    save(host.bundle, tmp_path / "two.json")

    assert hoodsnap("check", tmp_path / "two.json", "--write-baseline", path).returncode == 2
    done = hoodsnap("check", tmp_path / "two.json", "--baseline", path, "--write-baseline", path)

    assert done.returncode == 0
    entries = tomllib.loads(path.read_text())["accepted"]
    assert [(entry["server"], entry["reason"]) for entry in entries] == [
        (host.uuid("vm-plain"), "known"),
        (host.uuid("vm-duo"), ""),
    ]


def test_a_strangers_text_is_escaped_in_toml(host: RecordedHost, tmp_path: Path) -> None:
    host.row("instances", host.uuid("vm-plain"), vm_state='a"\n[[x]]\x7f\udc80')
    save(host.bundle, tmp_path / "odd.json")
    hoodsnap("check", tmp_path / "odd.json", "--write-baseline", tmp_path / "accepted.toml")

    tomllib.loads((tmp_path / "accepted.toml").read_text())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[[accepted", "it is not valid TOML: "),
        ("[accepted]", "it holds something other than [[accepted]] entries"),
        ("findings = []", "it holds something other than [[accepted]] entries"),
        ('[[accepted]]\ncheck = "x"', "entry 1 has no reason"),
        ('[[accepted]]\ncheck = "x"\nreason = "y"', "entry 1 has no expires"),
        ('[[accepted]]\ncheck = 3', "the check of entry 1 is not a string"),
        ('[[accepted]]\nuntil = 3', "entry 1 has an unknown field: until"),
        ('[[accepted]]\nexpires = "2027-01-01"', "the expires of entry 1 is not a date"),
    ],
)  # fmt: skip
def test_an_unreadable_baseline_is_refused_in_one_sentence(
    tmp_path: Path, text: str, reason: str
) -> None:
    (tmp_path / "bad.toml").write_text(text)

    done = hoodsnap("check", HEALTHY, "--baseline", tmp_path / "bad.toml")

    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().startswith(f"hoodsnap: {tmp_path}/bad.toml can't be read: {reason}")
    assert done.stderr.count(b"\n") == 1


def test_a_root_is_accepted_only_with_the_findings_it_explained(tmp_path: Path) -> None:
    root = of_host("host-identity-changed")
    ports = of_guests("port-bound-elsewhere", "vm-plain")
    guests = of_guests("domain-running-on-wrong-host", "vm-plain")
    entries = _entries(analyzed(root, ports).findings, tmp_path / "a")

    assert part(analyzed(root, ports).findings, entries, TODAY).remaining == ()
    assert part(analyzed(root).findings, entries, TODAY).remaining == ()
    assert len(part(analyzed(root, ports, guests).findings, entries, TODAY).remaining) == 1


def test_a_finding_shared_on_a_host_is_one_entry(tmp_path: Path) -> None:
    everybody = analyzed(of_guests("port-binding-bad"))
    some = analyzed(of_guests("port-binding-bad", "vm-plain", "vm-duo"))
    entries = _entries(everybody.findings, tmp_path / "a")

    assert len(entries) == 1
    assert part(everybody.findings, entries, TODAY).remaining == ()
    assert part(some.findings, entries, TODAY).remaining == ()
