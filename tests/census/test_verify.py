"""The quick census reports the leaves that nothing notices any more, and only these."""

from __future__ import annotations

from tests.census.census import counted, ways_of
from tests.census.leaf import Kind
from tests.census.recordings import recording
from tests.census.result import Row
from tests.census.verdict import Word
from tests.census.verify import batches, lost

VCPU = Kind("libvirt", "virsh dumpxml NAME", "domain/vcpu")
MACHINE = Kind("libvirt", "virsh dumpxml NAME", "domain/os/type@machine")
STATUS = Kind("cinder", "GET /v3/", ".versions[].status")


def _row(kind: Kind, word: Word, by: str) -> Row:
    return Row(kind, word, by, "other", "", (), "healthy")


def test_a_leaf_that_a_check_still_judges_is_not_lost() -> None:
    home = recording("healthy")
    rows = [
        Row(one.kind, one.verdict.word, one.verdict.by, one.mutation, "", (), "healthy")
        for one in counted(home, [VCPU, MACHINE])
    ]

    assert {row.word for row in rows} == {Word.JUDGED}
    assert not [*lost(home, rows)]


def test_a_leaf_that_nothing_notices_any_more_is_lost() -> None:
    judged, shown = _row(STATUS, Word.JUDGED, "a-check"), _row(STATUS, Word.SHOWN, "explain")

    for row in (judged, shown):
        [line] = lost(recording("healthy"), [row])
        assert line.endswith(f"is silent, was {row.word.name.lower()} by {row.by}")


def test_a_leaf_that_no_recording_has_is_reported() -> None:
    gone = _row(Kind("libvirt", "virsh dumpxml NAME", "domain/nothing"), Word.SHOWN, "explain")

    [line] = lost(recording("healthy"), [gone])

    assert "is not in healthy" in line


def test_leaves_are_changed_together_if_other_checks_judge_them() -> None:
    home = recording("healthy")
    rows = [
        _row(VCPU, Word.JUDGED, "one,two"),
        _row(MACHINE, Word.JUDGED, "two"),
        _row(STATUS, Word.JUDGED, "three"),
    ]
    leaves = {leaf.kind: leaf for leaf in home.leaves.all}
    tried = [(row, next(iter(ways_of(home, leaves[row.kind])))) for row in rows]

    found = [{row.kind for row, _ in batch} for batch in batches(tried)]

    assert found == [{VCPU, STATUS}, {MACHINE}]
