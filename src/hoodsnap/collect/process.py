"""Kernel layer of a guest: its QEMU process, read through /proc and ps.

This file knows which processes are emulators, but not what their arguments mean.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from hoodsnap.bundle import Answer
from hoodsnap.collect import file
from hoodsnap.collect.budget import TextBudget
from hoodsnap.collect.program import run
from hoodsnap.collect.question import must_go_on
from hoodsnap.collect.recorder import Recorder, RefusedError
from hoodsnap.collect.trusted.emulator import emulator_of, is_emulator
from hoodsnap.collect.trusted.service import MOST_DOUBTS, Found, UntrustedProcess
from hoodsnap.keep.arguments import kept_cmdline, kept_ps
from hoodsnap.keep.process import listeners, most_open_files, open_file, thread, tracer_of

LAYER = "kernel"

_FILES = ("cmdline", "comm", "stat", "statm", "status", "cgroup")

# Network and pass-through devices. QEMU's other character devices are of no interest.
_DEVICES = ("/dev/net/tun", "/dev/tap", "/dev/vhost", "/dev/vfio/")

LARGEST_CMDLINE = 512 << 10
"""Bytes of a process's arguments. libvirt's longest have some ten thousand; any account can start a
program with megabytes of arguments."""

LARGEST_TEXT = 4 << 20
"""Bytes of any other file in /proc. The largest, /proc/locks, has a hundred bytes per lock."""

LARGEST_MOUNTS, MOST_MOUNTS = 64 << 20, 10_000
"""Bytes read of a process's mountinfo, and lines kept of it. Linux allows 100,000 mounts."""

LARGEST_LIST, LARGEST_OF_OTHERS = 4 << 20, 64 << 10
"""Characters of command lines in the list of processes: of all guests, of all others."""

OF_GUESTS, OF_OTHERS = 32 << 20, 2 << 20
"""Characters kept of all processes that may be guests together, and of all others together. A guest
needs ten thousand. Any account may start QEMU, with thousands of files and mounts."""

MOST_OTHERS, TIME_OF_OTHERS = 20, 5.0
"""Emulators that can't be guests, and seconds for all of them: operators test disks by hand."""

MOST_LISTED = 1000
"""Emulators that can't be guests in the list of all emulators."""

_ONE_MORE = RefusedError("denied", "one of many processes that are not trusted")

Accounts = Callable[[int | None], bool]
"""Function that returns True if the QEMU of this account (uid) may be a guest."""

MOST_THREADS, MOST_FILES = 32_768, 8192
"""Limits for the threads of one QEMU, and for its open files that have a path."""

_NOT_DISKS = ("/dev", "/run/", "/var/run/", "/var/log/")


def ask_processes(
    recorder: Recorder,
    paths: Iterable[Path] = (),
    may_be_guest: Accounts = lambda uid: True,
) -> dict[int, tuple[str, ...]]:
    """Ask for every QEMU system emulator of this host; return the arguments of each, by PID.

    `paths`: folders (the instances directories) whose mounts in each process are kept, besides the
    mounts of its open files. `may_be_guest`: emulators for which it returns False are asked last,
    and only a few of them.
    """
    found = _Survey(recorder, paths, may_be_guest).ask(_ask_lists(recorder, may_be_guest))
    _ask_host(recorder)
    return found


def ask_again(
    recorder: Recorder,
    pids: Collection[int],
    known: Collection[int],
    paths: Iterable[Path] = (),
    may_be_guest: Accounts = lambda uid: True,
) -> dict[int, tuple[str, ...]]:
    """Ask again for these processes, and for new emulators: those that are not in `known`."""
    listed = _ask_lists(recorder, may_be_guest)
    new = {pid: uid for pid, uid in listed.items() if pid not in known}
    wanted = {pid: listed.get(pid, 0) for pid in pids} | new
    return _Survey(recorder, paths, may_be_guest).ask(wanted)


PATIENCE = 3.0
"""Seconds for one question. /proc answers in microseconds, or hangs because the process holds its
memory map locked while it waits for a disk. Waiting longer does not help."""


