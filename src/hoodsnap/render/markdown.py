"""The report for a bug tracker: versions, the chosen guests, findings with their evidence.

All text from a bundle is inside fenced blocks, where nothing is markup, a mention or a link.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import hoodsnap
from hoodsnap.bundle import Bundle
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.findings.analysis import Report
from hoodsnap.printable import clean
from hoodsnap.render import text
from hoodsnap.trust.fingerprint import verify

LIMIT = 65_536
"""Characters that GitHub accepts; Launchpad and Storyboard accept at least as many."""

WIDTH = 100

_VERSIONS = re.compile(r"(nova-compute|libvirtd|qemu-\S+|ovs-vsctl) --version")
_NAME = re.compile(r'PRETTY_NAME="?([^"\n]*)')


def render(report: Report, guests: Iterable[Guest], *, verbose: bool = False) -> str:
    """Return the report as a document of at most `LIMIT` characters."""
    shown = tuple(guests)
    bundle = report.cloud.bundle
    lines = [line.plain for line in text.render(report, shown, width=WIDTH, verbose=verbose)]
    head = f"### hoodsnap {hoodsnap.__version__}\n\n{_fenced(_captured(bundle))}\n### Report\n\n"
    document = head + _fenced(lines)
    if len(document) <= LIMIT:
        return document
    # The report is sorted by importance, except for the verdict in the last line.
    room = LIMIT - len(head) - 300 - len(lines[-1])
    kept: list[str] = []
    for line in lines[:-1]:
        room -= len(line) + 1
        if room < 0:
            break
        kept.append(line)
    left = len(lines) - 1 - len(kept)
    kept += [
        "",
        f"… {left} lines left out: too long for a bug tracker (--server shortens the report)",
        lines[-1],
    ]
    return head + _fenced(kept)


def _captured(bundle: Bundle) -> Iterator[str]:
    yield f"collected by {clean(bundle.tool)[:100]}, {bundle.started:%Y-%m-%d %H:%M:%S} UTC"
    seal = verify(bundle)
    state = "unchanged" if seal.intact else "changed since collection, or never sealed"
    yield f"bundle {seal.fingerprint} ({state})"
    said: dict[str, None] = {}
    for answer in bundle.by_layer.get("host", ()):
        if not isinstance(answer.value, str):
            continue
        if asked := _VERSIONS.fullmatch(answer.query):
            first = answer.value.partition("\n")[0]
            said[clean(f"{asked[1]}: {first}")[:200]] = None
        elif answer.query == "cat /etc/os-release" and (name := _NAME.search(answer.value)):
            said[clean(f"system: {name[1]}")[:200]] = None
    yield from list(said)[:40]


def _fenced(lines: Iterable[str]) -> str:
    """Put lines into a fenced block that none of them can close."""
    body = re.sub("`{8,}", "`…`", "\n".join(lines))
    longest = max(map(len, re.findall("`+", body)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{body}\n{fence}\n"
