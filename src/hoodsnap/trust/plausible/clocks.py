"""Plausibility of the times of the collection, and of the clocks that were read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta

from hoodsnap.facts.clock import moment
from hoodsnap.trust.challenge import BOOT_ID
from hoodsnap.trust.plausible.visit import HostAnswers, number

STEP = timedelta(seconds=2)
"""Largest difference that rounding and a slow host cause between two clocks read at once."""


def asked_while_collecting(visit: HostAnswers) -> Iterator[str]:
    """Check that every question was asked between the start and the end of the collection."""
    started, ended = visit.bundle.started, visit.bundle.ended
    outside = [
        answer for answer in visit.answers if started - answer.at > STEP or answer.at - ended > STEP
    ]
    for answer in outside[:1]:
        yield (
            f"answers outside the time of collection ({started:%Y-%m-%d %H:%M:%S} to"
            f" {ended:%Y-%m-%d %H:%M:%S}): {len(outside)}; the first one"
            f" is {answer.layer}: {answer.query} at {answer.at:%Y-%m-%d %H:%M:%S}"
        )


def one_boot(visit: HostAnswers) -> Iterator[str]:
    """Check that the host was not rebooted during the collection."""
    boots = {
        answer.value.strip(): None
        for answer in visit.asked("kernel", BOOT_ID)
        if isinstance(answer.value, str)
    }
    for answer in visit.asked("hoodsnap", "hoodsnap challenge"):
        if isinstance(answer.value, dict) and isinstance(answer.value.get("boot_id"), str):
            boots[answer.value["boot_id"]] = None
    if len(boots) > 1:
        yield f"the answers are from {len(boots)} boots of the host: {', '.join(boots)}"


def clocks_go_together(visit: HostAnswers) -> Iterator[str]:
    """Check that `date`, /proc/uptime and /proc/stat agree with the collector's own clock."""
    date = visit.last("host", "date --utc")
    if date is not None and isinstance(date.value, dict):
        utc = moment(date.value.get("utc"))
        slack = STEP + timedelta(seconds=date.took)
        if utc is not None and abs(utc - date.at) > slack:
            yield (
                f"date --utc shows {utc:%Y-%m-%d %H:%M:%S},"
                f" but was run at {date.at:%Y-%m-%d %H:%M:%S}"
            )
    uptime = visit.last("kernel", "/proc/uptime")
    if uptime is not None and not visit.has_own("/proc/uptime"):
        seconds = re.match(r"\d{1,10}\.\d\d ", visit.text("kernel", "/proc/uptime"), re.ASCII)
        shown, expected = seconds and float(seconds[0]), visit.uptime(uptime.at)
        slack = STEP + timedelta(seconds=uptime.took)
        if shown and expected is not None and abs(shown - expected) > slack.total_seconds():
            yield (
                f"/proc/uptime shows {shown:.2f} s,"
                f" but by the boottime of date it was {expected:.2f} s"
            )
    btime = re.search(r"^btime (\d{1,10})$", visit.text("kernel", "/proc/stat"), re.M | re.ASCII)
    if btime is not None and visit.boot is not None and not visit.has_own("/proc/stat"):
        shown, expected = number(int(btime[1])), visit.boot.timestamp()
        if shown is not None and abs(shown - expected) > STEP.total_seconds():
            yield (
                f"/proc/stat shows btime {shown:.0f},"
                f" but by the boottime of date it was {expected:.0f}"
            )
