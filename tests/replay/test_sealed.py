"""A sealed shell can't change or reach anything of the host. Real processes try it, as root or as
an ordinary user, whichever runs the tests."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import platform
import pty
import re
import select
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import HEALTHY, NOT_SEALED, ROOT, RecordedHost

from hoodsnap.bundle import load, save
from hoodsnap.replay.images import Images
from hoodsnap.replay.recording import Recording

HOODSNAP = [sys.executable, "-m", "hoodsnap"]

ORDINARY = 65533
"""User and group id without an account."""

NEEDED = (
    *("typer", "click", "rich", "pygments", "pydantic", "pydantic_core", "annotated_types"),
    *("typing_extensions", "typing_inspection", "shellingham", "markdown_it", "mdurl", "zstandard"),
    *("annotated_doc", "orjson"),
)
"""Packages that an ordinary user's Python needs; they are copied if others can't read root's."""


def run(line: str, bundle: Path = HEALTHY, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a line in a sealed shell."""
    done = subprocess.run(
        [*HOODSNAP, "shell", bundle, "-c", line], capture_output=True, text=True, **options
    )
    if NOT_SEALED in done.stderr:
        pytest.skip(done.stderr.strip())
    return done


@cache
def must_seal() -> None:
    """Skip the test where the kernel does not let a shell be sealed."""
    run("true")


def python(program: str, bundle: Path = HEALTHY, **options: Any) -> str:
    """Return the output of a Python program in a sealed shell."""
    done = subprocess.run(
        [*HOODSNAP, "replay", bundle, "--", sys.executable, "-I", "-c", program],
        capture_output=True,
        text=True,
        **options,
    )
    if NOT_SEALED in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder for sockets, whose paths may have at most 107 characters."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


# What may be written.


def _was_there(path: Path) -> bool:
    """Remove a file; return True if it existed."""
    try:
        path.unlink()
    except OSError:
        return False
    return True


def test_only_memory_can_be_written() -> None:
    folders = (
        "/",
        "/etc",
        "/usr",
        "/usr/bin",
        "/run",
        "/var",
        "/var/log",
        "/var/lib",
        "/proc",
        "/dev",
    )
    done = run("; ".join(f"echo x >{folder}/written-in-the-shell" for folder in folders))

    left = [Path(folder, "written-in-the-shell") for folder in folders]
    assert [path for path in left if _was_there(path)] == []
    assert len(re.findall("Read-only file system|No such file", done.stderr)) == len(folders)


def test_written_files_disappear_with_the_shell() -> None:
    names = [f"{folder}/written-in-the-shell" for folder in ("~", "/tmp", "/var/tmp", "/dev/shm")]
    done = run("; ".join(f"echo x >{name} && cat {name}" for name in names))

    left = [Path(name).expanduser() for name in (*names, "/root/written-in-the-shell")]
    assert [path for path in left if _was_there(path)] == []
    assert done.stdout == "x\n" * len(names)


def test_the_folders_of_programs_are_read_only() -> None:
    folders = (sys.prefix, os.path.dirname(HEALTHY))
    done = run("; ".join(f"touch {folder}/x" for folder in folders))

    assert done.stderr.count("Read-only file system") == len(folders)


def test_no_capability_can_undo_the_seal() -> None:
    done = run("grep -E '^(Cap|NoNewPrivs)' /proc/self/status")

    status = dict(line.split(":\t") for line in done.stdout.splitlines())
    assert status["NoNewPrivs"] == "1"
    # CAP_DAC_READ_SEARCH at most: recorded files belong to other users.
    assert {status[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {"0000000000000004"}
    assert {status[name] for name in ("CapInh", "CapAmb")} == {"0000000000000000"}


def test_nothing_can_be_mounted() -> None:
    lines = (
        "mount -t tmpfs none /usr",
        "mount -o remount,rw,bind /usr",
        "umount /usr",
        "unshare --user --map-root-user --mount true",
        "unshare --mount true",
        "chroot / true",
        "mknod /tmp/null c 1 3",
    )
    assert run("; ".join(f"{line} && echo done" for line in lines)).stdout == ""


def test_no_recorded_file_can_be_executed() -> None:
    mounts = run("cat /proc/self/mountinfo").stdout.splitlines()

    flags = {line.split()[4]: set(line.split()[5].split(",")) for line in mounts}
    for place in ("/var/lib", "/var/log", "/proc", "/run/proc"):
        assert {"ro", "nosuid", "nodev", "noexec"} <= flags[place]
    for place, found in flags.items():
        assert "nosuid" in found, place
        assert "nodev" in found or place.startswith("/dev/"), place


# What may be seen.


def test_the_root_contains_only_programs_and_the_recording() -> None:
    seen = set(run("ls -A /").stdout.split())

    programs = {"bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "nix", "gnu"}
    ours = {"dev", "etc", "proc", "root", "run", "sys", "tmp", "var"}
    pythons = {Path(folder).parts[1] for folder in (sys.prefix, sys.base_prefix, ROOT)}
    assert seen - programs - ours - pythons == set()
    assert ours <= seen


def test_no_private_file_of_the_host_is_visible() -> None:
    paths = (
        *(
            "/etc/shadow",
            "/etc/sudoers",
            "/etc/ssh",
            "/etc/ssl/private",
            "/etc/libvirt",
            "/etc/fstab",
        ),
        *("/root/.ssh", "/root/.bashrc", "/root/.my.cnf", "/home/", "/boot", "/sys/kernel"),
        *("/run/docker.sock", "/run/dbus", "/run/systemd", "/run/user", "/var/lib/dpkg", "/host"),
        *("/proc/1", "/run/proc/sys", "/run/proc/kcore", "/dev/kvm", "/dev/mem", "/dev/vda"),
        *("/etc/mysql/debian.cnf", "/etc/pip.conf", "/etc/environment", "/etc/hostname"),
    )
    seen = run(f"for path in {' '.join(paths)}; do ls -d $path; done").stdout.split()

    # Where Python or hoodsnap lives in a home folder, that much of it is there.
    ways = [f"{Path(folder)}/" for folder in (sys.prefix, sys.base_prefix, ROOT)]
    assert [path for path in seen if not any(way.startswith(path) for way in ways)] == []


def test_no_other_account_of_the_host_is_named() -> None:
    for line in run("cat /etc/passwd").stdout.splitlines():
        name = line.split(":")[0]
        assert name in ("root", "nobody", "nova", "libvirt-qemu", "qemu", "kvm")


def test_the_devices_are_those_that_programs_need() -> None:
    listed = run("ls -A /dev").stdout.split()

    assert set(listed) == {
        *("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm"),
        *("fd", "stdin", "stdout", "stderr"),
    }
    assert run("echo x >/dev/null; head -c 2 /dev/zero | wc -c; cat <(echo y)").stdout == "2\ny\n"


def test_the_environment_has_only_what_a_terminal_needs() -> None:
    secrets = {
        "AWS_SECRET_ACCESS_KEY": "s3cret",
        "GITHUB_TOKEN": "s3cret",
        "SSH_AUTH_SOCK": "/tmp/s3cret",
        "LIBVIRT_DEFAULT_URI": "qemu+ssh://s3cret/system",
        "BASH_ENV": "/tmp/s3cret",
        "LD_PRELOAD": "",
        "LS_COLORS": "s3cret",
        "NOVA_PASSWORD": "s3cret",
    }
    done = run(
        "env; cat /run/proc/*/environ | tr '\\0' '\\n'",
        env={**os.environ, **secrets, "LC_ALL": "C.UTF-8", "TZ": "Asia/Tokyo"},
    )

    names = {line.partition("=")[0] for line in done.stdout.splitlines()}
    assert "s3cret" not in done.stdout
    assert {"LC_ALL", "TZ", "PATH", "HOME", "OS_AUTH_URL"} <= names
    assert names.isdisjoint(secrets)


def test_no_open_file_of_the_caller_is_passed_in(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("s3cret")
    handle = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(handle, True)

    done = run("ls -l /proc/self/fd; cat /proc/self/fd/*/x", close_fds=False)

    os.close(handle)
    assert str(tmp_path) not in done.stdout
    assert "s3cret" not in done.stdout


NOT_PASSED_IN = """
import ctypes, fcntl, os, socket, struct
for number in (0, 1, 2):
    for flags in (os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
        try: os.write(os.open(f"/proc/self/fd/{number}", flags), b"wrong")
        except OSError: pass
    for call in (lambda: os.fchmod(number, 0o6777), lambda: os.ftruncate(number, 0)):
        try: call()
        except OSError: pass
    os.write(2, f"{number} {os.readlink(f'/proc/self/fd/{number}')}\\n".encode())
"""


def _tried(**options: Any) -> str:
    """Return the output of a program that tries to change the files behind the standard streams."""
    done = subprocess.run(
        [*HOODSNAP, "replay", HEALTHY, "--", sys.executable, "-I", "-c", NOT_PASSED_IN],
        **{"stderr": subprocess.PIPE, **options},
    )
    if NOT_SEALED.encode() in (done.stderr or b""):
        pytest.skip(done.stderr.decode())
    assert done.returncode == 0, done.stderr
    return "" if done.stderr is None else done.stderr.decode()


def test_a_redirected_file_is_not_passed_in(tmp_path: Path) -> None:
    names = ("in", "out", "errors")
    for name in names:
        (tmp_path / name).write_text("before\n")
        (tmp_path / name).chmod(0o600)
    with (
        (tmp_path / "in").open("rb") as read,
        (tmp_path / "out").open("ab") as written,
        (tmp_path / "errors").open("ab") as errors,
    ):
        _tried(stdin=read, stdout=written, stderr=errors)

    printed = (tmp_path / "errors").read_text()
    assert (tmp_path / "in").read_text() == "before\n"
    # It may write to its output, and takes nothing away of what was there.
    assert (tmp_path / "out").read_text().startswith("before\n")
    assert printed.startswith("before\n")
    assert printed.count("pipe:[") == 3
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in names] == [0o600] * 3


def test_no_device_or_fifo_is_passed_in(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    before = os.stat(os.devnull)
    with open(fifo, "r+b", buffering=0) as named:
        output = _tried(stdin=subprocess.DEVNULL, stdout=named)

    assert output.count("pipe:[") == 3
    assert stat.S_IMODE(fifo.stat().st_mode) == 0o600
    assert os.stat(os.devnull) == before


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
def test_no_socket_is_passed_in(family: int) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        assert _tried(stdin=one, stdout=subprocess.PIPE).count("pipe:[") == 3


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_a_closed_stream_leads_nowhere(closed: str) -> None:
    must_seal()
    line = shlex.join([*HOODSNAP, "shell", str(HEALTHY), "-c", "readlink /proc/self/fd/*; exit 5"])

    done = subprocess.run(["sh", "-c", f"{line} {closed}"], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (5, "")
    assert "socket" not in done.stdout


def test_unread_input_is_left_for_the_next_reader(tmp_path: Path) -> None:
    must_seal()
    (tmp_path / "lines").write_text("one\ntwo\nthree\n" + "more\n" * 100_000)
    line = shlex.join([*HOODSNAP, "shell", str(HEALTHY), "-c", "read x; echo $x"])

    with (tmp_path / "lines").open() as lines:
        done = subprocess.run(
            ["sh", "-c", f"read x; {line}; head -n 1"], capture_output=True, text=True, stdin=lines
        )

    assert done.stdout == "two\nthree\n"


def test_large_input_and_output_pass_through() -> None:
    with HEALTHY.open("rb") as file:
        done = run("wc -c; head -c 3000000 /dev/zero | tr '\\0' x", stdin=file)

    assert done.stdout == f"{HEALTHY.stat().st_size}\n" + "x" * 3_000_000


def test_a_closed_output_pipe_ends_the_writer() -> None:
    must_seal()
    line = shlex.join([*HOODSNAP, "shell", str(HEALTHY), "-c", "yes"])

    done = subprocess.run(
        ["bash", "-c", f"{line} | head -n 1; echo ${{PIPESTATUS[0]}}; {line} >/dev/full; echo $?"],
        capture_output=True,
        text=True,
    )

    assert done.stdout == "y\n141\n141\n"
    assert done.stderr.endswith("can't be written: No space left on device\n")


def test_hoodsnap_may_be_installed_below_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(ROOT / "src")

    done = run(
        "hoodsnap --version; exec 3<>/dev/tcp/127.0.0.1/3306; head -c 4 <&3 | wc -c",
        env={**os.environ, "PYTHONPATH": str(tmp_path / "link")},
        timeout=60,
    )

    assert done.stdout.startswith("hoodsnap ")
    assert done.stdout.endswith("4\n")
    assert done.stderr == ""


def test_no_core_of_a_client_leaves_the_shell() -> None:
    limits = run("cat /proc/self/limits").stdout

    assert re.search(r"^Max core file size +1 +1 ", limits, re.MULTILINE)


# What may be reached.


def test_no_process_of_the_host_can_be_killed_by_its_pid() -> None:
    with subprocess.Popen(["sleep", "60"]) as victim:
        # Nothing wider than this one number: a shell that is not sealed would end the host.
        run(f"kill -9 {victim.pid}")
        time.sleep(0.1)
        still = victim.poll() is None
        victim.kill()

    assert still


def test_no_process_in_the_shell_has_a_recorded_pid(host: RecordedHost) -> None:
    pid = host.pid("vm-plain")
    done = run(f"ps -o pid= {pid}; kill -9 {pid}; for n in $(pgrep qemu); do kill -0 $n; done")

    assert done.stdout.strip() == str(pid)
    assert done.stderr.count("No such process") > 5


def test_only_the_shell_s_own_processes_run_there() -> None:
    running = run("ls /run/proc").stdout.split()

    assert len([name for name in running if name.isdigit()]) <= 4
    assert not {"sys", "kcore", "sysrq-trigger", "kallsyms"} & set(running)


def _listening(folder: Path, ready: Path) -> subprocess.Popen[bytes]:
    """A process that listens on sockets of every kind, with every kind of name."""
    program = f"""
import os, socket, time
os.chdir({str(folder)!r})
kept = []
def bind(name, kind=socket.SOCK_STREAM):
    one = socket.socket(socket.AF_UNIX, kind)
    one.bind(name)
    if kind != socket.SOCK_DGRAM:
        one.listen()
    kept.append(one)
bind({str(folder)!r} + "/absolute")
bind("relative")
bind("datagram", socket.SOCK_DGRAM)
bind("packets", socket.SOCK_SEQPACKET)
bind("a name\\nof two lines")
bind("before"); os.rename("before", "renamed")
bind("one"); os.link("one", "linked")
bind("\\0abstract-" + {folder.name!r})
open({str(ready)!r}, "w").close()
time.sleep(120)
"""
    return subprocess.Popen([sys.executable, "-I", "-c", program])


CONNECT = """
import os, socket
names = [{abstract!r}]
for top in {tops!r}:
    for folder, _, files in os.walk(top):
        names += [os.path.join(folder, name) for name in files]
names += {names!r}
for name in names:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
        try:
            socket.socket(socket.AF_UNIX, kind).connect(name)
        except OSError:
            pass
        else:
            print("reached", repr(name), flush=True)
"""

NAMES = ("absolute", "relative", "datagram", "packets", "a name\nof two lines", "renamed", "linked")


@pytest.mark.parametrize(
    "place", ["/tmp", "/home", "/opt", "/srv", "/var/lib", "/run", "/root", "."]
)
def test_no_socket_of_the_host_is_reached(place: str) -> None:
    try:
        folder = Path(tempfile.mkdtemp(prefix="hs", dir=place)).absolute()
    except OSError as error:
        pytest.skip(f"{place}: {error.strerror}")
    program = CONNECT.format(
        abstract=f"\0abstract-{folder.name}",
        tops=[str(folder), "/tmp", "/home", "/srv", "/opt", "/var/tmp"],
        names=[f"{folder}/{name}" for name in (*NAMES, "late")],
    )
    try:
        with _listening(folder, folder / "ready") as server:
            while not (folder / "ready").exists():
                time.sleep(0.01)
            # The sockets can be reached from here.
            outside = subprocess.run(
                [sys.executable, "-I", "-c", program], capture_output=True, text=True
            )
            inside = python(program)
            server.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)

    assert outside.stdout.count("reached") >= len(NAMES)
    assert inside == ""


def test_no_socket_bound_later_is_reached(short_folder: Path) -> None:
    path = short_folder / "late"
    program = "print('ready', flush=True); import time; time.sleep(1)\n" + CONNECT.format(
        abstract="\0none", tops=["/tmp"], names=[str(path)]
    )
    command = [*HOODSNAP, "replay", str(HEALTHY), "--", sys.executable, "-I", "-c", program]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            rest, errors = process.communicate()
    if NOT_SEALED in errors:
        pytest.skip(errors.strip())

    assert (first, rest) == ("ready\n", "")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="calls have other numbers there")
def test_no_system_call_leads_out_of_the_namespaces() -> None:
    program = """
import ctypes, errno, socket
for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK):
    socket.socket(family, socket.SOCK_RAW if family == socket.AF_NETLINK else socket.SOCK_STREAM)
for family in (socket.AF_VSOCK, socket.AF_PACKET, 31, 38):
    try:
        socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        print(errno.errorcode[error.errno])
libc = ctypes.CDLL(None, use_errno=True)
for number in (248, 249, 250, 425, 0x40000000 + 41):
    libc.syscall(number, 0, 0, 0, 0, 0)
    print(errno.errorcode[ctypes.get_errno()])
"""
    assert python(program).split() == ["EAFNOSUPPORT"] * 4 + ["EPERM"] * 5


# What is started.


def test_nothing_is_imported_from_the_current_folder(tmp_path: Path) -> None:
    for name in ("typer", "hoodsnap", "sitecustomize", "usercustomize", "json"):
        (tmp_path / f"{name}.py").write_text("print('hostile')")
    line = (
        "for name in typer sitecustomize json; do echo \"print('hostile')\" >$name.py; done;"
        "hoodsnap --version"
    )

    done = run(line, cwd=tmp_path, env={**os.environ, "PYTHONSAFEPATH": "1"})

    assert done.stdout.startswith("hoodsnap ")
    assert "hostile" not in done.stdout + done.stderr


def _rce(path: Path, uri: str, program: str) -> None:
    """Return a bundle with a command in nova.conf and a program as disk.info."""
    disk = "/var/lib/nova/instances/148ab7d4-5c5f-420e-85dd-eb24494f9617/disk.info"
    answers = (
        ("host", "/etc/nova/nova.conf", {"libvirt": {"connection_uri": uri.format(disk)}}),
        ("images", "find /var/lib/nova/instances -ls", [
            {"path": disk, "type": "f", "mode": "100755", "size": len(program)}
        ]),
        ("images", f"cat {disk}", program),
        ("kernel", "/proc/4242/stat", "4242 (x) S 1 1 1 0"),
        ("kernel", "/proc/1/stat", "1 (x) S 1 1 1 0"),
        ("kernel", "ls -lL /proc/1/fd", [{"fd": fd, "path": "/dev/null"} for fd in range(40)]),
        ("kernel", "ls -lL /proc/self/fd", [{"fd": fd, "path": "/dev/null"} for fd in range(40)]),
    )  # fmt: skip
    moment = "2026-11-25T14:51:00Z"
    path.write_text(
        json.dumps(
            {"format": 1, "tool": "t", "started": moment, "ended": moment, "answers": [
                {"layer": layer, "host": "vm", "query": query, "at": moment, "took": 0.1,
                 "value": value}
                for layer, query, value in answers
            ]}
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    "uri",
    [
        "qemu+ssh://h/system?command=/usr/bin/python3&keyfile={}",
        "qemu+ext:///system?command={}",
        "qemu+unix:///system?socket={}",
        "qemu:///system?a=b\nconnection_uri = qemu+ext:///system?command={}",
    ],
)
def test_no_bundle_runs_a_program(tmp_path: Path, uri: str) -> None:
    mark = f"/tmp/hoodsnap-mark-{os.getpid()}"
    bundle = tmp_path / "hostile.json"
    _rce(bundle, uri, f'#!/bin/sh\nimport os; os.system("touch {mark}")\n')

    done = run(
        f"hoodsnap collect -o x.json; ls {mark}; cat /etc/nova/nova.conf;"
        " cat /var/lib/nova/instances/*/disk.info | tr -d '\\0'; ls -d /proc/1",
        bundle,
    )

    assert "No such file" in done.stderr
    assert not Path(mark).exists()
    assert done.stdout == "[libvirt]\nconnection_uri = qemu:///system\n"


def test_nova_conf_has_only_options_that_the_collector_keeps(
    host: RecordedHost, tmp_path: Path
) -> None:
    host.set(
        "host",
        "/etc/nova/nova.conf",
        {
            "DEFAULT": {"host": "a", "x]\n[libvirt": "b", "my_ip": "1\nconnection_uri = c"},
            "libvirt": {"connection_uri": "qemu+ssh://x", "live_migration_uri": "x://h?command=y"},
            "database": {"connection": "mysql://x"},
            "evil]\n[libvirt": {"host": "d"},
        },
    )
    save(host.bundle, tmp_path / "odd.json")

    done = run("cat /etc/nova/nova.conf", tmp_path / "odd.json")

    assert done.stdout == "[DEFAULT]\nhost = a\n[libvirt]\nconnection_uri = qemu:///system\n"


# An ordinary user.


@pytest.fixture(scope="module")
def ordinary() -> Iterator[list[str]]:
    """Command by which an ordinary user runs hoodsnap: `setpriv`, and a Python the user can read."""
    if os.geteuid() != 0:
        yield HOODSNAP
        return
    base = f"/usr/bin/python3.{sys.version_info.minor}"
    if not Path(base).exists():
        pytest.skip(f"there is no {base}, which others than root may run")
    with tempfile.TemporaryDirectory(prefix="hoodsnap-test-", dir="/opt") as folder:
        os.chmod(folder, 0o755)  # noqa: S103 another user has to enter it
        subprocess.run([base, "-m", "venv", "--without-pip", f"{folder}/venv"], check=True)
        (packages,) = Path(folder).glob("venv/lib/python3*/site-packages")
        for name in NEEDED:
            spec = importlib.util.find_spec(name)
            if spec is None or spec.origin is None:
                continue
            origin = Path(spec.origin)
            if origin.name == "__init__.py":
                shutil.copytree(origin.parent, packages / name)
            else:
                shutil.copy(origin, packages)
        shutil.copytree(ROOT / "src/hoodsnap", packages / "hoodsnap")
        yield [f"{folder}/venv/bin/python", "-P", "-m", "hoodsnap"]


def test_an_ordinary_user_has_the_same_seal(ordinary: list[str], short_folder: Path) -> None:
    os.chmod(short_folder, 0o777)  # noqa: S103 he has to be able to write, were he not sealed off
    account: dict[str, Any] = {"cwd": short_folder}
    if os.geteuid() == 0:
        account |= {"user": ORDINARY, "group": ORDINARY, "extra_groups": []}
    connect = CONNECT.format(abstract="\0none", tops=["/tmp"], names=[f"{short_folder}/own"])
    (short_folder / "x.json.zst").write_bytes(HEALTHY.read_bytes())
    with (
        socket.socket(socket.AF_UNIX) as listener,
        subprocess.Popen(["sleep", "60"], **account) as victim,
    ):
        listener.bind(str(short_folder / "own"))
        os.chmod(short_folder / "own", 0o777)  # noqa: S103 as above
        listener.listen()
        line = (
            f"id -u; kill -9 {victim.pid}; for place in / /etc /usr {short_folder};"
            f" do echo x >$place/written && echo wrote; done; ls -d {short_folder} /etc/shadow;"
            f" python3 -I -c {shlex.quote(connect)}; pgrep -c qemu; touch ~/x; ls ~;"
            " ps -o pid= $(pgrep -n qemu); grep CapEff /proc/self/status; virsh list | head -n 1"
        )
        done = subprocess.run(
            [*ordinary, "shell", short_folder / "x.json.zst", "-c", line],
            capture_output=True, text=True, **account,
        )  # fmt: skip
        time.sleep(0.1)
        still = victim.poll() is None
        victim.kill()
    if NOT_SEALED in done.stderr:
        pytest.skip(done.stderr.strip())

    words = done.stdout.split()
    assert still
    assert words[:2] == ["0", "12"]
    assert "x" in words
    assert "wrote" not in words
    assert "reached" not in words
    assert "0000000000000004" in words
    assert not (short_folder / "written").exists()


# A terminal.


def _typed(command: list[str], *steps: tuple[str, bytes]) -> str:
    """Return the output of a command at a terminal. Each step: the output to wait for, and the
    text to type then."""
    pid, master = pty.fork()
    if pid == 0:
        os.execvp(command[0], command)  # noqa: S606 the child of the fork
    output, seen = "", 0
    waiting = list(steps)
    with contextlib.suppress(OSError):
        while select.select([master], [], [], 60)[0]:
            output += os.read(master, 4096).decode(errors="replace")
            if waiting and (at := output.find(waiting[0][0], seen)) >= 0:
                seen = at + len(waiting[0][0])
                os.write(master, waiting.pop(0)[1])
    os.close(master)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    if NOT_SEALED in output:
        pytest.skip(output.strip())
    return output


def test_an_interactive_shell_has_a_terminal_and_jobs() -> None:
    output = _typed(
        [*HOODSNAP, "shell", str(HEALTHY)],
        ("# ", b"sleep 99 &\n"),
        ("# ", b"jobs; tty; stty size; kill %1; echo do''ne\n"),
        # Said by the job itself: until it is in the foreground, the key would be the shell's.
        ("done\r\n", b"sh -c 'echo go\"\"es; exec sleep 98'\n"),
        ("goes\r\n", b"\x03"),
        ("^C", b"echo in$((1+1))terrupted\n"),
        ("in2terrupted\r\n", b"exit 5\n"),
    )

    assert "job control" not in output
    assert "Running" in output
    assert "/dev/pts/0" in output
    assert "in2terrupted" in output


@pytest.mark.parametrize("rest", ["", "2>/dev/null", "| cat", "2>&1 | cat", "</dev/null"])
def test_nothing_can_be_typed_into_the_operator_s_terminal(rest: str) -> None:
    program = (
        "import fcntl, os, termios\n"
        "for handle in (0, 1, 2):\n"
        "  try: fcntl.ioctl(handle, termios.TIOCSCTTY, 1)\n"
        "  except OSError: pass\n"
        "  for number, data in ((0x5412, b'X'), (0x541C, bytes([3]))):\n"
        "    try: fcntl.ioctl(handle, number, data)\n"
        "    except OSError: pass\n"
        "print('tried')"
    )
    command = [*HOODSNAP, "replay", str(HEALTHY), "--", sys.executable, "-I", "-c", program]
    # The operator's shell would read afterward what was typed into its terminal.
    left = 'stty -icanon min 0 time 2; echo "left:$(head -c 1 | tr X Y)"'

    output = _typed(["sh", "-c", f"{shlex.join(command)} {rest}; {left}"])

    assert "tried" in output
    assert "left:\r\n" in output


@pytest.mark.parametrize("rest", ["", "2>/dev/null", "| cat", "2>&1 | cat", "</dev/null"])
def test_the_operator_s_terminal_is_restored(rest: str) -> None:
    program = (
        "import os, termios\n"
        "for handle in (0, 1, 2):\n"
        "  try:\n"
        "    os.fchmod(handle, 0o666)\n"
        "    mode = termios.tcgetattr(handle)\n"
        "    mode[3] &= ~(termios.ECHO | termios.ISIG)\n"
        "    termios.tcsetattr(handle, termios.TCSANOW, mode)\n"
        "  except (OSError, termios.error): pass\n"
        "print('tried')"
    )
    command = [*HOODSNAP, "replay", str(HEALTHY), "--", sys.executable, "-I", "-c", program]
    look = "stat -Lc %a /dev/stdin; stty -g"

    output = _typed(["sh", "-c", f"{look}; {shlex.join(command)} {rest}; {look}"])

    lines = output.splitlines()
    assert "tried" in lines
    assert lines[:2] == lines[-2:]


def test_a_stream_redirected_at_a_terminal_stays_redirected(tmp_path: Path) -> None:
    command = [*HOODSNAP, "shell", str(HEALTHY), "-c", "tty; echo wrong >&2"]

    output = _typed(["sh", "-c", f"{shlex.join(command)} 2>{tmp_path}/errors"])

    assert "/dev/pts/0" in output
    assert "wrong" not in output
    assert (tmp_path / "errors").read_text() == "wrong\n"


# Hosts on which a shell can't be sealed.


def test_without_user_namespaces_the_message_names_what_is_missing() -> None:
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    line = 'echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", line, "sh",
         *HOODSNAP, "shell", str(HEALTHY), "-c", "echo ran"],
        capture_output=True, text=True,
    )  # fmt: skip
    if "unshare failed" in done.stderr or "unshare:" in done.stderr:
        pytest.skip(done.stderr.strip())

    assert (done.returncode, done.stdout) == (3, "")
    assert "allows no user namespaces (user.max_user_namespaces is 0)" in done.stderr
    assert "hoodsnap serve" in done.stderr
    assert done.stderr.count("\n") == 1


# The size of a recording.


def _made_in(tmp_path: Path, answers: list[tuple[str, str, object]]) -> Path:
    moment = "2026-11-25T14:51:00Z"
    path = tmp_path / "large.json"
    shown = [
        {"layer": layer, "host": "vm", "query": query, "at": moment, "took": 0.1, "value": value}
        for layer, query, value in answers
    ]
    document = {"format": 1, "tool": "t", "started": moment, "ended": moment, "answers": shown}
    path.write_text(json.dumps(document))
    return path


def test_the_number_of_folders_is_limited(tmp_path: Path) -> None:
    files = [
        {"path": f"/var/lib/x/{'/'.join(f'{n}-{level}' for level in range(26))}/f", "type": "f"}
        for n in range(20_000)
    ]
    bundle = _made_in(tmp_path, [("images", "find /var/lib/x -ls", files)])

    done = run("find /var/lib/x | wc -l", bundle)

    assert "only 100000 of the recorded files and folders are restored" in done.stderr
    assert 99_000 < int(done.stdout) <= 100_000


def test_the_number_of_processes_is_limited(tmp_path: Path) -> None:
    # With so many answers, each must be this long to stay in the bounds of a bundle.
    rest = " 0" * 200
    stats = [
        ("kernel", f"/proc/{pid}/stat", f"{pid} (x) S 1 1 1{rest}") for pid in range(2, 60_000)
    ]
    bundle = _made_in(tmp_path, [*stats, ("kernel", "ls -lL /proc/59999/fd", [
        {"fd": number, "path": "/x", "flags": "0"} for number in range(50_000)
    ])])  # fmt: skip

    done = run("ls /proc | wc -l", bundle)

    assert "of 59998 recorded processes are restored" in done.stderr
    assert 10_000 < int(done.stdout) < 50_000


def test_each_folder_is_created_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()
    for name in ("mkdir", "lstat", "symlink"):
        real = getattr(os, name)

        def counted(*arguments: Any, real: Any = real, name: str = name, **named: Any) -> Any:
            calls[name] += 1
            return real(*arguments, **named)

        monkeypatch.setattr(os, name, counted)
    folders, names = 300, "abcdefghij"
    files = [
        {"path": f"/var/lib/x{n}/{'/'.join(names)}/{file}", "type": "f"}
        for n in range(folders)
        for file in range(3)
    ]
    bundle = load(_made_in(tmp_path, [("images", "find /var/lib/x -ls", files)]))

    Images(Recording(bundle, "vm"), tmp_path / "made").make()

    # Those above all of them, and the root.
    assert calls["mkdir"] == folders * (1 + len(names)) + 3
    # Two for each file (is it there? what is its mode?), none for the folders above it.
    assert calls["lstat"] <= 2 * len(files) + 10


# Its end.


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_killed_shell_leaves_nothing(number: int, tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [*HOODSNAP, "replay", str(HEALTHY), "--", "sh", "-c", "echo ready; exec sleep 4242"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        if process.stdout.readline() != "ready\n":
            pytest.skip(process.stderr.read().strip())
        process.send_signal(number)
        process.wait()
        # It ends when the last that can write to it has ended.
        rest = process.stdout.read()

    assert rest == ""
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path, because the paths of sockets must be short."""
    with tempfile.TemporaryDirectory(prefix="hs-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_serve_leaves_nothing(number: int, short: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(short)}
    with subprocess.Popen(
        [*HOODSNAP, "serve", "--force", HEALTHY],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        assert len(list(short.iterdir())) == 1
        process.send_signal(number)
        process.wait()

    for _ in range(500):
        if not list(short.iterdir()):
            break
        time.sleep(0.01)
    assert list(short.iterdir()) == []
