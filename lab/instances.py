#!/usr/bin/python3
"""Boot the lab's instances and drive each into its state, all at the same time.

Run by instances.sh with Debian's python3. Safe to run again: an instance in its state is left
alone; one in any other state (for example after a reboot of the machine) is brought back.

States are read from nova's database and from libvirt: polling the API every second for so many
instances would use more CPU than booting them.
"""

import base64
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

PATIENCE = 240.0  # seconds for one step of one instance; all of them together take about 90
USER_DATA = b"#cloud-config\nhostname: vm-config\n"
ODD_METADATA = {"owner": "lab", "note": 'it\'s "quoted" & <odd>'}
HARD_REBOOT = {"reboot": {"type": "HARD"}}

# Actions that bring an active instance into a state, and back. (A hard reboot brings back all other
# instances, whatever the state of their domains.)
INTO: dict[str, dict[str, Any]] = {
    "stopped": {"os-stop": None},
    "paused": {"pause": None},
    "suspended": {"suspend": None},
    "rescued": {"rescue": {}},
    "shelved_offloaded": {"shelve": None},
    "resized": {"resize": {"flavorRef": "lab.small"}},
}
BACK: dict[str, dict[str, Any]] = {
    "rescued": {"unrescue": None},
    "shelved_offloaded": {"unshelve": None},
}
DOMAIN = {
    "active": "running",
    "rescued": "running",
    "resized": "running",
    "paused": "paused",
    "stopped": "shut off",
    "suspended": "shut off",
}


CELLS = ("nova", "nova_cell0")


class StuckError(Exception):
    """An instance, volume or image did not reach its state; the text names the actual state."""


@dataclass(frozen=True)
class Wish:
    """Target state of an instance."""

    name: str
    state: str = "active"
    flavor: str = "lab.tiny"
    image: str = "lab-guest"
    networks: tuple[str, ...] = ("lab-net",)
    cloud: str = "hoodlab"
    extra: dict[str, Any] = field(default_factory=dict)


def wishes(image: str) -> list[Wish]:
    """Return all instances in order of creation; `image` is the UUID of lab-guest."""
    from_volume = {
        "boot_index": 0,
        "uuid": image,
        "source_type": "image",
        "destination_type": "volume",
        "volume_size": 2,
        "delete_on_termination": False,
    }
    with_everything = {
        "config_drive": True,
        "user_data": base64.b64encode(USER_DATA).decode(),
        "key_name": "lab-key",
        "metadata": ODD_METADATA,
    }
    both = ("lab-net", "lab-net2")
    return [
        Wish("vm-plain", extra={"metadata": {"role": "plain"}}),
        Wish("vm-config", flavor="lab.extra", networks=both, extra=with_everything),
        Wish(
            "vm-bfv", flavor="lab.vol", image="", extra={"block_device_mapping_v2": [from_volume]}
        ),
        Wish("vm-data"),
        Wish("vm-duo", flavor="lab.duo"),
        Wish("vm-stopped", "stopped"),
        Wish("vm-paused", "paused"),
        Wish("vm-suspended", "suspended"),
        Wish("vm-resized"),
        Wish("vm-verify", "resized"),
        Wish("vm-shelved", "shelved_offloaded"),
        Wish("vm-rescued", "rescued"),
        Wish("vm-error", "error", flavor="lab.huge"),
        Wish("vm-tenant", cloud="hoodlab-tenant"),
        Wish("vm-deleted"),
        Wish("vm-linux", flavor="lab.linux", image="lab-linux"),
    ]


