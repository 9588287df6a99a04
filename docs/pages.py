"""Collect the pages of the documentation site in build/pages, with links that work there.

`make site` runs it before mkdocs. docs/ becomes the top of the site, and README.md its first page;
a link to a file that is no page becomes plain text.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

TOP = Path(__file__).parents[1]
PAGES = TOP / "build/pages"

OTHERS = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "lab/README.md",
    "fixtures/README.md",
)
"""Pages outside docs/. README.md becomes index.md."""

_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s#]+)(?P<place>#[^)\s]*)?\)")


def places() -> Iterator[tuple[str, str]]:
    """Yield each page's path in the repository, and its path in the site."""
    yield "README.md", "index.md"
    yield from ((name, name) for name in OTHERS)
    for path in sorted((TOP / "docs").rglob("*")):
        if path.suffix in (".md", ".svg", ".png"):
            name = path.relative_to(TOP).as_posix()
            yield name, name.removeprefix("docs/")


def moved(text: str, source: str, site: dict[str, str]) -> str:
    """Return a page's text with its links as they are in the site."""

    def link(match: re.Match[str]) -> str:
        target = match["target"]
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        path = os.path.normpath(os.path.join(os.path.dirname(source), target))
        if (place := site.get(path)) is None:
            return match["text"]
        relative = os.path.relpath(place, os.path.dirname(site[source]) or ".")
        return f"{match['image']}[{match['text']}]({relative}{match['place'] or ''})"

    return _LINK.sub(link, text)


def main() -> None:
    """Write the pages."""
    shutil.rmtree(PAGES, ignore_errors=True)
    site = dict(places())
    for source, place in site.items():
        (PAGES / place).parent.mkdir(parents=True, exist_ok=True)
        if place.endswith(".md"):
            text = (TOP / source).read_text()
            (PAGES / place).write_text(moved(text, source, site))
        else:
            shutil.copyfile(TOP / source, PAGES / place)


if __name__ == "__main__":
    main()
