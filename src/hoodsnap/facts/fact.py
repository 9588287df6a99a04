"""Base class of facts: the typed reading of one layer's answers about one thing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, NoReturn, TypeVar, TypeVarTuple, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from hoodsnap.bundle import Answer, Failure
from hoodsnap.facts.layer import Layer

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

NOT_READ = "could not be read"
"""Prefix of the reasons that a net makes of exceptions. No other reason starts with it."""

OF_ALL_HOSTS = "(use collect --all-hosts)"
"""End of the reasons why a check that needs objects of the whole cloud was not decided. A
collection of one host leaves them out on purpose, so text reports name these reasons only with
`--verbose`."""

LARGEST = 1 << 63
"""Limit of whole numbers: no layer stores one this large."""


class UnheardError(Exception):
    """A value was not collected, its layer did not answer, or the answer can't be read.

    Reading an unheard field of a fact raises it. Code that compares values does not catch it: the
    check becomes a skip, with this text as the reason. Unknown is never absent.
    """


class UnreadableError(UnheardError):
    """A value exists, but can't be read. So a comparison of the other layers is incomplete."""


def caught(error: Exception) -> UnheardError:
    """Return an `UnheardError` in place of an exception that a recorded value caused.

    A net surrounds one unit of work (a check of one guest, one step of a walk, one answer), so a
    field of an unexpected type costs that unit and nothing else. The reason names the exception's
    type and the line of our code, never the exception's text, which may quote the bundle. With
    HOODSNAP_DEBUG set, the exception is raised instead, so that no net hides a defect from
    developers. `MemoryError` is always raised: the next unit would not fit either.
    """
    if isinstance(error, UnheardError):
        return error
    if isinstance(error, MemoryError) or os.environ.get("HOODSNAP_DEBUG"):
        raise error
    return UnreadableError(f"{NOT_READ}: {type(error).__name__} at {_line_of(error)}")


def _line_of(error: BaseException) -> str:
    """Return the innermost line of our code that an exception passed: `facts/api/port.py:228`."""
    place, trace = "?", error.__traceback__
    ours = Path(__file__).parent.parent
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        if path.is_relative_to(ours):
            place = f"{path.relative_to(ours)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


MOST_UNREADABLE = 8
"""Limit of answers per layer that may break its reader. Beyond it, the whole layer is unheard."""


def read_each(read: Callable[[Sequence[Answer]], T], answers: Iterable[Answer]) -> T:
    """Read a layer's answers. An answer that breaks the reader counts as failed.

    So unreadable data is unheard, as if the layer had not answered, and never counts as absent. The
    answer is found by bisection: it is the last of the shortest prefix that breaks the reader.
    """
    heard = tuple(answers)
    for _ in range(MOST_UNREADABLE):
        try:
            return read(heard)
        except Exception as error:
            reason = str(caught(error))
        fits, breaks = 0, len(heard)  # lengths of prefixes that can, and can't, be read
        while breaks - fits > 1:
            middle = (fits + breaks) // 2
            try:
                read(heard[:middle])
                fits = middle
            except Exception as error:
                reason, breaks = str(caught(error)), middle
        if breaks:
            heard = (*heard[: breaks - 1], failed(heard[breaks - 1], reason), *heard[breaks:])
    return read(
        tuple(
            failed(answer, "too many answers of this layer could not be read") for answer in heard
        )
    )


def failed(answer: Answer, reason: str) -> Answer:
    """Return the same question with an error, the reason, in place of its answer."""
    said = answer.model_dump(exclude={"value", "error"})
    return Answer(**said, error=Failure(kind="failed", message=reason))


class DocumentedField(NamedTuple):
    """A field that the expressions of a lab sheet can read."""

    name: str
    help: str
    """Description in `hoodsnap lab facts`."""
    read: Callable[[Any], object] | None = None
    """Reader of the field; None for the attribute of that name."""
    inside: Sequence[DocumentedField] = ()
    """Fields of each item, if the value is a tuple of items."""