def say(text: str) -> None:
    """Print one line of progress."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')}    {text}\n")
    sys.stdout.flush()


class Database:
    """The databases of the cloud, as root; one connection for all threads."""

    def __init__(self) -> None:
        """Connect through the socket, where root needs no password."""
        import pymysql

        self._lock = Lock()
        self._db = pymysql.connect(
            unix_socket="/run/mysqld/mysqld.sock", user="root", autocommit=True, read_timeout=60
        )

    def rows(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with self._lock, self._db.cursor() as cursor:
            cursor.execute(query, values)
            return list(cursor.fetchall())

    def state(self, uuid: str) -> tuple[str, str]:
        """Return vm_state and task_state ("" for none) from the cell that has the instance."""
        found = self.rows(
            "SELECT vm_state, IFNULL(task_state, '') FROM nova.instances WHERE uuid = %s UNION ALL"
            " SELECT vm_state, IFNULL(task_state, '') FROM nova_cell0.instances WHERE uuid = %s",
            *(uuid, uuid),
        )
        return found[0] if found else ("building", "scheduling")

    def uuid(self, name: str) -> str:
        """Return the UUID of the live instance of that name, or ""."""
        found = self.rows(
            "SELECT uuid FROM nova.instances WHERE deleted = 0 AND display_name = %s UNION ALL"
            " SELECT uuid FROM nova_cell0.instances WHERE deleted = 0 AND display_name = %s",
            *(name, name),
        )
        return found[0][0] if found else ""

    def deleted(self, name: str) -> bool:
        """True if rows of a deleted instance of that name exist."""
        query = "SELECT 1 FROM nova.instances WHERE deleted <> 0 AND display_name = %s"
        return bool(self.rows(query, name))

    def purge(self, pattern: str) -> int:
        """Remove all rows of deleted instances with matching names (SQL LIKE); return their number.

        So temporary instances leave nothing behind for the next recording.
        """
        names = "SELECT uuid FROM {}.instances WHERE deleted <> 0 AND display_name LIKE %s"
        gone = self.rows(" UNION ".join(map(names.format, CELLS)), *([pattern] * len(CELLS)))
        tables = self.rows(
            "SELECT table_schema, table_name, column_name FROM information_schema.columns"
            " WHERE table_schema IN ('nova', 'nova_cell0', 'nova_api')"
            " AND (column_name = 'instance_uuid' OR table_name = 'instances'"
            " AND column_name = 'uuid')"
        )
        self.rows("SET foreign_key_checks = 0")
        for (uuid,) in gone:
            for cell in CELLS:
                events = f"DELETE FROM {cell}.instance_actions_events WHERE action_id IN"  # noqa: S608  # ours
                of = f" (SELECT id FROM {cell}.instance_actions WHERE instance_uuid = %s)"  # noqa: S608
                self.rows(events + of, uuid)
            for schema, table, column in tables:
                self.rows(f"DELETE FROM {schema}.{table} WHERE {column} = %s", uuid)  # noqa: S608
        self.rows("SET foreign_key_checks = 1")
        return len(gone)

    def never_ran(self, uuid: str) -> bool:
        """True if its first start failed: nothing can bring back an instance that never ran."""
        query = "SELECT 1 FROM nova.instances WHERE vm_state = 'error' AND launched_at IS NULL"
        query += " AND uuid = %s UNION ALL SELECT 1 FROM nova_cell0.instances WHERE uuid = %s"
        return bool(self.rows(query, uuid, uuid))

    def why(self, uuid: str) -> str:
        """Return the last fault that nova recorded for the instance."""
        time.sleep(1)  # nova writes the fault a moment after the state
        found = self.rows(
            "SELECT message FROM nova.instance_faults WHERE instance_uuid = %s UNION ALL"
            " SELECT message FROM nova_cell0.instance_faults WHERE instance_uuid = %s",
            *(uuid, uuid),
        )
        return str(found[-1][0]) if found else "nova gives no reason"


class Cloud:
    """The cloud's APIs, as administrator (and, for one instance, as a member of project `lab`)."""

    def __init__(self) -> None:
        """Get the tokens now, because otherwise each thread would get its own."""
        import openstack

        self.apis = {name: openstack.connect(cloud=name) for name in ("hoodlab", "hoodlab-tenant")}
        self.db = Database()
        for api in self.apis.values():
            api.authorize()
        self.admin = self.apis["hoodlab"]
        self.flavors = {f.name: f.id for f in self.admin.compute.flavors(get_extra_specs=False)}
        self.networks = {n.name: n.id for n in self.admin.network.networks()}

    def post(self, path: str, body: dict[str, Any], cloud: str = "hoodlab") -> Any:
        """Send a request to nova; return the body of the answer, or None."""
        from openstack.exceptions import raise_from_response

        answer = self.apis[cloud].compute.post(path, json=body, microversion="2.92")
        raise_from_response(answer)
        return answer.json() if answer.content else None

    def create(self, wish: Wish) -> str:
        """Create an instance; return its UUID."""
        body = {
            "name": wish.name,
            "flavorRef": self.flavors[wish.flavor],
            "networks": [{"uuid": self.networks[n]} for n in wish.networks],
            **({"imageRef": self.image(wish.image)} if wish.image else {}),
            **wish.extra,
        }
        return str(self.post("/servers", {"server": body}, wish.cloud)["server"]["id"])

    def find_or_create(self, wish: Wish) -> tuple[str, bool]:
        """Return the UUID of the instance, and True if it is new."""
        uuid = self.db.uuid(wish.name)
        if uuid and self.beyond_repair(wish, uuid):
            self.delete(wish.name, uuid)
            uuid = ""
        if uuid:
            return uuid, False
        say(f"{wish.name}: creating")
        return self.create(wish), True

    def image(self, name: str) -> str:
        """Return the UUID of a usable image, or ""."""
        found = self.db.rows(
            "SELECT id FROM glance.images WHERE deleted = 0 AND status = 'active' AND name = %s",
            name,
        )
        return found[0][0] if found else ""

    def act(self, name: str, uuid: str, action: dict[str, Any]) -> None:
        """Perform one action of nova's API on an instance."""
        (verb,) = action
        say(f"{name}: {verb}")
        if verb == "resize":
            action = {"resize": {"flavorRef": self.flavors[action["resize"]["flavorRef"]]}}
        self.post(f"/servers/{uuid}/action", action)

    def wait(self, name: str, uuid: str, *states: str, patience: float = PATIENCE) -> str:
        """Wait until the instance has no task and is in one of the states; return the state."""
        end = time.monotonic() + patience
        while True:
            state, task = self.db.state(uuid)
            if not task and (state in states or (not states and state != "building")):
                return state
            if state == "error" and not task:
                raise StuckError(f"{name} went to error: {self.db.why(uuid)}")
            if time.monotonic() > end:
                wanted = " or ".join(states) or "no task"
                raise StuckError(f"{name} stays {state}, task {task or 'none'}; expected: {wanted}")
            time.sleep(0.4)

    def settle(self, name: str, uuid: str) -> str:
        """Wait until the instance has no task; return its state.

        A task that takes more than a minute here has no worker any more: its nova-compute was
        killed. An administrator's reset makes the instance usable again.
        """
        try:
            return self.wait(name, uuid, patience=60)
        except StuckError:
            self.act(name, uuid, {"os-resetState": {"state": "active"}})
            return self.wait(name, uuid, "active")

    def until(self, what: str, ask: Callable[[], Any]) -> Any:
        """Wait until `ask` returns a true value; return it."""
        end = time.monotonic() + PATIENCE
        while not (found := ask()):
            if time.monotonic() > end:
                raise StuckError(f"gave up waiting for {what}")
            time.sleep(0.5)
        return found

    # ---- extras of single instances

    def bring(self, wish: Wish, uuid: str, fresh: bool) -> None:
        """Drive an instance into its state: a new one from active, an old one from any state."""
        if fresh and wish.state != "error":
            state = self.wait(wish.name, uuid, "active")
        else:
            state = self.settle(wish.name, uuid)
        if state != wish.state or domain_state(uuid) != DOMAIN.get(state, ""):
            if state != "active" or domain_state(uuid) != DOMAIN["active"]:
                self.act(wish.name, uuid, BACK.get(state, HARD_REBOOT))
                self.wait(wish.name, uuid, "active")
            if wish.state != "active":
                self.act(wish.name, uuid, INTO[wish.state])
                self.wait(wish.name, uuid, wish.state)
        say(f"{wish.name}: {wish.state}")
        if also := getattr(self, "also_" + wish.name.removeprefix("vm-"), None):
            also(uuid)

    def beyond_repair(self, wish: Wish, uuid: str) -> bool:
        """True if the instance can't become active again, and must be replaced by a new one.

        Before its resize is confirmed, nova neither starts nor reboots an instance, and a revert
        waits five minutes for an event that a network interface, already plugged, never sends.
        """
        if self.db.state(uuid)[0] == "resized":
            return wish.state != "resized" or domain_state(uuid) != DOMAIN["resized"]
        return wish.state != "error" and self.db.never_ran(uuid)

    def also_plain(self, uuid: str) -> None:
        """Add a floating IP, a snapshot image, and an instance made from the snapshot."""
        self.floating_ip("vm-plain", uuid)
        snap = self.db.uuid("vm-snap")
        fresh = not snap
        if fresh:
            if not self.image("plain-snap"):
                self.act("vm-plain", uuid, {"createImage": {"name": "plain-snap"}})
                self.until("the snapshot of vm-plain", lambda: self.image("plain-snap"))
                self.wait("vm-plain", uuid, "active")
            say("vm-snap: creating, from the snapshot of vm-plain")
            snap = self.create(Wish("vm-snap", image="plain-snap"))
        self.bring(Wish("vm-snap"), snap, fresh)

    def also_linux(self, uuid: str) -> None:
        """Add a floating IP and wait until it answers a ping."""
        address = self.floating_ip("vm-linux", uuid)
        ping = ["ping", "-c", "1", "-W", "1", address]

        def answers() -> bool:
            return subprocess.run(ping, capture_output=True, check=False).returncode == 0

        self.until(f"{address} to answer a ping", answers)
        say(f"vm-linux: {address} answers")

    def floating_ip(self, name: str, uuid: str) -> str:
        """Return the floating IP of an instance; create one if it has none."""
        (port,) = self.admin.network.ports(device_id=uuid)
        for found in self.admin.network.ips(port_id=port.id):
            return str(found.floating_ip_address)
        say(f"{name}: floating IP")
        made = self.admin.network.create_ip(
            floating_network_id=self.networks["lab-ext"], port_id=port.id
        )
        return str(made.floating_ip_address)

    def also_data(self, uuid: str) -> None:
        """Attach a volume while the guest runs."""
        volume, _ = self.data_volume()
        if self.until("data-vol", lambda: self.data_volume()[1] in ("available", "in-use")):
            if self.data_volume()[1] == "available":
                say("vm-data: attaching data-vol")
                path = f"/servers/{uuid}/os-volume_attachments"
                self.post(path, {"volumeAttachment": {"volumeId": volume}})
            self.until("data-vol to be attached", lambda: self.data_volume()[1] == "in-use")

    def data_volume(self) -> tuple[str, str]:
        """Return UUID and status of data-vol; two empty texts if it does not exist."""
        found = self.db.rows(
            "SELECT id, status FROM cinder.volumes WHERE deleted = 0 AND display_name = 'data-vol'"
        )
        return found[0] if found else ("", "")

    def also_resized(self, uuid: str) -> None:
        """Resize the instance and confirm the resize."""
        found = self.db.rows("SELECT memory_mb FROM nova.instances WHERE uuid = %s", uuid)
        if found[0][0] != 128:
            self.act("vm-resized", uuid, INTO["resized"])
            self.wait("vm-resized", uuid, "resized")
            self.act("vm-resized", uuid, {"confirmResize": None})
            self.wait("vm-resized", uuid, "active")

    def also_deleted(self, uuid: str) -> None:
        """Delete the instance; only its rows are left."""
        self.delete("vm-deleted", uuid)

    def delete(self, name: str, uuid: str) -> None:
        """Delete an instance and wait until it is deleted."""
        say(f"{name}: delete")
        self.admin.compute.delete_server(uuid)
        self.until(f"{name} to be deleted", lambda: not self.db.uuid(name))


