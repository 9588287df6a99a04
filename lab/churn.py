#!/usr/bin/python3
"""Holds hoodsnap to its word that it says nothing where nothing is wrong: make churn.

For some minutes instances called churn-... are created, stopped, paused, suspended, shelved,
resized, snapshot, given volumes, and deleted, all at once, while the cloud is collected and
explained again and again. What is found (error or warning) must still be there once the instances
are left alone; what is not was a false alarm, and its bundle is kept. Status 1: there was one.

    lab/churn.py [--minutes 10] [--instances 4] [--keep FOLDER]

Runs as root on the lab, with hoodsnap and its `collect` extra. Interrupted, it cleans up first.
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

from instances import Cloud, StuckError, Wish, say  # noqa: E402  # it is beside us

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
"""What makes two findings the same: check, host, guest."""


class Baton:
    """Lets the instances go on, or stand still between two steps."""

    def __init__(self) -> None:
        """All may go."""
        self._changed = Condition()
        self._busy = 0
        self.going, self.ended = True, False

    def __enter__(self) -> None:
        """A step begins as soon as nothing stands still."""
        with self._changed:
            self._changed.wait_for(lambda: self.going or self.ended)
            self._busy += 1

    def __exit__(self, *_: object) -> None:
        """The step is over."""
        with self._changed:
            self._busy -= 1
            self._changed.notify_all()

    def stand_still(self) -> bool:
        """No step begins from now on; whether those under way came to their end."""
        with self._changed:
            self.going = False
            return self._changed.wait_for(lambda: self._busy == 0, timeout=IDLE)

    def go(self) -> None:
        """Steps may begin again."""
        with self._changed:
            self.going = True
            self._changed.notify_all()

    def end(self) -> None:
        """Every instance stops where it is."""
        with self._changed:
            self.ended = True
            self._changed.notify_all()


@dataclass
class Numbers:
    """What happened, to be reported."""

    collects: int = 0
    moving: int = 0
    found: Counter[Key] = field(default_factory=Counter)
    confirmed: set[Key] = field(default_factory=set)
    false: dict[Key, Path] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)
    stuck: list[str] = field(default_factory=list)


class Churning(Thread):
    """One instance's life, over and over, until it is told to end."""

    def __init__(self, cloud: Cloud, name: str, baton: Baton, numbers: Numbers) -> None:
        """Every instance makes its own choices, the same in each run."""
        super().__init__(name=name, daemon=True)
        self.cloud, self.baton, self.numbers = cloud, baton, numbers
        self.uuid = ""
        self.chance = random.Random(name)  # noqa: S311  # not for secrets

    def run(self) -> None:
        """Lives until the end; an instance that got stuck is deleted, and a new one made."""
        while not self.baton.ended:
            try:
                self.live()
            except StuckError as error:
                self.numbers.stuck.append(str(error))
            except Exception as error:  # the API refused: the others go on
                self.numbers.stuck.append(f"{self.name}: {error}")
            if not self.baton.ended:
                self.step("delete", lambda: remove(self.cloud, self.name))

    def live(self) -> None:
        """From its creation to before its deletion: a few turns of its choice."""
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
        """One operation, between two points at which everything may stand still."""
        with self.baton:
            if not self.baton.ended:
                do()
                self.numbers.done[what] += 1

    def create(self) -> None:
        """A new instance; one in three has a real Linux."""
        linux = self.chance.random() < 1 / 3 and self.cloud.image("lab-linux")
        wish = Wish(self.name, flavor="lab.linux", image="lab-linux") if linux else Wish(self.name)
        self.uuid = self.cloud.create(wish)
        self.cloud.wait(self.name, self.uuid, "active")

    def act(self, action: dict[str, object], state: str) -> None:
        """One action, and the state it leads to."""
        self.cloud.act(self.name, self.uuid, action)
        self.cloud.wait(self.name, self.uuid, state)

    def snapshot(self) -> None:
        """An image of it, deleted again."""
        self.act({"createImage": {"name": self.name}}, "active")
        image = self.cloud.until(f"image {self.name}", lambda: self.cloud.image(self.name))
        self.cloud.admin.image.delete_image(image)

    def reboot(self) -> None:
        """A hard one, which writes its domain anew."""
        self.act({"reboot": {"type": "HARD"}}, "active")

    def volume(self) -> None:
        """A new volume, plugged in; it is deleted with the instance."""
        volumes = self.cloud.admin.block_storage
        volume = volumes.create_volume(name=self.name, size=1)
        volumes.wait_for_status(volume, "available", interval=1, wait=60)
        path = f"/servers/{self.uuid}/os-volume_attachments"
        body = {"volumeId": volume.id, "delete_on_termination": True}
        self.cloud.post(path, {"volumeAttachment": body})
        volumes.wait_for_status(volume, "in-use", interval=1, wait=60)


def remove(cloud: Cloud, name: str) -> None:
    """Deletes an instance of that name, if there is one, its rows, its volume and its image."""
    if uuid := cloud.db.uuid(name):
        cloud.delete(name, uuid)
    cloud.db.purge(name)
    if image := cloud.image(name):
        cloud.admin.image.delete_image(image)
    cloud.until(f"the volumes of {name} to be deleted", lambda: no_volumes(cloud, name))


def no_volumes(cloud: Cloud, name: str) -> bool:
    """Whether there are none of that name; those that nothing holds any more are deleted."""
    volumes = list(cloud.admin.block_storage.volumes(name=name))
    for volume in volumes:
        if volume.status in ("available", "error"):
            cloud.admin.block_storage.delete_volume(volume.id)
    return not volumes


def look(path: Path) -> tuple[dict[Key, str], int]:
    """Collects and explains: every alarm with its text, and how many guests moved."""
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
    """One look; what is new in it is looked for again when everything stands still."""
    path = keep / f"{count:03}.json.zst"
    alarms, moving = look(path)
    numbers.collects += 1
    numbers.moving += moving
    numbers.found.update(alarms.keys())
    new = alarms.keys() - numbers.confirmed
    if new:
        say(f"{len(new)} findings: standing still to see whether they stay")
        if not baton.stand_still():
            numbers.stuck.append("an operation took longer than it may")
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
    """All numbers, one thing a line."""
    say(f"{numbers.collects} collects in {seconds:.0f} s; {numbers.moving} guests moved in them")
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
    """Everything; how many false alarms there were."""
    numbers, baton = Numbers(), Baton()
    options.keep.mkdir(parents=True, exist_ok=True)
    names = [f"churn-{number}" for number in range(options.instances)]
    lives = [Churning(cloud, name, baton, numbers) for name in names]
    began = time.monotonic()
    try:
        for name in names:
            remove(cloud, name)
        # What is wrong before is no false alarm.
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
            except Exception as error:  # the others are removed; what is left is reported
                numbers.stuck.append(f"{name} is left: {error}")
        report(numbers, time.monotonic() - began)
    return len(numbers.false)


def main() -> None:
    """Status 1 where there was a false alarm."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--instances", type=int, default=4)
    parser.add_argument("--keep", type=Path, default=STATE / "churn")
    options = parser.parse_args()
    # As an interruption, so that it cleans up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(1 if churn(Cloud(), options) else 0)


if __name__ == "__main__":
    main()