def _ask_lists(recorder: Recorder, may_be_guest: Accounts) -> dict[int, int | None]:
    """Ask for the lists of processes; return the emulators of this host, PID → uid."""
    recorder.ask(LAYER, "pgrep qemu | xargs ps ww", lambda: _ps(may_be_guest))
    refused: dict[int, RefusedError] = {}
    answer = recorder.ask(LAYER, "ls -l /proc/*/exe", lambda: _emulators(refused, may_be_guest))
    found = Found(
        "qemu", (), tuple(UntrustedProcess(pid, str(why)) for pid, why in refused.items())
    )
    found.say(recorder)
    return {} if answer.error else {one["pid"]: one["uid"] for one in answer.value}


class _Survey:
    """Survey of the processes; those that may be guests come first."""

    def __init__(self, recorder: Recorder, paths: Iterable[Path], may_be_guest: Accounts) -> None:
        self._recorder = recorder
        self._paths = tuple(paths)
        self._may_be_guest = may_be_guest

    def ask(self, processes: Mapping[int, int | None]) -> dict[int, tuple[str, ...]]:
        """Ask for these processes (PID → uid); return the arguments of each one asked for."""
        guests = [pid for pid, uid in sorted(processes.items()) if self._may_be_guest(uid)]
        room = TextBudget(OF_GUESTS)
        found = {pid: self._ask_process(PATIENCE, room, pid) for pid in guests}
        room, end = TextBudget(OF_OTHERS), time.monotonic() + TIME_OF_OTHERS
        others = sorted(processes.keys() - found.keys())
        for pid in others[:MOST_OTHERS]:
            if time.monotonic() < end:
                found[pid] = self._ask_process(PATIENCE, room, pid)
        if left := [pid for pid in others if pid not in found]:
            message = f"not asked: {len(left)} more QEMU processes of accounts that run no guests"
            self._recorder.refuse(LAYER, "pgrep -c qemu", RefusedError("denied", message))
        return found

    def _ask_process(self, patience: float, room: TextBudget, pid: int) -> tuple[str, ...]:
        folder = f"/proc/{pid}"
        who = str(pid)

        def ask(query: str, how: Callable[[], object]) -> Answer:
            return self._recorder.ask(
                LAYER,
                query,
                lambda: room.kept(how()),
                subject=who,
                patience=patience,
                source=f"process {who}",
            )

        argv: tuple[str, ...] = ()
        status = ""
        for name in _FILES:
            path = f"{folder}/{name}"
            read = _cmdline if name == "cmdline" else _text
            answer = ask(path, partial(read, path))
            if name == "cmdline" and answer.error is None:
                argv = tuple(answer.value.removesuffix("\0").split("\0")) if answer.value else ()
            if name == "status" and answer.error is None:
                status = answer.value
        if (tracer := tracer_of(status)) is not None:
            # Only the name: the command line of a debugger may have anything in it.
            ask(f"cat /proc/{tracer}/comm", lambda: _text(f"/proc/{tracer}/comm"))
        for name in ("exe", "root"):
            path = f"{folder}/{name}"
            ask(f"readlink {path}", partial(os.readlink, path))
        ask(f"readlink {folder}/ns/*", lambda: _links(f"{folder}/ns"))
        limits = f"{folder}/limits"
        ask(f"grep '^Max open files' {limits}", lambda: most_open_files(_text(limits)))
        ask(f"ls {folder}/fd | wc -l", lambda: len(_names(f"{folder}/fd")))
        query = f"grep -E '^(Name|Cpus_allowed_list):' {folder}/task/*/status"
        ask(query, lambda: _threads(folder))
        files = ask(f"ls -lL {folder}/fd", lambda: _files(folder))
        if files.error is not None and files.error.kind == "timeout":
            # One file on a dead NFS server is enough for a timeout. Without stat, names and flags
            # can still be read.
            files = ask(f"ls -l {folder}/fd", lambda: _files(folder, look=False))
        places = _places(files, self._paths)
        matches = " || ".join(f"index({json.dumps(place)}, $5) == 1" for place in places)
        ask(f"awk '{matches}' {folder}/mountinfo", lambda: _mounts(folder, places))
        return argv


