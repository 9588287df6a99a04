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

from hoodsnap.facts.fact import UnheardError

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

    tree = compiled(text)
    found = Value(None)
    try:
        interpreter = _interpreter()(found.touched)
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


@cache
def _interpreter() -> Any:
    from jmespath.visitor import TreeInterpreter

    class Interpreter(TreeInterpreter):  # type: ignore[misc]  # it has no types
        def __init__(self, touched: list[Touch]) -> None:
            super().__init__()
            self.touched = touched
            self.steps = 0

        def visit(self, node: Any, *args: Any, **options: Any) -> Any:
            self.steps += 1
            if self.steps > MOST_STEPS:
                raise ExpressionError("it takes too long")
            value = super().visit(node, *args, **options)
            if isinstance(value, Silence):
                raise UnheardError(value.reason)
            if isinstance(value, list | str):
                self.steps += len(value) // 100
            return value

        def visit_field(self, node: Any, value: Any) -> Any:
            name = node["value"]
            if value is None:
                return None
            if not isinstance(value, dict):
                kind = "a list" if isinstance(value, list) else "a simple value"
                raise ExpressionError(f"no field {name}: this is {kind}, not an object")
            if name == "null" and name not in value:
                return None  # JMESPath has no such word, but `== null` clearly means null
            if name not in value:
                known = ", ".join(sorted(map(str, value)))[:200]
                raise ExpressionError(f"no field {name}; the fields are: {known}")
            found = value[name]
            if not isinstance(found, dict | Silence):
                self.touched.append(Touch(value, name, found))
            return found

        def visit_comparator(self, node: Any, value: Any) -> Any:
            sides = [self.weigh(self.visit(child, value)) for child in node["children"]]
            # Pass the values on as literals, so that nothing is computed twice.
            literals = [{"type": "literal", "value": side, "children": []} for side in sides]
            return super().visit_comparator({**node, "children": literals}, value)

        def visit_function_expression(self, node: Any, value: Any) -> Any:
            resolved = [self.visit(child, value) for child in node["children"]]
            if node["value"] not in ("keys", "length", "type"):
                for one in resolved:
                    self.weigh(one)
            return self._functions.call_function(node["value"], resolved)

        def weigh(self, value: Any) -> Any:
            """Return the value if everything in it was collected and it is not too large."""
            waiting, weight = [value], 0
            while waiting:
                one = waiting.pop()
                weight += 1
                if isinstance(one, Silence):
                    raise UnheardError(one.reason)
                if isinstance(one, str):
                    weight += len(one)
                elif isinstance(one, list):
                    waiting += one
                    weight += len(one)
                elif isinstance(one, dict):
                    waiting += one.values()
                    weight += len(one)
                if weight > MOST_HELD:
                    raise ExpressionError("its result is too large")
            self.steps += weight // 100
            return value

    return Interpreter
