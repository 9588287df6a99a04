"""Trusted processes: real ones, of real accounts, in real namespaces and cgroups.

These tests use a name that no service has, so it does not matter what runs on this host.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.collect.conftest import until

from hoodsnap.collect.configuration import read_nova_conf
from hoodsnap.collect.recorder import Recorder
from hoodsnap.collect.trusted.service import MOST_DOUBTS, Found, find

PROGRAM = "nova-unittest"
MALLORY = 4242
KOLLA = 42436
PYTHON = "/usr/bin/python3"

SLEEP = "import time\ntime.sleep(60)\n"

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists(PYTHON),
    reason="only root can start processes of other accounts",
)

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Folder that every account may read."""
    path = Path("/var/lib") / f"hs-{os.getpid()}"
    path.mkdir()
    (path / PROGRAM).write_text(SLEEP)
    (path / "theirs.conf").write_text("[DEFAULT]\nhost = theirs\n")
    (path / "ours.conf").write_text("[DEFAULT]\nhost = ours\n")
    try:
        yield path
    finally:
        shutil.rmtree(path)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out no process, however busy this machine is."""
    monkeypatch.setattr("hoodsnap.collect.trusted.service.MOST_LOST", 60.0)
    monkeypatch.setattr("hoodsnap.collect.trusted.service.PATIENCE", 10.0)


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Start a process and wait until it has the service's name."""
    with ExitStack() as stack:

        def run(*command: str, conf: str = "theirs.conf") -> subprocess.Popen[bytes]:
            words = [*command, f"{folder}/{PROGRAM}", "--config-file", f"{folder}/{conf}"]
            process = subprocess.Popen(words)
            stack.callback(process.wait)
            stack.callback(process.kill)

            def there() -> bool:
                assert process.poll() is None, words
                shown = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
                return os.path.basename(shown[0]).startswith((b"python", PROGRAM.encode()))

            until(there)
            return process

        yield run


def as_account(uid: int) -> list[str]:
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]


def nova_uid() -> int:
    try:
        return pwd.getpwnam("nova").pw_uid
    except KeyError:
        pytest.skip("this host has no account nova")


def why(found: Found, process: subprocess.Popen[bytes]) -> str:
    assert process.pid not in {service.pid for service in found.trusted}
    return {doubt.pid: doubt.why for doubt in found.doubts}[process.pid]


def test_a_service_of_the_collectors_own_account_is_trusted(closed: Path) -> None:
    (closed / PROGRAM).write_text(SLEEP)
    process = subprocess.Popen([sys.executable, f"{closed}/{PROGRAM}"])
    try:
        until(lambda: find(PROGRAM).service)
        found = find(PROGRAM)
    finally:
        process.kill()
        process.wait()

    assert found.service is not None
    assert (found.service.pid, found.doubts) == (process.pid, ())
    assert found.service.uid == os.geteuid()


@needs_root
def test_an_ordinary_accounts_process_is_not_followed_whatever_its_name(
    start: Start, folder: Path
) -> None:
    script = start(*as_account(MALLORY), PYTHON)
    # exec -a nova-compute
    renamed = ["bash", "-c", f'exec -a {PROGRAM} {PYTHON} -c "{SLEEP}" -- "$@"', "bash"]
    named = start(*as_account(MALLORY), *renamed)

    found = find(PROGRAM)
    assert found.trusted == ()
    sentence = f"it runs as uid {MALLORY}, which is neither root nor nova"
    assert why(found, script) == why(found, named) == sentence
    assert read_nova_conf(PROGRAM, folder).options == {}


@needs_root
def test_a_trusted_service_wins_over_an_impostor_with_a_lower_pid(
    start: Start,
) -> None:
    uid = nova_uid()
    rogue = start(*as_account(MALLORY), PYTHON)
    genuine = start("unshare", "--mount", *as_account(uid), PYTHON, conf="ours.conf")

    conf = read_nova_conf(PROGRAM)
    assert conf.service is not None
    assert conf.service.pid == genuine.pid
    assert conf.options == {"DEFAULT": {"host": "ours"}}
    recorder = Recorder("here")
    conf.say(recorder)
    [answer] = recorder.answers
    assert (answer.layer, answer.query) == ("host", f"ps -fp {rogue.pid}")
    assert answer.error is not None
    assert answer.error.kind == "denied"
    assert answer.error.message.startswith(
        f"process {rogue.pid} is called {PROGRAM}, but is ignored: it runs as uid {MALLORY}"
    )


