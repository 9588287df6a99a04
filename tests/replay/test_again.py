"""hoodsnap's own collector, run on a recording, collects what was recorded."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys

import pytest
from tests.conftest import HEALTHY, NOT_SEALED, healthy

from hoodsnap.bundle import Answer, Bundle, load
from hoodsnap.collect.libvirt_client import DISTRIBUTION_FOLDERS

SAME = (
    "nova",
    "nova-db",
    "placement",
    "libvirt",
    "glance",
    "neutron",
    "cinder",
    "kernel",
    "images",
)
"""Layers to compare. The others are devices, networks and the clock of the machine the test runs
on, which a recording does not replace."""

ACCEPTED = {
    r"GET /v2\.1/$": "its links lead to the stand-in",
    r"HEAD /v2\.1/$": "the clock is today's",
    r"pgrep qemu \| xargs ps ww$": "it ran some moments before the files of /proc were read",
    r"/proc/self/mountinfo$": "it shows the collector's own mounts",
    r"ss -Hltnp$": "it shows the sockets of the shell's own network namespace",
    r"ls /sys/bus/pci/devices$": "the shell has no PCI devices",
    r"stat -f ": "the images' file system is in memory",
    r"stat -L (/|/var|/var/lib|/var/lib/nova|/var/lib/nova/mnt(/[0-9a-f]{32})?)$": "is not restored",
    r"/proc/sys/fs/aio-": "the recording is older than the question",
    r"ls /proc/\d+/fd \| wc -l$": "the recording is older than the question",
    r"grep '\^Max open files' ": "the recording is older than the question",
    r"head -c 92 ": "the recording is older than the question",
    r"qemu-img info -U --backing-chain -f ": "it repeats the JSON, with a size on disk",
}
"""Queries whose answers may differ, with the reason."""

_OF_THE_FILE_SYSTEM = frozenset(["dev", "ino", "ctime", "blocks", "immutable", "append_only"])
_OF_A_FOLDER = frozenset(["size", "nlink"])
_OF_OUR_MAKING = frozenset(["magic", "actual-size"])
# Only root can change a file's owner; for other users all files belong to root.
_OF_AN_OWNER = frozenset(["uid", "gid", "user", "group"] if os.geteuid() else [])


def _key(answer: Answer) -> tuple[str, str, str | None]:
    # A query about the last days names the day.
    return answer.layer, re.sub(r"since=[^ &]+", "since=…", answer.query), answer.subject


def _answers(bundle: Bundle) -> dict[tuple[str, str, str | None], object]:
    return {
        _key(answer): answer.error.kind if answer.error is not None else _kept(answer)
        for answer in bundle.answers
        if answer.layer in SAME and not any(re.match(query, answer.query) for query in ACCEPTED)
    }


def _kept(answer: Answer) -> object:
    """Return an answer without the values that can't be the same for a restored file."""
    if answer.layer == "images":
        return _file(answer.value)
    if re.fullmatch(r"ls -lL /proc/\d+/fd", answer.query):
        # Those that are no images are this machine's, if they are there at all.
        images = (file for file in answer.value if file["path"].startswith("/var/lib/nova/"))
        return [_file(file) for file in images]
    if answer.query == "ls -l /proc/*/exe":  # the recording is older than the accounts in it
        return [{name: row[name] for name in ("pid", "comm", "exe")} for row in answer.value]
    return answer.value


def _file(value: object) -> object:
    if isinstance(value, list):
        return [_file(item) for item in value]
    if not isinstance(value, dict):
        return value
    differs = _OF_THE_FILE_SYSTEM | _OF_OUR_MAKING | _OF_AN_OWNER
    if value.get("type") == "d":
        differs |= _OF_A_FOLDER
    return {name: _file(item) for name, item in value.items() if name not in differs}


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    found = any((folder / "libvirt.py").exists() for folder in DISTRIBUTION_FOLDERS)
    if not found and importlib.util.find_spec("libvirt") is None:
        pytest.skip("libvirt's binding for Python is not installed")
    path = tmp_path_factory.mktemp("again") / "again.json"
    # What is written in the shell ends with it: the bundle comes out by standard output.
    line = "hoodsnap collect --all-hosts --output x.json >&2; cat x.json"
    with path.open("wb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "hoodsnap", "shell", HEALTHY, "--coverage", "-c", line],
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
        )
    if NOT_SEALED in done.stderr:
        pytest.skip(done.stderr.strip())
    assert path.stat().st_size > 0, done.stderr
    return load(path)


def test_the_same_is_collected_again(again: Bundle) -> None:
    before, after = _answers(healthy()), _answers(again)

    assert before.keys() == after.keys()
    differing = {key for key, value in before.items() if after[key] != value}
    assert differing == set()


def test_the_same_guests_are_explained(again: Bundle) -> None:
    from hoodsnap.facts.cloud.cloud import read

    def guests(bundle: Bundle) -> set[tuple[str, str]]:
        return {(guest.uuid, guest.name) for guest in read(bundle).guests if guest.instance}

    assert guests(again) == guests(healthy())
