"""Many findings, and what follows from each of them, as text and as JSON."""

from __future__ import annotations

import json

from bench.many import many
from tests.conftest import RecordedHost, healthy
from tests.findings.test_folding import of_guests, of_host

from hoodsnap.check import Check, Problems, check
from hoodsnap.evidence import Severity, says
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import UnheardError
from hoodsnap.findings.analysis import Report, analyze
from hoodsnap.findings.gating import closed_by
from hoodsnap.render import json as as_json
from hoodsnap.render.text import render


def _lines(report: Report, *, width: int = 80, verbose: bool = False) -> list[str]:
    guests = report.cloud.guests
    return [line.plain for line in render(report, guests, width=width, verbose=verbose)]


def _report(*catalog: Check, count: int = 0) -> Report:
    bundle = many(healthy(), count) if count else healthy()
    return analyze(bundle, catalog)


RENAMED = (
    of_host("host-identity-changed"),
    of_guests("domain-running-on-wrong-host"),
    of_guests("port-bound-elsewhere", "vm-plain"),
)


def test_a_root_names_what_it_explains() -> None:
    report = _report(*RENAMED)
    lines = _lines(report)
    count = sum(guest.domain is not None for guest in report.cloud.guests)

    at = lines.index("! WARNING host-identity-changed on host vm")
    words = " ".join(" ".join(lines[at:]).split())
    assert f"explains domain-running-on-wrong-host (error, {count} times), port-bound" in words
    assert not any(line.endswith("ERROR domain-running-on-wrong-host") for line in lines)
    verdict = f" guests: 1 warning ({count + 1} more folded under them)"
    assert any(line.endswith(verdict) for line in lines)


def test_verbose_shows_what_is_folded_with_its_evidence() -> None:
    lines = _lines(_report(*RENAMED), verbose=True)

    assert "    ✗ domain-running-on-wrong-host of vm-duo" in lines
    at = lines.index("    ✗ port-bound-elsewhere of vm-plain")
    assert lines[at + 1].startswith("      domain reports uuid = ")


def test_a_guest_whose_findings_are_folded_elsewhere_is_not_called_healthy() -> None:
    report = _report(*RENAMED)
    lines = _lines(report)

    for guest in report.cloud.guests:
        start = lines.index(f"  {guest.name}  {guest.uuid}")
        end = lines.index("", start)
        agrees = "    ✓ the collected layers agree" in lines[start:end]
        told = "    ✗ domain-running-on-wrong-host" in "\n".join(lines[start:end])
        assert (agrees, told) == (guest.domain is None, guest.domain is not None)


def test_a_finding_shared_by_all_guests_is_rendered_once_with_a_caution() -> None:
    report = _report(of_guests("io-error-paused"), count=500)
    lines = _lines(report)
    count = len(report.cloud.guests_of(report.cloud.hosts[0]))
    words = " ".join(" ".join(lines).split())

    assert sum("io-error-paused" in line for line in lines) < 4
    assert f"{count} of {count} guests: " in words
    caution = "caution So many findings at once are rarely so many faults."
    assert f"and {count - 5} more {caution}" in words
    assert "If the findings are real, the guests' storage failed or is full." in words
    assert any(line == f"  ✗ {count} guests with findings reported below" for line in lines)
    assert len(lines) < 50


def test_a_check_that_fires_too_often_is_doubted_and_shortened_to_lines() -> None:
    some = ("vm-plain", "vm-duo", "vm-snap", "vm-config")
    report = _report(of_guests("port-binding-bad", *some), count=500)
    lines = _lines(report)

    count = sum(finding.check.name == "port-binding-bad" for finding in report.findings)
    assert count > 100
    assert sum(line == "    ✗ ERROR port-binding-bad" for line in lines) == 5
    assert sum(line.startswith("    ✗ port-binding-bad: ") for line in lines) == count - 5
    assert f"  port-binding-bad ({count} times)" in lines


