"""Allow-list for the lines of logs: only lines of known kinds are kept.

A log may hold any data that a program had when something went wrong.
"""

from __future__ import annotations

import re

from hoodsnap.keep.log_line import log_line

LINES, KERNEL_LINES, NOVA_LINES = 50, 200, 12
"""Maximum number of lines kept: of a QEMU, of the kernel, of nova-compute for one UUID.

As many lines as for one UUID are kept about requests of nova-compute itself that were refused.
"""

START = re.compile(r"\S+ \S+: starting up")
_UUID_OF_START = re.compile(r"(?:^|\s)-uuid ([0-9a-fA-F-]{36})(?:\s|$)")
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"

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
"""Lines of the kernel about exhausted memory, failed storage and crashes."""

_LEVEL = re.compile(r" (?P<level>INFO|WARNING|ERROR|CRITICAL) ")
_OF_INSTANCE = re.compile(rf"\[instance: (?P<uuid>{_UUID})\] ")

_LIFECYCLE = re.compile(
    r"VM \w+ \(Lifecycle|During .* does not match|Instance (spawned|destroyed|shutdown|failed|"
    r"running|rebooted|not (found|resizing)|is not|was)|Took \S+ seconds to (build|destroy|spawn)"
    r"|(Rebuild|Reboot|Rescu|Unrescu|Shelv|Unshelv|Paus|Unpaus|Suspend|Resum|Migrat|Terminat|"
    r"Delet|Evacuat|Snapshot|Revert|Confirm|Attach|Detach|Destroy|Start|Stopp|Soft)\w*"
    r"|(instance )?snapshotting|Begin\w* (live|cold) snapshot|Live migration|Post operation"
    r"|Creating image|Booting with|Using config drive",
    re.IGNORECASE,
)
"""Beginnings of nova-compute's lines about the life cycle of an instance."""

_OF_NO_INSTANCE = re.compile(r"[\w.]{1,100} (?:\[[^\]]{0,300}\] )?")
"""What stands between the level and the message: a module, and mostly a request."""

_REFUSED = re.compile(
    r"http\.Unauthorized|\(HTTP 401\)|Placement service credentials"
    r"|Neutron client was not able to generate a valid admin token"
)
"""Parts of nova's messages about a request that was refused because of its credentials."""


def qemu_lines(text: str) -> str:
    """Keep the last lines and the last start in a QEMU log.

    The environment and arguments of a start are dropped: /proc has those of a running process.
    """
    kept: list[str] = []
    last_start: list[str] = []
    in_start = False
    for line in text.splitlines():
        if START.match(line):
            in_start = True
            kept.append(log_line(line))
            last_start = [kept[-1]]
        elif in_start:
            if uuid := _UUID_OF_START.search(line):
                kept.append(f"-uuid {uuid[1]}")
                last_start.append(kept[-1])
            # All lines of a start but the last end in a backslash. Before libvirt 4.7 it was one
            # line.
            in_start = line.endswith("\\")
        elif not is_argument(line):
            kept.append(log_line(line))
    end = kept[-LINES:]
    return "\n".join([line for line in last_start if line not in end] + end)


def is_argument(line: str) -> bool:
    """Return True if a line belongs to a start whose first line was cut off, or is unknown."""
    first, blank, _ = line.partition(" ")
    is_complaint = bool(blank) and "qemu" in first and first.endswith(":")
    is_known = is_complaint or re.match(r"\d{4}-\d\d-\d\d[T ]|char device", line)
    return line.endswith("\\") or not is_known


def kernel_lines(text: str) -> str:
    """Keep the kernel's last lines about exhausted memory, failed storage and crashes."""
    lines = [line for line in text.splitlines() if _KERNEL.search(line)]
    return "\n".join(log_line(line) for line in lines[-KERNEL_LINES:])


def nova_lines(text: str) -> str:
    """Keep nova-compute's last lines about each instance, and about refused requests."""
    by_uuid: dict[str, list[tuple[int, str]]] = {}
    for number, line in enumerate(text.splitlines()):
        level = _LEVEL.search(line)
        if level is None:
            continue
        found = _OF_INSTANCE.search(line, level.end() - 1)
        at = found.end() if found is not None else _start_of_refusal(line, level)
        if at is None or not _is_kept(level["level"], line[at:]):
            continue
        stamp = re.match(r"[\d-]+[T ][\d:.]+(?:[+-][\d:]+)?", line)
        kept = f"{stamp[0] if stamp else ''} {level['level']} "
        uuid = found["uuid"] if found is not None else ""
        about = f"[instance: {uuid}] " if uuid else ""
        by_uuid.setdefault(uuid, []).append((number, kept + about + log_line(line[at:])))
    last = [line for lines in by_uuid.values() for line in lines[-NOVA_LINES:]]
    return "\n".join(line for _, line in sorted(last))


def _start_of_refusal(line: str, level: re.Match[str]) -> int | None:
    """Return where the message about a refused request begins; None for any other line."""
    if level["level"] == "INFO" or _REFUSED.search(line, level.end()) is None:
        return None
    found = _OF_NO_INSTANCE.match(line, level.end())
    return found.end() if found is not None else None


def _is_kept(level: str, message: str) -> bool:
    if level == "INFO":
        return _LIFECYCLE.match(message) is not None
    # A traceback has hundreds of lines, and may hold secrets from arguments.
    return not message.startswith((" ", "Traceback", "During handling", "The above exception"))
