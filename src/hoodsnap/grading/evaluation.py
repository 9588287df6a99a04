"""JMESPath over facts, in which unknown values stay unknown.

An expression that reads a value that was not collected raises `UnheardError` with the reason. An
expression that names a field that does not exist is an error, where plain JMESPath returns null.
Evaluation is limited in time and memory.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from hoodsnap.grading.expression import LONGEST, ExpressionError, Value


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
        raise ExpressionError(_syntax(error)) from None
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


def _syntax(error: Any) -> str:
    """Return the reason and the column; the library's text repeats the expression on two lines."""
    reason = " ".join(str(error).partition("\n")[0].split())
    for prefix in ("Bad jmespath expression: ", "Invalid jmespath expression: "):
        reason = reason.removeprefix(prefix)
    reason = reason.partition(": Parse error at column")[0].rstrip(":")
    column = getattr(error, "lex_position", None)
    return reason[:300] if column is None else f"{reason[:300]} at column {column + 1}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
