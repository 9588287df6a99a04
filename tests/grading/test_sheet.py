"""A sheet is validated before anyone is graded by it; mistakes are reported with line numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.command import hoodsnap

from hoodsnap.grading.sheet import AnswersError, SheetError, load, parse, read_answers

HEAD = "id: lab\ntitle: Lab\ntasks:\n"


@pytest.mark.parametrize(
    ("tasks", "reason"),
    [
        ("- id: one\n  title: One\n  hold: guest", "line 6: tasks.0.hold: unknown field"),
        (
            "- id: one\n  title: One\n  quiet: disk-gone",
            "line 6: tasks.0.quiet.0: no check is named disk-gone (see: hoodsnap checks)",
        ),
        (
            "- id: one\n  title: One\n  holds:\n  - guest\n  - 'guest ='",
            "line 8: tasks.0.holds.1: it is not a JMESPath expression: Unknown token '=' at column 7",
        ),
        (
            "- id: one\n  title: One\n  holds: guest\n  points: many",
            "line 7: tasks.0.points: Input should be a valid number",
        ),
        ("- id: one\n  title: One\n  holds: guest\n  points: -1", "line 7: tasks.0.points: "),
        ("- id: one\n  title: One\n  holds: guest\n  points: .nan", "line 7: tasks.0.points: "),
        ("- id: one\n  holds: guest", "line 4: tasks.0.title: Field required"),
        (
            "- id: one\n  title: One",
            "line 4: tasks.0: a task needs holds, quiet, fires or questions",
        ),
        (
            "- id: one\n  title: One\n  holds: guest\n- id: one\n  title: Two\n  holds: guest",
            "line 7: duplicate id: one",
        ),
        (
            "- id: one\n  title: One\n  holds: guest\n  needs: two\n"
            "- id: two\n  title: Two\n  holds: guest\n  needs: one",
            "line 7: needs: no earlier task has the id two",
        ),
        ("- id: server\n  title: One\n  holds: guest", "line 4: the id `server` is reserved"),
        ("- id: one\n  id: two\n", "line 5: id occurs twice"),
        ("- &a\n  id: one", "line 4: anchors and aliases are not allowed"),
        ("- id: *a", "line 4: anchors and aliases are not allowed"),
        ("- id: [one\n", "line 5: "),
        ("- ? [a]\n  : b", "line 4: a key must be a string"),
    ],
)
def test_a_mistake_is_named_with_its_line(tasks: str, reason: str) -> None:
    with pytest.raises(SheetError) as caught:
        parse((HEAD + tasks).encode())

    assert any(line.startswith(reason) for line in str(caught.value).splitlines()), caught.value


def test_all_mistakes_are_named_at_once() -> None:
    tasks = "- id: one\n  title: One\n  holds: 'guest ='\n- id: Two\n  title: Two\n  quiet: x"

    with pytest.raises(SheetError) as caught:
        parse((HEAD + tasks).encode())

    lines = [line.partition(":")[0] for line in str(caught.value).splitlines()]
    assert lines == ["line 6", "line 7", "line 9"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"[" * 50_000 + b"]" * 50_000, "it is nested too deeply"),
        (b"[" * 50_000, "it is nested too deeply"),
        (b"x" * 300_000, "it is larger than 256 KiB"),
        (b"\xff\xfe\x00", "it is not UTF-8 text"),
        (b"", "line 1: a sheet must be an object with id, title and tasks"),
        (b"id: lab\ntitle: Lab\ntasks: []", "line 3: tasks: a sheet has 1 to 500 tasks"),
        (b"- one", "line 1: a sheet must be an object with id, title and tasks"),
        (b"a: \x00", "unacceptable character"),
        (b"a: !!python/object/apply:os.system [id]", "line 1: id: Field required"),
        # Ten lines with nine aliases each would expand to three billion strings.
        (b"a: &a [x, x]\nb: &b [*a, *a]\n", "line 1: anchors and aliases are not allowed"),
    ],
)
def test_a_hostile_sheet_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(SheetError) as caught:
        parse(data)

    assert reason in str(caught.value)


def test_a_lab_is_found_by_its_name_and_by_its_path(tmp_path: object) -> None:
    assert load("compute").id == "compute"
    with pytest.raises(SheetError, match=r"no file or lab has this name; the labs are: .*compute"):
        load("no-such-lab")


ASKING = parse(
    (
        HEAD + "- id: one\n  title: One\n  questions:\n  - id: pid\n    text: The PID?\n"
        "    answer: guest.process.pid"
    ).encode()
)


def test_answers_are_kept_as_written() -> None:
    answers, server, remarks = read_answers(b"server: test\none:\n  pid: 0010\n", ASKING)

    assert (answers, server, list(remarks)) == ({"one": {"pid": "0010"}}, "test", [])


def test_answers_without_a_question_are_remarked() -> None:
    written = b"one:\n  pdi: 1\ntwo:\n  pid: 2\nthree: 3\n"

    answers, _, remarks = read_answers(written, ASKING)

    assert answers == {}
    assert list(remarks) == [
        "line 2: one has no question 'pdi'",
        "line 3: 'two' is not a task with answers below it",
        "line 5: 'three' is not a task with answers below it",
    ]


@pytest.mark.parametrize("data", [b"[1, 2]", b"a: *b", b"{" * 10_000, b"\xff", b"just words"])
def test_unreadable_answers_are_refused(data: bytes) -> None:
    with pytest.raises(AnswersError):
        read_answers(data, ASKING)


def test_checking_a_sheet_counts_its_tasks_and_points(tmp_path: Path) -> None:
    sheet = tmp_path / "one.yaml"
    sheet.write_text(HEAD + "- id: one\n  title: One\n  holds: guest")

    done = hoodsnap("lab", "check", sheet)

    assert done.stdout == b"lab: 1 task, 1 point\n"