Documented = Sequence[str | DocumentedField]
"""Fields in order. A string names an attribute, whose docstring is the description."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Fact:
    """Base of Server, Instance, Domain, Process, Monitor, Image.

    A fact never changes, and ignores unknown fields. It is a dataclass, not a pydantic model,
    because nothing is validated up front: a field that can't be read raises `UnheardError` when it
    is read, and the other fields stay usable.
    """

    layer: ClassVar[Layer]
    """The layer whose answers the fact reads."""

    noun: ClassVar[str]
    """The layer's word for the thing: `server`, `domain`, `port` …"""

    places: ClassVar[Mapping[str, tuple[str, str]]] = {}
    """Field → the part it is read from (a key of `said`), and the place in that part."""

    own: ClassVar[str] = ""
    """Part that holds every field without a place; empty if only one answer is read."""

    documented: ClassVar[Documented] = ()
    """Fields that the expressions of a lab sheet can read; empty if sheets can't read the fact."""

    said: Mapping[str, Answer] = field(default_factory=dict)
    """The answers that the fact is read from, by part: `xml`, `row`, `cmdline` …"""

    def __init_subclass__(cls) -> None:
        """Require a layer, and put a net around each cached property.

        A fact without a layer would look absent where it was not collected. In a cached property,
        an exception that a recorded value causes becomes `UnheardError` for every reader. Plain
        properties have no net of their own: it would cost a quarter more time, and they are read
        inside other nets.
        """
        super().__init_subclass__()
        if "noun" in vars(cls) and not isinstance(getattr(cls, "layer", None), Layer):
            raise TypeError(f"{cls.__name__} (a {cls.noun}) has no layer in facts/layer.py")
        _replace(cls, _Netted)

    def where(self, name: str) -> tuple[Answer | None, str]:
        """Return the answer that a field is read from, and the place in it.

        The answer is None if it was not collected, or if the fact does not tell which of its
        answers holds the field: no answer is better than a wrong one.
        """
        part, place = self.places.get(name, (self.own, name))
        if name not in self.places and len(self.said) == 1:
            part = next(iter(self.said))
        return self.said.get(part), place


class _Unlocked(cached_property[Any]):
    """A cached property that takes no lock, which in Python 3.11 costs more than reading most
    fields. The analysis has one thread."""

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if instance is None:
            return self
        value = instance.__dict__[self.attrname] = self.func(instance)  # type: ignore[index]  # the class has set it
        return value


class _Netted(_Unlocked):
    """A cached property with a net."""

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if instance is None:
            return self
        try:
            value = self.func(instance)
        except UnheardError:
            raise
        except Exception as error:
            raise caught(error) from None
        instance.__dict__[self.attrname] = value  # type: ignore[index]  # the class has set it
        return value


def _replace(cls: type, kind: type[_Unlocked]) -> None:
    """Replace a class's cached properties by those of another kind."""
    for name, member in [*vars(cls).items()]:
        if isinstance(member, cached_property):
            property_of_kind = kind(member.func)
            property_of_kind.__set_name__(cls, name)
            setattr(cls, name, property_of_kind)


def unlocked(cls: type[T]) -> type[T]:
    """Let the cached properties of a class take no lock: for classes read for every guest."""
    _replace(cls, _Unlocked)
    return cls


def facts_in(hint: object) -> tuple[type[Fact], ...]:
    """Return the fact types in a type hint: `Image` for `tuple[Image, ...] | None`."""
    if parts := get_args(hint):
        return tuple(dict.fromkeys(kind for part in parts for kind in facts_in(part)))
    return (hint,) if isinstance(hint, type) and issubclass(hint, Fact) else ()


def may_be_none(hint: object) -> bool:
    """Return True if the type hint allows None."""
    return type(None) in get_args(hint)


