"""Reader for YAML from strangers: strings, lists and objects, each with its line number.

Every scalar stays a string: a student's answer `0010` is not an octal number, and `no` is not a
boolean. Anchors and aliases, which allow documents that expand without limit, are refused, and so
are duplicate keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LARGEST = 256 << 10
"""Largest number of bytes. A sheet of a hundred tasks has fifty thousand."""

DEEPEST = 50
"""Largest number of nested lists and objects; a sheet needs seven."""

Place = tuple[str | int, ...]
"""Path to a value: keys and list indexes."""


class YamlError(Exception):
    """The document can't be read. The text is one sentence, with the line number if known."""


@dataclass(frozen=True)
class YamlDocument:
    """A document's value, and the line (from 1) of each value in it."""

    value: Any
    lines: dict[Place, int]

    def line(self, place: Place) -> int:
        """Return the line of a value; if it is missing, the line of the nearest enclosing value."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)


def read(data: bytes) -> YamlDocument:
    """Read one YAML document. Raises `YamlError`, and nothing else."""
    import yaml

    if len(data) > LARGEST:
        raise YamlError(f"it is larger than {LARGEST >> 10} KiB")
    try:
        text = data.decode("utf-8-sig")
        depth = 0
        for event in yaml.parse(text, Loader=yaml.BaseLoader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                line = event.start_mark.line + 1
                raise YamlError(f"line {line}: anchors and aliases are not allowed")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:  # the scanner's run time grows with the square of the depth
                raise YamlError("it is nested too deeply")
        node = yaml.compose(text, Loader=yaml.BaseLoader)
        lines: dict[Place, int] = {}
        return YamlDocument(_plain(node, (), lines) if node is not None else None, lines)
    except UnicodeDecodeError:
        raise YamlError("it is not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise YamlError(f"{where}{error.problem or 'it is not valid YAML'}") from None
    except yaml.YAMLError as error:
        raise YamlError(" ".join(str(error).split())) from None
    except RecursionError:
        raise YamlError("it is nested too deeply") from None


def _plain(node: Any, place: Place, lines: dict[Place, int]) -> Any:
    import yaml

    lines[place] = node.start_mark.line + 1
    if isinstance(node, yaml.ScalarNode):
        return node.value
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*place, number), lines) for number, item in enumerate(node.value)]
    found: dict[str, Any] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise YamlError(f"line {line}: a key must be a string")
        if key.value in found:
            raise YamlError(f"line {line}: {key.value} occurs twice")
        found[key.value] = _plain(value, (*place, key.value), lines)
        lines[(*place, key.value)] = line
    return found
