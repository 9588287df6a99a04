"""Configuration of nova as the running service reads it: the files, their order, their owners."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hoodsnap.collect.configuration_file import DescribedFile
from hoodsnap.collect.oslo_config import parse, substituted
from hoodsnap.collect.recorder import Recorder, RefusedError
from hoodsnap.collect.trusted.ownership import Owners, names_in, read_owned
from hoodsnap.collect.trusted.service import COMPUTE, Found, RunningService, account, find
from hoodsnap.keep.nova_conf import Configuration


@dataclass(frozen=True, slots=True)
class NovaConf:
    """Configuration of the running service; if none runs, the one that it would read."""

    options: Configuration
    """Options in the trusted files, including passwords."""
    found: Found
    """The processes with the service's name."""
    refused: tuple[tuple[str, RefusedError], ...] = ()
    """The files that the service reads and that are not trusted: path and reason."""
    files: tuple[str, ...] = ()
    """The files that were read."""
    described: tuple[DescribedFile, ...] = ()
    """The files that the service reads, in its order: a later one overrides an earlier one."""

    @classmethod
    def nothing(cls, why: object) -> NovaConf:
        """Return an empty configuration; `why` is the exception that reading it raised."""
        late = isinstance(why, TimeoutError)
        refusal = RefusedError(
            "timeout" if late else "failed",
            f"nova.conf was not read: {str(why) or 'reading it took too long'}",
        )
        return cls({}, Found(COMPUTE, (), ()), (("/etc/nova/nova.conf", refusal),))

    @property
    def owners(self) -> Owners:
        """Accounts that may write the configuration: root's and the service's."""
        return _owners(self.found)

    @property
    def knows_account(self) -> bool:
        """True if nova's account on this host is known."""
        return self.found.service is not None or account("nova") is not None

    @property
    def service(self) -> RunningService | None:
        """The running service; None if none runs."""
        return self.found.service

    @property
    def unread(self) -> RefusedError | None:
        """Reason why the configuration is unknown or incomplete; None if all of it was read."""
        if self.refused:
            return self.refused[0][1]
        if self.files:
            return None
        return RefusedError("absent", "no configuration file of nova exists on this host")

    def say(self, recorder: Recorder) -> None:
        """Record which processes and files are not trusted, and why."""
        self.found.say(recorder)
        for path, refusal in self.refused:
            recorder.refuse("host", f"ls -ld {path}", refusal)


def read_nova_conf(program: str = COMPUTE, root: Path = Path("/")) -> NovaConf:
    """Read the configuration of the running service of this name, or the host's if none runs.

    Files that don't exist are left out. Files that can't be read, or that accounts other than root
    and the service's own could have written, are reported in `refused`.
    """
    found = find(program)
    running = found.service
    reader = _Reader(_owners(found), running.root if running else root)
    files = _files_of(running, program, reader) if running else _files_on(program, reader)
    merged: Configuration = {}
    described = []
    for file in files:
        lines = reader.lines(file)
        for section, options in parse(lines).items():
            merged.setdefault(section, {}).update(options)
        if file in reader.read:
            described.append(DescribedFile.of(file, lines))
        elif running is not None and file in reader.named and not reader.exists(file):
            described.append(DescribedFile(file, is_absent=True))
    refused, read = tuple(reader.refused.items()), tuple(reader.read)
    return NovaConf(substituted(merged), found, refused, read, tuple(described))


def _owners(found: Found) -> Owners:
    """Return root, our own account, and the running service's; if none runs, the account nova."""
    if found.service is not None:
        own = found.service.owners
    else:
        nova = account("nova")
        own = Owners(frozenset({nova.pw_uid}), frozenset({nova.pw_gid})) if nova else Owners()
    return Owners(own.uids | {os.geteuid()}, own.gids | {os.getegid()})


class _Reader:
    """Reader of a service's files inside its root. It notes the files that are not trusted."""

    def __init__(self, owners: Owners, root: Path) -> None:
        self.refused: dict[str, RefusedError] = {}
        self.read: list[str] = []
        self.named: list[str] = []
        """The files that the service must read; it does not start without them."""
        self._owners = owners
        self._root = str(root)

    def lines(self, path: str) -> list[str]:
        """Return the lines of a file; none if it does not exist or is not trusted."""
        try:
            text = read_owned(path, self._owners, root=self._root)
        except RefusedError as refusal:
            self._note(path, refusal)
            return []
        self.read.append(path)
        return text.splitlines(keepends=True)

    def files_in(self, folder: str) -> list[str]:
        """Return the paths of the configuration files in a folder, sorted."""
        try:
            names = names_in(folder, self._owners, root=self._root)
        except RefusedError as refusal:
            self._note(folder, refusal)
            return []
        return [f"{folder}/{name}" for name in names if _is_conf(name)]

    def exists(self, path: str) -> bool:
        """Return True if a file exists, trusted or not."""
        return os.path.lexists(f"{self._root.rstrip('/')}{path}")

    def _note(self, path: str, refusal: RefusedError) -> None:
        if refusal.kind != "absent":
            self.refused[path] = refusal


def _is_conf(name: str) -> bool:
    return name.endswith(".conf") and not name.startswith(".")


def _files_of(running: RunningService, program: str, reader: _Reader) -> list[str]:
    """Return the files that a running service was started with, in the order it reads them."""
    explicit: list[str] = []
    named = {"--config-file": False, "--config-dir": False}
    words = iter(running.arguments)
    for word in words:
        option, equals, value = word.partition("=")
        if option not in named:
            continue
        named[option] = True
        path = "/" + (value if equals else next(words, "")).lstrip("/")
        explicit += [path] if option == "--config-file" else reader.files_in(path)
        if option == "--config-file":
            reader.named.append(path)
    files = [] if named["--config-file"] else _default_files(program)
    # With --config-file, the default folders are still read, before the named files.
    folders = [] if named["--config-dir"] else _default_folders(program, reader)
    return files + folders + explicit


def _files_on(program: str, reader: _Reader) -> list[str]:
    """Return the files that a service would read on this host, wherever they were installed."""
    places = [
        [*_default_files(program), *_default_folders(program, reader)],
        [f"/etc/kolla/{program}/nova.conf"],
        ["/var/lib/config-data/puppet-generated/nova_libvirt/etc/nova/nova.conf"],
    ]
    if program == COMPUTE:  # DevStack has a separate file for it, without databases
        places.insert(0, ["/etc/nova/nova-cpu.conf"])
    return next((files for files in places if any(map(reader.exists, files))), [])


def _default_files(program: str) -> list[str]:
    return [
        "/usr/share/nova/nova-dist.conf",  # RDO
        "/etc/nova/nova.conf",
        f"/etc/nova/{program}.conf",
    ]


def _default_folders(program: str, reader: _Reader) -> list[str]:
    return [
        *reader.files_in("/etc/nova/nova.conf.d"),
        *reader.files_in(f"/etc/nova/{program}.conf.d"),
    ]
