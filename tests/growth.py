"""Growth of a regular expression's run time with the text, on texts made from the expression.

Every pattern of the package is found by introspection, in the modules' values and in their source,
so a new pattern is measured automatically.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from re import _compiler as compiler  # type: ignore[attr-defined]
from re import _constants as op  # type: ignore[attr-defined]  # the names of what it parses to
from re import _parser as parser  # type: ignore[attr-defined]
from types import ModuleType
from typing import Any

import hoodsnap

FUNCTIONS = (
    "compile",
    "match",
    "fullmatch",
    "search",
    "sub",
    "subn",
    "findall",
    "finditer",
    "split",
)

SIZES = (250, 1000, 4000, 16000)
"""Lengths of texts, each four times the previous one: linear time grows by 4, quadratic by 16."""

STEEPEST = 8.0
"""Limit of growth from one size to the next, below which time counts as linear."""

SEEDS = (
    *("secret,", "-object ", "keyvalue-pairs", "://a:", "://a:b@", "://", "password=", "pass"),
    *('passphrase="', "password='", '"password":"', '\\"password\\":\\"', '"data":"', "iscsi://a%"),
    *('"qom-type":"secret"', '"qom-type":"secret","data":"', "key=", "AQ", "AQ" + "A" * 36),
    *(
        "token=",
        '"secret": "',
        "\\",
        '\\"',
        '"cookie":"',
        "data=",
        "=",
        "a,",
        "{",
        "passwd",
        "key:",
    ),
    *("secret,data=", "https://x:y", "x" * 50 + "=", "auth", " ", "a=b,", "password=a,,", "a-a_"),
    *(
        '"a":"b"',
        "a",
        "0",
        "/",
        "\n",
        "\t",
        ":",
        "\0",
        ",",
        "a b ",
        "a.b",
        "<a>",
        "<a ",
        "'",
        "-",
        "%",
    ),
    *("eyJ-", "eyJaaaaaaaaaa.", "gAAAA-", "qemu", "qemu: ", "@", "a@", "\n ", "\n\n", "://qemu:"),
)
"""Texts that have slowed down such readers before."""


@dataclass
class Found:
    """A pattern, with the places and methods of its use."""

    pattern: re.Pattern[Any]
    places: set[str] = field(default_factory=set)
    methods: set[str] = field(default_factory=set)

    @property
    def is_anchored(self) -> bool:
        """True if it is only matched at the start of a text."""
        return bool(self.methods) and self.methods <= {"match", "fullmatch"}


def modules() -> Iterator[ModuleType]:
    """Yield every module of the package, except `__main__`."""
    for found in pkgutil.walk_packages(hoodsnap.__path__, "hoodsnap."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


@cache
def patterns() -> tuple[tuple[Found, ...], frozenset[str]]:
    """Return the package's patterns, and the places where a pattern is made at run time."""
    found: dict[tuple[Any, int], Found] = {}
    unknown: set[str] = set()
    used: dict[str, set[str]] = defaultdict(set)
    for module in modules():
        tree = ast.parse(inspect.getsource(module))
        for name, pattern in _values(vars(module), module.__name__):
            _add(found, pattern, name)
        for call, function in _calls(tree):
            if isinstance(call.func, ast.Attribute) and _name(call.func.value) == "re":
                place = f"{module.__name__}.{function}"
                made = _evaluated(call, module)
                if made is None:
                    unknown.add(place)
                else:
                    method = call.func.attr
                    entry = _add(found, made, place)
                    entry.methods |= {method} if method != "compile" else set()
            elif isinstance(call.func, ast.Attribute) and call.func.attr in FUNCTIONS:
                used[_called(_name(call.func.value), module)].add(call.func.attr)
    used.pop("", None)
    for entry in found.values():
        for place in entry.places:
            # A pattern in a table is not called by name, so any method may be used on it.
            of_module, _, name = place.rpartition(".")
            entry.methods |= used.get(f"{of_module}.{name}" if _is_private(name) else name, set())
    return tuple(found.values()), frozenset(unknown)


def _add(found: dict[tuple[Any, int], Found], pattern: re.Pattern[Any], place: str) -> Found:
    entry = found.setdefault((pattern.pattern, pattern.flags), Found(pattern))
    entry.places.add(place)
    return entry


