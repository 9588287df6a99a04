"""The overview: a row for each guest, with what its layers report and what the checks found.

The rows are data; text, HTML and lists render them. Texts in them are printable, and not shortened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from hoodsnap.evidence import Severity
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.network_disks import network_name
from hoodsnap.facts.fact import NOT_READ, UnheardError, caught, known
from hoodsnap.facts.layer import LAYERS, NOVA, NOVA_DB
from hoodsnap.findings.analysis import Report
from hoodsnap.findings.finding import Finding, Skip
from hoodsnap.printable import clean, cut

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "nova": ("nova", "nova-db"),
    "libvirt": ("libvirt",),
    "process": ("kernel",),
    "disk": ("images", "block", "cinder"),
    "network": ("neutron", "network"),
}
"""Name of a column → ids of the layers that it shows."""

TOPICS: Mapping[str, str] = {
    **dict.fromkeys(
        ("corruption", "chain", "definition", "image", "files", "volumes", "attachments"), "disk"
    ),
    **dict.fromkeys(("ports", "taps"), "network"),
    "error": "nova",
}
"""Topic of a check → the column that its findings are about, whatever layers they compare."""

LONGEST = 255
"""Characters of a name at most, as in nova; a bundle may contain longer ones."""

JUDGED = ("disk", "network")
"""Columns that show a judgment (`ok`, `bad`) instead of a value."""


class Standing(IntEnum):
    """The result for one guest; a lower number is worse."""

    ERROR = 1
    WARNING = 2
    UNDECIDED = 3
    """Not enough was collected, or it changed meanwhile: it is not known to agree."""
    NOTE = 4
    EXPECTED = 5
    """The layers differ, as they should at the moment."""
    AGREES = 6

    @property
    def mark(self) -> str:
        """One character for it: `✗ ! ? · · ✓`."""
        return " ✗!?··✓"[self]

    @property
    def is_trouble(self) -> bool:
        """True if the guest is not known to be as it should."""
        return self <= Standing.UNDECIDED


@dataclass(frozen=True, slots=True)
class OverviewCell:
    """Report of the layers of one column about a guest."""

    text: str
    """A value, `ok`, `bad` or `missing`; `–` if the object does not exist, `?` if it is unknown."""
    bad: bool = False
    """True if a finding about the guest concerns this column."""


@dataclass(frozen=True, slots=True)
class OverviewRow:
    """One guest in the overview."""

    guest: Guest
    standing: Standing
    cells: Mapping[str, OverviewCell]
    """Name of a column (`COLUMNS`) → its cell."""
    verdict: str
    """The worst finding's check and the number of the others, or a few words; "" if it agrees."""
    findings: tuple[Finding, ...] = ()
    """All findings about the guest, worst first, also those that are folded under others."""

    @property
    def name(self) -> str:
        """The guest's name, printable; its UUID if it has no name."""
        return name_of(self.guest)

    @property
    def host(self) -> str:
        """Name of the host that it is on, printable; "" if it is on none."""
        guest = self.guest
        return clean(guest.host.name if guest.host is not None else guest.believed or "")


def name_of(guest: Guest) -> str:
    """Return a guest's name, printable and of at most `LONGEST` characters."""
    return cut(clean(guest.title), LONGEST)


def rows(report: Report, guests: Iterable[Guest]) -> tuple[OverviewRow, ...]:
    """Return a row for each of these guests, the worst first, otherwise in the given order."""
    found: dict[int, list[Finding]] = {}
    roots: dict[int, Finding] = {}
    for root in report.findings:
        for finding in root.everything():
            roots[id(finding)] = root
            if finding.guest is not None:
                found.setdefault(id(finding.guest), []).append(finding)
    skips: dict[int, list[Skip]] = {}
    for skip in report.skips:
        if skip.guest is not None and (skip.differs or NOT_READ in skip.reason):
            skips.setdefault(id(skip.guest), []).append(skip)
    made = []
    for guest in guests:
        findings = sorted(found.get(id(guest), ()), key=lambda finding: -finding.severity)
        standing, verdict = _judged(guest, findings, roots, skips.get(id(guest), ()))
        cells = {name: _cell(name, guest, findings) for name in COLUMNS}
        made.append(OverviewRow(guest, standing, cells, verdict, tuple(findings)))
    return tuple(sorted(made, key=lambda row: row.standing))


def _judged(
    guest: Guest,
    findings: Sequence[Finding],
    roots: Mapping[int, Finding],
    skips: Sequence[Skip],
) -> tuple[Standing, str]:
    names = list(dict.fromkeys(roots[id(finding)].check.name for finding in findings))
    if names:
        worst = max(finding.severity for finding in findings)
        more = f" +{len(names) - 1}" if len(names) > 1 else ""
        return _STANDING[worst], f"{names[0]}{more}"
    if guest.moving:
        return Standing.UNDECIDED, clean(f"changed during collection ({guest.moving})")
    try:
        return _without_findings(guest, skips)
    except Exception as error:  # a net: one unreadable guest must not cost the others their rows
        return Standing.UNDECIDED, str(caught(error))


