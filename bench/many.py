"""Bundles with any number of guests, made from a recorded one.

Each clone has its own UUID, name, row id, PID, console and volumes; the rest is as recorded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.facts.api.port import PREFIX
from hoodsnap.facts.cloud.cloud import read
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.database.tables import SELECT
from hoodsnap.facts.host.hypervisor import LISTENERS
from hoodsnap.facts.host.tap import NAME
from hoodsnap.facts.uuids import UUID

SAVES = "/var/lib/libvirt/qemu/save"

STEP = 100_000
"""Number added to every row id and PID per round, so that clones don't collide with originals."""

SIZES = frozenset(["vcpus", "memory_mb", "local_gb"])
"""Resources of a compute node, in nova's database and its API."""

FIRST_PORT = 6000
"""First port for the clones' consoles, above those of the recorded guests."""


@dataclass(frozen=True)
class Clone:
    """One guest's new identity."""

    swaps: tuple[tuple[str, str], ...]
    """Texts of the recorded guest and their replacements in the clone, longest first."""
    pid: tuple[int, int] | None
    row: tuple[int, int]
    ports: tuple[tuple[int, int], ...]
    """Console ports: recorded and new."""

    def text(self, said: str) -> str:
        """Return a text about the recorded guest as a text about the clone."""
        for old, new in self.swaps:
            said = said.replace(old, new)
        return said

    def value(self, said: Any) -> Any:
        """Return a JSON value about the recorded guest as a value about the clone."""
        return json.loads(self.text(json.dumps(said)))


