"""Suggestions for a name that was probably mistyped."""

from __future__ import annotations

from collections.abc import Iterable

MOST = 3
"""Names to suggest at most."""

MOST_COMPARED = 5_000
"""Names to compare at most. Comparing takes some 20 µs a name."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean NAME?` for the known names most like this one, or an empty text.

    The text is the end of a sentence. If names begin with the given text, only these are suggested.
    """
    from difflib import get_close_matches
    from itertools import islice

    names = list(dict.fromkeys(islice((one for one in known if one), MOST_COMPARED)))
    wanted = name[:200].casefold()
    folded = {one.casefold(): one for one in names}
    if wanted in folded:
        found = [folded[wanted]]
    else:
        begun = [one for fold, one in folded.items() if wanted and fold.startswith(wanted)]
        close = get_close_matches(wanted, folded, MOST, cutoff=0.85)
        close = close or get_close_matches(wanted, folded, MOST, cutoff=0.7)
        found = sorted(begun, key=len)[:MOST] or [folded[one] for one in close]
    if not found:
        return ""
    *others, last = found
    return f"; did you mean {', '.join(others)} or {last}?" if others else f"; did you mean {last}?"
