"""Packages that only some commands need, and the command that installs them."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from tests.command import hoodsnap
from tests.conftest import HEALTHY

from hoodsnap import extras

EXTRAS = [
    name
    for name in metadata.metadata("hoodsnap").get_all("Provides-Extra") or ()
    if name not in ("dev", "libvirt", "page")
]


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_package_of_an_extra_has_a_module_that_leads_to_it(extra: str) -> None:
    packages = {_name(re.split("[<>=~! ]", one)[0]) for one in extras.packages(extra)}
    provided = metadata.packages_distributions()
    found = {_name(one) for name in extras.MODULES for one in provided.get(name, ())}

    assert packages <= found


def _name(package: str) -> str:
    """Return a package's name as pip compares it."""
    return re.sub("[-_.]+", "-", package.lower())


def test_the_command_installs_into_the_environment_that_hoodsnap_runs_in() -> None:
    words = shlex.split(extras.command("grading"))

    assert words[:4] == [sys.executable, "-m", "pip", "install"]
    done = subprocess.run([*words, "--dry-run", "--no-index"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "PyYAML" in done.stdout or "pyyaml" in done.stdout.lower()


def test_a_module_of_no_extra_has_no_advice() -> None:
    assert extras.advice("numpy") is None
    assert extras.advice(None) is None
    assert "python3-libvirt" in str(extras.advice("libvirt"))


@pytest.mark.parametrize("command", [("lab", "show", "compute"), ("grade", "compute", HEALTHY)])
def test_a_command_without_its_extra_says_how_to_install_it(
    command: tuple[object, ...], tmp_path: Path
) -> None:
    """As after `pip install .`: PyYAML and jmespath can't be imported."""
    blocked = "import sys\nsys.modules['yaml'] = sys.modules['jmespath'] = None\n"
    run = f"{blocked}sys.argv[1:] = {[*map(str, command)]!r}\nfrom hoodsnap.cli import main\nmain()"

    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, cwd=tmp_path)

    assert done.returncode == 3
    assert done.stderr.startswith("hoodsnap: the Python package ")
    assert "install the extra hoodsnap[grading]: " in done.stderr
    assert "defect" not in done.stderr and not list(tmp_path.iterdir())
    assert hoodsnap(*command).returncode != 3 or command[0] == "grade"
