"""The row of boxes of one server: its layers in order, and the links between them that broke."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from hoodsnap.bundle import Answer
from hoodsnap.evidence import Evidence
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.volume_owners import volume_of
from hoodsnap.facts.domain.disk import Disk
from hoodsnap.facts.fact import Fact, caught
from hoodsnap.facts.host.image import Image
from hoodsnap.facts.layer import LAYER_OF
from hoodsnap.facts.uuids import UUID
from hoodsnap.findings.finding import Finding
from hoodsnap.printable import clean, cut
from hoodsnap.render.html.verbatim import title
from hoodsnap.render.walk import Step, size, steps

ORDER = (
    *("server", "instance", "domain", "process", "cgroup", "monitor"),
    *("image", "device", "volume", "port", "tap", "allocation", "log"),
)
"""The boxes from left to right: down from nova to QEMU, then the disks, then the network."""

LONGEST = 48
"""Characters of a value in a box; the whole value is in the finding."""


@dataclass(slots=True)
class Box:
    """One layer's report about a server."""

    noun: str
    layer: str
    """The layer's title."""
    state: str
    """`there`, `absent` or `unheard`."""
    value: str
    """The one value that tells most: a status, a PID, a size."""
    lines: list[str]
    """The lines of the walk."""
    answers: list[Answer]
    wrong: list[str] = field(default_factory=list)
    """Values that findings quote: `vm_state = active`."""
    severity: int = 0
    """The worst severity of these findings; 0 without one."""


@dataclass(frozen=True, slots=True)
class Break:
    """Two boxes that contradict each other."""

    left: int
    right: int
    left_values: list[str]
    right_values: list[str]
    finding: Finding


def boxes_of(cloud: Cloud, guest: Guest) -> list[Box]:
    """Return the boxes of a server, without those of layers that have no line in its walk."""
    found: dict[str, Box] = {}
    for step in steps(cloud, guest):
        noun = step.noun.removesuffix("s") if step.noun == "images" else step.noun
        if noun in found:
            _join(found[noun], step)
        elif noun in ORDER:
            layer = (LAYER_OF.get(noun) or LAYER_OF[f"{noun}s"]).title
            said = _answers(guest, noun, step.layer)
            value = _value(guest, noun, step)
            found[noun] = Box(noun, layer, step.state, value, [clean(step.text)], said)
    return [found[noun] for noun in ORDER if noun in found]


def _join(box: Box, step: Step) -> None:
    box.lines.append(clean(step.text))
    if step.state == "there" and box.state != "there":
        box.state = "there"


def _value(guest: Guest, noun: str, step: Step) -> str:
    if step.state == "unheard":
        return "not collected"
    if step.state == "there":
        try:
            if value := _VALUES[noun](guest):
                return cut(clean(value), LONGEST)
        except Exception as error:  # a net: then the line of the walk says more
            caught(error)
    return cut(clean(step.text), LONGEST)


_VALUES: Mapping[str, Callable[[Any], str | None]] = {
    "server": lambda guest: guest.server.status,
    "instance": lambda guest: guest.instance.vm_state,
    "allocation": lambda guest: guest.allocation.words.partition(",")[0],
    "domain": lambda guest: guest.domain.state_words,
    "process": lambda guest: f"pid {guest.process.pid}",
    "cgroup": lambda guest: guest.cgroup.machine,
    "monitor": lambda guest: guest.monitor.status,
    "image": lambda guest: _together(map(_image, guest.images)),
    "device": lambda guest: _together(map(_target, guest.domain.disks)),
    "volume": lambda guest: _together(volume.status for volume in guest.volumes),
    "port": lambda guest: _together(port.status for port in guest.ports),
    "tap": lambda guest: _together(tap.name for tap in guest.taps),
    "log": lambda guest: guest.log.end_reason,
}
"""Noun → the value that tells most about it."""


def _target(disk: Disk) -> str:
    return disk.target or "" if volume_of(disk) is not None else ""


