"""What the logs say, tails only: each QEMU's, the kernel's, nova-compute's.

No file is read from its begin, and only lines of known kinds are kept: a log holds whatever a
program had in its hands when something went wrong.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from hoodsnap.collect import file
from hoodsnap.collect.configuration import Configuration
from hoodsnap.collect.patience import Patience
from hoodsnap.collect.recorder import Recorder, RefusedError, patiently, run
from hoodsnap.collect.service import service
from hoodsnap.facts.uuids import UUID
from hoodsnap.keep.allow_list import log_line

LAYER = "logs"

QEMU_FOLDERS = (
    "/var/log/libvirt/qemu",
    "/var/log/kolla/libvirt/qemu",
    "/var/lib/docker/volumes/kolla_logs/_data/libvirt/qemu",
    "/var/lib/containers/storage/volumes/kolla_logs/_data/libvirt/qemu",
    "/var/log/containers/libvirt/qemu",  # TripleO
)
"""Where libvirt writes a log for each domain, named after it."""

NOVA_LOGS = (
    "/var/log/nova/nova-compute.log",
    "/var/log/kolla/nova/nova-compute.log",
    "/var/lib/docker/volumes/kolla_logs/_data/nova/nova-compute.log",
    "/var/lib/containers/storage/volumes/kolla_logs/_data/nova/nova-compute.log",
    "/var/log/containers/nova/nova-compute.log",  # TripleO
)

UNITS = ("nova-compute", "openstack-nova-compute", "devstack@n-cpu")
"""The names of nova-compute's unit, where it writes to the journal alone."""

TAIL = 64 << 10
"""Bytes of a QEMU's log; one start of it writes four thousand."""

NOVA_TAIL = 4 << 20
"""Bytes of nova-compute's log: a day of a quiet host, an hour of one in trouble."""

_LOOK = 2.0
"""Seconds for the question whether there is such a file."""

LINES, KERNEL_LINES, NOVA_LINES = 50, 200, 12
"""How many are kept at most: of a QEMU, of the kernel, of nova-compute for one UUID."""

START = re.compile(r"\S+ \S+: starting up")
_UUID_OF_START = re.compile(r"(?:^|\s)-uuid ([0-9a-fA-F-]{36})(?:\s|$)")

_KERNEL = re.compile(
    r"out of memory|oom-kill|oom_reaper|invoked oom-killer|I/O error|EXT4-fs (error|warning)"
    r"|XFS \(.{0,200}(error|shutdown|corrupt)|BTRFS (error|critical)"
    r"|nfs: server .{1,200} (not responding|OK)"
    r"|multipath.{0,200}(failing|reinstated) path|conn error|rport-\S{1,64} blocked|rejecting I/O"
    r"|blocked for more than \d+ seconds|Remounting filesystem read-only"
    r"|(qemu|kvm)\S{0,64}\[\d{1,9}\].{0,200}(segfault|trap|general protection)"
    r"|libceph: .{0,200}(socket|timed out)"
    r"|Hardware Error|Machine check",
    re.IGNORECASE,
)
"""The kernel's lines about memory that ran out and storage that failed."""

_LEVEL = re.compile(r" (?P<level>INFO|WARNING|ERROR|CRITICAL) ")
_OF_INSTANCE = re.compile(rf"\[instance: (?P<uuid>{UUID.pattern})\] ")

_LIFECYCLE = re.compile(
    r"VM \w+ \(Lifecycle|During .* does not match|Instance (spawned|destroyed|shutdown|failed|"
    r"running|rebooted|not (found|resizing)|is not|was)|Took \S+ seconds to (build|destroy|spawn)"
    r"|(Rebuild|Reboot|Rescu|Unrescu|Shelv|Unshelv|Paus|Unpaus|Suspend|Resum|Migrat|Terminat|"
    r"Delet|Evacuat|Snapshot|Revert|Confirm|Attach|Detach|Destroy|Start|Stopp|Soft)\w*"
    r"|(instance )?snapshotting|Begin\w* (live|cold) snapshot|Live migration|Post operation"
    r"|Creating image|Booting with|Using config drive",
    re.IGNORECASE,
)
"""How nova-compute's lines begin that tell what became of an instance."""


def ask_logs(recorder: Recorder, conf: Configuration, names: Mapping[str, str]) -> None:
    """Ask for the logs of these domains (UUID → name), of the kernel, and of nova-compute."""
    _ask_qemu(recorder, names)
    ask = recorder.ask
    listed = ask(LAYER, "dmesg --time-format iso", partial(_kernel, _DMESG))
    if listed.error is not None and listed.error.kind != "timeout":
        ask(LAYER, "journalctl -k -o short-iso", partial(_kernel, _JOURNAL))
    if (path := _first_of(_nova_logs(conf), _is_there)) is not None:
        query = f"tail -c {NOVA_TAIL} {path}"
        ask(LAYER, query, lambda: _nova_lines(file.tail(path, NOVA_TAIL)))
    else:
        units = [word for unit in UNITS for word in ("-u", unit)]
        command = ["journalctl", *units, "-n", "20000", "-o", "short-iso"]
        ask(LAYER, " ".join(command), lambda: _nova_lines(run([*command, "--no-pager"])))


def ask_again(recorder: Recorder, names: Mapping[str, str]) -> None:
    """Ask again for the logs of these domains, which moved."""
    _ask_qemu(recorder, names)


