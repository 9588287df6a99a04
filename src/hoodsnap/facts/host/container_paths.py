"""Paths of the instances directories, as QEMU processes in containers name them.

If libvirt runs in a container, then domains, command lines and image headers contain the
container's paths. Outside, the same files may have other paths, and the same paths may lead to
other files. Device and inode identify a file on both sides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.instances_directory import FOLDER, OF_AN_IMAGE
from hoodsnap.facts.process.process import OpenFile, Process


class Listed(Protocol):
    """Files in the listings of the instances directories."""

    @property
    def by_inode(self) -> Mapping[tuple[str, int], tuple[str, ...]]:
        """Device and inode → paths of the regular file."""

    def inode(self, path: str) -> int | None:
        """Return the inode of the file that is listed at a path; None if the path is not listed."""


def read_container_paths(listed: Listed, processes: Iterable[Process]) -> Mapping[str, str]:
    """Return QEMU's path of each instances directory → its listed path, which is usually the same.

    A path that stands for several listed directories is left out, as is a directory in which no
    QEMU has a file open.
    """
    found: dict[str, set[str]] = {}
    for process in processes:
        for name, top in tops_of(listed, process):
            found.setdefault(name, set()).add(top)
    return {name: next(iter(tops)) for name, tops in found.items() if len(tops) == 1}


def tops_of(listed: Listed, process: Process) -> Iterator[tuple[str, str]]:
    """Yield the process's path and the listed path of an instances directory, once for each listed
    file that the process has open in it."""
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
    """Return the instances directory that holds a base image or a file of a guest; else None."""
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
