"""Logs of each QEMU, the kernel and nova-compute: only their last lines.

No file is read from its beginning. `hoodsnap.keep.log` decides which lines are kept.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from hoodsnap.collect import file
from hoodsnap.collect.program import run
from hoodsnap.collect.recorder import Recorder, RefusedError
from hoodsnap.collect.trusted.service import service
from hoodsnap.keep.log import kernel_lines, nova_lines, qemu_lines
from hoodsnap.keep.nova_conf import Configuration

LAYER = "logs"

QEMU_FOLDERS = (
    "/var/log/libvirt/qemu",
    "/var/log/kolla/libvirt/qemu",
    "/var/lib/docker/volumes/kolla_logs/_data/libvirt/qemu",
    "/var/lib/containers/storage/volumes/kolla_logs/_data/libvirt/qemu",
    "/var/log/containers/libvirt/qemu",  # TripleO
)
"""Folders in which libvirt writes one log per domain, named after the domain."""

NOVA_LOGS = (
    "/var/log/nova/nova-compute.log",
    "/var/log/kolla/nova/nova-compute.log",
    "/var/lib/docker/volumes/kolla_logs/_data/nova/nova-compute.log",
    "/var/lib/containers/storage/volumes/kolla_logs/_data/nova/nova-compute.log",
    "/var/log/containers/nova/nova-compute.log",  # TripleO
)

UNITS = ("nova-compute", "openstack-nova-compute", "devstack@n-cpu")
"""Names of nova-compute's unit, for hosts on which it writes only to the journal."""

TAIL = 64 << 10
"""Bytes read from a QEMU log. One start of QEMU writes four thousand."""

NOVA_TAIL = 4 << 20
"""Bytes read from nova-compute's log: a day on a quiet host, an hour on a host in trouble."""

_LOOK = 2.0
"""Seconds to find out if a file exists."""


def ask_logs(recorder: Recorder, conf: Configuration, names: Mapping[str, str]) -> None:
    """Ask for the logs of these domains (UUID → name), of the kernel and of nova-compute."""
    _ask_qemu(recorder, names)
    ask = recorder.ask
    listed = ask(LAYER, "dmesg --time-format iso", partial(_kernel, _DMESG))
    if listed.error is not None and listed.error.kind != "timeout":
        ask(LAYER, "journalctl -k -o short-iso", partial(_kernel, _JOURNAL))
    if (path := _first_of(recorder, _nova_logs(recorder, conf), _is_there)) is not None:
        query = f"tail -c {NOVA_TAIL} {path}"
        ask(LAYER, query, lambda: nova_lines(file.tail(path, NOVA_TAIL)))
    else:
        units = [word for unit in UNITS for word in ("-u", unit)]
        command = ["journalctl", *units, "-n", "20000", "-o", "short-iso"]
        ask(LAYER, " ".join(command), lambda: nova_lines(run([*command, "--no-pager"])))


def ask_again(recorder: Recorder, names: Mapping[str, str]) -> None:
    """Ask again for the logs of these domains, which have changed."""
    _ask_qemu(recorder, names)


def _ask_qemu(recorder: Recorder, names: Mapping[str, str]) -> None:
    folder = _first_of(recorder, map(Path, QEMU_FOLDERS), _has_logs) or Path(QEMU_FOLDERS[0])
    listed = recorder.ask(LAYER, f"ls -l {folder}", lambda: _logs_in(folder))
    if listed.error is not None:
        return
    there = {entry["name"] for entry in listed.value}
    for uuid, name in sorted(names.items(), key=lambda item: item[1]):
        if f"{name}.log" in there:
            path = folder / f"{name}.log"
            query = f"tail -c {TAIL} {path}"
            recorder.ask(LAYER, query, partial(_qemu_log, path), subject=uuid, source=str(folder))


def _first_of(
    recorder: Recorder, paths: Iterable[Path], wanted: Callable[[Path], bool]
) -> Path | None:
    """Return the first path that is wanted, or that can't be read: asking for it records why."""
    for path in paths:
        # Even stat may hang: the path may lie on a dead NFS server.
        found = recorder.wait(LAYER, partial(wanted, path), _LOOK, source=str(path))
        if found is True or isinstance(found, PermissionError | TimeoutError | RefusedError):
            return path
    return None


def _has_logs(folder: Path) -> bool:
    try:
        return any(name.endswith(".log") for name in file.names(folder))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _is_there(path: Path) -> bool:
    try:
        return stat.S_ISREG(file.status(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _logs_in(folder: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    with file.folder(folder) as handle:
        for name in file.names_at(handle, str(folder)):
            if name.endswith(".log"):
                status = os.stat(name, dir_fd=handle, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    found.append({"name": name, "size": status.st_size, "mtime": status.st_mtime})
    return found


def _nova_logs(recorder: Recorder, conf: Configuration) -> list[Path]:
    """Return the paths at which nova-compute's log may be, the configured path first."""
    options = conf.get("DEFAULT", {})
    name = options.get("log_file", options.get("logfile", "nova-compute.log"))
    folder = options.get("log_dir", options.get("logdir", "/var/log/nova"))
    own = os.path.normpath(os.path.join("/", folder, name))
    if "$" in own or own.startswith(NO_LOGS):
        return [*map(Path, NOVA_LOGS)]
    # A process can make its readers wait.
    root = recorder.wait(LAYER, _root_of_nova, _LOOK, source="nova-compute")
    return [*([Path(f"{root}{own}")] if isinstance(root, str) else []), *map(Path, NOVA_LOGS)]


NO_LOGS = ("/proc/", "/sys/", "/dev/")
"""Folders with files that change when they are read: /proc/kmsg drops each line it returns."""


def _root_of_nova() -> str:
    """Return the path of the service's `/`, since a container has its own files.

    The empty text if it is the collector's `/`, or if nova-compute is not running.
    """
    nova = service()
    return "" if nova is None or nova.root.samefile("/") else str(nova.root)


def _qemu_log(path: Path) -> str:
    return qemu_lines(file.tail(path, TAIL))


_DMESG = ("dmesg", "--time-format", "iso")
_JOURNAL = ("journalctl", "-k", "-o", "short-iso", "-n", "20000", "--no-pager")


def _kernel(command: tuple[str, ...]) -> str:
    return kernel_lines(run(command))
