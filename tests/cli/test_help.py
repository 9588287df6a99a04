"""Help and errors of usage, in words."""

from __future__ import annotations

import pytest
from tests.command import hoodsnap

from hoodsnap.cli import COMMANDS


def test_help_is_a_command_too() -> None:
    assert hoodsnap("help").stdout == hoodsnap("--help").stdout
    assert hoodsnap("help", "lab", "show").stdout == hoodsnap("lab", "show", "--help").stdout
    assert hoodsnap("help", "explain-all").returncode == 2


def test_version_is_a_command_too() -> None:
    assert hoodsnap("version").stdout == hoodsnap("--version").stdout


@pytest.mark.parametrize("command", [*COMMANDS, "lab"])
def test_no_type_of_the_language_is_shown(command: str) -> None:
    shown = hoodsnap(command, "--help").stdout.decode()

    assert shown
    for word in ("<bool>", "list[", "Path>", "<str>", "<int"):
        assert word not in shown


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("explain", "@demo", "-f", "pdf"), "--format can't be pdf; it can be: text, "),
        (("explain", "@demo", "-f", "it's"), "--format can't be it's; it can be: text, "),
        (("collect", "--days", "x"), "--days must be a number"),
        (("collect", "--days", "-1"), "--days must be at least 0"),
        (("check", "@demo", "--fail-on", "\x1b"), "--fail-on can't be "),
    ],
)
def test_a_wrong_value_is_named_with_what_is_possible(
    arguments: tuple[str, ...], sentence: str
) -> None:
    done = hoodsnap(*arguments)

    assert done.returncode == 2
    assert f"\nhoodsnap: {sentence}" in done.stderr.decode()
    assert b"\x1b" not in done.stderr
    assert b"Value error" not in done.stderr