def test_advice_is_given_in_full_once(host: RecordedHost) -> None:
    files = host.last("kernel", f"ls -lL /proc/{host.pid('vm-plain')}/fd").value
    disk = next(file for file in files if file["path"].endswith("/disk"))
    query = f"ls -lL /proc/{host.pid('vm-duo')}/fd"
    host.set("kernel", query, [*host.last("kernel", query).value, disk])
    lines = _lines(host.report())

    assert sum(line.startswith("      why ") for line in lines) == 1
    assert sum(line.startswith("      next ") for line in lines) == 2
    head = "      not yet  while disk-shared-by-two-qemu is unresolved"
    first, second = (at for at, line in enumerate(lines) if line.startswith(head))
    assert "openstack server reboot --hard UUID" in lines[first + 1]
    [shared, *_] = host.report().findings
    count = len(closed_by([shared]))
    assert lines[second : second + 2] == [
        f"{head}: the same {count} commands",
        "               as above",
    ]
    assert all(len(line) <= 80 for line in lines[first : lines.index("", first)])


def test_each_command_of_the_advice_stands_alone(host: RecordedHost) -> None:
    name, pid = host.domain("vm-plain"), host.pid("vm-plain")
    host.remove(f"{host.folder('vm-plain')}/disk")
    lines = _lines(host.report())

    at = lines.index(f"                 ls -l /proc/{pid}/fd")
    first = lines.index(f"                 virsh suspend {name}")
    assert lines[at + 1] == f"                 ls -lLi /proc/{pid}/fd"
    assert lines[at + 2].startswith("               If the file was deleted")
    assert lines[first + 1 : first + 3] == [
        f"                 cp --sparse=always /proc/{pid}/fd/14 COPY",
        f"                 virsh resume {name}",
    ]


def test_commands_gated_by_undecided_checks_are_counted(host: RecordedHost) -> None:
    host.silence("kernel", "denied")
    query = f"virsh domstate --reason {host.domain('vm-plain')}"
    host.set("libvirt", query, {"state": 5, "reason": 3})
    report = host.report()

    shown = " ".join(" ".join(_lines(report)).split())
    held = "other dangerous commands are on hold: checks that gate them could not be decided"
    assert held in shown
    named = " ".join(" ".join(_lines(report, verbose=True)).split())
    assert "on hold openstack server reboot --hard UUID: disk-shared-by-two-qemu, " in named


def _unheard(kinds: int) -> Check:
    def info_cache_lost(guest: Guest, host: Host | None, cloud: Cloud, domain: Domain) -> Problems:
        if host is not None:
            number = cloud.guests_of(host).index(guest) % kinds
            raise UnheardError(f"{'abcdefghijklmnop'[number]} of {guest.uuid} was not collected")
        yield (says(domain, name=domain.name),)

    return check(Severity.ERROR)(info_cache_lost)


def test_reasons_that_differ_in_an_identifier_are_one() -> None:
    report = _report(_unheard(kinds=1))
    lines = _lines(report)
    count = sum(guest.domain is not None for guest in report.cloud.guests)
    words = " ".join(" ".join(lines[lines.index("What this bundle cannot tell") :]).split())

    assert words.count("was not collected") == 1
    assert f"was not collected (and {count - 1} similar) [{count} guests]" in words


def test_reasons_beyond_the_limit_are_counted() -> None:
    report = _report(_unheard(kinds=13))

    assert "  4 other reasons (--verbose shows them)" in _lines(report)
    asked = sum(guest.domain is not None for guest in report.cloud.guests)
    assert sum("was not collected" in line for line in _lines(report, verbose=True)) == asked


def test_json_leaves_nothing_out() -> None:
    report = _report(*RENAMED, of_guests("port-binding-bad"))
    told = json.loads(as_json.render(report, report.cloud.guests))

    root, shared = sorted(told["findings"], key=lambda finding: finding["check"])
    assert (root["check"], root["severity"], root["worst"]) == (
        "host-identity-changed", "warning", "error",
    )  # fmt: skip
    assert len(root["folded"]) == len(shared["folded"]) + 1
    assert all(one["evidence"] and one["guest"] for one in root["folded"])
    assert (shared["check"], shared["guest"], shared["host"]) == ("port-binding-bad", None, "vm")
    assert shared["shared"]["among"] == len(report.cloud.guests_of(report.cloud.hosts[0]))
    assert shared["shared"]["guests"] == [one["guest"] for one in shared["folded"]]
    assert "systemctl restart nova-compute" in root["forbids"]
    plain = next(guest for guest in told["guests"] if guest["name"] == "vm-plain")
    restart = next(
        one for one in plain["not_yet"] if one["command"] == "systemctl restart nova-compute"
    )
    assert restart["forbidden_by"] == ["host-identity-changed"]