def domain_state(uuid: str) -> str:
    """Return libvirt's state of the instance; "" if it has no domain."""
    command = ["virsh", "-c", "qemu:///system", "domstate", uuid]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return answer.stdout.strip()


def main() -> None:
    """Create missing instances one by one, so that instance-0000000N is always the same one.

    They then reach their states in parallel.
    """
    cloud = Cloud()
    if not cloud.data_volume()[0]:
        say("data-vol: creating")
        cloud.admin.block_storage.create_volume(name="data-vol", size=1)
    failed: list[str] = []

    def fail(wish: Wish, error: Exception) -> None:
        failed.append(f"{wish.name}: {error}")
        say(f"{wish.name}: FAILED: {error}")

    def bring(wish: Wish, uuid: str, fresh: bool) -> None:
        try:
            cloud.bring(wish, uuid, fresh)
        except Exception as error:  # the others continue; failures are reported at the end
            fail(wish, error)

    with ThreadPoolExecutor(max_workers=16) as pool:
        for wish in wishes(cloud.image("lab-guest")):
            if wish.name == "vm-deleted" and cloud.db.deleted(wish.name):
                continue
            try:
                uuid, fresh = cloud.find_or_create(wish)
            except Exception as error:  # as above
                fail(wish, error)
            else:
                pool.submit(bring, wish, uuid, fresh)
    if failed:
        sys.exit(f"{len(failed)} instances did not reach their state; the first: {failed[0]}")


if __name__ == "__main__":
    main()
