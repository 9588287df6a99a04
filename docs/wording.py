"""Look for phrasings that this project does not use, in its text, comments and messages.

`make lint` runs it. Each entry is a phrase that readers stumbled over, and what to write instead.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

TOP = Path(__file__).parents[1]

WHERE = ("*.md", ".github/**/*.md", "docs/**/*.md", "lab/*.md", "fixtures/*.md", "src/**/*.py")

INSTEAD = {
    r"\b(is|are|was|were|be|been) (not )?heard\b": "collected, not collected, answered",
    r"\bnot heard\b|\blayers heard\b": "not collected",
    r"\blet another host to\b": "the API still lists it on another host",
    r"\bis not what\b.*\bis like\b": "X does not match Y",
    r"\bOf several\b": "If several …, the …",
    r"\bwho has gone\b": "which no longer exists",
    r"(?<!\bif\s)\bthere is none\b": "no X exists",
    r"(?<!\bif\s)\bthere are none\b": "no X exist",
    r"\bnone is there\b": "no X exists",
    r"\bbe it that\b": "if",
    r"\bby the way\b": "delete it",
    r"\b(is|are|was|were) told\b": "is reported",
    r"\bis to be (seen|said|told)\b": "is visible, is reported",
    r"\ba handful\b": "the number",
    r"\bat one door\b": "in one place",
    r"\bit does so too\b": "repeat the verb",
    r"\bthe (former|latter)\b": "repeat the noun",
    r"\b(?i:whoever)\b": "the account, the process, the person that",
    r"\b(some|any)body's\b": "the owner's, another user's",
    r"\bwhose it is\b": "its owner",
    r"\bis another's\b": "belongs to another X",
}
"""Pattern of a phrase: what to write instead."""

EXCEPT = {
    # The metaphor is explained there, once.
    "docs/explanation/architecture.md": (r"heard", r"at one door"),
}
"""For a page the patterns (by a part of them) that it may use."""


def found() -> Iterator[str]:
    """One line for each phrase: `file:line: "phrase" → instead`. A phrase may span a line end."""
    for path in sorted({path for where in WHERE for path in TOP.glob(where)}):
        name = str(path.relative_to(TOP))
        text = path.read_text()
        for pattern, instead in INSTEAD.items():
            if any(part in pattern for part in EXCEPT.get(name, ())):
                continue
            for match in re.finditer(pattern.replace(" ", r"\s+(?:#\s+)?"), text):
                line = text.count("\n", 0, match.start()) + 1
                phrase = " ".join(match[0].split())
                yield f'{name}:{line}: "{phrase}" → {instead}'


if __name__ == "__main__":
    lines = [*found()]
    print(*lines, sep="\n", end="\n" if lines else "")
    sys.exit(1 if lines else 0)
