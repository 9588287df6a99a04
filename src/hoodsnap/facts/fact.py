"""What a fact is: the typed reading of one layer's answers about one thing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, wraps
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, NoReturn, TypeVar, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from hoodsnap.bundle import Answer, Failure
from hoodsnap.facts.layer import Layer

T = TypeVar("T")

NOT_READ = "could not be read"
"""Beginning of the reason of an error that a net has caught, and of no other reason."""

LARGEST = 1 << 63
"""No number that a layer keeps reaches this."""


class UnheardError(Exception):
    """A layer did not say this: it was not asked, did not answer, or said what can't be read.

    Reading an unheard field of a fact raises it. Whoever compares lets it pass: the check becomes a
    skip with this text as its reason. Unknown is never absent.
    """


class UnreadableError(UnheardError):
    """A layer said this in a way that can't be read: it is there, so comparing what others say of
    it is no whole comparison."""


def caught(error: Exception) -> UnheardError:
    """Return what a net makes of an exception that a recorded value has caused: `UnheardError`.

    Each net stands where one thing ends (a check of one guest, one step of a walk, one answer): a
    field of an unexpected type must cost that thing and nothing else. Its text names the type of
    the exception and our own line, never the exception's text, which may quote the bundle. With
    HOODSNAP_DEBUG set the exception is raised instead, so that a net hides no defect from us. Want
    of memory is raised too: the next thing would not fit either.
    """
    if isinstance(error, UnheardError):
        return error
    if isinstance(error, MemoryError) or os.environ.get("HOODSNAP_DEBUG"):
        raise error
    return UnreadableError(f"{NOT_READ}: {type(error).__name__} at {_line_of(error)}")


def _line_of(error: BaseException) -> str:
    """Our own innermost line that an exception passed: `facts/api/port.py:228`."""
    place, trace = "?", error.__traceback__
    ours = Path(__file__).parent.parent
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        if path.is_relative_to(ours):
            place = f"{path.relative_to(ours)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


MOST_UNREADABLE = 8
"""Answers of a layer that may break its reader. If more do, none of the layer is read."""


def read_each(read: Callable[[Sequence[Answer]], T], answers: Iterable[Answer]) -> T:
    """Read a layer's answers; one that breaks the reader is read as a failed one instead.

    So what can't be read is unheard, as if the layer had not answered; it is never taken for
    absent. The answer is found by halving: the shortest beginning that breaks the reader ends with
    it.
    """
    heard = tuple(answers)
    for _ in range(MOST_UNREADABLE):
        try:
            return read(heard)
        except Exception as error:
            reason = str(caught(error))
        fits, breaks = 0, len(heard)  # answers at the beginning that can, and can't, be read
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
        tuple(failed(answer, "too much of its layer could not be read") for answer in heard)
    )


def failed(answer: Answer, reason: str) -> Answer:
    """The same question, as if it had not been answered, and why."""
    said = answer.model_dump(exclude={"value", "error"})
    return Answer(**said, error=Failure(kind="failed", message=reason))


class DocumentedField(NamedTuple):
    """A field that the expressions of a lab sheet may name."""

    name: str
    help: str
    """Meaning for people."""
    read: Callable[[Any], object] | None = None
    """Reader of the field; None for the attribute of that name."""
    inside: Sequence[DocumentedField] = ()
    """Fields of each item, if the value is a tuple of items."""


Documented = Sequence[str | DocumentedField]
"""Fields in order. A string names an attribute, whose docstring is the meaning."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Fact:
    """Base of Server, Instance, Domain, Process, Monitor, Image. It never changes, and ignores what
    it doesn't know. A dataclass and no model, since nothing is checked up front: what can't be read
    is `UnheardError` when it is read, and the rest is still worth something.
    """

    layer: ClassVar[Layer]
    """The layer whose answers it reads."""

    noun: ClassVar[str]
    """What that layer calls a VM."""

    places: ClassVar[Mapping[str, tuple[str, str]]] = {}
    """For each field: the part it was read from (a key of `said`), and where in there."""

    documented: ClassVar[Documented] = ()
    """Fields that the expressions of a lab sheet can read; empty if they can't read the fact."""

    said: Mapping[str, Answer] = field(default_factory=dict)
    """The answers it was read from, by part: `xml`, `row`, `cmdline` …"""

    def __init_subclass__(cls) -> None:
        """Require a layer: a fact without a layer would look absent where it was not collected.

        Put a net around what is read once and kept: whatever a recorded value breaks there is
        `UnheardError` for everybody who reads it. (Around each property it would cost a quarter
        more time; these are read within other nets.)"""
        super().__init_subclass__()
        if "noun" in vars(cls) and not isinstance(getattr(cls, "layer", None), Layer):
            raise TypeError(f"{cls.__name__} (a {cls.noun}) has no layer in facts/layer.py")
        for member in vars(cls).values():
            if isinstance(member, cached_property):
                member.func = _netted(member.func)

    def where(self, name: str) -> tuple[Answer | None, str]:
        """The answer that a field was read from, and the place in it."""
        part, place = self.places.get(name, ("", name))
        if part not in self.said:
            part = next(iter(self.said), "")
        return self.said.get(part), place


