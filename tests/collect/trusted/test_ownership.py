"""Files that only trusted accounts can have written: real files, real accounts."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from hoodsnap.collect.recorder import RefusedError
from hoodsnap.collect.trusted.ownership import (
    Owners,
    folder_refusal,
    names_in,
    operators,
    read_owned,
)
from hoodsnap.collect.trusted.uri import configured_uri
from hoodsnap.collect.visit import Visit, Wishes

OTHER = 4242
"""Account that is neither root nor the account that runs the tests."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def conf(closed: Path) -> Path:
    """File in its own folder."""
    path = closed / "etc/nova.conf"
    path.parent.mkdir()
    path.write_text("[DEFAULT]\n")
    return path


def refused(path: Path, owners: Owners | None = None, root: str = "/") -> str:
    with pytest.raises(RefusedError) as raised:
        read_owned(str(path), owners or operators(), root=root)
    return f"{raised.value.kind}: {raised.value}"


def test_the_readers_own_file_is_read(conf: Path) -> None:
    assert read_owned(str(conf), operators()) == "[DEFAULT]\n"
    assert names_in(str(conf.parent), operators()) == ["nova.conf"]


@pytest.mark.parametrize("mode", [0o666, 0o646, 0o602])
def test_a_file_that_others_can_write_is_refused(conf: Path, mode: int) -> None:
    conf.chmod(mode)

    assert refused(conf) == f"denied: not followed: every account can write to {conf}"


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_a_folder_above_that_others_can_write_is_refused_even_if_sticky(
    conf: Path, mode: int
) -> None:
    conf.parent.chmod(mode)

    assert refused(conf) == f"denied: not followed: every account can write to {conf.parent}"


@needs_root
@pytest.mark.parametrize("place", ["file", "folder"])
def test_a_file_or_folder_above_of_another_account_is_refused(conf: Path, place: str) -> None:
    path = conf if place == "file" else conf.parent
    os.chown(path, OTHER, OTHER)

    assert refused(conf) == f"denied: not followed: {path} belongs to uid {OTHER}"
    # The service's own account may own it.
    assert read_owned(str(conf), Owners(frozenset({OTHER}), frozenset({OTHER}))) == "[DEFAULT]\n"


@needs_root
def test_only_roots_group_and_the_services_group_may_write(conf: Path) -> None:
    conf.chmod(0o660)
    assert read_owned(str(conf), operators())
    os.chown(conf, 0, OTHER)

    assert refused(conf) == f"denied: not followed: group {OTHER} can write to {conf}"
    assert read_owned(str(conf), Owners(frozenset(), frozenset({OTHER})))


@needs_root
def test_an_acl_that_lets_others_write_is_refused(conf: Path) -> None:
    if shutil.which("setfacl") is None:
        pytest.skip("setfacl is not installed")
    done = subprocess.run(["setfacl", "-m", f"u:{OTHER}:rw", conf], capture_output=True)
    if done.returncode != 0:
        pytest.skip("this file system has no access control lists")

    assert refused(conf).startswith("denied: not followed: group 0 can write to")


@needs_root
def test_a_link_is_followed_only_if_root_made_it(conf: Path) -> None:
    link = conf.parent / "link"
    link.symlink_to(conf.name)
    assert read_owned(str(link), operators()) == "[DEFAULT]\n"
    os.chown(link, OTHER, OTHER, follow_symlinks=False)

    owners = Owners(frozenset({OTHER}))
    assert refused(link, owners) == f"denied: not followed: {link} is a link owned by uid {OTHER}"


def test_links_and_dots_stay_inside_the_root(closed: Path) -> None:
    (closed / "root/etc").mkdir(parents=True)
    (closed / "secret").write_text("outside")
    (closed / "root/etc/passwd").write_text("inside")
    (closed / "root/absolute").symlink_to("/etc/passwd")
    (closed / "root/up").symlink_to("../../../etc/passwd")
    root = str(closed / "root")

    for path in ("/absolute", "/up", "/../../etc/passwd", "/etc/../etc//./passwd"):
        assert read_owned(path, operators(), root=root) == "inside"
    assert refused(Path("/../secret"), root=root).startswith("absent: ")


def test_circular_links_are_refused(conf: Path) -> None:
    link = conf.parent / "link"
    link.symlink_to("link")

    assert "Too many levels of symbolic links" in refused(link)


@pytest.mark.parametrize("kind", ["folder", "fifo", "socket"])
def test_only_regular_files_are_read(conf: Path, kind: str) -> None:
    conf.unlink()
    if kind == "folder":
        conf.mkdir()
    elif kind == "fifo":
        os.mkfifo(conf, 0o600)
    else:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(conf))
        conf.chmod(0o600)

    assert refused(conf) == f"denied: not followed: {conf} is not a regular file"


def test_a_file_larger_than_any_configuration_is_refused(conf: Path) -> None:
    os.truncate(conf, 1 << 40)

    assert refused(conf).startswith("too-large: ")


