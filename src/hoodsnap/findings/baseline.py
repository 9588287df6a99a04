"""Findings that somebody accepted until a date, each with a reason: a TOML file for people to read.

An entry accepts the findings of one check, of one server or host, as long as the layers say the
same: `fingerprint` stands for what they said, without process ids and times. What an entry leaves
out may be anything, except its reason and its last day.
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
from hoodsnap.render.line import clean

ACCEPTED_FOR = timedelta(days=90)
"""How long what is written is accepted; then somebody has to look again."""

HEAD = """\
# What `hoodsnap check --baseline` keeps quiet about: each entry needs a reason, and ends on a day.
# server, host and fingerprint may be left out: then they may be anything. says is for the reader.
"""

PASSING = frozenset(["pid", "pids", "id", "time", "at", "age", "since", "boot_id", "uptime"])
"""Names of what is another at each look although nothing has changed."""

_PASSING_NAME = re.compile(r"(?:_at|_time|_seconds|_age|_date)$")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?")
_PROCESS = re.compile(r"(/proc/|\bpid )\d+")


class UnreadableBaselineError(Exception):
    """A baseline is no TOML, or has an entry that says not what it accepts."""


@dataclass(frozen=True, slots=True)
class BaselineEntry:
    """What is accepted; None where anything is."""

    check: str
    reason: str
    expires: date
    server: str | None = None
    host: str | None = None
    fingerprint: str | None = None
    explains: tuple[str, ...] = ()
    """The checks whose findings may be folded under it."""
    says: str = ""

    def __str__(self) -> str:
        place = [
            f"{word} {said}" for word, said in (("of", self.server), ("on", self.host)) if said
        ]
        return " ".join([self.check, *place])

    def is_about(self, finding: Finding) -> bool:
        """Whether it accepts this finding, if it is still valid."""
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
    """Findings, and what a baseline makes of them."""

    remaining: tuple[Finding, ...]
    accepted: tuple[tuple[Finding, BaselineEntry], ...]
    remarks: tuple[str, ...]
    """What is wrong with the baseline: entries that have expired, that match nothing."""


def read(path: Path) -> tuple[BaselineEntry, ...]:
    """The entries of a file. Raises `UnreadableBaselineError` and `OSError`."""
    try:
        raw = tomllib.loads(path.read_text())
    except UnicodeDecodeError:
        raise UnreadableBaselineError("it is no text") from None
    except tomllib.TOMLDecodeError as error:
        raise UnreadableBaselineError(f"it is no TOML: {error}") from None
    entries = raw.get("accepted", [])
    if raw.keys() - {"accepted"} or not isinstance(entries, list):
        raise UnreadableBaselineError("it has something else than [[accepted]] entries")
    return tuple(_entry(number, entry) for number, entry in enumerate(entries, 1))


def _entry(number: int, raw: object) -> BaselineEntry:
    if not isinstance(raw, dict):
        raise UnreadableBaselineError(f"entry {number} is no table")
    shapes: Mapping[str, type] = {
        **dict.fromkeys(("check", "reason", "server", "host", "fingerprint", "says"), str),
        "expires": date,
        "explains": list,
    }
    for name, value in raw.items():
        shape = shapes.get(name)
        if shape is None:
            raise UnreadableBaselineError(f"entry {number} has a {name}, which means nothing")
        if not isinstance(value, shape) or isinstance(value, datetime):
            raise UnreadableBaselineError(f"the {name} of entry {number} is no {shape.__name__}")
    for name in ("check", "reason", "expires"):
        if name not in raw:
            raise UnreadableBaselineError(f"entry {number} has no {name}")
    return BaselineEntry(**{**raw, "explains": tuple(map(str, raw.get("explains", ())))})


def part(findings: Iterable[Finding], entries: Sequence[BaselineEntry], today: date) -> Parted:
    """Part the findings that are accepted from the others."""
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
        *(f"{entry} matches no finding of this bundle" for entry in valid if id(entry) not in used),
    ]
    return Parted(tuple(remaining), tuple(accepted), tuple(remarks))


def _why(entry: BaselineEntry) -> str:
    return entry.reason.strip()


def _expired(entry: BaselineEntry) -> str:
    return f"{entry} was accepted until {entry.expires} ({clean(entry.reason)})"


def written(parted: Parted, today: date) -> str:
    """A baseline of these findings: the entries that matched as they were, the others to be filled
    in."""
    kept = {id(entry): entry for _, entry in parted.accepted}
    made = [_made(finding, today + ACCEPTED_FOR) for finding in parted.remaining]
    return "\n".join([HEAD, *("\n".join(_lines(entry)) for entry in (*kept.values(), *made))])


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
    # Which guests share it changes from day to day.
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


def _quoted(said: str) -> str:
    # A JSON string is a TOML string, except for what can't be printed.
    return json.dumps(clean(said), ensure_ascii=False)


def fingerprint(finding: Finding) -> str:
    """What the layers said, as far as it stays the same as long as nothing changes."""
    told = "\n".join(_told(piece) for piece in finding.evidence)
    return hashlib.sha256(told.encode(errors="surrogateescape")).hexdigest()[:16]


def _told(piece: Evidence) -> str:
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
