"""JMESPath over facts, in which unknown values stay unknown.

An expression that reads a value that was not collected raises `UnheardError` with the reason. An
expression that names a field that does not exist is an error, where plain JMESPath returns null.
Evaluation is limited in time and memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

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


@cache
def compiled(text: str) -> Any:
    """Parse an expression. Raises `ExpressionError`."""
    import jmespath
    from jmespath.exceptions import JMESPathError

    if len(text) > LONGEST:
        raise ExpressionError(f"it has more than {LONGEST} characters")
    try:
        return jmespath.compile(text).parsed
    except JMESPathError as error:
        raise ExpressionError(_one_line(error)) from None
    except RecursionError:
        raise ExpressionError("it is nested too deeply") from None
    except (ValueError, OverflowError) as error:  # a number with more digits than Python parses
        raise ExpressionError(_one_line(error)) from None


def evaluate(text: str, facts: object) -> Value:
    """Evaluate an expression. Raises `UnheardError` and `ExpressionError`."""
    from jmespath.exceptions import JMESPathError

    from hoodsnap.grading.interpreter import Interpreter

    tree = compiled(text)
    found = Value(None)
    try:
        interpreter = Interpreter(found.touched)
        found.value = interpreter.visit(tree, facts)
        interpreter.weigh(found.value)
    except JMESPathError as error:
        raise ExpressionError(_one_line(error)) from None
    except RecursionError:
        raise ExpressionError("it is nested too deeply") from None
    except (ValueError, TypeError, ArithmeticError) as error:
        raise ExpressionError(_one_line(error)) from None
    return found


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
