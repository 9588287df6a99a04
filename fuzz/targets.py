"""Targets of the campaign: the work of each command on a bundle, in this process.

A target raises an exception if something is wrong: any undocumented exception, or `ShownError` if an
output contains a character that a terminal would obey.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import tempfile
import tomllib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from hoodsnap import recorded
from hoodsnap.bundle import Bundle, dump, load, parse
from hoodsnap.checks import CATALOG
from hoodsnap.diff.difference import NothingInCommonError, difference
from hoodsnap.evidence import Severity
from hoodsnap.facts.cloud.cloud import read
from hoodsnap.findings.analysis import Report, analyze
from hoodsnap.findings.baseline import part, written
from hoodsnap.findings.grouping import grouped
from hoodsnap.grading import classroom, csv, junit
from hoodsnap.grading import json as grades_as_json
from hoodsnap.grading import text as grades_as_text
from hoodsnap.grading.sheet import load as load_sheet
from hoodsnap.grading.submissions import Submission
from hoodsnap.redaction.pseudonyms import Pseudonyms
from hoodsnap.redaction.redactor import Redactor
from hoodsnap.render import diff as as_difference
from hoodsnap.render import json as as_json
from hoodsnap.render import junit as findings_as_junit
from hoodsnap.render import markdown, nagios, ndjson, prometheus, sarif, table, trust
from hoodsnap.render import text as as_text
from hoodsnap.render import timeline as as_timeline
from hoodsnap.render.finding import row
from hoodsnap.render.html import page
from hoodsnap.render.line import Line
from hoodsnap.replay import procfs, shell
from hoodsnap.replay.apis.openstack import ApiError, OpenStack
from hoodsnap.replay.images import Images
from hoodsnap.replay.libvirtd import xdr
from hoodsnap.replay.libvirtd.libvirtd import Libvirtd
from hoodsnap.replay.libvirtd.procedure import PROCEDURES
from hoodsnap.replay.monitor import MonitorSocket, reply
from hoodsnap.replay.mysqld.database import QueryResult, ReplayedDatabase
from hoodsnap.replay.mysqld.mysqld_error import MySQLError
from hoodsnap.replay.recording import UNREADABLE, NotRecordedError, Recording, hosts
from hoodsnap.tables.path import query
from hoodsnap.tables.table import TABLES, silent
from hoodsnap.timeline import timeline as timelines
from hoodsnap.trust import examination
from hoodsnap.trust.fingerprint import fingerprint, fingerprinted

Target = Callable[[Bundle], None]

STATEMENTS = (
    "select * from instances",
    "select uuid, host, created_at, 1 + 1 from instances where deleted = 0 order by id",
    "select count(*) from nova_api.instance_mappings m join nova_api.cell_mappings c on m.cell_id = c.id",
    "show databases",
    "show tables",
    "show full tables from nova_api",
    "describe instances",
    "show create table instances",
    "show variables like 'version%'",
    "select now(), version(), @@version",
    "SELECT VERSION()",
)

REQUESTS = (
    "/v3",
    "/v3/auth/tokens",
    "/compute/v2.1",
    "/compute/v2.1/servers/detail?all_tenants=True",
    "/compute/v2.1/servers/detail?name=vm",
    "/compute/v2.1/os-hypervisors/detail",
    "/image/v2/images",
    "/network/v2.0/ports?fields=id&device_id=x",
    "/volume/v3/volumes/detail?all_tenants=True",
    "/placement/resource_providers",
)

_SHEETS = [load_sheet(name) for name in ("compute", "volumes", "networking")]


class ShownError(Exception):
    """An output contains a character that a terminal obeys. The text names it and its place."""


def explain(bundle: Bundle) -> None:
    """Analyze a bundle and render the report in every format."""
    report = analyze(bundle)
    guests = report.cloud.guests
    _json(as_json.render(report, guests))
    for verbose in (False, True):
        _lines(as_text.render(report, guests, verbose=verbose))
    _lines(as_text.findings(report, guests))
    _lines(map(row, grouped(report.findings)))
    _text(markdown.render(report, guests))
    today = datetime.now(UTC).date()
    tomllib.loads(written(part(report.findings, (), today), today))


def page_(bundle: Bundle) -> None:
    """Write the page for a browser."""
    report = analyze(bundle)
    _text(page.render(report, report.cloud.guests))


def machines(bundle: Bundle) -> None:
    """Write the findings in every format for programs, and read them again."""
    from prometheus_client.parser import text_string_to_metric_families

    report = analyze(bundle)
    guests = report.cloud.guests
    unheard = [one.title for one in report.uncollected]
    _json(sarif.render(report, guests, CATALOG, ["b.json"], unheard))
    said, _ = nagios.render(report, guests, Severity.NOTE, unheard)
    _text(said)
    if said.count("|") != 1 or len(said.encode()) > nagios.LONGEST:
        raise ShownError(f"a monitor can't read {said[:80]!a}")
    document = findings_as_junit.render(report, guests, Severity.NOTE)
    _text(document.replace("\t", ""))
    ElementTree.fromstring(document)  # noqa: S314 (our own output, which has no entities)
    metrics = prometheus.render(report, guests)
    _text(metrics)
    list(text_string_to_metric_families(metrics))
    for line in ndjson.render(report, guests):
        _text(line.removesuffix("\n"), newlines=False)
        json.loads(line)


def timeline(bundle: Bundle) -> None:
    """Print the timeline at two widths and as JSON."""
    found = timelines.read(read(bundle))
    for verbose, width in ((False, 80), (True, None)):
        _lines(as_timeline.render(found, width=width, verbose=verbose))
    _json(as_timeline.as_json(found))


def diff(bundle: Bundle) -> None:
    """Compare a bundle with the recording, in both directions."""
    odd, usual = analyze(bundle), _recorded()
    for before, after in ((usual, odd), (odd, usual)):
        try:
            found = difference(before, after)
        except NothingInCommonError:
            continue
        for width in (80, None):
            _lines(as_difference.render(found, width=width))
        _json(as_difference.as_json(found))


def tables(bundle: Bundle) -> None:
    """Print every table in every format, and ask for it in JMESPath."""
    report = analyze(bundle)
    for one in TABLES.values():
        rows = [*one.rows(report)]
        names = [column.name for column in one.columns]
        values = [[row[name] for name in names] for row in rows]
        for line in table.as_table(names, values):
            _text(line, newlines=False)
        _text(table.as_csv(names, values))
        _json(table.as_json(names, values))
        silent(one, report)
        query(f"{one.name}[0]", report)


@cache
def _recorded() -> Report:
    return analyze(load(Path(recorded.DEMO)))


def verify(bundle: Bundle) -> None:
    """Verify a bundle's fingerprint, challenge and plausibility."""
    wanted = examination.ExpectedProof(challenge="winter-7", within=60, plausible=True)
    found = examination.examine(bundle, "x", wanted, datetime.now(UTC))
    for line in trust.lines([found]):
        _text(line, newlines=False)
    _json(trust.as_json([found]))


