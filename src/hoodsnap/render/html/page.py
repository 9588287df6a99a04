"""The page: one file with its style, its script and its data, and nothing from anywhere else.

The overview and the findings are in the page itself, so they can be read without JavaScript. The
script draws one server at a time from data. Text from a bundle is never markup: Jinja2 escapes it,
the script only sets texts, and the page's own policy runs no other script than its own.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hoodsnap
from hoodsnap.evidence import Severity
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.layer import TABLE, Scope
from hoodsnap.findings.analysis import HANDFUL, Report
from hoodsnap.findings.event import common_event
from hoodsnap.findings.finding import Finding
from hoodsnap.findings.grouping import grouped
from hoodsnap.findings.silence import UncollectedLayer
from hoodsnap.printable import clean, cut
from hoodsnap.render.html.article import article
from hoodsnap.render.html.servers import ListedServers
from hoodsnap.render.html.unknown import unknown
from hoodsnap.render.html.verbatim import Verbatim, packed

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).parent

MOST_FINDINGS = 300
"""Findings on one page, worst first. The list of servers shows that they have more."""

NAMED = 12
"""Servers that the verdict names."""


def render(report: Report, guests: Iterable[Guest]) -> str:
    """Return the report on these guests, their hosts and the cloud as an HTML document.

    Raises `ModuleNotFoundError` if Jinja2 is not installed.
    """
    page = _environment().get_template("page.html.jinja")
    chosen = tuple(guests)
    style, script = _file("page.css"), _file("page.js")
    servers, verbatim = ListedServers(report, chosen), Verbatim()
    found = report.about(chosen)
    articles = _articles(found[:MOST_FINDINGS], verbatim)
    for number, one in enumerate(articles):
        one["servers"] = servers.concerned(number)
    entries = [servers.entry(row, verbatim) for row in servers.shown]
    return page.render(
        style=style,
        script=script,
        policy=_policy(style, script),
        data=_data([_listed(one) for one in entries]),
        details=packed(json.dumps([_drawn(one) for one in entries], separators=(",", ":"))),
        answers=verbatim.packed(),
        version=hoodsnap.__version__,
        captured=_captured(report),
        verdict=_verdict(found, servers, chosen),
        findings=articles,
        headlines=_headlines(found[:MOST_FINDINGS]),
        findings_left_out=len(found) - len(articles),
        servers=entries,
        servers_left_out=servers.left_out,
        overview=servers.shown,
        silent=[_silent(one) for one in report.uncollected],
        layers=_layers(report),
        unknown=unknown(report, chosen),
        doubts=[f"{name} ({count} times)" for name, count in report.crowds.items()],
    )


@cache
def _file(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def printable(value: object) -> object:
        """Leave no character in the page that a browser or an editor would obey."""
        return clean(value) if type(value) is str else value

    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=printable,
    )
    environment.filters["ours"] = Markup  # our own style, script and data: never foreign text
    return environment


def _policy(style: str, script: str) -> str:
    """Return the content security policy: nothing but this style and this script."""
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


LISTED = ("name", "uuid", "host", "state", "verdict", "text", "findings")
"""Data that the list of servers needs at once; the rest is unpacked when a server is opened."""


def _listed(entry: Mapping[str, object]) -> Mapping[str, object]:
    return {name: entry[name] for name in LISTED}


def _drawn(entry: Mapping[str, object]) -> Mapping[str, object]:
    return {name: value for name, value in entry.items() if name not in LISTED}


def _data(value: object) -> str:
    """Return JSON that can't end the script element that it stands in."""
    text = json.dumps(value, separators=(",", ":")).replace("\x7f", "\\u007f")
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _articles(findings: Sequence[Finding], verbatim: Verbatim) -> list[dict[str, Any]]:
    told: Counter[str] = Counter()
    found = []
    for finding in findings:
        found.append(article(finding, verbatim, brief=told[finding.check.name] >= HANDFUL))
        told[finding.check.name] += 1
    return found


def _headlines(findings: Sequence[Finding]) -> list[Mapping[str, object]]:
    """Return the numbers of the findings, grouped as in the terminal, with what they share."""
    numbers = {id(finding): number for number, finding in enumerate(findings)}
    return [
        {
            "numbers": [numbers[id(finding)] for finding in group.findings],
            "event": clean(common_event(group.guests) or "") if group.is_many else "",
        }
        for group in grouped(findings)
    ]


def _captured(report: Report) -> Mapping[str, str]:
    bundle = report.cloud.bundle
    hosts = [cut(clean(host.name), 80) for host in report.cloud.hosts]
    count = f"{len(hosts)} hosts" if len(hosts) > 3 else ", ".join(hosts)
    return {
        "hosts": count or "no host",
        "started": f"{bundle.started:%Y-%m-%d %H:%M:%S} UTC",
        "answers": f"{len(bundle.answers):,} answers",
        "tool": clean(bundle.tool)[:100],
    }


def _verdict(
    found: Sequence[Finding], servers: ListedServers, guests: Sequence[Guest]
) -> Mapping[str, object]:
    counts = Counter(finding.severity for finding in found)
    said = ", ".join(
        f"{counts[severity]} {severity.word}{'' if counts[severity] == 1 else 's'}"
        for severity in reversed(Severity)
        if counts[severity]
    )
    troubled = [at for at, row in enumerate(servers.shown) if servers.numbers(row)]
    names = [(at, cut(servers.shown[at].name, 80)) for at in troubled[:NAMED]]
    worst = max((finding.worst for finding in found), default=None)
    calm = "undecided" if servers.report.uncollected or not guests else "agrees"
    return {
        "severity": worst.word if worst is not None else calm,
        "said": said,
        "servers": f"{len(guests)} server{'' if len(guests) == 1 else 's'}",
        "troubled": len(troubled),
        "names": names,
        "more": len(troubled) - len(names),
    }


def _silent(one: UncollectedLayer) -> Mapping[str, str]:
    return {"title": one.title, "host": cut(clean(one.host or ""), 80), "reason": clean(one.brief)}


def _layers(report: Report) -> list[Mapping[str, object]]:
    """Return for each layer of the cloud, and of each host, how many questions it answered."""
    rows: list[Mapping[str, object]] = []
    for layer in TABLE:
        hosts: Iterable[str | None]
        hosts = [None] if layer.scope is Scope.CLOUD else [h.name for h in report.cloud.hosts]
        for host in hosts:
            answers = report.cloud.bundle.by_layer.get(layer.id, ())
            asked = [one for one in answers if host in (None, one.host)]
            heard = sum(one.error is None for one in asked)
            errors = [one.error.message for one in asked if one.error is not None]
            state = "answered" if heard else "refused" if asked else "not asked"
            rows.append(
                {
                    "layer": layer.title,
                    "host": cut(clean(host or ""), 80),
                    "state": state,
                    "count": f"{heard:,} of {len(asked):,}" if asked else "",
                    "reason": clean(errors[0])[:200] if state == "refused" else "",
                }
            )
    return rows
