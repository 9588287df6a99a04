"""A changed, added or removed answer is detected; compression and order do not matter."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import RecordedHost, healthy

from hoodsnap.bundle import Answer, Bundle, dump, parse
from hoodsnap.trust.fingerprint import LAYER, fingerprint, fingerprinted, verify

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture
def host() -> RecordedHost:
    """The healthy recording, without its fingerprint and other answers of hoodsnap itself."""
    bundle = healthy()
    answers = [answer for answer in bundle.answers if answer.layer != LAYER]
    return RecordedHost(bundle.with_answers(answers))


def bundle(*values: Any) -> Bundle:
    answers = tuple(
        Answer(layer="libvirt", host="vm", query=f"q{n}", at=NOON, took=0.25, value=value)
        for n, value in enumerate(values)
    )
    later = NOON + timedelta(seconds=3)
    return Bundle(tool="hoodsnap 0.1.0", started=NOON, ended=later, answers=answers)


def mailed(one: Bundle) -> Bundle:
    return parse(dump(one))


def changes(one: Bundle) -> list[str]:
    verdict = verify(mailed(one))
    assert not verdict.intact
    return list(verdict.altered)


def test_what_was_written_is_intact(host: RecordedHost) -> None:
    verdict = verify(mailed(fingerprinted(host.bundle)))

    assert verdict.intact
    assert verdict.count == len(host.bundle.answers)
    assert verdict.fingerprint == fingerprint(host.bundle)


def test_a_bundle_without_a_fingerprint_is_not_called_intact(host: RecordedHost) -> None:
    verdict = verify(host.bundle)

    assert (verdict.intact, verdict.recorded, verdict.altered) == (False, None, ())


def test_order_and_layout_do_not_matter(host: RecordedHost) -> None:
    raw = json.loads(dump(fingerprinted(host.bundle)))
    raw["answers"].reverse()
    again = parse(json.dumps(raw, sort_keys=True, indent=2).encode())

    assert verify(again).intact


def test_a_time_zone_does_not_matter() -> None:
    raw = json.loads(dump(fingerprinted(bundle("a"))))
    raw["started"] = "2026-11-23T13:00:00+01:00"

    assert verify(parse(json.dumps(raw).encode())).intact


@given(st.lists(values, max_size=4))
def test_any_value_is_intact_after_writing_and_reading(listed: list[Any]) -> None:
    written = fingerprinted(bundle(*listed))
    if "Infinity" in json.dumps(listed):
        return
    assert verify(mailed(written)).intact


def test_an_object_with_keys_that_are_not_strings_is_intact_too() -> None:
    assert verify(mailed(fingerprinted(bundle({10: "a", 9: [1, (2, 3)], 1.5: None})))).intact


@given(st.lists(values, min_size=1, max_size=4), values, st.data())
def test_any_changed_value_is_detected(listed: list[Any], other: Any, data: st.DataObject) -> None:
    which = data.draw(st.integers(0, len(listed) - 1))
    if json.dumps(other, sort_keys=True) == json.dumps(listed[which], sort_keys=True):
        return
    changed = bundle(*listed[:which], other, *listed[which + 1 :])

    assert fingerprint(changed) != fingerprint(bundle(*listed))


def test_a_changed_answer_is_named(host: RecordedHost) -> None:
    host.bundle = fingerprinted(host.bundle)
    query = f"virsh dumpxml {host.domain('vm-plain')}"
    host.edit("libvirt", query, "<vcpu placement='static'>1<", "<vcpu placement='static'>2<")

    assert changes(host.bundle) == [f"changed: libvirt: {query}"]


def test_an_added_answer_is_named(host: RecordedHost) -> None:
    host.bundle = fingerprinted(host.bundle)
    asked = host.last("libvirt", "virsh list --all")
    host.add(asked.model_copy(update={"query": "virsh list --inactive"}))

    assert changes(host.bundle) == ["added: libvirt: virsh list --inactive"]


def test_the_same_answer_twice_is_one_too_many(host: RecordedHost) -> None:
    host.bundle = fingerprinted(host.bundle)
    host.add(host.last("libvirt", "virsh capabilities"))

    assert changes(host.bundle) == ["added: libvirt: virsh capabilities"]


def test_a_removed_answer_is_reported_by_position(host: RecordedHost) -> None:
    host.bundle = fingerprinted(host.bundle)
    answers = host.bundle.answers
    gone = host.last("libvirt", "virsh capabilities")
    before = answers[answers.index(gone) - 1]
    host.drop(lambda answer: answer != gone)

    place = f"{before.layer}: {before.query}"
    assert changes(host.bundle) == [f"removed: one answer after {place}"]


def test_a_removed_first_answer_is_reported(host: RecordedHost) -> None:
    host.bundle = fingerprinted(host.bundle)
    first = host.bundle.answers[0]
    host.drop(lambda answer: answer is not first)

    assert changes(host.bundle) == ["removed: one answer at the beginning"]


@pytest.mark.parametrize("field", ["tool", "started", "ended"])
def test_a_changed_head_is_detected(field: str) -> None:
    raw = json.loads(dump(fingerprinted(bundle("a", "b"))))
    raw[field] = "x" if field == "tool" else "2026-11-23T12:00:01Z"
    changed = parse(json.dumps(raw).encode())

    assert changes(changed) == [
        "changed: the tool's version, the times of collection or the original's fingerprint"
    ]


@pytest.mark.parametrize("field", ["at", "took", "host", "subject"])
def test_every_field_of_an_answer_is_covered(field: str) -> None:
    raw = json.loads(dump(fingerprinted(bundle("a", "b"))))
    other = {"at": "2026-11-23T12:00:01Z", "took": 0.5, "host": "other", "subject": "7"}
    raw["answers"][1][field] = other[field]

    assert not verify(parse(json.dumps(raw).encode())).intact


def test_two_merged_bundles_are_not_intact() -> None:
    first, second = fingerprinted(bundle("a")), fingerprinted(bundle("b"))
    both = first.with_answers([*first.answers, *second.answers])

    assert changes(both) == ["it has several fingerprints: it was merged from several bundles"]


@pytest.mark.parametrize("value", [None, [], {}, {"fingerprint": 7}, "sha256:0"])
def test_an_unreadable_fingerprint_counts_as_missing(value: object) -> None:
    raw = json.loads(dump(fingerprinted(bundle("a"))))
    raw["answers"][-1]["value"] = value
    verdict = verify(parse(json.dumps(raw).encode()))

    assert (verdict.intact, verdict.recorded) == (False, None)


@pytest.mark.parametrize("listed", [None, 7, [None, {}, 3], "abc"])
def test_an_unreadable_list_of_answers_is_not_intact(listed: object) -> None:
    raw = json.loads(dump(fingerprinted(bundle("a"))))
    raw["answers"][-1]["value"]["answers"] = listed

    assert not verify(parse(json.dumps(raw).encode())).intact


def test_a_derived_bundle_records_the_fingerprint_of_its_original() -> None:
    original = fingerprint(bundle("a"))
    made = mailed(fingerprinted(bundle("b"), original))

    assert verify(made).intact
    assert made.answers[-1].value["original"] == original
    raw = json.loads(dump(made))
    raw["answers"][-1]["value"]["original"] = fingerprint(bundle("c"))
    assert not verify(parse(json.dumps(raw).encode())).intact
