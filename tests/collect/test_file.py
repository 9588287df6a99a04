"""Files that are not what they seem must not block, exhaust memory, or lead elsewhere."""

from __future__ import annotations

import os
import pwd
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from hoodsnap.collect import file
from hoodsnap.collect.folder import list_folder, look_at
from hoodsnap.collect.image import ask_images, find_instances_dirs
from hoodsnap.collect.program import run
from hoodsnap.collect.question import AbandonedError, PendingQuestion, answering
from hoodsnap.collect.recorder import Recorder, RefusedError, patiently
from hoodsnap.path import StrangeLinkError

NOTES = "quarterly numbers: strictly confidential"

ENDLESS = 1 << 40

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as two accounts")


@pytest.fixture
def stranger() -> pwd.struct_passwd:
    """An account other than root that owns no files of the test."""
    return pwd.getpwnam("nobody")


def test_a_regular_file_is_read_through_our_own_links(tmp_path: Path) -> None:
    (tmp_path / "data/nova").mkdir(parents=True)
    (tmp_path / "data/nova/compute_id").write_bytes(b"one\xff\n")
    (tmp_path / "nova").symlink_to(tmp_path / "data/nova")
    (tmp_path / "data/again").symlink_to("../nova/./compute_id")

    assert file.text(tmp_path / "nova/compute_id") == "one\udcff\n"
    assert file.text(tmp_path / "data/again") == "one\udcff\n"
    assert file.text("/etc/os-release") == Path("/etc/os-release").read_text()


def test_links_in_a_container_stay_inside_the_container(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/name").write_text("the container's")
    (tmp_path / "absolute").symlink_to("/etc/name")
    (tmp_path / "upwards").symlink_to("../../../../../etc/name")

    assert file.text("/absolute", top=tmp_path) == "the container's"
    assert file.text("/upwards", top=tmp_path) == "the container's"


def test_files_below_the_root_of_a_process_are_read() -> None:
    inside = file.text(f"/proc/{os.getpid()}/root/etc/os-release")

    assert inside == Path("/etc/os-release").read_text()


def test_a_loop_of_links_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")

    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        file.read(tmp_path / "a")


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("made", "kind"),
    [(_fifo, "a FIFO"), (_device, "a character device"), (_folder, "a directory")],
)
def test_only_regular_files_are_read(
    tmp_path: Path, made: Callable[[Path], None], kind: str
) -> None:
    made(tmp_path / "compute_id")

    answer = Recorder("vm").ask("host", "cat", partial(file.text, tmp_path / "compute_id"))

    assert answer.error is not None
    assert answer.error.kind == "denied"
    assert answer.error.message.endswith(f"is {kind}, not a regular file")


def test_a_writer_to_a_fifo_is_not_woken(tmp_path: Path) -> None:
    """Opening the FIFO, even for a moment, would wake the process at its other end."""
    fifo = tmp_path / "compute_nodes"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_text("x"), daemon=True)
    writer.start()
    time.sleep(0.1)

    with pytest.raises(RefusedError):
        file.read(fifo)
    list_folder(str(tmp_path), lambda path, head: None)

    writer.join(timeout=0.2)
    assert writer.is_alive()
    assert fifo.read_bytes() == b"x"


def test_a_file_of_a_terabyte_is_refused(tmp_path: Path) -> None:
    sparse = tmp_path / "compute_id"
    sparse.touch()
    os.truncate(sparse, ENDLESS)

    with pytest.raises(RefusedError, match="has more than 1048576 bytes") as refusal:
        file.read(sparse)
    with pytest.raises(RefusedError, match="more than"):
        list(file.lines(sparse, ENDLESS))
    assert refusal.value.kind == "too-large"
    assert file.head(sparse, 16) == bytes(16)
    assert file.tail(sparse, 16) == ""


