"""Fixtures that all tests share: the recorded cloud, editable in one line."""

from __future__ import annotations

import gc
import json
import os
import random
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from hoodsnap import memory
from hoodsnap.bundle import Answer, Bundle, Failure, dump, load
from hoodsnap.checks.legal_states import LEGAL
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.findings.advice import instructions
from hoodsnap.findings.analysis import Report, analyze
from hoodsnap.findings.finding import Finding

# The time of one example depends more on the machine than on the code.
settings.register_profile("hoodsnap", deadline=None)
settings.load_profile("hoodsnap")

T = TypeVar("T")

ROOT = Path(__file__).parent.parent
HEALTHY = ROOT / "src/hoodsnap/recorded/healthy.json.zst"
MONITORS = ROOT / "fixtures/monitors.json.zst"
CONTROL_GROUPS = ROOT / "fixtures/control-groups.json.zst"
DAEMONS = ROOT / "fixtures/daemons.json.zst"
NOT_SEALED = "needs no namespaces"
"""Part of `hoodsnap shell`'s message if the kernel does not permit a sealed shell."""
FAULTS = ROOT / "fixtures/faults"

SEED = int(os.environ.setdefault("HOODSNAP_SEED", str(random.getrandbits(32))))
"""Seed of the samples that this run takes of laws with hundreds of cases. It is printed, and it
is in the environment because all worker processes must take the same ones."""


def pytest_configure() -> None:
    # A shell that runs the tests in the background lets them ignore Ctrl-C, and their commands too.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    return f"samples: HOODSNAP_SEED={SEED}"


def pytest_collection_finish() -> None:
    # Five thousand collected tests stay until the end: looking through them for garbage takes time.
    gc.collect()
    gc.freeze()


class ByFile(LoadFileScheduling):  # type: ignore[misc] # xdist ships no types
    """Give the tests of a file to one worker, since they share what is slow to make; and all files
    with a real libvirtd to the same one, since two would take each other's ports for consoles. The
    files that wait longest come first, so that no process waits alone at the end."""

    FIRST = (
        "libvirtd",
        "tests/test_nets.py",
        "tests/replay/test_sealed.py",
        "tests/collect/test_rest_api.py",
    )

    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        return "libvirtd" if "libvirtd: Any" in _source(file) else file

    def _assign_work_unit(self, node: object) -> None:
        if first := next((scope for scope in self.FIRST if scope in self.workqueue), None):
            self.workqueue.move_to_end(first, last=False)
        super()._assign_work_unit(node)


@cache
def _source(file: str) -> str:
    return (ROOT / file).read_text()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    return ByFile(config, log)


@pytest.fixture(autouse=True)
def unlimited_memory() -> Iterator[None]:
    """Undo the limit of memory that a command sets: under the one of an earlier test, a thread that
    can't get its stack would never start, and the test would wait for it forever."""
    yield
    memory.forget()


@pytest.fixture
def heeded_hangup() -> Iterator[None]:
    """Let commands heed SIGHUP. Under `nohup` the tests ignore it, and so would their commands."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def sample(cases: Sequence[T], size: int) -> list[T]:
    """Take so many of the cases, other ones in each run, in their order."""
    chosen = random.Random(SEED).sample(range(len(cases)), size)  # noqa: S311
    return [cases[at] for at in sorted(chosen)]


@cache
def healthy() -> Bundle:
    return load(HEALTHY)


@cache
def _monitored() -> Bundle:
    return load(MONITORS)


@cache
def healthy_report() -> Report:
    return analyze(healthy())


REPEATED = {
    "vm_state": "OS-EXT-STS:vm_state",
    "power_state": "OS-EXT-STS:power_state",
    "host": "OS-EXT-SRV-ATTR:host",
    "node": "OS-EXT-SRV-ATTR:hypervisor_hostname",
}
"""Column of an instance → the field of the API's server that repeats it."""