def _values(value: object, place: str, depth: int = 0) -> Iterator[tuple[str, re.Pattern[Any]]]:
    if isinstance(value, re.Pattern):
        yield place, value
    elif depth > 5 or isinstance(value, ModuleType):
        return
    elif isinstance(value, dict):
        for key, item in value.items():
            if not str(key).startswith("__"):
                yield from _values(item, f"{place}.{key}", depth + 1)
    elif isinstance(value, tuple | list | set | frozenset):
        for item in value:
            yield from _values(item, f"{place}[]", depth + 1)
    elif hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        for name in value.__dataclass_fields__:
            yield from _values(getattr(value, name, None), f"{place}.{name}", depth + 1)


def _calls(tree: ast.AST, function: str = "") -> Iterator[tuple[ast.Call, str]]:
    for node in ast.iter_child_nodes(tree):
        inner = function
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            inner = node.name
        if isinstance(node, ast.Call):
            yield node, function
        yield from _calls(node, inner)


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")


def _is_private(name: str) -> bool:
    return name.startswith("_")


def _called(name: str, module: ModuleType) -> str:
    """Return the key of a name in `used`: two modules may have private names that are the same."""
    return f"{module.__name__}.{name}" if _is_private(name) else name


def _evaluated(call: ast.Call, module: ModuleType) -> re.Pattern[Any] | None:
    """Return the pattern in a call of `re`; None if it depends on a local name."""
    if getattr(call.func, "attr", "") not in FUNCTIONS or not call.args:
        return re.compile("")
    flags = [keyword.value for keyword in call.keywords if keyword.arg == "flags"]
    position = {"compile": 1, "sub": 4, "subn": 4, "split": 3}.get(call.func.attr, 2)  # type: ignore[attr-defined]
    flags += call.args[position : position + 1]
    try:
        pattern, *rest = (
            eval(compile(ast.Expression(node), module.__name__, "eval"), vars(module))  # noqa: S307 (our own source)
            for node in (call.args[0], *flags)
        )
    except NameError:
        return None
    if isinstance(pattern, re.Pattern):
        return pattern
    return re.compile(pattern, *rest)


def has_possessive_group(pattern: re.Pattern[Any]) -> bool:
    """True if anything longer than one character is repeated by `*+`, `++`, `?+` or `{…}+`."""
    text = (
        pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    )
    return _is_possessive(parser.parse(text, pattern.flags & ~re.UNICODE))


def _is_possessive(value: Any) -> bool:
    if isinstance(value, parser.SubPattern | list | tuple):
        if len(value) == 2 and value[0] is op.POSSESSIVE_REPEAT:
            return not compiler._simple(value[1][2])
        return any(_is_possessive(item) for item in value)
    return False


# Texts made from a pattern


def attacks(found: Found) -> Iterator[tuple[str, str]]:
    """Yield pairs of a beginning and the text that is repeated after it."""
    pattern = found.pattern
    seen: set[tuple[str, str]] = set()
    for start, unit in _made_of(pattern):
        for pair in ((start, unit), ("", unit)):
            if unit and len(unit) <= 100 and pair not in seen:
                seen.add(pair)
                yield pair
    for seed in SEEDS:
        if ("", seed) not in seen:
            yield "", seed


def _made_of(pattern: re.Pattern[Any]) -> Iterator[tuple[str, str]]:
    text = (
        pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    )
    for choice in range(3):
        pieces = list(_pieces(parser.parse(text, pattern.flags & ~re.UNICODE), choice, {}))
        pieces = [piece for piece in pieces if piece][:24]
        for end in range(1, len(pieces) + 1):
            yield "".join(pieces[: end - 1]), pieces[end - 1]
            yield "", "".join(pieces[:end])
            for width in (2, 3):
                yield "".join(pieces[: end - width]), "".join(pieces[max(end - width, 0) : end])


