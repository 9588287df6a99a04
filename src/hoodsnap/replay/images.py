"""The disk images of a recorded host as files: the recorded names, sizes, owners and headers.

Nothing of what was in them was recorded: they are sparse, and as empty as a new disk. `qemu-img
info` says of them what it said of the originals, `ls -l` too.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hoodsnap.facts.database.tables import UUID
from hoodsnap.facts.quantity import whole
from hoodsnap.replay import qcow2
from hoodsnap.replay.recording import UNREADABLE, NotRecordedError, Recording

PLACES = ("/var/lib", "/opt", "/srv", "/mnt", "/media", "/data", "/exports")
"""Below which images are put back where they were: a recording decides nothing else about what
stands where in a shell."""

_BELOW = tuple(f"{place}/" for place in PLACES)

BUDGET = 256 << 20
"""Bytes of memory that are really used, so that `disk size` is right. Beyond, it is less."""

MOST_FILES = 100_000
"""Files and folders that are made. A host has about five for each guest."""

LONGEST_TEXT = 1 << 16
"""Characters of disk.info or compute_nodes."""

DEEPEST = 32
"""Folders above a file."""

PAGE = 4096

_INFO = re.compile(r"qemu-img info -U (?:--backing-chain )?--output=json .*")


class Images:
    """The images of one recorded host, to be made below a folder.

    `reserved`: the folders in which nothing is made, for something else stands there.
    """

    def __init__(self, recording: Recording, root: Path, reserved: Collection[str] = ()) -> None:
        self._recording = recording
        self._root = root
        self._top = os.fspath(root)
        self._reserved = tuple(f"{folder.rstrip('/')}/" for folder in reserved)
        self._budget = BUDGET
        self._left = MOST_FILES
        self._folders: set[str] = set()
        """Those that are there, of our making: none of them is a link."""
        self._places: dict[str, str | None] = {}
        self._tops = {
            answer.query.removeprefix("find ").removesuffix(" -ls").rstrip("/")
            for answer in recording.asked("images", "find ")
        }
        """Instances directories."""
        self.unlike: dict[str, str] = {}
        """The paths that could not be made as they were, and why."""
        self.covered: dict[str, None] = {}
        """The reserved folders in which something was recorded, in the order of the recording."""

    @property
    def is_cut_off(self) -> bool:
        """Were there more files and folders than are made?"""
        return self._left == 0

    def make(self) -> None:
        """Make them, in time that grows with the number of files and folders."""
        os.makedirs(self._top, exist_ok=True)
        entries = {entry["path"]: entry for entry in self._entries()}
        infos = self._infos()
        links = [path for path, entry in entries.items() if entry.get("type") == "l"]
        for path in sorted(entries.keys() - set(links)):
            self._make(path, entries[path], infos.get(path))
        for path in sorted(infos.keys() - entries.keys()):
            self._make(path, {"type": "f"}, infos[path])
        # Links last: nothing is made in what one of them leads to.
        for path in sorted(links):
            self._make(path, entries[path], None)
        # Folders from below: what is made in them changes their times.
        for path in sorted(entries, reverse=True):
            place = self._place(path)
            if place is not None and place in self._folders:
                with suppress(OSError, *UNREADABLE):
                    _dress(place, entries[path])

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

    def _place(self, path: str) -> str | None:
        """Where a recorded path is made: below the root, and nowhere else."""
        if path not in self._places:
            parts = [part for part in path.split("/") if part not in ("", ".")]
            plain = "/" + "/".join(parts)
            is_safe = path.startswith("/") and path.isprintable() and ".." not in parts
            place = None
            if not is_safe or len(parts) >= DEEPEST or not plain.startswith(_BELOW):
                self.unlike[path] = "it stands where no images are put back"
            elif reserved := next((x for x in self._reserved if f"{plain}/".startswith(x)), None):
                self.unlike[path] = "programs of this machine are there"
                self.covered.setdefault(reserved.rstrip("/"))
            else:
                place = self._top + plain
            self._places[path] = place
        return self._places[path]

    def _make_folder(self, place: str) -> None:
        """Make a folder and those above it, each once. Raises `OSError`, where one of them is a
        file, and `ValueError` where there are too many."""
        missing = []
        while place != self._top and place not in self._folders:
            missing.append(place)
            place = place.rpartition("/")[0]
        for folder in reversed(missing):
            self._spend()
            try:
                os.mkdir(folder)
            except FileExistsError:
                if not stat.S_ISDIR(os.lstat(folder).st_mode):
                    raise
            self._folders.add(folder)

    def _spend(self) -> None:
        if self._left == 0:
            raise ValueError(f"there are more than {MOST_FILES} files and folders")
        self._left -= 1

    def _make(self, path: str, entry: Mapping[str, Any], info: Mapping[str, Any] | None) -> None:
        place = self._place(path)
        kind = entry.get("type")
        if place is None:
            return
        try:
            self._make_folder(place if kind == "d" else place.rpartition("/")[0])
            if kind == "l" and isinstance(entry.get("target"), str):
                # It leads where it led: inside the shell that is where it leads to.
                self._spend()
                with suppress(FileExistsError):
                    os.symlink(entry["target"], place)
            elif kind == "f" and not os.path.lexists(place):
                self._spend()
                self._fill(path, place, entry, info)
                _dress(place, entry)
            elif kind != "d":
                self.unlike[path] = "it is no file"
        except (OSError, *UNREADABLE) as error:
            self.unlike[path] = str(error)

    def _fill(
        self, path: str, place: str, entry: Mapping[str, Any], info: Mapping[str, Any] | None
    ) -> None:
        size = whole(entry.get("size"))
        handle = os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(handle, "r+b") as file:
            written = 0
            if info is not None and info.get("format") == "qcow2":
                try:
                    written = qcow2.write(file, info)
                except qcow2.UnfaithfulImageError as reason:
                    self.unlike[path] = str(reason)
            elif (text := self._text(path)) is not None:
                written = file.write(text.encode(errors="surrogateescape"))
            elif isinstance(magic := entry.get("magic"), str):
                written = file.write(_magic(magic))
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
        """Return the content of one of nova's two small files, if it stands where nova keeps it and
        has nova's form. Any other content might be a program, or configure one."""
        top, _, name = path.rpartition("/")
        if name == "disk.info":
            top, _, uuid = top.rpartition("/")
            if UUID.fullmatch(re.sub("_(resize|del)$", "", uuid)) is None:
                return None
        elif name != "compute_nodes":
            return None
        if top not in self._tops:
            return None
        try:
            said = self._recording.value("images", f"cat {path}")
        except NotRecordedError:
            return None
        text = said if isinstance(said, str) else json.dumps(said)
        return text if len(text) <= LONGEST_TEXT and _is_flat(text) else None


