"""Small bundles, each with one guest of one recording; a target runs on one in milliseconds."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from hoodsnap.bundle import Bundle, dump, load
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.findings.analysis import analyze
from hoodsnap.trust.challenge import QUERY
from hoodsnap.trust.fingerprint import LAYER, fingerprinted

ROOT = Path(__file__).parent.parent
HEALTHY = ROOT / "src/hoodsnap/recorded/healthy.json.zst"

Raw = dict[str, Any]
"""A bundle as `json.loads` returns it."""

FEWEST = 3
"""Items to keep of a list even if they don't belong to the guest."""


def recordings() -> list[Path]:
    """Return every recording of the project: the healthy one first, then by name."""
    return [HEALTHY, *sorted((ROOT / "fixtures").rglob("*.json.zst"))]


def slices(path: Path, chance: random.Random) -> Iterator[Raw]:
    """Cut a recording into one bundle per guest, in random order."""
    bundle = load(path)
    guests = [guest for guest in analyze(bundle).cloud.guests if guest.host is not None]
    chance.shuffle(guests)
    for guest in guests:
        yield _slice(bundle, guest)


def _slice(bundle: Bundle, guest: Guest) -> Raw:
    words = _words(guest)
    raw: Raw = json.loads(dump(bundle))
    raw["answers"] = [
        {**answer, "value": _pruned(answer["value"], words)} if "value" in answer else answer
        for answer in raw["answers"]
        if _is_kept(answer, words)
    ]
    challenge = {"challenge": "winter-7", "boot_id": "x", "utc": raw["started"]}
    raw["answers"].append(
        {"layer": LAYER, "host": guest.host.name if guest.host else "", "query": QUERY}
        | {"at": raw["started"], "took": 0.1, "value": challenge}
    )
    sealed: Raw = json.loads(dump(fingerprinted(Bundle.model_validate(raw), "sha256:0")))
    return sealed


def _words(guest: Guest) -> tuple[str, ...]:
    """Return the names and ids of the guest and what belongs to it."""
    found = [guest.uuid, guest.domain_name or guest.uuid]
    found += [f"/{process.pid}/" for process in guest.processes]
    found += [port.id[:11] for port in guest.ports or ()]
    found += [*(guest.volume_ids or ())]
    return tuple(found)


def _is_kept(answer: Raw, words: tuple[str, ...]) -> bool:
    """True if the question is about the guest, or about the whole host or cloud."""
    if answer["layer"] == LAYER:
        return False
    subject = answer.get("subject")
    asked = f"{answer['query']} {subject or ''}/"
    return subject is None or any(word in asked for word in words)


def _pruned(value: Any, words: tuple[str, ...]) -> Any:
    """Shorten long lists, rows and logs to what belongs to the guest and a few other items."""
    if isinstance(value, dict):
        return {name: _pruned(item, words) for name, item in value.items()}
    if isinstance(value, str) and len(value) > 20_000:
        return value[-4_000:]
    if not isinstance(value, list) or len(value) <= FEWEST:
        return value
    if all(isinstance(item, str) for item in value):
        return value[:40]
    kept = islice((item for item in value if _names_any(item, words)), 12)
    return [*value[:FEWEST], *(item for item in kept if item not in value[:FEWEST])]


def _names_any(item: Any, words: tuple[str, ...]) -> bool:
    text = json.dumps(item)
    return any(word in text for word in words)
