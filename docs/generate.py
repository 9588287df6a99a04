"""Writes what is generated: the page of each check, the commands' reference, the README's examples.

make docs                       write
docs/generate.py --check        say what is not current, and fail (part of `make lint`)
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import typer

from hoodsnap.checks import CATALOGUE, TOPICS
from hoodsnap.checks.dangers import DANGERS
from hoodsnap.cli import program
from hoodsnap.render import catalogue

ROOT = Path(__file__).parent.parent
CHECKS = ROOT / "docs/reference/checks"
BROKEN = ROOT / "fixtures/faults/base-moved.json.zst"
RECORDED = ROOT / "src/hoodsnap/recorded/healthy.json.zst"

EXAMPLES = {
    "explain": ([str(RECORDED), "--server", "vm-snap"], "  vm-snap"),
    "finding": (
        [str(ROOT / "fixtures/faults/base-moved.json.zst"), "--server", "vm-snap"],
        "    ✗",
    ),
}
"""Blocks of the README, by name: the arguments of `hoodsnap explain`, and how the first line of
what is shown of it begins. It ends with the next empty line."""

STATUS = {
    "0": (
        "the layers agree (`explain`, `check`)",
        "the bundle was written (`collect`, `redact`)",
        "nothing speaks against it (`verify`)",
        "everything is right (`grade`)",
    ),
    "1": (
        "they disagree at or above `--fail-on`",
        "something speaks against the bundle",
        "something that a student did is not right",
    ),
    "2": ("wrong usage",),
    "3": (
        "could not look: an unreadable bundle, no layer that answered, no namespaces",
        "something can't be graded",
    ),
    "130": ("interrupted: `collect` has written what was heard until then",),
    "any": ("what the command that was run ended with (`shell`, `replay`)",),
}


def main(arguments: list[str]) -> int:
    """Write all pages, or with `--check` only say which are not current."""
    pages = {**_check_pages(), ROOT / "docs/reference/cli.md": _cli()}
    readme = ROOT / "README.md"
    pages[readme] = _with_examples(readme.read_text())
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text() != text]
    stale += sorted(set(CHECKS.glob("*.md")) - pages.keys())
    for path in stale:
        print(f"{'not current' if '--check' in arguments else 'writing'}: {path.relative_to(ROOT)}")
        if "--check" in arguments:
            continue
        if path in pages:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(pages[path])
        else:
            path.unlink()
    return 1 if stale and "--check" in arguments else 0


def _check_pages() -> dict[Path, str]:
    pages = {CHECKS / f"{check.name}.md": catalogue.markdown(check) for check in CATALOGUE}
    pages[CHECKS.parent / "dangers.md"] = "\n".join(_dangers()) + "\n"
    pages[CHECKS / "README.md"] = "\n".join(_index()) + "\n"
    return pages


def _index() -> Iterator[str]:
    yield "# The checks"
    yield ""
    yield "Each compares what several layers say of one guest (or host). One that could not hear"
    yield "a layer is skipped: it neither passes nor fails. `hoodsnap checks` prints the same list,"
    yield "`hoodsnap checks NAME` the page of one."
    for topic in TOPICS:
        name = topic.__name__.rpartition(".")[2]
        yield from ("", f"## {name}", "", (topic.__doc__ or "").partition("\n")[0], "")
        yield "| check | severity | layers | what is wrong |"
        yield "|---|---|---|---|"
        for check in CATALOGUE:
            if check.topic == name:
                link = f"[{check.name}]({check.name}.md)"
                layers = catalogue.layers(check)
                yield f"| {link} | {check.severity.word} | {layers} | {check.message} |"


def _dangers() -> Iterator[str]:
    yield "# Commands that make it worse"
    yield ""
    yield "None of them is the first thing to type. A report names those that its findings forbid."
    for danger in DANGERS:
        yield from ("", f"## `{danger.command}`", "", f"It {danger.why}.")
        if danger.only:
            never = danger.only.startswith("never")
            yield from ("", f"N{danger.only[1:]}." if never else f"Only if {danger.only}.")
        if danger.gates:
            links = ", ".join(_link(gate) for gate in danger.gates)
            yield from (
                "",
                f"Not while one of these finds something, or can't be decided: {links}.",
            )


def _link(name: str) -> str:
    known = {check.name for check in CATALOGUE}
    return f"[{name}](checks/{name}.md)" if name in known else name


def _cli() -> str:
    parts = ["# The commands", ""]
    for words in _commands(typer.main.get_command(program()), ()):
        name = " ".join(("hoodsnap", *words))
        parts += [f"## {name}", "", "```text", _run(*words, "--help"), "```", ""]
    parts += ["## Exit status", "", "| status | meaning |", "|---|---|"]
    parts += [f"| {status} | {'; '.join(meanings)} |" for status, meanings in STATUS.items()]
    return "\n".join(parts) + "\n"


def _commands(command: object, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The words of each command and of each group of them, the program's own first."""
    yield words
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, (*words, name))


def _with_examples(text: str) -> str:
    for name, (arguments, start) in EXAMPLES.items():
        lines = _run("explain", *arguments).splitlines()
        first = next((at for at, line in enumerate(lines) if line.startswith(start)), 0)
        shown = textwrap.dedent("\n".join([*lines[first:], ""]).partition("\n\n")[0])
        block = f"<!-- example: {name} -->\n```text\n{shown}\n```\n<!-- end -->"
        pattern = rf"<!-- example: {name} -->\n.*?<!-- end -->"
        text = re.sub(pattern, lambda _: block, text, flags=re.DOTALL)  # noqa: B023 (used at once)
    return text


def _run(*arguments: str) -> str:
    environment = os.environ | {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
    command = [sys.executable, "-m", "hoodsnap", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    lines = done.stdout.replace(f"{ROOT}/", "").splitlines()
    return "\n".join(line.rstrip() for line in lines).strip("\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
