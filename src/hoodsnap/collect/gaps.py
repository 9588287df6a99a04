"""Layers that are there and did not answer everything: what makes a bundle partial.

A layer that does not exist on this host, or that nobody could have asked (a package or a login is
missing), is no gap.
"""

from __future__ import annotations

from collections.abc import Iterable

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.trust.fingerprint import LAYER

NO_GAP = frozenset(["absent", "missing"])
"""Kinds of failure that leave no gap: there is nothing to answer, or nothing to ask with."""

LOST = frozenset(["timeout", "unreachable"])
"""Kinds of failure that leave a gap even if the layer answered other questions."""

NEEDLESS = frozenset(["hostname -f"])
"""Queries whose answer depends on another host, and that nothing is compared with."""

_LIBVIRT_FILES = "/etc/libvirt/"


def gaps(bundle: Bundle) -> tuple[str, ...]:
    """Return the layers of which answers are missing, in the order in which they were asked."""
    return tuple(
        layer
        for layer, answers in bundle.by_layer.items()
        if layer != LAYER and _has_gap(answers) and (layer != "libvirt" or _has_libvirt(bundle))
    )


def _has_gap(answers: Iterable[Answer]) -> bool:
    failed = [answer.error for answer in answers if answer.query not in NEEDLESS and answer.error]
    kinds = {error.kind for error in failed} - NO_GAP
    is_silent = all(answer.error is not None for answer in answers)
    return bool(kinds & LOST) or (is_silent and bool(kinds))


def _has_libvirt(bundle: Bundle) -> bool:
    """True unless this host has no libvirt: no daemon answers, and none has a configuration."""
    if any(answer.error is None for answer in bundle.by_layer.get("libvirt", ())):
        return True
    files = [
        answer
        for answer in bundle.by_layer.get("host", ())
        if answer.query.startswith(_LIBVIRT_FILES)
    ]
    return not files or any(one.error is None or one.error.kind != "absent" for one in files)
