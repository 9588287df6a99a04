"""That a bundle was taken for somebody who asked, and not before: it holds a text that he chose.

The text stands in an answer, with the boot and the clock of the host that it was collected on, and
so the fingerprint covers it. Who can't sign can still make up all of it; who signs, says it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from hoodsnap.bundle import Bundle
from hoodsnap.trust.fingerprint import LAYER, recorded

QUERY = "hoodsnap challenge"

BOOT_ID = "/proc/sys/kernel/random/boot_id"

SKEW = timedelta(minutes=2)
"""How far clocks of two machines that are well may be apart."""


def doubts(bundle: Bundle, text: str, within: timedelta | None, now: datetime) -> Iterator[str]:
    """Why a bundle is no answer to a challenge: one sentence each, nothing if it is one.

    `within`: how long ago it may have been finished.
    """
    answer = recorded(bundle, QUERY)
    value = answer.value if answer is not None else None
    if answer is None or not isinstance(value, dict):
        several = any(one.query == QUERY for one in bundle.by_layer.get(LAYER, ()))
        yield "it answers several challenges" if several else "it answers no challenge"
        return
    if value.get("challenge") != text:
        yield "it answers another challenge"
    boots = {
        one.value.strip()
        for one in bundle.asked("kernel", BOOT_ID, answer.host)
        if isinstance(one.value, str)
    }
    if boots and [value.get("boot_id")] != [*boots]:
        yield "the challenge was answered in another boot of the host than the rest"
    moment = _moment(value.get("utc"))
    if moment is None or bundle.started - moment > SKEW or moment - bundle.ended > SKEW:
        yield "the challenge was answered at another time than the rest"
    if bundle.ended - now > SKEW:
        yield f"it was finished at {bundle.ended:%Y-%m-%d %H:%M} UTC, which is yet to come"
    elif within is not None and now - bundle.ended > within:
        yield f"it was finished at {bundle.ended:%Y-%m-%d %H:%M} UTC, which is too long ago"


def _moment(text: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)
