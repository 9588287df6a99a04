"""Time to grade a class: `python -m bench.classroom [STUDENTS]`.

Two hundred students should take less than twenty seconds.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from hoodsnap.grading.classroom import copies, grade_class
from hoodsnap.grading.sheet import load
from hoodsnap.grading.submissions import students

HEALTHY = Path(__file__).parent.parent / "src/hoodsnap/recorded/healthy.json.zst"


def main(count: int) -> None:
    """Grade `count` copies of the recorded cloud; each one is read and checked separately."""
    data = HEALTHY.read_bytes()
    with tempfile.TemporaryDirectory() as top:
        for number in range(count):
            (Path(top) / f"student-{number:04}.json.zst").write_bytes(data)
        began = time.perf_counter()
        grades = grade_class(load("compute"), students(Path(top)), "vm-data")
        copied = sum(1 for _ in copies(grades))
        took = time.perf_counter() - began
    assert all(one.results for one in grades)
    print(
        f"{count} submissions in {took:.1f} s ({took / count * 1000:.0f} ms each); {copied} copies"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
