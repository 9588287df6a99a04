"""A student who hands in the healthy recording."""

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
    """Return a function that grades the recorded (and edited) host by a given sheet."""

    def graded(sheet: str | bytes, answers: str = "", server: str | None = "vm-plain") -> Grade:
        data = sheet if isinstance(sheet, bytes) else sheet.encode()
        handed_in = Submission("ann", (("ann.json", dump(host.bundle)),), answers.encode())
        return grade_submission(parse(data), handed_in, server)[0]

    return graded


def task(**fields: Any) -> str:
    """Return a sheet with one task, as JSON, which is also YAML."""
    import json

    return json.dumps(
        {"id": "lab", "title": "Lab", "tasks": [{"id": "one", "title": "One", **fields}]}
    )
