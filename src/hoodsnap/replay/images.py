"""Disk images of a recorded host as files with the recorded names, sizes, owners and headers.

The contents of the disks were not recorded, so the files are sparse and as empty as a new disk.
`qemu-img info` and `ls -l` show the same for them as for the originals.
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

from hoodsnap.facts.clock import moment
from hoodsnap.facts.quantity import whole
from hoodsnap.facts.uuids import UUID
from hoodsnap.keep.save_header import COMPLETE, SIZE, header_of
from hoodsnap.replay import qcow2
from hoodsnap.replay.recording import UNREADABLE, NotRecordedError, Recording

PLACES = ("/var/lib", "/opt", "/srv", "/mnt", "/media", "/data", "/exports")
"""Folders below which images are restored at their recorded paths. A recording has no influence on
any other place in a shell."""

_BELOW = tuple(f"{place}/" for place in PLACES)

BUDGET = 256 << 20
"""Bytes of memory that may be allocated to make `disk size` right. Beyond them it is too small."""

MOST_FILES = 100_000
"""Largest number of files and folders. A host has about five for each guest."""

LONGEST_TEXT = 1 << 16
"""Largest number of characters in disk.info or compute_nodes."""

DEEPEST = 32
"""Largest number of folders above a file."""

PAGE = 4096

_SAVES = "/var/lib/libvirt/qemu/save/"

_INFO = re.compile(r"qemu-img info -U (?:--backing-chain )?--output=json .*")


class Images:
    """The images of one recorded host, to be created below a folder.

    `reserved`: folders that are needed for other things, in which nothing is created.
    """

    def __init__(self, recording: Recording, root: Path, reserved: Collection[str] = ()) -> None:
        self._recording = recording
        self._root = root
        self._top = os.fspath(root)
        self._reserved = tuple(f"{folder.rstrip('/')}/" for folder in reserved)
        self._budget = BUDGET
        self._left = MOST_FILES
        self._folders: set[str] = set()
        """Folders created by this object; none of them is a link."""
        self._places: dict[str, str | None] = {}
        self._tops = {
            answer.query.removeprefix("find ").removesuffix(" -ls").rstrip("/")
            for answer in recording.asked("images", "find ")
        }
        """Paths of the recorded instances directories."""
        self.unlike: dict[str, str] = {}
        """Reasons by path, for files that could not be restored as they were."""
        self.covered: dict[str, None] = {}
        """Reserved folders in which something was recorded, in the order of the recording."""

    @property
    def is_cut_off(self) -> bool:
        """True if the limit on files and folders was reached."""
        return self._left == 0

    def make(self) -> None:
        """Create the files and folders, in time proportional to their number."""
        os.makedirs(self._top, exist_ok=True)
        entries = {entry["path"]: entry for entry in self._entries()}
        infos = self._infos()
        links = [path for path, entry in entries.items() if entry.get("type") == "l"]
        for path in sorted(entries.keys() - set(links)):
            self._make(path, entries[path], infos.get(path))
        for path in sorted(infos.keys() - entries.keys()):
            self._make(path, {"type": "f"}, infos[path])
        # Links come last, so that nothing is created through one of them.
        for path in sorted(links):
            self._make(path, entries[path], None)
        # Folders come after their contents, because creating an entry changes a folder's times.
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
                            continue  # a folder on the path to the images
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
                # The same file may be reported as raw in one chain, and as qcow2 in another.
                if info.get("format") == "qcow2" or info["filename"] not in found:
                    found[info["filename"]] = info
        return found

    def _place(self, path: str) -> str | None:
        """Return the place below the root for a recorded path; None if it must not be created."""
        if path not in self._places:
            parts = [part for part in path.split("/") if part not in ("", ".")]
            plain = "/" + "/".join(parts)
            is_safe = path.startswith("/") and path.isprintable() and ".." not in parts
            place = None
            if not is_safe or len(parts) >= DEEPEST or not plain.startswith(_BELOW):
                self.unlike[path] = "images are not restored in this folder"
            elif reserved := next((x for x in self._reserved if f"{plain}/".startswith(x)), None):
                self.unlike[path] = "programs of this machine are in this folder"
                self.covered.setdefault(reserved.rstrip("/"))
            else:
                place = self._top + plain
            self._places[path] = place
        return self._places[path]

    def _make_folder(self, place: str) -> None:
        """Create a folder and its parents, each once.

        Raises `OSError` if one of them is a file, and `ValueError` if there are too many folders.
        """
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
                # Keep the recorded target: the link is only followed inside the shell.
                self._spend()
                with suppress(FileExistsError):
                    os.symlink(entry["target"], place)
            elif kind == "f" and not os.path.lexists(place):
                self._spend()
                self._fill(path, place, entry, info)
                _dress(place, entry)
            elif kind != "d":
                self.unlike[path] = "it is not a file"
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
            elif path.startswith(_SAVES):
                written = file.write(self._save_header(path)[: size or 0])
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
        """Allocate as much space for a file as it used when recorded, within the budget."""
        used = os.fstat(handle).st_blocks * 512
        if wanted - used > self._budget:
            self.unlike[path] = "its disk size is less than recorded, to save memory"
            return
        self._budget -= max(wanted - used, 0)
        # Allocate from the end, because the beginning is already written.
        end = -(-size // PAGE) * PAGE
        while used < wanted and end > 0:
            start = max(0, end - (wanted - used + PAGE - 1) // PAGE * PAGE)
            os.posix_fallocate(handle, start, end - start)
            end = start
            used = os.fstat(handle).st_blocks * 512
        os.ftruncate(handle, size)

    def _save_header(self, path: str) -> bytes:
        """Return the header of a file with saved memory.

        Older collectors did not ask for it, and nothing shows that such a file was damaged.
        """
        try:
            fields = self._recording.value("images", f"head -c {SIZE} {path}")
        except NotRecordedError:
            fields = None
        return header_of(fields if isinstance(fields, dict) else {"magic": COMPLETE})

    def _text(self, path: str) -> str | None:
        """Return the content of disk.info or compute_nodes, if path and content have nova's form.

        Any other content might be a program, or the configuration of one.
        """
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
            content = self._recording.value("images", f"cat {path}")
        except NotRecordedError:
            return None
        text = content if isinstance(content, str) else json.dumps(content)
        return text if len(text) <= LONGEST_TEXT and _is_flat(text) else None


def _is_flat(text: str) -> bool:
    """True if this is a JSON object of strings (disk.info) or of numbers (compute_nodes)."""
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
    """Set mode, owner and time. The owner can't be set in a user namespace with a single user."""
    uid, gid = whole(entry.get("uid")), whole(entry.get("gid"))
    if uid is not None and gid is not None:
        with suppress(OSError, OverflowError):
            os.chown(place, uid, gid)
    mode = entry.get("mode")
    if isinstance(mode, str) and re.fullmatch(r"[0-7]{1,7}", mode):
        # Recorded files are never executable.
        most = 0o1777 if stat.S_ISDIR(os.lstat(place).st_mode) else 0o666
        os.chmod(place, stat.S_IMODE(int(mode, 8)) & most)
    written = moment(entry.get("mtime"))
    if written is not None:
        with suppress(OverflowError, OSError):
            since = (written - _EPOCH) // _MICROSECOND * 1000  # a float would be rounded
            os.utime(place, ns=(since, since))


_MAGICS = (b"QFI\xfb", b"KDM", b"COWD", b"vhdxfile", b"conectix", b"LUKS", b"QED", b"<<< ")
"""Magic numbers of the image formats that begin with letters."""


def _magic(digits: str) -> bytes:
    """Return the first bytes of an image; empty if they look like text, which may be a program."""
    try:
        begin = bytes.fromhex(digits)[:16]
    except ValueError:
        return b""
    is_text = begin[:1].isspace() or 0x20 < (begin or b"\0")[0] < 0x7F
    return b"" if is_text and not begin.startswith(_MAGICS) else begin
