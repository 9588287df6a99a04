"""Output files: refused before the work, never written through an untrusted link, never partial."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import typer
from tests.conftest import HEALTHY

from hoodsnap.bundle import load
from hoodsnap.cli.rescue import rescued
from hoodsnap.collect.visit import worth_asking
from hoodsnap.output import PUBLIC, UnwritableError, is_same_file, require_writable, write

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as two accounts")


def hoodsnap(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hoodsnap", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | environment, timeout=120
    )


def collects(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`hoodsnap collect` that asks no cloud and no libvirt."""
    uri = "qemu+unix:///system?socket=/nonexistent"
    return hoodsnap("collect", "--libvirt-uri", uri, *arguments, OS_CLOUD="", OS_AUTH_URL="")


def refusal(path: Path, *inputs: Path) -> str:
    with pytest.raises(UnwritableError) as reason:
        require_writable(path, inputs)
    return str(reason.value)


def test_a_new_file_is_written_and_the_attempt_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "bundle.json"
    require_writable(path)
    assert list(tmp_path.iterdir()) == []

    write(path, b"{}")

    assert [path.read_bytes(), stat.S_IMODE(path.stat().st_mode)] == [b"{}", 0o600]
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_for_all_follows_the_umask(tmp_path: Path) -> None:
    write(tmp_path / "baseline.toml", b"", PUBLIC)
    (tmp_path / "other").touch()

    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))

    assert refusal(tmp_path / "no/where.json") == "No such file or directory"
    assert refusal(tmp_path / "file/where.json") == "Not a directory"
    assert refusal(tmp_path) == "it is a directory"
    kinds = "it is neither a regular file nor a FIFO nor a character device"
    assert refusal(tmp_path / "socket") == kinds


def test_a_file_system_without_room_is_found_before(tmp_path: Path) -> None:
    """Simulate a full disk by a limit on the size of files."""
    program = (
        "import resource, signal, sys; from pathlib import Path; from hoodsnap import output\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: output.require_writable(Path(sys.argv[1]))\n"
        "except output.UnwritableError as reason: print(reason)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "x.json"], capture_output=True, text=True
    )

    assert done.stdout == "File too large\n"
    assert list(tmp_path.iterdir()) == []


def test_null_and_standard_output_are_written_to(tmp_path: Path) -> None:
    program = "from pathlib import Path; from hoodsnap.output import *; p = Path({!r})\n"
    program += "require_writable(p); write(p, b'whole')"
    for path in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "-"):
        done = subprocess.run([sys.executable, "-c", program.format(path)], capture_output=True)
        assert (done.stdout, done.stderr) == (b"whole", b"")
    write(Path("/dev/null"), b"x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_an_own_fifo_is_written_to(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    reader.start()

    require_writable(fifo)
    write(fifo, b"whole")
    reader.join(timeout=10)

    assert read == [b"whole"]


def test_an_own_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "bundles").mkdir()
    (tmp_path / "latest.json").symlink_to("bundles/one.json")

    write(tmp_path / "latest.json", b"{}")

    assert (tmp_path / "latest.json").is_symlink()
    assert (tmp_path / "bundles/one.json").read_bytes() == b"{}"


@pytest.mark.parametrize("command", ["collect", "redact", "check"])
def test_an_unwritable_output_is_found_before_the_first_question(
    tmp_path: Path, command: str
) -> None:
    path = tmp_path / "no/where.json"
    broken = tmp_path / "broken.json"  # no command gets so far that it notices
    broken.write_text("{")
    key = tmp_path / "key"

    done = {
        "collect": lambda: collects("-o", path),
        "redact": lambda: hoodsnap("redact", broken, "-o", path, "--key-file", key),
        "check": lambda: hoodsnap("check", broken, "--write-baseline", path),
    }[command]()

    assert done.returncode == 3
    assert done.stderr == f"hoodsnap: {path} can't be written: No such file or directory\n"
    assert not key.exists()


