#!/usr/bin/python3
"""Stop a process as gdb does, and hold it until this program is ended.

Part of the fault `qemu-traced`. The kernel lets the process continue when its tracer ends.

    trace.py PID
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

PTRACE_ATTACH = 16


def main(pid: int) -> None:
    """Attach to every thread, which stops it, and wait."""
    libc = ctypes.CDLL(None, use_errno=True)
    for thread in sorted(int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()):
        if libc.ptrace(PTRACE_ATTACH, thread, None, None) != 0:
            sys.exit(f"ptrace of {thread}: {os.strerror(ctypes.get_errno())}")
        os.waitpid(thread, 0x40000000)  # __WALL: threads, too
    signal.pause()


if __name__ == "__main__":
    main(int(sys.argv[1]))
