#!/usr/bin/python3
"""Check that hoodsnap reports nothing where nothing is wrong: make churn.

For some minutes, instances called churn-... are created, stopped, paused, suspended, shelved,
resized, snapshotted, given volumes, and deleted, all at once, while the cloud is collected and
explained again and again. Every finding (error or warning) must still exist once the instances are
left alone. A finding that disappears was a false alarm, and its bundle is kept. Status 1: there was
a false alarm.

    lab/churn.py [--minutes 10] [--instances 4] [--keep FOLDER]

Run it as root on the lab, with hoodsnap and its `collect` extra. An interrupted run cleans up.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition, Thread

sys.path.insert(0, str(Path(__file__).parent))

STATE = Path(os.environ.get("LAB_STATE", "/var/lib/hoodlab"))
os.environ["OS_CLIENT_CONFIG_FILE"] = str(STATE / "clouds.yaml")

from instances import Cloud, StuckError, Wish, say  # noqa: E402  # in this folder

ALARMS = ("error", "warning")
SETTLE = 5.0  # seconds: nova's periodic tasks and libvirt's events have caught up by then
IDLE = 300.0  # how long the longest operation may take

THERE_AND_BACK = {
    # name: (action, the state it leads to, the way back)
    "stop": ({"os-stop": None}, "stopped", {"os-start": None}),
    "pause": ({"pause": None}, "paused", {"unpause": None}),
    "suspend": ({"suspend": None}, "suspended", {"resume": None}),
    "shelve": ({"shelve": None}, "shelved_offloaded", {"unshelve": None}),
    "rescue": ({"rescue": {}}, "rescued", {"unrescue": None}),
    "resize": ({"resize": {"flavorRef": "lab.duo"}}, "resized", {"confirmResize": None}),
}

Key = tuple[str, str, str]
"""Identity of a finding: check, host, guest."""


class Baton:
    """Lets the instances run, or holds them between two steps."""

    def __init__(self) -> None:
        """Let all instances run."""
        self._changed = Condition()
        self._busy = 0
        self.going, self.ended = True, False

    def __enter__(self) -> None:
        """Begin a step as soon as the instances may run."""
        with self._changed:
            self._changed.wait_for(lambda: self.going or self.ended)
            self._busy += 1

    def __exit__(self, *_: object) -> None:
        """End the step."""
        with self._changed:
            self._busy -= 1
            self._changed.notify_all()

    def stand_still(self) -> bool:
        """Hold new steps; return True if the current steps ended in time."""
        with self._changed:
            self.going = False
            return self._changed.wait_for(lambda: self._busy == 0, timeout=IDLE)

    def go(self) -> None:
        """Allow new steps again."""
        with self._changed:
            self.going = True
            self._changed.notify_all()

    def end(self) -> None:
        """Stop every instance after its current step."""
        with self._changed:
            self.ended = True
            self._changed.notify_all()


@dataclass
class Numbers:
    """Counters for the report."""

    collects: int = 0
    moving: int = 0
    found: Counter[Key] = field(default_factory=Counter)
    confirmed: set[Key] = field(default_factory=set)
    false: dict[Key, Path] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)
    stuck: list[str] = field(default_factory=list)


class Churning(Thread):
    """The life of one instance, repeated until the end."""

    def __init__(self, cloud: Cloud, name: str, baton: Baton, numbers: Numbers) -> None:
        """Seed the random choices with the instance's name, so that each run is the same."""
        super().__init__(name=name, daemon=True)
        self.cloud, self.baton, self.numbers = cloud, baton, numbers
        self.uuid = ""
        self.chance = random.Random(name)  # noqa: S311  # not for secrets

    def run(self) -> None:
        """Repeat until the end; an instance that got stuck is deleted and replaced."""
        while not self.baton.ended:
            try:
                self.live()
            except StuckError as error:
                self.numbers.stuck.append(str(error))
            except Exception as error:  # the API refused: the other instances continue
                self.numbers.stuck.append(f"{self.name}: {error}")
            if not self.baton.ended:
                self.step("delete", lambda: remove(self.cloud, self.name))

    def live(self) -> None:
        """Create the instance and put it through a few random operations."""
        self.step("create", self.create)
        turns = [*THERE_AND_BACK, "snapshot", "reboot", "volume"]
        for turn in self.chance.sample(turns, 5):
            if turn in THERE_AND_BACK:
                there, state, back = THERE_AND_BACK[turn]
                self.step(turn, lambda there=there, state=state: self.act(there, state))
                time.sleep(self.chance.uniform(0.0, 3.0))
                self.step(f"{turn}, back", lambda back=back: self.act(back, "active"))
            else:
                self.step(turn, getattr(self, turn))
            time.sleep(self.chance.uniform(0.0, 2.0))

    def step(self, what: str, do: Callable[[], None]) -> None:
        """Run one operation; the instance may be held before and after it."""
        with self.baton:
            if not self.baton.ended:
                do()
                self.numbers.done[what] += 1

    def create(self) -> None:
        """Create an instance; one in three runs a real Linux."""
        linux = self.chance.random() < 1 / 3 and self.cloud.image("lab-linux")
        wish = Wish(self.name, flavor="lab.linux", image="lab-linux") if linux else Wish(self.name)
        self.uuid = self.cloud.create(wish)
        self.cloud.wait(self.name, self.uuid, "active")

    def act(self, action: dict[str, object], state: str) -> None:
        """Perform an action and wait for the state it leads to."""
        self.cloud.act(self.name, self.uuid, action)
        self.cloud.wait(self.name, self.uuid, state)

    def snapshot(self) -> None:
        """Take a snapshot image and delete it again."""
        self.act({"createImage": {"name": self.name}}, "active")
        image = self.cloud.until(f"image {self.name}", lambda: self.cloud.image(self.name))
        self.cloud.admin.image.delete_image(image)

    def reboot(self) -> None:
        """Reboot the instance hard, which defines its domain again."""
        self.act({"reboot": {"type": "HARD"}}, "active")

    def volume(self) -> None:
        """Attach a new volume, which is deleted with the instance."""
        volumes = self.cloud.admin.block_storage
        volume = volumes.create_volume(name=self.name, size=1)
        volumes.wait_for_status(volume, "available", interval=1, wait=60)
        path = f"/servers/{self.uuid}/os-volume_attachments"
        body = {"volumeId": volume.id, "delete_on_termination": True}
        self.cloud.post(path, {"volumeAttachment": body})
        volumes.wait_for_status(volume, "in-use", interval=1, wait=60)


