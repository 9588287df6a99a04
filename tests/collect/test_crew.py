"""Threads for the tasks of a visit: they end together, or are left together."""

from __future__ import annotations

import threading
import time

import pytest

from hoodsnap.collect.crew import AT_ONCE, together


def test_all_tasks_are_done_a_few_at_a_time() -> None:
    lock, now, most, done = threading.Lock(), 0, 0, 0

    def task() -> None:
        nonlocal now, most, done
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.01)
        with lock:
            now -= 1
            done += 1

    assert together(task for _ in range(20))
    assert done == 20
    assert 1 < most <= AT_ONCE


def test_no_tasks_are_no_wait() -> None:
    assert together([])


def test_an_exception_is_raised_when_all_tasks_have_ended() -> None:
    done = []

    def fails() -> None:
        raise ValueError("one of them")

    with pytest.raises(ValueError, match="one of them"):
        together([fails, lambda: done.append(1), lambda: done.append(2)])

    assert sorted(done) == [1, 2]


def test_tasks_that_are_stuck_are_left_and_the_others_dropped() -> None:
    stuck, begun = threading.Event(), []

    def hangs() -> None:
        begun.append(1)
        stuck.wait(20)

    start = time.monotonic()
    ended = together([hangs] * 3, at_once=1, is_stuck=lambda: time.monotonic() - start > 0.3)
    stuck.set()

    assert not ended
    assert time.monotonic() - start < 10
    assert begun == [1]
