"""JMESPath's own interpreter, and what it lacks: an end, and errors for fields that do not exist
and for values that were not collected.

Importing this file imports jmespath, so it is imported by the function that evaluates.
"""

from __future__ import annotations

from typing import Any

from jmespath.visitor import TreeInterpreter  # noqa: TID253 (see above)

from hoodsnap.facts.fact import UnheardError
from hoodsnap.grading.expression import MOST_HELD, MOST_STEPS, ExpressionError, Silence, Touch


class Interpreter(TreeInterpreter):  # type: ignore[misc]  # it has no types
    """Evaluates one expression, and notes in `touched` what it read."""

    def __init__(self, touched: list[Touch]) -> None:
        super().__init__()
        self.touched = touched
        self.steps = 0

    def visit(self, node: Any, *args: Any, **options: Any) -> Any:
        """Evaluate a node. Raises `UnheardError` and `ExpressionError`."""
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
        """Return a field of an object; one that does not exist is an error."""
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
        """Compare two values, both of which were collected."""
        sides = [self.weigh(self.visit(child, value)) for child in node["children"]]
        # Pass the values on as literals, so that nothing is computed twice.
        literals = [{"type": "literal", "value": side, "children": []} for side in sides]
        return super().visit_comparator({**node, "children": literals}, value)

    def visit_function_expression(self, node: Any, value: Any) -> Any:
        """Call a function with values that were collected."""
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
