"""The paths of the instances directories, as QEMU processes in containers name them.

Where libvirt runs in a container, domains, command lines and the headers of disks name its paths.
Whoever looked from outside may have found the same files under another name, or other files under
the same. Which is which is seen by the files themselves: device and inode are the same on both
sides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.instances_directory import FOLDER, OF_AN_IMAGE
from hoodsnap.facts.process.process import OpenFile, Process


class Listed(Protocol):
    """The files of the instances directories as they were listed."""

    @property
    def by_inode(self) -> Mapping[tuple[str, int], tuple[str, ...]]:
        """The paths of the regular files by device and inode."""

    def inode(self, path: str) -> int | None:
        """Return the inode of the file that is listed at a path; None if there is no such line."""


def read_container_paths(listed: Listed, processes: Iterable[Process]) -> Mapping[str, str]:
    """Return each instances directory as QEMU names it → as it was listed, usually the same path.

    A name that stands for several listed directories is left out, as is a directory in which no
    QEMU has a file open.
    """
    found: dict[str, set[str]] = {}
    for process in processes:
        for name, top in tops_of(listed, process):
            found.setdefault(name, set()).add(top)
    return {name: next(iter(tops)) for name, tops in found.items() if len(tops) == 1}


def tops_of(listed: Listed, process: Process) -> Iterator[tuple[str, str]]:
    """For each file that a process has open in an instances directory and that was listed: what it
    calls that directory, and as what that was listed."""
    for file in _files(process):
        top = None if file.deleted else _top_of(file.path)
        if top is None:
            continue
        if listed.inode(file.path) == file.ino:
            yield top, top
            continue
        rest = file.path.removeprefix(top)
        for path in listed.by_inode.get((file.dev, file.ino), ()):
            if path.endswith(rest):
                yield top, path.removesuffix(rest)


def _top_of(path: str) -> str | None:
    """The instances directory of a file in a guest's folder, or of a base image."""
    folder, _, name = path.rpartition("/")
    top, _, owner = folder.rpartition("/")
    if FOLDER.fullmatch(owner) or OF_AN_IMAGE.fullmatch(name):
        return top
    return None


def _files(process: Process) -> tuple[OpenFile, ...]:
    try:
        return process.files
    except UnheardError:
        return ()