@pytest.mark.parametrize(
    "name", ["x.json.zst", "./x.json.zst", "sub/../x.json.zst", "link", "hard"]
)
def test_redact_does_not_overwrite_what_it_reads(tmp_path: Path, name: str) -> None:
    bundle = tmp_path / "x.json.zst"
    shutil.copy(HEALTHY, bundle)
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to("x.json.zst")
    (tmp_path / "hard").hardlink_to(bundle)

    done = hoodsnap("redact", bundle, "-o", os.path.join(tmp_path, name))

    assert done.returncode == 2
    assert done.stderr.endswith(f"it would overwrite {bundle}, which this command reads\n")
    assert bundle.read_bytes() == HEALTHY.read_bytes()


def test_redact_does_not_overwrite_its_standard_input(tmp_path: Path) -> None:
    bundle = tmp_path / "x.json.zst"
    shutil.copy(HEALTHY, bundle)

    with bundle.open() as stdin:
        command = [sys.executable, "-m", "hoodsnap", "redact", "-", "-o", str(bundle)]
        done = subprocess.run(command, stdin=stdin, capture_output=True)

    assert done.returncode == 2
    assert bundle.read_bytes() == HEALTHY.read_bytes()


def test_redact_does_not_overwrite_its_key(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("0" * 64)
    key.chmod(0o600)

    done = hoodsnap("redact", HEALTHY, "-o", key, "--key-file", key)

    assert done.returncode == 2
    assert key.read_text() == "0" * 64


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("0" * 64)
    key.chmod(0o644)

    done = hoodsnap("redact", HEALTHY, "-o", tmp_path / "out.json", "--key-file", key)

    assert done.returncode == 2
    assert done.stderr == (
        f"hoodsnap: {key} can't be used: other accounts can read it: chmod 600 {key}\n"
    )


def test_collect_does_not_overwrite_the_key_that_signs(tmp_path: Path) -> None:
    key = tmp_path / "id"
    key.write_text("a key")

    done = collects("-o", key, "--sign", key)

    assert done.returncode == 2
    assert key.read_text() == "a key"


def test_two_names_of_one_file_are_known(tmp_path: Path) -> None:
    (tmp_path / "one").touch()

    assert is_same_file(tmp_path / "one", tmp_path / "." / "one")
    assert not is_same_file(tmp_path / "one", tmp_path / "two")
    assert not is_same_file(Path("-"), Path("-"))


@AS_ROOT
class TestAnotherAccount:
    """A local user prepares the path that root is about to write to."""

    @pytest.fixture
    def shared(self, tmp_path: Path) -> Path:
        """A folder like /tmp."""
        (tmp_path / "shared").mkdir()
        (tmp_path / "shared").chmod(0o1777)
        return tmp_path / "shared"

    @pytest.fixture
    def stranger(self) -> pwd.struct_passwd:
        return pwd.getpwnam("nobody")

    def test_its_fifo_gets_nothing(self, shared: Path, stranger: pwd.struct_passwd) -> None:
        fifo = shared / "x.json"
        os.mkfifo(fifo, 0o666)
        os.chown(fifo, stranger.pw_uid, stranger.pw_gid)

        done = collects("-o", fifo)

        assert done.returncode == 3
        assert done.stderr == (
            f"hoodsnap: {fifo} can't be written: it is a FIFO of another account\n"
        )

    @pytest.mark.parametrize("exists", [True, False])
    def test_its_link_is_not_written_through(
        self, shared: Path, tmp_path: Path, stranger: pwd.struct_passwd, exists: bool
    ) -> None:
        target = tmp_path / "target"
        if exists:
            target.write_text("root's")
        (shared / "x.json").symlink_to(target)
        os.lchown(shared / "x.json", stranger.pw_uid, stranger.pw_gid)

        reason = refusal(shared / "x.json")
        with pytest.raises(UnwritableError):
            write(shared / "x.json", b"{}")

        assert reason == f"{shared}/x.json is a link that other accounts could have made"
        assert target.exists() == exists

    def test_its_link_of_a_folder_is_not_followed(
        self, shared: Path, tmp_path: Path, stranger: pwd.struct_passwd
    ) -> None:
        (tmp_path / "root").mkdir()
        (shared / "bundles").symlink_to(tmp_path / "root")
        os.lchown(shared / "bundles", stranger.pw_uid, stranger.pw_gid)

        with pytest.raises(UnwritableError):
            write(shared / "bundles/x.json", b"{}")
        assert list((tmp_path / "root").iterdir()) == []

    def test_a_link_of_root_with_a_second_name_is_not_followed(
        self, shared: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "link").symlink_to(tmp_path / "target")
        os.link(tmp_path / "link", shared / "x.json", follow_symlinks=False)

        assert "other accounts could have made" in refusal(shared / "x.json")

    def test_its_file_is_replaced_by_a_private_one(
        self, shared: Path, stranger: pwd.struct_passwd
    ) -> None:
        path = shared / "x.json"
        path.write_text("theirs")
        os.chown(path, stranger.pw_uid, stranger.pw_gid)
        with path.open() as theirs:
            write(path, b"{}")
            assert theirs.read() == "theirs"

        assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (0, 0o600)

    def test_a_read_only_file_system_is_found_before(self, tmp_path: Path) -> None:
        path = tmp_path / "x.json"

        done = self.on_a_read_only_file_system(tmp_path, f"redact {HEALTHY} -o {path}")

        assert done.returncode == 3
        assert done.stderr == f"hoodsnap: {path} can't be written: Read-only file system\n"

    @pytest.mark.parametrize("command", ["collect", "demo"])
    def test_the_folder_that_is_taken_without_an_output_is_tried_too(
        self, tmp_path: Path, command: str
    ) -> None:
        if command == "demo" and not worth_asking():
            pytest.skip("this host is not collected by the demo")

        done = self.on_a_read_only_file_system(tmp_path, command)

        assert done.returncode == 3
        assert done.stderr.splitlines()[-1] == (
            "hoodsnap: hoodsnap-HOST-TIME.json.gz can't be written: Read-only file system"
        )

    @staticmethod
    def on_a_read_only_file_system(
        folder: Path, arguments: str
    ) -> subprocess.CompletedProcess[str]:
        mounted = f"mount -t tmpfs -o ro none {folder} && cd {folder}"
        run = f"{mounted} && exec {sys.executable} -m hoodsnap {arguments}"
        command = ["unshare", "-m", "sh", "-c", run]
        return subprocess.run(command, capture_output=True, text=True)


class TestAStandardOutputThatCanNotBeWritten:
    COMMANDS = ("explain", "explain -f json", "grade compute", "verify", "redact -o -")

    @pytest.mark.parametrize("command", COMMANDS)
    def test_one_that_is_full_is_reported_in_one_sentence(
        self, tmp_path: Path, command: str
    ) -> None:
        done = self.run_in(tmp_path, f"{command} {HEALTHY} > /dev/full")

        sentence = "hoodsnap: standard output can't be written: No space left on device"
        assert (done.returncode, done.stderr.splitlines()[-1]) == (3, sentence)
        assert list(tmp_path.iterdir()) == []

    def test_one_that_is_closed_costs_nothing(self, tmp_path: Path) -> None:
        done = self.run_in(tmp_path, f"explain {HEALTHY} >&-")

        assert (done.returncode, done.stderr, list(tmp_path.iterdir())) == (0, "", [])

    def test_nothing_is_printed_into_the_file_that_is_written(self, tmp_path: Path) -> None:
        written = self.run_in(tmp_path, f"redact {HEALTHY} -o x.json --key-file k 2>&- >&-")

        assert written.returncode == 0
        json.loads((tmp_path / "x.json").read_text())

    @staticmethod
    def run_in(folder: Path, arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["sh", "-c", f"{sys.executable} -m hoodsnap {arguments}"]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_what_was_collected_is_not_lost_where_its_place_was_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "b.json"
    path.mkdir()

    with pytest.raises(typer.Exit) as ended:
        rescued(load(HEALTHY), path)

    assert ended.value.exit_code == 5
    (other,) = (found for found in tmp_path.iterdir() if found.is_file())
    assert load(other).answers
    assert capsys.readouterr().err == (
        f"hoodsnap: {path} can't be written: it is a directory\n"
        f"hoodsnap: wrote {other} instead ({len(load(other).answers)} answers)\n"
    )


def test_what_was_collected_goes_to_another_folder_where_its_own_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    with pytest.raises(typer.Exit):
        rescued(load(HEALTHY), Path("/proc/b.json"))

    assert [load(found).answers != () for found in tmp_path.iterdir()] == [True]
