"""Our own collector, run over a recording, hears what was recorded."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import HEALTHY, healthy

from hoodsnap.bundle import Answer, Bundle, load
from hoodsnap.collect.libvirtd import DISTRIBUTION_FOLDERS

SAME = ("nova", "nova-db", "placement", "libvirt", "glance", "neutron", "cinder")
"""The layers that are asked through servers. The others are files and devices of the machine that
it runs on: their numbers (inodes, devices, times) can't be another's."""

ACCEPTED = {
    r"GET /v2\.1/$": "its links lead to where it is served now",
    r"HEAD /v2\.1/$": "the clock is today's",
}


def _key(answer: Answer) -> tuple[str, str, str | None]:
    # A question about the last days names the day.
    return answer.layer, re.sub(r"since=[^ &]+", "since=…", answer.query), answer.subject


def _said(bundle: Bundle) -> dict[tuple[str, str, str | None], object]:
    return {
        _key(answer): answer.error.kind if answer.error is not None else answer.value
        for answer in bundle.answers
        if answer.layer in SAME and not any(re.match(query, answer.query) for query in ACCEPTED)
    }


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    found = any((folder / "libvirt.py").exists() for folder in DISTRIBUTION_FOLDERS)
    if not found and importlib.util.find_spec("libvirt") is None:
        pytest.skip("libvirt's binding for Python is not installed")
    path = tmp_path_factory.mktemp("again") / "again.json.zst"
    hoodsnap = [sys.executable, "-m", "hoodsnap"]
    collect = [*hoodsnap, "collect", "--all-hosts", "--output", str(path)]
    # What is found by way of this is the tests' own, and the shell passes on no such variable.
    source = f"PYTHONPATH={os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [*hoodsnap, "replay", HEALTHY, "--coverage", "--", "env", source, *collect],
        capture_output=True,
        text=True,
    )
    if "no namespaces" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert Path(path).exists(), done.stderr
    return load(path)


def test_the_same_is_heard_again(again: Bundle) -> None:
    before, after = _said(healthy()), _said(again)

    assert before.keys() == after.keys()
    differing = {key for key, value in before.items() if after[key] != value}
    assert differing == set()


def test_it_explains_the_same_guests(again: Bundle) -> None:
    from hoodsnap.facts.cloud import read

    def guests(bundle: Bundle) -> set[tuple[str, str]]:
        return {(guest.uuid, guest.name) for guest in read(bundle).guests if guest.instance}

    assert guests(again) == guests(healthy())
