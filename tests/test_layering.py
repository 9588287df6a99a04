"""What importing a part of hoodsnap loads; which part may import which is import-linter's, in
pyproject.toml."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import hoodsnap

CLIENTS = ("libvirt", "openstack", "keystoneauth1", "pymysql", "qemu", "requests")

LAZY = {
    "hoodsnap.cli": (
        *CLIENTS,
        "hoodsnap.collect",
        "hoodsnap.replay",
        "hoodsnap.grading",
        "rich",
        "yaml",
        "jmespath",
    ),
    "hoodsnap.collect": CLIENTS,
    "hoodsnap.grading.command": ("rich", "yaml", "jmespath"),
    "hoodsnap.render.html.page": ("jinja2", "rich"),
    "hoodsnap.render.json": ("rich",),
    "hoodsnap.trust.plausible": ("subprocess",),
}
"""For each module what it may use later but must not load when it is imported: a command starts
fast, and runs where none of the clients is installed."""


@pytest.mark.parametrize("module", LAZY)
def test_importing_loads_nothing_heavy(module: str) -> None:
    loaded = _loaded_by(f"import {module}")

    assert sorted(name for name in LAZY[module] if name in loaded) == []


def _loaded_by(statement: str) -> set[str]:
    command = [sys.executable, "-c", f"{statement}; import sys; print(*sys.modules)"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


CODE = Path(hoodsnap.__file__).parent
PAGE = Path(__file__).parent.parent / "docs/explanation/architecture.md"


def test_a_public_class_has_a_name_of_its_own() -> None:
    """`Host` in a traceback must mean one thing."""
    places = Counter(
        name
        for path in CODE.rglob("*.py")
        for name in re.findall(r"^class ([A-Z]\w*)", path.read_text(), re.MULTILINE)
    )

    assert [name for name, count in places.items() if count > 1] == []


FOLDERS = sorted({path.parent.relative_to(CODE) for path in CODE.rglob("*.py")} - {Path("checks")})
"""The folders of the package, without the topics of checks, which have a generated list."""


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_every_module_is_in_the_page(folder: Path) -> None:
    named = set(re.findall(r"`(\w+\.py)`", PAGE.read_text()))

    assert {path.name for path in (CODE / folder).glob("[!_]*.py")} - named == set()


def test_the_page_names_no_module_that_does_not_exist() -> None:
    modules = {path.name for path in CODE.rglob("*.py")}

    assert set(re.findall(r"`(?:\w+/)*(\w+\.py)`", PAGE.read_text())) - modules == set()
