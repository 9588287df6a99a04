"""The report as text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from bench.many import many
from tests.conftest import FAULTS, ROOT, RecordedHost, healthy, healthy_report

from hoodsnap.bundle import dump, load, merge
from hoodsnap.facts.fact import OF_ALL_HOSTS
from hoodsnap.facts.layer import CGROUP, DAEMONS
from hoodsnap.findings.advice import command, of_guest
from hoodsnap.findings.analysis import Report, analyze
from hoodsnap.findings.grouping import grouped
from hoodsnap.printable import clean
from hoodsnap.render.line import UNBOUNDED, shortened
from hoodsnap.render.text import render


def _lines(
    host: RecordedHost, width: int = 80, verbose: bool = False, walk: bool = False
) -> list[str]:
    return _of(host.report(), width, verbose, walk)


def _of(report: Report, width: int = 80, verbose: bool = False, walk: bool = False) -> list[str]:
    guests = report.cloud.guests
    lines = render(report, guests, width=width, verbose=verbose, walk=walk)
    return [line.plain for line in lines]


def _fault(name: str) -> Report:
    return analyze(load(FAULTS / f"{name}.json.zst"))


def test_each_layer_is_a_line_that_names_what_ties_it_to_the_next(host: RecordedHost) -> None:
    guest = host.guest("vm-snap")
    lines = _lines(host, walk=True)
    start = lines.index(f"vm-snap  {guest.uuid}")

    assert guest.instance and guest.domain and guest.process and guest.instance.image
    words = [line.split()[0] for line in lines[start + 1 : start + 9]]
    assert words == [
        "server",
        "instance",
        "allocation",
        "domain",
        "process",
        "image",
        "port",
        "tap",
    ]
    row, name = guest.instance.id, guest.domain.name
    assert f"row {row} of nova → {name}, active" in lines[start + 2]
    assert "1 VCPU, 64 MEMORY_MB, 1 DISK_GB of" in lines[start + 3]
    assert f"{name}, id {guest.domain.id}, running" in lines[start + 4]
    assert f"pid {guest.process.pid}, -uuid {guest.uuid}" in lines[start + 5]
    assert f"= sha1 of image {guest.instance.image[:8]}…" in lines[start + 6]
    [port] = guest.ports or ()
    assert (
        f"{port.id[:11]}…, ACTIVE, {port.addresses[0]} in lab-net, bound to vm" in lines[start + 7]
    )
    assert f"{port.tap} → br-int tag " in lines[start + 8]
    assert " → qrouter-" in lines[start + 8]


@pytest.mark.parametrize("width", [60, 80, 100])
def test_prose_fits_the_width(host: RecordedHost, width: int) -> None:
    host.set(
        "libvirt", f"virsh domstate --reason {host.domain('vm-plain')}", {"state": 5, "reason": 3}
    )

    long = [line for line in _lines(host, width, walk=True) if len(line) > width]
    long += [line for line in _lines(host, width, verbose=True) if len(line) > width]
    # Only unbreakable text may be too long: a heading, a command, an identifier.
    assert [
        line
        for line in long
        if len(line.split()) > 3 and not line.startswith((" " * 13, "✗ ERROR", "✓", "?"))
    ] == []


def test_a_layer_that_was_not_collected_is_not_called_absent(host: RecordedHost) -> None:
    host.silence("libvirt", "denied")
    lines = _lines(host, verbose=True)

    assert any(line.startswith("  domain     not collected: ") for line in lines)
    assert not any(line.startswith("  domain     none") for line in lines)
    assert "What this bundle cannot tell" in lines
    assert any(line.startswith("cannot tell: ") for line in _lines(host))


def test_an_expected_absence_names_the_state(host: RecordedHost) -> None:
    lines = _lines(host, walk=True)

    assert "  process    none, as expected in state stopped" in lines


def test_a_healthy_host_is_a_table_and_a_last_line(host: RecordedHost) -> None:
    lines = _lines(host)

    head = lines.index("  server        nova               libvirt               pid    disk  net")
    count = len(host.report().cloud.guests)
    assert [line[0] for line in lines[head + 1 : head + 1 + count]] == ["·"] + ["✓"] * (count - 1)
    assert lines[head + 1 + count] == "· vm-verify: a resize is not confirmed yet"
    assert lines[-1] == f"{count} servers: the collected layers agree"
    assert len(lines) <= count + 9


def test_a_large_host_leaves_the_recording_as_it_was() -> None:
    """The tests share the recording: its fingerprint would no longer match."""
    before = dump(healthy())

    many(healthy(), 60)

    assert dump(healthy()) == before


@pytest.mark.parametrize("count", [60, 500])
def test_healthy_guests_are_one_line_on_a_large_host(count: int) -> None:
    lines = _of(analyze(many(healthy(), count)))

    [agree] = [line for line in lines if line.startswith("✓ ") and " agree: " in line]
    assert re.fullmatch(r"✓ \d+ more agree: vm-bfv, .* and \d+ more \(-v walks them\)", agree)
    assert lines[-1] == f"{count} servers: the collected layers agree"
    assert len(lines) < 12
    assert all(len(line) <= 85 for line in lines)


def test_one_fault_is_on_the_first_screen_and_in_the_last_line() -> None:
    lines = _of(_fault("virsh-destroy"))

    first = next(at for at, line in enumerate(lines, 1) if line.startswith("✗ ERROR "))
    assert first <= 12
    assert len(lines) <= 45
    assert lines[2:4] == [
        "  server    nova    libvirt               pid  disk  net  verdict",
        "✗ vm-plain  ACTIVE  shut off (destroyed)  –    ok    ok   active-but-domain-off",
    ]
    assert sum("vm-bfv" in line for line in lines) == 1
    assert lines[-1] == "1 error in 1 of 15 servers: vm-plain"


def test_findings_of_the_host_are_in_the_overview() -> None:
    report = _fault("compute-frozen")
    lines = _of(report)

    [host] = report.cloud.hosts
    names = [one.check.name for one in report.findings if not one.guests and one.host]
    assert "nova-compute-frozen" in names
    [said] = [line for line in lines if line.startswith(f"! host {host.name}: ")]
    first = next(at for at, line in enumerate(lines) if line.startswith("! WARNING "))
    assert lines.index(said) < first <= 12
    assert all(name in said for name in names)


SEVERAL = 2
"""Findings from which on a report may be longer than 45 lines."""


LONGER = {
    **dict.fromkeys(["base-committed", "db-mapping-building", "deletion-half-done"], 46),
    **dict.fromkeys(["disk-borrowed", "error-no-domain", "volume-extend-failed"], 46),
    **dict.fromkeys(["definition-other-format", "machine-unsupported"], 46),
    "instances-hidden": 47,  # it looks at what is mounted over the directory
    "queue-frozen": 47,  # it looks at both ends of the message queue
    "resize-reset": 47,  # a resize may be confirmed or reverted
    "qemu-user-changed": 47,
    "volume-migrating": 49,  # a migration is ended by another command than a status
    "error-reboot-failed": 49,  # it shows the failed action with its traceback's end
    "port-address-lost": 50,  # the address is freed before the port gets it back
    "base-cut": 50,  # a way back with the image of another host, and one without
    "instances-path-changed": 51,  # its one finding is of 13 servers, which it names
    "record-behind": 52,  # while a move is half done, many commands are dangerous
    "stopped-rebased": 53,
    "rescue-xml-gone": 53,  # it ends a rescue that nova can't end, and removes what is left
}
"""Recorded faults whose report with one finding is longer than a screen, and its lines."""


@pytest.mark.parametrize(
    "path", sorted(FAULTS.glob("*.zst"))[::4], ids=lambda path: path.name.partition(".")[0]
)
def test_every_fault_is_seen_without_scrolling(path: Path) -> None:
    report = analyze(load(path))
    lines = _of(report)

    titles = [at for at, line in enumerate(lines, 1) if re.match("[✗!·] [A-Z]{4,} ", line)]
    assert len(titles) == len(grouped(report.findings))
    assert all(at <= 12 for at in titles[:1])
    if len(report.findings) < SEVERAL:
        assert len(lines) <= LONGER.get(path.name.partition(".")[0], 45)


def test_a_dead_control_plane_is_not_called_healthy() -> None:
    report = _fault("db-down")
    lines = list(render(report, report.cloud.guests))

    text = [line.plain for line in lines]
    assert "14 servers: not decided" in text
    assert not any("agree" in line or line.startswith("✓") for line in text)
    said = " ".join(" ".join(text[-2:]).split())
    assert said.startswith(
        "not collected: nova API, placement, cinder, neutron API (127.0.0.1:5000"
    )
    assert {style for line in lines[-3:] for _, style in line.parts} == {"yellow"}


def test_a_pipe_gets_no_wrapped_line() -> None:
    lines = _of(_fault("base-moved"), UNBOUNDED)

    base = "/var/lib/nova/instances/_base/6b069ff17bbc9dcf65dedf4bb2ff93d0d763d727"
    assert any(line.endswith(f"-ls  ({base})") for line in lines)
    assert any(f"ln {base}.lab-moved {base}" in line for line in lines)
    assert any(f"domain reports disks = {base}  virsh dumpxml" in line for line in lines)
    assert any(f"files = {base}.lab-moved (fd " in line for line in lines)
    assert not any("…" in line for line in lines if line.startswith("    "))


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
def test_the_table_fits_the_width(width: int) -> None:
    for name in ("virsh-destroy", "attachment-twice", "db-host"):
        lines = _of(_fault(name), width)
        start = lines.index("") + 1
        rows = [line for line in lines[start : lines.index("", start)] if line[0] in " ✗!"]
        assert len(rows) >= 2
        assert all(len(line) <= width for line in rows)
        assert all(line[2:].startswith(("server", "vm-", "host vm: ")) for line in rows)


def test_two_hosts_have_a_column() -> None:
    pair = [
        load(ROOT / f"fixtures/two-hosts/split-brain.{which}.json.zst")
        for which in ("first", "second")
    ]
    report = analyze(merge(pair))
    lines = _of(report, 160)

    names = sorted(host.name for host in report.cloud.hosts)
    assert lines[0].startswith(f"hosts {names[0]} and {names[1]}, collected ")
    assert lines[2].split()[:2] == ["server", "host"]
    assert lines[3].split()[1:3] == ["pair-split", "compute2"]
    assert lines[-1].endswith("of 17 servers: pair-split and on host compute2")


def test_only_verbose_lists_the_layers_that_were_collected(host: RecordedHost) -> None:
    assert not any(line.startswith("layers collected") for line in _lines(host))
    assert any(line.startswith("layers collected: nova API") for line in _lines(host, verbose=True))


def test_recorded_text_can_not_move_the_cursor(host: RecordedHost) -> None:
    evil = "vm\x1b[2J\u202e\x00\n\udc80x"
    host.row("instances", host.uuid("vm-plain"), display_name=evil)

    lines = _lines(host, verbose=True)
    assert any(line.startswith("vm�[2J����x  ") for line in lines)
    assert all(line.isprintable() for line in lines)


def test_clean_leaves_letters_of_every_script() -> None:
    assert clean("größe 日本 → ✓") == "größe 日本 → ✓"


def test_advice_names_this_guest(host: RecordedHost) -> None:
    guest = host.guest("vm-plain")

    said = command("virsh domstate NAME; kill -0 PID; show UUID; RENAME", of_guest(guest)).text

    assert guest.process
    pid = guest.process.pid
    assert (
        said
        == f"virsh domstate {host.domain('vm-plain')}; kill -0 {pid}; show {guest.uuid}; RENAME"
    )


def test_a_long_statement_loses_only_its_lists() -> None:
    uuids = ", ".join(f"'{number:036}'" for number in range(9))

    assert shortened(f"SELECT a, b FROM nova.instances WHERE uuid IN ({uuids})") == (
        "SELECT … FROM nova.instances WHERE uuid IN (…)"
    )


ROOM = "free space of the host's file systems was not collected"
"""Reason to skip a check of what the recorded cloud was not asked yet."""


OF_THE_NETWORK = {
    "net.ipv4.ip_forward of the routers was not collected",
    "the sockets in the routers' namespaces were not collected",
    "Open vSwitch: the first tables of its bridges were not collected",
    "Open vSwitch: the controllers of its bridges were not collected",
    "Open vSwitch: the mirrors of its bridges were not collected",
    "the sockets in the DHCP servers' namespaces were not collected",
}
OF_DAEMONS = {
    "the open files of the daemons were not counted",
    "the sockets of the host's daemons were not examined",
    "the umask of nova-compute was not collected",
}
OF_LIMITS = {
    "/proc/sys/fs/aio-nr was not collected",
    "the number of a process's open files was not collected",
}
OF_FILES = {
    "the configuration files of nova-compute were not examined",
    "the list of libvirt's definition files was not collected",
}
OF_GROUPS = {
    "the control group's io data was not collected",
    "the control group's soft data was not collected",
}
"""Reasons of the questions that are newer than the recordings."""


def test_the_recorded_cloud_leaves_only_the_newest_layers_undecided() -> None:
    reasons = {skip.reason for skip in healthy_report().skips if not skip.legal}

    assert reasons == {
        CGROUP.silence,
        DAEMONS.silence,
        ROOM,
        *OF_LIMITS,
        *OF_FILES,
        *OF_THE_NETWORK,
    }


def test_a_recording_of_all_layers_leaves_nothing_undecided(served: RecordedHost) -> None:
    # The recording is older than this question.
    room = dict.fromkeys(["bsize", "frsize", "blocks", "bavail", "files", "favail"], 4096)
    [asked, *_] = served.bundle.by_layer["host"]
    served.add(asked.model_copy(update={"query": "stat -f /var", "value": {"/var": room}}))

    reasons = {skip.reason for skip in served.report().skips if not skip.legal}
    reasons = {reason for reason in reasons if not reason.endswith(OF_ALL_HOSTS)}
    assert reasons == OF_LIMITS | OF_FILES | OF_THE_NETWORK | OF_GROUPS | OF_DAEMONS


def test_the_domain_left_by_a_cold_migration_is_reported_as_off() -> None:
    """The source host keeps the domain, switched off, until the resize is confirmed."""
    pair = [
        load(ROOT / f"fixtures/two-hosts/migrated-cold.{which}.json.zst")
        for which in ("first", "second")
    ]
    lines = _lines(RecordedHost(merge(pair)))

    assert any(line.endswith(": moved to compute2; switched off here") for line in lines)
