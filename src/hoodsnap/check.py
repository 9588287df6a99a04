"""The definition of a check: a function that names the layers it compares and yields evidence.

The function's name is the check's id, its docstring is the message and the manual page, and its
parameters name the facts it needs. The checks are in `checks/`; `findings/analysis.py` runs them.
"""

from __future__ import annotations

import inspect
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from hoodsnap.evidence import Evidence, Severity
from hoodsnap.facts.cloud.cloud import Cloud
from hoodsnap.facts.cloud.guest import NOUNS, Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.fact import UnheardError, caught, facts_in, may_be_none
from hoodsnap.facts.layer import LAYERS, Layer
from hoodsnap.printable import cut

Trap = Callable[[Guest], bool]
"""A circumstance that makes a difference legal for a guest; its docstring's first line says why."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem that a check found."""

    severity: Severity | None
    """None for the check's own severity."""
    evidence: tuple[Evidence, ...]
    headline: str = ""
    """The problem in one sentence without a period, with names and values: `vm-a has been
    powering-off since 09:02 (5 h 49 min)`. The check's message is the same without values."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Values for placeholders in the advice: `{"DISK": "/var/lib/…"}`. The values of the subject
    (UUID, NAME, PID …) need not be given; see findings/advice.py."""


LONGEST = 300
"""Longest headline in characters: a name in a bundle may have thousands."""


def problem(
    headline: str, *evidence: Evidence, severity: Severity | None = None, **names: object
) -> Problem:
    """Return a problem for a check to yield: `problem(f"{…} is …", says(…), DISK=image.path)`.

    `names` are placeholders of the check's advice. A value of None leaves the placeholder; an empty
    one leaves out the commands with it, because they do not apply to this problem. A headline that
    a bundle's text makes very long is cut.
    """
    known = {name: str(value) for name, value in names.items() if value is not None}
    return Problem(severity, evidence, cut(headline, LONGEST), known)


Problems = Iterator[tuple[Evidence, ...] | Problem]


@dataclass(frozen=True)
class Subject:
    """The subject that checks run for: a guest, a host or the whole cloud."""

    cloud: Cloud
    host: Host | None = None
    """The captured host; None if the subject is the cloud, or a guest that is on none."""
    guest: Guest | None = None
    """None if the subject is a host or the cloud."""

    @cached_property
    def parameters(self) -> Mapping[str, object]:
        """The value of each parameter that a check may have, read once for all checks."""
        whole = {"cloud": self.cloud, "host": self.host}
        if self.guest is None:
            return whole
        return {**vars(self.guest), "record": self.guest.record, **whole, "guest": self.guest}


COMMANDS = "    "
"""The indentation of a paragraph that holds commands, one a line; its lines are kept apart."""

SUBJECTS = {"guest": Guest, "host": Host, "cloud": Cloud}
"""Parameters that name a check's subject instead of a layer's noun."""

OF_GUEST = frozenset([*Guest.__dataclass_fields__, "record"])
"""Parameters that name an attribute of a guest."""