def test_lines_of_a_file_are_yielded_whole(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_bytes(b"one\n" + b"x" * 70_000 + b"\n\nlast")

    assert list(file.lines(tmp_path / "mountinfo", 1 << 20)) == [
        "one\n",
        "x" * 70_000 + "\n",
        "\n",
        "last",
    ]


def test_an_abandoned_question_stops_reading(tmp_path: Path) -> None:
    sparse = tmp_path / "huge"
    sparse.touch()
    os.truncate(sparse, ENDLESS)
    ended = threading.Event()

    def read() -> None:
        try:
            with file.opened(sparse) as handle:
                while True:  # as for a file that grows faster than it is read
                    file._piece(handle, 0, 1 << 20)
        finally:
            ended.set()

    assert isinstance(patiently(read, 0.1), TimeoutError)
    assert ended.wait(5)


def test_an_abandoned_question_ends_its_program() -> None:
    ended = threading.Event()

    def ask() -> str:
        try:
            return run([sys.executable, "-c", "import time; time.sleep(60)"])
        finally:
            ended.set()

    assert isinstance(patiently(ask, 0.5), TimeoutError)
    assert ended.wait(5)


def test_programs_of_an_abandoned_question_are_not_waited_for() -> None:
    question = PendingQuestion()
    question.abandon()

    with answering(question), pytest.raises(AbandonedError):
        run(["sleep", "60"])


def test_a_program_has_limits() -> None:
    assert run(["sh", "-c", "sleep 0.2; ulimit -c; ulimit -v"]) == f"0\n{4 << 20}\n"


HOSTILE = """
import os, re, sys, time
from functools import partial
from hoodsnap.collect import file
from hoodsnap.collect.program import run
from hoodsnap.collect.recorder import Recorder
from hoodsnap.collect.process import _cmdline, _mounts, _words

folder, pid = sys.argv[1:]
recorder = Recorder("vm")
questions = [partial(file.text, f"{folder}/{name}") for name in ("zero", "sparse", "fifo")]
questions += [partial(_cmdline, f"/proc/{pid}/cmdline"), partial(_words, pid)]
questions += [partial(run, ["yes", "x" * 1000]) for _ in range(5)]
questions += [partial(run, ["head", "-c", str(8 << 20), "/dev/zero"]) for _ in range(5)]
questions += [lambda: list(file.lines(f"{folder}/sparse", 1 << 40, 1 << 20))]
questions += [lambda: file.read(f"{folder}/sparse", 64 << 20) for _ in range(4)]
for number, question in enumerate(questions):
    recorder.ask("host", str(number), question, patience=0.5)
time.sleep(1)
# Not ru_maxrss: a child inherits that of the process that started it.
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) >> 10)
"""


@pytest.fixture
def talker() -> Iterator[int]:
    """PID of a process with 1.5 MB of arguments."""
    words = ["secret," * 18_000] * 12
    with subprocess.Popen(["sh", "-c", "sleep 60", *words]) as process:
        yield process.pid
        process.kill()


def test_memory_stays_bounded_for_endless_files(tmp_path: Path, talker: int) -> None:
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", ENDLESS)
    os.mkfifo(tmp_path / "fifo")

    command = [sys.executable, "-c", HOSTILE, str(tmp_path), str(talker)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)

    assert int(done.stdout) < 300


def test_running_a_program_keeps_our_own_limits() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    run(["true"])
    assert resource.getrlimit(resource.RLIMIT_AS) == before


@AS_ROOT
class TestAnotherAccount:
    """Files and links that a local user, or nova's account, puts into its own folders."""

    @pytest.fixture
    def secret(self, tmp_path: Path) -> Path:
        (tmp_path / "private").mkdir(mode=0o700)
        (tmp_path / "private/notes").write_text(NOTES)
        (tmp_path / "private/notes").chmod(0o600)
        return tmp_path / "private/notes"

    @pytest.fixture
    def theirs(self, tmp_path: Path, stranger: pwd.struct_passwd) -> Path:
        """A folder that the stranger owns."""
        (tmp_path / "theirs").mkdir()
        os.chown(tmp_path / "theirs", stranger.pw_uid, stranger.pw_gid)
        return tmp_path / "theirs"

    def test_a_link_of_the_account_is_not_followed(
        self, theirs: Path, secret: Path, stranger: pwd.struct_passwd
    ) -> None:
        link = theirs / "compute_id"
        link.symlink_to(secret)
        os.lchown(link, stranger.pw_uid, stranger.pw_gid)

        answer = Recorder("vm").ask("host", "cat", partial(file.text, link))

        assert answer.error is not None
        assert answer.error.kind == "denied"
        assert answer.error.message == (f"{link} is a link that other accounts could have made")

    def test_a_link_of_root_in_the_accounts_folder_is_not_followed(
        self, theirs: Path, secret: Path
    ) -> None:
        """The account may have moved or hard-linked the link into its folder."""
        (theirs / "compute_id").symlink_to(secret)

        with pytest.raises(StrangeLinkError):
            file.text(theirs / "compute_id")

    def test_a_link_to_a_folder_is_not_entered(
        self, theirs: Path, secret: Path, stranger: pwd.struct_passwd
    ) -> None:
        (theirs / "instances").symlink_to(secret.parent)
        os.lchown(theirs / "instances", stranger.pw_uid, stranger.pw_gid)

        with pytest.raises(StrangeLinkError):
            file.text(theirs / "instances/notes")
        with pytest.raises(StrangeLinkError):
            list_folder(str(theirs / "instances"), lambda path, head: None)
        with pytest.raises(StrangeLinkError):
            look_at(str(theirs / "instances/notes"), lambda path, head: None)

    def test_a_link_in_a_world_writable_folder_is_not_followed(
        self, tmp_path: Path, secret: Path
    ) -> None:
        (tmp_path / "all").mkdir()
        (tmp_path / "all").chmod(0o777)
        (tmp_path / "all/compute_id").symlink_to(secret)

        with pytest.raises(StrangeLinkError):
            file.text(tmp_path / "all/compute_id")

    def test_a_link_of_root_above_the_accounts_folder_is_followed(
        self, theirs: Path, tmp_path: Path
    ) -> None:
        """Operators use such a link to move /var/lib/nova to another disk."""
        (theirs / "compute_id").write_text("one")
        (tmp_path / "nova").symlink_to(theirs)

        assert file.text(tmp_path / "nova/compute_id") == "one"

    def test_a_hard_link_to_a_private_file_is_not_read(self, theirs: Path, secret: Path) -> None:
        os.link(secret, theirs / "compute_nodes")

        with pytest.raises(RefusedError, match="hard links") as refusal:
            file.text(theirs / "compute_nodes")
        assert refusal.value.kind == "denied"
        [_, entry] = list_folder(str(theirs), lambda path, head: None)
        assert entry["magic"] is None

    def test_a_private_file_moved_into_the_folder_is_not_read(
        self, theirs: Path, secret: Path
    ) -> None:
        """nova can't read a console log, but can rename it: root's file is in nova's folder."""
        secret.rename(theirs / "compute_nodes")

        with pytest.raises(RefusedError, match="not to its folder's owner"):
            file.text(theirs / "compute_nodes")

    def test_no_private_content_gets_into_a_bundle(
        self, theirs: Path, secret: Path, stranger: pwd.struct_passwd
    ) -> None:
        """Links replace every file that the image collector reads and every folder it lists."""
        guest = theirs / "11111111-2222-3333-4444-555555555555"
        guest.mkdir()
        links = [theirs / "compute_nodes", theirs / "_base", guest / "disk.info", guest / "disk"]
        for link in links:
            link.symlink_to(secret.parent if link.name == "_base" else secret)
            os.lchown(link, stranger.pw_uid, stranger.pw_gid)
        recorder = Recorder("vm")

        ask_images(recorder, [theirs], {str(guest / "disk"): "raw"}, [str(guest / "disk")])

        written = repr([answer.as_json() for answer in recorder.answers])
        assert NOTES not in written
        assert NOTES[:16].encode().hex() not in written
        assert "/notes -ls" not in written
        asked = {answer.query: answer for answer in recorder.answers}
        for query in (f"cat {theirs}/compute_nodes", f"find {theirs}/_base/ -ls"):
            error = asked[query].error
            assert error is not None
            assert error.kind == "denied"
        assert not [query for query in asked if query.startswith("qemu-img")]

    def test_a_strange_instances_directory_is_reported_besides_a_good_one(
        self, theirs: Path, tmp_path: Path, stranger: pwd.struct_passwd
    ) -> None:
        """Nova's account may replace the folder in nova.conf by a link."""
        (theirs / "instances").symlink_to(tmp_path / "private")
        os.lchown(theirs / "instances", stranger.pw_uid, stranger.pw_gid)
        (tmp_path / "real").mkdir()
        conf = {"DEFAULT": {"instances_path": f"{theirs}/instances"}}
        disk = f"{tmp_path}/real/11111111-2222-3333-4444-555555555555/disk"
        recorder = Recorder("vm")

        found = find_instances_dirs(recorder, conf, [disk])

        assert theirs / "instances" not in found
        assert tmp_path / "real" in found
        errors = {answer.query: answer.error for answer in recorder.answers}
        error = errors[f"stat -L {theirs}/instances"]
        assert error is not None
        assert error.message == f"{theirs}/instances is a link that other accounts could have made"

    def test_a_folder_replaced_by_a_link_is_not_entered(
        self,
        theirs: Path,
        secret: Path,
        stranger: pwd.struct_passwd,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The owner replaces a folder by a link after its stat and before its listing."""
        (theirs / "guest").mkdir()
        enter = file.folder_at

        def swap_and_enter(name: str, folder: int) -> int:
            if name == "guest":
                (theirs / "guest").rename(theirs / "moved")
                (theirs / "guest").symlink_to(secret.parent)
            return enter(name, folder)

        monkeypatch.setattr(file, "folder_at", swap_and_enter)

        entries = list_folder(str(theirs), lambda path, head: None)

        assert [os.path.basename(entry["path"]) for entry in entries] == ["theirs", "guest"]
        assert entries[1]["error"] == "Not a directory"
