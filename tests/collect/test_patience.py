"""Patience: what a visit may lose by waiting, and who pays for it."""

from __future__ import annotations

import time

from hoodsnap.collect.patience import (
    AT_LEAST,
    GIVEN_UP,
    LEAST,
    OVERTIME,
    WEARY,
    WORN,
    Patience,
)
from hoodsnap.collect.recorder import Recorder


def wait(patience: Patience, layer: str, source: str = "", wanted: float = 10.0) -> float:
    """Leave one question unanswered; return the seconds that it took."""
    allowed = patience.allowed(layer, source, wanted)
    if allowed > 0:
        wait.now += allowed  # type: ignore[attr-defined]
        now = wait.now  # type: ignore[attr-defined]
        patience.lost(layer, source, now - allowed, now)
    return allowed


wait.now = 0.0  # type: ignore[attr-defined]


def test_a_silent_source_gets_less_and_less_and_then_nothing() -> None:
    patience = Patience(40.0)

    took = [wait(patience, "nova") for _ in range(GIVEN_UP + 2)]

    assert took == [10.0, 10.0] + [WORN] * (GIVEN_UP - WEARY) + [0.0, 0.0]


def test_a_layer_that_is_asked_late_still_gets_time() -> None:
    patience = Patience(25.0)
    for layer in ("nova-db", "nova", "libvirt", "images", "neutron"):
        while wait(patience, layer):
            pass

    assert LEAST < patience.allowed("cinder", "", 10.0) <= AT_LEAST


def test_the_parts_of_a_layer_do_not_pay_for_each_other() -> None:
    patience = Patience(25.0)
    while wait(patience, "images", "/dead"):
        pass

    assert patience.allowed("images", "/", 10.0) > AT_LEAST
    assert patience.allowed("images", "/dead", 10.0) == 0.0


def test_whatever_is_silent_the_waits_have_a_limit() -> None:
    patience = Patience(25.0)

    lost = sum(
        wait(patience, layer, f"{layer} {number}")
        for layer in ("nova", "nova-db", "libvirt", "kernel", "images", "network")
        for number in range(300)
    )

    assert lost <= 25.0 + OVERTIME + 6 * AT_LEAST


def test_an_answer_makes_up_for_the_silence_before_it() -> None:
    patience = Patience(25.0)
    for _ in range(WEARY):
        wait(patience, "nova", wanted=1.0)
    assert patience.allowed("nova", "", 10.0) == WORN

    patience.heard("nova", "")

    assert patience.allowed("nova", "", 10.0) == 10.0


def test_waits_in_parallel_are_lost_once() -> None:
    patience = Patience(25.0)

    for layer in ("nova", "nova-db", "host"):
        patience.lost(layer, "", 100.0, 110.0)

    assert patience.allowed("libvirt", "", 10.0) == 7.5


def test_a_recorder_does_not_ask_what_has_left_many_questions_unanswered() -> None:
    recorder = Recorder("host", patience=Patience(0.4))

    for _ in range(GIVEN_UP + 1):
        recorder.ask("images", "stat", lambda: time.sleep(5), patience=0.15, source="/mnt")
    healthy = recorder.ask("images", "stat", lambda: "there", source="/")

    last = recorder.answers[-2].error
    assert last is not None
    assert (last.kind, last.message) == (
        "timeout",
        "not asked: earlier questions of /mnt got no answer in time",
    )
    assert healthy.value == "there"


def test_a_refusal_costs_no_patience() -> None:
    recorder = Recorder("host")

    def refused() -> object:
        raise ConnectionRefusedError(111, "Connection refused")

    for _ in range(GIVEN_UP + 2):
        answer = recorder.ask("nova", "GET /", refused)

    assert answer.error is not None
    assert answer.error.message == "Connection refused"
