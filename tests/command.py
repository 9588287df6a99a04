"""The commands, run as a person runs them.

`hoodsnap` runs one within the test's own process, which spares each test the start of an
interpreter; `process` is a real one, for what only a process has: its start, its signals, its limits.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from hoodsnap import cli, memory

Completed = subprocess.CompletedProcess[bytes]


def hoodsnap(
    *arguments: object, stdin: bytes = b"", cwd: Path | None = None, **environment: str
) -> Completed:
    """Run a command to its end, with the given bytes as standard input."""
    # A limit of address space would be the tests' own; tests/test_bounds.py has processes for it.
    variables = {"COLUMNS": "80", memory.VARIABLE: "unlimited"} | environment
    command = ["hoodsnap", *map(str, arguments)]
    with (
        pytest.MonkeyPatch.context() as patch,
        _stream() as put,
        _stream() as said,
        _stream() as got,
    ):
        got.buffer.write(stdin)
        got.seek(0)
        for name, stream in (("stdin", got), ("stdout", put), ("stderr", said)):
            patch.setattr(sys, name, stream)
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", command)
        if cwd is not None:
            patch.chdir(cwd)
        try:
            cli.main()
        except SystemExit as end:
            status = end.code
        finally:
            gc.enable()
            memory.forget()
        assert isinstance(status, int)
        return subprocess.CompletedProcess(command, status, _written(put), _written(said))


def process(*arguments: object, stdin: bytes = b"", **environment: str) -> Completed:
    """Run a command as `hoodsnap` does, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "hoodsnap", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        env=os.environ | {"COLUMNS": "80"} | environment,
    )


def _stream() -> Any:
    """A standard stream that is a file: commands ask for its number."""
    return tempfile.TemporaryFile("w+", encoding="utf-8", newline="")


def _written(stream: Any) -> bytes:
    stream.flush()
    # Not by the stream's own number: `hoodsnap` may have led that somewhere else.
    stream.buffer.seek(0)
    return bytes(stream.buffer.read())
