"""A shell in which real clients meet the recording.

The stand-ins answer where the servers answered, the images stand where they stood, and ps reads
the recorded /proc: all in namespaces that end with the shell. Environment variables alone would not
do: a client whose own configuration names another socket would reach the live server.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from hoodsnap import memory
from hoodsnap.replay import namespaces, procfs, stage
from hoodsnap.replay.images import PLACES, Images
from hoodsnap.replay.recording import UNREADABLE, NotRecorded, Recording, plain

READERS_OF_PROC = ("ps", "pgrep", "pidof", "pidwait", "top", "pstree", "w")
"""The programs that are run with the recorded /proc in the place of the real one. Not the whole
shell: what runs in it is found in the real one."""

CLIENTS = (*READERS_OF_PROC, "virsh", "mysql", "openstack", "nova", "qemu-img", "qmp-shell")

_UNSET = re.compile(r"LIBVIRT_.*|VIRSH_.*|MYSQL_.*|MARIADB_.*|OS_.*|.*_proxy|.*_PROXY|PYTHON.*")
"""What could lead a client elsewhere, or only to a refusal."""


def run(
    recording: Recording,
    command: str | None,
    say: Callable[[str], None],
    *,
    arguments: tuple[str, ...] = (),
    tell_missed: bool = False,
) -> int:
    """Run a line in a shell, one command with its arguments, or (with neither) a shell to type in;
    its exit status. `tell_missed`: say in the end what was asked for and not recorded.

    Raises `namespaces.NoNamespaces`.
    """
    sockets = namespaces.listening()
    root = Path(tempfile.mkdtemp(prefix="hoodsnap-"))
    told, tell = os.pipe()
    asked, ask = os.pipe()
    mapped, tell_mapped = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(told)
        os.close(asked)

        def ask_for_map() -> None:
            os.write(ask, b"?")
            if not os.read(mapped, 1):
                raise OSError(errno.EPERM, "its users can't be mapped")

        _inside(
            recording, root, sockets, command, arguments, say, started, tell, tell_missed,
            ask_for_map,
        )  # fmt: skip
    for handle in (tell, ask, mapped):
        os.close(handle)
    # It asks as soon as it is in namespaces of its own; if it does not, this ends with it.
    if os.read(asked, 1):
        with contextlib.suppress(OSError):
            namespaces.map_users(child)
            os.write(tell_mapped, b"!")
    os.close(tell_mapped)
    # Ctrl-C is for who is inside; we wait for that to end.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with os.fdopen(told) as pipe:
            refusal = pipe.read()
        _, status = os.waitpid(child, 0)
    finally:
        signal.signal(signal.SIGINT, before)
        with contextlib.suppress(OSError):
            root.rmdir()
    if refusal:
        raise namespaces.NoNamespaces(refusal)
    return os.waitstatus_to_exitcode(status) % 256


def _inside(
    recording: Recording,
    root: Path,
    sockets: tuple[str, ...],
    command: str | None,
    arguments: tuple[str, ...],
    say: Callable[[str], None],
    started: float,
    tell: int,
    tell_missed: bool,
    ask_for_map: Callable[[], None],
) -> None:
    """The child: it never returns."""
    status = 3
    try:
        namespaces.enter(ask_for_map)
        namespaces.memory(root)
        namespaces.silence(sockets, root / "nothing")
        environment = _Stage(recording, root, say).build()
        if command is None and not arguments:
            say(_banner(recording, time.monotonic() - started))
            for line in lacking(recording):
                say(line)
        status = _shell(command, arguments, environment)
    except namespaces.NoNamespaces as reason:
        os.write(tell, str(reason).encode())
    except Exception as error:
        say(f"the shell can't be set up: {type(error).__name__}: {plain(str(error))}")
        if os.environ.get("HOODSNAP_DEBUG"):
            raise
    finally:
        if tell_missed:
            for line in coverage(recording):
                say(line)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def coverage(recording: Recording) -> list[str]:
    """What was asked for and not recorded, most often first."""
    if not recording.missed:
        return ["everything that was asked for was recorded"]
    lines = [
        f"{count:4} × {client:8} {plain(what)}"
        for (client, what), count in recording.missed.most_common()
    ]
    return ["asked for and not recorded:", *lines]


def _banner(recording: Recording, took: float) -> str:
    when = f"{recording.bundle.ended:%Y-%m-%d %H:%M:%S} UTC"
    return (
        f"host {plain(recording.host)} as it was on {when}, ready in {took:.2f} s; nothing here is "
        "live, nothing can be changed; leave with exit"
    )


PARTS = (
    ("libvirt", "virsh list --all", "libvirt", "virsh"),
    ("kernel", "ls -l /proc/*/exe", "the processes", "ps and pgrep"),
    ("nova-db", "SELECT VERSION()", "nova's database", "mysql"),
)
"""Layer and question without which a client hears refusals only, what that is, and the client."""


def lacking(recording: Recording) -> list[str]:
    """What this recording has nothing of, and so which clients can't be asked."""
    lines = []
    for layer, query, what, clients in PARTS:
        try:
            recording.value(layer, query)
        except NotRecorded as reason:
            lines.append(plain(f"not in this recording: {what}, for {clients} ({reason})"))
    apis = [service for service in CLOUD if not any(recording.asked(service, "GET "))]
    if apis:
        lines.append(f"not in this recording: the APIs of {', '.join(apis)}")
    if not any(recording.asked("images", "")):
        lines.append("not in this recording: the disk images, for qemu-img and ls")
    return lines


