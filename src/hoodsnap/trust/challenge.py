"""Challenge: proof that a bundle was collected for, and after, a given request.

The person who requests the bundle chooses a text. The collector records the text in an answer, with
the boot id and the clock of the host, so the fingerprint covers all three. Without a signature all
of it can be forged; with one, the signer vouches for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from hoodsnap.bundle import Bundle
from hoodsnap.facts.clock import moment
from hoodsnap.trust.fingerprint import LAYER, recorded

QUERY = "hoodsnap challenge"

BOOT_ID = "/proc/sys/kernel/random/boot_id"

SKEW = timedelta(minutes=2)
"""Largest difference between the clocks of two healthy machines."""


def doubts(bundle: Bundle, text: str, within: timedelta | None, now: datetime) -> Iterator[str]:
    """Yield the reasons, one sentence each, why a bundle does not answer a challenge.

    `within`: the largest age of the bundle; None for any age.
    """
    answer = recorded(bundle, QUERY)
    value = answer.value if answer is not None else None
    if answer is None or not isinstance(value, dict):
        several = any(one.query == QUERY for one in bundle.by_layer.get(LAYER, ()))
        yield "it answers several challenges" if several else "it answers no challenge"
        return
    if value.get("challenge") != text:
        yield "it answers a different challenge"
    boots = {
        one.value.strip()
        for one in bundle.asked("kernel", BOOT_ID, answer.host)
        if isinstance(one.value, str)
    }
    if boots and [value.get("boot_id")] != [*boots]:
        yield "the challenge and the other answers are from different boots of the host"
    answered = moment(value.get("utc"))
    if answered is None or bundle.started - answered > SKEW or answered - bundle.ended > SKEW:
        yield "the challenge's timestamp lies outside the time of collection"
    if bundle.ended - now > SKEW:
        yield f"its collection ended at {bundle.ended:%Y-%m-%d %H:%M} UTC, which is in the future"
    elif within is not None and now - bundle.ended > within:
        yield f"its collection ended at {bundle.ended:%Y-%m-%d %H:%M} UTC, which is too long ago"
