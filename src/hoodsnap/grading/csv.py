"""A class as CSV: a row for each student, a column for each task and question."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from hoodsnap.grading.result import Copy, Grade, points, worth
from hoodsnap.grading.sheet import Sheet
from hoodsnap.printable import clean


def render(sheet: Sheet, grades: Sequence[Grade], copied: Sequence[Copy]) -> str:
    """Return a table for the teacher, which includes hidden tasks. The cell of a task that can't be
    graded is empty."""
    ids = [
        name
        for task in sheet.tasks
        for name in (
            *([task.id] if task.conditions else []),
            *(f"{task.id}.{question.id}" for question in task.questions),
        )
    ]
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["student", "server", "points", "of", "not graded", *ids, "remarks"])
    for grade in grades:
        cells = {one.id: f"{one.points:g}" if one.is_graded else "" for one in grade.results}
        own = [one.short(grade.student) for one in copied if grade.student in one.students]
        table.writerow(
            [
                _harmless(grade.student),
                _harmless(grade.server),
                f"{points(grade.results):g}",
                f"{worth(grade.results):g}",
                len(grade.ungraded),
                *(cells.get(name, "") for name in ids),
                _harmless("; ".join([*grade.remarks, *own])),
            ]
        )
    return out.getvalue()


def _harmless(text: str) -> str:
    """Escape a cell so that spreadsheets do not evaluate it."""
    text = clean(text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
