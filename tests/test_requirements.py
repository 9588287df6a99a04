"""What users install is pinned and hashed, at the very versions that these tests ran with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
INSTALLED = ("explain", "collect", "grading", "reports", "query", "build", "release", "site")
DIRECT = {
    "explain": {"typer", "pydantic", "rich", "zstandard"},
    "collect": {"typer", "pydantic", "rich", "zstandard", "openstacksdk", "pymysql", "qemu-qmp"},
    "grading": {"typer", "pydantic", "rich", "zstandard", "pyyaml", "jmespath"},
    "reports": {
        *("typer", "pydantic", "rich", "zstandard", "jinja2", "junitparser", "prometheus-client"),
    },
    "query": {"typer", "pydantic", "rich", "zstandard", "duckdb", "jmespath"},
    "build": {"hatchling", "zstandard"},
    "release": {"cyclonedx-bom", "pip-tools"},
    "site": {"mkdocs-material"},
}


def _pins(path: Path) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==(\S+)", path.read_text(), re.MULTILINE)
    return {re.sub("[-_.]+", "-", name.lower()): version for name, version in found}


@pytest.mark.parametrize("name", INSTALLED)
def test_every_requirement_is_pinned_and_has_a_hash(name: str) -> None:
    text = (TOP / "requirements" / f"{name}.txt").read_text()
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    pins = [line for line in lines if not line.startswith(" ")]

    assert DIRECT[name] <= _pins(TOP / "requirements" / f"{name}.txt").keys()
    for pin in pins:
        assert re.fullmatch(r"[\w.-]+==[\w.!+-]+( ; .+)? \\", pin), pin
        assert lines[lines.index(pin) + 1].startswith("    --hash=sha256:"), pin


@pytest.mark.parametrize("name", ["explain", "collect", "grading", "reports", "query"])
def test_users_get_the_versions_that_are_tested(name: str) -> None:
    tested = _pins(TOP / "constraints.txt")
    pins = _pins(TOP / "requirements" / f"{name}.txt")

    assert {pin: tested.get(pin) for pin in pins if pin != "setuptools"} == {
        pin: version for pin, version in pins.items() if pin != "setuptools"
    }


@pytest.mark.parametrize("name", INSTALLED)
def test_no_requirement_names_where_it_was_downloaded_from(name: str) -> None:
    assert "://" not in (TOP / "requirements" / f"{name}.txt").read_text()
