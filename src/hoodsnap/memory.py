"""Memory that a command may take to read a bundle: an address-space limit (RLIMIT_AS).

Linux promises more memory than there is, so a bundle that does not fit would end in the kernel's
out-of-memory killer, which may choose another process. With the limit it ends in a `MemoryError`
and one sentence. The limit grows with the bundle; only the soft one is set, so that programs that a
command starts (the clients in the shell) get back what was allowed before.
"""

from __future__ import annotations

import ctypes
import os
import resource
from contextlib import suppress

VARIABLE = "HOODSNAP_MEMORY"
"""MiB of address space instead of the derived limit; `unlimited` for none."""

FLOOR = 1 << 30
"""Bytes for any bundle: Python, its libraries, stacks of threads and what they reserve."""

LEAST = 256 << 20
"""Bytes below which not even Python and its libraries start."""

PER_BYTE = 16
"""Bytes for each byte of a bundle's JSON. A thousand guests need 5 to explain, 7 to redact."""

_M_ARENA_MAX = -8
"""Parameter of mallopt(3)."""

_before: tuple[int, int] | None = None
_bytes = 0


def allow(size: int) -> None:
    """Count a bundle of `size` bytes of JSON more, and set the limit for all counted so far."""
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
    """Let all threads share two of the allocator's arenas. glibc makes one for nearly each thread,
    and reserves 64 MiB of address space for it: under a limit the twelfth thread can't start."""
    with suppress(OSError, AttributeError):  # another C library has no such arenas
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def lift() -> None:
    """Set the limit back to what it was before the first bundle: to say that one did not fit, and
    in a child before it runs another program."""
    if _before is not None:
        resource.setrlimit(resource.RLIMIT_AS, _before)


def forget() -> None:
    """Count from zero again: the bundles that were counted are not needed any more."""
    global _bytes
    lift()
    _bytes = 0


def sentence() -> str:
    """Sentence for the operator: why the command ended, and what to do about it."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    most = f"{soft >> 20} MiB of" if soft != resource.RLIM_INFINITY else "this machine's"
    return f"the bundle needs more than {most} memory ({VARIABLE}=MIB allows more)"


def _wanted(size: int) -> int | None:
    said = os.environ.get(VARIABLE, "").strip().lower()
    if said == "unlimited":
        return None
    if said.isascii() and said.isdigit() and 0 < int(said) < 1 << 40:
        return max(int(said) << 20, LEAST)
    return FLOOR + PER_BYTE * size
