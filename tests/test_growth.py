"""No foreign text makes a reader slow: time grows with the length of the text, not its square.

Hosts, tenants and senders of bundles choose the text that is read. 12 arguments of 126 KB once
stopped `collect` for good, because each pattern scanned them again and again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from tests.growth import (
    SEEDS,
    STEEPEST,
    Found,
    attacks,
    growth,
    has_possessive_group,
    patterns,
    uses,
)

from hoodsnap.bundle import Bundle
from hoodsnap.collect.recorder import Recorder
from hoodsnap.keep.arguments import kept_ps, kept_words
from hoodsnap.keep.domain_xml import kept_definition
from hoodsnap.keep.fence import _looks, fenced
from hoodsnap.keep.log import is_argument, nova_lines
from hoodsnap.keep.log_line import line_without_secrets, log_line
from hoodsnap.keep.neutron_api import network_body
from hoodsnap.keep.secret import without_secrets
from hoodsnap.replay.mysqld.sql import tokens

LATER = {
    "hoodsnap.facts.api.listing.read_listing": "the path of a list, a literal in our own checks",
    "hoodsnap.trust.plausible.processes.numbered_alike": "one of two constants",
    "hoodsnap.collect.trusted.service._unit_of": "the name of one of nova's or libvirt's services",
    "hoodsnap.redaction.redactor._patterns": "the names in a bundle, each a literal",
    "hoodsnap.replay.apis.collection._agrees": "the filter of a client of the replayed API",
    "hoodsnap.replay.mysqld.database._matcher": "the LIKE operand of a client of the replayed database",
    "hoodsnap.replay.mysqld.functions._regexp": "the REGEXP operand of such a client",
    "hoodsnap.replay.libvirtd.domains._metadata": "the name of an element that a client requests",
}
"""Function that makes a pattern at run time → the text that it makes the pattern from."""


def test_every_pattern_is_found_in_the_source() -> None:
    found, later = patterns()

    assert later <= LATER.keys()
    assert len(found) > 100
    places = {place for entry in found for place in entry.places}
    assert {"hoodsnap.keep.log_line._IN_LINES[][]", "hoodsnap.replay.mysqld.sql._TOKEN"} <= places


def _id(found: Found) -> str:
    return min(place for place in found.places if not place.endswith("."))


PARTS = 20
"""Tests that share the patterns. One for each pattern would look for them while pytest collects."""


@pytest.mark.parametrize("part", range(PARTS))
def test_a_pattern_takes_linear_time(part: int) -> None:
    steep = [
        f"{_id(found)}: x{by:.0f} for four times the text: {how}, {start!r}, {unit!r}"
        for found in patterns()[0][part::PARTS]
        for how, use in uses(found)
        for start, unit in attacks(found)
        if (by := growth(use, start, unit)) >= STEEPEST
    ]

    assert steep == []


def test_a_quadratic_pattern_is_noticed() -> None:
    """Patterns that the recorder once used."""
    for text in (
        r"(?:-object[ \0]|\bsecret,)[^ \0]*?\bdata=",
        r"((\\*\")password\2)",
        r"\S*qemu\S*: ",
    ):
        found = Found(re.compile(text))

        assert any(
            growth(use, *pair) >= STEEPEST for _, use in uses(found) for pair in attacks(found)
        )


OPTIONS = ("-object", "-fw_cfg", "-smbios", "-netdev", "-set", "-incoming", "-drive", "-blockdev")

READERS: dict[str, Callable[[str], object]] = {
    "door": without_secrets,
    "fence": _looks,
    "log": log_line,
    "saying": line_without_secrets,
    "words": lambda text: kept_words(
        ["qemu", *(word for option in OPTIONS for word in (option, text)), text]
    ),
    "ps": lambda text: kept_ps(f"PID\n 1 ? S 0:00 {text}\n{text}", {1: [text]}),
    "definition": kept_definition,
    "definition's text": lambda text: kept_definition(f"<domain><name>{text}</name></domain>"),
    "definition's attribute": lambda text: kept_definition(
        f"<domain><source file='{text}'/><qemu:arg value='{text}'/></domain>"
    ),
    "QEMU's log": is_argument,
    "nova's log": nova_lines,
    "neutron": lambda text: network_body({"ports": [{"name": text, text[:99]: text}]}),
    "SQL": tokens,
}

UNITS = (
    *SEEDS,
    "<a/>",
    "</a>",
    "<metadata><",
    "&quot;",
    "<!--",
    "x='",
    " INFO ",
    "[instance: ",
    "1 ? S ",
)


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_takes_linear_time(reader: str) -> None:
    for unit in UNITS:
        by = growth(READERS[reader], "", unit)

        assert by < STEEPEST, f"x{by:.0f} for four times the text: {unit!r}"


def test_many_places_take_linear_time() -> None:
    """One answer with many names that look like secrets, as keys and as values."""
    recorder = Recorder("vm")
    now = datetime.now(UTC)

    def fence(text: str) -> object:
        keys = {f"password: {number}": number for number in range(len(text) // 8)}
        recorder.answers.clear()
        value = [keys, *({"name": key} for key in keys)]
        answer = recorder.ask("nova", "GET /servers", lambda: json.loads(json.dumps(value)))
        return fenced(Bundle(tool="", started=now, ended=now, answers=(answer,)))

    assert growth(fence, "", "x") < STEEPEST


def test_no_group_is_possessive() -> None:
    # Before Python 3.11.5 (gh-100061, gh-106052) the last, failing attempt of such a group leaves
    # the position in the text moved, so the match ends too late or fails. Debian 12 has 3.11.2.
    # `(?>(?:…)*)` means the same.
    assert [_id(found) for found in patterns()[0] if has_possessive_group(found.pattern)] == []


@pytest.mark.parametrize(
    ("pattern", "has"),
    [
        (r"(?:ab|c)*+", True),
        (r"x((?:(?!b).)++)", True),
        (r"[^,]++a?+\d*+", False),
        (r"(?>(?:ab|c)*)", False),
    ],
)
def test_a_possessive_group_is_noticed(pattern: str, has: bool) -> None:
    assert has_possessive_group(re.compile(pattern)) is has
