"""Generate pages: of the checks, the commands (with their manual pages), the census, the README's
examples.

make docs                       write the pages
docs/generate.py --check        list outdated pages, and fail if there are any (part of `make lint`)
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import manual  # beside this file
import typer
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from hoodsnap.bundle import load
from hoodsnap.checks import CATALOG, TOPICS
from hoodsnap.checks.dangers import DANGERS
from hoodsnap.cli import program
from hoodsnap.findings.analysis import analyze
from hoodsnap.render import catalog, text
from hoodsnap.tables.table import TABLES

ROOT = Path(__file__).parent.parent
CHECKS = ROOT / "docs/reference/checks"

MAN = ROOT / "docs/man"
WIDTH = 100
FAULTS = ROOT / "src/hoodsnap/recorded/faults.txt"
TRIED = ROOT / "src/hoodsnap/recorded/tried.txt"

PICTURE = ROOT / "docs/report.svg"
SHOWN = "@demo/virsh-destroy"
"""The recording whose report the README shows."""

STATUS = {
    "0": (
        "the layers agree (`explain`, `check`)",
        "the bundle was written (`collect`, `redact`)",
        "the bundle meets all requirements (`verify`)",
        "everything is right (`grade`)",
    ),
    "1": (
        "the layers disagree at or above `--fail-on` (`explain`, `check`)",
        "the bundle does not meet a requirement (`verify`)",
        "something is wrong (`grade`)",
    ),
    "2": ("wrong usage",),
    "3": (
        "could not look: the bundle is unreadable, no layer answered, or there are no namespaces",
        "with `--fail-on unheard`: a layer was asked and did not answer (`explain`, `check`)",
        "something can't be graded (`grade`)",
    ),
    "4": (
        "the bundle was written, but a layer that is there did not answer everything (`collect`)",
    ),
    "5": (
        "the bundle was written, but to another file than asked for, which is named on standard"
        " error (`collect`)",
    ),
    "130": ("interrupted: `collect` has written the answers collected so far",),
    "any": ("the exit status of the command that was run (`shell`, `replay`)",),
}


def main(arguments: list[str]) -> int:
    """Write all pages, or with `--check` only list those that are outdated."""
    if "--check" not in arguments:
        TRIED.write_text(_tried())  # first, because the checks' pages quote it
    pages = {
        TRIED: _tried(),
        **_check_pages(),
        ROOT / "docs/reference/cli.md": _cli(),
        FAULTS: _faults(),
    }
    pages |= {MAN / name: text for name, text in manual.pages(STATUS)}
    pages[PICTURE] = _picture()
    pages[ROOT / "docs/reference/coverage.md"] = _coverage()
    pages[ROOT / "docs/reference/tables.md"] = "\n".join(_tables()) + "\n"
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text() != text]
    stale += sorted({*CHECKS.glob("*.md"), *MAN.glob("*")} - pages.keys())
    for path in stale:
        print(f"{'outdated' if '--check' in arguments else 'writing'}: {path.relative_to(ROOT)}")
        if "--check" in arguments:
            continue
        if path in pages:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(pages[path])
        else:
            path.unlink()
    return 1 if stale and "--check" in arguments else 0


def _check_pages() -> dict[Path, str]:
    pages = {CHECKS / f"{check.name}.md": catalog.markdown(check) for check in CATALOG}
    pages[CHECKS.parent / "dangers.md"] = "\n".join(_dangers()) + "\n"
    pages[CHECKS / "README.md"] = "\n".join(_index()) + "\n"
    return pages


def _index() -> Iterator[str]:
    yield "# The checks"
    yield ""
    yield "Each check compares what several layers report about one guest (or host). If a layer was"
    yield "not collected, the check is skipped: it neither passes nor fails. `hoodsnap checks`"
    yield "prints this list, `hoodsnap checks NAME` the page of one check."
    yield ""
    yield "Words in capitals are to be replaced. UUID is the server's, NAME its domain's name,"
    yield "PID its QEMU's process id; a report fills these three in. VOLUME, PORT, IMAGE and"
    yield "ATTACHMENT are ids, TAP is a device and DISK a path, as the evidence shows them."
    yield "INSTANCES_PATH is nova's `instances_path` (`/var/lib/nova/instances`), FOLDER the"
    yield "server's folder in it. HOST is the host's name in nova. SIZE, COPY and NEW are yours"
    yield "to choose. The page of a check explains its other words. `openstack` and `cinder`"
    yield "need an administrator's credentials; `nova-manage` needs nova.conf with the API"
    yield "database, which is on a controller (`volume_attachment get_connector` runs on the"
    yield "compute host); the other commands run on the compute host as root."
    for topic in TOPICS:
        name = topic.__name__.rpartition(".")[2]
        yield from ("", f"## {name}", "", (topic.__doc__ or "").partition("\n")[0], "")
        yield "| check | severity | layers | what is wrong |"
        yield "|---|---|---|---|"
        for check in CATALOG:
            if check.topic == name:
                link = f"[{check.name}]({check.name}.md)"
                layers = catalog.layers(check)
                yield f"| {link} | {check.severity.word} | {layers} | {check.message} |"


def _dangers() -> Iterator[str]:
    yield "# Commands that make things worse"
    yield ""
    yield "Never start with one of these commands. A report names those that its findings forbid."
    for danger in DANGERS:
        yield from ("", f"## `{danger.command}`", "", f"It {danger.why}.")
        if danger.only:
            never = danger.only.startswith("never")
            yield from ("", f"N{danger.only[1:]}." if never else f"Only if {danger.only}.")
        if danger.gates:
            links = ", ".join(_link(gate) for gate in danger.gates)
            yield from (
                "",
                f"Not while one of these checks has a finding or is undecided: {links}.",
            )


def _link(name: str) -> str:
    known = {check.name for check in CATALOG}
    if name in known:
        return f"[{name}](checks/{name}.md)"
    return f"{name} ([left out](../explanation/not-checked.md))"


KINDS: dict[type | None, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "boolean",
    None: "list or object",
}


def _tables() -> Iterator[str]:
    yield "# The tables"
    yield ""
    yield "`hoodsnap list TABLE BUNDLE` prints a table, `hoodsnap query` asks them all. Their"
    yield "values are those that the checks compare."
    yield ""
    yield "A value that does not exist is null. A value that was not collected is null too, and the"
    yield "row's `not_collected` names its column; `list` prints `?` instead. If rows may be"
    yield "missing because a layer was not collected, the reason is on standard error."
    for table in TABLES.values():
        yield from ("", f"## {table.name}", "", table.help, "")
        yield "| column | type | |"
        yield "|---|---|---|"
        for column in table.columns:
            yield f"| `{column.name}` | {KINDS[column.type]} | {column.help} |"


def _coverage() -> str:
    sys.path.append(str(ROOT))  # the census is part of the tests
    from tests.census import declared, page, result

    return "\n".join(page.page(result.read(), declared.load())).rstrip() + "\n"


def _cli() -> str:
    parts = ["# The commands", ""]
    for words in _commands(typer.main.get_command(program()), ()):
        name = " ".join(("hoodsnap", *words))
        parts += [f"## {name}", "", "```text", _run(*words, "--help"), "```", ""]
    parts += ["## Exit status", "", "| status | meaning |", "|---|---|"]
    parts += [f"| {status} | {'; '.join(meanings)} |" for status, meanings in STATUS.items()]
    return "\n".join(parts) + "\n"


def _commands(command: object, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the words of each command and group of commands, starting with the program itself."""
    yield words
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, (*words, name))


