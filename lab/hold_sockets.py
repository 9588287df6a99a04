#!/usr/bin/python3
"""Hold copies of all sockets of a process, so that its peers never see an end of file.

Part of the fault `domain-without-qemu`: libvirt notices qemu's death only by the end of file on
the monitor's socket.

    hold_sockets.py PID FILE    writes FILE when all sockets are held; runs until it is killed
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

PIDFD_GETFD = 438  # the same on every architecture; Python has no wrapper for it


def main(pid: int, ready: Path) -> None:
    """Copy the descriptors with pidfd_getfd(2), and wait."""
    libc = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(pid)
    held = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        if str(link.readlink()).startswith("socket:"):
            copy = libc.syscall(PIDFD_GETFD, process, int(link.name), 0)
            if copy < 0:
                sys.exit(f"pidfd_getfd of {link}: {os.strerror(ctypes.get_errno())}")
            held.append(copy)
    ready.write_text(f"{len(held)}\n")
    signal.pause()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
