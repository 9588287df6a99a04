"""The commands `hoodsnap grade` and `hoodsnap lab`: their output and their exit status."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hoodsnap.bundle import UnreadableBundleError, load, merge
from hoodsnap.exit_status import AGREE, BLIND, DISAGREE
from hoodsnap.findings.analysis import analyze
from hoodsnap.grading import classroom, csv, gradescope, json, junit, sheet, submissions, text
from hoodsnap.grading.grader import NoServerError, chosen, mistakes
from hoodsnap.grading.result import Grade, Status
from hoodsnap.grading.sheet import Sheet, SheetError
from hoodsnap.grading.sheet_view import documented
from hoodsnap.grading.submissions import Submission
from hoodsnap.render.line import Line, line
from hoodsnap.trust.signature import SshKeygenError, require_ssh_keygen


class UsageError(Exception):
    """The command can't do what was asked. The text is one sentence, or a line for each mistake."""


@dataclass(frozen=True)
class Done:
    """The output of a command, and its exit status."""

    lines: Callable[[int], Iterable[Line]]
    """Function that returns the output for a width in columns."""
    status: int = AGREE


def grade(
    lab: str,
    paths: Sequence[Path],
    answers: Path | None,
    server: str | None,
    format: str,
    hidden: bool,
    signers: Path | None = None,
) -> Done:
    """Grade one student, or a class. Raises `UsageError`."""
    by = _sheet(lab)
    if signers is not None:
        _must_be_checked(signers)
    if any(path.is_dir() for path in paths):
        if len(paths) > 1 or answers is not None:
            raise UsageError("to grade a class, name only its folder, with the answers inside")
        return _class(by, paths[0], server, format, hidden, signers)
    found, _ = classroom.grade_submission(by, _one(paths, answers), server, signers)
    return _student(by, found, format, hidden)


def _student(by: Sheet, found: Grade, format: str, hidden: bool) -> Done:
    statuses = {one.status for one in found.shown(hidden)}
    status = DISAGREE
    if Status.UNGRADED in statuses:
        status = BLIND
    elif statuses == {Status.RIGHT}:
        status = AGREE
    if format == "text":
        return Done(lambda width: text.render(by, found, width=width, hidden=hidden), status)
    if format == "gradescope":
        return Done(_written(gradescope.render(found)), status)
    return Done(_written(_document(by, [found], format, hidden)), status)


def _must_be_checked(signers: Path) -> None:
    if not signers.is_file():
        raise UsageError(f"{signers} can't be read: no such file")
    try:
        require_ssh_keygen()
    except SshKeygenError as reason:
        raise UsageError(f"signatures can't be checked: {reason}") from None


def _class(
    by: Sheet, folder: Path, server: str | None, format: str, hidden: bool, signers: Path | None
) -> Done:
    if format == "gradescope":
        raise UsageError("Gradescope takes one student at a time: name the bundle, not the folder")
    try:
        paths = submissions.students(folder)
    except OSError as error:
        raise UsageError(f"{folder} can't be read: {error.strerror}") from None
    if not paths:
        raise UsageError(f"{folder} holds no submissions")
    grades = classroom.grade_class(by, paths, server, signers)
    copied = tuple(classroom.copies(grades))
    status = AGREE if all(one.traces.fingerprints for one in grades) else BLIND
    if format == "text":
        return Done(lambda width: text.overview(grades, copied, width=width), status)
    if format == "csv":
        return Done(_written(csv.render(by, grades, copied)), status)
    if format == "json":
        return Done(_written(json.render(by, grades, copied, hidden=hidden)), status)
    return Done(_written(junit.render(by, grades, copied, hidden=hidden)), status)


def _document(by: Sheet, grades: Sequence[Grade], format: str, hidden: bool) -> str:
    if format == "junit":
        return junit.render(by, grades, hidden=hidden)
    if format == "csv":
        return csv.render(by, grades, ())
    return json.render(by, grades, (), hidden=hidden)


def _one(paths: Sequence[Path], answers: Path | None) -> Submission:
    """Combine several files of one student into one submission."""
    parts = [submissions.read(path) for path in paths]
    given = next((part.answers for part in parts if part.answers is not None), None)
    if answers is not None:
        try:
            given = answers.read_bytes()
        except OSError as error:
            raise UsageError(f"{answers} can't be read: {error.strerror}") from None
    return Submission(
        parts[0].student,
        tuple(bundle for part in parts for bundle in part.bundles),
        given,
        tuple(remark for part in parts for remark in part.remarks),
    )


def show(lab: str, answers: bool) -> Done:
    """Show the tasks, or an answer sheet to fill in. Raises `UsageError`."""
    by = _sheet(lab)
    if answers:
        return Done(lambda width: map(line, text.answer_sheet(by)))
    return Done(lambda width: text.tasks(by, width=width))


def check(lab: str, paths: Sequence[Path], server: str | None) -> Done:
    """Check a sheet, alone or against an example bundle. Raises `UsageError`."""
    by = _sheet(lab)
    rows = [f"{by.id}: {_counted(len(by.tasks), 'task')}, {_counted(_total(by), 'point')}"]
    if not paths:
        return Done(lambda width: map(line, rows))
    try:
        report = analyze(merge([load(path) for path in paths]))
        guest = chosen(report, server or by.server)
    except (UnreadableBundleError, NoServerError) as reason:
        raise UsageError(f"the example can't be used: {reason}") from None
    wrong = mistakes(by, report, guest)
    rows += (f"{name} can't be graded with this example: {why}" for name, why in wrong.items())
    if not wrong:
        rows.append("everything can be graded with this example")
    return Done(lambda width: map(line, rows), DISAGREE if wrong else AGREE)


def _counted(number: float, noun: str) -> str:
    return f"{number:g} {noun}" if number == 1 else f"{number:g} {noun}s"


def _total(by: Sheet) -> float:
    return sum(task.worth + sum(one.points for one in task.questions) for task in by.tasks)


def facts() -> Done:
    """List every field that an expression may name."""
    return Done(lambda width: (line(f"{path.ljust(38)} {help}") for path, help in documented()))


def _sheet(lab: str) -> Sheet:
    try:
        return sheet.load(lab)
    except SheetError as reason:
        rows = str(reason).splitlines()
        raise UsageError(f"{lab} can't be used: " + "\n  ".join(rows)) from None


def _written(document: str) -> Callable[[int], Iterator[Line]]:
    rows = document.removesuffix("\n").split("\n")
    return lambda width: (line(row) for row in rows)
