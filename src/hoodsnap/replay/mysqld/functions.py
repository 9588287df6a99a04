"""MySQL's functions that SQLite lacks, or defines differently."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from hoodsnap.facts.clock import wall_time


def teach(connection: sqlite3.Connection, now: datetime, version: str) -> None:
    """Add MySQL's functions to a connection. `now`: the time of the recording, in UTC."""
    moment = now.strftime("%Y-%m-%d %H:%M:%S")
    constant: dict[str, object] = {
        **dict.fromkeys(("now", "utc_timestamp", "sysdate", "localtime", "localtimestamp"), moment),
        **dict.fromkeys(("curdate", "utc_date"), moment[:10]),
        "version": version,
        "user": "root@localhost",
        "current_user": "root@localhost",
        "connection_id": 1,
    }
    for name, value in constant.items():
        connection.create_function(name, -1, lambda *_, value=value: value, deterministic=True)
    functions: dict[str, tuple[int, Callable[..., Any]]] = {
        "concat": (-1, lambda *parts: None if None in parts else "".join(map(_text, parts))),
        "concat_ws": (-1, lambda by, *parts: by.join(_text(p) for p in parts if p is not None)),
        "if": (3, lambda condition, yes, no: yes if condition else no),
        "isnull": (1, lambda value: int(value is None)),
        "left": (2, lambda text, count: None if text is None else _text(text)[: max(count, 0)]),
        "right": (2, lambda text, count: None if text is None else _text(text)[-count or None :]),
        "mod": (2, lambda a, b: None if not b or a is None else a % b),
        "substring_index": (3, _substring_index),
        "locate": (2, lambda part, text: None if text is None else _text(text).find(part) + 1),
        "find_in_set": (2, _find_in_set),
        "lpad": (3, lambda text, size, pad: None if text is None else _padded(text, size, pad)),
        "regexp": (2, _regexp),
        "interval_of": (2, lambda amount, unit: f"{amount} {unit}"),
        "date_add": (2, lambda when, span: _moved(when, span, 1)),
        "date_sub": (2, lambda when, span: _moved(when, span, -1)),
        "timestampdiff": (3, _difference),
        "datediff": (2, lambda a, b: _difference("day", _date(b), _date(a))),
        "unix_timestamp": (-1, lambda *when: _seconds(when[0] if when else moment)),
        "from_unixtime": (1, lambda n: None if n is None else _from_seconds(n)),
        "date_format": (2, _formatted),
        "json_unquote": (1, lambda text: text),
        "hex": (1, lambda value: None if value is None else _hex(value)),
    }
    connection.create_aggregate("avg", 1, _Average)  # type: ignore[arg-type]  # any result
    for name, (arguments, function) in functions.items():
        connection.create_function(name, arguments, function, deterministic=True)


class _Average:
    """MySQL's AVG: it always shows four decimals for integers."""

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def step(self, value: object) -> None:
        """Add the value of one row."""
        if isinstance(value, int | float):
            self._sum += value
            self._count += 1

    def finalize(self) -> str | None:
        """Return the average; None if there were no numbers."""
        return f"{self._sum / self._count:.4f}" if self._count else None


def _text(value: object) -> str:
    return str(value)


def _hex(value: object) -> str:
    return f"{value:X}" if isinstance(value, int) else str(value).encode().hex().upper()


def _padded(text: object, size: int, pad: str) -> str:
    return _text(text)[:size].rjust(size, pad[:1] or " ") if size < 1 << 16 else _text(text)


def _substring_index(text: str | None, by: str, count: int) -> str | None:
    if text is None or not by:
        return text
    parts = text.split(by)
    return by.join(parts[:count] if count >= 0 else parts[count:])


def _find_in_set(text: str | None, listed: str | None) -> int | None:
    if text is None or listed is None:
        return None
    parts = listed.split(",")
    return parts.index(text) + 1 if text in parts else 0


def _regexp(pattern: str | None, text: object) -> int | None:
    if pattern is None or text is None:
        return None
    return int(re.search(pattern, _text(text), re.IGNORECASE) is not None)


def _moment(written: object) -> datetime | None:
    return wall_time(_text(written)) if written is not None else None


def _date(written: object) -> str | None:
    return None if written is None else _text(written)[:10]


def _shown(moment: datetime) -> str:
    return moment.isoformat(sep=" ", timespec="microseconds" if moment.microsecond else "seconds")


_SPANS = {
    "microsecond": timedelta(microseconds=1),
    "second": timedelta(seconds=1),
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
}


def _moved(when: object, span: str, direction: int) -> str | None:
    start = _moment(when)
    amount, _, unit = span.rpartition(" ")
    if start is None:
        return None
    try:
        steps = int(float(amount)) * direction
        if unit in _SPANS:
            return _shown(start + _SPANS[unit] * steps)
        months = steps * {"month": 1, "quarter": 3, "year": 12}[unit]
        year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
        day = min(start.day, _last_day(year, month + 1))
        return _shown(start.replace(year=year, month=month + 1, day=day))
    except (ValueError, OverflowError, KeyError):
        return None


def _last_day(year: int, month: int) -> int:
    following = datetime(year + month // 12, month % 12 + 1, 1)
    return (following - timedelta(days=1)).day


def _difference(unit: str, start: object, end: object) -> int | None:
    first, last = _moment(start), _moment(end)
    if first is None or last is None or unit not in _SPANS:
        return None
    return int((last - first) / _SPANS[unit])


def _seconds(when: object) -> int | None:
    found = _moment(when)
    return None if found is None else int((found - datetime(1970, 1, 1)).total_seconds())


def _from_seconds(number: float) -> str | None:
    try:
        return _shown(datetime(1970, 1, 1) + timedelta(seconds=number))
    except OverflowError:
        return None


_FORMATS = {"i": "%M", "s": "%S", "S": "%S", "T": "%H:%M:%S", "H": "%H", "Y": "%Y", "y": "%y"}
_FORMATS |= {"m": "%m", "d": "%d", "b": "%b", "M": "%B", "a": "%a", "W": "%A", "j": "%j"}
_FORMATS |= {"f": "%f", "h": "%I", "I": "%I", "p": "%p", "%": "%%"}


def _formatted(when: object, form: str | None) -> str | None:
    found = _moment(when)
    if found is None or form is None:
        return None
    python = re.sub(r"%(.)", lambda m: _FORMATS.get(m[1], m[1]), form)
    return found.strftime(python)