def _pieces(tree: Any, choice: int, groups: dict[int, str]) -> Iterator[str]:
    """Yield texts that match the parts of a pattern, in order."""
    for kind, value in tree:
        if kind is op.LITERAL:
            yield chr(value)
        elif kind is op.NOT_LITERAL:
            yield "a" if value != ord("a") else "b"
        elif kind is op.ANY:
            yield "a0 "[choice]
        elif kind is op.IN:
            yield _of_class(value, choice)
        elif kind in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
            low, high, body = value
            body_text = "".join(_pieces(body, choice, groups))
            yield body_text * min(max(low, 1), 64) if high else ""
        elif kind is op.SUBPATTERN:
            parts = list(_pieces(value[-1], choice, groups))
            groups[value[0]] = "".join(parts)
            yield from parts
        elif kind is op.ATOMIC_GROUP:
            yield from _pieces(value, choice, groups)
        elif kind is op.BRANCH:
            branches = value[1]
            yield from _pieces(branches[choice % len(branches)], choice, groups)
            if choice == 2:
                yield from _pieces(branches[-1], choice, groups)
        elif kind is op.GROUPREF:
            yield groups.get(value, "")
        elif kind is op.ASSERT and value[0] > 0:
            yield "".join(_pieces(value[1], choice, groups))


def _of_class(members: Any, choice: int) -> str:
    negated = any(kind is op.NEGATE for kind, _ in members)
    if negated:
        inside = [(kind, value) for kind, value in members if kind is not op.NEGATE]
        return next((c for c in "a0/ -:\n"[choice:] + "ab" if not _is_in(inside, c)), "é")
    candidates = [char for char in "a0-_.:/ \n\"'=,+~\\" if _is_in(members, char)]
    for kind, value in members:
        if kind is op.LITERAL:
            candidates.append(chr(value))
        elif kind is op.RANGE:
            candidates.append(chr(value[0]))
    return candidates[choice % len(candidates)] if candidates else "a"


_CATEGORIES: dict[Any, Callable[[str], bool]] = {
    op.CATEGORY_DIGIT: str.isdigit,
    op.CATEGORY_NOT_DIGIT: lambda char: not char.isdigit(),
    op.CATEGORY_SPACE: str.isspace,
    op.CATEGORY_NOT_SPACE: lambda char: not char.isspace(),
    op.CATEGORY_WORD: lambda char: char.isalnum() or char == "_",
    op.CATEGORY_NOT_WORD: lambda char: not (char.isalnum() or char == "_"),
}


def _is_in(members: Iterable[Any], char: str) -> bool:
    for kind, value in members:
        if kind is op.LITERAL and chr(value) == char:
            return True
        if kind is op.RANGE and value[0] <= ord(char) <= value[1]:
            return True
        if kind is op.CATEGORY and _CATEGORIES[value](char):
            return True
    return False


# Time


def growth(use: Callable[[str], object], start: str, unit: str, end: str = "\x01") -> float:
    """Return the growth of the time of `use` with four times the text, if that is steep; else 0.

    A steep growth is measured again: a busy machine lengthens a single measurement, but not the
    shortest of several.
    """
    before: float | None = None
    for size in SIZES:
        text = start + unit * (size // len(unit)) + end
        now = _seconds(use, text, 1)
        if before is not None and now / before >= STEEPEST:
            smaller = start + unit * (size // 4 // len(unit)) + end
            ratios = [_seconds(use, text, 3) / _seconds(use, smaller, 5) for _ in range(3)]
            if min(ratios) >= STEEPEST and now > 1000 * _RESOLUTION:
                return min(ratios)
            now = _seconds(use, text, 1)
        before = max(now, 10 * _RESOLUTION)
    return 0.0


_RESOLUTION = time.get_clock_info("process_time").resolution or 1e-9
_RESOLUTION = max(_RESOLUTION, 1e-7)


def _seconds(use: Callable[[str], object], text: str, times: int) -> float:
    shortest = float("inf")
    for _ in range(times):
        start = time.process_time()
        use(text)
        shortest = min(shortest, time.process_time() - start)
    return max(shortest, _RESOLUTION)


def uses(found: Found) -> Iterator[tuple[str, Callable[[str], object]]]:
    """Yield the uses of a pattern, one for each method that may have another run time."""
    pattern = found.pattern
    if isinstance(pattern.pattern, bytes):
        convert: Callable[[str], Any] = lambda text: text.encode("utf-8", "replace")  # noqa: E731
    else:
        convert = str
    if found.is_anchored:
        for method in sorted(found.methods):
            yield method, lambda text, method=method: getattr(pattern, method)(convert(text))  # type: ignore[misc]
    else:
        yield (
            "search, again and again",
            lambda text: sum(1 for _ in pattern.finditer(convert(text))),
        )
