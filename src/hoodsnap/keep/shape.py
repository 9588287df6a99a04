"""Allow-lists for the keys of JSON bodies, which have the shape of the body.

An unknown key is dropped with everything below it, since a later release may put anything there. If
clients need a key but its value is a user's text, the key stays and the value is withheld.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hoodsnap.keep.log_line import line_without_secrets
from hoodsnap.keep.secret import WITHHELD

LONGEST = 4096
"""Characters kept of one value. A name has at most 255, a list of CPUs a few hundred."""


def words(text: str) -> frozenset[str]:
    """Return the words of a text as a set."""
    return frozenset(text.split())


@dataclass(frozen=True)
class Shape:
    """Allow-list for one object, or for each object in a list."""

    plain: frozenset[str] = frozenset()
    """Keys whose values are kept if they are scalars or lists of scalars."""

    inner: Mapping[str, Shape | Names] = field(default_factory=dict)
    """Keys whose values are objects, or lists of objects, with a shape of their own."""

    documents: Mapping[str, Shape] = field(default_factory=dict)
    """Keys whose values are objects in some releases, and JSON texts in others."""

    sayings: frozenset[str] = frozenset()
    """Keys whose values are messages of a program, kept like log lines."""

    hidden: frozenset[str] = frozenset()
    """Keys that stay while their values are withheld. An empty value stays."""

    def kept(self, value: Any) -> Any:
        """Keep the allowed keys of an object, or of each object in a list."""
        if isinstance(value, list):
            return [self.kept(item) for item in value]
        if not isinstance(value, Mapping):
            return kept_scalar(value)
        return {key: self._value(key, item) for key, item in value.items() if self._knows(key)}

    def _knows(self, key: Any) -> bool:
        return any(
            key in keys
            for keys in (self.plain, self.inner, self.documents, self.sayings, self.hidden)
        )

    def _value(self, key: str, value: Any) -> Any:
        if key in self.plain:
            return bounded(value) if is_plain(value) else WITHHELD
        if key in self.inner:
            return self.inner[key].kept(value)
        if key in self.documents:
            return kept_json(value, self.documents[key].kept)
        if key in self.sayings and isinstance(value, str):
            return line_without_secrets(bounded(value))
        return hidden(value)


@dataclass(frozen=True)
class Names:
    """Allow-list for an object whose keys are names, such as networks or resource classes."""

    shape: Shape | None = None
    """Allow-list for each value; None if the values are scalars or lists of scalars."""

    known: re.Pattern[str] | None = None
    """Names whose values are kept; None for all names."""

    def kept(self, value: Any) -> Any:
        """Keep all names, and the allowed values."""
        if not isinstance(value, Mapping):
            return value if value in (None, [], "") else WITHHELD
        return {bounded(key): self._value(key, item) for key, item in value.items()}

    def _value(self, key: str, value: Any) -> Any:
        if self.known is not None and not self.known.fullmatch(key):
            return WITHHELD
        if self.shape is not None:
            return self.shape.kept(value)
        return bounded(value) if is_plain(value) else WITHHELD


def kept_json(value: Any, keep: Callable[[Any], Any]) -> Any:
    """Apply `keep` to a value, or to the object or list in a JSON text.

    A text stays unchanged if all of it is kept, and is withheld if it is no object or list in JSON.
    """
    if not isinstance(value, str):
        return keep(value)
    if not value:
        return value
    try:
        document = json.loads(value)
        if not isinstance(document, Mapping | list):
            return WITHHELD
        kept = keep(document)
        return value if kept == document else json.dumps(kept)
    except (ValueError, RecursionError):
        return WITHHELD


def json_object(text: str) -> dict[str, Any] | None:
    """Return the object in a JSON text; None if the text holds anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


NOBODY = re.compile(r"(?!)")
"""Pattern for `Names.known` that withholds all values: it matches no name."""


def hidden(value: Any) -> Any:
    """Withhold a user's text. Empty values and the lengths of lists stay."""
    if value in (None, "", [], {}):
        return value
    if isinstance(value, list):
        return [WITHHELD] * len(value)
    return WITHHELD


def kept_scalar(value: Any) -> Any:
    """Keep a scalar in place of an object (nova returns `""` for no image); withhold texts."""
    return WITHHELD if isinstance(value, str) and value else value


def bounded(value: Any) -> Any:
    """Cut a text, or each text in a list, that is longer than any useful value."""
    if isinstance(value, list):
        return [bounded(item) for item in value]
    if isinstance(value, str) and len(value) > LONGEST:
        return f"{value[:LONGEST]}[withheld: {len(value) - LONGEST} more characters]"
    return value


def is_plain(value: Any) -> bool:
    """Return True for a scalar or a list of scalars, in which no other key can hide."""
    if isinstance(value, list):
        return all(not isinstance(item, Mapping | list) for item in value)
    return not isinstance(value, Mapping)