CLOUD = ("nova", "glance", "neutron", "cinder", "placement")


def _shell(command: str | None, arguments: tuple[str, ...], environment: Mapping[str, str]) -> int:
    shell = shutil.which("bash") or "/bin/sh"
    if arguments:
        line = [*arguments]
    elif command is not None:
        line = [shell, "-c", command]
    else:
        line = [shell, "--norc", "-i"] if shell.endswith("bash") else [shell, "-i"]
    try:
        # The memory that our bundle may take is no limit of the client's.
        done = subprocess.run(line, env=dict(environment), preexec_fn=memory.lift)
        return done.returncode % 256
    except FileNotFoundError:
        sys.stderr.write(f"hoodsnap: {plain(line[0])} is not installed\n")
        return 127


class _Stage:
    """Sets everything up below a folder in memory, and puts it where it was."""

    def __init__(self, recording: Recording, root: Path, say: Callable[[str], None]) -> None:
        self._recording = recording
        self._root = root
        self._say = say
        self._later: list[Callable[[], None]] = []
        """What may wait until the shell is there."""

    def build(self) -> dict[str, str]:
        """The environment for what runs on it."""
        for name in ("bin", "real", "proc", "images"):
            (self._root / name).mkdir()
        if procfs.make(self._recording, self._root / "proc"):
            self._wrap_readers()
            self._wrap_our_own()
        self._put_back_images()
        self._put_back_texts()
        self._name_owners()
        self._stand_in_for_sudo()
        # Last: its threads would hold up all of the above, and nobody asks them before.
        cloud = stage.start(self._recording, self._root, self._say)
        for work in self._later:
            threading.Thread(target=work, daemon=True).start()
        namespaces.bind(self._root / "libvirt", Path("/run/libvirt"))
        namespaces.bind(self._root / "mysqld", Path("/run/mysqld"))
        if any((self._root / "qemu").iterdir()):
            namespaces.bind(self._root / "qemu", Path("/var/lib/libvirt/qemu"))
        return self._environment() | cloud

    def _put_back_images(self) -> None:
        made = self._root / "images"
        namespaces.memory(made, programs=False)
        in_use = _in_use()
        for folder in Images(self._recording, made).make():
            place = Path(os.path.realpath(folder))
            if any(_is_within(place, used) or _is_within(used, place) for used in in_use):
                self._say(f"{folder} is not put back: programs of this machine are there")
                continue
            try:
                namespaces.bind(made / folder.lstrip("/"), Path(folder))
            except OSError as error:
                self._say(f"{folder} is not put back: {error.strerror}")

    def _put_back_texts(self) -> None:
        """The ends of the logs, and nova.conf as far as it was kept."""
        folder = self._root / "texts"
        for answer in self._recording.asked("logs", "tail -c "):
            path = PurePosixPath(answer.query.split(" ", 3)[-1])
            if isinstance(answer.value, str) and _is_log(path):
                with contextlib.suppress(OSError, *UNREADABLE):
                    place = folder / path.relative_to("/")
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_text(answer.value, errors="surrogateescape")
        logs = folder / "var/log"
        for place in sorted(logs.iterdir()) if logs.is_dir() else ():
            with contextlib.suppress(OSError):
                namespaces.bind(place, Path("/var/log") / place.name)
        for answer in self._recording.asked("host", "/etc/nova/nova.conf"):
            with contextlib.suppress(OSError, *UNREADABLE):
                place = folder / "nova.conf"
                place.parent.mkdir(exist_ok=True)
                place.write_text(_configuration(answer.value), errors="surrogateescape")
                namespaces.bind(place, Path("/etc/nova/nova.conf"))

    def _wrap_readers(self) -> None:
        unshare = shutil.which("unshare")
        if unshare is None:
            return
        for name in READERS_OF_PROC:
            found = shutil.which(name)
            if found is None:
                continue
            real = self._root / "real" / name
            real.touch()
            namespaces.bind(Path(os.path.realpath(found)), real)
            wrapper = self._script(name, self._among_the_recorded(unshare, str(real)))
            namespaces.bind(wrapper, Path(os.path.realpath(found)))

    def _wrap_our_own(self) -> None:
        """`hoodsnap collect` in here sees the recorded /proc, and more of it than others do. That
        is made when it is first wanted: whoever reads this pipe waits for its end."""
        unshare = shutil.which("unshare")
        if unshare is None:
            return
        wanted = self._root / "wanted"
        os.mkfifo(wanted)

        def complete() -> None:
            made = self._root / "made"
            made.touch()
            with wanted.open("w"):
                try:
                    procfs.complete(self._recording, self._root / "proc")
                finally:
                    made.rename(wanted)  # from now on there is nothing to wait for

        self._later.append(complete)
        program = f"{shlex.quote(sys.executable)} -m hoodsnap"
        line = self._among_the_recorded(unshare, program)
        self._script("hoodsnap", f"read -r _ <{wanted}\n{line}")

    def _among_the_recorded(self, unshare: str, program: str) -> str:
        """A line of a script that runs a program with the recorded /proc and the script's
        arguments."""
        return (
            f"exec {unshare} --mount --pid --fork /bin/sh -c "
            f'\'mount --bind {self._root}/proc /proc && exec "$0" "$@"\' {program} "$@"'
        )

    def _stand_in_for_sudo(self) -> None:
        """Who has namespaces of his own is root in them already, and sudo could not work there."""
        found = shutil.which("sudo")
        script = self._script(
            "sudo",
            'while :; do case "$1" in\n'
            "-u | -g | -h | -p | -C | -T | -R | -D | -r | -t | -U) shift 2 ;;\n"
            "--) shift; break ;;\n-*) shift ;;\n"
            '*=*) export "$1"; shift ;;\n*) break ;;\nesac; done\nexec "$@"',
        )
        if found is not None:
            namespaces.bind(script, Path(os.path.realpath(found)))

    def _script(self, name: str, text: str) -> Path:
        path = self._root / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def _name_owners(self) -> None:
        """The names of the recorded files' owners, which this machine may not know."""
        names: dict[str, dict[int, str]] = {"passwd": {}, "group": {}}
        for answer in self._recording.asked("images", "find "):
            listed = answer.value if isinstance(answer.value, list) else ()
            for entry in (entry for entry in listed if isinstance(entry, dict)):
                for file, number, name in (
                    ("passwd", entry.get("uid"), entry.get("user")),
                    ("group", entry.get("gid"), entry.get("group")),
                ):
                    if isinstance(number, int) and isinstance(name, str) and stage.is_plain(name):
                        names[file].setdefault(number, name)
        for file, found in names.items():
            here = Path("/etc") / file
            known = here.read_text(errors="surrogateescape") if here.exists() else ""
            taken = {line.split(":")[0] for line in known.splitlines()}
            more = [
                f"{name}:x:{number}:{number}::/:/bin/false"
                if file == "passwd"
                else f"{name}:x:{number}:"
                for number, name in sorted(found.items())
                if name not in taken and 0 < number < 1 << 31
            ]
            if more:
                ours = self._root / file
                text = known + "".join(f"{line}\n" for line in more)
                ours.write_text(text, errors="surrogateescape")
                namespaces.bind(ours, here)

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not _UNSET.fullmatch(name)}
        path = f"{self._root}/bin:{kept.get('PATH', '/usr/sbin:/usr/bin:/sbin:/bin')}"
        host = re.sub(r"[^\w.-]", "_", self._recording.host)
        own = {"PATH": path, "PS1": f"[recorded {host}] \\w\\$ ", "HOME": str(self._home())}
        return kept | own

    def _home(self) -> Path:
        """A home of its own: the caller's may configure clients to go elsewhere."""
        home = self._root / "home"
        home.mkdir()
        return home


