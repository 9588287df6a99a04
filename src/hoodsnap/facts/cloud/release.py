"""nova's release, for checks that depend on it.

    if host.release.since(Release.QUEENS):      # this host's nova-compute
        …                                       # a migration holds resources of its own
    if not cloud.release.since(Release.TRAIN):  # the databases and the API
        …

`since` is true or false if the clues suffice, and raises `UnheardError` otherwise, which makes the
check a skip. So a check never guesses. If the presence of a column or field shows the difference,
test that instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

from hoodsnap.bundle import Answer, Bundle
from hoodsnap.facts.database.service import Service
from hoodsnap.facts.fact import UnheardError, value_of


class Release(IntEnum):
    """A release of nova with its major version; before Liberty the version was a date."""

    HAVANA = 8
    ICEHOUSE = 9
    JUNO = 10
    KILO = 11
    LIBERTY = 12
    MITAKA = 13
    NEWTON = 14
    OCATA = 15
    PIKE = 16
    QUEENS = 17
    ROCKY = 18
    STEIN = 19
    TRAIN = 20
    USSURI = 21
    VICTORIA = 22
    WALLABY = 23
    XENA = 24
    YOGA = 25
    ZED = 26
    R2023_1 = 27
    R2023_2 = 28
    R2024_1 = 29
    R2024_2 = 30
    R2025_1 = 31
    R2025_2 = 32
    R2026_1 = 33
    R2026_2 = 34

    @property
    def word(self) -> str:
        """Name: `Zed`, `2023.1`."""
        return self.name.capitalize() if self.name[0] != "R" else self.name[1:].replace("_", ".")


OLDEST, NEWEST = min(Release), max(Release)


@dataclass(frozen=True)
class ReleaseRange:
    """The possible releases, according to the clues that were collected."""

    earliest: Release
    latest: Release
    clues: tuple[str, ...]
    """Evidence for the range: `nova-compute 26.2.2`, `service version 64`."""

    def since(self, release: Release) -> bool:
        """True if it is this release or a later one. Raises `UnheardError` if the clues don't
        suffice."""
        if self.earliest >= release:
            return True
        if self.latest < release:
            return False
        raise UnheardError(f"nova's release is unknown: {self}")

    def __str__(self) -> str:
        """Return the releases and the clues: `Zed (nova-compute 26.2.2)`."""
        if (self.earliest, self.latest) == (OLDEST, NEWEST):
            return "any"
        name = self.earliest.word
        if self.earliest != self.latest:
            name = f"{name} to {self.latest.word}"
        return f"{name} ({', '.join(self.clues)})"

    def and_also(self, other: ReleaseRange) -> ReleaseRange:
        """Return the range that both permit.

        If the clues contradict each other (an upgrade without a restart), every release from one to
        the other is possible.
        """
        earliest = max(self.earliest, other.earliest)
        latest = min(self.latest, other.latest)
        if earliest > latest:
            earliest = min(self.earliest, other.earliest)
            latest = max(self.latest, other.latest)
        return ReleaseRange(earliest, latest, (*self.clues, *other.clues))


ANY = ReleaseRange(OLDEST, NEWEST, ())

SERVICE_VERSIONS: Mapping[Release, int] = {
    Release.LIBERTY: 2,
    Release.MITAKA: 9,
    Release.NEWTON: 15,
    Release.OCATA: 16,
    Release.PIKE: 22,
    Release.QUEENS: 30,
    Release.ROCKY: 35,
    Release.STEIN: 37,
    Release.TRAIN: 40,
    Release.USSURI: 51,
    Release.VICTORIA: 53,
    Release.WALLABY: 56,
    Release.XENA: 60,
    Release.YOGA: 61,
    Release.ZED: 64,
    Release.R2023_1: 66,
    Release.R2023_2: 66,
    Release.R2024_1: 67,
    Release.R2024_2: 67,
    Release.R2025_1: 68,
    Release.R2025_2: 70,
    Release.R2026_1: 72,
}
"""Release → the value that it writes into `services.version` (nova objects/service.py)."""

OLDEST_SERVICES: Mapping[Release, int] = {
    Release.WALLABY: 52,
    Release.XENA: 54,
    Release.YOGA: 57,
    Release.ZED: 61,
    Release.R2023_1: 61,
    Release.R2023_2: 66,
    Release.R2024_1: 66,
    Release.R2024_2: 66,
    Release.R2025_1: 66,
    Release.R2025_2: 68,
    Release.R2026_1: 68,
}
"""Release → the oldest service version of a nova-compute with which its services start.

It is `SERVICE_VERSION_ALIASES[OLDEST_SUPPORTED_SERVICE_VERSION]` in nova objects/service.py: of the
previous release, or of the SLURP release before. Victoria and earlier releases are left out.
"""

MICROVERSIONS: Mapping[Release, int] = {
    Release.KILO: 3,
    Release.LIBERTY: 12,
    Release.MITAKA: 25,
    Release.NEWTON: 38,
    Release.OCATA: 42,
    Release.PIKE: 53,
    Release.QUEENS: 60,
    Release.ROCKY: 65,
    Release.STEIN: 72,
    Release.TRAIN: 79,
    Release.USSURI: 87,
    Release.VICTORIA: 87,
    Release.WALLABY: 88,
    Release.XENA: 90,
    Release.YOGA: 90,
    Release.ZED: 93,
    Release.R2023_1: 95,
    Release.R2023_2: 95,
    Release.R2024_1: 96,
    Release.R2024_2: 96,
    Release.R2025_1: 100,
    Release.R2025_2: 100,
    Release.R2026_1: 103,
}
"""Release → highest 2.x microversion (nova api/openstack/compute/rest_api_version_history)."""

COLUMNS: Mapping[tuple[str, str], Release] = {
    ("compute_nodes", "host"): Release.KILO,
    ("services", "version"): Release.LIBERTY,
    ("compute_nodes", "uuid"): Release.MITAKA,
    ("block_device_mapping", "tag"): Release.NEWTON,
    ("services", "uuid"): Release.PIKE,
    ("migrations", "uuid"): Release.QUEENS,
    ("block_device_mapping", "volume_type"): Release.STEIN,
    ("instances", "hidden"): Release.TRAIN,
    ("block_device_mapping", "encrypted"): Release.ZED,
    ("instances", "compute_id"): Release.R2023_2,
    ("console_auth_tokens", "tls_port"): Release.R2025_1,
}
"""Table and column → the release that added the column."""


def release_of_host(bundle: Bundle, host: str, services: Iterable[Service]) -> ReleaseRange:
    """Return the release of a host's nova-compute. `services`: its rows that were collected."""
    span = ANY
    for clue in (*_installed(bundle, host), *_running(services)):
        span = span.and_also(clue)
    return span