_STANDING = {
    Severity.ERROR: Standing.ERROR,
    Severity.WARNING: Standing.WARNING,
    Severity.NOTE: Standing.NOTE,
}


def _without_findings(guest: Guest, skips: Sequence[Skip]) -> tuple[Standing, str]:
    if any(NOT_READ in skip.reason for skip in skips):
        return Standing.UNDECIDED, "not all of it could be read"
    nova_silent = NOVA.id in guest.unheard and NOVA_DB.id in guest.unheard
    if nova_silent and guest.record is None:
        return Standing.UNDECIDED, "nova was not collected"
    if len(LAYERS.keys() - guest.unheard.keys()) < 2:
        return Standing.UNDECIDED, "only one layer was collected"
    if guest.record is None and guest.domain is None:
        return Standing.EXPECTED, "not managed by nova, or a leftover"
    elsewhere = "" if guest.carries_record else guest.believed
    if elsewhere and guest.domain is not None and not _runs(guest):
        is_moved = known(lambda: _left(guest))
        how = f"moved to {elsewhere}" if is_moved else f"on host {elsewhere} in nova"
        return Standing.EXPECTED, clean(f"{how}; switched off here")
    if legal := next((skip.reason for skip in skips if skip.differs and skip.legal), ""):
        return Standing.EXPECTED, clean(legal)
    if any(skip.differs for skip in skips):
        return Standing.UNDECIDED, "collected too far apart"
    if failed := _failed_build(guest):
        return Standing.AGREES, failed
    if elsewhere:
        return Standing.UNDECIDED, clean(f"nova reports it on host {elsewhere}, not here")
    return Standing.AGREES, ""


def _left(guest: Guest) -> bool:
    """True if nova moved the guest away from its host; if the host was renamed, nothing moved."""
    if guest.instance is None or guest.host is None:
        return False
    moves = guest.instance.migrations or ()
    return any(moved.source_compute == guest.host.nova_name for moved in moves)


def _failed_build(guest: Guest) -> str:
    """Return why a server in error never had a guest; "" for any other server."""
    record = guest.record
    if record is None or record.vm_state != "error" or record.launched_at:
        return ""
    why = known(lambda: record.fault_message) or "nova gives no reason"
    return clean(f"its build failed: {cut(why.strip().rstrip('.'), LONGEST)}")


def _runs(guest: Guest) -> bool:
    """True if the guest runs on its host, or may run there."""
    try:
        return guest.runs
    except UnheardError:
        return True


def _cell(name: str, guest: Guest, findings: Iterable[Finding]) -> OverviewCell:
    bad = any(_concerns(finding, name) for finding in findings)
    try:
        text = clean(_TEXTS[name](guest))
    except Exception as error:  # a net around each cell: its value is unknown
        caught(error)
        text = "?"
    if text == "ok" and bad:
        text = "bad"
    return OverviewCell(text, bad)


def _concerns(finding: Finding, column: str) -> bool:
    if finding.severity <= Severity.NOTE:
        return False
    topic = TOPICS.get(finding.check.topic)
    if column in JUDGED and topic is not None:
        return column == topic
    return any(piece.layer in COLUMNS[column] for piece in finding.evidence)


def _nova(guest: Guest) -> str:
    record = guest.record
    if record is None:
        return _missing(guest, "nova", "nova-db")
    state = guest.server.status if guest.server is not None else record.vm_state.upper()
    task = known(lambda: record.task_state)
    return f"{state} ({task})" if task else state


def _libvirt(guest: Guest) -> str:
    if guest.domain is None:
        return _missing(guest, "libvirt")
    words = guest.domain.state_words
    return "running" if words.startswith("running ") else words.removesuffix(" (unknown)")


def _process(guest: Guest) -> str:
    if guest.process is None:
        return _missing(guest, "kernel")
    others = len(guest.processes) - 1
    return f"{guest.process.pid} +{others}" if others else str(guest.process.pid)


def _disk(guest: Guest) -> str:
    if any(image.backing_missing for image in guest.images or ()):
        return "missing"
    if guest.images or guest.volumes or guest.devices:
        return "ok"
    if guest.domain is not None and any(map(network_name, guest.domain.current.disks)):
        return "?"  # nobody asked the storage about it
    return _missing(guest, "images")


def _network(guest: Guest) -> str:
    return "ok" if guest.ports or guest.taps else _missing(guest, "neutron")


def _missing(guest: Guest, *layers: str) -> str:
    if guest.is_nowhere:
        return "–"  # no host has anything of a server that nova has not put on a host
    return "?" if all(layer in guest.unheard for layer in layers) else "–"


_TEXTS: Mapping[str, Callable[[Guest], str]] = {
    "nova": _nova,
    "libvirt": _libvirt,
    "process": _process,
    "disk": _disk,
    "network": _network,
}
