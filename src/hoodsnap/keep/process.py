"""Allow-lists for what the kernel shows of a process besides its command line."""

from __future__ import annotations

import re

# The kernel cuts names to fifteen characters.
_LISTENER = re.compile(r'"\.?(qemu-(system|kvm)[^"]*|kvm(-spice)?|qemu)",pid=')

# A process may be named `qemu",pid=1` or have a newline in its name: such lines are not kept.
_USER = r'\("[^"]*+",pid=\d{1,10},fd=\d{1,10}\)'
_SOCKET = re.compile(rf"LISTEN +\d+ +\d+ +\S+ +\S+ +users:\({_USER}(?>(?:,{_USER})*)\)")


def listeners(text: str) -> str:
    """Keep the lines of `ss` about TCP sockets on which an emulator listens: for consoles, and for
    incoming migrations."""
    lines = (line.rstrip() for line in text.splitlines())
    return "".join(
        f"{line}\n" for line in lines if _LISTENER.search(line) and _SOCKET.fullmatch(line)
    )


def most_open_files(limits: str) -> str:
    """Keep the line about open files; empty without it.

    `limits`: the text of /proc/PID/limits.
    """
    lines = limits.splitlines(keepends=True)
    return next((line for line in lines if line.startswith("Max open files ")), "")


def tracer_of(status: str) -> int | None:
    """Return the PID of the program that traces a process (gdb, strace); None if none does.

    `status`: the text of /proc/PID/status.
    """
    found = re.search(r"^TracerPid:\t([1-9][0-9]{0,9})$", status, re.MULTILINE)
    return int(found[1]) if found else None


def open_file(fdinfo: str) -> dict[str, str]:
    """Keep the flags of an open file, and for /dev/net/tun the name of its tap (`iff`).

    `fdinfo`: the text of /proc/PID/fdinfo/FD.
    """
    lines = dict(line.partition(":")[::2] for line in fdinfo.splitlines())
    return {name: lines[name].strip() for name in ("flags", "iff") if name in lines}


def thread(status: str) -> dict[str, str]:
    """Keep a thread's name and the CPUs that it may run on."""
    lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    return {"comm": lines.get("Name", ""), "cpus": lines.get("Cpus_allowed_list", "")}