def test_no_descriptor_stays_open(conf: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    read_owned(str(conf), operators())
    conf.chmod(0o666)
    refused(conf)
    refused(conf / "absent")

    assert len(os.listdir("/proc/self/fd")) == before


# Folders that a configuration names


@needs_root
@pytest.mark.parametrize(
    ("owner", "mode", "listed"),
    [
        (OTHER, 0o700, True),  # the service's
        (0, 0o755, True),  # root's, and the service could list it itself
        (0, 0o700, False),
        (0, 0o750, False),
        (4243, 0o755, False),  # somebody else's
    ],
)
def test_a_folder_is_listed_only_if_the_service_may_list_it(
    closed: Path, owner: int, mode: int, listed: bool
) -> None:
    folder = Path("/var/lib") / closed.name  # not in anybody's home
    folder.mkdir()
    try:
        folder.chmod(mode)
        os.chown(folder, owner, owner)
        owners = Owners(frozenset({OTHER, 0}), frozenset({OTHER}))
        assert (folder_refusal(str(folder), owners) is None) is listed
    finally:
        folder.rmdir()


@pytest.mark.parametrize("folder", ["/root", "/etc", "/", "/home", "/proc/self", "/usr/share"])
def test_system_folders_are_not_listed(folder: str) -> None:
    for owners in (None, Owners(frozenset({OTHER})), operators()):
        assert folder_refusal(folder, owners) is not None


# libvirt URIs


@pytest.mark.parametrize(
    "uri",
    [
        "qemu+ext:///system?command=/home/mallory/x/pwn.sh",
        "qemu+ssh://h/system?command=/usr/bin/python3&keyfile=/x",
        "qemu+ssh:///system",
        "qemu+tcp://127.0.0.1/system",
        "qemu+tls:///system",
        "qemu+libssh://h/system",
        "qemu+libssh2://h/system",
        "QEMU+EXT:///system?command=/x",
        "qemu:///system?command=/x",
        "qemu:///system?netcat=/x",
        "qemu:///system?socket=/x&socket=/y",
        "qemu:///system;command=/x",
        "qemu:///system?mode=auto;command=/x",
        "qemu:///system?mode=x",
        "qemu:///system?pkipath=/x",
        "qemu:///system?sshauth=agent",
        "qemu:///system?proxy=netcat",
        "qemu:///system#x",
        "qemu:///system\n",
        "qemu:///embed?root=/x",
        "qemu:///session",
        "qemu://host/system",
        "qemu+unix://host/system",
        "test:///default",
        "lxc:///",
        "esx://h/?no_verify=1",
        "mycloud",
        "",
        "qemu:///system?socket=relative",
        "qemu:///system?socket=/etc/passwd",
        "qemu:///system?socket=%2Fetc%2Fpasswd",
        "qemu:///system?socket=/nowhere",
    ],
)
def test_a_configuration_can_only_name_this_hosts_libvirt(uri: str) -> None:
    with pytest.raises(RefusedError):
        configured_uri(uri)


@pytest.mark.parametrize(
    ("uri", "meant"),
    [
        ("qemu:///system", "qemu:///system"),
        ("qemu+unix:///system", "qemu:///system"),
        ("qemu:///system?mode=direct", "qemu:///system?mode=direct"),
    ],
)
def test_the_usual_libvirt_uris_are_followed(uri: str, meant: str) -> None:
    assert configured_uri(uri) == meant


def test_a_socket_is_followed_only_in_folders_that_others_cannot_write(closed: Path) -> None:
    path = closed / "sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o777)  # who may connect is libvirt's business
        uri = f"qemu+unix:///system?socket={path}"
        assert configured_uri(uri) == uri
        closed.chmod(0o1777)
        with pytest.raises(RefusedError, match="every account can write"):
            configured_uri(uri)
        closed.chmod(0o755)
        (closed / "link").symlink_to(path)
        with pytest.raises(RefusedError, match="not a socket"):
            configured_uri(f"qemu+unix:///system?socket={closed}/link")
        if os.geteuid() == 0:
            os.chown(path, OTHER, OTHER)
            with pytest.raises(RefusedError, match=f"belongs to uid {OTHER}"):
                configured_uri(uri)


def test_a_refused_uri_is_recorded_and_this_hosts_libvirt_is_asked() -> None:
    visit = Visit(Wishes())
    visit.conf = {"libvirt": {"connection_uri": "qemu+ext:///system?command=/home/mallory/pwn.sh"}}

    assert visit._configured_uri() is None
    answer = visit.recorder.answers[-1]
    assert answer.query == "grep ^connection_uri /etc/nova/nova.conf"
    assert answer.error is not None
    assert answer.error.kind == "denied"
    assert answer.error.message.endswith("pass it with --libvirt-uri")
    typed = Visit(Wishes(libvirt_uri="qemu+tcp://10.0.0.5/system"))
    assert typed.libvirt_uri == "qemu+tcp://10.0.0.5/system"
