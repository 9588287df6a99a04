"""The report as text."""

from __future__ import annotations

import pytest
from bench.many import many
from tests.conftest import ROOT, RecordedHost, healthy, healthy_report

from hoodsnap.bundle import load, merge
from hoodsnap.facts.layer import CGROUP
from hoodsnap.findings.advice import command, of_guest
from hoodsnap.findings.analysis import analyze
from hoodsnap.printable import clean
from hoodsnap.render.line import shortened
from hoodsnap.render.text import render


def _lines(host: RecordedHost, width: int = 80, verbose: bool = False) -> list[str]:
    report = host.report()
    return [
        line.plain for line in render(report, report.cloud.guests, width=width, verbose=verbose)
    ]


def test_each_layer_is_a_line_that_names_what_ties_it_to_the_next(host: RecordedHost) -> None:
    guest = host.guest("vm-snap")
    lines = _lines(host)
    start = lines.index(f"  vm-snap  {guest.uuid}")

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

    long = [line for line in _lines(host, width, verbose=True) if len(line) > width]
    # Only unbreakable text may be too long: a heading, or an identifier on a line of its own.
    assert [line for line in long[1:] if len(line.split()) > 3] == []


def test_a_layer_that_was_not_collected_is_not_called_absent(host: RecordedHost) -> None:
    host.silence("libvirt", "denied")
    lines = _lines(host)

    assert any(line.startswith("    domain     not collected: ") for line in lines)
    assert not any(line.startswith("    domain     none") for line in lines)
    assert "What this bundle cannot tell" in lines


def test_an_expected_absence_names_the_state(host: RecordedHost) -> None:
    lines = _lines(host)

    assert "    process    none, as expected in state stopped" in lines


def test_dozens_of_guests_get_a_line_each_and_hundreds_are_counted() -> None:
    for count, shown in ((60, 60), (500, 0)):
        report = analyze(many(healthy(), count))
        lines = [line.plain for line in render(report, report.cloud.guests)]

        assert sum(line.startswith("  ✓ vm-") for line in lines) == shown
        assert any(line == f"{count} guests: the collected layers agree" for line in lines)
        assert len(lines) < count + 22


def test_recorded_text_can_not_move_the_cursor(host: RecordedHost) -> None:
    evil = "vm\x1b[2J\u202e\x00\n\udc80x"
    host.row("instances", host.uuid("vm-plain"), display_name=evil)

    lines = _lines(host, verbose=True)
    assert any(line.startswith("  vm�[2J����x  ") for line in lines)
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


def test_the_recorded_cloud_leaves_only_the_newest_layer_undecided() -> None:
    reasons = {skip.reason for skip in healthy_report().skips if not skip.legal}

    assert reasons == {CGROUP.silence}


def test_a_recording_of_all_layers_leaves_nothing_undecided(grouped: RecordedHost) -> None:
    assert {skip.reason for skip in grouped.report().skips if not skip.legal} == set()


def test_the_domain_left_by_a_cold_migration_is_reported_as_off() -> None:
    """The source host keeps the domain, switched off, until the resize is confirmed."""
    pair = [
        load(ROOT / f"fixtures/two-hosts/migrated-cold.{which}.json.zst")
        for which in ("first", "second")
    ]
    lines = _lines(RecordedHost(merge(pair)))

    text = " ".join(" ".join(lines).split())
    assert "· nova reports it on host compute2; the domain left here is switched off" in text
