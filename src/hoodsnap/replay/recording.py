"""What was recorded of one host, and what was asked for and was not."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator

from hoodsnap.bundle import Answer, Bundle

UNREADABLE = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    struct.error,
)
"""What goes wrong where a recorded answer has another shape than the layer gives it: a stranger's
bundle may hold anything."""


class NotRecordedError(Exception):
    """The recording has no answer to this. The text names what was asked."""


class Recording:
    """One host's answers, newest last, and a tally of what was asked for in vain.

    Answers about the whole cloud (nova, its database …) are those of every host: whichever of them
    was asked heard the same.
    """

    def __init__(self, bundle: Bundle, host: str) -> None:
        self.bundle = bundle
        self.host = host
        self.missed: Counter[tuple[str, str]] = Counter()
        """(client, what it asked for) → how often."""
        self._by_layer: dict[str, dict[str, dict[str | None, Answer]]] = {}
        """Layer → query → subject → the newest answer."""
        for answer in bundle.answers:
            if answer.host == host or answer.layer not in OF_ONE_HOST:
                asked = self._by_layer.setdefault(answer.layer, {})
                subjects = asked.setdefault(answer.query, {})
                before = subjects.get(answer.subject)
                # A question that failed when it was asked again takes nothing back.
                if before is None or answer.error is None or before.error is not None:
                    subjects[answer.subject] = answer

    def answer(self, layer: str, query: str, subject: str | None = None) -> Answer:
        """The newest answer to a question. `NotRecordedError` if it was not asked, or failed."""
        subjects = self._by_layer.get(layer, {}).get(query, {})
        found = subjects.get(subject)
        if found is None and subject is None and len(subjects) == 1:
            (found,) = subjects.values()
        if found is None:
            raise NotRecordedError(f"{query} was not recorded")
        if found.error is not None:
            raise NotRecordedError(f"{query} was asked and not answered: {found.error.message}")
        return found

    def value(self, layer: str, query: str, subject: str | None = None) -> object:
        """The value of that answer."""
        return self.answer(layer, query, subject).value

    def asked(self, layer: str, start: str) -> Iterator[Answer]:
        """Every newest answer of a layer whose query starts so and that is no failure."""
        for query, subjects in self._by_layer.get(layer, {}).items():
            if query.startswith(start):
                yield from (answer for answer in subjects.values() if answer.error is None)

    def miss(self, client: str, what: str) -> None:
        """Remember that a client asked for what was not recorded."""
        self.missed[(client, what)] += 1


OF_ONE_HOST = frozenset(["libvirt", "kernel", "qemu", "images", "host", "network", "block", "logs"])
"""The layers whose answers belong to the host that was asked; the others' are the cloud's."""


def plain(text: str) -> str:
    """A recorded text for a terminal: one line, and nothing that a terminal obeys."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def hosts(bundle: Bundle) -> tuple[str, ...]:
    """The hosts that can be replayed, sorted."""
    return tuple(sorted({answer.host for answer in bundle.answers if answer.layer in OF_ONE_HOST}))
