"""The bundle: answers, kept verbatim in one JSON file.

This file knows nothing about nova, libvirt or QEMU. It knows which layer was asked what and when,
what came back, how answers are written to a file, and how to read a file that a stranger sent.
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

from hoodsnap import bounds, recorded
from hoodsnap.compat import FORMAT, UnknownFormatError, upgrade
from hoodsnap.file_kind import kind_of
from hoodsnap.output import STDIO as STDIO
from hoodsnap.output import write

LARGEST_STRING = bounds.LONGEST_TEXT
"""Characters of one string."""


class UnreadableBundleError(Exception):
    """The file is not a readable bundle. The text is one sentence for the person who named it."""


def _in_utc(moment: datetime) -> datetime:
    """Convert a time to UTC.

    Raises `ValueError` for a year that no host's clock shows: date arithmetic overflows near the
    ends of the calendar.
    """
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        moment = datetime.max
    if not 1900 < moment.year < 9000:
        raise ValueError("the year is not between 1901 and 8999")
    return moment


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A time, converted to UTC whatever offset it was written with."""


class Failure(BaseModel):
    """The error that a question ended with."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    kind: str
    """`absent` (the thing does not exist), `denied`, `timeout`, `unreachable`, `missing` (a program
    or library needed to ask is not installed), `too-large` or `failed`. The list is open: a reader
    treats any other kind as `failed`."""

    message: str
    """One line, as the layer returned it."""


class Answer(BaseModel):
    """The answer of one layer of one host to one question, or the error it ended with."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    layer: str
    """The layer that was asked. The list is open: unknown layers are kept and ignored."""

    host: str
    """The host on which the question was asked (for libvirt: the host that libvirtd runs on)."""

    query: str
    """The command, request or statement that a person could type to get the same answer."""

    subject: str | None = None
    """The UUID, PID or path it is about. None if it is about the whole host or cloud."""

    at: Moment
    """Time at which the question was asked."""

    took: Annotated[float, Field(strict=True, allow_inf_nan=False)]
    """Seconds until the answer arrived."""

    value: Any = None
    """A JSON value. Bytes that are not UTF-8 are kept as lone surrogates; `os.fsencode` restores
    them."""

    error: Failure | None = None

    @model_validator(mode="after")
    def _is_value_or_error(self) -> Self:
        if ("value" in self.model_fields_set) == (self.error is not None):
            raise ValueError("an answer has either a value or an error")
        return self

    def as_json(self) -> dict[str, Any]:
        """Return the answer as it is written: its fields in this order, without empty ones."""
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
    """Answers of any number of hosts, in the order in which they were collected."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    tool: str
    """The program that wrote it: `hoodsnap 0.1.0`."""

    started: Moment
    ended: Moment
    answers: tuple[Answer, ...]

    def with_answers(self, answers: Iterable[Answer]) -> Bundle:
        """Return a bundle of the same visit with other answers."""
        # Not model_copy: it would copy the properties cached from the old answers.
        return Bundle(
            tool=self.tool, started=self.started, ended=self.ended, answers=tuple(answers)
        )

    @cached_property
    def by_layer(self) -> dict[str, tuple[Answer, ...]]:
        """Answers by layer, in the order in which they were collected."""
        layers: dict[str, list[Answer]] = {}
        for answer in self.answers:
            layers.setdefault(answer.layer, []).append(answer)
        return {layer: tuple(answers) for layer, answers in layers.items()}

    def asked(self, layer: str, start: str, host: str | None = None) -> Iterator[Answer]:
        """Yield the answers of a layer whose query begins with `start`, in the order collected."""
        for answer in self.by_layer.get(layer, ()):
            if answer.query.startswith(start) and host in (None, answer.host):
                yield answer

    @cached_property
    def _by_query(self) -> dict[str, dict[str, list[Answer]]]:
        """Answers by layer and query, filled by `last`."""
        return {}

    def last(self, layer: str, query: str, host: str | None = None) -> Answer | None:
        """Return the newest answer to exactly this query; None if it was never asked."""
        if layer not in self._by_query:
            queries: dict[str, list[Answer]] = {}
            for answer in self.by_layer.get(layer, ()):
                queries.setdefault(answer.query, []).append(answer)
            self._by_query[layer] = queries
        for answer in reversed(self._by_query[layer].get(query, ())):
            if host is None or host == answer.host:
                return answer
        return None


def merge(bundles: Iterable[Bundle]) -> Bundle:
    """Merge several bundles into one, with the answers in the order in which they were asked."""
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
"""A function that is called with a bundle's size in bytes of JSON, before the JSON is parsed."""


