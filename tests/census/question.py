"""The kind of a question: the same text for each server, process and look that it is asked about."""

from __future__ import annotations

import re

from hoodsnap.bundle import Answer

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

LONGEST = 70
"""Characters of a kind. The rest of a longer question repeats what its beginning tells."""

OF_THE_BUNDLE = "hoodsnap"
"""The layer whose answers describe the bundle itself."""

SCHEMA = re.compile(r"SHOW |SELECT [\w, ]+ FROM information_schema\.")
"""Questions about the columns that a table has, which decide what is asked next. nova's release
decides their answers, and they are recorded so that `hoodsnap replay` can answer them."""

_REPLACED = (
    (re.compile(r" \[[0-9.]+\]$"), ""),  # the microversion
    (UUID, "UUID"),
    (re.compile(r"[0-9a-f]{40}"), "SHA"),
    (re.compile(r"instance-[0-9a-f]{8}"), "NAME"),
    (re.compile(r"qemu-\d+-NAME"), "qemu-N-NAME"),
    (re.compile(r"^(GET [^?]*)\?.*", re.S), r"\1"),
    (re.compile(r"^SELECT .*? FROM `?([\w.]+)`?.*", re.S), r"SELECT \1"),
    (re.compile(r"/proc/\d+"), "/proc/PID"),
    (re.compile(r"(in_port|reg5)=\d+"), r"\1=N"),
    (re.compile(r"mnt/[0-9a-f]{32}"), "mnt/HASH"),
)


def kind(query: str) -> str:
    """Return the kind of a question: `GET /v2.0/ports/UUID/bindings`, `SELECT nova.instances`."""
    for pattern, general in _REPLACED:
        query = pattern.sub(general, query)
    return query[:LONGEST]


def is_counted(answer: Answer) -> bool:
    """True if the answer holds leaves that the census counts."""
    if answer.error is not None or answer.value is None or answer.layer == OF_THE_BUNDLE:
        return False
    return SCHEMA.match(answer.query) is None
