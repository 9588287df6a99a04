"""The advice of the checks, followed on the running lab as it is written: it ends the finding.

remedies.toml says with which fault of the lab, and which of the advised commands are followed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import pytest
from fixtures.record import ALL_HOSTS, FROZEN, SETTLE, SLOW
from tests.conftest import ROOT
from tests.live.remedies import BY_HAND, UNTIL, Trial, load, looks, rounds, steps

from hoodsnap import bundle
from hoodsnap.evidence import Severity
from hoodsnap.findings.advice import instructions
from hoodsnap.findings.analysis import Report, analyze
from hoodsnap.findings.finding import Finding

WANTED = frozenset(filter(None, os.environ.get("HOODSNAP_REMEDIES", "").split(",")))
"""Names of checks and faults whose trials are made; empty for all."""

TRIALS = [
    trial
    for trials in load().values()
    for trial in trials
    if not trial.untried and (not WANTED or WANTED & {trial.check, trial.fault})
]
ROUNDS = [
    pytest.param(one, marks=pytest.mark.lab if one[0].sample else (), id=one[0].name)
    for one in rounds(TRIALS)
]

SQL = ("SELECT ", "UPDATE ", "DELETE ", "INSERT ")
API_DATABASE = ("instance_mappings", "build_requests")
"""Tables of nova's API database; the others are in the cell's."""

AT_MOST = 180.0
"""Seconds for one command, and for nova to end the task that it requested."""


Key = tuple[str, str, str]
"""A check, its subject (a server, or a host), and the values for its advice."""


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
        mine = {"PATH": path, "HOME": "/root", "LC_ALL": "C.UTF-8"}
        return {**mine, **more}

    def shell(self, command: str, **more: str) -> str:
        """Run a command as a reader would; return its output. Fails with the command's status."""
        done = subprocess.run(
            ["bash", "-c", f'. "$0"; {command}', str(self.state / "openrc")],
            cwd=more.get("HERE", self.folder),
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
    before = lab.report()
    yield
    assert not _new(before, lab.report(), Severity.NOTE)


@pytest.fixture
def lab(cloud: Path, tmp_path: Path, quiet: None) -> Lab:
    return Lab(cloud, tmp_path)


@pytest.mark.remedies
@pytest.mark.parametrize("trials", ROUNDS)
def test_the_advice_ends_its_finding(trials: tuple[Trial, ...], lab: Lab) -> None:
    options = ["--all-hosts"] if any(trial.fault in ALL_HOSTS for trial in trials) else []
    attempts = [Attempt(lab, trial) for trial in sorted(trials, key=lambda one: bool(one.service))]
    left: list[str] = []
    try:
        _each(attempts, Attempt.make)
        time.sleep(max(SLOW.get(trial.fault, SETTLE) for trial in trials))
        before = lab.report(*options)
        _each(attempts, lambda one: one.find(before))
        if all(trial.thaw for trial in trials) and any(one.fault in FROZEN for one in trials):
            lab.thaw()
        _each([*reversed(attempts)], Attempt.follow)
        left = _left(lab, [one for one in attempts if not one.failures], before, options)
    finally:
        _each([*reversed(attempts)], Attempt.undo, always=True)
        left += [line for one in attempts for line in one.failures]
        try:
            lab.script("instances.sh")
        except AssertionError as error:
            left.append(str(error))
    if left:
        pytest.fail("\n\n".join(left), pytrace=False)


def _each(attempts: list[Attempt], do: Callable[[Attempt], None], *, always: bool = False) -> None:
    """Do this for each trial that did not fail, at once; a service in its order before or after the
    others. A failure is noted, and the others go on.
    """

    def noting(attempt: Attempt) -> None:
        if attempt.failures and not always:
            return
        try:
            do(attempt)
        except Exception as error:
            attempt.failures.append(f"{attempt.trial.name}: {error}")

    with ThreadPoolExecutor() as pool:
        for _, group in groupby(attempts, key=lambda one: bool(one.trial.service)):
            list(pool.map(noting, group))


class Attempt:
    """A trial on the lab."""

    def __init__(self, lab: Lab, trial: Trial) -> None:
        """`lab` runs the commands."""
        self.lab, self.trial = lab, trial
        self.finding: Finding | None = None
        self.failures: list[str] = []
        folder = lab.folder / trial.name
        folder.mkdir(exist_ok=True)
        fault = str(lab.state / "faults" / trial.fault)
        self.values = {"UUID": "", "FAULT": fault, "HERE": str(folder)}

    def make(self) -> None:
        """Bring the fault into the lab."""
        if self.trial.before:
            self.shell(self.trial.before)
        freeze = ["--freeze"] if self.trial.fault in FROZEN else []
        self.lab.script("break.sh", *freeze, self.trial.fault, self.trial.broken)

    def undo(self) -> None:
        """Leave nothing of the fault and of the advice in the lab."""
        how = {"fix": [], "forget": ["--forget"]}.get(self.trial.undo, ["--rest"])
        try:
            self.lab.script("fix.sh", *([] if self.failures else how), self.trial.fault)
        finally:
            if self.trial.fault in FROZEN:  # last: nova must not act on what is left of the fault
                self.lab.thaw()
        if self.trial.after and self.finding is not None:
            self.shell(self.trial.after)

    def find(self, report: Report) -> None:
        """Find the finding that the fault must have."""
        name, check = self.trial.broken, self.trial.check
        found = [one for one in report.everything() if one.check.name == check]
        assert found, f"no {check} in {sorted(one.check.name for one in report.everything())}"
        named = [one for one in found if name in [guest.name for guest in one.guests]]
        self.finding = (named or found)[0]
        if self.finding.guests:
            self.values["UUID"] = self.finding.guests[0].uuid

    def shell(self, command: str) -> str:
        """Run a command of the advice; return its output."""
        return self.lab.shell(command, **self.values)

    def follow(self) -> None:
        """Do what the advice says; a reader waits until nova has ended what was requested."""
        assert self.finding is not None
        uuid = self.values["UUID"]
        for step in steps(self.trial, instructions(self.finding)):
            if step.startswith(UNTIL):
                self.lab.wait(uuid, step.removeprefix(UNTIL))
            elif step.startswith(SQL):
                self.lab.sql(step)
            else:
                self.shell(step.removeprefix(BY_HAND))
                if uuid and "openstack server " in step:
                    self.lab.wait(uuid)
        if self.trial.service:  # the other trials send nova requests, which would be lost
            self.lab.shell(f". {ROOT}/lab/lib.sh; wait_for 150 nova-compute compute_ready")
        if self.trial.shows:
            self._look()

    def _look(self) -> None:
        """Wait until the commands after "It worked if" show the pattern."""
        assert self.finding is not None
        end = time.monotonic() + self.trial.patience
        while True:
            told = ""
            for look in looks(self.trial, instructions(self.finding)):
                told += self.lab.sql(look) if look.startswith(SQL) else self.shell(look)
            if re.search(self.trial.shows, told, re.MULTILINE):
                return
            assert time.monotonic() < end, told
            time.sleep(2.0)


def _left(lab: Lab, attempts: list[Attempt], before: Report, options: list[str]) -> list[str]:
    """Wait until no finding is in the report whose advice ends it, nor a new one as severe; return
    those that are left.
    """
    ending = {one.trial.name: one.finding for one in attempts if not one.trial.shows}
    keys = {name: _keys_of(one)[0] for name, one in ending.items() if one is not None}
    if not keys:
        return []
    least = min(one.severity for one in ending.values() if one is not None)
    end = time.monotonic() + max(one.trial.patience for one in attempts)
    while True:
        now = lab.report(*options)
        left = [
            f"{name}: the finding is still there" for name, key in keys.items() if key in _keys(now)
        ]
        guarded = {one.values["UUID"] for one in attempts if one.trial.shows}
        left += [line for key, line in _new(before, now, least).items() if key[1] not in guarded]
        if not left or time.monotonic() > end:
            return left
        time.sleep(2.0)


def _new(before: Report, now: Report, least: Severity) -> dict[Key, str]:
    """Return the findings of this severity that a report has for the first time, in words.

    Guests that nova does not know are left out: other tests of this machine start some.
    """
    old = {key[:2] for key in _keys(before)}
    strangers = {guest.uuid for guest in now.cloud.guests if guest.record is None}
    return {
        key: f"new: {key}"
        for key, severity in _keys(now).items()
        if key[:2] not in old and key[1] not in strangers and severity >= least
    }


def _keys(report: Report) -> dict[Key, Severity]:
    return {key: one.severity for one in report.everything() for key in _keys_of(one)}


def _keys_of(finding: Finding) -> list[Key]:
    names = "" if finding.guests else repr(sorted(finding.names.items()))
    subjects = [guest.uuid for guest in finding.guests] or [finding.host or ""]
    return [(finding.check.name, subject, names) for subject in subjects]
