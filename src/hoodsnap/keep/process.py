"""Allow-lists for what the kernel shows of a process beside its command line."""

from __future__ import annotations

import re

# The kernel keeps fifteen characters of a name.
_LISTENER = re.compile(r'"\.?(qemu-(system|kvm)[^"]*|kvm(-spice)?|qemu)",pid=')

# A process may call itself `qemu",pid=1`, or have a line end in its name: no such line is kept.
_USER = r'\("[^"]*+",pid=\d{1,10},fd=\d{1,10}\)'
_SOCKET = re.compile(rf"LISTEN +\d+ +\d+ +\S+ +\S+ +users:\({_USER}(?>(?:,{_USER})*)\)")


def listeners(text: str) -> str:
    """Keep of what `ss` printed the TCP sockets on which an emulator listens: its consoles, and
    what a migration waits at."""
    lines = (line.rstrip() for line in text.splitlines())
    return "".join(
        f"{line}\n" for line in lines if _LISTENER.search(line) and _SOCKET.fullmatch(line)
    )


def open_file(fdinfo: str) -> dict[str, str]:
    """Keep of /proc/PID/fdinfo/FD the flags, and the interface behind a /dev/net/tun: which tap the
    process holds."""
    lines = dict(line.partition(":")[::2] for line in fdinfo.splitlines())
    return {name: lines[name].strip() for name in ("flags", "iff") if name in lines}


def thread(status: str) -> dict[str, str]:
    """Keep of a thread's status its name and the CPUs that it may run on."""
    lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    return {"comm": lines.get("Name", ""), "cpus": lines.get("Cpus_allowed_list", "")}