def remove(cloud: Cloud, name: str) -> None:
    """Delete the instance of that name, if any, with its rows, volumes and image."""
    if uuid := cloud.db.uuid(name):
        cloud.delete(name, uuid)
    cloud.db.purge(name)
    if image := cloud.image(name):
        cloud.admin.image.delete_image(image)
    cloud.until(f"the volumes of {name} to be deleted", lambda: no_volumes(cloud, name))


def no_volumes(cloud: Cloud, name: str) -> bool:
    """True if no volume of that name exists; delete those that are not in use."""
    volumes = list(cloud.admin.block_storage.volumes(name=name))
    for volume in volumes:
        if volume.status in ("available", "error"):
            cloud.admin.block_storage.delete_volume(volume.id)
    return not volumes


def look(path: Path) -> tuple[dict[Key, str], int]:
    """Collect and explain; return every alarm with its text, and the number of changing guests."""
    hoodsnap = [sys.executable, "-m", "hoodsnap"]
    collect = [*hoodsnap, "collect", "--all-hosts", "--os-cloud", "hoodlab", "--output", str(path)]
    subprocess.run(collect, stderr=subprocess.DEVNULL, check=False)
    explain = [*hoodsnap, "explain", "--format", "json", str(path)]
    said = subprocess.run(explain, capture_output=True, text=True, check=False)
    report = json.loads(said.stdout)
    alarms: dict[Key, str] = {}
    todo = list(report["findings"])
    while todo:
        finding = todo.pop()
        todo += finding["folded"]
        if finding["severity"] in ALARMS:
            key = finding["check"], finding["host"] or "", finding["guest"] or ""
            alarms[key] = finding["message"]
    return alarms, sum(1 for guest in report["guests"] if guest["moving"])


def judge(numbers: Numbers, baton: Baton, keep: Path, count: int) -> None:
    """Look once; if there are new alarms, hold all instances and look for the alarms again."""
    path = keep / f"{count:03}.json.zst"
    alarms, moving = look(path)
    numbers.collects += 1
    numbers.moving += moving
    numbers.found.update(alarms.keys())
    new = alarms.keys() - numbers.confirmed
    if new:
        say(f"{len(new)} findings: holding the instances to see whether they remain")
        if not baton.stand_still():
            numbers.stuck.append("an operation exceeded its time limit")
        time.sleep(SETTLE)
        again = keep / f"{count:03}-still.json.zst"
        stayed, _ = look(again)
        baton.go()
        numbers.confirmed |= new & stayed.keys()
        for key in new - stayed.keys():
            numbers.false[key] = path
            say(f"FALSE ALARM: {' '.join(filter(None, key))}: {alarms[key]} ({path})")
        again.unlink()
    if path not in numbers.false.values():
        path.unlink()


def report(numbers: Numbers, seconds: float) -> None:
    """Print all numbers, one per line."""
    say(f"{numbers.collects} collections in {seconds:.0f} s; {numbers.moving} changing guests")
    for what, count in sorted(numbers.done.items()):
        say(f"  {count:4} x {what}")
    say(f"{len(numbers.stuck)} operations failed: {'; '.join(numbers.stuck) or '-'}")
    say(f"{len(numbers.found)} findings, {len(numbers.confirmed)} confirmed")
    for key in sorted(numbers.confirmed):
        say(f"  confirmed: {' '.join(filter(None, key))}")
    say(f"{len(numbers.false)} false alarms")
    for key, path in sorted(numbers.false.items()):
        say(f"  false: {' '.join(filter(None, key))} ({path})")


def churn(cloud: Cloud, options: argparse.Namespace) -> int:
    """Run everything; return the number of false alarms."""
    numbers, baton = Numbers(), Baton()
    options.keep.mkdir(parents=True, exist_ok=True)
    names = [f"churn-{number}" for number in range(options.instances)]
    lives = [Churning(cloud, name, baton, numbers) for name in names]
    began = time.monotonic()
    try:
        for name in names:
            remove(cloud, name)
        # A finding that exists before the churn is not a false alarm.
        numbers.confirmed |= look(options.keep / "before.json.zst")[0].keys()
        for life in lives:
            life.start()
        while time.monotonic() - began < 60 * options.minutes:
            judge(numbers, baton, options.keep, numbers.collects)
    finally:
        say("cleaning up")
        baton.end()
        baton.stand_still()
        for life in lives:
            life.join(10)
        for name in names:
            try:
                remove(cloud, name)
            except Exception as error:  # remove the others; report what is left
                numbers.stuck.append(f"{name} was not removed: {error}")
        report(numbers, time.monotonic() - began)
    return len(numbers.false)


def main() -> None:
    """Read the options and run; exit with status 1 if there was a false alarm."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--instances", type=int, default=4)
    parser.add_argument("--keep", type=Path, default=STATE / "churn")
    options = parser.parse_args()
    # Treat SIGTERM like Ctrl-C, so that it cleans up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(1 if churn(Cloud(), options) else 0)


if __name__ == "__main__":
    main()
