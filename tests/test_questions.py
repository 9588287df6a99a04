"""The reference of the questions has every kind of question that was ever recorded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from tests.conftest import CONTROL_GROUPS, DAEMONS, FAULTS, HEALTHY, MONITORS, ROOT

from hoodsnap.bundle import load

PAGE = ROOT / "docs/reference/questions.md"


@cache
def patterns() -> tuple[re.Pattern[str], ...]:
    """What the first column of each table names; `…` stands for anything."""
    rows = re.findall(r"^\| (`.*?`) \| ", PAGE.read_text(), re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    parts = ([re.escape(part.replace("\\|", "|")) for part in name.split("…")] for name in named)
    return tuple(re.compile(".*".join(part), re.DOTALL) for part in parts)


@cache
def is_named(query: str) -> bool:
    return any(pattern.fullmatch(query) for pattern in patterns())


def unnamed(path: Path) -> Iterator[str]:
    for answer in load(path).answers:
        if not is_named(answer.query):
            yield f"{answer.layer}: {answer.query}"


@pytest.mark.parametrize(
    "path",
    [
        HEALTHY,
        CONTROL_GROUPS,
        DAEMONS,
        MONITORS,
        *sorted((ROOT / "fixtures/two-hosts").glob("*.zst")),
    ],
    ids=lambda path: path.name,
)
def test_every_recorded_question_is_in_the_reference(path: Path) -> None:
    assert set(unnamed(path)) == set()


def test_every_question_about_a_fault_is_in_the_reference() -> None:
    assert {query for path in sorted(FAULTS.glob("*.zst")) for query in unnamed(path)} == set()


def test_a_question_that_is_not_in_the_reference_is_noticed() -> None:
    assert not is_named("virsh domblkinfo instance-1")
    assert not is_named("rbd status vms/x")
