"""A shell, sealed from the host, in which real clients talk to the recording.

The stand-ins answer at the addresses of the servers, the images are at their recorded paths, and
/proc shows the recorded processes, all in namespaces and memory that disappear with the shell. The
shell sees nothing of the host but its programs (see `tree`), so it can't reach or change the host.

There are four processes. The caller stays outside and carries signals, input and output. A second
process enters the namespaces. Its child is the first process in them: it builds the tree, and
starts the shell and the fourth process, which answers the clients. When the shell or one of the
first three processes ends, all processes below it end.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shlex
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import hoodsnap
from hoodsnap import memory
from hoodsnap.printable import clean
from hoodsnap.replay import procfs, stage, texts
from hoodsnap.replay.apis.services import SERVICES
from hoodsnap.replay.images import MOST_FILES, PLACES, Images
from hoodsnap.replay.recording import NotRecordedError, Recording
from hoodsnap.replay.seal import namespaces, programs, ps, seccomp, streams, terminal, tree

_KEPT = re.compile(r"TERM|COLORTERM|LANG|LANGUAGE|LC_[A-Z]+|COLUMNS|LINES|NO_COLOR|TZ")
"""Environment variables that are passed in. None leads a client to a server or holds a secret."""

_LONGEST_VARIABLE = 256

_OURS = "/run/hoodsnap"
"""Folder of hoodsnap's own programs, first in PATH."""

_MAP, _MAPPED, _READY, _REFUSED, _TERMINAL = b"map", b"mapped", b"ready", b"refused:", b"terminal"
"""Messages between the processes."""

_MESSAGE = 1 << 16


def run(
    recording: Recording,
    command: str | None,
    say: Callable[[str], None],
    *,
    arguments: tuple[str, ...] = (),
    tell_missed: bool = False,
) -> int:
    """Run a command in a sealed shell; return its exit status.

    `command`: a line for the shell. `arguments`: a program with its arguments. With neither, the
    shell is interactive. `tell_missed`: list the requests that were not recorded at the end.

    Raises `namespaces.NoNamespacesError`.
    """
    task = _Task(recording, command, arguments, say, tell_missed)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    is_typed = not (command or arguments)
    standard = streams.Streams(has_terminal=terminal.is_wanted(), is_typed=is_typed)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        ours.close()
        standard.enter()
        task.enter(theirs)
    theirs.close()
    standard.stay()
    with ours:
        master = _wait_until_ready(ours, child)
        status, errors = _wait_until_done(ours, child, master, standard)
    for error in errors:
        if not isinstance(error, BrokenPipeError):
            say(f"the shell's output can't be written: {error.strerror}")
            status = status or 3
    return status


def _wait_until_ready(control: socket.socket, child: int) -> int | None:
    """Wait until the shell is started; return the master of its terminal, if it has one."""
    master = None
    while True:
        message, handles, _, _ = socket.recv_fds(control, _MESSAGE, 1)
        if message == _MAP:
            with contextlib.suppress(OSError):
                namespaces.map_users(child)
                control.send(_MAPPED)
                continue
            control.send(b"")
        elif message == _TERMINAL:
            (master,) = handles
        elif message.startswith(_REFUSED):
            os.waitpid(child, 0)
            raise namespaces.NoNamespacesError(
                message.removeprefix(_REFUSED).decode(errors="replace")
            )
        else:  # ready, or it ended early and reported the reason itself
            return master


