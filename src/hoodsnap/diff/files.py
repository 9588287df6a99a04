"""Files in the instances directory: those of a guest, and those of the image cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.uuids import UUID


def _lines(host: Host) -> Mapping[str, Mapping[str, object]]:
    try:
        value = host.listing.value
    except UnheardError:
        return {}
    lines = value if isinstance(value, list) else []
    return {
        line["path"]: line
        for line in lines
        if isinstance(line, dict) and isinstance(line.get("path"), str)
    }


def _kept(line: Mapping[str, object]) -> Mapping[str, object]:
    """Return what does not change with every write: the kind, the mode, the owner."""
    owner = ":".join(str(line.get(key)) for key in ("user", "group"))
    return {"mode": str(line.get("mode")), "owner": owner}


def files_of_guests(host: Host) -> Mapping[str, dict[str, Any]]:
    """Return UUID → path in the instances directory → mode and owner, for guests' own folders."""
    found: dict[str, dict[str, Any]] = {}
    for path, line in _lines(host).items():
        named = UUID.search(path)
        if named is not None and path[named.start() - 1] == "/":
            own = path[named.start() :].removeprefix(f"{named[0]}/")
            found.setdefault(named[0], {})[own] = _kept(line)
    return found


def cached_files(host: Host) -> dict[str, Any]:
    """Return path → kind, size and inode of each file that belongs to no guest.

    Base images never change, so their sizes and inodes count. Lock files are left out.
    """
    found = {}
    for path, line in _lines(host).items():
        if line.get("type") == "f" and not UUID.search(path) and "/locks/" not in path:
            inode = f"{line.get('dev')} {line.get('ino')}"
            found[path] = {**_kept(line), "size": line.get("size"), "inode": inode}
    return found
