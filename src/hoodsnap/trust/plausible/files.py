"""Plausibility of files: the list of a folder, and the processes that have its files open."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from hoodsnap.facts.clock import moment
from hoodsnap.facts.process.process import GONE
from hoodsnap.trust.plausible.visit import SKEW, HostAnswers


def one_path_one_file(visit: HostAnswers) -> Iterator[str]:
    """Check that a process has the same file open at a path as the list of files shows there.

    Paths that were replaced since the process opened them are left out.
    """
    listed = {entry["path"]: entry for _, entry in _listed(visit)}
    here = _seeing_the_same(visit)
    for answer in visit.asked("kernel", "ls -lL /proc/"):
        asked = re.fullmatch(r"ls -lL /proc/(\d+)/fd", answer.query, re.ASCII)
        files = answer.value if isinstance(answer.value, list) else []
        if asked is None or asked[1] not in here:
            continue
        for file in files:
            path = file.get("path") if isinstance(file, dict) else None
            entry = listed.get(path) if isinstance(path, str) else None
            if entry is None or str(path).endswith(GONE):
                continue
            same_place = file.get("dev") == entry.get("dev")
            if same_place and file.get("ino") != entry.get("ino"):
                yield (
                    f"{path} is inode {entry.get('ino')} in the list of files, but process"
                    f" {asked[1]} has it open as inode {file.get('ino')}"
                )


def one_file_one_path(visit: HostAnswers) -> Iterator[str]:
    """Check that a file with a single link appears only once in a list."""
    mounts = visit.text("kernel", "/proc/self/mountinfo")
    for query in dict.fromkeys(query for query, _ in _listed(visit)):
        if f" {query.removeprefix('find ').removesuffix(' -ls')}/" in mounts:
            continue  # something is mounted below it, perhaps another part of the same folder
        names: dict[tuple[Any, Any], str] = {}
        for listing, entry in _listed(visit):
            key = (entry.get("dev"), entry.get("ino"))
            if listing != query or entry.get("type") != "f" or entry.get("nlink") != 1:
                continue
            if names.setdefault(key, entry["path"]) != entry["path"]:
                yield (
                    f"{names[key]} and {entry['path']} are the same file (inode {key[1]}), but it"
                    " has a link count of 1"
                )


def changed_before_seen(visit: HostAnswers) -> Iterator[str]:
    """Check that no file has a ctime after the collection. Tools such as touch can't set it."""
    for _, entry in _listed(visit):
        changed = moment(entry.get("ctime"))
        remote = str(entry.get("dev")).startswith("0:")  # another host's clock
        if changed is not None and not remote and changed - visit.latest > SKEW:
            yield f"{entry['path']} changed at {changed:%Y-%m-%d %H:%M:%S}, after the collection"


def _listed(visit: HostAnswers) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each file of the newest lists, after the query that listed it."""
    for query in dict.fromkeys(answer.query for answer in visit.asked("images", "find ")):
        answer = visit.last("images", query)
        entries = answer.value if answer is not None else None
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and isinstance(entry.get("path"), str):
                ids = (entry.get("dev"), entry.get("ino"))
                if isinstance(ids[0], str) and isinstance(ids[1], int):
                    yield query, entry


def _seeing_the_same(visit: HostAnswers) -> set[str]:
    """Return the PIDs of processes that have the same mounts as the collector."""
    own = {_mount(line) for line in visit.text("kernel", "/proc/self/mountinfo").splitlines()}
    found: dict[str, bool] = {}
    for answer in visit.asked("kernel", "awk "):
        asked = re.search(r" /proc/(\d+)/mountinfo$", answer.query, re.ASCII)
        if asked is not None:
            lines = answer.value.splitlines() if isinstance(answer.value, str) else []
            found[asked[1]] = bool(lines) and all(_mount(line) in own for line in lines)
    return {pid for pid, same in found.items() if same}


def _mount(line: str) -> tuple[str, ...]:
    """Return device, root and mount point of a line of mountinfo."""
    return tuple(line.split(" ")[2:5])
