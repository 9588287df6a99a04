"""Report of a defect, for a bug tracker. It contains no data from a bundle.

It lists versions, the command with the names of its options, and the lines of code in the
traceback. It omits option values, local variables and exception messages, which quote data.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import hoodsnap

LIBRARIES = (
    "typer",
    "pydantic",
    "pydantic-core",
    "rich",
    "zstandard",
    "openstacksdk",
    "PyMySQL",
    "qemu.qmp",
    "libvirt-python",
    "PyYAML",
    "jmespath",
)

MOST_FRAMES = 60
"""Calls in a report. A longer traceback is cut in the middle."""

MOST_CAUSES = 5

_OPTION = re.compile(r"(--[a-z][a-z-]*|-[a-z])(?:=.*)?", re.DOTALL)


def write(error: BaseException, arguments: Sequence[str], commands: Collection[str]) -> Path:
    """Write a report into the current folder, or else the temporary folder; return its path.

    Only its owner may read it, and an existing file is never written to. Raises `OSError`.
    """
    text = "\n".join(lines(error, arguments, commands)) + "\n"
    name = f"hoodsnap-crash-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}Z.txt"
    try:
        return _written(Path(name), text)
    except OSError:
        return _written(Path(tempfile.gettempdir()) / name, text)


def _written(path: Path, text: str) -> Path:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    return path


def lines(
    error: BaseException, arguments: Sequence[str], commands: Collection[str]
) -> Iterator[str]:
    """Yield the lines of a report."""
    yield f"hoodsnap {hoodsnap.__version__}: {type(error).__name__}"
    yield f"Python {platform.python_version()} ({platform.python_implementation()})"
    yield platform.platform()
    yield ", ".join(_versions())
    yield f"command: hoodsnap {_command(arguments, commands)}"
    cause: BaseException | None = error
    for _ in range(MOST_CAUSES):
        if cause is None:
            break
        yield ""
        yield f"{type(cause).__module__}.{type(cause).__qualname__}, innermost call last:"
        yield from _frames(cause)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def _versions() -> Iterator[str]:
    from importlib import metadata  # imports all of email, so only when needed

    for name in LIBRARIES:
        try:
            yield f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue


def _command(arguments: Sequence[str], commands: Collection[str]) -> str:
    name = arguments[0] if arguments and arguments[0] in commands else "?"
    found, others = [name], 0
    for position, argument in enumerate(arguments[1:], 1):
        if argument == "--":
            others += len(arguments) - position - 1
            break
        if option := _OPTION.fullmatch(argument):
            found.append(option[1])
        else:
            others += 1
    return " ".join(found) + f" (and {others} other word{'s' * (others != 1)})"


def _frames(error: BaseException) -> list[str]:
    found, trace = [], error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        found.append(f"  {_relative(code.co_filename)}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    if len(found) > MOST_FRAMES:
        half = MOST_FRAMES // 2
        found[half:-half] = [f"  … {len(found) - MOST_FRAMES} calls"]
    return found


def _relative(file: str) -> str:
    """Return a source file's path relative to the sys.path folder it was imported from."""
    folders = sorted({os.path.abspath(folder) for folder in sys.path}, key=len, reverse=True)
    for folder in (str(Path(hoodsnap.__file__).parent.parent), *folders):
        if file.startswith(f"{folder}/"):
            return file.removeprefix(f"{folder}/")
    return os.path.basename(file)
