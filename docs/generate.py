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

from hoodsnap.check import LAYER_OF, Check
from hoodsnap.checks import CATALOGUE, TOPICS
from hoodsnap.facts.guest import LAYERS

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

COMMANDS = ("", "collect", "explain", "demo")


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
    pages = {CHECKS / f"{check.name}.md": _page(check) for check in CATALOGUE}
    pages[CHECKS / "README.md"] = "\n".join(_index()) + "\n"
    return pages


def _index() -> Iterator[str]:
    yield "# The checks"
    yield ""
    yield "Each compares what several layers say of one guest (or host). One that could not hear"
    yield "a layer is skipped: it neither passes nor fails."
    for topic in TOPICS:
        name = topic.__name__.rpartition(".")[2]
        yield from ("", f"## {name}", "", (topic.__doc__ or "").partition("\n")[0], "")
        yield "| check | severity | layers | what is wrong |"
        yield "|---|---|---|---|"
        for check in CATALOGUE:
            if check.topic == name:
                link = f"[{check.name}]({check.name}.md)"
                yield f"| {link} | {check.severity.word} | {_layers(check)} | {check.message} |"


def _page(check: Check) -> str:
    sections = check.sections
    lines = [
        f"# {check.name}",
        "",
        f"**{check.severity.word}** · {_layers(check)} · {check.topic}",
        "",
    ]
    lines += [sections["message"], "", sections["why"], ""]
    for title in ("Authority", "Traps", "Next", "Not yet", "Source"):
        lines += [f"## {title}", "", sections[title.lower()], ""]
    if check.traps:
        lines += ["## Not judged when", ""]
        lines += [f"- {(trap.__doc__ or '').partition(chr(10))[0]}" for trap in check.traps]
        lines += [""]
    return "\n".join(lines).rstrip() + "\n"


def _layers(check: Check) -> str:
    layers = {LAYER_OF[need] for need in check.needs if need in LAYER_OF} | set(check.heard)
    if "record" in check.needs:
        layers |= {"nova", "nova-db"}
    names = [name for layer, name in LAYERS.items() if layer in layers]
    return " × ".join(names) or {"host": "the whole host", "cloud": "all clocks"}[check.scope]


def _cli() -> str:
    parts = ["# The commands", ""]
    for command in COMMANDS:
        name = f"hoodsnap {command}".strip()
        shown = _run(*command.split(), "--help")
        parts += [f"## {name}", "", "```text", shown, "```", ""]
    parts += ["## Exit status", "", "| status | meaning |", "|---|---|"]
    parts += ["| 0 | the layers agree (`explain`), or the bundle was written (`collect`) |"]
    parts += ["| 1 | they disagree at or above `--fail-on` |", "| 2 | wrong usage |"]
    parts += ["| 3 | could not look: an unreadable bundle, or no layer answered |"]
    parts += ["| 130 | interrupted; what was heard until then is written |"]
    return "\n".join(parts) + "\n"


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
