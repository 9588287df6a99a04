"""Syntax of nova.conf, which is oslo.config's (its iniparser.py and cfg.py).

It differs from Python's configparser in continuation lines, quotes, `$other_option` and options
that are set twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from hoodsnap.keep.nova_conf import Configuration, is_kept


def parse(lines: Iterable[str]) -> Configuration:
    """Parse one file. If an option is set twice, the last value wins.

    A line that is no option, section or comment is ignored; nova would refuse to start.
    """
    parsed: Configuration = {}
    section = "DEFAULT"
    for line in _whole(lines):
        if line.startswith("["):
            # oslo.config ignores the case of section names, except for DEFAULT.
            name = line[1:-1]
            section = name if name == "DEFAULT" else name.lower()
        elif match := _ASSIGNMENT.match(line):
            value = _unquoted(match["value"])
            parsed.setdefault(section, {})[match["option"].strip()] = value
    return parsed


def first_error(lines: Iterable[str]) -> tuple[int, str] | None:
    """Return the number of the first line that oslo.config refuses, counted from 1, and the reason;
    None if it accepts all.

    The words are oslo.config's, without the line, which may hold a password.
    """
    is_in_option = has_section = False
    for number, line in enumerate(lines, 1):
        line = line.rstrip()
        if not line:
            is_in_option = False
        elif line.startswith((" ", "\t")):
            if not is_in_option:
                return number, "Unexpected continuation line"
        elif line.startswith("["):
            is_in_option, has_section = False, True
            if not line.endswith("]"):
                return number, "Invalid section (must end with ])"
            if len(line) <= 2:
                return number, "Empty section name"
        elif line.startswith(("#", ";")):
            is_in_option = False
        else:
            name, mark, _ = line.replace(":", "=", 1).partition("=")
            if not mark:
                return number, "No ':' or '=' found in assignment"
            if not name.strip():
                return number, "Key cannot be empty"
            if not has_section:
                return number, "Section must be started before assignment"
            is_in_option = True
    return None


_ASSIGNMENT = re.compile(r"(?P<option>[^#;:=][^:=]*)[:=](?P<value>.*)", re.DOTALL)


def _whole(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines, each with the indented lines that continue it."""
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
"""Limit for characters and references that all references bring in together. nova's own options
bring in a thousand; nested references, ten in each option, would fill any memory."""


def substituted(configuration: Configuration) -> Configuration:
    """Replace `$option` and `${section.option}` by their values, where these are set.

    In an option that is kept, a reference to an option that is not kept stays as written.
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
    """Values of a configuration, with references replaced."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._left = LONGEST

    def value(self, section: str, value: str, within: tuple[tuple[str, str], ...]) -> str:
        """Return a value of this section with its references replaced.

        `within`: the (section, option) pairs whose references led here, outermost first.
        """
        recorded = is_kept(*within[0])

        def meaning(reference: re.Match[str]) -> str:
            if reference["dollar"]:
                return "$"
            group, dot, option = (reference["plain"] or reference["braced"]).rpartition(".")
            for place in (group,) if dot else (section, "DEFAULT"):
                if recorded and not is_kept(place, option):
                    continue
                found = self._configuration.get(place, {}).get(option)
                if found is not None and (place, option) not in within:  # no loops
                    self._left -= 1 + len(found)
                    if self._left < 0:
                        break
                    return self.value(place, found, (*within, (place, option)))
            return reference[0]

        return _REFERENCE.sub(meaning, value.replace("\\$", "$$"))
