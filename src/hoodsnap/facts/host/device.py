"""A host's block devices, and how volumes are attached to it."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

from hoodsnap.bundle import Answer
from hoodsnap.facts.fact import Documented, Fact, UnheardError, caught, text, unheard, value_of
from hoodsnap.facts.layer import BLOCK, Layer
from hoodsnap.facts.quantity import whole

LIST = BLOCK.census_query

SESSIONS = "iscsiadm -m session -P 3"

MAPS = "multipathd show maps json"

LOOPS = "losetup --json --list"

FAULTY = "faulty"
"""Word of multipath's checker for a path that does not work."""

DEEPEST = 64
"""Longest stack of devices that is followed; lsblk shows far fewer."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Device(Fact):
    """One block device, as reported by lsblk."""

    layer: ClassVar[Layer] = BLOCK
    noun: ClassVar[str] = "device"
    raw: Mapping[str, object]
    parents: tuple[str, ...]
    """Kernel names of the devices that it is built on."""
    children: tuple[str, ...]
    """Kernel names of the devices that are built on it."""

    places: ClassVar[Mapping[str, tuple[str, str]]] = {
        "number": ("list", "maj:min"),
        "read_only": ("list", "ro"),
    }

    documented: ClassVar[Documented] = (*("name", "kname", "number", "type", "size"),)

    def where(self, name: str) -> tuple[Answer | None, str]:
        """Return the answer and the place in it; the place starts with the kernel name."""
        answer, place = super().where(name)
        return answer, f"{self.raw.get('kname')}.{place}"

    @property
    def kname(self) -> str:
        """Kernel name: `sdb`, `dm-3`."""
        return text(self.raw, "kname") or ""

    @property
    def name(self) -> str:
        """Device mapper name; the kernel name if the device has none."""
        return text(self.raw, "name") or ""

    @property
    def number(self) -> str:
        """Major and minor number: `8:16`."""
        return text(self.raw, "maj:min") or ""

    @property
    def type(self) -> str:
        """Device type: `disk`, `part`, `mpath`, `crypt`, `lvm`, `loop` …"""
        return text(self.raw, "type") or ""

    @property
    def size(self) -> int:
        """Size in bytes."""
        # Before util-linux 2.33 every value is a string.
        size = whole(self.raw.get("size"))
        return size if size is not None else unheard("lsblk: a size can't be read")

    @property
    def read_only(self) -> bool:
        """True if the kernel refuses writes to the device."""
        # Before util-linux 2.33 every value is a string.
        return self.raw.get("ro") in (True, 1, "1")

    @property
    def wwn(self) -> str | None:
        """Identifier that the storage assigned to the LUN; the same on every path to it."""
        return text(self.raw, "wwn")

    @property
    def state(self) -> str | None:
        """State of a SCSI disk: `running`, `offline`, `blocked` …; None of other devices."""
        return text(self.raw, "state") if "state" in self.raw else None

    @property
    def mountpoints(self) -> tuple[str, ...]:
        """Mount points on the host itself: folders, or `[SWAP]`."""
        points = self.raw.get("mountpoints", [self.raw.get("mountpoint")])
        if not isinstance(points, list):
            raise UnheardError("lsblk: the mount points can't be read")
        return tuple(point for point in points if isinstance(point, str))


class Session(NamedTuple):
    """One iSCSI session of this host, and its disks."""

    target: str
    """Target name (IQN), lower case."""
    portal: str | None
    """`10.0.0.5:3260`."""
    disks: tuple[tuple[int, str], ...]
    """LUN and kernel name of each disk."""
    state: str | None = None
    """`LOGGED_IN`, or `FAILED` or `FREE` while it has no connection; None if not reported."""


class Map(NamedTuple):
    """One multipath map."""

    name: str
    wwid: str
    kname: str
    """`dm-3`."""
    paths: tuple[tuple[str, bool], ...]
    """Kernel name of each path; True if the path works."""


class Mount(NamedTuple):
    """One line of mountinfo."""

    folder: str
    number: str
    """`major:minor` of the file system."""
    type: str
    """`nfs4`, `ext4` …"""
    source: str
    """`10.0.0.5:/volumes`, `/dev/vda`."""
    read_only: bool = False
    """True if nothing can be written through this mount."""
    read_only_system: bool = False
    """True if nothing can be written through any mount of the file system: it was mounted like
    this, or an error made it so."""


class LogicalVolume(NamedTuple):
    """One logical volume of LVM."""

    name: str
    group: str
    path: str | None
    size: int | None
    """Bytes."""


class Devices:
    """All block devices of one host."""

    def __init__(self, answers: Iterable[Answer], mountinfo: Answer | None) -> None:
        self.said: dict[str, Answer] = {answer.query: answer for answer in answers}
        self._mountinfo = mountinfo

    @cached_property
    def by_name(self) -> Mapping[str, Device]:
        """Kernel name → device."""
        found = self._by_name
        if isinstance(found, UnheardError):
            raise UnheardError(str(found))
        return found

    @cached_property
    def _by_name(self) -> Mapping[str, Device] | UnheardError:
        try:
            body = value_of(self.said.get(LIST), "lsblk", dict[str, list[dict[str, object]]])
            return _devices(body.get("blockdevices", []), self.said[LIST])
        except UnheardError as reason:
            return reason

    def find(self, path: str) -> Device | None:
        """Return the device at a path; None if no listed device has this path."""
        return self.by_name.get(self._names.get(path, ""))

    @cached_property
    def _names(self) -> Mapping[str, str]:
        """Path → kernel name."""
        found: dict[str, str] = {}
        for device in self.by_name.values():
            kname = device.kname
            found[f"/dev/{kname}"] = kname
            found[f"/dev/mapper/{device.name}"] = kname
        for folder in ("/dev/disk/by-path", "/dev/disk/by-id"):
            for name, target in self._links(folder).items():
                # The link of a volume that the host encrypts leads to a name of device mapper.
                found[f"{folder}/{name}"] = found.get(f"/dev/mapper/{target}", target)
        for volume in self.logical_volumes_shown:
            # Device mapper names double the hyphens within each part.
            name = f"{volume.group.replace('-', '--')}-{volume.name.replace('-', '--')}"
            if volume.path is not None and (kname := found.get(f"/dev/mapper/{name}", "")):
                found[volume.path] = kname
        return found

    def _links(self, folder: str) -> Mapping[str, str]:
        """Return name → kernel name for the links in a folder; empty if it was not collected."""
        try:
            links = value_of(self.said.get(f"ls -l {folder}"), folder, dict[str, str])
        except Exception as error:
            caught(error)
            return {}
        return {name: posixpath.basename(target) for name, target in links.items()}

    def reached(self, target: str, lun: int) -> frozenset[str]:
        """Return the kernel names of the disks for an iSCSI target and LUN; empty if unknown."""
        ending = f"-iscsi-{target}-lun-{lun}"
        links = self._links("/dev/disk/by-path")
        found = {kname for name, kname in links.items() if name.lower().endswith(ending)}
        try:
            sessions = self.sessions
        except Exception as error:
            caught(error)
            sessions = ()
        for session in sessions:
            if session.target == target:
                found |= {kname for number, kname in session.disks if number == lun}
        return frozenset(found)

    def below(self, device: Device) -> frozenset[str]:
        """Return the kernel names of the disks at the bottom of a device's stack; its own name if
        it is built on no other device."""
        found, layer = set(), {device.kname}
        for _ in range(DEEPEST):
            parents: set[str] = set()
            for name in layer:
                lower = self.by_name[name].parents if name in self.by_name else ()
                parents.update(lower)
                if not lower:
                    found.add(name)
            if not (layer := parents):
                break
        return frozenset(found)

    def above(self, device: Device) -> Iterator[Device]:
        """Yield the device and every device that is built on it."""
        seen: set[str] = set()
        waiting = [device]
        while waiting:
            current = waiting.pop()
            if current.kname not in seen:
                seen.add(current.kname)
                yield current
                names = current.children
                waiting += [self.by_name[name] for name in names if name in self.by_name]

    @cached_property
    def sessions(self) -> tuple[Session, ...]:
        """iSCSI sessions in which this host is the initiator."""
        answer = self.said.get(SESSIONS)
        return () if _is_none(answer) else tuple(_sessions(value_of(answer, SESSIONS, str)))

    @cached_property
    def maps(self) -> tuple[Map, ...]:
        """Multipath maps, from multipathd or, without its answer, from `multipath -ll`."""
        answer, plain = self.said.get(MAPS), self.said.get("multipath -ll")
        if answer is not None and answer.error is None:
            return tuple(_maps(value_of(answer, MAPS, dict[str, object])))
        if _is_none(plain):
            return ()
        return tuple(_maps_of_text(value_of(plain, "multipath -ll", str)))

    @cached_property
    def logical_volumes(self) -> tuple[LogicalVolume, ...]:
        """Logical volumes of LVM."""
        answer = next((found for query, found in self.said.items() if query[:4] == "lvs "), None)
        if _is_none(answer):
            return ()
        body = value_of(answer, "lvs", dict[str, list[dict[str, list[dict[str, object]]]]])
        lines = (line for part in body.get("report", []) for line in part.get("lv", []))
        return tuple(_logical_volume(line) for line in lines)

    @property
    def logical_volumes_shown(self) -> tuple[LogicalVolume, ...]:
        """Logical volumes; empty if they were not collected."""
        try:
            return self.logical_volumes
        except Exception as error:
            caught(error)
            return ()

    @cached_property
    def loops(self) -> Mapping[str, str]:
        """Kernel name of each loop device → its file."""
        return {name: file for name, file, _ in self._loops}

    @cached_property
    def writable_loops(self) -> Mapping[str, str]:
        """Kernel name of each loop device that can be written to → its file."""
        return {name: file for name, file, writable in self._loops if writable}

    @property
    def _loops(self) -> list[tuple[str, str, bool]]:
        """Kernel name and file of each loop device; True if it can be written to."""
        answer = self.said.get(LOOPS)
        if _is_none(answer):
            return []
        body = value_of(answer, "losetup", dict[str, list[dict[str, object]]])
        return [
            (
                posixpath.basename(text(loop, "name") or ""),
                text(loop, "back-file") or "",
                # Before util-linux 2.33 every value is a string.
                loop.get("ro") in (False, 0, "0"),
            )
            for loop in body.get("loopdevices", [])
        ]

    @cached_property
    def mounts(self) -> tuple[Mount, ...]:
        """Mounts in order; a later mount covers earlier ones."""
        return read_mounts(value_of(self._mountinfo, "/proc/self/mountinfo", str))

    def mount_of(self, path: str) -> Mount | None:
        """Return the mount that contains a path; None if no listed mount does."""
        return mount_of(path, self.mounts)


def _is_none(answer: Answer | None) -> bool:
    """True if the answer is that the object does not exist."""
    return answer is not None and answer.error is not None and answer.error.kind == "absent"


def _devices(lines: list[dict[str, object]], answer: Answer) -> Mapping[str, Device]:
    raw: dict[str, Mapping[str, object]] = {}
    parents: dict[str, dict[str, None]] = {}
    children: dict[str, dict[str, None]] = {}
    waiting: list[tuple[dict[str, object], str | None]] = [(line, None) for line in lines]
    while waiting:
        line, parent = waiting.pop()
        name = text(line, "kname") or ""
        raw[name] = line
        if parent is not None:  # lsblk repeats a multipath map under each of its paths
            parents.setdefault(name, {})[parent] = None
            children.setdefault(parent, {})[name] = None
        below = line.get("children", [])
        if not isinstance(below, list) or not all(isinstance(child, dict) for child in below):
            raise UnheardError("lsblk: the devices can't be read")
        waiting += [(child, name) for child in below]
    return {
        name: Device(
            raw=line,
            parents=tuple(parents.get(name, ())),
            children=tuple(children.get(name, ())),
            said={"list": answer},
        )
        for name, line in raw.items()
    }


def _sessions(printed: str) -> Iterator[Session]:
    for part in re.split(r"^Target: ", printed, flags=re.MULTILINE)[1:]:
        target = part.split(maxsplit=1)[0].lower()
        for session in re.split(r"^[ \t]+Current Portal: ", part, flags=re.MULTILINE)[1:]:
            portal = session.splitlines()[0].partition(",")[0].strip()
            disks, lun, state = [], None, None
            for line in session.splitlines():
                if found := re.search(r"\biSCSI Session State: (\S+)", line):
                    state = found[1]
                elif found := re.search(r"\bLun: (\d+)\s*$", line):
                    lun = whole(found[1])
                elif (found := re.search(r"Attached scsi disk (\S+)", line)) and lun is not None:
                    disks.append((lun, found[1]))
            yield Session(target, portal, tuple(disks), state)


def _maps(body: Mapping[str, object]) -> Iterator[Map]:
    for raw in _dicts(body.get("maps")):
        paths = [
            (
                text(path, "dev") or "",
                text(path, "dm_st") != "failed" and path.get("chk_st") != FAULTY,
            )
            for group in _dicts(raw.get("path_groups"))
            for path in _dicts(group.get("paths"))
        ]
        names = (text(raw, "name") or "", text(raw, "uuid") or "", text(raw, "sysfs") or "")
        yield Map(*names, tuple(paths))


_MAP = re.compile(r"^(?P<name>\S+) (?:\((?P<wwid>\S+)\) )?(?P<kname>dm-\d+)\b")
_PATH = re.compile(
    r"^[ |`+'-]*[\d#]+:[\d#]+:[\d#]+:[\d#]+ +(?P<dev>\S+) +\S+ +(?P<state>\S+)"
    r"(?: +(?P<checked>\S+))?"
)


def _maps_of_text(printed: str) -> Iterator[Map]:
    current: re.Match[str] | None = None
    paths: list[tuple[str, bool]] = []
    for line in [*printed.splitlines(), ""]:
        found = _MAP.match(line)
        if (found or not line) and current is not None:
            wwid = current["wwid"] or current["name"]
            yield Map(current["name"], wwid, current["kname"], tuple(paths))
            current, paths = None, []
        if found:
            current = found
        elif path := _PATH.match(line):
            works = path["state"] != "failed" and path["checked"] != FAULTY
            paths.append((path["dev"], works))


def _dicts(value: object) -> list[Mapping[str, object]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise UnheardError("multipathd: the maps can't be read")
    return value


def _logical_volume(line: Mapping[str, object]) -> LogicalVolume:
    size = text(line, "lv_size") or ""
    return LogicalVolume(
        name=text(line, "lv_name") or "",
        group=text(line, "vg_name") or "",
        path=text(line, "lv_path") or None,
        size=whole(size.removesuffix("B")),
    )


def read_mounts(mountinfo: str) -> tuple[Mount, ...]:
    """Read proc(5)'s mountinfo; lines of another form are left out."""
    return tuple(mount for line in mountinfo.splitlines() if (mount := _mount(line)) is not None)


def mount_of(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """Return the mount that contains a path; None if no listed mount does."""
    found = None
    for mount in mounts:
        inside = mount.folder == "/" or path.startswith(f"{mount.folder}/")
        if inside and (found is None or len(mount.folder) >= len(found.folder)):
            found = mount
    return found


def _mount(line: str) -> Mount | None:
    """Read one line of proc(5)'s mountinfo; None if it has another form."""
    before, separator, after = line.partition(" - ")
    fields, rest = before.split(" "), after.split(" ")
    if not separator or len(fields) < 6 or len(rest) < 2:
        return None
    own = "ro" in fields[5].split(",")
    system = "ro" in (rest[2].split(",") if len(rest) > 2 else ())
    return Mount(
        *(_unescaped(fields[4]), fields[2], rest[0], _unescaped(rest[1])),
        read_only=own or system,
        read_only_system=system,
    )


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)
