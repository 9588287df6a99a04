"""`make bench`: every limit as a ratio within one run, against something that anyone can repeat.

Each line shows the median ratio, the limit, what was measured, and the medians behind the ratio.
The exit status is the number of exceeded limits. On a machine with the lab, as root, collecting is
measured too.
"""

from __future__ import annotations

import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.many import many
from hoodsnap.bundle import dump, load

ROOT = Path(__file__).parent.parent
RECORDED = ROOT / "src/hoodsnap/recorded/healthy.json.zst"
STATE = Path(os.environ.get("LAB_STATE", "/var/lib/hoodlab"))
GUESTS = 10_000
HUNDREDS = 500
"""Guests of a large host. Their limit is a fifth above what 115 checks took."""

IMPORTS = "import typer, rich.console, rich.table; from pydantic import BaseModel"
"""Imports that any program on these libraries pays for before its first line."""

ORJSON = """
import orjson, sys, time
data = open(sys.argv[1], "rb").read()
start = time.perf_counter(); orjson.loads(data); print(time.perf_counter() - start)
"""

CHECKED = """
import gc, sys, time
gc.disable()  # as the command does
from pathlib import Path
from hoodsnap.bundle import load
from hoodsnap.findings.analysis import analyze
start = time.perf_counter(); analyze(load(Path(sys.argv[1]))); print(time.perf_counter() - start)
"""


def main() -> int:
    """Measure everything; return the number of exceeded limits."""
    missed = _cold_start() + _shell_ready()
    with tempfile.TemporaryDirectory() as folder:
        missed += _many(Path(folder) / "hundreds.json", HUNDREDS, 33.0)
        missed += _many(Path(folder) / "many.json", GUESTS, 5.0)
        missed += _replayed(Path(folder) / "many.json")
        if os.geteuid() == 0 and (STATE / "clouds.yaml").exists():
            missed += _collect(Path(folder) / "lab.json")
        else:
            print("collect: not measured (it needs root and the lab)")
    return missed


def _cold_start() -> int:
    python = sys.executable
    ratio, ours, theirs = _paired(
        lambda: _wall([python, "-m", "hoodsnap", "explain", str(RECORDED)]),
        lambda: _wall([python, "-c", IMPORTS]),
        runs=11,
    )
    what = "cold `explain` of the recorded cloud / bare import of typer+pydantic+rich"
    return _line(what, ratio, 2.0, f"{ours:.3f} s / {theirs:.3f} s")


def _shell_ready() -> int:
    python = sys.executable
    command = [python, "-m", "hoodsnap", "shell", str(RECORDED), "-c", "true"]
    if subprocess.run(command, capture_output=True, cwd=ROOT).returncode != 0:
        print("replay: not measured (this host allows no namespaces)")
        return 0
    ratio, ours, theirs = _paired(
        lambda: _wall(command), lambda: _wall([python, "-c", IMPORTS]), runs=11
    )
    what = "`shell` of the recorded cloud, opened and closed / the same import"
    return _line(what, ratio, 4.0, f"{ours:.3f} s / {theirs:.3f} s")


def _replayed(path: Path) -> int:
    """Measure clients with ten thousand guests, each against a task that needs no recording."""
    python = sys.executable
    # The shell can't see this folder, so the program is passed as an argument.
    program = (ROOT / "bench" / "clients.py").read_text()
    command = [python, "-m", "hoodsnap", "replay", str(path), "--", python, "-I", "-c", program]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        print("clients of a recording: not measured (no namespaces, or a client failed)")
        return 0
    took: dict[str, float] = json.loads(said)
    parse, _ = _inside([python, "-c", ORJSON, str(path)])
    missed = 0
    for name, what in (
        ("list", f"`virsh list --all` of {GUESTS} domains"),
        ("dump", f"{GUESTS} documents through libvirt's binding"),
    ):
        if name in took:
            note = f"{took[name]:.2f} s / {parse:.2f} s"
            ratio = took[name] / parse
            missed += _line(f"{what} / orjson.loads of the bundle", ratio, 2.0, note)
    if "rows" in took and (live := _rows_of_mariadb()) is not None:
        note = f"{took['rows']:.2f} s / {live:.2f} s"
        what = "100,000 replayed rows by mysql / as many rows of a live MariaDB"
        missed += _line(what, took["rows"] / live, 12.0, note)
    peak, size = usage.ru_maxrss * 1024, path.stat().st_size
    note = f"{peak / 1e6:.0f} MB / {size / 1e6:.0f} MB"
    return missed + _line("peak memory of that replay / the bundle", peak / size, 6.0, note)


