"""The recording of one host, and a tally of requests that it could not answer."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.facts.layer import TABLE, Scope

UNREADABLE = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    struct.error,
)
"""Errors caused by a recorded answer with an unexpected shape: a stranger's bundle may hold
anything."""


class NotRecordedError(Exception):
    """The recording has no answer to a query. The text names the query."""


class Recording:
    """One host's answers, newest last, and a tally of requests that it could not answer.

    Answers about the whole cloud (nova, its database …) belong to every host: each host would have
    got the same.
    """

    def __init__(self, bundle: Bundle, host: str) -> None:
        self.bundle = bundle
        self.host = host
        self.missed: Counter[tuple[str, str]] = Counter()
        """Number of requests that were not recorded, by client and request."""
        self._by_layer: dict[str, dict[str, dict[str | None, Answer]]] = {}
        """The newest answer by layer, query and subject."""
        for answer in bundle.answers:
            if answer.host == host or answer.layer not in OF_ONE_HOST:
                asked = self._by_layer.setdefault(answer.layer, {})
                subjects = asked.setdefault(answer.query, {})
                before = subjects.get(answer.subject)
                # A later failure does not replace an earlier answer.
                if before is None or answer.error is None or before.error is not None:
                    subjects[answer.subject] = answer

    def answer(self, layer: str, query: str, subject: str | None = None) -> Answer:
        """Return the newest answer to a query.

        Raises `NotRecordedError` if the query was not asked, or failed.
        """
        subjects = self._by_layer.get(layer, {}).get(query, {})
        found = subjects.get(subject)
        if found is None and subject is None and len(subjects) == 1:
            (found,) = subjects.values()
        if found is None:
            raise NotRecordedError(f"{query} was not recorded")
        if found.error is not None:
            raise NotRecordedError(f"{query} failed when it was recorded: {found.error.message}")
        return found

    def value(self, layer: str, query: str, subject: str | None = None) -> object:
        """Return the value of the newest answer to a query. Raises `NotRecordedError`."""
        return self.answer(layer, query, subject).value

    def asked(self, layer: str, start: str) -> Iterator[Answer]:
        """Yield a layer's newest successful answers to queries that begin with `start`."""
        for query, subjects in self._by_layer.get(layer, {}).items():
            if query.startswith(start):
                yield from (answer for answer in subjects.values() if answer.error is None)

    def miss(self, client: str, what: str) -> None:
        """Count a request that was not recorded."""
        self.missed[(client, what)] += 1


OF_ONE_HOST = frozenset(layer.id for layer in TABLE if layer.scope is Scope.HOST)
"""Layers whose answers belong to the host that was asked; other layers belong to the cloud."""


def hosts(bundle: Bundle) -> tuple[str, ...]:
    """Return the hosts that can be replayed, sorted."""
    return tuple(sorted({answer.host for answer in bundle.answers if answer.layer in OF_ONE_HOST}))
