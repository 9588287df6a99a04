"""Fold findings under the finding that explains them, and merge those that a host's guests share.

Nothing is lost: a folded finding is still reported, under its root.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from hoodsnap.checks.root_causes import CROWDS, OF_ITS_GUESTS, OF_ITS_LAYERS, OF_ITS_OBJECT, ROOTS
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.uuids import UUID
from hoodsnap.findings.finding import Finding, Shared

OBJECTS = ("PORT", "VOLUME")
"""Names of the objects of a guest of which it may have several: a finding about one explains no
finding about another."""

SHARED_BY, FEWEST = 0.8, 4
"""Fraction and number of a host's guests that must share a finding to make it the host's. Only
guests that the check applies to are counted."""


_Subject = tuple[str, str]
"""The subject of a finding: `("guest", uuid)`, `("host", name)`, `("cloud", "")`, or
`("DISK", path)` for a root that explains only findings about one object (`OF_ITS_OBJECT`)."""

_Kind = tuple[str, str]
"""A host's name and a check's name, which the findings of several guests may share."""


def folded(findings: Sequence[Finding], cloud: Cloud) -> list[Finding]:
    """Return the findings that remain at the top, in the given order, with the rest under them."""
    return _shared(_of_one_file(_rooted(findings, cloud.hosts), cloud), cloud)


FILES = ("PATH", "BASE", "MISSING")
"""Placeholders whose value is the file that a finding is about."""


def _of_one_file(findings: Sequence[Finding], cloud: Cloud) -> list[Finding]:
    """Merge a check's findings about one file that several guests of a host use: a base image."""
    sharing: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in findings:
        key = _file_of(finding)
        if key is not None:
            sharing.setdefault(key, []).append(finding)
    hosts = {host.name: host for host in cloud.hosts}
    remaining: dict[object, Finding] = {}
    for finding in findings:
        key = _file_of(finding)
        those = sharing[key] if key is not None else []
        if key is None or len({id(one.guest) for one in those}) < FEWEST:
            remaining[finding] = finding
        elif key not in remaining:
            among = sum(map(finding.check.applies_to, cloud.guests_of(hosts[key[0]])))
            remaining[key] = _crowd(those, (), among)
    return list(remaining.values())


def _file_of(finding: Finding) -> tuple[str, str, str] | None:
    """Return host, check and file of a guest's finding; None if it is about no file."""
    path = next((finding.names[name] for name in FILES if finding.names.get(name)), None)
    if path is None or finding.guest is None or finding.host is None:
        return None
    return finding.host, finding.check.name, path


def _rooted(findings: Sequence[Finding], hosts: Sequence[Host]) -> list[Finding]:
    found: dict[tuple[str, _Subject], int] = {}
    for number, finding in enumerate(findings):
        if finding.check.name in ROOTS:
            found.setdefault((finding.check.name, _explained_by(finding)), number)
    if not found:
        return list(findings)
    roots_of = _reversed(ROOTS)
    parents = {
        number: parent
        for number, finding in enumerate(findings)
        if (parent := _parent(finding, findings, roots_of, found, hosts)) is not None
    }
    under: dict[int, list[Finding]] = {}
    for number in parents:
        top = number
        while top in parents:  # this ends: ROOTS has no cycles
            top = parents[top]
        under.setdefault(top, []).append(findings[number])
    return [
        replace(finding, folded=tuple(under[number])) if number in under else finding
        for number, finding in enumerate(findings)
        if number not in parents
    ]