def redact(bundle: Bundle) -> None:
    """Redact a bundle and read the result."""
    redactor = Redactor(Pseudonyms(b"0" * 32), [bundle])
    redacted = fingerprinted(redactor.bundle(bundle), fingerprint(bundle))
    for line in redactor.summary():
        _text(line, newlines=False)
    parse(dump(redacted))


def grade(bundle: Bundle) -> None:
    """Grade a bundle with one of the sheets and write the grades in every format."""
    data = dump(bundle)
    sheet = _SHEETS[len(data) % len(_SHEETS)]
    found, _ = classroom.grade_submission(sheet, Submission("mallory", (("b.json", data),)))
    for hidden in (False, True):
        _lines(grades_as_text.render(sheet, found, width=80, hidden=hidden))
    both = [found, found]
    copied = tuple(classroom.copies(both))
    _lines(grades_as_text.overview(both, copied, width=80))
    _text(csv.render(sheet, both, copied))
    _text(junit.render(sheet, both, hidden=True))
    _json(grades_as_json.render(sheet, both, copied, hidden=True))


def replay(bundle: Bundle) -> None:
    """Ask every stand-in what clients ask. Any exception other than a refusal is a find."""
    there = hosts(bundle)
    if not there:
        return
    recording = Recording(bundle, there[0])
    _libvirt(recording)
    _database(recording)
    _apis(recording)
    for uuid in sorted({a.subject for a in recording.asked("qemu", "") if a.subject})[:1]:
        for question in ('{"execute": "query-status"}', "[]", "\0"):
            json.loads(reply(recording, uuid, question))
        with contextlib.suppress(NotRecordedError, *UNREADABLE):  # the connection ends
            MonitorSocket(recording, uuid).greeting()


