"""JUnit XML: a suite for each student. A task that can't be graded is an error, never a success."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from hoodsnap.grading.gradescope import output
from hoodsnap.grading.result import Copy, Grade, Status
from hoodsnap.grading.sheet import Sheet
from hoodsnap.grading.text import WORDS
from hoodsnap.printable import clean


def render(
    sheet: Sheet, grades: Sequence[Grade], copied: Sequence[Copy] = (), *, hidden: bool = False
) -> str:
    """Return one document for all students. Members of a group of copies get a line about it."""
    root = Element("testsuites", name=_legal(sheet.title))
    for grade in grades:
        results = grade.shown(hidden)
        failed = [one for one in results if one.status not in (Status.RIGHT, Status.UNGRADED)]
        unknown = [one for one in results if one.status is Status.UNGRADED]
        suite = SubElement(
            root,
            "testsuite",
            name=_legal(grade.student),
            tests=str(len(results)),
            failures=str(len(failed)),
            errors=str(len(unknown)),
        )
        for result in results:
            case = SubElement(suite, "testcase", classname=sheet.id, name=_legal(result.id))
            if result.status is not Status.RIGHT:
                kind = "error" if result.status is Status.UNGRADED else "failure"
                message = result.reason or WORDS[result.status]
                SubElement(case, kind, message=_legal(message)).text = _legal(output(result))
        groups = (one.short(grade.student) for one in copied if grade.student in one.students)
        if remarks := [*grade.remarks, *groups]:
            SubElement(suite, "system-out").text = _legal("\n".join(remarks))
    indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _legal(text: str) -> str:
    """Return the text without characters that XML 1.0 can't represent or that reverse a line."""
    return "".join(char if char in "\n\t" else clean(char) for char in text)
