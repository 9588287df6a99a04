"""`python -m fuzz`: run the campaign in several processes and print a table of the results.

The exit status is 1 if an exception escaped every net, or a run was too slow or took too much
memory.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from fuzz.campaign import Part, Tally, part
from fuzz.targets import TARGETS


def main() -> int:
    """Read the arguments, run the campaign, print the table; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument(
        "--target", action="append", choices=TARGETS, help="repeatable; default: all targets"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("fuzz/found"), help="folder for reproducers"
    )
    given = parser.parse_args()
    targets = given.target or list(TARGETS)
    print(f"seed {given.seed}, {given.jobs} processes, {given.minutes:g} minutes", flush=True)
    parts = [
        Part(given.seed + number, given.minutes * 60, given.out, targets)
        for number in range(given.jobs)
    ]
    whole = Tally()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(given.jobs, mp_context=spawn) as pool:
        for tally in pool.map(part, parts):
            whole.add(tally)
    for line in table(whole):
        print(line)
    return int(any(signature.escapes for signature in whole.finds))


def table(tally: Tally) -> list[str]:
    """Return a row per target with executions, speed and finds, followed by a line per find."""
    lines = [
        f"{tally.bundles} bundles, {tally.refused} refused when read,"
        f" {len(tally.kinds)} kinds of places",
        f"{'target':10} {'executions':>10} {'per s':>7} {'worst s':>8} {'escaped':>8} {'netted':>7}",
    ]
    for name, count in tally.executions.items():
        own = [signature for signature in tally.finds if signature.target == name]
        escaped = sum(signature.escapes for signature in own)
        speed = count / (tally.seconds[name] or 1.0)
        lines.append(
            f"{name:10} {count:10} {speed:7.1f} {tally.worst[name]:8.2f} {escaped:8}"
            f" {len(own) - escaped:7}"
        )
    for signature, count in sorted(
        tally.finds.items(), key=lambda item: (not item[0].escapes, str(item[0]))
    ):
        word = "ESCAPED" if signature.escapes else "netted"
        lines.append(f"{word:8} {count:6} × {signature}  ({tally.edits.get(signature, '')[:160]})")
    return lines


if __name__ == "__main__":
    sys.exit(main())
