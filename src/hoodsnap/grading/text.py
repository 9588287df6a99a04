"""Grades as text: what was expected, what was found, and a hint, but never a right answer.

The text fits into 80 columns, and is the same in a pipe.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from hoodsnap.grading.result import Copy, Grade, Result, Status, points, worth
from hoodsnap.grading.sheet import Sheet
from hoodsnap.printable import clean, cut
from hoodsnap.render.line import Line, line

MARK = {
    Status.RIGHT: ("✓", "green"),
    Status.PARTLY: ("~", "yellow"),
    Status.WRONG: ("✗", "bold red"),
    Status.UNANSWERED: ("✗", "bold red"),
    Status.WAITS: ("·", "dim"),
    Status.UNGRADED: ("?", "bold yellow"),
}

WORDS = {
    Status.RIGHT: "",
    Status.PARTLY: "partly right",
    Status.WRONG: "not right",
    Status.UNANSWERED: "not answered",
    Status.WAITS: "not yet",
    Status.UNGRADED: "can't be graded",
}


def render(sheet: Sheet, grade: Grade, *, width: int = 80, hidden: bool = False) -> Iterator[Line]:
    """Yield the grade of one student."""
    results = grade.shown(hidden)
    yield line((f"{sheet.title}", "bold"))
    yield line(clean(f"server {grade.server}" if grade.server else "no server"))
    yield from _filled("! ", "  ", grade.remarks, width)
    if (reason := _reason_of_all(results)) is not None:
        yield from _filled("? ", "  ", [f"nothing can be graded: {reason}"], width)
        yield line("")
        yield from _sum(grade, results, width)
        return
    for task in sheet.tasks:
        own = [one for one in results if one.id.partition(".")[0] == task.id]
        if own:
            yield line("")
            yield line((clean(task.title), "bold"))
            for result in own:
                yield from _result(result, task.title, width)
    yield line("")
    yield from _sum(grade, results, width)


def _reason_of_all(results: Sequence[Result]) -> str | None:
    """Return the one reason why no result can be graded; None if there is more to say."""
    reasons = {result.reason for result in results}
    alike = len(results) > 1 and len(reasons) == 1
    ungraded = all(result.status is Status.UNGRADED for result in results)
    return min(reasons) if alike and ungraded else None


def _result(result: Result, title: str, width: int) -> Iterator[Line]:
    mark, style = MARK[result.status]
    score = f"{result.points:g}/{result.worth:g}"
    if result.status is Status.UNGRADED:
        score = f"?/{result.worth:g}"
    text = result.expected if result.title == title else result.title
    first, *rest = textwrap.wrap(clean(text), width - 14) or [""]
    yield line("  ", (mark, style), f" {first.ljust(width - 14)} {score.rjust(9)}")
    for more in rest:
        yield line(f"    {more}")
    if result.status is Status.RIGHT:
        return
    words = WORDS[result.status]
    yield from _filled(
        "    ", "    ", [f"{words}: {result.reason}" if result.reason else words], width
    )
    yield from _filled("    found ", "          ", result.found, width)
    if result.hint and result.status is not Status.UNGRADED:
        yield from _filled("    hint  ", "          ", [result.hint], width)


def _filled(first: str, then: str, texts: Sequence[str], width: int) -> Iterator[Line]:
    for one in texts:
        for row in textwrap.wrap(
            clean(one),
            width,
            initial_indent=first,
            subsequent_indent=then,
            break_on_hyphens=False,  # so that ids can be copied
        ):
            yield line(row)


def _sum(grade: Grade, results: Sequence[Result], width: int) -> Iterator[Line]:
    unknown = [one for one in results if one.status is Status.UNGRADED]
    total = f"{points(results):g} of {worth(results):g} points"
    if unknown:
        total += f"; {worth(unknown):g} of them can't be graded and do not count either way"
    rows = textwrap.wrap(total, width)
    yield from (line((row, "bold")) for row in rows)
    if left := len(grade.results) - len(results):
        what = "one more result is" if left == 1 else f"{left} more results are"
        yield line(f"({what} shown only to your teacher)")


def overview(grades: Sequence[Grade], copied: Sequence[Copy], *, width: int = 80) -> Iterator[Line]:
    """Yield a line for each student of a class, then remarks for the teacher."""
    named = max((len(clean(one.student)) for one in grades), default=0)
    named = min(max(named, 7), width - 44)
    yield line((f"{'student'.ljust(named)} {'points':>12} {'not graded':>11}  server", "bold"))
    for one in grades:
        score = f"{points(one.results):g}/{worth(one.results):g}"
        student = clean(one.student)
        student = cut(student, named)
        server = clean(one.server)[: width - named - 28]
        count = str(len(one.ungraded) or "")
        yield line(f"{student.ljust(named)} {score:>12} {count:>11}  {server}".rstrip())
    for one in grades:
        yield from _filled(
            "! ", "  ", [f"{one.student}: {remark}" for remark in one.remarks], width
        )
    if copied:
        yield line("")
        yield line(("copies, and submissions from one host", "bold"))
        yield from _filled("  ", "    ", list(map(str, copied)), width)


def tasks(sheet: Sheet, *, width: int = 80) -> Iterator[Line]:
    """Yield the tasks of a sheet, for students."""
    yield line((clean(sheet.title), "bold"))
    yield from _paragraphs("", sheet.text, width)
    for number, task in enumerate((one for one in sheet.tasks if not one.hidden), 1):
        total = task.worth + sum(one.points for one in task.questions)
        yield line("")
        yield line((f"{number}. {clean(task.title)}", "bold"), f"  ({total:g} points)")
        yield from _paragraphs("   ", task.text, width)
        for question in task.questions:
            yield from _filled(f"   {question.id}: ", "     ", [question.text], width)


def _paragraphs(indent: str, text: str, width: int) -> Iterator[Line]:
    for part in text.split("\n\n") if text else ():
        yield from _filled(indent, indent, [part], width)


def answer_sheet(sheet: Sheet) -> Iterator[str]:
    """Yield an answers.yaml to fill in."""
    if sheet.server is None:
        yield "server:    # the name of your server"
    for task in sheet.tasks:
        if task.questions and not task.hidden:
            yield f"{task.id}:"
            yield from (
                f"  {one.id}:    # {one.text.partition(chr(10))[0]}" for one in task.questions
            )
