"""Submissions: each a file, a folder or a zip. No zip is unpacked to disk, no link is followed."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hoodsnap import bounds, recorded
from hoodsnap.bundle import read_up_to

ENDS = (".json", ".json.gz", ".json.zst")
"""Endings of a bundle's file name."""

ANSWERS = frozenset(["answers.yaml", "answers.yml"])

MOST_FILES = 1_000
"""Largest number of files in one submission."""

MOST_BYTES = 512 << 20
"""Largest number of bytes in one submission, unpacked."""


@dataclass(frozen=True)
class Submission:
    """The files that one student handed in, or the reason why they can't be read."""

    student: str
    bundles: tuple[tuple[str, bytes], ...] = ()
    """Name and bytes of each file that has a bundle's file name."""
    answers: bytes | None = None
    remarks: tuple[str, ...] = ()


def students(folder: Path) -> list[Path]:
    """Return the paths of the submissions in a folder, sorted by name. Raises `OSError`."""
    found = []
    for path in folder.iterdir():
        hidden = path.name.startswith((".", "__"))
        whole = path.name.endswith((*ENDS, ".zip"))
        if not hidden and not path.is_symlink() and (path.is_dir() or whole):
            found.append(path)
    return sorted(found, key=lambda path: path.name)


def name_of(path: Path) -> str:
    """Return the student's name, from the name of the file or folder."""
    if path.is_dir():
        return path.name
    for end in (*ENDS, ".zip"):
        if path.name.endswith(end) and path.name != end:
            return path.name.removesuffix(end)
    return path.name


def read(path: Path) -> Submission:
    """Read a submission from a file, a folder or a zip. Problems become remarks, never errors."""
    student = name_of(path)
    try:
        if recorded.is_named(path):
            return Submission(student, ((path.name, recorded.read(path)),))
        if path.is_dir():
            return _gathered(student, _in_folder(path))
        if path.name.endswith(".zip"):
            return _gathered(student, _in_zip(path))
        return _of_file(student, path)
    except recorded.UnknownRecordingError as error:
        reason = str(error)
    except OSError as error:
        reason = error.strerror or str(error)
    except zipfile.BadZipFile:
        reason = "it is not a zip file, or it is damaged"
    except (zlib.error, EOFError):
        reason = "its zip data is damaged"
    except (RuntimeError, NotImplementedError):
        reason = "it is encrypted, or compressed by an unsupported method"
    except _TooLargeError as error:
        reason = str(error)
    except (ValueError, UnicodeError, OverflowError):
        reason = "its list of files can't be read"
    return Submission(student, remarks=(f"{path.name} can't be read: {reason}",))


class _TooLargeError(Exception):
    pass


def _of_file(student: str, path: Path) -> Submission:
    bundle = _read(path, MOST_BYTES)
    beside = (path.parent / f"{student}.{name}" for name in sorted(ANSWERS))
    found = next((one for one in beside if one.is_file() and not one.is_symlink()), None)
    answers = _read(found, MOST_BYTES) if found is not None else None
    return Submission(student, ((path.name, bundle),), answers)


def _gathered(student: str, files: Iterator[tuple[str, bytes]]) -> Submission:
    bundles, answers, remarks = [], None, []
    for name, data in files:
        last = PurePosixPath(name).name
        if last in ANSWERS:
            if answers is not None:
                remarks.append(f"there are several {last} files: the first one is used")
                continue
            answers = data
        else:
            bundles.append((last, data))
    return Submission(student, tuple(bundles), answers, tuple(remarks))


def _is_wanted(name: str) -> bool:
    parts = PurePosixPath(name).parts
    if not parts or any(part.startswith((".", "__")) for part in parts):
        return False
    return parts[-1].endswith(ENDS) or parts[-1] in ANSWERS


def _in_folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    left, seen, waiting = MOST_BYTES, 0, [folder]
    while waiting:
        for path in sorted(waiting.pop().iterdir()):
            seen += 1
            if seen > MOST_FILES:
                raise _TooLargeError(f"it has more than {MOST_FILES} files")
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode) and not path.name.startswith((".", "__")):
                waiting.append(path)
            elif stat.S_ISREG(mode) and _is_wanted(path.name):
                data = _read(path, left)
                left -= len(data)
                yield path.name, data


def _in_zip(path: Path) -> Iterator[tuple[str, bytes]]:
    most = left = min(MOST_BYTES, bounds.unpacked(path.stat().st_size))
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if len(entries) > MOST_FILES:
            raise _TooLargeError(f"it has more than {MOST_FILES} files")
        for entry in entries:
            if entry.is_dir() or stat.S_ISLNK(entry.external_attr >> 16):
                continue
            name = entry.filename.replace("\\", "/").lstrip("/")
            # The folders in the name are not used, because nothing is written to disk.
            parts = [part for part in name.split("/") if part != ".."]
            if not _is_wanted("/".join(parts)):
                continue
            with archive.open(entry) as file:
                data = read_up_to(file, left)  # the size in the zip's directory is not trusted
            left -= len(data)
            if left < 0:
                raise _TooLargeError(
                    f"it unpacks to more than {most >> 20} MiB, which is too much for its size"
                )
            yield name, data


def _read(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        data = read_up_to(file, most)
    if len(data) > most:
        raise _TooLargeError(f"it is larger than {MOST_BYTES >> 20} MiB")
    return data
