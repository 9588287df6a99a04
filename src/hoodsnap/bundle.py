"""What is kept: answers, verbatim, in one JSON file.

This file knows nothing of nova, libvirt or QEMU. It knows who was asked what and when, what came
back, and how that is written to a file and read from one that a stranger sent.
"""

from __future__ import annotations

import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from hoodsnap import bounds
from hoodsnap.compat import FORMAT, UnknownFormatError, upgrade
from hoodsnap.output import STDIO as STDIO
from hoodsnap.output import write

LARGEST_STRING = bounds.LONGEST_TEXT
"""Characters of one text."""


class UnreadableBundleError(Exception):
    """The file is no readable bundle. The text is one sentence for the person who named it."""


def _in_utc(moment: datetime) -> datetime:
    """The same moment in UTC. Raises `ValueError` for one that no clock of a host shows: near the
    ends of the calendar nothing can be reckoned with it."""
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        moment = datetime.max
    if not 1900 < moment.year < 9000:
        raise ValueError("this time is outside of the years 1901 to 8999")
    return moment


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A time, in UTC however it was written."""


class Failure(BaseModel):
    """Why there is no answer."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    kind: str
    """`absent` (there is no such thing), `denied`, `timeout`, `unreachable`, `missing` (a program
    or library that is needed to ask), `too-large` or `failed`. Open: a reader takes others for
    `failed`."""

    message: str
    """One line, as the layer said it."""


class Answer(BaseModel):
    """What one layer of one host said to one question, or why it did not answer."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    layer: str
    """Open: a layer that this release does not know is kept and ignored."""

    host: str
    """The host on which the question was asked (for libvirt: the one that libvirtd runs on)."""

    query: str
    """What a person could type to get the same answer."""

    subject: str | None = None
    """What it is about: a UUID, a PID, a path. None if it is about the whole host or cloud."""

    at: Moment
    """When it was asked."""

    took: Annotated[float, Field(strict=True, allow_inf_nan=False)]
    """Seconds until the answer was there."""

    value: Any = None
    """JSON. Bytes that are not UTF-8 are kept as lone surrogates; `os.fsencode` restores them."""

    error: Failure | None = None

    @model_validator(mode="after")
    def _is_value_or_error(self) -> Self:
        if ("value" in self.model_fields_set) == (self.error is not None):
            raise ValueError("an answer has either a value or an error")
        return self

    def as_json(self) -> dict[str, Any]:
        """The answer as it is written: fields in this order, no empty ones."""
        raw: dict[str, Any] = {"layer": self.layer, "host": self.host, "query": self.query}
        if self.subject is not None:
            raw["subject"] = self.subject
        raw["at"] = _written(self.at)
        raw["took"] = round(self.took, 6)
        if self.error is None:
            raw["value"] = self.value
        else:
            raw["error"] = {"kind": self.error.kind, "message": self.error.message}
        return raw


class Bundle(BaseModel):
    """Answers of any number of hosts, in the order in which they were given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    tool: str
    """Who wrote it: `hoodsnap 0.1.0`."""

    started: Moment
    ended: Moment
    answers: tuple[Answer, ...]

    def with_answers(self, answers: Iterable[Answer]) -> Bundle:
        """The same visit with other answers."""
        # Not model_copy: it would take along what was derived from the old ones.
        return Bundle(
            tool=self.tool, started=self.started, ended=self.ended, answers=tuple(answers)
        )

    @cached_property
    def by_layer(self) -> dict[str, tuple[Answer, ...]]:
        """The answers of each layer, in order."""
        layers: dict[str, list[Answer]] = {}
        for answer in self.answers:
            layers.setdefault(answer.layer, []).append(answer)
        return {layer: tuple(answers) for layer, answers in layers.items()}

    def asked(self, layer: str, start: str, host: str | None = None) -> Iterator[Answer]:
        """Every answer of a layer whose query starts so, in the order in which they were given."""
        for answer in self.by_layer.get(layer, ()):
            if answer.query.startswith(start) and host in (None, answer.host):
                yield answer

    @cached_property
    def _by_query(self) -> dict[str, dict[str, list[Answer]]]:
        """Filled by `last`: for each layer, the answers to each query."""
        return {}

    def last(self, layer: str, query: str, host: str | None = None) -> Answer | None:
        """The answer to exactly this query; if it was asked again, the newest."""
        if layer not in self._by_query:
            queries: dict[str, list[Answer]] = {}
            for answer in self.by_layer.get(layer, ()):
                queries.setdefault(answer.query, []).append(answer)
            self._by_query[layer] = queries
        answers = self._by_query[layer].get(query, ())
        return next((one for one in reversed(answers) if host in (None, one.host)), None)


