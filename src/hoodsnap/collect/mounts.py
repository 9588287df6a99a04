"""Mounts that the collector sees: the mount point of a path names its file system.

Only the kernel's table of mounts is read, which never waits for a file system.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Self

from hoodsnap.collect import file
from hoodsnap.collect.recorder import Recorder

_LARGEST = 4 << 20
"""Bytes of the table. A host of containers has a few hundred lines."""

_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mounts:
    """Mount points, as a set of paths."""

    points: frozenset[str] = frozenset(["/"])

    @classmethod
    def read(cls, recorder: Recorder) -> Self:
        """Return the mounts of our namespace; only `/` if the table can't be read."""
        text = recorder.wait("host", lambda: file.text("/proc/self/mountinfo", _LARGEST), 5.0)
        return cls.parse(text) if isinstance(text, str) else cls()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `/proc/self/mountinfo`. The fifth field is the mount point."""
        rows = (line.split(" ", 5) for line in text.splitlines())
        points = (row[4] for row in rows if len(row) > 4)
        return cls(frozenset(["/", *map(_unescaped, points)]))

    def of(self, path: str) -> str:
        """Return the mount point that a path is below. Links are not followed."""
        place = os.path.normpath(path) if path.startswith("/") else "/"
        while place not in self.points:
            place = os.path.dirname(place)
        return place


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)