def _faults() -> str:
    """Return a line for each recorded fault: its name, and what lab/faults/ says it does."""
    scripts = "".join(path.read_text() for path in sorted(ROOT.glob("lab/faults/*.sh")))
    listed = re.findall(r'^fault (\S+) (\S+) "([^"]+)"', scripts, re.MULTILINE)
    lines = sorted(
        f"{name}\t{'host' if instance == '-' else instance}: {what}\n"
        for name, instance, what in listed
        if (ROOT / f"fixtures/faults/{name}.json.zst").exists()
    )
    return "".join(lines)


def _tried() -> str:
    """Return a line for each trial of tests/live/remedies.toml: the check, and how it ended."""
    sys.path.append(str(ROOT))
    from tests.live import remedies

    trials = sorted(remedies.load().items())
    return "".join(f"{check}\t{how}\n" for check, all_of in trials for how in remedies.told(all_of))


def _picture() -> str:
    """Return a report as a terminal shows it, as SVG that loads nothing from elsewhere."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    report = analyze(load(Path(SHOWN)))
    for line in text.render(report, report.cloud.guests, width=WIDTH):
        console.print(Text.assemble(*line.parts), soft_wrap=True)
    plain = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    svg = console.export_svg(
        title=f"hoodsnap explain {SHOWN}",
        theme=MONOKAI,
        code_format=plain,
        unique_id="report",
    )
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


def _run(*arguments: str) -> str:
    environment = os.environ | {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
    command = [sys.executable, "-m", "hoodsnap", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    lines = done.stdout.replace(f"{ROOT}/", "").splitlines()
    return "\n".join(line.rstrip() for line in lines).strip("\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
