"""Many findings, and what follows from each of them, as text and as JSON."""

from __future__ import annotations

import json

from bench.many import many
from tests.conftest import FAULTS, RecordedHost, healthy
from tests.findings.test_folding import of_guests, of_host

from hoodsnap.bundle import load
from hoodsnap.check import Check, Problems, check, problem
from hoodsnap.evidence import Severity, says
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import UnheardError
from hoodsnap.findings.analysis import Report, analyze
from hoodsnap.findings.grouping import grouped
from hoodsnap.render import json as as_json
from hoodsnap.render.finding import row
from hoodsnap.render.line import UNBOUNDED
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

    at = lines.index("! WARNING host-identity-changed  host vm")
    words = " ".join(" ".join(lines[at:]).split())
    assert f"explains domain-running-on-wrong-host (error, {count} times), port-bound" in words
    assert not any(line.startswith("✗ ERROR domain-running-on-wrong-host") for line in lines)
    verdict = f"1 warning ({count + 1} more folded) in {count} of "
    assert any(line.startswith(verdict) for line in lines)


def test_verbose_shows_what_is_folded_with_its_evidence() -> None:
    lines = _lines(_report(*RENAMED), verbose=True)

    assert "    ✗ domain-running-on-wrong-host of vm-duo" in lines
    at = lines.index("    ✗ port-bound-elsewhere of vm-plain")
    assert lines[at + 1].startswith("      domain reports uuid = ")


def test_a_guest_whose_findings_are_folded_elsewhere_is_not_called_healthy() -> None:
    report = _report(*RENAMED)
    lines = _lines(report)
    verbose = _lines(report, verbose=True)

    broken = [guest for guest in report.cloud.guests if guest.domain is not None]
    assert f"✗ {len(broken)} servers, host-identity-changed: " in "\n".join(lines)
    for guest in report.cloud.guests:
        start = verbose.index(f"{guest.name}  {guest.uuid}")
        end = verbose.index("", start)
        agrees = any(line.startswith("  ✓ ") for line in verbose[start:end])
        told = "  ✗ see domain-running-on-wrong-host" in "\n".join(verbose[start:end])
        assert (agrees, told) == (guest not in broken, guest in broken)


def test_a_finding_shared_by_all_guests_is_rendered_once_with_a_caution() -> None:
    report = _report(of_guests("io-error-paused"), count=500)
    lines = _lines(report)
    domains = sum(guest.domain is not None for guest in report.cloud.guests)
    words = " ".join(" ".join(lines).split())

    assert sum("io-error-paused" in line for line in lines) < 4
    assert f"{domains} of {domains} guests on vm" in words
    caution = "caution So many findings at once are rarely so many faults."
    assert f"and {domains - 5} more {caution}" in words
    assert "If the findings are real, the guests' storage failed or is full." in words
    assert f"✗ {domains} servers, io-error-paused: " in words
    assert len(lines) < 30


SOME = ("vm-plain", "vm-duo", "vm-snap", "vm-config")


def test_many_findings_of_one_check_are_one_with_a_count_and_some_names() -> None:
    report = _report(of_guests("port-binding-bad", *SOME), count=500)
    lines = _lines(report)
    count = len(report.findings)

    assert count > 100
    title = f"✗ ERROR port-binding-bad  {count} findings in {count} servers on host vm"
    at = lines.index(title)
    assert lines[at + 1].endswith(f" and {count - 5} more")
    assert lines[at + 2].startswith("  caution  So many findings at once")
    assert sum(line.startswith("✗ ERROR") for line in lines) == 1
    assert len(lines) < 30
    [line] = map(row, grouped(report.findings))
    assert line.plain.startswith("error port-binding-bad vm -: ")
    assert f"({count} findings in {count} servers: vm-config, " in line.plain


def test_three_findings_of_one_check_stay_apart() -> None:
    lines = _lines(_report(of_guests("port-binding-bad", *SOME[:3])))

    titles = [line for line in lines if line.startswith("✗ ERROR port-binding-bad  vm-")]
    assert len(titles) == 3


