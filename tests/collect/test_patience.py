import time

from hoodsnap.collect.patience import Patience
from hoodsnap.collect.recorder import Recorder


def test_timeouts_shorten_the_next_waits_and_fast_answers_still_arrive() -> None:
    recorder = Recorder("host")
    patience = Patience(each=0.2, altogether=0.3, worn=0.02)

    for _ in range(4):
        patience.ask(recorder, "kernel", "/proc/1/cmdline", lambda: time.sleep(0.5), "1")
    answer = patience.ask(recorder, "kernel", "/proc/2/cmdline", lambda: "init", "2")

    took = [answer.took for answer in recorder.answers]
    assert all(0.2 <= seconds < 0.4 for seconds in took[:2])
    assert all(0.02 <= seconds < 0.2 for seconds in took[2:4])
    assert answer.value == "init"


def test_a_slow_answer_does_not_shorten_the_next_waits() -> None:
    recorder = Recorder("host")
    patience = Patience(each=0.3, altogether=0.1, worn=0.01)

    for _ in range(3):
        patience.ask(recorder, "kernel", "/proc/1/cmdline", lambda: time.sleep(0.1), "1")

    assert [answer.error for answer in recorder.answers] == [None, None, None]