def _rows_of_mariadb() -> float | None:
    """Return the seconds a live MariaDB takes for rows of this width; None if none is running."""
    statement = "select seq, uuid(), 'active', 'compute1' from seq_1_to_100000"
    command = ["mysql", "-N", "nova", "-e", statement]
    try:
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return min(_wall(command) for _ in range(3))


def _many(path: Path, guests: int, limit: float) -> int:
    path.write_bytes(dump(many(load(RECORDED), guests)))
    size = path.stat().st_size
    peaks: list[int] = []

    def checked() -> float:
        seconds, peak = _inside([sys.executable, "-c", CHECKED, str(path)])
        peaks.append(peak)
        return seconds

    ratio, ours, theirs = _paired(
        checked, lambda: _inside([sys.executable, "-c", ORJSON, str(path)])[0], runs=3
    )
    missed = _line(
        f"{guests} guests read and checked / orjson.loads of the same file",
        ratio,
        limit,
        f"{ours:.2f} s / {theirs:.2f} s, {size / 1e6:.0f} MB",
    )
    peak = statistics.median(peaks)
    note = f"{peak / 1e6:.0f} MB / {size / 1e6:.0f} MB"
    return missed + _line("... its peak memory / the file", peak / size, 6.0, note)


def _collect(path: Path) -> int:
    os.environ["OS_CLIENT_CONFIG_FILE"] = str(STATE / "clouds.yaml")
    command = [
        sys.executable,
        "-m",
        "hoodsnap",
        "collect",
        "--os-cloud",
        "hoodlab",
        "-o",
        str(path),
    ]
    _wall(command)
    bundle = load(path)
    queries = [answer.query for answer in bundle.answers if answer.error is None]
    alone = {
        "all qemu-img calls by xargs -P2": _shell(
            [query for query in queries if query.startswith("qemu-img ")], 2
        ),
        "all virsh calls": _shell(
            [f"virsh -r -c qemu:///system {q[6:]}" for q in queries if q.startswith("virsh ")], 1
        ),
        "the API calls": [sys.executable, "-m", "bench.api", str(path)],
    }
    slowest = {
        what: statistics.median(_wall(each) for _ in range(3)) for what, each in alone.items()
    }
    what = max(slowest, key=slowest.__getitem__)
    ours = statistics.median(_wall(command) for _ in range(5))
    note = f"{ours:.2f} s; " + ", ".join(f"{name} {took:.2f} s" for name, took in slowest.items())
    return _line(f"`collect` of the lab / {what}", ours / slowest[what], 1.5, note)


def _shell(commands: list[str], at_once: int) -> list[str]:
    lines = "\n".join(f"{command} >/dev/null 2>&1" for command in commands)
    run = f"printf '%s\\n' {shlex.quote(lines)} | xargs -P{at_once} -d '\\n' -n1 sh -c"
    return ["sh", "-c", f"{run} || true"]


def _paired(
    ours: Callable[[], float], theirs: Callable[[], float], runs: int
) -> tuple[float, float, float]:
    """Return the median ratio of alternating runs, and both medians. The first pair warms up."""
    pairs = [(ours(), theirs()) for _ in range(runs + 1)][1:]
    return (
        statistics.median(a / b for a, b in pairs),
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
    )


def _wall(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    return time.perf_counter() - start


def _inside(command: list[str]) -> tuple[float, int]:
    """Return the seconds that a program prints, and its peak memory in bytes."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        seconds = float(process.stdout.read())
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
    return seconds, usage.ru_maxrss * 1024


def _line(what: str, ratio: float, limit: float, note: str) -> int:
    kept = ratio <= limit
    print(
        f"{'ok  ' if kept else 'OVER'} {ratio:5.2f} (limit {limit:g})  {what}  [{note}]", flush=True
    )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
