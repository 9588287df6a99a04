"""Copies are found even after everything in them was renamed; honest work is not accused."""

from __future__ import annotations

import csv
import io
import json
import random
import re
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest
from tests.conftest import FAULTS, HEALTHY, MONITORS, ROOT, healthy, sample
from tests.grading.conftest import task

from hoodsnap.bundle import Answer, Bundle, dump, load, parse
from hoodsnap.grading import command
from hoodsnap.grading.copies import copies, traces
from hoodsnap.grading.result import Copy, Grade, Sure
from hoodsnap.redaction.pseudonyms import Pseudonyms
from hoodsnap.redaction.redactor import Redactor
from hoodsnap.trust import plausible
from hoodsnap.trust.fingerprint import LAYER, fingerprinted, verify

HONEST = [*sorted(FAULTS.glob("*.zst")), *sorted((ROOT / "fixtures/two-hosts").glob("*.zst"))]
HONEST += [HEALTHY, MONITORS]


def chances() -> random.Random:
    """Return random numbers that are the same in every run."""
    return random.Random(7)  # noqa: S311 (nothing is secret here)


def marked(student: str, bundle: Bundle) -> Grade:
    return Grade(student, "", (), (), traces(bundle))


@cache
def recorded(path: Path) -> Grade:
    return marked(path.name, load(path))


def found(*bundles: Bundle) -> list[Copy]:
    names = ("ann", "bob", "cat", "dan")
    return [*copies([marked(name, one) for name, one in zip(names, bundles, strict=False)])]


@cache
def renamed() -> Bundle:
    """The healthy recording with all names, ids and addresses replaced."""
    return Redactor(Pseudonyms(b"forger" * 6), [healthy()]).bundle(healthy())


def edited(bundle: Bundle, change: Callable[[Answer], Answer | None]) -> Bundle:
    """Return a bundle with changed answers and a new fingerprint."""
    kept = [answer for answer in bundle.answers if answer.layer != LAYER]
    changed = [made for answer in kept if (made := change(answer)) is not None]
    return fingerprinted(parse(dump(bundle.with_answers(changed))))


def jittered(answer: Answer, chance: random.Random, most: int = 3) -> Answer:
    """Add a few microseconds to an answer's time and duration."""
    later = timedelta(microseconds=chance.randint(1, most))
    return answer.model_copy(
        update={"at": answer.at + later, "took": answer.took + chance.randint(1, most) / 1e6}
    )


def forged() -> Bundle:
    chance = chances()
    return edited(renamed(), lambda answer: jittered(answer, chance))


def with_answers_dropped() -> Bundle:
    chance = chances()
    return edited(
        renamed(),
        lambda answer: jittered(answer, chance) if chance.random() < 0.5 else None,
    )


def in_another_order() -> Bundle:
    made = [*forged().answers]
    chances().shuffle(made)
    return fingerprinted(forged().with_answers(made))


def with_numbers_changed() -> Bundle:
    """Change a fifth of all larger numbers, and make all answers an hour later."""
    chance = chances()

    def other(number: re.Match[str]) -> str:
        return number[0][:-1] + str(chance.randint(0, 9)) if chance.random() < 0.2 else number[0]

    def change(answer: Answer) -> Answer:
        later = answer.model_copy(update={"at": answer.at + timedelta(hours=1)})
        if not isinstance(answer.value, str):
            return jittered(later, chance)
        value = re.sub("[0-9]{4,}", other, answer.value)
        return jittered(later.model_copy(update={"value": value}), chance)

    return edited(renamed(), change)


def without_half_of_the_guests() -> Bundle:
    pids = sorted(
        {answer.subject for answer in healthy().by_layer["kernel"] if answer.subject is not None}
    )
    gone = {pid for pid in pids[::2] if pid.isdigit()}
    chance = chances()

    def change(answer: Answer) -> Answer | None:
        later = answer.model_copy(update={"at": answer.at + timedelta(minutes=9)})
        return None if answer.subject in gone else jittered(later, chance)

    return edited(renamed(), change)


FORGED = [
    forged,
    with_answers_dropped,
    in_another_order,
    with_numbers_changed,
    without_half_of_the_guests,
]


@pytest.mark.parametrize("forge", FORGED, ids=lambda forge: forge.__name__)
def test_a_forged_copy_is_found(forge: Callable[[], Bundle]) -> None:
    bundle = forge()
    assert verify(bundle).intact

    [copy] = found(healthy(), bundle)

    assert copy.students == ("ann", "bob")
    assert copy.sure is Sure.CERTAIN
    assert copy.shared[0] == "certain copies of one bundle"
    assert re.fullmatch(r"[0-9]+ of [0-9]+ [A-Za-z ]+ are equal", copy.shared[1])


def test_a_careful_forgery_is_plausible_but_still_found() -> None:
    assert not [*plausible.doubts(forged())]
    assert found(healthy(), forged())


