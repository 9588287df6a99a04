"""Recordings that ship with hoodsnap: a real cloud, healthy and with each of its faults.

Wherever a command takes a bundle, `@demo` names the healthy recording and `@demo/NAME` the one of a
fault. A file of such a name is reached by its absolute path. The wheel contains the faults as one
archive, because they have nearly everything in common: 8 MB one by one are 2 MB together. A
checkout has them as files in fixtures/faults.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hoodsnap.suggestion import did_you_mean

if TYPE_CHECKING:
    from typing import BinaryIO

DEMO = "@demo"
"""Name of the healthy recording."""

_HERE = Path(__file__).parent
_LIST = _HERE / "faults.txt"
_TRIED = _HERE / "tried.txt"
_ARCHIVE = _HERE / "faults.tar.zst"
_FILES = _HERE.parents[2] / "fixtures/faults"

_WINDOW = 128 << 20
"""Bytes that the archive's compression looks back: the build hook has the same number."""


class UnknownRecordingError(Exception):
    """No recording has this name, or it is not part of this installation. One sentence."""


def is_named(path: Path) -> bool:
    """Return True if the path is the name of a recording instead of a file's."""
    return path.parts[:1] == (DEMO,)


def name_of(fault: str) -> str:
    """Return the name of a fault's recording, for a command line."""
    return f"{DEMO}/{fault}"


def faults() -> dict[str, str]:
    """Return what each fault does, by its name, in alphabetical order."""
    rows = (line.partition("\t") for line in _LIST.read_text().splitlines())
    return {name: what for name, _, what in rows}


def tried(check: str) -> list[str]:
    """Return how the advice of a check was tried on the cloud that the recordings are of.

    One sentence for each trial, or the reason why no trial exists; nothing for advice that changes
    nothing.
    """
    rows = (line.partition("\t") for line in _TRIED.read_text().splitlines())
    return [how for name, _, how in rows if name == check]


def read(path: Path) -> bytes:
    """Return the recording that a path names, as a bundle's bytes. Raises `UnknownRecordingError`.

    The bytes are JSON or compressed JSON, like a file's.
    """
    if path.parts == (DEMO,):
        return (_HERE / "healthy.json.zst").read_bytes()
    name = "/".join(path.parts[1:])
    if name not in (known := faults()):
        meant = did_you_mean(name, known) or " (see: hoodsnap demo --list)"
        raise UnknownRecordingError(f"no recorded fault is named {name}{meant}")
    if _ARCHIVE.is_file():
        with _ARCHIVE.open("rb") as file:
            return _in_archive(file, f"{name}.json")
    try:
        return (_FILES / f"{name}.json.zst").read_bytes()
    except OSError:
        raise UnknownRecordingError(
            "the recorded faults are not part of this installation"
        ) from None


def _in_archive(file: BinaryIO, name: str) -> bytes:
    import tarfile

    import zstandard

    opened = zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(file)
    with opened as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            if member.name == name and (content := archive.extractfile(member)) is not None:
                return content.read()
    raise UnknownRecordingError("the archive of recorded faults does not contain it")
