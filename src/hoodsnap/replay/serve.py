"""The stand-ins where namespaces are missing: sockets, and the variables that lead clients there.

A client that is led only by its environment may go elsewhere after all (MYSQL_UNIX_PORT gives way
to a configuration file), and on a host with live servers elsewhere is the live one. So this is
refused where one listens.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from hoodsnap.replay import namespaces, stage
from hoodsnap.replay.recording import Recording

LIVE = ("/libvirt-sock", "/virtqemud-sock", "/mysqld.sock", "/mysql.sock")
"""The ends of the names of sockets on which a live server is likely to listen."""


@contextlib.contextmanager
def folder_of_ours() -> Iterator[Path]:
    """A folder that only this user can enter. It goes when this process ends, however it ends: a
    process of its own waits for that. Entered before there are threads."""
    folder = tempfile.mkdtemp(prefix="hoodsnap-")
    waiting, held = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(held)
        os.setsid()  # a key typed at the terminal is not for it
        os.read(waiting, 1)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)
    os.close(waiting)
    try:
        yield Path(folder)
    finally:
        os.close(held)
        os.waitpid(child, 0)


def live_sockets() -> tuple[str, ...]:
    """The sockets of live libvirt daemons and databases on this host."""
    return tuple(path for path in namespaces.listening() if path.endswith(LIVE))


def start(recording: Recording, folder: Path, say: Callable[[str], None]) -> list[str]:
    """Start the stand-ins; the lines that a shell has to read."""
    password = secrets.token_hex(16)
    listeners = stage.listen(recording, folder, ports=False)
    stage.answer(recording, listeners, say, password)
    environment = stage.environment(listeners, password)
    libvirt = folder / "libvirt" / "libvirt-sock"
    mysql = folder / "mysqld" / "mysqld.sock"
    environment["LIBVIRT_DEFAULT_URI"] = f"qemu+unix:///system?socket={libvirt}"
    lines = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    # The option goes before every configuration file; the variable does not.
    command = f"mysql --no-defaults --socket={shlex.quote(str(mysql))}"
    lines.append(f"alias mysql={shlex.quote(command)}")
    return lines