def merge(bundles: Iterable[Bundle]) -> Bundle:
    """All answers of several bundles in one, in the order in which they were asked."""
    parts = tuple(bundles)
    if len(parts) == 1:
        return parts[0]
    return Bundle(
        tool=parts[0].tool,
        started=min(part.started for part in parts),
        ended=max(part.ended for part in parts),
        answers=tuple(
            sorted(
                (answer for part in parts for answer in part.answers),
                key=lambda answer: answer.at,
            )
        ),
    )


Measured = Callable[[int], object]
"""It is called with the bytes of JSON of a bundle, before anything is made of them."""


def load(path: Path, measured: Measured | None = None) -> Bundle:
    """Read a bundle from a file (`-`: standard input), compressed or not.

    Raises `UnreadableBundleError`, and nothing else.
    """
    try:
        if path == STDIO:
            return parse(read_up_to(sys.stdin.buffer, bounds.LARGEST), measured)
        with path.open("rb") as file:
            return parse(read_up_to(file, bounds.LARGEST), measured)
    except OSError as error:
        raise UnreadableBundleError(error.strerror or str(error)) from None
    except MemoryError:
        raise UnreadableBundleError(_NO_MEMORY) from None
    except ValueError:  # of a path: it has a null character in it
        raise UnreadableBundleError("no file can have this name") from None


def parse(data: bytes, measured: Measured | None = None) -> Bundle:
    """Read a bundle from bytes. What they are compressed with is seen from the bytes themselves.

    Raises `UnreadableBundleError`, and nothing else.
    """
    try:
        data = _decompressed(data)
        bounds.check_bytes(data)
        size = len(data)
        if measured is not None:
            measured(size)
        text = data.decode()
        del data  # of a large bundle, bytes and text and objects need not all be there at once
        # No text is longer than the line that it stands in: JSON has no line ends inside of one.
        unique = _unique if _longest_line(text) <= bounds.LONGEST_TEXT else _unique_and_short
        raw = json.loads(
            text, object_pairs_hook=unique, parse_constant=_no_constant, parse_float=_finite
        )
        del text
        if not isinstance(raw, dict):
            raise UnreadableBundleError("it is JSON, but no hoodsnap bundle")
        _check(raw, size)
        return Bundle.model_validate(upgrade(raw))
    except UnicodeDecodeError:
        raise UnreadableBundleError("it is neither JSON nor gzip nor zstd") from None
    except json.JSONDecodeError as error:
        raise UnreadableBundleError(_about_json(error)) from None
    except ValidationError as error:
        raise UnreadableBundleError(_about_shape(error)) from None
    except UnknownFormatError as error:
        raise UnreadableBundleError(str(error)) from None
    except RecursionError:
        raise UnreadableBundleError("it is nested too deeply for a hoodsnap bundle") from None
    except MemoryError:
        raise UnreadableBundleError(_NO_MEMORY) from None
    except bounds.OutOfBoundsError as error:
        raise UnreadableBundleError(str(error)) from None
    except ValueError as error:  # an integer of more digits than Python will read
        raise UnreadableBundleError(f"it holds a value that no layer gives: {error}") from None


_NO_MEMORY = "it needs more memory than it may take"