def load(path: Path, measured: Measured | None = None) -> Bundle:
    """Read a bundle from a file (`-`: standard input; `@demo…`: a recording), compressed or not.

    Raises `UnreadableBundleError`, and nothing else.
    """
    try:
        if recorded.is_named(path):
            return parse(recorded.read(path), measured)
        if path == STDIO:
            return parse(_content(sys.stdin.buffer), measured)
        with path.open("rb") as file:
            return parse(_content(file), measured)
    except recorded.UnknownRecordingError as error:
        raise UnreadableBundleError(str(error)) from None
    except OSError as error:
        raise UnreadableBundleError(error.strerror or str(error)) from None
    except MemoryError:
        raise UnreadableBundleError(_NO_MEMORY) from None
    except ValueError:  # the path contains a null character
        raise UnreadableBundleError("no file can have this name") from None


def parse(data: bytes, measured: Measured | None = None) -> Bundle:
    """Read a bundle from bytes. The compression is detected from the bytes themselves.

    Raises `UnreadableBundleError`, and nothing else.
    """
    try:
        data = _decompressed(data)
        head = data[:_HEAD]
        bounds.check_bytes(data)
        size = len(data)
        if measured is not None:
            measured(size)
        text = data.decode()
        del data  # a large bundle's bytes, text and objects need not be in memory at once
        # No string is longer than its line: JSON allows no line breaks inside a string.
        unique = _unique if _longest_line(text) <= bounds.LONGEST_TEXT else _unique_and_short
        raw = json.loads(
            text, object_pairs_hook=unique, parse_constant=_no_constant, parse_float=_finite
        )
        del text
        if not isinstance(raw, dict):
            raise UnreadableBundleError("it is JSON, but not a hoodsnap bundle")
        if "findings" in raw and "answers" not in raw:
            raise UnreadableBundleError("it is a hoodsnap report, not a hoodsnap bundle")
        _check(raw, size)
        return Bundle.model_validate(upgrade(raw))
    except UnicodeDecodeError:
        raise UnreadableBundleError(
            _foreign(head) or "it is neither JSON nor gzip nor zstd"
        ) from None
    except json.JSONDecodeError as error:
        raise UnreadableBundleError(_foreign(head) or _about_json(error)) from None
    except ValidationError as error:
        raise UnreadableBundleError(_about_shape(error)) from None
    except UnknownFormatError as error:
        raise UnreadableBundleError(str(error)) from None
    except RecursionError:
        raise UnreadableBundleError("it is nested too deeply for a hoodsnap bundle") from None
    except MemoryError:
        raise UnreadableBundleError(_NO_MEMORY) from None
    except bounds.OutOfBoundsError as error:
        raise UnreadableBundleError(_foreign(head) or str(error)) from None
    except ValueError as error:  # an integer with more digits than Python parses
        raise UnreadableBundleError(f"it holds a value that no layer returns: {error}") from None


_HEAD = 8192
"""Bytes by which a file of another kind is recognized."""


def _foreign(head: bytes) -> str | None:
    kind = kind_of(head)
    return None if kind is None else f"it is {kind}, not a hoodsnap bundle"


_NO_MEMORY = "reading it needs more memory than is allowed"


def _check(raw: dict[str, Any], size: int) -> None:
    bounds.check_depth(raw)
    bounds.check_tool(raw.get("tool"))
    answers = raw.get("answers")
    if isinstance(answers, list):
        bounds.check_answers(answers, size)


