"""What the logs say, tails only: each QEMU's, the kernel's, nova-compute's.

No file is read from its begin, and only lines of known kinds are kept: a log holds whatever a
program had in its hands when something went wrong.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from hoodsnap.collect.allowlist import log_line
from hoodsnap.collect.configuration import Configuration
from hoodsnap.collect.patience import Patience
from hoodsnap.collect.recorder import Recorder, run
from hoodsnap.collect.service import service

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

LINES, KERNEL_LINES, NOVA_LINES = 50, 200, 12
"""How many are kept at most: of a QEMU, of the kernel, of nova-compute for one UUID."""

START = re.compile(r"\S+ \S+: starting up")
_UUID_OF_START = re.compile(r"(?:^|\s)-uuid ([0-9a-fA-F-]{36})(?:\s|$)")
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"

_KERNEL = re.compile(
    r"out of memory|oom-kill|oom_reaper|invoked oom-killer|I/O error|EXT4-fs (error|warning)"
    r"|XFS \(.*(error|shutdown|corrupt)|BTRFS (error|critical)|nfs: server .* (not responding|OK)"
    r"|multipath.*(failing|reinstated) path|conn error|rport-\S+ blocked|rejecting I/O"
    r"|blocked for more than \d+ seconds|Remounting filesystem read-only"
    r"|(qemu|kvm)\S*\[\d+\].*(segfault|trap|general protection)|libceph: .*(socket|timed out)"
    r"|Hardware Error|Machine check",
    re.IGNORECASE,
)
"""The kernel's lines about memory that ran out and storage that failed."""

_NOVA = re.compile(
    rf" (?P<level>INFO|WARNING|ERROR|CRITICAL) .*?\[instance: (?P<uuid>{_UUID})\] (?P<said>.*)"
)

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
    if (path := _first_of(_nova_logs(conf), Path.is_file)) is not None:
        query = f"tail -c {NOVA_TAIL} {path}"
        ask(LAYER, query, lambda: _nova_lines(_tail(path, NOVA_TAIL)))
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
    for path in paths:
        try:
            if wanted(path):
                return path
        except PermissionError:
            return path  # asking it says so
    return None


def _has_logs(folder: Path) -> bool:
    return folder.is_dir() and any(name.endswith(".log") for name in os.listdir(folder))


def _logs_in(folder: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for entry in os.scandir(folder):
        if entry.name.endswith(".log") and entry.is_file():
            status = entry.stat()
            found.append({"name": entry.name, "size": status.st_size, "mtime": status.st_mtime})
    return sorted(found, key=lambda line: str(line["name"]))


def _nova_logs(conf: Configuration) -> list[Path]:
    """Where nova-compute's log may be, its own word first."""
    options = conf.get("DEFAULT", {})
    name = options.get("log_file", options.get("logfile", "nova-compute.log"))
    folder = options.get("log_dir", options.get("logdir", "/var/log/nova"))
    own = os.path.join(folder, name)
    if "$" in own:
        return [*map(Path, NOVA_LOGS)]
    nova = service()
    if nova is not None and not nova.root.samefile("/"):  # a container has files of its own
        return [nova.root / own.lstrip("/"), *map(Path, NOVA_LOGS)]
    return [Path(own), *map(Path, NOVA_LOGS)]


def _tail(path: Path, size: int) -> str:
    """The end of a file, from the first whole line on."""
    with path.open("rb") as file:
        start = max(0, file.seek(0, os.SEEK_END) - size)
        file.seek(start)
        data = file.read(size)
    text = data.decode("utf-8", "replace")
    return text.partition("\n")[2] if start else text


def _qemu_log(path: Path) -> str:
    """Its last lines and its last start, without the environment and the arguments of a start:
    those of a process that runs are in /proc."""
    kept: list[str] = []
    last_start: list[str] = []
    in_start = False
    for line in _tail(path, TAIL).splitlines():
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
    return line.endswith("\\") or not re.match(
        r"\d{4}-\d\d-\d\d[T ]|char device|\S*qemu\S*: ", line
    )


_DMESG = ("dmesg", "--time-format", "iso")
_JOURNAL = ("journalctl", "-k", "-o", "short-iso", "-n", "20000", "--no-pager")


def _kernel(command: tuple[str, ...]) -> str:
    lines = [line for line in run(command).splitlines() if _KERNEL.search(line)]
    return "\n".join(log_line(line) for line in lines[-KERNEL_LINES:])


def _nova_lines(text: str) -> str:
    """The last lines about each instance: what went wrong, and what was done with it."""
    by_uuid: dict[str, list[tuple[int, str]]] = {}
    for number, line in enumerate(text.splitlines()):
        found = _NOVA.search(line)
        if found is None or not _tells(found["level"], found["said"]):
            continue
        stamp = re.match(r"[\d-]+[T ][\d:.+]+", line)
        kept = f"{stamp[0] if stamp else ''} {found['level']} [instance: {found['uuid']}] "
        by_uuid.setdefault(found["uuid"], []).append((number, kept + log_line(found["said"])))
    last = [line for lines in by_uuid.values() for line in lines[-NOVA_LINES:]]
    return "\n".join(line for _, line in sorted(last))


def _tells(level: str, said: str) -> bool:
    if level == "INFO":
        return _LIFECYCLE.match(said) is not None
    # A traceback is hundreds of lines, with whatever was in the arguments.
    return not said.startswith((" ", "Traceback", "During handling", "The above exception"))