class RecordedHost:
    """A recording, with methods for the smallest edits of it."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def edit(self, layer: str, query: str, old: str, new: str) -> None:
        """Replace one text by another in the answers to one query.

        Each of these answers must contain the old text exactly once.
        """
        edited = 0

        def change(answer: Answer) -> Answer:
            nonlocal edited
            if (answer.layer, answer.query) != (layer, query):
                return answer
            verbatim = isinstance(answer.value, str)
            value = answer.value if verbatim else json.dumps(answer.value)
            assert value.count(old) == 1, f"{query} contains {old!r} {value.count(old)} times"
            edited += 1
            value = value.replace(old, new)
            return _with_value(answer, value if verbatim else json.loads(value))

        self._change(change)
        assert edited, f"{layer} {query!r} was not recorded"

    def set(self, layer: str, query: str, value: object) -> None:
        """Replace the whole answer to one query."""
        asked = [
            answer
            for answer in self.bundle.answers
            if (answer.layer, answer.query) == (layer, query)
        ]
        assert asked, f"{layer} {query!r} was not recorded"
        self._change(lambda answer: _with_value(answer, value) if answer in asked else answer)

    def fail(self, layer: str, query: str, kind: str = "absent", message: str = "absent") -> None:
        """Replace the answers to one query by an error."""
        error = Failure(kind=kind, message=message)
        asked = [one for one in self.bundle.answers if (one.layer, one.query) == (layer, query)]
        assert asked, f"{layer} {query!r} was not recorded"
        self._change(lambda answer: _with_error(answer, error) if answer in asked else answer)

    def take(self, layer: str, query: str, seconds: float) -> None:
        """Set the duration of the answers to one query."""
        self._change(
            lambda answer: (
                answer.model_copy(update={"took": seconds})
                if (answer.layer, answer.query) == (layer, query)
                else answer
            )
        )

    def row(self, table: str, owner: str, **cells: object) -> None:
        """Set cells of a row in every answer that contains it, so that all snapshots agree.

        The API repeats an instance's state and all of a migration, as nova-api does.
        """
        if table == "instances":
            self._repeat(owner, cells)
        elif table == "migrations":
            self._repeat_move(owner, cells)
        self.cells(table, owner, **cells)

    def _repeat(self, uuid: str, cells: Mapping[str, object]) -> None:
        def repeated(server: dict[str, Any]) -> dict[str, Any]:
            new = {key: cells[name] for name, key in REPEATED.items() if name in cells}
            if isinstance(cells.get("updated_at"), str):
                new["updated"] = f"{cells['updated_at']}Z".replace(" ", "T")
            if (legal := LEGAL.get(str(cells.get("vm_state")))) is not None:
                new["status"] = legal.status
            return {**server, **{key: value for key, value in new.items() if key in server}}

        def change(answer: Answer) -> Answer:
            if answer.layer != "nova" or "/servers/" not in answer.query or answer.error:
                return answer
            if "servers" in answer.value:
                servers = [
                    repeated(server) if server.get("id") == uuid else server
                    for server in answer.value["servers"]
                ]
                return _with_value(answer, {**answer.value, "servers": servers})
            server = answer.value.get("server")
            if server is None or server.get("id") != uuid:
                return answer
            return _with_value(answer, {**answer.value, "server": repeated(server)})

        self._change(change)

    def _repeat_move(self, uuid: str, cells: Mapping[str, object]) -> None:
        new = {
            name: f"{cell}.000000".replace(" ", "T") if name.endswith("_at") and cell else cell
            for name, cell in cells.items()
        }

        def change(answer: Answer) -> Answer:
            if answer.layer != "nova" or "/os-migrations" not in answer.query or answer.error:
                return answer
            moves = [
                {**move, **{key: value for key, value in new.items() if key in move}}
                if uuid in (move.get("uuid"), move.get("instance_uuid"))
                else move
                for move in answer.value["migrations"]
            ]
            return _with_value(answer, {**answer.value, "migrations": moves})

        self._change(change)

    def cells(self, table: str, owner: str, **cells: object) -> None:
        """Set cells of a row in every answer of the database, and nothing in the API."""
        edited: set[str] = set()

        def change(answer: Answer) -> Answer:
            if answer.layer != "nova-db" or f".{table}" not in answer.query.replace("`", ""):
                return answer
            if not isinstance(answer.value, dict) or not answer.query.startswith("SELECT"):
                return answer
            columns = answer.value["columns"]
            keys = [name for name in ("uuid", "instance_uuid") if name in columns]
            rows = []
            for row in answer.value["rows"]:
                named = dict(zip(columns, row, strict=True))
                if owner in [named[key] for key in keys]:
                    edited.update(cells.keys() & named.keys())
                    named |= {name: cell for name, cell in cells.items() if name in named}
                rows.append([named[name] for name in columns])
            return _with_value(answer, {"columns": columns, "rows": rows})

        self._change(change)
        assert edited == set(cells), f"{table} has no row of {owner} with {set(cells) - edited}"

    def mapping(self, volume: str, **cells: object) -> None:
        """Set cells of the block device mappings of a volume, in every answer."""
        self.mappings(
            lambda row: [row | _known(row, cells)] if row["volume_id"] == volume else [row]
        )

    def mappings(self, change: Callable[[dict[str, Any]], list[dict[str, Any]]]) -> None:
        """Replace each row of block_device_mapping by any number of rows, in every answer."""

        def edited(answer: Answer) -> Answer:
            shown = ".block_device_mapping" in answer.query.replace("`", "")
            if not shown or not answer.query.startswith("SELECT") or answer.error:
                return answer
            columns = answer.value["columns"]
            rows = [
                new
                for row in answer.value["rows"]
                for new in change(dict(zip(columns, row, strict=True)))
            ]
            cells = [[row[name] for name in columns] for row in rows]
            return _with_value(answer, {"columns": columns, "rows": cells})

        before = self.bundle.answers
        self._change(edited)
        assert [answer.value for answer in before] != [
            answer.value for answer in self.bundle.answers
        ], "no row was changed"

    def cinder(self, change: Callable[[str, dict[str, Any]], dict[str, Any] | None]) -> None:
        """Change the bodies that cinder returned, or remove them (None).

        `change` is called with `volume` or `attachment`, and the body.
        """
        edited = False

        def changed(answer: Answer) -> Answer:
            nonlocal edited
            if answer.layer != "cinder" or answer.error:
                return answer
            value = json.loads(json.dumps(answer.value))
            for name in ("volumes", "attachments"):
                if name in value:
                    bodies = [change(name.removesuffix("s"), body) for body in value[name]]
                    value[name] = [body for body in bodies if body is not None]
            edited = edited or value != answer.value
            return _with_value(answer, value)

        self._change(changed)
        assert edited, "cinder returned no such object"

    def no_longer(self, what: str, uuid: str) -> None:
        """Remove one of cinder's `volumes` or `attachments`, and add the answer that it is gone."""
        self.cinder(lambda name, body: _without(uuid, body))
        self.no_such(what, uuid)

    def no_such(self, what: str, uuid: str) -> None:
        """Add cinder's answer that an object does not exist."""
        asked = self.last("cinder", "GET /v3/os-services [3.70]")
        raw = asked.model_dump(exclude={"error", "value"})
        gone = Failure(kind="absent", message=f"HTTP 404: {uuid} could not be found.")
        raw |= {"query": f"GET /v3/{what}/{uuid} [3.70]", "subject": uuid}
        self.add(Answer(**raw, error=gone))

    def server(self, uuid: str, **fields: object) -> None:
        """Set fields of a server in every answer of the API (`__` in a name stands for `:`)."""
        edited = False

        def change(answer: Answer) -> Answer:
            nonlocal edited
            if answer.layer != "nova" or "/servers/" not in answer.query or answer.error:
                return answer
            value = json.loads(json.dumps(answer.value))
            for server in [*value.get("servers", []), value.get("server", {})]:
                if server.get("id") == uuid:
                    for name, said in fields.items():
                        # Answers of an older microversion have fewer fields.
                        for key in [k for k in server if k.endswith(name.replace("__", ":"))][:1]:
                            server[key] = said
                            edited = True
            return _with_value(answer, value)

        self._change(change)
        assert edited, f"the API did not return {uuid} with {[*fields]}"

    def task(self, name: str, task: str) -> None:
        """Set a guest's task_state, as if nova had just begun the task."""
        clock = self.last("nova-db", "SELECT UTC_TIMESTAMP(6)").value["rows"][0][0]
        self.row("instances", self.uuid(name), task_state=task, updated_at=clock.partition(".")[0])
        self.server(self.uuid(name), task_state=task)

    def folder(self, name: str) -> str:
        """Return the path of a guest's folder in the instances directory."""
        return f"{self.top}/{self.uuid(name)}"

    @property
    def top(self) -> str:
        """The instances directory."""
        [path] = {
            answer.query.removeprefix("find ").removesuffix(" -ls").rstrip("/")
            for answer in healthy().by_layer["images"]
            if answer.query.startswith("find ")
        }
        return path

    def list_files(self, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
        """Change lines of the listing of the instances directory, or remove them (None)."""
        query = f"find {self.top} -ls"
        lines = self.last("images", query).value
        changed = [change(line) for line in lines]
        assert changed != lines, "nothing was changed"
        self.set("images", query, [line for line in changed if line is not None])

    def file(self, path: str, **fields: object) -> None:
        """Set fields of one file in the listing of the instances directory."""
        self.list_files(lambda line: {**line, **fields} if line["path"] == path else line)

    def remove(self, *paths: str) -> None:
        """Remove files, and everything below them, from the listing of the instances directory."""
        self.list_files(
            lambda line: (
                None
                if any(
                    line["path"] == path or line["path"].startswith(f"{path}/") for path in paths
                )
                else line
            )
        )

    def image(self, path: str, change: Callable[[list[dict[str, Any]]], object]) -> None:
        """Change qemu-img's answers about an image: the chain, with the image first."""
        edited = 0

        def edit(answer: Answer) -> Answer:
            nonlocal edited
            asked = answer.query.startswith("qemu-img info ") and "--output=json" in answer.query
            if not asked or answer.subject != path or answer.error is not None:
                return answer
            value = json.loads(json.dumps(answer.value))
            change(value if isinstance(value, list) else [value])
            edited += value != answer.value
            return _with_value(answer, value)

        self._change(edit)
        assert edited, f"no answer of qemu-img about {path} was changed"

    def hold(self, name: str, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
        """Change the open files of a guest's QEMU, or close them (None)."""
        query = f"ls -lL /proc/{self.pid(name)}/fd"
        files = self.last("kernel", query).value
        changed = [change(file) for file in files]
        assert changed != files, "nothing was changed"
        self.set("kernel", query, [file for file in changed if file is not None])

    def conf(self, section: str, **options: str) -> None:
        """Set options of nova.conf."""
        conf = self.last("host", "/etc/nova/nova.conf").value
        changed = {**conf, section: {**conf.get(section, {}), **options}}
        self.set("host", "/etc/nova/nova.conf", changed)

    def contain(self, name: str) -> None:
        """Move a guest's QEMU into a container: with another root file system, and with open files
        on yet another file system."""
        pid = self.pid(name)
        [answer] = [
            answer
            for answer in self.bundle.by_layer["kernel"]
            if answer.query.endswith(f"/proc/{pid}/mountinfo")
        ]
        lines = [line.split(" ") for line in answer.value.splitlines()]
        lines = [[*line[:2], "0:99", *line[3:]] if line[4] == "/" else line for line in lines]
        self.set("kernel", answer.query, "".join(" ".join(line) + "\n" for line in lines))
        self.hold(name, lambda file: file | {"dev": "0:98", "ino": file["ino"] + (1 << 32)})

    def port(self, uuid: str, **fields: object) -> None:
        """Set fields of a port in every answer of neutron (`__` in a name stands for `:`)."""
        self._set_item("neutron", "/ports?", "ports", "id", uuid, fields)

    def binding(self, uuid: str, **fields: object) -> None:
        """Set fields of a port's only binding, and of the port, which repeats them."""
        query = f"GET /v2.0/ports/{uuid}/bindings"
        [bound] = self.last("neutron", query).value["bindings"]
        self.set("neutron", query, {"bindings": [bound | fields]})
        self.port(uuid, **{f"binding__{name}": value for name, value in fields.items()})

    def unlist(self, uuid: str) -> None:
        """Remove a port from neutron."""

        def change(answer: Answer) -> Answer:
            if answer.layer != "neutron" or "/ports?" not in answer.query:
                return answer
            kept = [port for port in answer.value["ports"] if port["id"] != uuid]
            return _with_value(answer, {**answer.value, "ports": kept})

        self._change(change)

    def unplug(self, name: str) -> None:
        """Remove a guest's ports, and their taps from the host."""
        for port in self.ports(name):
            tap = f"tap{port['id'][:11]}"
            self.unlist(port["id"])
            self.unlink(tap)
            self.switch("Interface", tap, name="another")

    def link(self, name: str, **fields: object) -> None:
        """Set fields of a network device in the output of `ip link`."""
        rows = self.last("network", "ip -d -j link").value
        assert name in [row["ifname"] for row in rows]
        changed = [row | fields if row["ifname"] == name else row for row in rows]
        self.set("network", "ip -d -j link", changed)

    def unlink(self, name: str) -> None:
        """Remove a network device from the output of `ip link`."""
        rows = self.last("network", "ip -d -j link").value
        kept = [row for row in rows if row["ifname"] != name]
        assert len(kept) == len(rows) - 1
        self.set("network", "ip -d -j link", kept)

    def switch(self, table: str, name: str, /, **cells: object) -> None:
        """Set cells of a row of Open vSwitch, in its JSON notation."""
        query = next(
            answer.query
            for answer in self.bundle.by_layer["network"]
            if answer.query.endswith(f" list {table}")
        )
        value = json.loads(json.dumps(self.last("network", query).value))
        row = next(row for row in value["data"] if name in row)
        for column, cell in cells.items():
            if column not in value["headings"]:  # it was collected later than this recording
                value["headings"].append(column)
                for other in value["data"]:
                    other.append(["set", []])
            row[value["headings"].index(column)] = cell
        self.set("network", query, value)

    def _set_item(
        self, layer: str, part: str, name: str, key: str, item: str, fields: dict[str, object]
    ) -> None:
        edited = False

        def change(answer: Answer) -> Answer:
            nonlocal edited
            if answer.layer != layer or part not in answer.query or answer.error:
                return answer
            value = json.loads(json.dumps(answer.value))
            for found in value.get(name, []):
                if found.get(key) == item:
                    edited = True
                    found |= {field.replace("__", ":"): said for field, said in fields.items()}
            return _with_value(answer, value)

        self._change(change)
        assert edited, f"no list contains {item}"

    def drop(self, keep: Callable[[Answer], bool]) -> None:
        """Remove the answers for which `keep` is false."""
        answers = tuple(answer for answer in self.bundle.answers if keep(answer))
        assert len(answers) < len(self.bundle.answers), "nothing was dropped"
        self.bundle = self.bundle.with_answers(answers)

    def end(self, name: str) -> None:
        """Remove a guest's QEMU process, and its locks."""
        pid = self.pid(name)
        files = self.last("kernel", f"ls -lL /proc/{pid}/fd").value
        own = {f":{file['ino']} " for file in files if int(file["flags"], 8) & os.O_RDWR}
        locks = self.last("kernel", "/proc/locks").value.splitlines(keepends=True)
        left = [line for line in locks if not any(inode in line for inode in own)]
        self.set("kernel", "/proc/locks", "".join(left))
        listed = self.last("kernel", "ls -l /proc/*/exe").value
        self.set("kernel", "ls -l /proc/*/exe", [line for line in listed if line["pid"] != pid])
        self.drop(lambda answer: not (answer.layer == "kernel" and answer.subject == str(pid)))

    def silence(self, layer: str, kind: str = "unreachable") -> None:
        """Replace every answer of a layer by an error, as if the layer had not answered."""

        def change(answer: Answer) -> Answer:
            if answer.layer != layer:
                return answer
            return _with_error(answer, Failure(kind=kind, message="no answer"))

        self._change(change)

    def add(self, answer: Answer) -> None:
        """Add an answer."""
        self.bundle = self.bundle.with_answers((*self.bundle.answers, answer))

    def last(self, layer: str, query: str) -> Answer:
        found = self.bundle.last(layer, query)
        assert found is not None, f"{layer} {query!r} was not recorded"
        return found

    def guest(self, name: str) -> Guest:
        """Return a guest of the unedited recording."""
        found = [guest for guest in healthy_report().cloud.guests if guest.name == name]
        assert len(found) == 1, f"{len(found)} guests are called {name}"
        return found[0]

    def uuid(self, name: str) -> str:
        return self.guest(name).uuid

    def volume(self, name: str) -> tuple[str, str]:
        """Return the ids of a guest's only volume and of its attachment."""
        instance = self.guest(name).instance
        assert instance is not None
        [mapping] = [row for row in instance.mappings if row.volume_id]
        assert mapping.volume_id is not None and mapping.attachment_id is not None
        return mapping.volume_id, mapping.attachment_id

    def domain(self, name: str) -> str:
        domain = self.guest(name).domain
        assert domain is not None
        return domain.name

    def pid(self, name: str) -> int:
        process = self.guest(name).process
        assert process is not None
        return process.pid

    def ports(self, name: str) -> list[dict[str, Any]]:
        """Return a guest's ports, as neutron lists them."""
        return [dict(port.raw) for port in self.guest(name).ports or ()]

    def report(self) -> Report:
        return analyze(self.bundle)

    def findings(self) -> list[str]:
        """Return the findings of the whole catalog, each with check, guest and evidence.

        `folded` returns the findings that these explain.
        """
        return [shown(finding) for finding in self.report().findings]

    def found(self, check: str) -> Finding:
        """Return the only finding of a check, at the top or folded."""
        everything = [it for top in self.report().findings for it in top.everything()]
        [finding] = [it for it in everything if it.check.name == check]
        return finding

    def headlines(self) -> list[str]:
        """Return the headlines of all findings of the whole catalog, folded ones included."""
        return [finding.headline for finding in self.report().everything()]

    def folded(self) -> list[str]:
        """Return the folded findings: `root ← check of guest: evidence`."""
        return [line for finding in self.report().findings for line in explained(finding)]

    def _change(self, change: Callable[[Answer], Answer]) -> None:
        answers = tuple(map(change, self.bundle.answers))
        self.bundle = self.bundle.with_answers(answers)


def changes(finding: Finding) -> list[str]:
    """Return the commands of a finding's advice that change something, with its values."""
    commands = [command for step in instructions(finding) for command in step.commands]
    return [command.text for command in commands if command.changes]


def shown(finding: Finding) -> str:
    guest = f" of {finding.guest.name or finding.guest.uuid}" if finding.guest else ""
    if finding.shared is not None:
        guest = f" of {len(finding.shared.guests)} guests of {finding.host}"
    said = "; ".join(str(evidence) for evidence in finding.evidence)
    return f"{finding.check.name}{guest}: {said}"


def explained(finding: Finding) -> list[str]:
    """Return everything that is folded under a finding."""
    return [
        f"{finding.check.name} ← {shown(one)}" for one in finding.everything() if one is not finding
    ]


def _known(row: dict[str, Any], cells: dict[str, Any]) -> dict[str, Any]:
    return {name: cell for name, cell in cells.items() if name in row}


def _without(uuid: str, body: dict[str, Any]) -> dict[str, Any] | None:
    if body["id"] == uuid:
        return None
    shown = body.get("attachments", [])
    left = [entry for entry in shown if entry["attachment_id"] != uuid]
    return body | {"attachments": left} if "attachments" in body else body


def _with_value(answer: Answer, value: Any) -> Answer:
    raw = answer.model_dump(exclude={"error", "value"})
    return Answer(**raw, value=value)


def _with_error(answer: Answer, error: Failure) -> Answer:
    raw = answer.model_dump(exclude={"error", "value"})
    return Answer(**raw, error=error)


@pytest.fixture
def host() -> RecordedHost:
    """The healthy recording, fresh for each test."""
    return RecordedHost(healthy())


@pytest.fixture
def monitored() -> RecordedHost:
    """The healthy recording that has its guests' monitors, fresh for each test."""
    return RecordedHost(_monitored())


@pytest.fixture
def grouped() -> RecordedHost:
    """The healthy recording with the guests' control groups, fresh for each test."""
    return RecordedHost(load(CONTROL_GROUPS))


@pytest.fixture
def served() -> RecordedHost:
    """The healthy recording with the host's daemons, fresh for each test."""
    return RecordedHost(load(DAEMONS))


@pytest.fixture(scope="session")
def recorded() -> bytes:
    """A real bundle, as JSON."""
    return dump(healthy())


@pytest.fixture(scope="session")
def corpus() -> Path:
    """Folder with data of other projects. Tests that need it are skipped without it."""
    folder = Path(os.environ.get("HOODSNAP_CORPUS", ROOT.parent / "shared/corpus"))
    if not folder.is_dir():
        pytest.skip("the corpus is missing (set HOODSNAP_CORPUS)")
    return folder


@pytest.fixture
def cloud() -> Iterator[Path]:
    """State folder of the running lab. Tests that need it are skipped without it."""
    state = Path(os.environ.get("LAB_STATE", "/var/lib/hoodlab"))
    if os.geteuid() != 0 or not (state / "clouds.yaml").exists():
        pytest.skip("root and the lab are required (make lab)")
    yield state
