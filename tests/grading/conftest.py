"""A student, made of the healthy recording."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.conftest import RecordedHost

from hoodsnap.bundle import dump
from hoodsnap.grading.classroom import grade_submission
from hoodsnap.grading.result import Grade
from hoodsnap.grading.sheet import parse
from hoodsnap.grading.submissions import Submission

GradeIt = Callable[..., Grade]


@pytest.fixture
def grade(host: RecordedHost) -> GradeIt:
    """Grade what the host was recorded (and edited) to be, by a sheet that is written here."""

    def graded(sheet: str | bytes, answers: str = "", server: str | None = "vm-plain") -> Grade:
        data = sheet if isinstance(sheet, bytes) else sheet.encode()
        handed_in = Submission("ann", (("ann.json", dump(host.bundle)),), answers.encode())
        return grade_submission(parse(data), handed_in, server)[0]

    return graded


def task(**fields: Any) -> str:
    """A sheet of one task, as the JSON that YAML is a superset of."""
    import json

    return json.dumps(
        {"id": "lab", "title": "Lab", "tasks": [{"id": "one", "title": "One", **fields}]}
    )
