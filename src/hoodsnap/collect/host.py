"""Answers of the host about itself: configuration, versions, clocks, and the collector's view."""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from hoodsnap.collect import file
from hoodsnap.collect.configuration import NovaConf
from hoodsnap.collect.configuration_file import described_log, log_of, reader_of
from hoodsnap.collect.definition_file import ask_definition_files, list_again
from hoodsnap.collect.program import PATH, run
from hoodsnap.collect.recorder import Recorder, RefusedError
from hoodsnap.collect.trusted.ownership import Owners, read_owned
from hoodsnap.collect.trusted.service import COMPUTE, Found, RunningService, find
from hoodsnap.keep.libvirt_conf import LIBVIRT_CONF, libvirt_settings
from hoodsnap.keep.nova_conf import Configuration, is_compute_id, kept
from hoodsnap.trust.challenge import BOOT_ID
from hoodsnap.trust.challenge import QUERY as CHALLENGE
from hoodsnap.trust.fingerprint import LAYER

PACKAGES = (
    *("nova-common", "nova-compute", "nova-compute-libvirt", "python3-nova"),
    *("openstack-nova-common", "openstack-nova-compute"),
    *("qemu-system-x86", "qemu-system-arm", "qemu-utils", "qemu-block-extra"),
    *("qemu-kvm", "qemu-kvm-core", "qemu-img"),
    *("libvirt0", "libvirt-daemon", "libvirt-daemon-system", "libvirt-daemon-driver-qemu"),
    *("libvirt-libs", "python3-libvirt", "python3-os-vif", "python3-os-brick"),
    *("openvswitch-switch", "openvswitch"),
)
"""Packages, of any distribution, whose versions decide the form of the layers' answers."""

LARGEST = 4 << 20
"""Bytes of one file. /proc/cpuinfo has 1,500 for each processor."""

_PATIENCE = 5.0
"""Seconds for examining all processes."""

ROOMS = ("/", "/run", "/tmp", "/var", "/var/lib/libvirt", "/var/lib/nova", "/var/log")  # noqa: S108
"""Folders that libvirt, nova-compute and other daemons write to."""

OF_PS = (
    "/proc/stat",
    "/proc/loadavg",
    "/proc/version",
    "/proc/cpuinfo",
    "/proc/sys/kernel/pid_max",
    "/proc/sys/kernel/osrelease",
)
"""Files that ps and top read besides those of the processes."""


AIO = ("/proc/sys/fs/aio-nr", "/proc/sys/fs/aio-max-nr")
"""Files with what is reserved of the host's asynchronous I/O, and the limit."""


def nova_host_name(configuration: Configuration) -> str:
    """Return nova's name for this host, as in `instances.host`, the API and neutron's bindings."""
    return configuration.get("DEFAULT", {}).get("host") or socket.gethostname()


def ask_host(recorder: Recorder, conf: NovaConf) -> None:
    """Ask everything about the host that is not about a guest."""
    _ask_clocks(recorder)
    _ask_names(recorder)
    _ask_view(recorder)
    _ask_nova(recorder, conf)
    _ask_libvirt(recorder)
    _ask_versions(recorder, conf.service)


def answer_challenge(recorder: Recorder, text: str) -> None:
    """Record a challenge, the text that a verifier chose, with the boot id and the time."""

    def answer() -> dict[str, object]:
        return {"challenge": text, "boot_id": _content(BOOT_ID)().strip(), **_now()}

    recorder.ask(LAYER, CHALLENGE, answer)


def _ask_clocks(recorder: Recorder) -> None:
    recorder.ask("host", "date --utc", _now)
    recorder.ask("host", "date '+%z %Z'", lambda: time.strftime("%z %Z"))
    for path in ("/proc/uptime", BOOT_ID):
        recorder.ask("kernel", path, _content(path))


def _ask_names(recorder: Recorder) -> None:
    recorder.ask("host", "hostname", socket.gethostname)
    # This asks the DNS, which may be slow.
    recorder.ask("host", "hostname -f", _full_name, patience=2.0)
    recorder.ask("host", "uname -a", lambda: run(["uname", "-a"]).strip())
    recorder.ask("host", "cat /etc/os-release", _content("/etc/os-release"))


def _ask_view(recorder: Recorder) -> None:
    """Ask for the collector's account, namespaces and mounts: a container sees other files."""
    recorder.ask("host", "id", lambda: run(["id"]).strip())
    recorder.ask("host", "readlink /proc/self/ns/*", _namespaces)
    for path in ("/proc/self/mountinfo", "/proc/meminfo", *OF_PS, *AIO):
        recorder.ask("kernel", path, _content(path))


def _ask_nova(recorder: Recorder, conf: NovaConf) -> None:
    conf.say(recorder)
    recorder.ask("host", "/etc/nova/nova.conf", lambda: _configuration(conf))
    if conf.described:
        log = log_of(conf.service, conf.options, COMPUTE)
        paths = " ".join([*(one.path for one in conf.described), *([log] if log else [])])
        recorder.ask("host", f"stat -L {paths}", lambda: _configuration_files(conf, log))
    state = conf.options.get("DEFAULT", {}).get("state_path", "/var/lib/nova")
    path = f"{state}/compute_id"
    root = str(conf.service.root) if conf.service else "/"
    recorder.ask("host", f"cat {path}", lambda: _compute_id(path, conf.owners, root))
    recorder.ask("host", f"stat -f {' '.join(ROOMS)}", _rooms)


