"""A foreign bundle may contain any values: `explain` reads it without an exception."""

from __future__ import annotations

import json
import tomllib
from datetime import UTC, datetime
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import healthy

from hoodsnap.bundle import dump, parse
from hoodsnap.findings.analysis import analyze
from hoodsnap.findings.baseline import part, written
from hoodsnap.findings.grouping import grouped
from hoodsnap.render import json as as_json
from hoodsnap.render import text as as_text
from hoodsnap.render.finding import row
from hoodsnap.render.html import page

odd_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec=None), max_size=20),
    st.sampled_from(["", "0", "-1", "\0", "../../etc/passwd", "\x1b[2J", "<domain/>", "{}", "[]"]),
    st.lists(st.none() | st.integers() | st.text(max_size=3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.none() | st.text(max_size=3), max_size=3),
)

damages = st.lists(
    st.tuples(st.integers(0, 10**6), st.lists(st.integers(0, 10**6), max_size=6), odd_values),
    min_size=1,
    max_size=6,
)
"""Index of an answer, path into its value, and the value to put there."""


def _damage(bundle: Any, number: int, way: list[int], instead: object) -> None:
    place: Any = bundle["answers"][number % len(bundle["answers"])]
    if "value" not in place:
        return
    key: Any = "value"
    for step in way:
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner:
            break
        place, key = (
            inner,
            [*inner][step % len(inner)] if isinstance(inner, dict) else step % len(inner),
        )
    place[key] = instead


def _recorded() -> Any:
    return json.loads(dump(healthy()))


def _explain(raw: Any) -> None:
    report = analyze(parse(json.dumps(raw).encode()))
    json.loads(as_json.render(report, report.cloud.guests))
    assert all(
        char.isprintable() or char == "\n" for char in page.render(report, report.cloud.guests)
    )
    for verbose in (False, True):
        for line in as_text.render(report, report.cloud.guests, verbose=verbose):
            assert line.plain.isprintable()
        for line in as_text.findings(report, report.cloud.guests, verbose=verbose):
            assert line.plain.isprintable()
    for group in grouped(report.findings):
        assert row(group).plain.isprintable()
    today = datetime.now(UTC).date()
    tomllib.loads(written(part(report.findings, (), today), today))


@given(damages)
@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
)
def test_a_bundle_with_damaged_answers_is_explained(
    damage: list[tuple[int, list[int], object]],
) -> None:
    raw = _recorded()
    for number, way, instead in damage:
        _damage(raw, number, way, instead)

    _explain(raw)


@given(
    st.sampled_from(["layer", "host", "query", "subject"]),
    st.text(st.characters(codec=None)),
    st.integers(0, 10**6),
)
@settings(max_examples=15)
def test_a_bundle_with_damaged_queries_is_explained(field: str, instead: str, start: int) -> None:
    raw = _recorded()
    for answer in raw["answers"][start % len(raw["answers"]) :: 7]:
        answer[field] = instead

    _explain(raw)


def test_deep_nesting_inside_a_string_is_explained() -> None:
    raw = _recorded()
    for answer in raw["answers"]:
        if "dumpxml" in answer["query"] and "value" in answer:
            answer["value"] = "<domain>" * 2_000
        if "instance_extra" in answer["query"] and answer.get("value", {}).get("columns"):
            at = (
                answer["value"]["columns"].index("flavor")
                if "flavor" in answer["value"]["columns"]
                else 0
            )
            for row in answer["value"]["rows"]:
                row[at] = "[" * 2_000
        if "qemu-img info" in answer["query"] and isinstance(answer.get("value"), list):
            answer["value"][0]["filename"] = "json:" + '{"file":' * 2_000

    _explain(raw)


def test_an_xml_bomb_is_not_unpacked() -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<!DOCTYPE d [<!ENTITY e0 "x">{entities}]><domain><name>&e11;</name></domain>'
    raw = _recorded()
    for answer in raw["answers"]:
        if "dumpxml" in answer["query"] and "value" in answer:
            answer["value"] = bomb

    _explain(raw)