def release_of_cloud(bundle: Bundle) -> ReleaseRange:
    """Return the release of nova's databases and API, which are never older than a nova-compute."""
    span = _by_columns(bundle)
    for answer in bundle.asked("nova", "GET /v2"):
        if re.fullmatch(r"GET /v2(\.1)?/", answer.query) and answer.error is None:
            span = span.and_also(_by_microversion(answer))
    return span


def _installed(bundle: Bundle, host: str) -> Iterator[ReleaseRange]:
    """Yield the release of the nova package that is installed on the host."""
    answer = bundle.last("host", "nova-compute --version", host)
    if answer is not None and isinstance(answer.value, str):
        yield _by_number(answer.value.strip(), f"nova-compute {answer.value.strip()}")
        return
    for query in ("dpkg-query -W", "rpm -qa"):
        for answer in bundle.asked("host", query, host):
            found = _PACKAGE.search(answer.value) if isinstance(answer.value, str) else None
            if found:
                yield _by_number(found[2], f"{found[1]} {found[2]}")
                return


_PACKAGE = re.compile(
    r"^(nova-compute|nova-common|python3-nova|openstack-nova-common|openstack-nova-compute)"
    r"[\t-](?:\d+:)?(\d+(?:\.\d+)+)",
    re.MULTILINE,
)


def _by_number(number: str, clue: str) -> ReleaseRange:
    """Return the release of a version number: `26.2.2` or, before Liberty, `2014.1.5`."""
    found = re.match(r"(\d{1,4})\.(\d+)", number)
    if found is None:
        return ANY
    major, minor = int(found[1]), int(found[2])
    if major in (2013, 2014, 2015):
        dated = {(2013, 2): 8, (2014, 1): 9, (2014, 2): 10, (2015, 1): 11}
        major = dated.get((major, minor), 0)
    if major > NEWEST:
        return ReleaseRange(NEWEST, NEWEST, (clue,))
    if major < OLDEST:
        return ANY
    return ReleaseRange(Release(major), Release(major), (clue,))


def _running(services: Iterable[Service]) -> Iterator[ReleaseRange]:
    """Yield the release that the host's nova-compute recorded when it started."""
    for service in services:
        if "version" not in service.raw:
            yield ReleaseRange(OLDEST, Release.KILO, ("services have no version",))
            continue
        try:
            version = service.version
        except UnheardError:
            continue
        if version:  # 0: no service of Liberty or later has written to the row
            yield _between(SERVICE_VERSIONS, version, f"service version {version}")


def _by_microversion(answer: Answer) -> ReleaseRange:
    value = answer.value.get("version") if isinstance(answer.value, dict) else None
    number = value.get("version") if isinstance(value, dict) else None
    found = re.fullmatch(r"2\.(\d{1,6})", number) if isinstance(number, str) else None
    return _between(MICROVERSIONS, int(found[1]), f"API {number}") if found else ANY


def _between(numbers: Mapping[Release, int], number: int, clue: str) -> ReleaseRange:
    """Return the releases with this number; for a number between two releases, both of them."""
    earliest = max((r for r, n in numbers.items() if n <= number), default=OLDEST)
    same = [release for release, its in numbers.items() if its == number]
    if same:
        return ReleaseRange(min(same), max(same), (clue,))
    latest = min((r for r, n in numbers.items() if n > number), default=NEWEST)
    return ReleaseRange(earliest, latest, (clue,))


def _by_columns(bundle: Bundle) -> ReleaseRange:
    """Return the releases that the columns of the tables permit."""
    earliest, latest = OLDEST, NEWEST
    for answer in bundle.asked("nova-db", "SHOW CREATE TABLE "):
        table = answer.query.rpartition(".")[2].strip("`")
        columns = frozenset(_COLUMN.findall(_statement(answer)))
        for (named, column), release in COLUMNS.items():
            if named != table or not columns:
                continue
            if column in columns:
                earliest = max(earliest, release)
            else:
                latest = min(latest, Release(release - 1))
    if earliest > latest:  # an upgrade has reached one cell but not the other
        earliest, latest = latest, earliest
    clues = () if (earliest, latest) == (OLDEST, NEWEST) else ("columns",)
    return ReleaseRange(earliest, latest, clues)


_COLUMN = re.compile(r"^[ \t]*`(\w+)`", re.MULTILINE)


def _statement(answer: Answer) -> str:
    """Return the statement that creates a table; "" if it can't be read."""
    try:
        return value_of(answer, "a table", dict[str, list[list[str] | str]])["rows"][0][-1]
    except (UnheardError, LookupError):
        return ""
