"""Stand-ins without namespaces: sockets, and the environment variables that lead clients to them.

Environment variables alone are not reliable: a configuration file overrides MYSQL_UNIX_PORT, for
example, and on a host with live servers the client would then reach a live one. So the command
`serve` refuses to run on such a host.
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

from hoodsnap.replay import stage
from hoodsnap.replay.recording import Recording
from hoodsnap.replay.seal import namespaces

LIVE = ("/libvirt-sock", "/virtqemud-sock", "/mysqld.sock", "/mysql.sock")
"""Endings of the paths of sockets on which a live server probably listens."""


@contextlib.contextmanager
def folder_of_ours() -> Iterator[Path]:
    """Create a folder that only this user can enter.

    A child process removes it when this process ends for any reason. To be entered before there are
    threads.
    """
    folder = tempfile.mkdtemp(prefix="hoodsnap-")
    waiting, held = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(held)
        os.setsid()  # so that Ctrl-C at the terminal does not end it
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
    """Return the sockets of live libvirt daemons and databases on this host."""
    return tuple(path for path in namespaces.listening() if path.endswith(LIVE))


def start(recording: Recording, folder: Path, say: Callable[[str], None]) -> list[str]:
    """Start the stand-ins; return the lines that a shell must evaluate."""
    password = secrets.token_hex(16)
    listeners = stage.listen(recording, folder, ports=False)
    stage.answer(recording, listeners, say, password)
    environment = stage.environment(listeners, password)
    libvirt = folder / "libvirt" / "libvirt-sock"
    mysql = folder / "mysqld" / "mysqld.sock"
    environment["LIBVIRT_DEFAULT_URI"] = f"qemu+unix:///system?socket={libvirt}"
    lines = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    # The option overrides every configuration file; the variable does not.
    command = f"mysql --no-defaults --socket={shlex.quote(str(mysql))}"
    lines.append(f"alias mysql={shlex.quote(command)}")
    return lines
