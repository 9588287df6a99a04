"""The tool reports what is known of some leaves, and the census has not become worse."""

from __future__ import annotations

import pytest
from tests.census.census import Count, counted
from tests.census.edit import counterpart, edited
from tests.census.leaf import Kind
from tests.census.mutation import mutations
from tests.census.recordings import groups, recording
from tests.census.result import read
from tests.census.verdict import Word
from tests.conftest import sample


def _verdict(layer: str, question: str, path: str) -> Count:
    [count] = counted(recording("healthy"), [Kind(layer, question, path)])
    return count


@pytest.mark.parametrize(
    ("kind", "word", "by"),
    [
        (("libvirt", "virsh dumpxml NAME", "domain/vcpu"), Word.JUDGED, "vcpu-chain-mismatch"),
        (("nova", "GET /v2.1/servers/detail", ".servers[].id"), Word.JOINED, "server-without"),
        (("cinder", "GET /v3/volumes/detail", ".volumes[].name"), Word.SHOWN, "explain"),
        (("cinder", "GET /v3/", ".versions[].status"), Word.SILENT, ""),
    ],
)
def test_a_known_leaf_has_its_verdict(kind: tuple[str, str, str], word: Word, by: str) -> None:
    verdict = _verdict(*kind).verdict

    assert verdict.word is word
    assert by in verdict.by


def test_leaves_that_are_changed_together_have_the_verdicts_that_each_has_alone() -> None:
    home = recording("healthy")
    kinds = [leaf.kind for leaf in home.leaves.all if leaf.kind.layer == "placement"][:8]

    together = {count.kind: count.verdict for count in counted(home, kinds)}
    alone = {kind: count.verdict for kind in kinds for count in counted(home, [kind])}

    assert together == alone


def test_an_edit_is_made_in_both_looks() -> None:
    home = recording("healthy")
    [leaf] = [
        leaf
        for leaf in home.leaves.all
        if leaf.kind == Kind("nova-db", "SELECT nova.instances", "[host]")
    ]
    near = next(mutation for mutation in mutations(leaf) if mutation.name == "near")

    mutant = edited(home.leaves, [near.edit])

    changed = [
        answer.query
        for answer, before in zip(mutant.answers, home.bundle.answers, strict=True)
        if answer.value != before.value
    ]
    assert len(changed) > 1
    assert all("FROM nova.instances" in query for query in changed)


def test_the_same_object_is_found_wherever_another_answer_lists_it() -> None:
    one = {"servers": [{"id": "a", "host": "x"}, {"id": "b", "host": "y"}]}
    two = {"servers": [{"id": "b", "host": "y"}]}
    rows = {"columns": ["id", "host"], "rows": [[1, "x"], [2, "y"]]}
    marks = {"columns": ["host", "id"], "rows": [["y", 2]]}

    assert counterpart(one, two, ("servers", 1, "host")) == ("servers", 0, "host")
    assert counterpart(one, two, ("servers", 0, "host")) is None
    assert counterpart(rows, marks, ("rows", 1, 1)) == ("rows", 0, 0)
    assert counterpart(rows, marks, ("rows", 0, 1)) is None


def test_no_leaf_is_noticed_less_than_the_last_census_says() -> None:
    """A sample of the leaves, other ones in each run; `make census` looks at all of them."""
    last = {row.kind: row for row in read() if row.recording == "healthy"}
    kinds = sample([*last], 60)

    worse = [
        f"{count.kind}: {count.verdict.word.name.lower()}, was {last[count.kind].word.name.lower()}"
        for count in counted(recording("healthy"), kinds, last)
        if count.verdict.word > Word.SHOWN and last[count.kind].is_noticed
    ]

    assert not worse


def test_the_last_census_counts_every_kind_of_leaf() -> None:
    assert {row.kind for row in read()} >= {kind for *_, kinds in groups() for kind in kinds}
