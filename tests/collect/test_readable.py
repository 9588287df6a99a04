"""The reader accepts every bundle that the collector writes, even after an attack."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from hoodsnap import bounds
from hoodsnap.bundle import Answer, Bundle, dump, parse
from hoodsnap.collect.readable import readable
from hoodsnap.collect.recorder import Recorder
from hoodsnap.keep.secret import DEEPEST

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def bundle(recorder: Recorder) -> Bundle:
    return Bundle(tool="t", started=NOW, ended=NOW, answers=tuple(recorder.answers))


def read(recorder: Recorder) -> list[Answer]:
    return list(parse(dump(readable(bundle(recorder)))).answers)


@pytest.mark.parametrize("mark", ["{", "[", ",", "<"])
def test_a_million_brackets_in_a_command_line_cost_only_that_answer(mark: str) -> None:
    recorder = Recorder("vm")
    recorder.ask("kernel", "/proc/1/cmdline", lambda: "qemu\0-name\0guest")
    for pid in range(3):
        recorder.ask("kernel", f"/proc/{pid}7/cmdline", lambda: mark * 1_000_000)

    assert bounds.SHARES  # the reader does count
    kept, *hostile = read(recorder)

    assert kept.value == "qemu\0-name\0guest"
    assert all(answer.error and answer.error.kind == "too-large" for answer in hostile)


def test_answers_are_left_out_until_the_bundle_can_be_read() -> None:
    recorder = Recorder("vm")
    for number in range(200):
        recorder.ask("network", f"ask {number}", lambda: ["{" * 4000])

    answers = read(recorder)

    assert 10 < sum(answer.error is None for answer in answers) < 200


def test_a_readable_bundle_is_unchanged() -> None:
    recorder = Recorder("vm")
    recorder.ask("nova", "GET /", lambda: {"servers": [{"name": "{" * 255}]})
    before = bundle(recorder)

    assert readable(before) is before


def test_no_recorded_answer_is_nested_too_deeply_to_be_read() -> None:
    value: object = 1
    for _ in range(DEEPEST):
        value = [value]
    recorder = Recorder("vm")

    answer = recorder.ask("nova", "GET /", lambda: value)

    assert answer.error is None
    assert read(recorder)[0].value == value


def test_a_query_that_is_too_long_to_be_read_is_cut() -> None:
    recorder = Recorder("vm")
    recorder.ask("kernel", "awk " + "/x" * 5_000_000, lambda: 1, subject="/y" * 100_000)

    answer = read(recorder)[0]

    assert answer.value == 1
    assert answer.query.startswith("awk /x/x")
    assert answer.query.endswith("[withheld: more characters]")