def _is_flat(text: str) -> bool:
    """Is this a JSON object of texts (disk.info) or of numbers (compute_nodes)?"""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and all(
        isinstance(value, str | int | float) for value in found.values()
    )


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def _dress(place: str, entry: Mapping[str, Any]) -> None:
    """Mode, owner and time. In a user namespace of its own nobody else's files can be made."""
    uid, gid = whole(entry.get("uid")), whole(entry.get("gid"))
    if uid is not None and gid is not None:
        with suppress(OSError, OverflowError):
            os.chown(place, uid, gid)
    mode = entry.get("mode")
    if isinstance(mode, str) and re.fullmatch(r"[0-7]{1,7}", mode):
        # Nothing that was recorded is a program.
        most = 0o1777 if stat.S_ISDIR(os.lstat(place).st_mode) else 0o666
        os.chmod(place, stat.S_IMODE(int(mode, 8)) & most)
    written = entry.get("mtime")
    if isinstance(written, str):
        with suppress(ValueError, OverflowError, OSError):
            since = datetime.fromisoformat(written.replace("Z", "+00:00")) - _EPOCH
            moment = since // _MICROSECOND * 1000  # a float's last digit would be another
            os.utime(place, ns=(moment, moment))


_MAGICS = (b"QFI\xfb", b"KDM", b"COWD", b"vhdxfile", b"conectix", b"LUKS", b"QED", b"<<< ")
"""Magic of the formats whose images begin with letters."""


def _magic(digits: str) -> bytes:
    """The first bytes of an image: of a text none, for it might be a program's."""
    try:
        begin = bytes.fromhex(digits)[:16]
    except ValueError:
        return b""
    is_text = begin[:1].isspace() or 0x20 < (begin or b"\0")[0] < 0x7F
    return b"" if is_text and not begin.startswith(_MAGICS) else begin