def _reversed(roots: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for root, names in roots.items():
        for name in names:
            found.setdefault(name, []).append(root)
    return found


def _parent(
    finding: Finding,
    findings: Sequence[Finding],
    roots_of: Mapping[str, Sequence[str]],
    found: Mapping[tuple[str, _Subject], int],
    hosts: Sequence[Host],
) -> int | None:
    roots = roots_of.get(finding.check.name, ())
    subjects = list(_subjects(finding, hosts)) if roots else ()
    for root in roots:
        for subject in subjects:
            number = found.get((root, subject))
            if number is not None and _may_explain(findings[number], finding):
                return number
    return None


def _may_explain(root: Finding, finding: Finding) -> bool:
    if root.check.name in OF_ITS_GUESTS:
        named = UUID.findall(" ".join(_texts(root)))
        return finding.guest is not None and finding.guest.uuid in named
    if any(_differs(root.names.get(name), finding.names.get(name)) for name in OBJECTS):
        return False
    if root.check.name not in OF_ITS_LAYERS:
        return True
    doubted = {piece.layer for piece in root.evidence}
    return any(piece.layer in doubted for piece in finding.evidence)


def _differs(one: str | None, other: str | None) -> bool:
    return bool(one and other and one != other)


def _explained_by(root: Finding) -> _Subject:
    """Return the subject whose findings a root may explain."""
    if kind := OF_ITS_OBJECT.get(root.check.name):
        return kind, root.names.get(kind, "")
    return _own_subject(root)


def _own_subject(finding: Finding) -> _Subject:
    if finding.guest is not None:
        return "guest", finding.guest.uuid
    return ("host", finding.host) if finding.host is not None else ("cloud", "")


def _subjects(finding: Finding, hosts: Sequence[Host]) -> Iterator[_Subject]:
    """Yield the subjects of a finding, nearest first: its guest, its disk or volume, the guest's
    host, the cloud. For a finding without a guest, include the guests and hosts that its evidence
    names."""
    yield _own_subject(finding)
    for kind in dict.fromkeys(OF_ITS_OBJECT.values()):
        if named := finding.names.get(kind):
            yield kind, named
    if finding.guest is None:
        text = " ".join(_texts(finding))
        for uuid in dict.fromkeys(UUID.findall(text)):
            yield "guest", uuid
        if finding.host is None:
            words = set(text.split())
            for host in hosts:
                if host.name in words or host.nova_name in words:
                    yield "host", host.name
    elif finding.host is not None:
        yield "host", finding.host
    yield "cloud", ""


def _texts(finding: Finding) -> Iterator[str]:
    for piece in finding.evidence:
        for _, value in piece.said:
            yield str(value)
        for where in piece.where:
            yield where.place
            yield where.answer.subject or ""


def _shared(findings: Sequence[Finding], cloud: Cloud) -> list[Finding]:
    """Merge a check's findings for nearly all guests of a host that it applies to into one finding
    of the host.

    It stands at the position of the first of them. A finding shared by so many guests may explain
    other findings of the host (`CROWDS`), which are folded under it.
    """
    sharing: dict[_Kind, list[Finding]] = {}
    for finding in findings:
        if finding.guest is not None and finding.host is not None:
            sharing.setdefault((finding.host, finding.check.name), []).append(finding)
    hosts = {host.name: host for host in cloud.hosts}
    among = {
        kind: sum(map(those[0].check.applies_to, cloud.guests_of(hosts[kind[0]])))
        for kind, those in sharing.items()
        if len(those) >= FEWEST
    }
    crowds = {
        kind: those for kind, those in sharing.items() if _is_crowd(those, among.get(kind, 0))
    }
    if not crowds:
        return list(findings)
    explains = _explained_by_crowds(crowds)
    under: dict[_Kind, list[Finding]] = {}
    for finding in findings:
        kind = _kind(finding)
        if kind in explains:
            under.setdefault(explains[kind], []).append(finding)
    remaining: dict[object, Finding] = {}
    for finding in findings:
        kind = _kind(finding)
        if kind in explains:
            continue
        if finding.guest is None or kind not in crowds:
            remaining[finding] = finding
        elif kind not in remaining:
            remaining[kind] = _crowd(crowds[kind], under.get(kind, ()), among[kind])
    return list(remaining.values())


def _kind(finding: Finding) -> _Kind:
    return finding.host or "", finding.check.name


def _is_crowd(findings: Sequence[Finding], among: int) -> bool:
    guests = {id(finding.guest) for finding in findings}
    return len(guests) >= max(FEWEST, SHARED_BY * among)


def _explained_by_crowds(crowds: Iterable[_Kind]) -> dict[_Kind, _Kind]:
    explains: dict[_Kind, _Kind] = {}
    order = list(CROWDS)
    known = [kind for kind in crowds if kind[1] in CROWDS]
    for host, check in sorted(known, key=lambda kind: order.index(kind[1])):
        if (host, check) in explains:
            continue  # another crowd explains this one
        for name in CROWDS[check][1]:
            explains.setdefault((host, name), (host, check))
    return explains


def _crowd(findings: Sequence[Finding], explained: Iterable[Finding], among: int) -> Finding:
    first = max(findings, key=lambda finding: finding.severity)
    # The first guest is the example, so its finding is the one whose evidence is shown.
    ordered = sorted(findings, key=lambda finding: finding is not first)
    guests = {id(finding.guest): finding.guest for finding in ordered if finding.guest is not None}
    cause = CROWDS.get(first.check.name, (None, ()))[0]
    what = f"for example, {first.headline}" if first.headline else first.title
    return Finding(
        check=first.check,
        severity=first.severity,
        host=first.host,
        guest=None,
        evidence=first.evidence,
        folded=(*findings, *explained),
        shared=Shared(tuple(guests.values()), among, cause, _common_path(findings)),
        headline=f"{len(guests)} of {among} guests on {first.host}: {what}",
        names=first.names,
    )


def _common_path(findings: Sequence[Finding]) -> str | None:
    """Return the file or folder that the advice of all these findings names; None without one."""
    first, *others = [
        [value for value in finding.names.values() if value.startswith("/")] for finding in findings
    ]
    return next((path for path in first if all(path in paths for paths in others)), None)