def _ask_host(recorder: Recorder) -> None:
    recorder.ask(LAYER, "/proc/locks", lambda: _text("/proc/locks"))
    recorder.ask(LAYER, "grep btime /proc/stat", _boot_time)
    recorder.ask(LAYER, "ss -Hltnp", _listeners)
    recorder.ask(LAYER, "ls /sys/bus/pci/devices", lambda: _names("/sys/bus/pci/devices"))
    recorder.ask(LAYER, "ls /sys/bus/mdev/devices", lambda: _names("/sys/bus/mdev/devices"))


def _ps(may_be_guest: Accounts) -> str:
    words_of: dict[int, list[str]] = {}
    programs: dict[int, str] = {}
    emulators: list[tuple[bool, int]] = []
    for pid in map(int, _or_none(["pgrep", "qemu"]).split()):
        must_go_on()
        with suppress(OSError):  # it ended while it was read
            programs[pid] = _name(pid)
            with suppress(RefusedError):
                if (emulator := emulator_of(pid)) is not None:
                    emulators.append((not may_be_guest(emulator.uid), pid))
    left = {False: LARGEST_LIST, True: LARGEST_OF_OTHERS}
    for is_other, pid in sorted(emulators):
        must_go_on()
        with suppress(OSError):
            words = _words(pid)
            left[is_other] -= sum(map(len, words or ()))
            if words is not None and left[is_other] > 0:
                words_of[pid] = words
                del programs[pid]
    # For all others ps prints only names: any account can start a program with megabytes of
    # arguments.
    header, rows = "", []
    for how, pids in (("ww", words_of), ("c", programs)):
        table = _or_none(["ps", how, *map(str, pids)]) if pids else ""
        header, *more = table.split("\n") if table else [header]
        rows += [row for row in more if row]
    rows.sort(key=_pid_of)
    return kept_ps("".join(f"{row}\n" for row in (header, *rows) if row), words_of, programs)


def _or_none(command: Sequence[str]) -> str:
    """Return the output of pgrep or ps; empty if no process matches (exit status 1).

    Never call ps without a PID: it would list the processes of this terminal.
    """
    try:
        return run(command)
    except RefusedError as refusal:
        if str(refusal) == "exit status 1":
            return ""
        raise


def _pid_of(row: str) -> int:
    number = row.split(maxsplit=1)[0]
    return int(number) if number.isdecimal() and len(number) < 10 else 0


def _words(pid: int) -> list[str] | None:
    """Return the arguments of a process; None if they are longer than any guest's."""
    try:
        text = file.text(f"/proc/{pid}/cmdline", LARGEST_CMDLINE)
    except RefusedError:
        return None
    return text.removesuffix("\0").split("\0")


def _name(pid: int) -> str:
    """Return the name of a process's program: of its executable, else the kernel's `comm`."""
    try:
        exe = os.readlink(f"/proc/{pid}/exe")
    except PermissionError:
        exe = _text(f"/proc/{pid}/comm").removesuffix("\n")
    return os.path.basename(exe.removesuffix(" (deleted)"))


def _emulators(refused: dict[int, RefusedError], may_be_guest: Accounts) -> list[dict[str, Any]]:
    """Return the emulators of this host; add processes that only have such a name to `refused`."""
    found: list[dict[str, Any]] = []
    others = 0
    for pid in _numbers("/proc"):
        must_go_on()
        try:
            emulator = emulator_of(pid)
            if emulator is not None:
                others += not may_be_guest(emulator.uid)
                if others > MOST_LISTED and not may_be_guest(emulator.uid):
                    continue
                comm = _text(f"/proc/{pid}/comm").removesuffix("\n")
                found.append({"pid": pid, "comm": comm, **emulator._asdict()})
        except RefusedError as refusal:
            refused[pid] = refusal if len(refused) < MOST_DOUBTS else _ONE_MORE
        except (FileNotFoundError, ProcessLookupError):  # it ended while it was read
            continue
    return found