def many(bundle: Bundle, count: int) -> Bundle:
    """Return the bundle with clones of its guests, `count` guests in total."""
    cloud = read(bundle)
    guests = [guest for guest in cloud.guests if guest.host and guest.instance and guest.domain]
    clones: dict[str, list[Clone]] = {guest.uuid: [] for guest in guests}
    for number in range(count - len(cloud.guests)):
        guest = guests[number % len(guests)]
        clones[guest.uuid].append(_clone(guest, number + 1))
    owners = {
        **{guest.uuid: guest.uuid for guest in guests},
        **{str(guest.process.pid): guest.uuid for guest in guests if guest.process},
        **{named: guest.uuid for guest in guests for named in _volumes(guest)},
        **{f"{SAVES}/{guest.domain_name}.save": guest.uuid for guest in guests},
        **{port.id: guest.uuid for guest in guests for port in guest.ports or ()},
    }
    owners |= _plugs(bundle, owners)
    rounds = -(-count // len(cloud.guests))
    return bundle.with_answers(
        _larger(made, rounds)
        for answer in bundle.answers
        for made in _answers(answer, clones, owners)
    )


def _plugs(bundle: Bundle, owners: dict[str, str]) -> dict[str, str]:
    """Return the ports of Open vSwitch, by their row's UUID, with their guests' UUIDs."""
    of_prefix = {owned[:PREFIX]: guest for owned, guest in owners.items()}
    found = {}
    for answer in bundle.by_layer.get("network", ()):
        if answer.query.endswith(" list Port") and answer.error is None:
            uuid, name = (answer.value["headings"].index(key) for key in ("_uuid", "name"))
            for row in answer.value["data"]:
                plug = NAME.fullmatch(row[name])
                if plug is not None and plug["prefix"] in of_prefix:
                    found[row[uuid][1]] = of_prefix[plug["prefix"]]
    return found


def _larger(answer: Answer, times: int) -> Answer:
    """Multiply the resources of a host, so that it still has room for its guests."""
    value = answer.value
    if answer.query == "/proc/meminfo" and isinstance(value, str):
        grown = re.sub(r"\d+(?= kB)", lambda amount: str(int(amount[0]) * times), value)
        return answer.model_copy(update={"value": grown})
    if not isinstance(value, dict):
        return answer
    if answer.query.endswith(" FROM nova.compute_nodes") and "rows" in value:
        rows = [
            [
                cell * times
                if name in SIZES
                else 1e6
                if name.endswith("_allocation_ratio")
                else cell
                for name, cell in zip(value["columns"], row, strict=True)
            ]
            for row in value["rows"]
        ]
        return answer.model_copy(update={"value": {**value, "rows": rows}})
    if isinstance(value.get("hypervisors"), list):
        hypervisors = [
            {name: said * times if name in SIZES else said for name, said in hypervisor.items()}
            for hypervisor in value["hypervisors"]
        ]
        return answer.model_copy(update={"value": {**value, "hypervisors": hypervisors}})
    if answer.query == "virsh nodeinfo":
        sizes = {name: value[name] * times for name in ("memory_mib", "cpus")}
        return answer.model_copy(update={"value": {**value, **sizes}})
    if answer.query.startswith("stat -f "):
        room = {name: value[name] * times for name in ("blocks", "bfree", "bavail")}
        return answer.model_copy(update={"value": {**value, **room}})
    if isinstance(value.get("inventories"), dict):
        inventories = {
            name: inventory | {key: inventory[key] * times for key in ("total", "max_unit")}
            for name, inventory in value["inventories"].items()
        }
        return answer.model_copy(update={"value": {**value, "inventories": inventories}})
    return answer


def _clone(guest: Guest, number: int) -> Clone:
    assert guest.instance is not None and guest.domain is not None
    uuid = f"{number:08x}{guest.uuid[8:]}"
    row = (guest.instance.id or 0, (guest.instance.id or 0) + number * 1024)
    swaps = [(guest.uuid, uuid), (guest.domain.name, f"instance-{row[1]:08x}")]
    swaps += [(named, f"{number:08x}{named[8:]}") for named in _volumes(guest)]
    consoles = guest.domain.graphics if guest.process else ()
    ports = [(console.port, FIRST_PORT + number) for console in consoles if console.port]
    for port, own in ports:
        swaps.append((f"port='{port}'", f"port='{own}'"))
        # On the command line, in JSON: `-vnc 127.0.0.1:0`.
        swaps.append(
            (f"-vnc\\u0000127.0.0.1:{port - 5900},", f"-vnc\\u0000127.0.0.1:{own - 5900},")
        )
    pid = (guest.process.pid, guest.process.pid + number * STEP) if guest.process else None
    for plug in guest.ports or ():
        # The names of a port's devices contain the beginning of its id.
        prefix, mac = plug.id[:PREFIX], plug.mac
        swaps.append((prefix, f"{number:04x}{prefix[4:]}"))
        # Without the first byte, which is another one in the tap's address.
        swaps.append((mac[2:], f":{number >> 8:02x}:{number & 255:02x}{mac[8:]}"))
    for move in guest.instance.migrations or ():
        if move.uuid is None or move.id is None:
            continue
        swaps.append((move.uuid, f"{number:08x}{move.uuid[8:]}"))
        # In the text of instance_extra.migration_context, which is JSON in JSON.
        named = '\\"migration_id\\": '
        swaps.append((f"{named}{move.id},", f"{named}{move.id + number * 1024},"))
    if pid is not None:
        swaps.append((f"/proc/{pid[0]}/", f"/proc/{pid[1]}/"))
        # In the texts of its stat and status.
        swaps.append((f'"{pid[0]} (', f'"{pid[1]} ('))
        swaps += [(f"{name}:\\t{pid[0]}\\n", f"{name}:\\t{pid[1]}\\n") for name in ("Tgid", "Pid")]
    return Clone(tuple(swaps), pid, row, tuple(ports))


def _volumes(guest: Guest) -> list[str]:
    """Return the ids of a guest's volumes and attachments."""
    assert guest.instance is not None
    named = ((row.volume_id, row.attachment_id) for row in guest.instance.mappings)
    return [uuid for pair in named for uuid in pair if uuid]


def _answers(
    answer: Answer, clones: dict[str, list[Clone]], owners: dict[str, str]
) -> Iterator[Answer]:
    owner = _owner(answer, owners)
    if owner is None:
        answer = answer.model_copy(update={"query": _asked(answer.query, clones, owners)})
        yield _listing(answer, clones, owners) if answer.error is None else answer
        return
    yield answer
    for clone in clones[owner]:
        subject = clone.text(answer.subject or "")
        if clone.pid and subject == str(clone.pid[0]):
            subject = str(clone.pid[1])
        changed: dict[str, object] = {"query": clone.text(answer.query), "subject": subject}
        if answer.error is None:
            changed["value"] = _inodes(clone, clone.value(answer.value))
        yield answer.model_copy(update=changed)


def _owner(answer: Answer, owners: dict[str, str]) -> str | None:
    subject = answer.subject or ""
    if subject in owners:
        return owners[subject]
    found = UUID.search(subject)
    return owners.get(found[0]) if found and "_base" not in subject else None


def _asked(query: str, clones: dict[str, list[Clone]], owners: dict[str, str]) -> str:
    """Return the question; if it names guests or their volumes, add those of the clones."""

    def named(quoted: re.Match[str]) -> str:
        group = clones.get(owners.get(quoted[0].strip("'"), ""), ())
        return ", ".join([quoted[0], *(clone.text(quoted[0]) for clone in group)])

    return re.sub(rf"'{UUID.pattern}'", named, query)


def _listing(answer: Answer, clones: dict[str, list[Clone]], owners: dict[str, str]) -> Answer:
    value = answer.value
    if answer.query.startswith("cat ") and answer.query.endswith("/host"):
        lines = [line for known in value.splitlines() for line in _leases(known, clones)]
        return answer.model_copy(update={"value": "".join(f"{line}\n" for line in lines)})
    if answer.query == LISTENERS:
        lines = [line for known in value.splitlines() for line in _listeners(known, clones)]
        return answer.model_copy(update={"value": "\n".join(lines)})
    if isinstance(value, dict) and isinstance(value.get("rows"), list):
        columns = value["columns"]
        keys = [columns.index(name) for name in ("instance_uuid", "uuid") if name in columns]
        asked = SELECT.match(answer.query)
        own_id = asked is not None and asked["table"] in {"instances", "migrations"}
        number = columns.index("id") if own_id and "id" in columns else -1
        rows = list(_grown(value["rows"], clones, lambda row: [row[key] for key in keys], number))
        return answer.model_copy(update={"value": {**value, "rows": rows}})
    if isinstance(value, dict) and answer.query.startswith("GET /resource_providers/"):
        return answer.model_copy(update={"value": _provider(value, clones)})
    if isinstance(value, dict) and isinstance(value.get("servers"), list):
        servers = list(_grown(value["servers"], clones, lambda server: [server["id"]]))
        return answer.model_copy(update={"value": {**value, "servers": servers}})
    if isinstance(value, dict) and isinstance(value.get("migrations"), list):
        moves = list(
            _grown(value["migrations"], clones, lambda move: [move["instance_uuid"]], rows_of=_move)
        )
        return answer.model_copy(update={"value": {**value, "migrations": moves}})
    for name in ("volumes", "attachments"):
        if isinstance(value, dict) and isinstance(value.get(name), list):
            grown = list(_grown(value[name], clones, _volume_owner))
            return answer.model_copy(update={"value": {**value, name: grown}})
    if isinstance(value, dict) and isinstance(value.get("floatingips"), list):
        whose = lambda leads: [owners.get(leads["port_id"] or "")]  # noqa: E731
        leads = list(_grown(value["floatingips"], clones, whose, rows_of=_leads))
        return answer.model_copy(update={"value": {**value, "floatingips": leads}})
    if isinstance(value, dict) and isinstance(value.get("ports"), list):
        ports = list(_grown(value["ports"], clones, lambda port: [port["device_id"]]))
        return answer.model_copy(update={"value": {**value, "ports": ports}})
    taps = {
        old: uuid for uuid, group in clones.items() for clone in group for old, _ in clone.swaps
    }
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        name = value["headings"].index("name")
        rows = list(
            _grown(value["data"], clones, lambda row: _tap_owner(row[name], taps), rows_of=_own)
        )
        if answer.query.endswith(" list Bridge"):
            ports = value["headings"].index("ports")
            rows = [
                [*row[:ports], _with_plugs(row[ports], clones, owners), *row[ports + 1 :]]
                for row in rows  # the recorded rows are the given bundle's
            ]
        return answer.model_copy(update={"value": {**value, "data": rows}})
    if isinstance(value, list) and value and isinstance(value[0], dict):
        if "ifname" in value[0]:
            rows = list(_grown(value, clones, lambda row: _tap_owner(row["ifname"], taps)))
            return answer.model_copy(update={"value": rows})
        if "uuid" in value[0]:
            return answer.model_copy(
                update={"value": list(_grown(value, clones, lambda line: [line["uuid"]]))}
            )
        if "path" in value[0]:
            return answer.model_copy(update={"value": list(_grown(value, clones, _path_owner))})
        if "pid" in value[0]:
            pids = [clone.pid for group in clones.values() for clone in group if clone.pid]
            found = {line["pid"]: line for line in value}
            grown = [found[old] | {"pid": new} for old, new in pids if old in found]
            return answer.model_copy(update={"value": [*value, *grown]})
    return answer


def _grown(
    rows: Iterable[Any],
    clones: dict[str, list[Clone]],
    owner: Callable[[Any], list[Any]],
    number: int = -1,
    rows_of: Callable[[Clone, Any], Any] = lambda _, row: row,
) -> Iterator[Any]:
    """Yield the rows, each followed by its clones; `number` is the column of the row id, if any,
    and `rows_of` gives a cloned row what only it may have."""
    for row in rows:
        yield row
        owners = (key for key in owner(row) if isinstance(key, str) and key in clones)
        for clone in clones.get(next(owners, ""), ()):
            made = rows_of(clone, _inodes(clone, clone.value(row)))
            if number >= 0:
                made[number] = row[number] + clone.row[1] - clone.row[0]
            yield made


def _own(clone: Clone, row: Any) -> Any:
    """Give a cloned row of Open vSwitch, and the rows that it refers to, UUIDs of their own."""
    if isinstance(row, list) and row[:1] == ["uuid"]:
        return ["uuid", clone.swaps[0][1][:8] + row[1][8:]]
    return [_own(clone, cell) for cell in row] if isinstance(row, list) else row


def _move(clone: Clone, move: Any) -> Any:
    """Give a migration in the API the row id that the database has of it."""
    return {**move, "id": move["id"] + clone.row[1] - clone.row[0]}


def _leads(clone: Clone, leads: Any) -> Any:
    """Give a cloned floating IP an id of its own; its address leads to the same fixed IP."""
    return {**leads, "id": clone.swaps[0][1][:8] + leads["id"][8:]}


def _with_plugs(cell: Any, clones: dict[str, list[Clone]], owners: dict[str, str]) -> Any:
    """Add the clones' ports to the ports of a bridge."""
    listed = cell[1] if cell[:1] == ["set"] else [cell]
    added = [
        _own(clone, port) for port in listed for clone in clones.get(owners.get(port[1], ""), ())
    ]
    return ["set", [*listed, *added]]


def _leases(line: str, clones: dict[str, list[Clone]]) -> Iterator[str]:
    """Yield a line of the DHCP server's file, and a line for each clone of its guest."""
    yield line
    for clone in (clone for group in clones.values() for clone in group):
        if (made := clone.text(line)) != line:
            yield made


def _listeners(line: str, clones: dict[str, list[Clone]]) -> Iterator[str]:
    """Yield a socket's line, and a line for each clone of the guest that owns it."""
    yield line
    for clone in (clone for group in clones.values() for clone in group):
        old, new = clone.pid or (0, 0)
        if f"pid={old}," in line:
            line_of_clone = line.replace(f"pid={old},", f"pid={new},")
            for port, own in clone.ports:
                line_of_clone = line_of_clone.replace(f":{port} ", f":{own} ")
            yield line_of_clone


def _volume_owner(item: Any) -> list[str]:
    entries = item.get("attachments", [])
    return [item.get("instance"), *(entry["server_id"] for entry in entries)]


def _provider(value: dict[str, Any], clones: dict[str, list[Clone]]) -> dict[str, Any]:
    """Give every clone its guest's allocations, and the host enough capacity for all of them."""
    if "inventories" in value:
        kept = value["inventories"].items()
        return {**value, "inventories": {k: v | {"allocation_ratio": 1e6} for k, v in kept}}
    if "allocations" in value:
        lines = _grown(list(value["allocations"].items()), clones, lambda line: [line[0]])
        return {**value, "allocations": dict(lines)}
    return value


def _path_owner(line: Any) -> list[str]:
    return [part[:36] for part in str(line["path"]).split("/")]


def _tap_owner(name: str, taps: dict[str, str]) -> list[str]:
    found = NAME.fullmatch(name)
    return [taps.get(found["prefix"], "")] if found else []


def _inodes(clone: Clone, value: Any) -> Any:
    """Give a clone's files their own inodes; shared files (`_base`) keep theirs."""
    if isinstance(value, list):
        return [_inodes(clone, item) for item in value]
    if isinstance(value, dict) and "ino" in value and "_base" not in str(value.get("path")):
        return {**value, "ino": int(value["ino"]) + clone.row[1] * STEP}
    return value
