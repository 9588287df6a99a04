"""Commands of the advice: filled in, quoted, and marked if they change something."""

from __future__ import annotations

import re
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import FAULTS

from hoodsnap.bundle import load
from hoodsnap.checks import CATALOG
from hoodsnap.checks.dangers import DANGERS
from hoodsnap.findings.advice import PLACEHOLDERS, WORKED, command, instructions
from hoodsnap.findings.analysis import analyze

KEYWORDS = {
    "STS",  # of a field of nova's API
    *("AND", "DELETE", "FROM", "IN", "NOW", "SELECT", "SET", "UPDATE", "UTC_TIMESTAMP", "WHERE"),
    *("HTTP", "OS_PASSWORD"),
    *("INSERT", "INTO", "JOIN", "ON", "VALUES", "IS", "NOT", "NULL"),
    *("KNAME", "RO", "VENDOR"),  # columns of lsblk
    *("OS", "EXT", "SRV", "ATTR", "AZ", "CONT", "KILL", "PUT", "STOP"),
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


def test_a_command_that_does_not_apply_is_left_out_with_its_sentence() -> None:
    moved, deleted = (
        analyze(load(FAULTS / f"{name}.json.zst")) for name in ("base-moved", "disk-deleted")
    )
    [of_moved] = [one for one in moved.everything() if one.check.name == "disk-deleted-but-open"]
    [of_deleted] = [
        one for one in deleted.everything() if one.check.name == "disk-deleted-but-open"
    ]

    assert [said.prose[:18] for said in instructions(of_moved)] == [
        "See the open files", "If the file was re", "It worked if the f",
    ]  # fmt: skip
    assert [said.prose[:18] for said in instructions(of_deleted)] == [
        "See the open files", "If the file was de", "It worked if the f",
    ]  # fmt: skip
    copied = instructions(of_deleted)[1].commands
    assert [one.text.split()[:2] for one in copied] == [
        ["virsh", "suspend"], ["cp", "--sparse=always"], ["virsh", "resume"],
    ]  # fmt: skip
    assert copied[1].left == ("COPY",)


def test_without_a_change_nothing_says_that_it_worked() -> None:
    [larger] = analyze(load(FAULTS / "disk-grown.json.zst")).findings

    said = instructions(larger)
    assert "qemu-img resize" in larger.check.sections["next"]
    assert not any(one.changes for step in said for one in step.commands)
    assert not any(step.prose.startswith(WORKED) for step in said)


def test_a_negative_number_may_follow_an_equals_sign() -> None:
    written = "virsh schedinfo NAME --live vcpu_quota=QUOTA"

    assert command(written, {"NAME": "a", "QUOTA": "-1"}).text.endswith(" vcpu_quota=-1")


def test_renaming_a_domain_changes_it() -> None:
    assert command("virsh domrename NAME NOVA_NAME", {"NAME": "a", "NOVA_NAME": "b"}).changes
    assert not command("virsh dominfo NAME", {"NAME": "a"}).changes


def test_every_placeholder_is_explained() -> None:
    texts = [check.sections["next"] for check in CATALOG] + [one.command for one in DANGERS]
    commands = [line for text in texts for line in text.splitlines() if line.startswith("    ")] + [
        one.command for one in DANGERS
    ]
    words = {word for line in commands for word in re.findall(r"\b[A-Z][A-Z_]*[A-Z]\b", line)}

    assert words - KEYWORDS <= PLACEHOLDERS.keys()
