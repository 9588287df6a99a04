"""The table of remedies.toml: how each check's advice is tried on the running lab."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hoodsnap.findings.advice import PLACEHOLDERS, WORKED, Command, Instruction

TABLE = Path(__file__).parent / "remedies.toml"
FAULTS = Path(__file__).parents[2] / "lab/faults"

AT_ONCE = 20
"""Trials in one round at most."""

BY_HAND = "$ "
"""The beginning of a step that the advice describes in prose, without a command."""
UNTIL = "until "
"""The beginning of a step that waits for a vm_state of nova: `until stopped`."""


VARIABLE = re.compile(r"(\w+)=\$\(.*\)$")
"""A command that keeps the output of another one for the commands after it."""


class NotAdvisedError(Exception):
    """The advice has no command with the beginning that the table names; one sentence."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One way to follow a check's advice, or the reason why nobody did."""

    check: str
    fault: str = ""
    """Name of a fault of lab/faults; empty if the advice is not tried."""
    untried: str = ""
    """Why the advice is not tried: a sentence without a period."""
    instance: str = ""
    """The instance to break, if it is another than the fault's own."""
    also: str = ""
    """Another instance that the fault changes."""
    run: tuple[str, ...] = ()
    """The steps, in order; without any, each command of the advice that changes something. A step
    is the beginning of an advised command, or starts with `BY_HAND` or `UNTIL`."""
    set: Mapping[str, str] = field(default_factory=dict)
    """Placeholder that the bundle can't know → its value, which may name $UUID (the finding's
    server), $FAULT (what the fault saved) and $HERE (a folder of this trial)."""
    shows: str = ""
    """For advice that protects data or a guest, and does not end the finding: a pattern that the
    output of the commands after "It worked if" must have."""
    undo: str = ""
    """How the fault's record is dropped: `fix` undoes the fault, `forget` does not; by default
    the fault is undone if it is still in effect."""
    thaw: bool = True
    """Let nova-compute continue before the advice is followed, if the fault needs it frozen."""
    before: str = ""
    """Shell commands that prepare the lab for the fault."""
    after: str = ""
    """Shell commands that remove what the advice left behind."""
    patience: float = 90.0
    """Seconds after which the finding must have ended."""
    sample: bool = False
    """One of the most important: `pytest -m "remedies and lab"` follows only these."""
    alone: bool = False
    """No other fault may be in the lab meanwhile."""
    service: str = ""
    """What this fault stops or changes, if other trials need it or make a daemon repair it: it is
    broken last and mended first."""

    @property
    def name(self) -> str:
        """The trial's name among all trials."""
        return f"{self.check}-{self.fault}"

    @property
    def broken(self) -> str:
        """The instance that has the fault; `-` for the host."""
        return self.instance or faults()[self.fault]

    @property
    def changed(self) -> Set[str]:
        """The instances that the fault changes."""
        return {self.broken, self.also} - {"-", ""}


@cache
def faults() -> Mapping[str, str]:
    """Return the instance (`-`: the host) that each fault of the lab breaks by itself."""
    scripts = "".join(path.read_text() for path in sorted(FAULTS.glob("*.sh")))
    return dict(re.findall(r"^fault (\S+) (\S+) ", scripts, re.MULTILINE))


def rounds(trials: Iterable[Trial]) -> list[tuple[Trial, ...]]:
    """Return the trials in groups that are made at once, in different guests: collecting the lab
    takes longer than most of them.
    """
    found: list[list[Trial]] = []
    for trial in trials:
        for group in found:
            if _fits(trial, group):
                group.append(trial)
                break
        else:
            found.append([trial])
    return [tuple(one) for one in found]


def _fits(trial: Trial, others: Sequence[Trial]) -> bool:
    if trial.alone or len(others) >= AT_ONCE or any(one.alone for one in others):
        return False
    if trial.service and trial.service in [one.service for one in others]:
        return False
    if trial.changed & {name for one in others for name in one.changed}:
        return False
    same = (trial.thaw, trial.sample) == (others[0].thaw, others[0].sample)
    return same and trial.fault not in [one.fault for one in others]


def load() -> Mapping[str, tuple[Trial, ...]]:
    """Return the trials of each check in the table."""
    table = tomllib.loads(TABLE.read_text())
    return {
        check: tuple(Trial(check, **_frozen(one)) for one in trials)
        for check, trials in table.items()
    }


def _frozen(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()}


def steps(trial: Trial, advice: Sequence[Instruction]) -> tuple[str, ...]:
    """Return the commands to run and the states to wait for, in order.

    Raises `NotAdvisedError` if the advice has no such command after the one before it, or if a
    placeholder is left.
    """
    written = [command for step in advice for command in step.commands]
    variables = {kept[1]: one.text for one in written if (kept := VARIABLE.match(one.text))}
    advised = [one for one in written if one.changes]
    if not trial.run:
        return tuple(_alone(_filled(one, trial), variables) for one in advised)
    found = []
    for step in trial.run:
        if step.startswith((BY_HAND, UNTIL)):
            found.append(step)
            continue
        matching = [at for at, one in enumerate(advised) if one.text.startswith(step)]
        if not matching:
            raise NotAdvisedError(f"{trial.check} does not advise `{step}` there")
        found.append(_alone(_filled(advised[matching[0]], trial), variables))
        del advised[: matching[0] + 1]
    return tuple(found)


def _alone(command: str, variables: Mapping[str, str]) -> str:
    """Return a command that runs in a shell of its own: with the variables that it needs."""
    needed = [value for name, value in variables.items() if f"${name}" in command]
    return "; ".join([*needed, command])


def looks(trial: Trial, advice: Sequence[Instruction]) -> tuple[str, ...]:
    """Return the commands that show whether the advice worked."""
    return tuple(
        _filled(command, trial)
        for step in advice
        if step.prose.startswith(WORKED)
        for command in step.commands
    )


def _filled(command: Command, trial: Trial) -> str:
    if lacking := [name for name in command.left if name not in trial.set]:
        raise NotAdvisedError(f"the table has no {', '.join(lacking)} for `{command.text}`")
    names = "|".join(trial.set.keys() & PLACEHOLDERS.keys())
    if not names:
        return command.text
    return re.sub(rf"\b({names})\b", lambda found: trial.set[found[1]], command.text)


def told(trials: Sequence[Trial]) -> Iterator[str]:
    """Yield what a check's page says about its advice: one line for each trial."""
    for trial in trials:
        if trial.untried:
            yield f"The advice was not tried on the lab: {trial.untried}."
        elif trial.shows:
            yield f"Followed on the lab, with the fault `{trial.fault}`. The finding stays."
        else:
            yield f"Followed on the lab, with the fault `{trial.fault}`: the finding ended."
