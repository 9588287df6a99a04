"""The advice of the checks, followed on the running lab as it is written: it ends the finding.

remedies.toml says with which fault of the lab, and which of the advised commands are followed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from fixtures.record import ALL_HOSTS, FROZEN, SETTLE, SLOW
from tests.conftest import ROOT
from tests.live.remedies import BY_HAND, UNTIL, Trial, load, looks, steps

from hoodsnap import bundle
from hoodsnap.evidence import Severity
from hoodsnap.findings.advice import instructions
from hoodsnap.findings.analysis import Report, analyze
from hoodsnap.findings.finding import Finding

TRIALS = [trial for trials in load().values() for trial in trials if not trial.untried]

SQL = ("SELECT ", "UPDATE ", "DELETE ")
API_DATABASE = ("instance_mappings", "build_requests")
"""Tables of nova's API database; the others are in the cell's."""

AT_MOST = 180.0
"""Seconds for one command, and for nova to end the task that it requested."""


class Lab:
    """The running lab, as root on its host sees it."""

    def __init__(self, state: Path, folder: Path) -> None:
        """`state` is the lab's state folder; `folder` is where commands run."""
        self.state, self.folder = state, folder
        self.programs = folder / "bin"
        self.programs.mkdir()
        (self.programs / "systemctl").symlink_to(ROOT / "lab/systemctl")
        self._collected = 0

    def environment(self, **more: str) -> dict[str, str]:
        """Return what a login shell with the administrator's openrc has."""
        path = f"{self.programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        mine = {"PATH": path, "HOME": "/root", "LC_ALL": "C.UTF-8", "TMP": str(self.folder)}
        return {**mine, **more}

    def shell(self, command: str, **more: str) -> str:
        """Run a command as a reader would; return its output. Fails with the command's status."""
        done = subprocess.run(
            ["bash", "-c", f'. "$0"; {command}', str(self.state / "openrc")],
            cwd=self.folder,
            env=self.environment(**more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=AT_MOST,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}"
        return done.stdout

    def sql(self, statement: str) -> str:
        """Run a statement in the database that has its table; return the output."""
        database = "nova_api" if any(table in statement for table in API_DATABASE) else "nova"
        command = ["mysql", "--batch", "--skip-column-names", database, "-e", statement]
        done = subprocess.run(command, env=self.environment(), capture_output=True, text=True)
        assert done.returncode == 0, f"{statement}\n{done.stderr}"
        return done.stdout

    def script(self, *words: str) -> None:
        """Run one of the lab's scripts."""
        done = subprocess.run(
            [ROOT / "lab" / words[0], *words[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout

    def report(self, *options: str) -> Report:
        """Collect the host, and explain it."""
        self._collected += 1
        path = self.folder / f"{self._collected}.json"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "hoodsnap", "collect", "--quiet", *options),
                *("--os-cloud", "hoodlab", "--output", path),
            ],
            env=os.environ | {"OS_CLIENT_CONFIG_FILE": str(self.state / "clouds.yaml")},
            stderr=subprocess.PIPE,
        )
        assert done.returncode in (0, 4), done.stderr.decode()
        return analyze(bundle.load(path))

    def thaw(self) -> None:
        """Let nova-compute continue."""
        pid = (self.state / "run/nova-compute.pid").read_text().split()[0]
        subprocess.run(["kill", "-CONT", pid])

    def wait(self, uuid: str, state: str = "") -> None:
        """Wait until a server has no task, and is in this vm_state of nova if one is given."""
        query = f"SELECT vm_state, task_state FROM instances WHERE uuid = '{uuid}'"
        end = time.monotonic() + AT_MOST
        while True:
            now = self.sql(query).split()
            if not now or (now[1] == "NULL" and state in (now[0], "")):
                return
            assert time.monotonic() < end, f"the server stays {now}"
            time.sleep(1.0)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The lab has the same findings at the end as before."""
    state = Path(os.environ.get("LAB_STATE", "/var/lib/hoodlab"))
    if os.geteuid() != 0 or not (state / "clouds.yaml").exists():
        pytest.skip("root and the lab are required (make lab)")
    lab = Lab(state, tmp_path_factory.mktemp("quiet"))
    lab.script("instances.sh")
    before = set(_keys(lab.report()))
    yield
    assert set(_keys(lab.report())) == before


@pytest.fixture
def lab(cloud: Path, tmp_path: Path, quiet: None) -> Lab:
    return Lab(cloud, tmp_path)


@contextmanager
def broken(lab: Lab, trial: Trial) -> Iterator[None]:
    """Have the fault in the lab, and nothing of it afterwards."""
    if trial.before:
        lab.shell(trial.before)
    freeze = ["--freeze"] if trial.fault in FROZEN else []
    try:
        lab.script("break.sh", *freeze, trial.fault, *filter(None, [trial.instance]))
        time.sleep(SLOW.get(trial.fault, SETTLE))
        yield
        how = {"fix": [], "forget": ["--forget"]}.get(trial.undo, ["--rest"])
        lab.script("fix.sh", *how, trial.fault)
    finally:
        if (lab.state / "faults" / trial.fault).exists():
            lab.script("fix.sh", trial.fault)
        if freeze:
            lab.thaw()


@pytest.mark.remedies
@pytest.mark.parametrize(
    "trial",
    [
        pytest.param(trial, marks=pytest.mark.lab if trial.sample else (), id=trial.name)
        for trial in TRIALS
    ],
)
def test_the_advice_ends_its_finding(trial: Trial, lab: Lab) -> None:
    options = ["--all-hosts"] if trial.fault in ALL_HOSTS else []
    more = {"UUID": "", "FAULT": str(lab.state / "faults" / trial.fault)}
    try:
        with broken(lab, trial):
            before = lab.report(*options)
            finding = _of(trial, before)
            guest = finding.shared.guests[0] if finding.shared is not None else finding.guest
            more["UUID"] = guest.uuid if guest is not None else ""
            if trial.thaw and trial.fault in FROZEN:
                lab.thaw()
            _follow(lab, trial, finding, more)
            if trial.shows:
                _shows(lab, trial, finding, more)
            else:
                _ends(lab, trial, finding, before, options)
    finally:
        if trial.after:
            lab.shell(trial.after, **more)
        lab.script("instances.sh")


def _of(trial: Trial, report: Report) -> Finding:
    found = [one for one in report.everything() if one.check.name == trial.check]
    assert found, f"{trial.fault} does not have the finding {trial.check}"
    named = [one for one in found if one.guest is not None and one.guest.name == trial.instance]
    return (named or found)[0]


def _follow(lab: Lab, trial: Trial, finding: Finding, more: Mapping[str, str]) -> None:
    """Do what the advice says; a reader waits until nova has ended what was requested."""
    for step in steps(trial, instructions(finding)):
        if step.startswith(UNTIL):
            lab.wait(more["UUID"], step.removeprefix(UNTIL))
        elif step.startswith(SQL):
            lab.sql(step)
        else:
            lab.shell(step.removeprefix(BY_HAND), **more)
            if more["UUID"] and "openstack server " in step:
                lab.wait(more["UUID"])


def _shows(lab: Lab, trial: Trial, finding: Finding, more: Mapping[str, str]) -> None:
    """Wait until the commands after "It worked if" show the pattern."""
    import re

    end = time.monotonic() + trial.patience
    while True:
        told = ""
        for look in looks(trial, instructions(finding)):
            told += lab.sql(look) if look.startswith(SQL) else lab.shell(look, **more)
        if re.search(trial.shows, told, re.MULTILINE):
            return
        assert time.monotonic() < end, told
        time.sleep(2.0)


def _ends(lab: Lab, trial: Trial, finding: Finding, before: Report, options: list[str]) -> None:
    """Wait until neither the finding nor a new one as severe as this is in the report."""
    key, *_ = _keys_of(finding)
    end = time.monotonic() + trial.patience
    while True:
        now = _keys(lab.report(*options))
        new = [one for one in now.keys() - _keys(before).keys() if now[one] >= finding.severity]
        if key not in now and not new:
            return
        assert time.monotonic() < end, f"{key in now=}, {new=}"
        time.sleep(2.0)


Key = tuple[str, str, str]
"""A check, its subject (a server, or a host), and the values for its advice."""


def _keys(report: Report) -> dict[Key, Severity]:
    return {key: one.severity for one in report.everything() for key in _keys_of(one)}


def _keys_of(finding: Finding) -> list[Key]:
    names = "" if finding.guests else repr(sorted(finding.names.items()))
    subjects = [guest.uuid for guest in finding.guests] or [finding.host or ""]
    return [(finding.check.name, subject, names) for subject in subjects]