def _files(folder: str, *, look: bool = True) -> list[dict[str, Any]]:
    """Return the open files that have a path: regular files, block devices, taps and the like."""
    found = []
    for number in _numbers(f"{folder}/fd"):
        try:
            path = os.readlink(f"{folder}/fd/{number}")
            if not path.startswith("/"):  # a pipe, a socket, an eventfd
                continue
            known: dict[str, Any] = {
                "fd": number,
                "path": path,
                **_fdinfo(f"{folder}/fdinfo/{number}"),
            }
            if look:
                known |= _stat(f"{folder}/fd/{number}")
        except (FileNotFoundError, ProcessLookupError):  # closed while it was read
            continue
        kind = stat.S_IFMT(int(known.get("mode", "100000"), 8))
        if kind in (stat.S_IFREG, stat.S_IFBLK) or path.startswith(_DEVICES):
            found.append(known)
            if len(found) > MOST_FILES:
                raise RefusedError(
                    "too-large", f"the process has more than {MOST_FILES} open files"
                )
    return found


def _fdinfo(path: str) -> dict[str, str]:
    return open_file(_text(path))


def _stat(path: str) -> dict[str, Any]:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise
    except OSError as error:  # a stale NFS handle is a fact about this one file
        return {"error": error.strerror}
    return {
        "dev": f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}",
        "ino": status.st_ino,
        "rdev": f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}",
        "size": status.st_size,
        "mode": f"{status.st_mode:o}",
    }


def _threads(folder: str) -> dict[str, dict[str, str]]:
    found = {}
    for tid in map(str, _numbers(f"{folder}/task", MOST_THREADS)):
        try:
            text = _text(f"{folder}/task/{tid}/status")
        except (FileNotFoundError, ProcessLookupError):  # it ended while it was read
            continue
        found[tid] = thread(text)
    return found


def _links(folder: str) -> dict[str, str]:
    return {name: os.readlink(f"{folder}/{name}") for name in file.names(folder)}


def _places(files: Answer, paths: Iterable[Path]) -> tuple[str, ...]:
    """Return the folders whose mounts are kept, each with a slash at the end."""
    places = {f"{path}/" for path in paths}
    if files.error is None:
        for known in files.value:
            folder = os.path.dirname(known["path"])
            if known.get("mode", "100").startswith("100") and not folder.startswith(_NOT_DISKS):
                places.add(f"{folder}/")
    return tuple(sorted(places)) or ("/",)


def _mounts(folder: str, places: Sequence[str]) -> str:
    # A container host has hundreds of mounts, and each QEMU would repeat them all.
    kept = []
    for line in file.lines(f"{folder}/mountinfo", LARGEST_MOUNTS):
        fields = line.split(" ", 5)
        if len(fields) > 4 and any(place.startswith(fields[4]) for place in places):
            kept.append(line)
            if len(kept) > MOST_MOUNTS:
                raise RefusedError(
                    "too-large", f"more than {MOST_MOUNTS} mounts contain the process's files"
                )
    return "".join(kept)


def _listeners() -> str:
    return listeners(run(["ss", "-Hltnp"]))


def _names(folder: str) -> list[str]:
    return file.names(folder)


def _boot_time() -> str:
    lines = file.lines("/proc/stat", LARGEST_TEXT)
    return "".join(line for line in lines if line.startswith("btime"))


def _cmdline(path: str) -> str:
    text = file.text(path, LARGEST_CMDLINE)
    # The process may have executed another program since it was listed.
    if text and not is_emulator(int(path.split("/")[2])):
        raise RefusedError(
            "denied", "its arguments are not kept: the process is no longer an emulator"
        )
    return kept_cmdline(text)


def _numbers(folder: str, most: int = file.MOST_NAMES) -> list[int]:
    return sorted(int(name) for name in file.names(folder, most) if name.isdigit())


def _text(path: str) -> str:
    return file.text(path, LARGEST_TEXT)
