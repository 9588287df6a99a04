"""Time that clients take with the stand-ins: `hoodsnap replay BUNDLE -- python -m bench.clients`.

Prints the seconds of each client as JSON.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from contextlib import suppress

from hoodsnap.collect.libvirt_client import binding
from hoodsnap.collect.recorder import RefusedError

ROWS = (
    "select a.id, a.uuid, a.vm_state, a.host from instances a, (select 1 union all select 2"
    " union all select 3 union all select 4 union all select 5 union all select 6"
    " union all select 7 union all select 8 union all select 9 union all select 10) b limit 100000"
)
"""A hundred thousand rows of ten thousand instances."""


def main() -> None:
    """Run each client and print its best time; the first run waits for the stand-ins."""
    took: dict[str, float] = {}
    for name, command in (
        ("list", ["virsh", "list", "--all"]),
        ("rows", ["mysql", "-N", "nova", "-e", ROWS]),
    ):
        if shutil.which(command[0]):
            took[name] = min(_wall(command) for _ in range(3))
    with suppress(RefusedError):
        took["dump"] = _dump()
    print(json.dumps(took))


def _dump() -> float:
    """Return the seconds for every domain's XML document, through libvirt's own binding."""
    connection = binding().openReadOnly("qemu:///system")
    start = time.perf_counter()
    assert all(domain.XMLDesc() for domain in connection.listAllDomains())
    return time.perf_counter() - start


def _wall(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