def test_headlines_of_a_group_are_listed_and_verbose_lists_all() -> None:
    def port_binding_bad(guest: Guest, domain: Domain) -> Problems:
        if guest.name in SOME:
            yield problem(f"{guest.title} has no port", says(domain, uuid=guest.uuid))

    report = _report(check(Severity.ERROR)(port_binding_bad), count=100)
    headlines = [finding.headline for finding in report.findings]
    assert len(headlines) > 20
    lines, verbose = _lines(report), _lines(report, verbose=True)

    listed = [line for line in lines if line.endswith(" has no port")]
    assert listed == [f"  {headline}" for headline in dict.fromkeys(headlines)][:5]
    assert {f"  {headline}" for headline in headlines} <= set(verbose)
    assert sum(line == "    ✗ port-binding-bad of vm-duo" for line in verbose) == headlines.count(
        "vm-duo has no port"
    )


def test_advice_is_given_in_full_once(host: RecordedHost) -> None:
    files = host.last("kernel", f"ls -lL /proc/{host.pid('vm-plain')}/fd").value
    disk = next(file for file in files if file["path"].endswith("/disk"))
    query = f"ls -lL /proc/{host.pid('vm-duo')}/fd"
    host.set("kernel", query, [*host.last("kernel", query).value, disk])
    lines = _lines(host.report())

    assert sum(line.startswith("  why ") for line in lines) == 1
    assert [line[:6] for line in lines if line.startswith(("  look ", "  do "))] == [
        *("  look", "  do  ", "  look"),
    ]
    assert "  next     as for vm-duo (-s or -v fills it in)" in lines
    head = "           While disk-shared-by-two-qemu is unresolved, do not run:"
    at = lines.index(head)
    assert f"             openstack server reboot --hard {host.uuid('vm-duo')}" in lines[at + 1]
    assert sum(line.endswith("commands listed above.") for line in lines) == 1
    assert not any(host.uuid("vm-plain") in line for line in lines[at:] if "openstack" in line)


def test_each_command_of_the_advice_stands_alone_with_the_guests_values(
    host: RecordedHost,
) -> None:
    name, pid = host.domain("vm-plain"), host.pid("vm-plain")
    host.remove(f"{host.folder('vm-plain')}/disk")
    for width in (40, 80, UNBOUNDED):
        lines = _lines(host.report(), width=width)

        at = lines.index(f"             ls -l /proc/{pid}/fd")
        first = lines.index(f"             virsh suspend {name}")
        assert lines[at + 1] == f"             ls -lLi /proc/{pid}/fd"
        assert lines[at + 2].startswith("  do       If the file was deleted")
        assert lines[first + 1] == f"             cp --sparse=always /proc/{pid}/fd/14 COPY"
        assert f"             virsh resume {name}" in lines[first + 2 : first + 4]


def test_reading_and_changing_commands_differ(host: RecordedHost) -> None:
    host.remove(f"{host.folder('vm-plain')}/disk")
    report = host.report()
    styles = {
        part.split()[0]: style
        for line in render(report, report.cloud.guests)
        for part, style in line.parts[1:]
        if line.parts[0][0] == " " * 13
    }

    assert (styles["ls"], styles["virsh"], styles["cp"]) == ("bold", "bold yellow", "bold yellow")


def test_a_placeholder_that_stays_is_explained_where_it_stands() -> None:
    report = analyze(load(FAULTS / "leftover-dir.json.zst"))
    lines = _lines(report)

    at = next(at for at, line in enumerate(lines) if line.endswith(" COPY"))
    assert lines[at].strip().startswith("cp -a --sparse=always ")
    assert lines[at + 1] == "             COPY: path of a new file on a disk with enough room"


def test_commands_gated_by_undecided_checks_are_counted(host: RecordedHost) -> None:
    host.silence("kernel", "denied")
    query = f"virsh domstate --reason {host.domain('vm-plain')}"
    host.set("libvirt", query, {"state": 3, "reason": 1})
    report = host.report()

    assert any(line.endswith("more dangerous commands (-v lists them)") for line in _lines(report))
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
    count = sum(guest.domain is not None for guest in report.cloud.guests)
    [told] = [line for line in _lines(report, width=200) if line.startswith("cannot tell: ")]

    assert told.count("was not collected") == 1
    assert f"was not collected (and {count - 1} similar) [{count} guests] and 2 more" in told


def test_reasons_are_counted_and_verbose_lists_them() -> None:
    report = _report(_unheard(kinds=13))
    asked = sum(guest.domain is not None for guest in report.cloud.guests)

    [told] = [line for line in _lines(report) if line.startswith("cannot tell: ")]
    assert told.endswith(" and 14 more reasons (-v lists them)")
    assert len(told) <= 80
    verbose = _lines(report, verbose=True)
    listed = verbose[verbose.index("What this bundle cannot tell") :]
    assert sum("was not collected" in line for line in listed) >= asked


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
