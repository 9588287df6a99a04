"""Gradescope's results.json, for one student."""

from __future__ import annotations

import json
from collections.abc import Mapping

from hoodsnap.grading.result import Grade, Result, Status, points
from hoodsnap.grading.text import WORDS


def render(grade: Grade) -> str:
    """Return a document in the format of
    https://gradescope-autograders.readthedocs.io/en/latest/specs/.

    It includes hidden tasks, for the teacher. A task that can't be graded has no score, and the
    output at the top mentions such tasks.
    """
    unknown = grade.ungraded
    notes = list(grade.remarks)
    if unknown:
        notes.insert(0, f"{len(unknown)} can't be graded from this bundle: grade them by hand")
    document = {
        "score": points(grade.results),
        "output": "\n".join(notes),
        "output_format": "text",
        "stdout_visibility": "hidden",
        "tests": [_test(one) for one in grade.results],
        "extra_data": {"server": grade.server, "ungraded": [one.id for one in unknown]},
    }
    # ASCII only, so that a student's text can't send control characters to a terminal.
    return json.dumps(document, indent=1) + "\n"


def _test(result: Result) -> Mapping[str, object]:
    test: dict[str, object] = {
        "name": result.title,
        "number": result.id,
        "max_score": result.worth,
        "output": output(result),
        "output_format": "text",
        "status": "passed" if result.status is Status.RIGHT else "failed",
        "visibility": "hidden" if result.hidden else "visible",
    }
    if result.status is not Status.UNGRADED:
        test["score"] = result.points
    return test


def output(result: Result) -> str:
    """Return the text that a student sees for one task or question."""
    lines = []
    if words := WORDS[result.status]:
        lines.append(f"{words}: {result.reason}" if result.reason else words)
    if result.expected:
        lines.append(f"expected: {result.expected}")
    lines += (f"found: {found}" for found in result.found)
    if result.hint and result.status not in (Status.RIGHT, Status.UNGRADED):
        lines.append(f"hint: {result.hint}")
    return "\n".join(lines)