def files(bundle: Bundle) -> None:
    """Create the recorded /proc and images. Nothing may be created outside of their folders."""
    there = hosts(bundle)
    if not there:
        return
    recording = Recording(bundle, there[0])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "in").mkdir()
        Images(recording, root / "in/images").make()
        procfs.make(recording, root / "in/proc")
        if os.listdir(root) != ["in"] or not {*os.listdir(root / "in")} <= {"images", "proc"}:
            raise ShownError("a file was made outside")
    for line in [*shell.coverage(recording), *shell.lacking(recording)]:
        _text(line, newlines=False)


def _libvirt(recording: Recording) -> None:
    daemon = Libvirtd(recording)
    payloads = [b"", xdr.int_(1) + xdr.uint(0)]
    with contextlib.suppress(NotRecordedError, *UNREADABLE):
        listed: Any = recording.value("libvirt", "virsh list --all")
        for line in listed[:2]:
            head = xdr.string(line["name"]) + bytes.fromhex(line["uuid"].replace("-", ""))
            payloads += [head + struct.pack(">iI", 1, 0) + xdr.uint(0) * 4, head + xdr.uint(0)]
    for payload in payloads:
        for program, number in PROCEDURES:
            answer = daemon.reply(struct.pack(">IIiIII", program, 1, number, 0, 1, 0) + payload)
            if answer[27]:
                text = xdr.Reader(answer[36:]).optional_string()
                _text(text or "", newlines=False)


def _database(recording: Recording) -> None:
    try:
        database = ReplayedDatabase(recording)
    except (NotRecordedError, *UNREADABLE):
        return  # every client gets this refusal
    for statement in STATEMENTS:
        # An unreadable value ends one client's connection.
        with contextlib.suppress(MySQLError, NotRecordedError, *UNREADABLE):
            found = database.ask(statement, "nova")
            for one in found.rows if isinstance(found, QueryResult) else ():
                list(one)


def _apis(recording: Recording) -> None:
    cloud = OpenStack(recording, "http://127.0.0.1:5000")
    for target in REQUESTS:
        with contextlib.suppress(ApiError, *UNREADABLE):  # the server refuses unreadable values
            _, body, version = cloud.answer("GET", target, {})
            json.dumps(body)
            _text(version, newlines=False)


TARGETS: dict[str, Target] = {
    "explain": explain,
    "page": page_,
    "machines": machines,
    "timeline": timeline,
    "diff": diff,
    "tables": tables,
    "verify": verify,
    "redact": redact,
    "grade": grade,
    "replay": replay,
    "files": files,
}


def _lines(lines: Iterable[Line]) -> None:
    for line in lines:
        _text(line.plain, newlines=False)


def _json(document: str) -> None:
    _text(document)
    json.loads(document)


def _text(text: str, *, newlines: bool = True) -> None:
    if newlines:
        text = (
            text.replace("\n", "").replace("\r", "") if "\r\n" in text else text.replace("\n", "")
        )
    if not text.isprintable():
        odd = next(char for char in text if not char.isprintable())
        raise ShownError(f"{odd!a} in {text[:80]!a}")
