"""Daemons of the running lab are stopped at many moments of a visit: it ends, and keeps the rest.

A moment is a number of answers, so the same question is the next one on a fast machine and on a
slow one. Each moment stops other daemons, because every trial takes as long as its patience.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hoodsnap.bundle import load
from hoodsnap.findings.analysis import analyze

pytestmark = pytest.mark.freeze

COLLECTS = """
import os, signal, sys
from hoodsnap.collect import patience, recorder

share, moment, *pids = map(int, sys.argv[2:])
patience.AT_LEAST, patience.WORN = patience.AT_LEAST / share, patience.WORN / share
recorder.Patience = lambda: patience.Patience(patience.ALTOGETHER / share)
record = recorder.Recorder._record

def stopping(self, *arguments):
    answer = record(self, *arguments)
    # Threads answer, too, so the very number may never be seen.
    while len(self.answers) >= moment and pids:
        os.kill(pids.pop(), signal.SIGSTOP)
        open(sys.argv[-1] + ".stopped", "w").close()
    return answer

recorder.Recorder._record = stopping
from hoodsnap.cli import start

sys.argv = ["hoodsnap", "collect", "--os-cloud", "hoodlab", "-o", sys.argv[1]]
start()
"""

APIS = {"nova", "glance", "neutron", "cinder", "placement", "keystone"}

DAEMONS = {
    "libvirtd": (r"/usr/sbin/libvirtd", {"libvirt"}),
    "mariadbd": (r"/usr/sbin/mariadbd", {"nova-db", *APIS}),
    "keystone": (r"keystone uWSGI", APIS),
    "nova-api": (r"/usr/bin/python3 /usr/bin/nova-api", {"nova"}),
    "neutron": (r"(/usr/bin/python3 /usr/bin/)?neutron-server", {"neutron", "nova"}),
    "placement": (r"placement-api uWSGI", {"placement"}),
    "cinder": (r"/usr/bin/python3 /usr/bin/cinder-api", {"cinder", "nova"}),
    "ovs": (r"/usr/sbin/ovs", {"network"}),
    "qemu": (r"/usr/bin/qemu-system", set[str]()),
    "virtlogd": (r"/usr/sbin/virtlogd", set[str]()),
}
"""Name → the beginning of its command line, and the layers that may stay silent with it."""


def pids_of(name: str) -> list[int]:
    """Return the processes of a daemon in our own network."""
    own = os.readlink("/proc/self/ns/net")
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            is_here = os.readlink(folder / "ns/net") == own
        except OSError:  # it has ended
            continue
        if is_here and re.match(DAEMONS[name][0], words):
            found.append(int(folder.name))
    return found


@contextmanager
def going_on_after(pids: list[int]) -> Iterator[None]:
    """Let these processes continue at the end, whatever happened."""
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        time.sleep(1.0)


def collect(cloud: Path, output: Path, names: list[str], moment: int, share: int) -> float:
    """Collect, and stop these daemons after so many answers; return the seconds that it took."""
    found = {name: pids_of(name) for name in names}
    assert all(found.values()), found
    pids = [pid for one in found.values() for pid in one]
    command = [sys.executable, "-c", COLLECTS, output, share, moment, *pids]
    start = time.monotonic()
    with going_on_after(pids):
        done = subprocess.run(
            [*map(str, command)],
            env=os.environ | {"OS_CLIENT_CONFIG_FILE": str(cloud / "clouds.yaml")},
            stderr=subprocess.PIPE,
            timeout=120,
        )
    assert done.returncode in (0, 4), done.stderr.decode()
    assert Path(f"{output}.stopped").exists(), f"the visit has fewer than {moment} answers"
    return time.monotonic() - start


@pytest.mark.parametrize(
    ("moment", "names"),
    [
        (3, "mariadbd virtlogd"),
        (30, "libvirtd"),
        (60, "keystone"),
        (100, "nova-api qemu"),
        (160, "mariadbd libvirtd"),
        (250, "libvirtd placement"),
        (400, "cinder neutron"),
        (600, "ovs keystone"),
        (680, "placement mariadbd"),
        (750, "libvirtd nova-api mariadbd"),
    ],
)
def test_frozen_daemons_cost_only_their_own_answers(
    cloud: Path, moment: int, names: str, tmp_path: Path
) -> None:
    frozen = names.split()

    took = collect(cloud, tmp_path / "b.json.gz", frozen, moment, share=4)

    assert took < 45  # a quarter of the patience, on a machine that does other things, too
    bundle = load(tmp_path / "b.json.gz")
    heard = {answer.layer for answer in bundle.answers if answer.error is None}
    silent = set[str]().union(*(DAEMONS[name][1] for name in frozen))
    everything = {"nova", "nova-db", "libvirt", "neutron", "placement", "cinder", "network"}
    assert {"host", "kernel", "images", "cgroup", "logs", *everything} - silent <= heard
    blamed = [one for one in analyze(bundle).findings if one.check.name == "qemu-monitor-dead"]
    assert not blamed or "qemu" in frozen


@pytest.mark.parametrize("moment", [40, 300])
def test_everything_frozen_at_once_costs_less_than_a_minute(
    cloud: Path, moment: int, tmp_path: Path
) -> None:
    took = collect(cloud, tmp_path / "b.json.gz", [*DAEMONS], moment, share=1)

    assert took < 60
    bundle = load(tmp_path / "b.json.gz")
    heard = {answer.layer for answer in bundle.answers if answer.error is None}
    assert {"host", "kernel", "images", "cgroup", "logs"} <= heard
