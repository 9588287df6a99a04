"""Allow-list of the keys of a JSON body, in the shape of the body.

An unknown key goes, with whatever is under it: a later release may put anything there. Of a key
that a client fails without, but whose value is a person's text, the key stays and the value is
withheld.
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
"""Characters of one value. A name has at most 255, a list of CPUs a few hundred."""


def words(text: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(text.split())


@dataclass(frozen=True)
class Shape:
    """Allow-list for one object, or for each object in a list."""

    plain: frozenset[str] = frozenset()
    """Keys whose values are kept if they are scalars or lists of scalars."""

    inner: Mapping[str, Shape | Names] = field(default_factory=dict)
    """Keys whose values are objects, or lists of objects, with a shape of their own."""

    documents: Mapping[str, Shape] = field(default_factory=dict)
    """The same for values that some releases write as objects, and some as a text in JSON."""

    sayings: frozenset[str] = frozenset()
    """Keys of lines that a program wrote for people, kept as those of a log."""

    hidden: frozenset[str] = frozenset()
    """Keys that stay while their values are withheld. That there is no value can still be seen."""

    def kept(self, value: Any) -> Any:
        """Keep what is allowed of an object, a list of objects, or what stands in its place."""
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
    """Allow-list for an object whose keys are names: of networks, of resource classes."""

    shape: Shape | None = None
    """Allow-list for each value; None: the values are scalars or lists of scalars."""

    known: re.Pattern[str] | None = None
    """Names whose value is kept; None: all."""

    def kept(self, value: Any) -> Any:
        """Keep what is allowed of the object."""
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
    """Keep what is allowed of a value, or of a text that holds it in JSON; unchanged if it is all.

    A text that is no object and no list in JSON is withheld.
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
    """Return the object that a text holds in JSON; None if it holds anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


NOBODY = re.compile(r"(?!)")
"""The names whose values are kept where all are withheld."""


def hidden(value: Any) -> Any:
    """Withhold a person's text. The length of a list stays, and so does an empty value."""
    if value in (None, "", [], {}):
        return value
    if isinstance(value, list):
        return [WITHHELD] * len(value)
    return WITHHELD


def kept_scalar(value: Any) -> Any:
    """Keep what stands in an object's place: nova has `""` for no image. Texts are withheld."""
    return WITHHELD if isinstance(value, str) and value else value


def bounded(value: Any) -> Any:
    """A text, or a list of texts, each cut where it is longer than any that means something."""
    if isinstance(value, list):
        return [bounded(item) for item in value]
    if isinstance(value, str) and len(value) > LONGEST:
        return f"{value[:LONGEST]}[withheld: {len(value) - LONGEST} more characters]"
    return value


def is_plain(value: Any) -> bool:
    """A scalar or a list of scalars: nothing in which another key could hide."""
    if isinstance(value, list):
        return all(not isinstance(item, Mapping | list) for item in value)
    return not isinstance(value, Mapping)