def _rooms() -> dict[str, dict[str, int]]:
    """Return folder → size and free space, for the first folder on each file system."""
    found, seen = {}, set()
    for path in ROOMS:
        with suppress(FileNotFoundError), file.folder(path) as handle:
            device = os.fstat(handle).st_dev
            if device not in seen:
                seen.add(device)
                found[path] = file.room(handle)
    return found


def _compute_id(path: str, owners: Owners, root: str) -> str:
    """Return the UUID in a file. Content of any other form is not kept."""
    text = read_owned(path, owners, root=root)
    if not is_compute_id(text):
        raise RefusedError("failed", f"{path} contains no UUID; its content was not kept")
    return text


def look_at_definitions(recorder: Recorder) -> None:
    """List libvirt's definition files again: those that do not change meanwhile can be compared."""
    list_again(recorder, _service_of(_libvirt_daemons(recorder)))


def _libvirt_daemons(recorder: Recorder) -> list[Found]:
    names = ("libvirtd", "virtqemud")
    answers = [recorder.wait("host", partial(find, name), _PATIENCE) for name in names]
    return [found for found in answers if isinstance(found, Found)]


def _service_of(daemons: Iterable[Found]) -> RunningService | None:
    return next((found.service for found in daemons if found.service is not None), None)


def _ask_libvirt(recorder: Recorder) -> None:
    daemons = _libvirt_daemons(recorder)
    for found in daemons:
        found.say(recorder)
    daemon = _service_of(daemons)
    # A daemon in a container reads the container's files.
    root = str(daemon.root) if daemon else "/"
    for name in LIBVIRT_CONF:
        recorder.ask("host", f"/etc/libvirt/{name}", partial(_libvirt_conf, name, root))
    ask_definition_files(recorder, daemon)


def _libvirt_conf(name: str, root: str) -> dict[str, str]:
    return libvirt_settings(name, read_owned(f"/etc/libvirt/{name}", Owners(), root=root))


def _ask_versions(recorder: Recorder, nova: RunningService | None) -> None:
    recorder.ask("host", "nova-compute --version", lambda: _nova_version(nova))
    emulator = _first_installed(f"qemu-system-{platform.machine()}", "/usr/libexec/qemu-kvm")
    daemon = _first_installed("libvirtd", "virtqemud")
    for program in (emulator, daemon):
        recorder.ask("host", f"{program} --version", _version_of(program))
    if shutil.which("dpkg-query", path=PATH):
        recorder.ask("host", f"dpkg-query -W {' '.join(PACKAGES)}", _debian_packages)
    else:
        recorder.ask("host", f"rpm -qa {' '.join(PACKAGES)}", _red_hat_packages)


def _content(path: str | Path) -> Callable[[], str]:
    return lambda: file.text(path, LARGEST)


def _now() -> dict[str, object]:
    """Return the time in UTC, and the clocks that can't be set, read at the same moment."""
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return {
        "utc": f"{stamp}.{nanoseconds:09}Z",
        "monotonic": time.clock_gettime(time.CLOCK_MONOTONIC),
        "boottime": time.clock_gettime(time.CLOCK_BOOTTIME),
    }


def _full_name() -> str:
    name = socket.gethostname()
    found = socket.getaddrinfo(name, None, flags=socket.AI_CANONNAME)
    return found[0][3] or name


def _namespaces() -> dict[str, str]:
    return {name: os.readlink(f"/proc/self/ns/{name}") for name in file.names("/proc/self/ns")}


def _configuration(conf: NovaConf) -> Configuration:
    if conf.unread is not None:
        # An option that is missing in a part of the configuration might be set in the rest.
        raise conf.unread
    return kept(conf.options)


def _configuration_files(conf: NovaConf, log: str | None) -> dict[str, object]:
    """Return the account that reads nova-compute's configuration, the files in its order, and the
    log file that it writes (None if it writes none)."""
    root = str(conf.service.root) if conf.service else "/"
    files = [one.described(conf.owners, root) for one in conf.described]
    written = described_log(log, conf.owners, root) if log is not None else None
    return {"reader": reader_of(conf.service), "files": files, "log": written}


def _nova_version(nova: RunningService | None) -> str:
    """Return the version that `nova-compute --version` would print.

    The program takes seconds to start. It reads the version from the metadata of the installed
    package, and so does this function.
    """
    root, program = (
        (nova.root, nova.program) if nova else (Path("/"), Path("/usr/bin/nova-compute"))
    )
    prefix = root / str(program.parent.parent).lstrip("/")
    for folder in sorted(prefix.glob("lib*/python3*/*-packages")):
        for name in sorted(entry.name for entry in folder.glob("nova-*-info")):
            if match := _METADATA.fullmatch(name):
                return match[1]
    raise RefusedError("absent", f"no Python package nova is installed under {prefix}")


_METADATA = re.compile(r"nova-(\d[^-]*)(?:-py[\d.]+)?\.(?:egg|dist)-info")


def _first_installed(*programs: str) -> str:
    """Return the first program that is installed; if none is, the first, whose call will fail."""
    return next((program for program in programs if shutil.which(program, path=PATH)), programs[0])


def _version_of(program: str) -> Callable[[], str]:
    return lambda: run([program, "--version"]).strip()


def _debian_packages() -> str:
    # dpkg-query fails if it is given a name that is not installed, so ask for all packages.
    shown = "--showformat=${db:Status-Abbrev}${binary:Package}\t${Version}\n"
    installed = [
        line[3:] for line in run(["dpkg-query", "-W", shown]).splitlines() if line[1] == "i"
    ]
    lines = [line for line in installed if line.split("\t")[0].split(":")[0] in PACKAGES]
    return "\n".join(lines)


def _red_hat_packages() -> str:
    return run(["rpm", "-qa", *PACKAGES]).strip()
