"""The timeline as text and as JSON."""

from __future__ import annotations

import json

import pytest
from tests.conftest import RecordedHost

from hoodsnap.facts.cloud.cloud import read as read_cloud
from hoodsnap.render.timeline import as_json, render
from hoodsnap.timeline.timeline import Timeline, about, read


def timeline(host: RecordedHost) -> Timeline:
    return read(read_cloud(host.bundle))


def lines(host: RecordedHost, width: int | None = None, verbose: bool = False) -> list[str]:
    return [line.plain for line in render(timeline(host), width=width, verbose=verbose)]


def test_a_day_has_a_heading_and_an_event_a_line(host: RecordedHost) -> None:
    found = lines(host)

    assert found[0] == "2026-11-25, Wednesday (UTC)"
    assert found[1].split() == ["16:19:02", "kernel", "host", "booted"]
    assert found[2].split()[:2] == ["18:32:49", "+2h13m"]
    [confirmed] = [line for line in found if "confirmResize" in line]
    assert confirmed.split()[:1] == ["18:34:07"]
    assert "nova-db vm-resized" in confirmed
    assert confirmed.endswith("by admin (req-47bc3c92-7beb-44e3-bb27-2f2ade59498b)")


def test_several_hosts_are_named(host: RecordedHost) -> None:
    assert "vm-plain" in "\n".join(lines(host))


@pytest.mark.parametrize("width", [40, 80, 160])
def test_no_line_is_wider_than_the_terminal(host: RecordedHost, width: int) -> None:
    least = 8 + 1 + 7 + 1 + 7 + 1 + 14 + 1 + 20  # the columns, and room for the shortest text

    assert max(map(len, lines(host, width))) <= max(width, least)


def test_records_and_files_are_counted_and_shown_on_request(host: RecordedHost) -> None:
    brief, whole = lines(host), lines(host, verbose=True)

    assert not [line for line in brief if "network info cache" in line]
    assert [line for line in whole if "network info cache" in line]
    hidden = sum(event.is_detail for event in timeline(host).events)
    assert brief[-1] == f"{hidden} events of records and files left out (-v shows them)"
    assert [line for line in whole if line.strip() == "vm: date --utc"]


def test_a_failure_has_a_mark_beside_its_color(host: RecordedHost) -> None:
    found = render(timeline(host), width=None)

    [fault] = [line for line in found if "fault 500" in line.plain]
    assert "✗ fault 500 on vm: No valid host was found." in fault.plain
    assert "red" in [style for _, style in fault.parts]


def test_a_time_of_unknown_zone_is_apart(host: RecordedHost) -> None:
    host.drop(lambda answer: answer.query != "date '+%z %Z'")

    found = lines(host)

    place = found.index("the zone of these times is unknown")
    assert found[place + 1].startswith("18:33:08   11-25 logs")
    assert "Creating image(s)" in found[place + 1]


def test_hostile_text_stays_in_its_line(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-plain"), display_name="a\x1b[31m\nb", vm_state="\u202ex\n")
    host.server(host.uuid("vm-plain"), name="a\x1b[31m\nb")

    text = "\n".join(lines(host, verbose=True))

    assert "a�[31m�b" in text
    assert not [char for char in text if not char.isprintable() and char != "\n"]


def test_json_has_every_event_with_its_source(host: RecordedHost) -> None:
    whole = timeline(host)

    document = json.loads(as_json(whole))

    assert document["format"] == 1
    assert len(document["events"]) == len(whole.events)
    [boot] = [event for event in document["events"] if event["what"] == "host booted"]
    assert boot["source"]["query"] == "date --utc"
    assert boot["at"].startswith("2026-11-25T16:19:02") and boot["at"].endswith("Z")
    [created] = [
        event
        for event in document["events"]
        if event["name"] == "vm-plain" and "create requested" in event["what"]
    ]
    assert created["layer"] == "nova-db"
    assert created["server"] == host.uuid("vm-plain")


def test_the_servers_of_one_event_are_named(host: RecordedHost) -> None:
    chosen = about(timeline(host), [host.guest(name) for name in ("vm-verify", "vm-resized")])

    text = "\n".join(line.plain for line in render(chosen, width=None))

    assert "(also vm-resized)" in text


def test_an_endless_line_of_a_log_is_cut_on_a_terminal_only(host: RecordedHost) -> None:
    endless = "x" * 3_000_000
    said = f"2026-11-25 12:00:00.000 ERROR [instance: {host.uuid('vm-plain')}] {endless}"
    host.set("logs", "tail -c 4194304 /var/log/nova/nova-compute.log", said)

    # Broken at every 40th character, it would take minutes and 80,000 lines.
    assert sum("xxx" in line for line in lines(host, width=80)) < 200
    assert any(line.endswith(endless) for line in lines(host))
