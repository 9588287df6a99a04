"""Small recorded text files in a shell: the ends of logs, nova.conf, passwd and group.

Each has a fixed place and form, whatever a recording holds: none is a program, and no setting leads
a client to another server.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from hoodsnap.replay.recording import UNREADABLE, Recording
from hoodsnap.replay.seal import tree
from hoodsnap.replay.stage import is_plain

MOST_LOGS = 1000
MOST_OWNERS = 10_000

LONGEST_OPTION = 4096
"""Largest number of characters in an option's value in nova.conf."""

_HARMLESS = {
    ("libvirt", "connection_uri"): "qemu:///system",
    ("DEFAULT", "libvirt_uri"): "qemu:///system",
}
"""Options that lead a client to a server; they are restored with the stand-in's address."""

_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")


def nova_conf(recording: Recording) -> str | None:
    """Return the text of nova.conf; None if it was not recorded. To be called while Python's
    modules can still be imported."""
    for answer in recording.asked("host", "/etc/nova/nova.conf"):
        with contextlib.suppress(*UNREADABLE):
            return configuration(answer.value)
    return None


def put_back(recording: Recording, nova_conf: str | None) -> None:
    """Write all these files into the new tree."""
    _put_back_logs(recording)
    if nova_conf is not None:
        tree.write("/etc/nova/nova.conf", nova_conf)
    _name_owners(recording)


def _put_back_logs(recording: Recording) -> None:
    made = 0
    for answer in recording.asked("logs", "tail -c "):
        path = PurePosixPath(answer.query.split(" ", 3)[-1])
        if made < MOST_LOGS and isinstance(answer.value, str) and _is_log(path):
            made += 1
            with contextlib.suppress(OSError, *UNREADABLE):
                below = path.relative_to("/var/log")
                tree.write(f"{tree.RECORDED}/log/{below}", answer.value)


def _is_log(path: PurePosixPath) -> bool:
    return (
        path.is_relative_to("/var/log")
        and 4 < len(path.parts) < 10
        and all(is_plain(part) for part in path.parts[1:])
    )


def configuration(sections: object) -> str:
    """Return a nova.conf with the recorded options that the collector keeps, each on one line.

    Options that lead a client to a server get the stand-in's address.
    """
    from hoodsnap.keep.nova_conf import KEPT

    lines = []
    for section, options in sections.items() if isinstance(sections, dict) else ():
        if section not in KEPT or not isinstance(options, dict):
            continue
        lines.append(f"[{section}]")
        for option, value in options.items():
            if option in KEPT[section] and isinstance(value, str):
                value = _HARMLESS.get((section, option), value)
                is_short = len(value) <= LONGEST_OPTION and value.isprintable()
                if is_short and not _has_arguments(value):
                    lines.append(f"{option} = {value}")
    return "".join(f"{line}\n" for line in lines)


def _has_arguments(value: str) -> bool:
    """True if the value is a URI with arguments, which can name a command or a file."""
    rest = value.partition("://")[2]
    return "?" in rest or "&" in rest


def _name_owners(recording: Recording) -> None:
    """Write passwd and group with root, nobody, and the owners of the recorded files."""
    users: dict[int, str] = {0: "root", 65534: "nobody"}
    groups: dict[int, str] = {0: "root", 5: "tty", 65534: "nogroup"}
    for entry in _entries(recording):
        _name(users, entry.get("uid"), entry.get("user"))
        _name(groups, entry.get("gid"), entry.get("group"))
    tree.write(
        "/etc/passwd",
        "".join(
            f"{name}:x:{number}:{number}::{tree.HOME if number == 0 else '/'}:"
            f"{'/bin/bash' if number == 0 else '/bin/false'}\n"
            for number, name in users.items()
        ),
    )
    tree.write("/etc/group", "".join(f"{name}:x:{number}:\n" for number, name in groups.items()))


def _entries(recording: Recording) -> Iterator[dict[str, object]]:
    for answer in recording.asked("images", "find "):
        for entry in answer.value if isinstance(answer.value, list) else ():
            if isinstance(entry, dict):
                yield entry


def _name(names: dict[int, str], number: object, name: object) -> None:
    if (
        isinstance(number, int)
        and isinstance(name, str)
        and 0 < number < 1 << 31
        and len(names) < MOST_OWNERS
        and _ACCOUNT.fullmatch(name) is not None
        and name not in ("root", "nobody", "tty", "nogroup")
    ):
        names.setdefault(number, name)