def _netted(read: Callable[[Any], T]) -> Callable[[Any], T]:
    @wraps(read)
    def reading(self: Any) -> T:
        try:
            return read(self)
        except UnheardError:
            raise
        except Exception as error:
            raise caught(error) from None

    return reading


def facts_in(hint: object) -> tuple[type[Fact], ...]:
    """Return the types of fact in a type: `Image` for `tuple[Image, ...] | None`."""
    if parts := get_args(hint):
        return tuple(dict.fromkeys(kind for part in parts for kind in facts_in(part)))
    return (hint,) if isinstance(hint, type) and issubclass(hint, Fact) else ()


def may_be_none(hint: object) -> bool:
    """Return True if None is a value of this type."""
    return type(None) in get_args(hint)


def value_of(answer: Answer | None, what: str, shape: type[T]) -> T:
    """The value of an answer, checked to be of a shape (`str`, `list[str]`, `dict[str, object]`, a
    model).

    Raises `UnheardError` with `what` in it if there is no answer, it is an error, or it has another
    shape.
    """
    if answer is None:
        raise UnheardError(f"{what} was not asked")
    if answer.error is not None:
        raise UnheardError(f"{what}: {answer.error.message}")
    try:
        if not _fits(answer.value, shape):
            # Not left to pydantic, which would remember an error for each of a million items.
            raise UnheardError(f"{what}: the answer can't be read")
        return answer.value  # type: ignore[no-any-return]  # it is a T: its shape says so
    except TypeError:
        pass  # a shape that is more than lists and objects of plain values
    try:
        return _adapter(shape).validate_python(answer.value)
    except ValidationError:
        raise UnheardError(f"{what}: the answer can't be read") from None


def _fits(value: object, shape: object) -> bool:
    """Whether a JSON value is of a shape made of lists, objects, texts and anything.

    Nearly all are, and pydantic would take a millisecond to learn each shape. Raises `TypeError`
    for any other.
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
    """`list` or `dict`, and the shape of what is in it; as in JSON every key is a text."""
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
    """Whether a layer said so; False if it did not, whatever the reason."""
    try:
        return said()
    except Exception as error:  # a net, too: many ask nothing else of a fact
        caught(error)
        return False


def unheard(reason: str) -> NoReturn:
    """Raise `UnheardError`, where only an expression fits."""
    raise UnheardError(reason)


def text(raw: Mapping[str, object], key: str) -> str | None:
    """The text (or null) under a key. `UnheardError` if the key is missing: that release, or that
    user's view, does not have it."""
    # One of the most frequent questions of all: it is asked and answered in one place.
    try:
        value = raw[key]
    except KeyError:
        raise UnheardError(f"{key} was not told") from None
    if value is None or isinstance(value, str):
        return value
    raise UnreadableError(f"{key} can't be read")


def integer(raw: Mapping[str, object], key: str) -> int | None:
    """The whole number (or null) under a key; `UnheardError` as for `text`."""
    try:
        value = raw[key]
    except KeyError:
        raise UnheardError(f"{key} was not told") from None
    if value is None or (isinstance(value, int) and abs(value) < LARGEST):
        return value
    raise UnreadableError(f"{key} can't be read")


def mapping(raw: Mapping[str, object], key: str) -> Mapping[str, object]:
    """The object under a key; `UnheardError` if there is none."""
    try:
        value = raw[key]
    except KeyError:
        raise UnheardError(f"{key} was not told") from None
    if isinstance(value, dict):
        return value
    raise UnreadableError(f"{key} can't be read")
