"""Expressions: unknown values stay unknown, misspelled fields are errors, and none runs forever."""

from __future__ import annotations

import pytest

from hoodsnap.facts.fact import UnheardError
from hoodsnap.grading.evaluation import compiled, evaluate
from hoodsnap.grading.expression import ExpressionError, Silence

FACTS = {
    "guest": {
        "name": "test",
        "pid": 7,
        "domain": None,
        "process": Silence("the kernel was not collected"),
        "disks": [{"path": "/a", "size": 1}, {"path": "/b", "size": Silence("denied")}],
    }
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("guest.name", "test"),
        ("guest.domain", None),
        ("guest.domain.name", None),
        ("guest.name == 'test' || guest.process.pid", True),
        ("guest.name == 'x' && guest.process.pid", False),
        ("guest.disks[].path", ["/a", "/b"]),
        ("guest.disks[0].size", 1),
        ("guest.disks[?path == '/a'] | [0].size", 1),
        ("length(guest.disks)", 2),
        ("guest.disks[5]", None),
        ("keys(guest) | sort(@)", ["disks", "domain", "name", "pid", "process"]),
        ("guest.{a: name, b: pid}", {"a": "test", "b": 7}),
        ("guest.pid > `5`", True),
    ],
)
def test_collected_values_can_be_evaluated(text: str, value: object) -> None:
    assert evaluate(text, FACTS).value == value


@pytest.mark.parametrize(
    "text",
    [
        "guest.process",
        "guest.process.pid",
        "guest.process == null",
        "!(guest.process)",
        "guest",
        "guest.*",
        "[guest]",
        "guest.disks[].size",
        "guest.disks[?size > `1`]",
        "guest.disks == guest.disks",
        "to_string(guest)",
        "length(guest.process)",
        "sort_by(guest.disks, &size)",
        "max_by(guest.disks, &size).path",
        "values(guest)",
        "not_null(guest.process, 'x')",
        "guest.disks | [1]",
    ],
)
def test_an_expression_that_reads_an_uncollected_value_raises(text: str) -> None:
    with pytest.raises(UnheardError):
        evaluate(text, FACTS)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("guest.pdi", "no field pdi; the fields are: disks, domain, name, pid, process"),
        ("gest", "no field gest; the fields are: guest"),
        ("guest.disks.path", "no field path: this is a list, not an object"),
        ("guest.name.x", "no field x: this is a simple value, not an object"),
        ("length(guest.pid)", "invalid type"),
        ("no_such(guest.name)", "Unknown function"),
    ],
)
def test_a_misspelled_field_is_an_error_instead_of_null(text: str, reason: str) -> None:
    with pytest.raises(ExpressionError, match=reason):
        evaluate(text, FACTS)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 900 + "guest" + ")" * 900,
        "!" * 1900 + "guest",
        "[" * 900,
        "x" * 2_001,
        "`" + "[" * 1900,
        "guest[99999999999999999999999999:]" * 50,
        "`" + "9" * 1_900 + "`",
        "",
        "guest.disks[::0]",
    ],
)
def test_a_hostile_expression_is_refused_or_has_a_value(text: str) -> None:
    try:
        compiled(text)
        evaluate(text, FACTS)
    except (ExpressionError, UnheardError):
        pass


@pytest.mark.parametrize(
    "text",
    [
        "|".join(["[@, @]"] * 200),
        "|".join(["[@, @]"] * 60) + " | to_string(@)",
        "|".join(["[@, @]"] * 60) + " | @ == @",
        "`[1, 2, 3]` | " + "|".join(["[@, @][]"] * 150),
        "'ab' | " + "|".join(["join('', [@, @])"] * 80),
        "`[1]` | " + "|".join(["[@, @]"] * 60) + " | contains(@, `1`)",
    ],
)
def test_an_expression_that_grows_forever_is_stopped(text: str) -> None:
    with pytest.raises(ExpressionError, match=r"too long|too large|too deeply"):
        evaluate(text, {"name": "test"})
