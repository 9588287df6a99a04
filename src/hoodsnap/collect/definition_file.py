"""Files in which libvirt keeps the definitions of domains, which it reads when it starts."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from hoodsnap.collect import file
from hoodsnap.collect.recorder import Recorder, RefusedError
from hoodsnap.collect.trusted.ownership import Owners, names_in, opened, read_owned
from hoodsnap.collect.trusted.running_process import RunningProcess
from hoodsnap.collect.trusted.service import RunningService
from hoodsnap.facts.host.daemon import TICKS
from hoodsnap.facts.host.definition_file import FOLDER, LIST
from hoodsnap.keep.domain_xml import kept_definition

MOST = 1000
"""Files that are listed, and at most read."""


def ask_definition_files(recorder: Recorder, daemon: RunningService | None) -> None:
    """Ask for the files, and for the contents of those that were written since the daemon of
    libvirt started: it has read all others.

    `daemon`: libvirt's daemon; None if none runs, and then nobody says what is defined.
    """
    if daemon is None:
        return
    root = str(daemon.root)
    listed = recorder.ask("host", LIST, lambda: _files(root))
    if listed.error is not None:
        return
    started = recorder.wait("host", lambda: _start(daemon.pid), 2.0)
    for row in listed.value:
        if not isinstance(started, float) or row["modified"] < started:
            continue
        path = f"{FOLDER}/{row['name']}"
        recorder.ask("host", f"cat {path}", lambda path=path: _definition(path, root))  # type: ignore[misc]


def list_again(recorder: Recorder, daemon: RunningService | None) -> None:
    """List the files once more, to see which of them libvirt did not write meanwhile."""
    if daemon is not None:
        root = str(daemon.root)
        recorder.ask("host", LIST, lambda: _files(root))


def _files(root: str) -> list[dict[str, Any]]:
    """Return name and time of the last change (seconds since 1970) of each file."""
    found: list[dict[str, Any]] = []
    for name in names_in(FOLDER, Owners(), root=root):
        if not name.endswith(".xml"):
            continue
        if len(found) == MOST:
            raise RefusedError("too-large", f"there are more than {MOST} files")
        with suppress(RefusedError), opened(f"{FOLDER}/{name}", Owners(), root=root) as handle:
            status = os.fstat(handle)
            found.append({"name": name, "modified": status.st_mtime})
    return found


def _start(pid: int) -> float:
    """Return when a process was started, in seconds since 1970."""
    lines = file.text("/proc/stat", 4 << 20).splitlines()
    boot = next(int(line.split()[1]) for line in lines if line.startswith("btime "))
    with RunningProcess(pid) as process:
        return boot + process.started / TICKS


def _definition(path: str, root: str) -> str:
    """Return a definition as `virsh dumpxml --inactive` prints it: without the comment in front
    that libvirt writes into the file, and without secrets."""
    text = read_owned(path, Owners(), root=root)
    start = text.find("<domain")
    return kept_definition(text[start:] if start >= 0 else text)