def _wait_until_done(
    control: socket.socket, child: int, master: int | None, standard: streams.Streams
) -> tuple[int, list[OSError]]:
    def pass_on(number: int, _: object) -> None:
        with contextlib.suppress(OSError):
            control.send(bytes([number]))

    before = {
        # Ctrl-C is meant for the command, which is in another process group.
        **{each: signal.signal(each, pass_on) for each in (signal.SIGINT, signal.SIGQUIT)},
        **{each: signal.signal(each, terminal.end_on) for each in (signal.SIGTERM, signal.SIGHUP)},
    }
    try:
        with contextlib.nullcontext() if master is None else terminal.carried(master):
            errors = standard.carry(control, master)
        _, status = os.waitpid(child, 0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if master is not None:
            os.close(master)
    return _exit_status(status), errors


def _exit_status(status: int) -> int:
    """Return an exit status as shells do: 128 + N for a process that was ended by signal N."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def coverage(recording: Recording) -> list[str]:
    """Return lines about the requests that were not recorded, the most frequent first."""
    if not recording.missed:
        return ["everything that was requested was recorded"]
    lines = [
        f"{count:4} × {client:8} {clean(what)}"
        for (client, what), count in recording.missed.most_common()
    ]
    return ["requested, but not recorded:", *lines]


def _banner(recording: Recording, took: float) -> str:
    when = f"{recording.bundle.ended:%Y-%m-%d %H:%M:%S} UTC"
    return (
        f"host {clean(recording.host)} as recorded at {when}, ready in {took:.2f} s; nothing here"
        " is live; files that you write are lost with the shell; leave with exit"
    )


PARTS = (
    ("libvirt", "virsh list --all", "libvirt", "virsh"),
    ("kernel", "ls -l /proc/*/exe", "the processes", "ps and pgrep"),
    ("nova-db", "SELECT VERSION()", "nova's database", "mysql"),
)
"""Layer and query that a client depends on, what the query provides, and the client."""


def lacking(recording: Recording) -> list[str]:
    """Return lines about missing parts of the recording, and the clients that need them."""
    lines = []
    for layer, query, what, clients in PARTS:
        try:
            recording.value(layer, query)
        except NotRecordedError as reason:
            lines.append(clean(f"not in this recording: {what}, for {clients} ({reason})"))
    apis = [api.layer for api in SERVICES if not any(recording.asked(api.layer, "GET "))]
    if apis:
        lines.append(f"not in this recording: the APIs of {', '.join(apis)}")
    if not any(recording.asked("images", "")):
        lines.append("not in this recording: the disk images, for qemu-img and ls")
    return lines


class _Task:
    """The processes in the namespaces, from the second process on."""

    def __init__(
        self,
        recording: Recording,
        command: str | None,
        arguments: tuple[str, ...],
        say: Callable[[str], None],
        tell_missed: bool,
    ) -> None:
        self._recording = recording
        self._command = command
        self._arguments = arguments
        self._say = say
        self._tell_missed = tell_missed
        self._started = time.monotonic()
        self._programs = programs.found()
        self._nova_conf = texts.nova_conf(recording)
        self._has_terminal = terminal.is_wanted()

    def enter(self, control: socket.socket) -> NoReturn:
        """Run the second process: enter the namespaces, and fork their first process."""

        def ask_for_map() -> None:
            control.send(_MAP)
            if control.recv(_MESSAGE) != _MAPPED:
                raise PermissionError("users can't be mapped into the namespace")

        status = 3
        try:
            namespaces.end_with_parent()
            os.setsid()  # so that Ctrl-C at the terminal does not end this process
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            _close_inherited(control.fileno())
            namespaces.enter(ask_for_map)
            child = os.fork()
            if child == 0:
                self._be_first(control)
            control.close()
            status = _exit_status(os.waitpid(child, 0)[1])
        except namespaces.NoNamespacesError as reason:
            control.send(_REFUSED + str(reason).encode())
        finally:
            os._exit(status)

    def _be_first(self, control: socket.socket) -> NoReturn:
        status = 3
        try:
            namespaces.end_with_parent()
            entries = self._build()
            listeners = stage.listen(self._recording, Path("/run"))
            if listeners.monitors:
                namespaces.bind("/run/qemu", "/var/lib/libvirt/qemu", flags=tree.DATA)
            tree.close()
            namespaces.drop_privileges()
            seccomp.enter()
            shell = self._start(control, stage.environment(listeners))
            answering, until = self._answer(control, listeners, entries)
            threading.Thread(target=_signal_on, args=(control, shell), daemon=True).start()
            status = _wait_for(shell)
            os.close(until)
            if self._tell_missed:
                _wait_a_moment_for(answering)
        except namespaces.NoNamespacesError as reason:
            control.send(_REFUSED + str(reason).encode())
        except Exception as error:
            self._say(f"the shell can't be set up: {type(error).__name__}: {clean(str(error))}")
            if os.environ.get("HOODSNAP_DEBUG"):
                raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _answer(
        self, control: socket.socket, listeners: stage.Listeners, entries: ps.Entries
    ) -> tuple[int, int]:
        """Fork a process that answers the clients and, at its end, lists the missed requests.

        Returns its PID, and the descriptor whose closing ends it. It is a separate process, so that
        a client that keeps it busy can't prevent the first process from noticing the shell's end.
        """
        waiting, until = os.pipe()
        child = os.fork()
        if child != 0:
            os.close(waiting)
            listeners.close()  # so that the sockets close when the other process ends
            return child, until
        try:
            os.close(until)
            control.close()
            entries.keep()
            stage.answer(self._recording, listeners, self._say)
            os.read(waiting, 1)
            for line in coverage(self._recording) if self._tell_missed else ():
                self._say(line)
        finally:
            sys.stderr.flush()
            os._exit(0)

    def _build(self) -> ps.Entries:
        """Build the tree, with everything recorded in its place."""
        pids = procfs.pids(self._recording)
        namespaces.allow_no_more(max(pids, default=0))
        tree.begin(self._programs)
        made = procfs.make(self._recording, f"{tree.RECORDED}/proc", tree.PROCESSES)
        if made < len(pids):
            self._say(f"only {made} of {len(pids)} recorded processes are restored")
        refused = self._programs.trees
        images = Images(
            self._recording, Path(tree.RECORDED, "images"), [place for place, _ in refused]
        )
        images.make()
        if images.is_cut_off:
            self._say(f"only {MOST_FILES} of the recorded files and folders are restored")
        for folder in images.covered:
            self._say(f"{clean(folder)} is not restored: it holds programs of this machine")
        texts.put_back(self._recording, self._nova_conf)
        entries = ps.Entries()
        self._make_own_programs()
        tree.finish(self._programs, PLACES)
        socket.sethostname(_host_name(self._recording))
        return entries

    def _make_own_programs(self) -> None:
        # -I keeps Python from importing anything from the current folder.
        above = os.path.dirname(os.path.dirname(os.path.realpath(hoodsnap.__file__)))
        start = f"import sys; sys.path.append({above!r}); from hoodsnap.cli import main; main()"
        python = f"{shlex.quote(sys.executable)} -I -c {shlex.quote(start)}"
        _script("hoodsnap", f'exec {python} "$@"')
        _script("sudo", _SUDO)
        _stand_before("sudo")
        for name in ps.PROGRAMS:
            if (program := _program(name)) is not None:
                real = f"{_OURS}/real/{name}"
                tree.write(real, "")
                namespaces.bind(program, real)
                _script(name, ps.wrapper(real))
                _stand_before(name)

    def _start(self, control: socket.socket, cloud: dict[str, str]) -> int:
        """Start the shell in its own session; return its PID. To be called before there are
        threads."""
        slave = None
        if self._has_terminal:
            master, slave = os.openpty()
            socket.send_fds(control, [_TERMINAL], [master])
            os.close(master)
            terminal.replace(slave)  # our messages go there as well
        control.send(_READY)
        line = self._line()
        if not (self._command or self._arguments):
            self._say(_banner(self._recording, time.monotonic() - self._started))
            for lack in lacking(self._recording):
                self._say(lack)
        environment = self._environment() | cloud
        child = os.fork()
        if child != 0:
            if slave is not None:
                os.close(slave)
            return child
        try:
            for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            if slave is not None:
                terminal.take(slave)
            os.chdir(tree.HOME)
            os.umask(0o022)
            os.closerange(3, 1 << 16)
            memory.lift()  # the limit for reading the bundle does not apply to clients
            with contextlib.suppress(OSError, ValueError):  # the limit is 0 already
                # Not 0, because then the kernel would still pipe cores to the host's program.
                resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
            os.execvpe(line[0], line, environment)  # noqa: S606 it becomes the command
        except (FileNotFoundError, NotADirectoryError):
            os.write(2, f"hoodsnap: {clean(line[0])} is not installed\n".encode())
            os._exit(127)
        except OSError as error:
            os.write(2, f"hoodsnap: {clean(line[0])}: {error.strerror}\n".encode())
            os._exit(126)
        finally:
            os._exit(3)

    def _line(self) -> list[str]:
        if self._arguments:
            return [*self._arguments]
        shell = shutil.which("bash", path=self._path()) or "/bin/sh"
        if self._command is not None:
            return [shell, "-c", self._command]
        return [shell, "--norc", "--noprofile", "-i"] if shell.endswith("bash") else [shell, "-i"]

    def _path(self) -> str:
        return ":".join((_OURS, *self._programs.path))

    def _environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if _KEPT.fullmatch(name) and len(value) <= _LONGEST_VARIABLE
        }
        return kept | {
            "PATH": self._path(),
            "PS1": f"[recorded {_host_name(self._recording)}] \\w\\$ ",
            "HOME": tree.HOME,
            "USER": "root",
            "LOGNAME": "root",
            "SHELL": "/bin/bash",
        }


_SUDO = """while :; do case "$1" in
-u | -g | -h | -p | -C | -T | -R | -D | -r | -t | -U) shift 2 ;;
--) shift; break ;;
-*) shift ;;
*=*) export "$1"; shift ;;
*) break ;;
esac; done
exec "$@"
"""
"""Replacement for sudo: the user is root already, and the real sudo can't work in the shell."""


