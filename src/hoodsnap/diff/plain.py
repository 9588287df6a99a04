"""Values of facts as plain values, and the differences of two of them.

A plain value is a text, a number, a truth value, None, a tuple of plain values, or a mapping from
texts to plain values. A list of objects with a name of their own becomes a mapping by that name, so
that an object that was added does not change all others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from functools import cached_property
from types import NoneType
from typing import Any, NamedTuple

from hoodsnap.bundle import Answer
from hoodsnap.diff.not_compared import KEY, NOT_COMPARED
from hoodsnap.facts.database.instance import power_word
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.state import DomainState
from hoodsnap.facts.fact import Fact, UnheardError, caught
from hoodsnap.facts.host.daemon import Unit
from hoodsnap.facts.process.process import Process

KEYS = (
    *("id", "prefix", "path", "kname", "target", "mac", "address", "qdev", "device", "filename"),
    *("name", "host", "model", "type"),
)
"""Fields that name an object in a list, in the order in which they are tried."""


_OURS = "hoodsnap.facts."


class NotAValueError(Exception):
    """A compared field holds an object that can't be compared: a defect of the list of fields."""


class Unknown(NamedTuple):
    """A value that was not collected; it is never a change."""

    reason: str


def fields_of(kind: type) -> tuple[str, ...]:
    """Return the public fields of a class of facts, in the order of its definition.

    The fields of a fact are its properties, too; those of a record are its items alone.
    """
    names: dict[str, None] = {}
    for base in reversed(kind.__mro__):
        names.update(dict.fromkeys(getattr(base, "_fields", ())))
        names.update(dict.fromkeys(vars(base).get("__pydantic_fields__", ())))
        if dataclasses.is_dataclass(base):
            names.update(dict.fromkeys(field.name for field in dataclasses.fields(base)))
    if issubclass(kind, Fact) or not names:
        members = (item for base in reversed(kind.__mro__) for item in vars(base).items())
        read = (name for name, value in members if isinstance(value, property | cached_property))
        names.update(dict.fromkeys(read))
    return tuple(name for name in names if not name.startswith("_") and name != "said")


def compared(kind: type) -> tuple[str, ...]:
    """Return the fields of a class that are compared."""
    return tuple(name for name in fields_of(kind) if f"{kind.__name__}.{name}" not in NOT_COMPARED)


def plain(value: object) -> Any:
    """Return a fact, or a value of one, as a plain value.

    Raises `NotAValueError` for an object that is no value of a fact.
    """
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Unknown):
        return value
    if isinstance(value, NoneType | str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return tuple(sorted((plain(item) for item in value), key=str))
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        return _items(value)
    if isinstance(value, Answer) or not type(value).__module__.startswith(_OURS):
        raise NotAValueError(f"{type(value).__name__} is not a value of a fact")
    names = dict.fromkeys((*compared(type(value)), *_derived(type(value))))
    return {name: _field(value, name) for name in names}


def _derived(kind: type) -> tuple[str, ...]:
    return tuple(name.partition(".")[2] for name in DERIVED if name.startswith(f"{kind.__name__}."))


def _state(domain: Domain) -> str:
    """Return the state; of a running domain without the reason, which says how it came to run."""
    return "running" if domain.state == DomainState.RUNNING else domain.state_words


def _stopped(process: Process) -> str | None:
    return {"T": "stopped by a signal", "t": "traced", "Z": "dead"}.get(process.state)


def _deleted_files(process: Process) -> list[str]:
    return sorted({file.path for file in process.files if file.deleted and file.dev != "0:1"})


def _active(unit: Unit) -> str:
    """Return the state of a unit; of one that failed with the result."""
    words = "starts again and again" if unit.sub == "auto-restart" else unit.active
    return f"{words} ({unit.result})" if unit.has_failed and unit.result else words


DERIVED: Mapping[str, Callable[[Any], object]] = {
    "Server.power_state": lambda server: power_word(server.power_state),
    "Instance.power_state": lambda instance: power_word(instance.power_state),
    "Domain.state_words": _state,
    "Process.stopped": _stopped,
    "Unit.active": _active,
    "Process.deleted_files": _deleted_files,
}
"""`Class.field` → reader, for values that are compared in place of the fact's own."""


def _field(value: object, name: str) -> Any:
    try:
        read = DERIVED.get(f"{type(value).__name__}.{name}")
        return plain(read(value) if read is not None else getattr(value, name))
    except UnheardError as reason:
        return Unknown(str(reason))
    except Exception as error:  # a net: a value of an unexpected type costs its field
        return Unknown(str(caught(error)))


def _items(values: Sequence[object]) -> Any:
    items = [plain(item) for item in values]
    if items and all(isinstance(item, dict) for item in items):
        for key in KEYS:
            found = [_key(value, key) for value in values]
            names = [name for name in found if name is not None]
            if len(set(names)) == len(items):
                return dict(zip(names, items, strict=True))
    return tuple(items)


def _key(value: object, key: str) -> str | None:
    if NOT_COMPARED.get(f"{type(value).__name__}.{key}", KEY) != KEY:
        return None
    try:
        name = getattr(value, key, None)
    except UnheardError:
        return None
    return str(name) if isinstance(name, str | int) else None


def differences(before: Any, after: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the path, and the two values, of each difference between two plain values.

    A value that is unknown on a side does not differ.
    """
    if isinstance(before, Unknown) or isinstance(after, Unknown) or before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys((*before, *after)):
            yield from differences(before.get(key), after.get(key), _join(path, key))
    else:
        yield path, before, after


def _join(path: str, key: str) -> str:
    if not path:
        return key
    return f"{path}.{key}" if key.isidentifier() and not path.endswith("s") else f"{path}[{key}]"


def unknown_in(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the path and the reason of each unknown value."""
    if isinstance(value, Unknown):
        yield path, value.reason
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from unknown_in(item, _join(path, key))


HEAD = (
    *("name", "status", "state", "source", "mac", "addresses", "mode", "owner", "format"),
    *("volume_id", "type", "kind", "alive", "declared"),
)
"""Fields that describe a whole object, in the order in which they are shown."""


def words(value: Any) -> str | None:
    """Return a plain value as text in one line; None for None. Of an object, only some fields."""
    if value is None or isinstance(value, Unknown):
        return None
    if isinstance(value, dict):
        shown = [key for key in HEAD if value.get(key) not in (None, "", ())]
        shown = shown or [key for key, item in value.items() if not isinstance(item, dict)]
        parts = (f"{key} {words(value[key])}" for key in shown[:3] if words(value[key]))
        return ", ".join(parts) or "exists"
    if isinstance(value, tuple):
        return _listed(words(item) for item in value)
    return str(value)


def _listed(parts: Iterable[str | None]) -> str:
    return ", ".join(part for part in parts if part is not None) or "nothing"
