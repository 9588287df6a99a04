"""Grades as JSON, for one student or many."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from hoodsnap.grading.result import Copy, Grade, Result, points, worth
from hoodsnap.grading.sheet import Sheet

FORMAT = 1
"""Format number; it changes when a field is removed or changes its meaning."""


def render(
    sheet: Sheet, grades: Sequence[Grade], copied: Sequence[Copy], *, hidden: bool = False
) -> str:
    """Return the grades, and the groups of copies, as JSON."""
    document = {
        "format": FORMAT,
        "lab": sheet.id,
        "students": [_grade(grade, hidden) for grade in grades],
        "copies": [
            {"students": list(one.students), "sure": one.sure.value, "shared": list(one.shared)}
            for one in copied
        ],
    }
    # ASCII only, so that a student's text can't send control characters to a terminal.
    return json.dumps(document, indent=1) + "\n"


def _grade(grade: Grade, hidden: bool) -> Mapping[str, object]:
    results = grade.shown(hidden)
    return {
        "student": grade.student,
        "server": grade.server,
        "points": points(results),
        "of": worth(results),
        "remarks": list(grade.remarks),
        "results": [_result(result) for result in results],
    }


def _result(result: Result) -> Mapping[str, object]:
    return {
        "id": result.id,
        "title": result.title,
        "status": result.status.value,
        "points": None if not result.is_graded else result.points,
        "of": result.worth,
        "expected": result.expected,
        "found": list(result.found),
        "reason": result.reason,
        "hint": result.hint,
        "hidden": result.hidden,
    }