def value_of(answer: Answer | None, what: str, shape: type[T]) -> T:
    """Return an answer's value, which must have the shape (`str`, `list[str]`, a model …).

    Raises `UnheardError` that names `what` if there is no answer, it is an error, or its value has
    another shape.
    """
    if answer is None:
        raise UnheardError(f"{what} was not collected")
    if answer.error is not None:
        raise UnheardError(f"{what}: {answer.error.message}")
    try:
        if not _fits(answer.value, shape):
            # pydantic would keep an error for each of a million items.
            raise UnheardError(f"{what}: the answer can't be read")
        return answer.value  # type: ignore[no-any-return]  # it is a T: its shape says so
    except TypeError:
        pass  # the shape holds more than lists, objects and texts
    try:
        return _adapter(shape).validate_python(answer.value)
    except ValidationError:
        raise UnheardError(f"{what}: the answer can't be read") from None


def _fits(value: object, shape: object) -> bool:
    """True if a JSON value has a shape made of lists, objects, texts and `object`.

    Nearly all shapes are of this kind, and pydantic needs a millisecond to prepare each one. Raises
    `TypeError` for other shapes.
    """
    if shape is object or shape is Any:
        return True
    if shape is str:
        return isinstance(value, str)
    origin, inside = _parts(shape)
    if not isinstance(value, dict | list) or not isinstance(value, origin):
        return False
    if inside is object or inside is Any:
        return True
    items: Iterable[object] = value.values() if isinstance(value, dict) else value
    if inside is str:
        return all(isinstance(item, str) for item in items)
    return all(_fits(item, inside) for item in items)


@cache
def _parts(shape: object) -> tuple[type, object]:
    """Return `list` or `dict`, and the shape of its items. Keys are texts, as in JSON."""
    origin, parts = get_origin(shape), get_args(shape)
    if origin not in (list, dict):
        raise TypeError
    return origin, parts[-1]


_adapters: dict[object, TypeAdapter[object]] = {}


def _adapter(shape: type[T]) -> TypeAdapter[T]:
    if shape not in _adapters:
        _adapters[shape] = TypeAdapter(shape)
    return _adapters[shape]  # type: ignore[return-value]  # one dict for adapters of every type


def is_true(said: Callable[[], bool]) -> bool:
    """Return the value of a field; False if it can't be read, for whatever reason."""
    try:
        return said()
    except Exception as error:  # also a net: some callers read nothing else
        caught(error)
        return False


def known(said: Callable[[*Ts], T], *of: *Ts) -> T | None:
    """Return the value of a field; None if it can't be read, for whatever reason.

    For what a headline mentions beside its finding, which must not be lost without it.
    """
    try:
        return said(*of)
    except Exception as error:  # a net, as in `is_true`
        caught(error)
        return None


def unheard(reason: str) -> NoReturn:
    """Raise `UnheardError` where the syntax needs an expression."""
    raise UnheardError(reason)


def text(raw: Mapping[str, object], key: str) -> str | None:
    """Return the text under a key; None for null.

    Raises `UnheardError` if the key is missing, as in an older release or a tenant's view, and
    `UnreadableError` if the value is no text.
    """
    # One of the hottest functions, so it calls no helper.
    try:
        value = raw[key]
    except KeyError:
        raise UnheardError(f"{key} was not collected") from None
    if value is None or isinstance(value, str):
        return value
    raise UnreadableError(f"{key} can't be read")


def integer(raw: Mapping[str, object], key: str) -> int | None:
    """Return the whole number under a key; None for null. Raises as `text` does."""
    try:
        value = raw[key]
    except KeyError:
        raise UnheardError(f"{key} was not collected") from None
    if value is None or (isinstance(value, int) and abs(value) < LARGEST):
        return value
    raise UnreadableError(f"{key} can't be read")


def mapping(raw: Mapping[str, object], key: str) -> Mapping[str, object]:
    """Return the object under a key. Raises as `text` does, also for null."""
    try:
        value = raw[key]
    except KeyError:
        raise UnheardError(f"{key} was not collected") from None
    if isinstance(value, dict):
        return value
    raise UnreadableError(f"{key} can't be read")
