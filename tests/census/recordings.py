"""The recordings whose leaves are counted. Each adds kinds of leaves that those before it lack."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.census.leaf import Kind, Leaves
from tests.census.verdict import Judge

from hoodsnap.bundle import Bundle, load, merge
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest

ROOT = Path(__file__).parent.parent.parent
FIXTURES = ROOT / "fixtures"

RECORDINGS = {
    "healthy": (ROOT / "src/hoodsnap/recorded/healthy.json.zst",),
    "daemons": (FIXTURES / "daemons.json.zst",),
    "control-groups": (FIXTURES / "control-groups.json.zst",),
    "monitors": (FIXTURES / "monitors.json.zst",),
    "two-hosts": tuple(FIXTURES / f"two-hosts/healthy.{n}.json.zst" for n in ("first", "second")),
}
"""The files of each recording, by name, in the order in which they are looked through."""


class Recording:
    """One recording, its leaves, and the judge of its mutants."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bundle: Bundle = merge(load(path) for path in RECORDINGS[name])
        self.judge = Judge(self.bundle)
        self.leaves = Leaves(self.bundle, chosen(self.judge.report.cloud))


@cache
def recording(name: str) -> Recording:
    """Return a recording, which is read once in a process."""
    return Recording(name)


def chosen(cloud: Cloud) -> Guest | None:
    """Return the guest whose leaves are changed: a running one of which most layers tell."""
    running = [guest for guest in cloud.guests if guest.runs]
    return max(running, key=_told, default=None)


def _told(guest: Guest) -> tuple[int, int, str]:
    things = (guest.server, guest.instance, guest.domain, guest.process, guest.allocation)
    more = (guest.volumes, guest.ports, guest.taps)
    # Of guests with equally much, the name decides, so that it is always the same one.
    return sum(thing is not None for thing in things), sum(map(bool, more)), guest.name or ""


def groups() -> Iterator[tuple[str, tuple[str, str], frozenset[Kind]]]:
    """Yield each recording's name, and the layer and question of kinds that no earlier one has.

    Lines of a text differ from host to host, so those of an earlier recording stand for all.
    """
    seen: set[Kind | tuple[str, str]] = set()
    for name in RECORDINGS:
        found: dict[tuple[str, str], set[Kind]] = {}
        leaves = recording(name).leaves
        for leaf in (*leaves.all, *leaves.members):
            is_line = leaf.kind.path.startswith("line ")
            if leaf.kind not in seen and not (is_line and leaf.kind[:2] in seen):
                found.setdefault(leaf.kind[:2], set()).add(leaf.kind)
        seen |= found.keys()
        for group, kinds in found.items():
            seen |= kinds
            yield name, group, frozenset(kinds)