def _script(name: str, text: str) -> None:
    path = f"{_OURS}/{name}"
    tree.write(path, f"#!/bin/sh\n{text}\n")
    os.chmod(path, 0o755)  # noqa: S103 it is a program


def _program(name: str) -> str | None:
    """Return the real path of a system program; None if it is not installed."""
    found = shutil.which(name, path=":".join(programs.SYSTEM_PATH))
    return None if found is None else os.path.realpath(found)


def _stand_before(name: str) -> None:
    """Run our script instead of a system program, even if the program's full path is typed."""
    if (program := _program(name)) is not None:
        namespaces.bind(f"{_OURS}/{name}", program)


def _host_name(recording: Recording) -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "_", recording.host)[:63] or "recorded"


def _wait_for(shell: int) -> int:
    """Wait for the shell, reaping orphans meanwhile; return its exit status."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == shell:
            return _exit_status(status)


def _wait_a_moment_for(child: int) -> None:
    """Wait until a child has ended, for three seconds at most."""
    with contextlib.suppress(ChildProcessError):  # it was reaped already
        for _ in range(300):
            if os.waitpid(child, os.WNOHANG)[0]:
                return
            time.sleep(0.01)


def _signal_on(control: socket.socket, shell: int) -> None:
    """Pass the caller's signals on to the shell's process group."""
    while message := control.recv(_MESSAGE):
        with contextlib.suppress(OSError):
            os.killpg(shell, message[0])


def _close_inherited(kept: int) -> None:
    """Close all inherited descriptors but the standard streams and `kept`, so that none leads out
    of the namespaces."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != kept:
            with contextlib.suppress(OSError):  # the descriptor that listed the folder
                os.close(int(name))
