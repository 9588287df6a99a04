"""Run a command where some folders are on file systems that never answer.

    dead_mounts.py FOLDER... -- COMMAND...

The mounts exist only for this process and its children. Each is a FUSE file system whose server
reads every request and answers none, like a stopped one: whoever touches it can't even be killed.
Needs root.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading

NEWNS, PRIVATE = 0x20000, 0x44000  # CLONE_NEWNS; MS_PRIVATE | MS_REC

libc = ctypes.CDLL(None, use_errno=True)


def must(status: int) -> None:
    """Raise the error of a call that failed."""
    if status != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def bury(folder: str) -> int:
    """Mount a dead file system on a folder; return the descriptor that its server would have."""
    handle = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={handle},rootmode=40000,user_id=0,group_id=0,allow_other"
    must(libc.mount(b"dead", folder.encode(), b"fuse", 0, options.encode()))

    def swallow() -> None:
        while True:
            try:
                os.read(handle, 1 << 20)
            except OSError:
                return

    threading.Thread(target=swallow, daemon=True).start()
    return handle


def main(words: list[str]) -> int:
    """Make the mounts, run the command, and return its exit status."""
    at = words.index("--")
    must(libc.unshare(NEWNS))
    must(libc.mount(b"none", b"/", None, PRIVATE, None))
    for folder in words[:at]:
        if folder.endswith("="):  # a tmpfs of one page
            must(libc.mount(b"small", folder[:-1].encode(), b"tmpfs", 0, b"size=4k"))
            continue
        if not os.path.isdir(folder):
            top = "/" + folder.split("/")[1]
            must(libc.mount(b"top", top.encode(), b"tmpfs", 0, None))
            os.makedirs(folder)
        bury(folder)
    return subprocess.run(words[at + 1 :], timeout=120).returncode


if __name__ == "__main__":
    # The connections end with this process, and with them all who wait.
    status = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)
