"""Extras: sets of packages that only some commands need, and how to install a missing one."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from importlib import util

MODULES = {
    "openstack": "collect",
    "keystoneauth1": "collect",
    "pymysql": "collect",
    "qemu": "collect",
    "yaml": "grading",
    "jmespath": "query",  # grading, which needs it too, imports yaml first
    "duckdb": "query",
    "jinja2": "reports",
    "junitparser": "reports",
    "prometheus_client": "reports",
}
"""Extra that each module belongs to, by the name that is imported, not by its package's."""

_EXTRA = re.compile(r"""\bextra == ["'](?P<extra>[^"']{1,50})["']""")


def advice(module: str | None) -> str | None:
    """Return how to install a missing module, with its extra; None for modules of no extra.

    The text is one clause with a command that works as printed, in the environment that hoodsnap
    runs in.
    """
    name = (module or "").partition(".")[0]
    if name in ("libvirt", "libvirt_qemu"):
        return "install the distribution's package python3-libvirt"
    extra = MODULES.get(name)
    if extra is None:
        return None
    return f"install the extra hoodsnap[{extra}]: {command(extra)}"


def command(extra: str) -> str:
    """Return the command that installs the packages of an extra into this environment."""
    python = shlex.quote(sys.executable)
    # The environment that `uv tool install` makes has no pip.
    start = f"{python} -m pip install" if util.find_spec("pip") else f"uv pip install -p {python}"
    return " ".join([start, *map(shlex.quote, packages(extra))])


def packages(extra: str) -> Iterator[str]:
    """Yield the requirements of an extra, as pip takes them."""
    from importlib import metadata  # imports all of email, so only when needed

    for requirement in metadata.requires("hoodsnap") or ():
        package, _, marker = requirement.partition(";")
        marked = _EXTRA.search(marker)
        if marked is not None and marked["extra"] == extra:
            yield package.replace(" ", "")
