"""Commands of the advice: filled in, quoted, and marked if they change something."""

from __future__ import annotations

import re
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoodsnap.checks import CATALOG
from hoodsnap.checks.dangers import DANGERS
from hoodsnap.findings.advice import PLACEHOLDERS, command

KEYWORDS = {
    *("AND", "FROM", "SELECT", "SET", "UPDATE", "UTC_TIMESTAMP", "WHERE"),
    *("OS", "EXT", "SRV", "ATTR", "CONT"),
}
"""Words in capitals that belong to a language or a column, not to a placeholder."""


def test_a_value_is_filled_in_and_quoted() -> None:
    made = command("virsh domstate --reason NAME", {"NAME": "a b"})

    assert (made.text, made.changes, made.left) == ("virsh domstate --reason 'a b'", False, ())


def test_a_value_that_the_bundle_lacks_stays_a_placeholder() -> None:
    made = command("cp --sparse=always /proc/PID/fd/FD COPY", {"PID": "12"})

    assert made.text == "cp --sparse=always /proc/12/fd/FD COPY"
    assert made.left == ("FD", "COPY")
    assert made.changes


@pytest.mark.parametrize("value", ["--all", "-c", "a\nb", ""])
def test_a_value_that_could_be_an_option_or_a_second_line_is_not_filled_in(value: str) -> None:
    assert command("virsh resume NAME", {"NAME": value}).left == ("NAME",)


def test_a_quote_cannot_leave_a_quoted_place() -> None:
    written = "SELECT host FROM instances WHERE uuid = 'UUID'"

    assert command(written, {"UUID": "x' OR '1' = '1"}).left == ("UUID",)
    assert command(written, {"UUID": "7251a12e"}).text.endswith("uuid = '7251a12e'")


@given(st.text(min_size=1))
def test_a_filled_command_has_one_more_word_and_nothing_else(value: str) -> None:
    made = command("virsh resume NAME", {"NAME": value})

    if not made.left:
        assert shlex.split(made.text) == ["virsh", "resume", value]


def test_every_placeholder_is_explained() -> None:
    texts = [check.sections["next"] for check in CATALOG] + [one.command for one in DANGERS]
    commands = [line for text in texts for line in text.splitlines() if line.startswith("    ")] + [
        one.command for one in DANGERS
    ]
    words = {word for line in commands for word in re.findall(r"\b[A-Z][A-Z_]*[A-Z]\b", line)}

    assert words - KEYWORDS <= PLACEHOLDERS.keys()