def dump(bundle: Bundle) -> bytes:
    """Return the bundle as JSON, one answer a line. The same answers give the same bytes."""
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

    The file appears whole or not at all, and only its owner can read it. Raises `UnwritableError`.
    """
    write(path, packed(bundle, path))


def packed(bundle: Bundle, path: Path) -> bytes:
    """Return the content of a bundle's file, compressed as its name asks for."""
    data = dump(bundle)
    if path == STDIO and sys.stdout.isatty():
        # JSON escapes all control characters and all of non-ASCII, except for DEL.
        data = data.replace(b"\x7f", b"\\u007f")
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)
    elif path.suffix == ".zst":
        import zstandard

        data = zstandard.ZstdCompressor(level=12).compress(data)
    return data


def _compact(raw: object) -> str:
    # ASCII only: lone surrogates (bytes that were not UTF-8) survive as escapes.
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
        raise UnreadableBundleError("an object has the same key twice, which hoodsnap never writes")
    return found


def _unique_and_short(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = _unique(pairs)
    for value in found.values():
        if type(value) is str and len(value) > bounds.LONGEST_TEXT:
            raise UnreadableBundleError(
                f"it holds a string of {len(value)} characters, which is too long"
            )
    return found


def _finite(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise UnreadableBundleError("it holds a number larger than any layer returns")
    return number


def _no_constant(name: str) -> None:
    raise UnreadableBundleError(f"it holds {name}, which is not valid JSON")


def _decompressed(data: bytes) -> bytes:
    most = bounds.unpacked(len(data))
    try:
        if data.startswith(_GZIP):
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
                data = read_up_to(stream, most)
        elif data.startswith(_ZSTD):
            data = _read_zstd(data, most)
        else:
            most = bounds.LARGEST
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise UnreadableBundleError("its gzip data is damaged or truncated") from None
    if len(data) > most:
        raise UnreadableBundleError(
            f"it unpacks to more than {most >> 20} MiB, which is too much for a file of its size"
            if most < bounds.LARGEST
            else f"it is larger than {most >> 30} GiB"
        )
    return data


def _read_zstd(data: bytes, most: int) -> bytes:
    import zstandard

    try:
        # A frame may request a window of gigabytes; hoodsnap's own bundles need no more than this.
        reader = zstandard.ZstdDecompressor(max_window_size=128 << 20).stream_reader(data)
        out = read_up_to(reader, most)
    except zstandard.ZstdError:
        raise UnreadableBundleError("its zstd data is damaged or truncated") from None
    return out


_PART = 1 << 20
"""Bytes that are read at once."""


def _content(stream: BinaryIO) -> bytes:
    """Return the content of a bundle's stream; only its beginning if that can't begin a bundle.

    So an endless stream (`/dev/zero`) costs one part of memory. Raises `UnreadableBundleError` if
    it has more than `bounds.LARGEST` bytes.
    """
    # Its value is not copied, so a bundle is in memory once.
    whole = io.BytesIO()
    while part := stream.read(_PART):
        if not whole.tell() and not _may_begin(part):
            return part
        if whole.tell() + len(part) > bounds.LARGEST:
            raise UnreadableBundleError(f"it is larger than {bounds.LARGEST >> 30} GiB")
        whole.write(part)
    return whole.getvalue()


def _may_begin(part: bytes) -> bool:
    """True if a compressed file or a JSON document can begin like this."""
    text = part.lstrip(b" \t\r\n")
    return part.startswith((_GZIP, _ZSTD)) or text[:1] in _JSON or (not text and len(part) < _PART)


_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
"""First bytes of compressed files."""

_JSON = frozenset(bytes([byte]) for byte in b'{["-0123456789tfn')
"""First bytes of JSON documents."""


def read_up_to(stream: BinaryIO | Any, most: int) -> bytes:
    """Return the content of a stream; if it is longer than `most` bytes, only a little more than
    that, so that the caller can refuse it."""
    # In parts: a single read of `most` bytes makes Python allocate all of them.
    parts, size = [], 0
    while size <= most and (part := stream.read(_PART)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _about_json(error: json.JSONDecodeError) -> str:
    if not error.doc.strip():
        return "it is empty"
    if error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string"):
        return "it is truncated"
    return f"it is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}"


def _about_shape(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    wrong = "unknown field" if first["type"] == "extra_forbidden" else first["msg"].lower()
    return f"it is not a hoodsnap bundle: {place or 'the document'}: {wrong}"
