"""The syntax of nova.conf, which is oslo.config's (its iniparser.py and cfg.py).

It differs from that of Python's configparser: lines that go on, quotes, `$other_option`, options
given twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from hoodsnap.keep.nova_conf import Configuration, is_kept


def parse(lines: Iterable[str]) -> Configuration:
    """Read one file. Of an option that is given twice the last value holds; what is no option, a
    section or a comment (nova would refuse to start) is left out."""
    parsed: Configuration = {}
    section = "DEFAULT"
    for line in _whole(lines):
        if line.startswith("["):
            # oslo.config ignores the case of a section, but not of this one.
            name = line[1:-1]
            section = name if name == "DEFAULT" else name.lower()
        elif match := _ASSIGNMENT.match(line):
            value = _unquoted(match["value"])
            parsed.setdefault(section, {})[match["option"].strip()] = value
    return parsed


_ASSIGNMENT = re.compile(r"(?P<option>[^#;:=][^:=]*)[:=](?P<value>.*)", re.DOTALL)


def _whole(lines: Iterable[str]) -> Iterator[str]:
    """The lines, each together with the indented ones that go on with it."""
    whole = ""
    for line in lines:
        line = line.rstrip()
        if line.startswith((" ", "\t")) and whole:
            whole += "\n" + line.lstrip()
            continue
        yield whole
        whole = line
    yield whole


def _unquoted(value: str) -> str:
    first, newline, rest = value.partition("\n")
    first = first.strip()
    if first and first[0] == first[-1] and first[0] in "\"'":
        first = first[1:-1]
    return first + newline + rest


LONGEST = 1 << 20
"""Characters and references that all references together bring in. nova's own have a thousand;
ten references to an option that has ten itself, and so on, would fill any memory."""


def substituted(configuration: Configuration) -> Configuration:
    """Replace `$option` and `${section.option}` by their values, as far as these are set.

    In an option that is recorded, a reference to one that is not stays as it was written.
    """
    values = _Values(configuration)
    return {
        section: {
            option: values.value(section, value, ((section, option),))
            for option, value in options.items()
        }
        for section, options in configuration.items()
    }


_REFERENCE = re.compile(
    r"\$(?:(?P<dollar>\$)|(?P<plain>[_a-z][._a-z0-9]*)|\{(?P<braced>[_a-z][._a-z0-9]*)\})",
    re.IGNORECASE,
)


class _Values:
    """The values of a configuration, with what they refer to."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._left = LONGEST

    def value(self, section: str, value: str, within: tuple[tuple[str, str], ...]) -> str:
        """A value of this section; `within`: the options that led to it."""
        recorded = is_kept(*within[0])

        def meaning(reference: re.Match[str]) -> str:
            if reference["dollar"]:
                return "$"
            group, dot, option = (reference["plain"] or reference["braced"]).rpartition(".")
            for place in (group,) if dot else (section, "DEFAULT"):
                if recorded and not is_kept(place, option):
                    continue
                found = self._configuration.get(place, {}).get(option)
                if found is not None and (place, option) not in within:  # else it leads to itself
                    self._left -= 1 + len(found)
                    if self._left < 0:
                        break
                    return self.value(place, found, (*within, (place, option)))
            return reference[0]

        return _REFERENCE.sub(meaning, value.replace("\\$", "$$"))
