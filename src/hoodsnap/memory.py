"""Memory limit for reading a bundle: an address-space limit (RLIMIT_AS).

Linux overcommits memory, so a bundle that does not fit would wake the kernel's out-of-memory
killer, which may choose another process. With the limit the command ends with a `MemoryError` and
one sentence. The limit grows with the bundle. Only the soft limit is set, so that programs that a
command starts (the clients in the shell) can get the previous limit back.
"""

from __future__ import annotations

import ctypes
import os
import resource
from contextlib import suppress

VARIABLE = "HOODSNAP_MEMORY"
"""Environment variable that overrides the derived limit: MiB of address space, or `unlimited`."""

FLOOR = 1 << 30
"""Bytes allowed for any bundle: Python, its libraries, thread stacks and reserved memory."""

LEAST = 256 << 20
"""Smallest limit in bytes; Python and its libraries don't start with less."""

PER_BYTE = 16
"""Bytes allowed for each byte of a bundle's JSON. With a thousand guests, `explain` needs 5 and
`redact` needs 7."""

_M_ARENA_MAX = -8
"""M_ARENA_MAX, a parameter of mallopt(3)."""

_before: tuple[int, int] | None = None
_bytes = 0


def allow(size: int) -> None:
    """Add a bundle of `size` bytes of JSON to the count, and set the limit for all of them."""
    global _before, _bytes
    _bytes += size
    if _before is None:
        _before = resource.getrlimit(resource.RLIMIT_AS)
        _share_arenas()
    wanted = _wanted(_bytes)
    if wanted is None:
        return
    soft, hard = _before
    for bound in (soft, hard):
        if bound != resource.RLIM_INFINITY:
            wanted = min(wanted, bound)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))


def _share_arenas() -> None:
    """Make all threads share two malloc arenas.

    glibc creates an arena for nearly every thread and reserves 64 MiB of address space for it:
    under the limit, the twelfth thread could not start.
    """
    with suppress(OSError, AttributeError):  # other C libraries have no such arenas
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def lift() -> None:
    """Restore the limit from before the first bundle.

    Call it before reporting that a bundle did not fit, and in a child process before it runs
    another program.
    """
    if _before is not None:
        resource.setrlimit(resource.RLIMIT_AS, _before)


def forget() -> None:
    """Restore the limit and reset the count, when the counted bundles are no longer needed."""
    global _bytes
    lift()
    _bytes = 0


def sentence() -> str:
    """Return a sentence for the operator: why the command ended, and what to do about it."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    most = f"{soft >> 20} MiB of" if soft != resource.RLIM_INFINITY else "this machine's"
    return f"the bundle needs more than {most} memory (set {VARIABLE}=MIB to allow more)"


def _wanted(size: int) -> int | None:
    setting = os.environ.get(VARIABLE, "").strip().lower()
    if setting == "unlimited":
        return None
    if setting.isascii() and setting.isdigit() and 0 < int(setting) < 1 << 40:
        return max(int(setting) << 20, LEAST)
    return FLOOR + PER_BYTE * size
