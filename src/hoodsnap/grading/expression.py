"""The parts and limits of an expression in a sheet: values, what was read, what is too large."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LONGEST = 2_000
"""Largest number of characters in an expression."""

MOST_STEPS = 200_000
"""Largest number of steps in an evaluation. A filter over ten thousand guests fits."""

MOST_HELD = 2_000_000
"""Largest number of items and characters in any intermediate value."""


class ExpressionError(Exception):
    """The expression is wrong: it can't be parsed, names an unknown field, or takes too long."""


@dataclass(frozen=True)
class Silence:
    """Placeholder for a value that was not collected."""

    reason: str


@dataclass
class Touch:
    """A field that an expression read, with its value."""

    part: Mapping[str, object]
    name: str
    value: object


@dataclass
class Value:
    """The result of an expression, and the fields that it read."""

    value: object
    touched: list[Touch] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """True by JMESPath's rules: the value is not false, null or empty."""
        return self.value is not None and self.value is not False and self.value not in ("", [], {})
