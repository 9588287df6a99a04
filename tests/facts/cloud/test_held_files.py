"""Files that a domain names, and those that its QEMU process has open."""

from __future__ import annotations

import pytest
from tests.conftest import FAULTS, RecordedHost

from hoodsnap.bundle import load
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.held_files import named_files, renamed_file
from hoodsnap.facts.process.process import OpenFile


def _moved(fault: str, name: str) -> tuple[RecordedHost, Guest, str]:
    """Return a recording, a guest and the one file of it that does not exist any more."""
    recorded = RecordedHost(load(FAULTS / f"{fault}.json.zst"))
    return recorded, *_missing(recorded, name)


def _missing(recorded: RecordedHost, name: str) -> tuple[Guest, str]:
    [guest] = [one for one in recorded.report().cloud.guests if one.name == name]
    assert guest.domain and guest.host
    [path] = [path for path, _ in named_files(guest.domain) if not guest.host.images.entry(path)]
    return guest, path


def _found(guest: Guest, path: str) -> OpenFile | None:
    assert guest.host and guest.process and guest.domain
    return renamed_file(guest.host, guest.process, guest.domain, path)


@pytest.mark.parametrize(
    ("fault", "name", "end"),
    [("base-moved", "vm-snap", ".lab-moved"), ("volume-file-gone", "vm-bfv", "/lab-away")],
)
def test_a_file_that_was_renamed_is_found_under_its_new_name(
    fault: str, name: str, end: str
) -> None:
    _, guest, path = _moved(fault, name)

    found = _found(guest, path)
    assert found is not None
    assert found.path.endswith(end)
    assert found.path != path


def test_a_deleted_file_was_not_renamed() -> None:
    recorded = RecordedHost(load(FAULTS / "disk-deleted.json.zst"))
    guest, path = _missing(recorded, "vm-tenant")

    assert path.endswith("/disk")
    assert _found(guest, path) is None


def test_a_file_that_took_the_new_name_since_is_not_the_guests() -> None:
    recorded, guest, path = _moved("base-moved", "vm-snap")
    found = _found(guest, path)
    assert found is not None

    recorded.file(found.path, ino=found.ino + 1)

    assert _found(*_missing(recorded, "vm-snap")) is None
