"""What a check is: a function that names the layers it compares, and yields evidence.

Its name is its id, its docstring its message and its manual page, its parameters what it needs.
`checks/` has the checks; `findings/analysis.py` runs them.
"""

from __future__ import annotations

import inspect
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from hoodsnap.evidence import Evidence, Severity
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.fact import UnheardError, caught

Trap = Callable[[Guest], bool]
"""Whether a difference is legal for this guest. Its docstring's first line is the reason."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Evidence of one problem that is not as severe as its check usually is, or worse."""

    severity: Severity
    evidence: tuple[Evidence, ...]


Problems = Iterator[tuple[Evidence, ...] | Problem]

LAYER_OF = {
    "server": "nova",
    "instance": "nova-db",
    "allocation": "placement",
    "domain": "libvirt",
    "process": "kernel",
    "monitor": "qemu",
    "images": "images",
    "devices": "block",
    "volumes": "cinder",
    "log": "logs",
    "ports": "neutron",
    "taps": "network",
}
"""For each noun the layer that tells it."""


@dataclass(frozen=True)
class Check:
    """One way in which the layers can disagree."""

    find: Callable[..., Problems]
    severity: Severity
    heard: tuple[str, ...]
    traps: tuple[Trap, ...]

    @cached_property
    def name(self) -> str:
        """`vcpu-chain-mismatch`."""
        return self.find.__name__.replace("_", "-")

    @cached_property
    def topic(self) -> str:
        """The module it stands in: `identity`."""
        return self.find.__module__.rpartition(".")[2]

    @cached_property
    def needs(self) -> tuple[str, ...]:
        """The names of its parameters: what it compares. `find(**{name: …})`."""
        code = self.find.__code__
        return code.co_varnames[: code.co_argcount]

    @cached_property
    def optional(self) -> frozenset[str]:
        """The parameters that it does without: those that may be None."""
        hints = inspect.get_annotations(self.find)
        return frozenset(name for name in self.needs if "None" in str(hints[name]))

    @cached_property
    def sections(self) -> dict[str, str]:
        """Its docstring: `message`, `why`, and each `Word:` section in lower case."""
        summary, _, rest = inspect.cleandoc(self.find.__doc__ or "").partition("\n\n")
        found = {"message": " ".join(summary.split()), "why": ""}
        current = "why"
        for paragraph in rest.split("\n\n"):
            if heading := re.match(r"(Authority|Traps|Next|Not yet|Source): ", paragraph):
                current = heading[1].lower()
                paragraph = paragraph[heading.end() :]
            words = " ".join(paragraph.split())
            found[current] = f"{found[current]}\n\n{words}" if found.get(current) else words
        return found

    @cached_property
    def message(self) -> str:
        """What is wrong, in one sentence."""
        return self.sections["message"]

    def run(self, subject: Guest | Host | Cloud) -> tuple[Sequence[Problem], str | None]:
        """Every problem of this guest (host, cloud); and, where it can't be decided (to its end),
        why."""
        problems: list[Problem] = []
        try:
            arguments: Sequence[object] | None = (subject,)
            if isinstance(subject, Guest):
                arguments = self._arguments(subject)
            if arguments is not None:
                for found in self.find(*arguments):
                    if not isinstance(found, Problem):
                        found = Problem(self.severity, found)
                    problems.append(found)
        except UnheardError as reason:
            return problems, str(reason)
        except Exception as error:  # the net around each check of each guest, host or cloud
            return problems, str(caught(error))
        return problems, None

    @cached_property
    def _read(self) -> Callable[[Guest], Sequence[object]]:
        """Reads its parameters off a guest. This is done for every guest, and nothing else is done
        so often."""
        names = [name for name in self.needs if name != "guest"]
        if not names:
            return lambda guest: (guest,)
        read = operator.attrgetter(*names)
        if len(names) == len(self.needs):
            return read if len(names) > 1 else lambda guest: (read(guest),)
        if self.needs[0] != "guest":
            each = [operator.attrgetter(name) if name != "guest" else None for name in self.needs]
            return lambda guest: [guest if one is None else one(guest) for one in each]
        return lambda guest: (guest, *read(guest)) if len(names) > 1 else (guest, read(guest))

    def _arguments(self, guest: Guest) -> Sequence[object] | None:
        arguments = self._read(guest)
        if None in arguments:
            for name, value in zip(self.needs, arguments, strict=True):
                if value is None and name not in self.optional:
                    self._must_be_heard(guest, name)
                    return None  # it is absent, which is the business of identity.py alone
        for layer in self.heard:
            if layer in guest.unheard:
                raise UnheardError(guest.unheard[layer])
        return arguments

    def _must_be_heard(self, guest: Guest, name: str) -> None:
        layers = ("nova-db", "nova") if name == "record" else (LAYER_OF.get(name, ""),)
        reasons = [guest.unheard[layer] for layer in layers if layer in guest.unheard]
        if len(reasons) == len(layers):
            raise UnheardError(reasons[0])

    @cached_property
    def scope(self) -> str:
        """What it is run for: each `guest`, each `host`, or the whole `cloud`."""
        return self.needs[0] if self.needs[0] in ("host", "cloud") else "guest"

    def trapped(self, guest: Guest) -> str | None:
        """Why whatever it would find here is legal; None if nothing speaks for that."""
        for trap in self.traps:
            if trap(guest):
                return inspect.cleandoc(trap.__doc__ or "").partition("\n")[0]
        return None


def check(
    severity: Severity, *, heard: Sequence[str] = (), traps: Sequence[Trap] = ()
) -> Callable[[Callable[..., Problems]], Check]:
    """Make a check of a function.

    `heard` names layers that must have been heard although no parameter is of them (their object is
    allowed to be absent); `traps` the circumstances in which a difference is legal.
    """
    return lambda find: Check(find, severity, tuple(heard), tuple(traps))
