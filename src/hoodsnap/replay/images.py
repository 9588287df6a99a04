"""The disk images of a recorded host as files: the recorded names, sizes, owners and headers.

Nothing of what was in them was recorded: they are sparse, and as empty as a new disk. `qemu-img
info` says of them what it said of the originals, `ls -l` too.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any

from hoodsnap.facts.quantity import whole
from hoodsnap.replay import qcow2
from hoodsnap.replay.recording import UNREADABLE, NotRecorded, Recording

PLACES = ("/var/lib", "/opt", "/srv", "/mnt", "/media", "/data", "/exports")
"""Below which images are put back where they were: a recording decides nothing else about what
stands where in a shell."""

_BELOW = tuple(f"{place}/" for place in PLACES)

BUDGET = 256 << 20
"""Bytes of memory that are really used, so that `disk size` is right. Beyond, it is less."""

MOST_FILES = 100_000
"""Files that are made. A host has about five for each guest."""

DEEPEST = 32
"""Folders above a file."""

PAGE = 4096

_INFO = re.compile(r"qemu-img info -U (?:--backing-chain )?--output=json .*")


class Images:
    """The images of one recorded host, to be made below a folder."""

    def __init__(self, recording: Recording, root: Path) -> None:
        self._recording = recording
        self._root = root
        self._budget = BUDGET
        self._reached: set[Path] = set()
        self._places: dict[str, Path | None] = {}
        self.unlike: dict[str, str] = {}
        """The paths that could not be made as they were, and why."""

    def make(self) -> list[str]:
        """Make them; the folders that have to be put in their place."""
        self._root.mkdir(exist_ok=True)
        entries = {entry["path"]: entry for entry in self._entries()}
        infos = self._infos()
        # Links last: nothing is made in what one of them leads to.
        for path in sorted(entries, key=lambda path: (entries[path].get("type") == "l", path)):
            self._make(path, entries[path], infos.get(path))
        for path in infos.keys() - entries.keys():
            self._make(path, {"type": "f"}, infos[path])
        # Folders last and from below: what is made in them changes their times.
        for path in sorted(entries, reverse=True):
            with suppress(OSError, *UNREADABLE):
                place = self._place(path)
                if place is not None and place.is_dir() and self._is_reached(path, place / "x"):
                    _dress(place, entries[path])
        return self._folders([*entries, *infos])

    def _entries(self) -> Iterator[Mapping[str, Any]]:
        count = 0
        for query in ("find ", "stat -L "):
            for answer in self._recording.asked("images", query):
                listed = answer.value if isinstance(answer.value, list) else [answer.value]
                for entry in listed:
                    if isinstance(entry, dict) and isinstance(entry.get("path"), str):
                        if query == "stat -L " and entry.get("type") == "d":
                            continue  # the way to the images, not one of them
                        count += 1
                        if count > MOST_FILES:
                            return
                        yield entry

    def _infos(self) -> dict[str, Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {}
        for answer in self._recording.asked("images", "qemu-img info "):
            if _INFO.fullmatch(answer.query) is None:
                continue
            chain = answer.value if isinstance(answer.value, list) else [answer.value]
            for info in chain:
                if not isinstance(info, dict) or not isinstance(info.get("filename"), str):
                    continue
                # The same file may be seen as raw from one place, as what it is from others.
                if info.get("format") == "qcow2" or info["filename"] not in found:
                    found[info["filename"]] = info
        return found

    def _place(self, path: str) -> Path | None:
        """Where a recorded path is made: below the root, and nowhere else."""
        if path in self._places:
            return self._places[path]
        parts = [part for part in path.split("/") if part not in ("", ".")]
        plain = "/" + "/".join(parts)
        is_safe = path.startswith("/") and path.isprintable() and ".." not in parts
        place = None
        if is_safe and len(parts) < DEEPEST and plain.startswith(_BELOW):
            place = self._root / plain[1:]
        else:
            self.unlike[path] = "it stands where no images are put back"
        self._places[path] = place
        return place

    def _is_reached(self, path: str, place: Path) -> bool:
        """Make the folders above a place. False if a link among them leads elsewhere."""
        if place.parent in self._reached:
            return True
        folder = self._root
        for part in place.parent.relative_to(self._root).parts:
            folder /= part
            if folder.is_symlink():
                self.unlike[path] = "a link leads to it"
                return False
            folder.mkdir(exist_ok=True)
        # It stays one: no link is made where something is.
        self._reached.add(folder)
        return True

    def _make(self, path: str, entry: Mapping[str, Any], info: Mapping[str, Any] | None) -> None:
        place = self._place(path)
        kind = entry.get("type")
        try:
            if place is None or not self._is_reached(path, place):
                return
            if kind == "d":
                place.mkdir(exist_ok=True)
            elif kind == "l" and isinstance(entry.get("target"), str):
                # It leads where it led: inside the shell that is where it leads to.
                with suppress(FileExistsError):
                    place.symlink_to(entry["target"])
            elif kind == "f" and not os.path.lexists(place):
                self._fill(path, place, entry, info)
                _dress(place, entry)
            else:
                self.unlike[path] = "it is no file"
        except (OSError, *UNREADABLE) as error:
            self.unlike[path] = str(error)

    def _fill(
        self, path: str, place: Path, entry: Mapping[str, Any], info: Mapping[str, Any] | None
    ) -> None:
        size = whole(entry.get("size"))
        handle = os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(handle, "r+b") as file:
            written = 0
            if info is not None and info.get("format") == "qcow2":
                try:
                    written = qcow2.write(file, info)
                except qcow2.Unlike as reason:
                    self.unlike[path] = str(reason)
            elif (text := self._text(path)) is not None:
                written = file.write(text.encode(errors="surrogateescape"))
            elif isinstance(magic := entry.get("magic"), str):
                written = file.write(_unhexed(magic))
            if size is None and info is not None:
                size = whole(info.get("virtual-size"))
            if size is not None and size >= written:
                file.truncate(size)
            file.flush()
            blocks = whole(entry.get("blocks"))
            self._occupy(path, file.fileno(), (blocks or 0) * 512, size or 0)

    def _occupy(self, path: str, handle: int, wanted: int, size: int) -> None:
        """Let a file use as much space as it did, as far as there is some to spend."""
        used = os.fstat(handle).st_blocks * 512
        if wanted - used > self._budget:
            self.unlike[path] = "its disk size is less than recorded, to save memory"
            return
        self._budget -= max(wanted - used, 0)
        # From the end: the beginning has been written.
        end = -(-size // PAGE) * PAGE
        while used < wanted and end > 0:
            start = max(0, end - (wanted - used + PAGE - 1) // PAGE * PAGE)
            os.posix_fallocate(handle, start, end - start)
            end = start
            used = os.fstat(handle).st_blocks * 512
        os.ftruncate(handle, size)

    def _text(self, path: str) -> str | None:
        """Of the two small files whose content was recorded. Of no other: it might be a program, or
        what configures one."""
        if PurePosixPath(path).name not in ("disk.info", "compute_nodes"):
            return None
        try:
            said = self._recording.value("images", f"cat {path}")
        except NotRecorded:
            return None
        return said if isinstance(said, str) else json.dumps(said)

    def _folders(self, paths: list[str]) -> list[str]:
        """The highest recorded folders: each is put in its place whole."""
        found: set[str] = set()
        tops = {str(self._root / place.lstrip("/")) for place in PLACES}
        for path in paths:
            place = self._place(path)
            if place is None or not os.path.lexists(place):
                continue
            recorded = place if place.is_dir() and not place.is_symlink() else place.parent
            if str(recorded) not in tops:
                found.add("/" + str(recorded.relative_to(self._root)))
        return sorted(
            one for one in found if not any(one.startswith(f"{other}/") for other in found)
        )


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def _dress(place: Path, entry: Mapping[str, Any]) -> None:
    """Mode, owner and time. In a user namespace of its own nobody else's files can be made."""
    uid, gid = whole(entry.get("uid")), whole(entry.get("gid"))
    if uid is not None and gid is not None:
        with suppress(OSError, OverflowError):
            os.chown(place, uid, gid)
    mode = entry.get("mode")
    if isinstance(mode, str) and re.fullmatch(r"[0-7]{1,7}", mode):
        place.chmod(
            stat.S_IMODE(int(mode, 8)) & (0o1777 if place.is_dir() else 0o666)
        )  # nothing that was recorded is a program
    written = entry.get("mtime")
    if isinstance(written, str):
        with suppress(ValueError, OverflowError, OSError):
            since = datetime.fromisoformat(written.replace("Z", "+00:00")) - _EPOCH
            moment = since // _MICROSECOND * 1000  # a float's last digit would be another
            os.utime(place, ns=(moment, moment))


def _unhexed(digits: str) -> bytes:
    try:
        return bytes.fromhex(digits)[:16]
    except ValueError:
        return b""