def _in_use() -> frozenset[Path]:
    """The folders from which this machine's programs come. A recording may be anybody's: it puts
    nothing in their place."""
    folders = {sys.prefix, sys.base_prefix, str(Path(__file__).parent)}
    folders.update(filter(os.path.isabs, os.environ.get("PATH", "").split(":")))
    for name in CLIENTS:
        if found := shutil.which(name):
            # Of a virtual environment the whole: bin/ is beside what its programs load.
            folders.add(os.path.dirname(os.path.dirname(os.path.realpath(found))))
    real = {Path(os.path.realpath(folder)) for folder in folders}
    return frozenset(real - {Path("/"), *map(Path, PLACES)})


def _is_within(folder: Path, other: Path) -> bool:
    return folder == other or other in folder.parents


def _is_log(path: PurePosixPath) -> bool:
    return (
        path.is_relative_to("/var/log")
        and len(path.parts) > 4
        and all(stage.is_plain(part) for part in path.parts[1:])
    )


def _configuration(sections: object) -> str:
    lines = []
    for section, options in sections.items() if isinstance(sections, dict) else ():
        lines.append(f"[{section}]")
        for option, value in options.items() if isinstance(options, dict) else ():
            lines.append(f"{option} = {value}".replace("\n", " "))
    return "".join(f"{line}\n" for line in lines)
