"""What students hand in: a file, a folder or a zip each. Nothing is unpacked, no link followed."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hoodsnap import bounds
from hoodsnap.bundle import read_up_to

ENDS = (".json", ".json.gz", ".json.zst")
"""How a bundle's name ends."""

ANSWERS = frozenset(["answers.yaml", "answers.yml"])

MOST_FILES = 1_000
"""In one submission."""

MOST_BYTES = 512 << 20
"""Of one submission, unpacked."""


@dataclass(frozen=True)
class Submission:
    """What one student has handed in, or why it can't be read."""

    student: str
    bundles: tuple[tuple[str, bytes], ...] = ()
    """Name and bytes of each file that says to be a bundle."""
    answers: bytes | None = None
    remarks: tuple[str, ...] = ()


def students(folder: Path) -> list[Path]:
    """What in a folder is a student's: sorted by name. Raises `OSError`."""
    found = []
    for path in folder.iterdir():
        hidden = path.name.startswith((".", "__"))
        whole = path.name.endswith((*ENDS, ".zip"))
        if not hidden and not path.is_symlink() and (path.is_dir() or whole):
            found.append(path)
    return sorted(found, key=lambda path: path.name)


def name_of(path: Path) -> str:
    """The student's, as far as the file or folder tells."""
    if path.is_dir():
        return path.name
    for end in (*ENDS, ".zip"):
        if path.name.endswith(end) and path.name != end:
            return path.name.removesuffix(end)
    return path.name


def read(path: Path) -> Submission:
    """What is in a file, a folder or a zip. Raises nothing: what can't be read is a remark."""
    student = name_of(path)
    try:
        if path.is_dir():
            return _gathered(student, _in_folder(path))
        if path.name.endswith(".zip"):
            return _gathered(student, _in_zip(path))
        return _of_file(student, path)
    except OSError as error:
        reason = error.strerror or str(error)
    except zipfile.BadZipFile:
        reason = "it is no zip, or a damaged one"
    except (zlib.error, EOFError):
        reason = "its zip data is damaged"
    except (RuntimeError, NotImplementedError):
        reason = "it is encrypted, or packed in a way that Python does not know"
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
                remarks.append(f"there are several {last}: the first was taken")
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
            # What the name says of places is not used: nothing is written anywhere.
            parts = [part for part in name.split("/") if part != ".."]
            if not _is_wanted("/".join(parts)):
                continue
            with archive.open(entry) as file:
                data = read_up_to(file, left)  # whatever size the list promises
            left -= len(data)
            if left < 0:
                raise _TooLargeError(
                    f"it unpacks to more than {most >> 20} MiB, which no zip of its size does"
                )
            yield name, data


def _read(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        data = read_up_to(file, most)
    if len(data) > most:
        raise _TooLargeError(f"it is larger than {MOST_BYTES >> 20} MiB")
    return data