def _check(raw: dict[str, Any], size: int) -> None:
    bounds.check_depth(raw)
    bounds.check_tool(raw.get("tool"))
    answers = raw.get("answers")
    if isinstance(answers, list):
        bounds.check_answers(answers, size)


def dump(bundle: Bundle) -> bytes:
    """The bundle as JSON, one answer a line. The same answers give the same bytes."""
    out = io.StringIO()
    head = {
        "format": bundle.format,
        "tool": bundle.tool,
        "started": _written(bundle.started),
        "ended": _written(bundle.ended),
    }
    out.write(_compact(head)[:-1] + ',"answers":[')
    for number, answer in enumerate(bundle.answers):
        out.write(",\n" if number else "\n")
        out.write(_compact(answer.as_json()))
    out.write("\n]}\n")
    return out.getvalue().encode()


def save(bundle: Bundle, path: Path) -> None:
    """Write a bundle to a file (`-`: standard output); `.gz` and `.zst` in its name compress it.

    A file appears whole or not at all, and only its owner may read it. Raises `UnwritableError`.
    """
    data = dump(bundle)
    if path == STDIO and sys.stdout.isatty():
        # Everything outside ASCII is escaped; this is ASCII's only other control character.
        data = data.replace(b"\x7f", b"\\u007f")
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)
    elif path.suffix == ".zst":
        import zstandard

        data = zstandard.ZstdCompressor(level=12).compress(data)
    write(path, data)


def _compact(raw: object) -> str:
    # ASCII only: lone surrogates (bytes that were no UTF-8) survive as escapes.
    return json.dumps(raw, separators=(",", ":"), allow_nan=False)


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _longest_line(text: str) -> int:
    start = longest = 0
    while (end := text.find("\n", start)) >= 0:
        longest, start = max(longest, end - start), end + 1
    return max(longest, len(text) - start)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise UnreadableBundleError("a key occurs twice in one object, which hoodsnap never writes")
    return found


def _unique_and_short(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = _unique(pairs)
    for value in found.values():
        if type(value) is str and len(value) > bounds.LONGEST_TEXT:
            raise UnreadableBundleError(
                f"it holds a text of {len(value)} characters, which is too long"
            )
    return found


def _finite(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise UnreadableBundleError("it holds a number that is too large for any layer")
    return number


def _no_constant(name: str) -> None:
    raise UnreadableBundleError(f"it holds {name}, which is no JSON")


def _decompressed(data: bytes) -> bytes:
    most = bounds.unpacked(len(data))
    try:
        if data.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
                data = read_up_to(stream, most)
        elif data.startswith(b"\x28\xb5\x2f\xfd"):
            data = _read_zstd(data, most)
        else:
            most = bounds.LARGEST
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise UnreadableBundleError("its gzip data is damaged or cut off") from None
    if len(data) > most:
        raise UnreadableBundleError(
            f"it unpacks to more than {most >> 20} MiB, which no bundle of its size does"
            if most < bounds.LARGEST
            else f"it is larger than {most >> 30} GiB"
        )
    return data


def _read_zstd(data: bytes, most: int) -> bytes:
    import zstandard

    try:
        # A frame may ask for gigabytes of window; ours never need more than this.
        reader = zstandard.ZstdDecompressor(max_window_size=128 << 20).stream_reader(data)
        out = read_up_to(reader, most)
    except zstandard.ZstdError:
        raise UnreadableBundleError("its zstd data is damaged or cut off") from None
    return out


def read_up_to(stream: BinaryIO | Any, most: int) -> bytes:
    """Return the content of a stream; beyond `most` bytes only a little more, to be refused."""
    # In parts: a single read of `most` bytes makes Python reserve room for all of them.
    parts, size = [], 0
    while size <= most and (part := stream.read(1 << 20)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _about_json(error: json.JSONDecodeError) -> str:
    if error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string"):
        return "it ends in the middle: it was cut off"
    return f"it is no JSON: {error.msg} at line {error.lineno}, column {error.colno}"


def _about_shape(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"it is no hoodsnap bundle: {place or 'the whole'}: {first['msg'].lower()}"