def _image(image: Image) -> str:
    return f"{image.format}, {size(image.virtual_size)}"


def _together(values: Iterable[str]) -> str:
    return " · ".join(dict.fromkeys(filter(None, values)))


def _answers(guest: Guest, noun: str, layer: str) -> list[Answer]:
    """Return the answers that a box was read from; for an absence, the list that proves it."""
    fact = getattr(guest, noun, None) or getattr(guest, f"{noun}s", None)
    facts = fact if isinstance(fact, tuple) else (fact,)
    said = [answer for one in facts if isinstance(one, Fact) for answer in one.said.values()]
    if not said and layer in guest.census:
        said = [guest.census[layer]]
    return list({id(answer): answer for answer in said}.values())


def mark(boxes: Sequence[Box], findings: Iterable[Finding]) -> list[Break]:
    """Mark the boxes that findings quote, and return the links that broke, worst first."""
    breaks: dict[tuple[int, int], Break] = {}
    for finding in sorted(findings, key=lambda finding: -finding.severity):
        pieces = list(_pieces(boxes, finding.evidence))
        for at, piece in pieces:
            box = boxes[at]
            box.severity = max(box.severity, finding.severity)
            box.wrong += [text for text in _briefly(piece) if text not in box.wrong]
        for left, right in _apart(pieces):
            values = [_values(pieces, at) for at in (left, right)]
            breaks.setdefault((left, right), Break(left, right, values[0], values[1], finding))
    return list(breaks.values())


def _values(pieces: Sequence[tuple[int, Evidence]], at: int) -> list[str]:
    return [text for place, piece in pieces if place == at for text in _briefly(piece)]


def _pieces(boxes: Sequence[Box], evidence: Iterable[Evidence]) -> Iterator[tuple[int, Evidence]]:
    for piece in evidence:
        layer = title(piece.layer)
        same = [at for at, box in enumerate(boxes) if box.noun == piece.noun]
        same += [at for at, box in enumerate(boxes) if box.layer == layer]
        if same:
            yield same[0], piece


def _apart(pieces: Sequence[tuple[int, Evidence]]) -> Iterator[tuple[int, int]]:
    """Yield the pairs of boxes between which the values differ.

    Values with the same name are compared. If none of them differ, the deepest layer whose values
    can't be compared differs from those above it. The log tells why, so it contradicts nothing.
    """
    places = sorted({at for at, piece in pieces if piece.noun != "log"})
    said: dict[int, dict[str, object]] = {at: {} for at in places}
    for at, piece in pieces:
        said.get(at, {}).update(piece.said)
    pairs = [(left, right, _differ(said[left], said[right])) for left, right in pairwise(places)]
    found = [(left, right) for left, right, differ in pairs if differ]
    unknown = [(left, right) for left, right, differ in pairs if differ is None]
    yield from found or unknown[-1:]


def _differ(left: Mapping[str, object], right: Mapping[str, object]) -> bool | None:
    """Return True if values with the same name differ; None if no name is the same."""
    names = left.keys() & right.keys()
    return any(left[name] != right[name] for name in names) if names else None


def _briefly(piece: Evidence) -> list[str]:
    """Return the values of evidence in a few words, the shortest first."""
    said = [words(name, _end(value)) for name, value in piece.said]
    return sorted((cut(text, 2 * LONGEST) for text in said), key=len)


def _end(value: object) -> object:
    """Return the beginning of a UUID and the end of a long path: enough to recognize them."""
    if not isinstance(value, str):
        return value
    if UUID.fullmatch(value):
        return f"{value[:8]}…"
    if len(value) <= LONGEST or not value.startswith("/"):
        return value
    folder, _, name = value.rpartition("/")
    end = f"…/{folder.rpartition('/')[2]}/{name}"
    return end if len(end) < LONGEST else f"…/{name}"


def words(name: str, value: object) -> str:
    """Return a value of evidence for people, on one line."""
    return clean(f"no {name}" if value is None else f"{name} = {value}")