@needs_root
def test_one_trusted_service_is_followed_and_the_others_are_recorded(
    start: Start,
) -> None:
    apart = start("unshare", "--mount", PYTHON)
    first, second = start(PYTHON), start(PYTHON)

    found = find(PROGRAM)
    assert [service.pid for service in found.trusted] == [first.pid, second.pid, apart.pid]
    recorder = Recorder("here")
    found.say(recorder)
    assert [answer.query for answer in recorder.answers] == [
        f"ps -fp {second.pid}",
        f"ps -fp {apart.pid}",
    ]
    assert all(answer.error for answer in recorder.answers)


@needs_root
@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["setpriv", f"--ruid={MALLORY}", "--euid=0", PYTHON], "more than one account"),
        (["unshare", "--user", "--map-root-user", PYTHON], "its own user namespace"),
        ([*as_account(MALLORY), "unshare", "-Ur", PYTHON], "its own user namespace"),
        (["unshare", "--mount", "--net", PYTHON], "its own network"),
        ([*as_account(65534), PYTHON], "it runs as uid 65534"),
        ([*as_account(KOLLA), PYTHON], f"it runs as uid {KOLLA}"),
    ],
)
def test_a_process_that_only_looks_like_a_service_is_not_followed(
    command: list[str], sentence: str, start: Start
) -> None:
    probe = subprocess.run([*command, "-c", ""], capture_output=True)
    if probe.returncode != 0:
        pytest.skip(f"this host does not allow it: {probe.stderr!r}")
    process = start(*command)

    assert sentence in why(find(PROGRAM), process)


@needs_root
def test_other_programs_of_root_are_not_the_service(start: Start, folder: Path) -> None:
    shutil.copy("/usr/bin/perl", folder / "perl")
    (folder / PROGRAM).write_text(f'open(F, ">{folder}/read"); sleep 60;\n')
    renamed = ["bash", "-c", f'exec -a {PROGRAM} {folder}/perl "$@"', "bash"]
    perl = start(*renamed)
    until((folder / "read").exists)  # the file gets another content now
    shutil.copy(os.path.realpath(PYTHON), folder / "python3.99")
    (folder / "python3.99").chmod(0o777)
    (folder / PROGRAM).write_text(SLEEP)
    open_to_all = start("env", "PYTHONHOME=/usr", f"{folder}/python3.99")
    other = start(PYTHON, "-c", SLEEP)

    found = find(PROGRAM)
    assert why(found, perl) == "its executable is perl"
    assert "accounts other than root can write to its executable" in why(found, open_to_all)
    assert why(found, other) == f"its command line does not run {PROGRAM}"


@needs_root
@pytest.mark.parametrize(
    ("passwd", "capabilities", "trusted"),
    [
        (f"nova:x:{KOLLA}:{KOLLA}::/var/lib/nova:/bin/sh\n", "+all", True),
        (f"nova:x:{KOLLA}:{KOLLA}::/var/lib/nova:/bin/sh\n", "-sys_admin", False),
        ("", "+all", True),  # Kolla's number is known
    ],
)
def test_a_container_has_its_own_accounts_and_files(
    passwd: str, capabilities: str, trusted: bool, folder: Path
) -> None:
    """Kolla has its own root and mounts, the host's network and an account without a name."""
    root = folder / "root"
    script = f"""
        mount -t tmpfs -o mode=755 tmpfs {root}; cd {root}
        mkdir usr etc etc/nova proc; mount --bind /usr usr; mount -t proc proc proc
        for name in bin lib lib64 sbin; do ln -s usr/$name $name; done
        printf '{passwd}' > etc/passwd
        printf '[DEFAULT]\\nhost = container\\n' > etc/nova/nova.conf
        chown {KOLLA} etc/nova/nova.conf; chmod 600 etc/nova/nova.conf; cp {folder}/{PROGRAM} .
        exec setpriv --bounding-set={capabilities} chroot --userspec={KOLLA}:{KOLLA} . \\
            {PYTHON} /{PROGRAM}
    """
    root.mkdir()
    process = subprocess.Popen(["unshare", "--mount", "sh", "-ec", script])
    try:
        until(lambda: find(PROGRAM).trusted + find(PROGRAM).doubts)
        conf = read_nova_conf(PROGRAM)
    finally:
        process.kill()
        process.wait()

    assert (conf.service is not None) is trusted
    if trusted:
        assert conf.service is not None and conf.service.uid == KOLLA
        assert conf.options == {"DEFAULT": {"host": "container"}}
        assert conf.refused == ()
    else:
        assert "without the privileges of host root" in conf.found.doubts[0].why


