"""Baseline: findings accepted until a date, each with a reason, in a TOML file for people to read.

An entry accepts the findings of one check about one server or host, as long as the layers report
the same values: `fingerprint` is a hash of these values without process ids and times. A field that
an entry omits matches anything; reason and expiry date are required.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path

from hoodsnap.evidence import Evidence
from hoodsnap.findings.finding import Finding
from hoodsnap.printable import clean

ACCEPTED_FOR = timedelta(days=90)
"""Time for which a new entry is accepted; after that a person has to look again."""

HEAD = """\
# Findings that `hoodsnap check --baseline` accepts. Each entry needs a reason and an expiry date.
# Omit server, host or fingerprint to match any value. says is only for the reader.
"""

PASSING = frozenset(["pid", "pids", "id", "time", "at", "age", "since", "boot_id", "uptime"])
"""Names of values that change from one collection to the next although nothing has happened."""

_PASSING_NAME = re.compile(r"(?:_at|_time|_seconds|_age|_date)$")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?")
_PROCESS = re.compile(r"(/proc/|\bpid )\d+")


class UnreadableBaselineError(Exception):
    """A baseline is not TOML, or an entry in it is invalid. The text is one sentence."""


@dataclass(frozen=True, slots=True)
class BaselineEntry:
    """One accepted kind of finding; None in a field means that any value matches."""

    check: str
    reason: str
    expires: date
    server: str | None = None
    host: str | None = None
    fingerprint: str | None = None
    explains: tuple[str, ...] = ()
    """Names of the checks whose findings may be folded under the accepted finding."""
    says: str = ""

    def __str__(self) -> str:
        place = [
            f"{word} {name}" for word, name in (("of", self.server), ("on", self.host)) if name
        ]
        return " ".join([self.check, *place])

    def is_about(self, finding: Finding) -> bool:
        """True if the entry matches this finding; its reason and expiry date are not examined."""
        server = finding.guest.uuid if finding.guest is not None else None
        return (
            self.check == finding.check.name
            and self.server in (None, server)
            and self.host in (None, finding.host)
            and self.fingerprint in (None, fingerprint(finding))
            and set(_explained(finding)) <= {self.check, *self.explains}
        )


@dataclass(frozen=True)
class Parted:
    """Findings, divided by a baseline into accepted and remaining ones."""

    remaining: tuple[Finding, ...]
    accepted: tuple[tuple[Finding, BaselineEntry], ...]
    remarks: tuple[str, ...]
    """Problems of the baseline: entries without a reason, or expired."""
    unused: tuple[BaselineEntry, ...] = ()
    """Valid entries that match no finding."""


def read(path: Path) -> tuple[BaselineEntry, ...]:
    """Read the entries of a file. Raises `UnreadableBaselineError` and `OSError`."""
    try:
        raw = tomllib.loads(path.read_text())
    except UnicodeDecodeError:
        raise UnreadableBaselineError("it is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise UnreadableBaselineError(f"it is not valid TOML: {error}") from None
    entries = raw.get("accepted", [])
    if raw.keys() - {"accepted"} or not isinstance(entries, list):
        raise UnreadableBaselineError("it holds something other than [[accepted]] entries")
    return tuple(_entry(number, entry) for number, entry in enumerate(entries, 1))


def _entry(number: int, raw: object) -> BaselineEntry:
    if not isinstance(raw, dict):
        raise UnreadableBaselineError(f"entry {number} is not a table")
    shapes: Mapping[str, type] = {
        **dict.fromkeys(("check", "reason", "server", "host", "fingerprint", "says"), str),
        "expires": date,
        "explains": list,
    }
    for name, value in raw.items():
        shape = shapes.get(name)
        if shape is None:
            raise UnreadableBaselineError(f"entry {number} has an unknown field: {name}")
        if not isinstance(value, shape) or isinstance(value, datetime):
            kind = {str: "string", date: "date", list: "list"}[shape]
            raise UnreadableBaselineError(f"the {name} of entry {number} is not a {kind}")
    for name in ("check", "reason", "expires"):
        if name not in raw:
            raise UnreadableBaselineError(f"entry {number} has no {name}")
    return BaselineEntry(**{**raw, "explains": tuple(map(str, raw.get("explains", ())))})


def part(findings: Iterable[Finding], entries: Sequence[BaselineEntry], today: date) -> Parted:
    """Divide the findings into those that a valid entry accepts and the remaining ones."""
    valid = [entry for entry in entries if entry.reason.strip() and entry.expires >= today]
    remaining, accepted = [], []
    for finding in findings:
        entry = next((entry for entry in valid if entry.is_about(finding)), None)
        if entry is None:
            remaining.append(finding)
        else:
            accepted.append((finding, entry))
    used = {id(entry) for _, entry in accepted}
    remarks = [
        *(f"{entry} has no reason, so it accepts nothing" for entry in entries if not _why(entry)),
        *(_expired(entry) for entry in entries if _why(entry) and entry.expires < today),
    ]
    unused = tuple(entry for entry in valid if id(entry) not in used)
    return Parted(tuple(remaining), tuple(accepted), tuple(remarks), unused)


def _why(entry: BaselineEntry) -> str:
    return entry.reason.strip()


def _expired(entry: BaselineEntry) -> str:
    return f"{entry} was accepted until {entry.expires} ({clean(entry.reason)})"


def written(parted: Parted, today: date) -> str:
    """Return a baseline that accepts these findings.

    Entries that matched are kept unchanged; for the other findings there are new entries, whose
    reason a person fills in.
    """
    kept = {id(entry): entry for _, entry in parted.accepted}
    made = [_made(finding, today + ACCEPTED_FOR) for finding in parted.remaining]
    return listed((*kept.values(), *made))


def listed(entries: Iterable[BaselineEntry]) -> str:
    """Return a baseline with these entries."""
    return "\n".join([HEAD, *("\n".join(_lines(entry)) for entry in entries)])


def _made(finding: Finding, expires: date) -> BaselineEntry:
    entry = BaselineEntry(
        check=finding.check.name,
        reason="",
        expires=expires,
        server=finding.guest.uuid if finding.guest is not None else None,
        host=finding.host,
        fingerprint=fingerprint(finding),
        explains=tuple(name for name in _explained(finding) if name != finding.check.name),
        says="; ".join(map(str, finding.evidence)),
    )
    if finding.shared is None:
        return entry
    # The guests that share a finding change from day to day, so the fingerprint would not last.
    says = f"{len(finding.shared.guests)} of {finding.shared.among} guests; {entry.says}"
    return replace(entry, fingerprint=None, says=says)


def _lines(entry: BaselineEntry) -> Iterator[str]:
    yield "[[accepted]]"
    for name in ("check", "server", "host", "fingerprint", "says"):
        if value := getattr(entry, name):
            yield f"{name} = {_quoted(value)}"
    if entry.explains:
        yield f"explains = [{', '.join(map(_quoted, entry.explains))}]"
    yield f"reason = {_quoted(entry.reason)}"
    yield f"expires = {entry.expires.isoformat()}"
    yield ""


def _quoted(text: str) -> str:
    # A JSON string is a valid TOML string, except for unprintable characters.
    return json.dumps(clean(text), ensure_ascii=False)


def fingerprint(finding: Finding) -> str:
    """Return a hash of the evidence, without values that change although nothing has happened."""
    evidence = "\n".join(_lasting_values(piece) for piece in finding.evidence)
    return hashlib.sha256(evidence.encode(errors="surrogateescape")).hexdigest()[:16]


def _lasting_values(piece: Evidence) -> str:
    lasting = (
        f"{name}={_lasting(str(value))}"
        for name, value in piece.said
        if not (name in PASSING or _PASSING_NAME.search(name) or isinstance(value, float))
    )
    return f"{piece.layer} {piece.noun}: {', '.join(lasting)}"


def _lasting(value: str) -> str:
    return _PROCESS.sub(r"\1N", _MOMENT.sub("", value))


def _explained(finding: Finding) -> list[str]:
    return sorted({one.check.name for one in finding.everything()} - {finding.check.name})
