"""Addresses in a configuration file: data, never instructions.

A libvirt URI can name a command to run, a login key or a program to connect through. From a
configuration file only this host's own daemon is followed, at a socket that only root or libvirt
can have put there. For any other daemon the operator must type the URI.
"""

from __future__ import annotations

import os
import re
import stat
from urllib.parse import quote, unquote

from hoodsnap.collect.recorder import RefusedError
from hoodsnap.collect.trusted.ownership import Owners, opened
from hoodsnap.collect.trusted.service import account

LIBVIRT_ACCOUNTS = ("libvirt-qemu", "qemu", "libvirt")
DATABASE_ACCOUNTS = ("mysql",)

_LOCAL = re.compile(r"qemu(?:\+unix)?:///system(?:\?(?P<query>[^#]*))?")

_MODES = ("auto", "direct", "legacy")


def configured_uri(uri: str) -> str:
    """Return the libvirt URI of a configuration file, rebuilt from its known parts.

    Raises `RefusedError` (`denied`) unless it is `qemu:///system` or
    `qemu+unix:///system?socket=PATH`.
    """
    match = _LOCAL.fullmatch(uri)
    if match is None:
        raise _refused("it is not qemu:///system or qemu+unix:///system")
    known: dict[str, str] = {}
    for parameter in re.split("[&;]", match["query"] or ""):
        name, _, value = parameter.partition("=")
        if not parameter:
            continue
        if name in known or name not in ("socket", "mode"):
            raise _refused("it has parameters besides socket and mode")
        known[name] = unquote(value)
    if known.get("mode", "auto") not in _MODES:
        raise _refused("its mode is unknown")
    if "socket" in known:
        must_be_socket_of(known["socket"], LIBVIRT_ACCOUNTS)
    query = "&".join(f"{name}={quote(value)}" for name, value in known.items())
    transport = "+unix" if "socket" in known else ""
    return f"qemu{transport}:///system" + (f"?{query}" if query else "")


def must_be_socket_of(path: str, accounts: tuple[str, ...]) -> None:
    """Raise `RefusedError` (`denied`, `absent`) unless the path leads to a socket of root or one of
    these accounts, through folders that no other account can write to."""
    if not path.startswith("/"):
        raise RefusedError("denied", f"not followed: {path} is not an absolute path")
    found = (account(name) for name in accounts)
    uids = frozenset(one.pw_uid for one in found if one is not None) | {os.geteuid()}
    folder, name = os.path.split(path)
    with opened(folder, Owners(uids)) as handle:
        try:
            status = os.stat(name, dir_fd=handle, follow_symlinks=False)
        except OSError as error:
            kind = "absent" if isinstance(error, FileNotFoundError) else "denied"
            raise RefusedError(kind, f"{path}: {error.strerror}") from None
    if not stat.S_ISSOCK(status.st_mode):
        raise RefusedError("denied", f"not followed: {path} is not a socket")
    if status.st_uid not in uids | {0}:
        raise RefusedError("denied", f"not followed: {path} belongs to uid {status.st_uid}")


def _refused(why: str) -> RefusedError:
    return RefusedError(
        "denied",
        f"nova.conf's connection_uri is not followed: {why}; if the URI is right, pass it with"
        " --libvirt-uri",
    )