@pytest.fixture
def enter() -> Iterator[Callable[[int, str], None]]:
    """Move a process into a cgroup, as systemd does with units and logins."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    tops = [Path(words[1]) for words in mounts if words[2] == "cgroup2"]
    if os.geteuid() != 0 or not tops:
        pytest.skip("this needs root and control groups of version 2")
    made: list[Path] = []

    def move(pid: int, name: str) -> None:
        path = tops[0]
        for part in name.split("/"):
            path /= part
            if not path.exists():
                path.mkdir()
                made.append(path)
        (path / "cgroup.procs").write_text(str(pid))

    yield move
    for path in reversed(made):
        until(lambda path=path: path.rmdir() or True)  # type: ignore[misc]


@needs_root
@pytest.mark.parametrize(
    ("name", "trusted"),
    [
        (f"system.slice/{PROGRAM}.service", True),
        (f"system.slice/system-devstack.slice/devstack@{PROGRAM}.service", True),
        (f"system.slice/openstack-{PROGRAM}.service", True),
        ("system.slice/cron.service", False),
        (f"system.slice/{PROGRAM}.service.evil.service", False),
        (f"system.slice/podman.service/{PROGRAM}.service", False),
        (f"user.slice/user-{MALLORY}.slice/user@{MALLORY}.service/{PROGRAM}.service", False),
        (f"user.slice/{PROGRAM}.service", False),
        (f"{PROGRAM}.service", False),
    ],
)
def test_an_account_is_trusted_if_a_system_unit_runs_the_service_as_it(
    name: str, trusted: bool, enter: Callable[[int, str], None], folder: Path
) -> None:
    """DevStack runs nova-compute as an ordinary account, in a unit that root installed."""
    words = [*as_account(MALLORY), PYTHON, f"{folder}/{PROGRAM}"]
    process = subprocess.Popen(words)
    try:
        enter(process.pid, name)
        until(lambda: find(PROGRAM).trusted + find(PROGRAM).doubts)
        found = find(PROGRAM)
    finally:
        process.kill()
        process.wait()

    assert bool(found.trusted) is trusted, found.doubts


@needs_root
def test_a_login_session_of_novas_account_is_not_the_service(
    enter: Callable[[int, str], None], folder: Path
) -> None:
    process = subprocess.Popen([*as_account(nova_uid()), PYTHON, f"{folder}/{PROGRAM}"])
    try:
        enter(process.pid, "user.slice/user-1000.slice/session-3.scope")
        until(lambda: find(PROGRAM).doubts)
        found = find(PROGRAM)
    finally:
        process.kill()
        process.wait()

    assert "in a login session" in why(found, process)


@needs_root
def test_many_impostors_are_counted(start: Start) -> None:
    for _ in range(MOST_DOUBTS + 2):
        start(*as_account(MALLORY), PYTHON)
    recorder = Recorder("here")

    find(PROGRAM).say(recorder)

    assert len(recorder.answers) == MOST_DOUBTS + 1
    last = recorder.answers[-1]
    assert last.query == f"pgrep -af {PROGRAM}"
    assert last.error is not None
    assert last.error.message.startswith("2 more processes called")
