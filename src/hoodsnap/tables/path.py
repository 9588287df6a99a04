"""JMESPath over the tables: `servers[?pid].{name: server, pid: pid}`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from hoodsnap.findings.analysis import Report
from hoodsnap.grading.evaluation import evaluate
from hoodsnap.tables.table import NOT_COLLECTED, TABLES, Row


class PathAnswer(NamedTuple):
    """The result of an expression."""

    value: object
    unknown: int
    """Number of values that the expression read and that were not collected: they are null."""


def query(expression: str, report: Report) -> PathAnswer:
    """Evaluate an expression over the tables that it names.

    Raises `ExpressionError` for a wrong expression, and for a field that does not exist.
    """
    words = set(re.findall(r"\w+", expression))
    named = [table for name, table in TABLES.items() if name in words]
    tables: Mapping[str, list[Row]] = {
        name: [*table.rows(report)] if table in named else [] for name, table in TABLES.items()
    }
    found = evaluate(expression, tables)
    unknown = {
        (id(touch.part), touch.name)
        for touch in found.touched
        if touch.name in _missing(touch.part)
    }
    return PathAnswer(found.value, len(unknown))


def _missing(part: Mapping[str, object]) -> list[object]:
    missing = part.get(NOT_COLLECTED)
    return missing if isinstance(missing, list) else []
