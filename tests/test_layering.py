"""The arrows of docs/explanation/architecture.md: imports point one way."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import hoodsnap

PURE = ("facts", "check", "checks", "finding", "analysis", "render")

FORBIDDEN = {
    "hoodsnap.compat": (
        "hoodsnap.bundle",
        *(f"hoodsnap.{part}" for part in PURE),
        "hoodsnap.collect",
    ),
    "hoodsnap.bundle": tuple(f"hoodsnap.{part}" for part in (*PURE, "collect", "cli")),
    "hoodsnap.trust.fingerprint": tuple(f"hoodsnap.{part}" for part in (*PURE, "collect", "cli")),
    "hoodsnap.trust.challenge": (
        "hoodsnap.facts.cloud",
        *(f"hoodsnap.{part}" for part in (*PURE, "collect", "cli") if part != "facts"),
    ),
    "hoodsnap.trust.plausible": (
        "hoodsnap.evidence",
        "hoodsnap.check",
        "hoodsnap.collect",
        "subprocess",
    ),
    "hoodsnap.trust.examination": (
        "hoodsnap.findings.analysis",
        "hoodsnap.collect",
        "hoodsnap.cli",
    ),
    "hoodsnap.facts.cloud.cloud": (
        "hoodsnap.evidence",
        "hoodsnap.check",
        "hoodsnap.findings.analysis",
        "hoodsnap.collect",
    ),
    "hoodsnap.evidence": (
        "hoodsnap.check",
        "hoodsnap.findings.analysis",
        "hoodsnap.render",
        "hoodsnap.collect",
    ),
    "hoodsnap.check": (
        "hoodsnap.checks",
        "hoodsnap.findings.analysis",
        "hoodsnap.render",
        "hoodsnap.collect",
    ),
    "hoodsnap.checks": (
        "hoodsnap.findings.analysis",
        "hoodsnap.render",
        "hoodsnap.collect",
        "hoodsnap.cli",
    ),
    "hoodsnap.findings.analysis": ("hoodsnap.render", "hoodsnap.collect", "hoodsnap.cli"),
    "hoodsnap.render.text": ("hoodsnap.collect", "hoodsnap.cli"),
    "hoodsnap.render.json": ("hoodsnap.collect", "hoodsnap.cli", "rich"),
    "hoodsnap.collect": (
        "hoodsnap.checks",
        "hoodsnap.check",
        "hoodsnap.findings.analysis",
        "hoodsnap.render",
        "hoodsnap.cli",
    ),
    "hoodsnap.cli": (
        "libvirt",
        "openstack",
        "keystoneauth1",
        "pymysql",
        "qemu",
        "hoodsnap.collect",
        "hoodsnap.replay",
        "hoodsnap.grading",
        "yaml",
        "jmespath",
    ),
    "hoodsnap.grading.command": (
        "hoodsnap.collect",
        "hoodsnap.replay",
        "hoodsnap.cli",
        "rich",
        "yaml",
        "jmespath",
    ),
    "hoodsnap.replay.shell": (
        "hoodsnap.collect",
        "hoodsnap.checks",
        "hoodsnap.findings.analysis",
        "hoodsnap.render",
        "hoodsnap.cli",
    ),
}
"""For each module what importing it must not bring along."""


@pytest.mark.parametrize("module", FORBIDDEN)
def test_imports_point_one_way(module: str) -> None:
    loaded = _loaded_by(f"import {module}")

    assert sorted(name for name in FORBIDDEN[module] if name in loaded) == []


def test_collecting_loads_no_client_before_it_asks() -> None:
    loaded = _loaded_by("import hoodsnap.collect")

    assert loaded.isdisjoint({"libvirt", "openstack", "keystoneauth1", "pymysql", "qemu"})


def _loaded_by(statement: str) -> set[str]:
    command = [sys.executable, "-c", f"{statement}; import sys; print(*sys.modules)"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


CODE = Path(hoodsnap.__file__).parent
PAGE = Path(__file__).parent.parent / "docs/explanation/architecture.md"


@pytest.mark.parametrize("folder", ["", "collect", "replay"])
def test_every_module_is_in_the_page(folder: str) -> None:
    """But for the nouns that a layer has in collect/ and in facts/ alike."""
    named = set(re.findall(r"`(\w+\.py)`", PAGE.read_text()))
    modules = {path.name for path in (CODE / folder).glob("[!_]*.py")}
    nouns = {path.name for path in (CODE / "facts").glob("*.py")} if folder == "collect" else set()

    assert modules - nouns - named == set()