def _ask_qemu(recorder: Recorder, names: Mapping[str, str]) -> None:
    folder = _first_of(map(Path, QEMU_FOLDERS), _has_logs) or Path(QEMU_FOLDERS[0])
    listed = recorder.ask(LAYER, f"ls -l {folder}", lambda: _logs_in(folder))
    if listed.error is not None:
        return
    there = {entry["name"] for entry in listed.value}
    patience = Patience()
    for uuid, name in sorted(names.items(), key=lambda item: item[1]):
        if f"{name}.log" in there:
            path = folder / f"{name}.log"
            query = f"tail -c {TAIL} {path}"
            patience.ask(recorder, LAYER, query, partial(_qemu_log, path), uuid)


def _first_of(paths: Iterable[Path], wanted: Callable[[Path], bool]) -> Path | None:
    """Return the first path that is wanted, or that has to be asked why it can't be read."""
    for path in paths:
        # Not even a look at a path is free: it may lie on a dead NFS server.
        found = patiently(partial(wanted, path), _LOOK)
        if found is True or isinstance(found, PermissionError | TimeoutError | RefusedError):
            return path
    return None


def _has_logs(folder: Path) -> bool:
    try:
        return any(name.endswith(".log") for name in file.names(folder))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _is_there(path: Path) -> bool:
    try:
        return stat.S_ISREG(file.status(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _logs_in(folder: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    with file.folder(folder) as handle:
        for name in file.names_at(handle, str(folder)):
            if name.endswith(".log"):
                status = os.stat(name, dir_fd=handle, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    found.append({"name": name, "size": status.st_size, "mtime": status.st_mtime})
    return found


def _nova_logs(conf: Configuration) -> list[Path]:
    """Where nova-compute's log may be, its own word first."""
    options = conf.get("DEFAULT", {})
    name = options.get("log_file", options.get("logfile", "nova-compute.log"))
    folder = options.get("log_dir", options.get("logdir", "/var/log/nova"))
    own = os.path.normpath(os.path.join("/", folder, name))
    if "$" in own or own.startswith(_NO_LOGS):
        return [*map(Path, NOVA_LOGS)]
    # The owner of a process can keep its readers waiting.
    root = patiently(_root_of_nova, _LOOK)
    return [*([Path(f"{root}{own}")] if isinstance(root, str) else []), *map(Path, NOVA_LOGS)]


_NO_LOGS = ("/proc/", "/sys/", "/dev/")
"""Files that reading changes: /proc/kmsg forgets each line that it returned."""


def _root_of_nova() -> str:
    """Path of the service's own `/`: a container has files of its own."""
    nova = service()
    return "" if nova is None or nova.root.samefile("/") else str(nova.root)


def _qemu_log(path: Path) -> str:
    """Its last lines and its last start, without the environment and the arguments of a start:
    those of a process that runs are in /proc."""
    kept: list[str] = []
    last_start: list[str] = []
    in_start = False
    for line in file.tail(path, TAIL).splitlines():
        if START.match(line):
            in_start = True
            kept.append(log_line(line))
            last_start = [kept[-1]]
        elif in_start:
            if uuid := _UUID_OF_START.search(line):
                kept.append(f"-uuid {uuid[1]}")
                last_start.append(kept[-1])
            # Each line of it but the last goes on; before libvirt 4.7 it was one line.
            in_start = line.endswith("\\")
        elif not _is_argument(line):
            kept.append(log_line(line))
    end = kept[-LINES:]
    return "\n".join([line for line in last_start if line not in end] + end)


def _is_argument(line: str) -> bool:
    """Whether it is of a start whose first line was cut off, or of no known kind."""
    first, blank, _ = line.partition(" ")
    is_complaint = bool(blank) and "qemu" in first and first.endswith(":")
    is_known = is_complaint or re.match(r"\d{4}-\d\d-\d\d[T ]|char device", line)
    return line.endswith("\\") or not is_known


_DMESG = ("dmesg", "--time-format", "iso")
_JOURNAL = ("journalctl", "-k", "-o", "short-iso", "-n", "20000", "--no-pager")


def _kernel(command: tuple[str, ...]) -> str:
    lines = [line for line in run(command).splitlines() if _KERNEL.search(line)]
    return "\n".join(log_line(line) for line in lines[-KERNEL_LINES:])


def _nova_lines(text: str) -> str:
    """The last lines about each instance: what went wrong, and what was done with it."""
    by_uuid: dict[str, list[tuple[int, str]]] = {}
    for number, line in enumerate(text.splitlines()):
        level = _LEVEL.search(line)
        found = _OF_INSTANCE.search(line, level.end() - 1) if level else None
        if level is None or found is None or not _tells(level["level"], line[found.end() :]):
            continue
        stamp = re.match(r"[\d-]+[T ][\d:.+]+", line)
        kept = f"{stamp[0] if stamp else ''} {level['level']} [instance: {found['uuid']}] "
        said = log_line(line[found.end() :])
        by_uuid.setdefault(found["uuid"], []).append((number, kept + said))
    last = [line for lines in by_uuid.values() for line in lines[-NOVA_LINES:]]
    return "\n".join(line for _, line in sorted(last))


def _tells(level: str, said: str) -> bool:
    if level == "INFO":
        return _LIFECYCLE.match(said) is not None
    # A traceback is hundreds of lines, with whatever was in the arguments.
    return not said.startswith((" ", "Traceback", "During handling", "The above exception"))