@dataclass(frozen=True)
class Check:
    """One way in which the layers can disagree."""

    find: Callable[..., Problems]
    severity: Severity
    heard: tuple[str, ...]
    traps: tuple[Trap, ...]
    compared: Mapping[str, tuple[Layer, ...]] = field(compare=False)
    """The layers that provide each parameter, by its type; a `record` has two."""
    optional: frozenset[str]
    """Parameters that may be None: the check also runs without them."""

    @cached_property
    def name(self) -> str:
        """The check's id: `vcpu-chain-mismatch`."""
        return self.find.__name__.replace("_", "-")

    @cached_property
    def topic(self) -> str:
        """Name of the module that defines the check: `identity`."""
        return self.find.__module__.rpartition(".")[2]

    @cached_property
    def needs(self) -> tuple[str, ...]:
        """Names of the parameters, in order: the facts to compare. `find(**{name: …})`."""
        code = self.find.__code__
        return code.co_varnames[: code.co_argcount]

    @cached_property
    def sections(self) -> dict[str, str]:
        """The docstring by section: `message`, `why`, and each `Word:` section in lower case.

        Paragraphs are separated by an empty line, each on one line; only commands keep their lines.
        """
        summary, _, rest = inspect.cleandoc(self.find.__doc__ or "").partition("\n\n")
        found = {"message": " ".join(summary.split()), "why": ""}
        current = "why"
        for paragraph in rest.split("\n\n"):
            if heading := re.match(r"(Authority|Traps|Next|Not yet|Source): ", paragraph):
                current = heading[1].lower()
                paragraph = paragraph[heading.end() :]
            if not paragraph.startswith(COMMANDS):
                paragraph = " ".join(paragraph.split())
            found[current] = f"{found[current]}\n\n{paragraph}" if found.get(current) else paragraph
        return found

    @cached_property
    def message(self) -> str:
        """The defect in one sentence."""
        return self.sections["message"]

    def run(self, subject: Subject) -> tuple[Sequence[Problem], str | None]:
        """Return the subject's problems, and the reason why the check could not be decided.

        The reason is None if the check ran to its end; otherwise there may be more problems.
        """
        problems: list[Problem] = []
        guest = subject.guest
        try:
            # These lines run more often than any others: for every check of every guest.
            arguments = self._read(subject.parameters)
            if guest is None or not (self.heard or None in arguments) or self._is_heard(guest):
                for found in self.find(*arguments):
                    if not isinstance(found, Problem):
                        found = Problem(None, found)
                    problems.append(found)
        except UnheardError as reason:
            return problems, str(reason)
        except Exception as error:  # one check that fails must not stop the others
            return problems, str(caught(error))
        return problems, None

    @cached_property
    def _read(self) -> Callable[[Mapping[str, object]], Sequence[object]]:
        """A function that picks the arguments from the parameters of a subject."""
        read: Callable[[Mapping[str, object]], Any] = operator.itemgetter(*self.needs)
        return read if len(self.needs) > 1 else lambda parameters: (read(parameters),)

    @cached_property
    def _objects(self) -> tuple[str, ...]:
        """The parameters that a guest must have."""
        return tuple(name for name in self.needs if name in OF_GUEST - self.optional)

    def _is_heard(self, guest: Guest) -> bool:
        """True if the guest has every object to compare; False if one of them does not exist.

        Raises `UnheardError` if the layer of an object, or one of `heard`, was not collected.
        """
        for name in self._objects:
            if getattr(guest, name) is None:
                self._must_be_heard(guest, name)
                return False  # only identity.py reports absence
        for layer in self.heard:
            if layer in guest.unheard:
                raise UnheardError(guest.unheard[layer])
        return True

    def _must_be_heard(self, guest: Guest, name: str) -> None:
        layers = [layer.id for layer in self.compared.get(name, ())]
        reasons = [guest.unheard[layer] for layer in layers if layer in guest.unheard]
        if layers and len(reasons) == len(layers):
            raise UnheardError(reasons[-1])  # for a record, the database's reason

    def applies_to(self, guest: Guest) -> bool:
        """True if the guest has every object that the check compares: a check of processes applies
        to the guests with a process."""
        for name in self.needs:
            if name in SUBJECTS or name in self.optional:
                continue
            try:
                if getattr(guest, name) is None:
                    return False
            except Exception as error:  # a net: what can't be read may be there
                caught(error)
        return True

    @cached_property
    def scope(self) -> str:
        """The kind of subject that the check runs for: `guest`, `host` or `cloud`."""
        nouns = {*self.needs} - {"cloud"}
        if not nouns:
            return "cloud"
        return "host" if nouns == {"host"} else "guest"

    def trapped(self, guest: Guest) -> str | None:
        """Return the reason why any difference found for this guest is legal; None if it is not."""
        for trap in self.traps:
            if trap(guest):
                return inspect.cleandoc(trap.__doc__ or "").partition("\n")[0]
        return None


def check(
    severity: Severity, *, heard: Sequence[str] = (), traps: Sequence[Trap] = ()
) -> Callable[[Callable[..., Problems]], Check]:
    """Turn a function into a check.

    `heard` names layers that must have been collected although no parameter belongs to them (their
    object is allowed to be absent); `traps` are the circumstances that make a difference legal.
    """

    def made(find: Callable[..., Problems]) -> Check:
        hints = inspect.get_annotations(find, eval_str=True)
        hints.pop("return", None)
        _must_have_layers(find.__name__, hints, heard)
        compared = {
            name: tuple(kind.layer for kind in facts_in(hint))
            for name, hint in hints.items()
            if name not in SUBJECTS
        }
        optional = frozenset(name for name, hint in hints.items() if may_be_none(hint))
        return Check(find, severity, tuple(heard), tuple(traps), compared, optional)

    return made


def _must_have_layers(check: str, hints: Mapping[str, object], heard: Sequence[str]) -> None:
    """Raise `TypeError` for a parameter without a layer: the check would pass where nothing was
    collected."""
    for name, hint in hints.items():
        if name in SUBJECTS:
            continue
        if not facts_in(hint):
            raise TypeError(f"{check} compares {name}, which no layer in facts/layer.py provides")
        if name in NOUNS and facts_in(hint) != (NOUNS[name].fact,):
            fact = NOUNS[name].fact.__name__
            raise TypeError(f"{check} compares {name}, which is not of type {fact}")
        if name not in OF_GUEST:
            raise TypeError(f"{check} compares {name}, which a guest does not have")
    for layer in heard:
        if layer not in LAYERS:
            raise TypeError(f"{check} needs {layer}, which is not a layer in facts/layer.py")