def test_a_shift_of_some_seconds_does_not_hide_a_copy() -> None:
    chance = chances()
    seconds = timedelta(seconds=5)
    bundle = edited(
        renamed(),
        lambda answer: jittered(answer.model_copy(update={"at": answer.at + seconds}), chance, 900),
    )

    [copy] = found(healthy(), bundle)

    assert copy.sure is Sure.CERTAIN


def test_the_same_bundle_is_named_as_such() -> None:
    [copy] = found(healthy(), healthy())

    assert str(copy) == "ann and bob: the same bundle"


def test_no_recording_of_one_lab_is_accused() -> None:
    groups = [*copies([recorded(path) for path in sample(HONEST, 30)])]

    assert {copy.sure for copy in groups} == {Sure.SAME_HOST}


@pytest.mark.parametrize("name", ["healthy", "migrated-live", "split-brain", "wrong-host"])
def test_two_hosts_of_one_cloud_are_not_copies(name: str) -> None:
    folder = ROOT / "fixtures/two-hosts"
    pair = [load(folder / f"{name}.{which}.json.zst") for which in ("first", "second")]

    assert not {copy.sure for copy in found(*pair)} & {Sure.CERTAIN, Sure.LIKELY}


def test_a_second_visit_is_recognized() -> None:
    paths = [FAULTS / f"{name}.json.zst" for name in ("undefine-running", "virsh-suspend")]

    [copy] = found(*map(load, paths))

    assert copy.sure is Sure.SAME_HOST
    assert re.match(
        r"the same host, or one snapshot of it, recorded at different times "
        r"\([0-9-]+ [0-9:]+, [0-9-]+ [0-9:]+ UTC\); this is not a copy",
        copy.shared[0],
    )
    assert "12 of 12 process start times are equal" in copy.shared


def test_a_second_visit_is_recognized_after_everything_was_renamed() -> None:
    first, second = (
        load(FAULTS / f"{name}.json.zst") for name in ("undefine-running", "virsh-suspend")
    )
    other = Redactor(Pseudonyms(b"forger" * 6), [second]).bundle(second)

    [copy] = found(first, other)

    assert copy.sure is Sure.SAME_HOST


def test_students_with_the_same_snapshot_are_not_copies() -> None:
    """Boot id, start times, inodes and records come from the snapshot; passing traces differ."""
    chance = chances()

    def later(answer: Answer) -> Answer:
        moved = answer.model_copy(update={"at": answer.at + timedelta(days=1)})
        query, value = answer.query, answer.value
        if isinstance(value, str) and query in ("/proc/stat", "/proc/meminfo", "/proc/uptime"):
            value = re.sub("[0-9]{4,}", lambda it: str(int(it[0]) + chance.randint(1, 9999)), value)
        elif isinstance(value, str) and "dump-flows" in query:
            value = re.sub(
                r"duration=[0-9.]+", lambda it: f"duration={chance.random() * 9e3:.3f}", value
            )
        elif query == "date --utc" or query.startswith("stat -f"):
            value = json.loads(
                re.sub(
                    "[0-9]{6}", lambda it: str(chance.randint(10**5, 10**6 - 1)), json.dumps(value)
                )
            )
        return moved if answer.error else moved.model_copy(update={"value": value})

    groups = found(healthy(), edited(healthy(), later))

    assert [copy.sure for copy in groups] == [Sure.SAME_HOST]


def test_a_group_is_reported_once(tmp_path: Path) -> None:
    (tmp_path / "class").mkdir()
    data = dump(healthy())
    for number in range(6):
        (tmp_path / "class" / f"s{number:02}.json").write_bytes(data)
    sheet = tmp_path / "sheet.yaml"
    sheet.write_text(task(holds="guest.server.status == 'ACTIVE'"))

    def run(format: str) -> str:
        paths = (tmp_path / "class",)
        done = command.grade(str(sheet), paths, None, "vm-plain", format, False)
        return "\n".join(line.plain for line in done.lines(80))

    assert " ".join(run("text").split()).count("the same bundle") == 1
    [group] = json.loads(run("json"))["copies"]
    assert len(group["students"]) == 6
    rows = [*csv.DictReader(io.StringIO(run("csv")))]
    assert {row["remarks"] for row in rows[1:]} == {"with s00 and 4 others: the same bundle"}
    assert run("junit").count("and 4 others: the same bundle") == 6


def test_the_number_of_comparisons_is_not_quadratic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from hoodsnap.grading import copies as module

    made = 0
    link = module._Link

    def counted(*both: object) -> object:
        nonlocal made
        made += 1
        return link(*both)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_Link", counted)
    one = marked("ann", healthy())
    assert len([*copies([one] * 400)]) == 1

    assert made < 400 * 10


def test_two_files_of_one_student_are_both_named() -> None:
    (copy,) = copies([marked("ann", healthy()), marked("ann", healthy())])

    assert copy.short("ann").startswith("with ann: ")
