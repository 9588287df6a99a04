"""nova's release, and the clues that leave it unknown."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from hoodsnap.bundle import Answer, Bundle, Failure
from hoodsnap.facts.cloud.release import Release, ReleaseRange, release_of_cloud, release_of_host
from hoodsnap.facts.database.instances import Instances
from hoodsnap.facts.fact import UnheardError

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def said(layer: str, query: str, value: object) -> Answer:
    return Answer(layer=layer, host="vm", query=query, at=NOON, took=0.1, value=value)


def bundle(*answers: Answer) -> Bundle:
    return Bundle(tool="test", started=NOON, ended=NOON, answers=answers)


def service(**cells: object) -> Answer:
    named = {"id": 1, "host": "vm", "binary": "nova-compute", "deleted": 0, **cells}
    value = {"columns": [*named], "rows": [[*named.values()]]}
    return said("nova-db", "SELECT id, host FROM nova.services", value)


def of_host(*answers: Answer) -> ReleaseRange:
    services = Instances([a for a in answers if a.layer == "nova-db"]).hosts.services
    return release_of_host(bundle(*answers), "vm", services)


def table(name: str, *columns: str) -> Answer:
    made = ",\n".join(f"  `{column}` int(11)" for column in columns)
    statement = f"CREATE TABLE `{name}` (\n{made}\n) ENGINE=InnoDB"
    value = {"columns": ["Table", "Create Table"], "rows": [[name, statement]]}
    return said("nova-db", f"SHOW CREATE TABLE nova.{name}", value)


@pytest.mark.parametrize(
    ("version", "release"),
    [
        ("26.2.2", Release.ZED),
        ("14.0.3", Release.NEWTON),
        ("2014.2.4", Release.JUNO),
        ("2015.1.1", Release.KILO),
        ("33.0.0.0rc1", Release.R2026_1),
    ],
)
def test_release_from_the_programs_version(version: str, release: Release) -> None:
    span = of_host(said("host", "nova-compute --version", version))

    assert (span.earliest, span.latest) == (release, release)
    assert span.since(release)
    assert not span.since(Release(release + 1))


@pytest.mark.parametrize(
    ("query", "packages"),
    [
        ("dpkg-query -W nova-common", "libvirt0:amd64\t9.0.0-4\nnova-common\t2:26.2.2-1~deb12u5"),
        ("rpm -qa nova", "qemu-kvm-9.0-1.el9.x86_64\nopenstack-nova-compute-26.1.0-1.el9.noarch"),
    ],
)
def test_release_from_the_packages_version(query: str, packages: str) -> None:
    assert of_host(said("host", query, packages)).since(Release.ZED)


def test_packages_that_only_use_nova_are_ignored() -> None:
    packages = "python3-novaclient\t2:18.1.0-2\npython3-os-vif\t3.0.0-2"

    with pytest.raises(UnheardError, match="nova's release is unknown: any"):
        of_host(said("host", "dpkg-query -W nova-common", packages)).since(Release.PIKE)


@pytest.mark.parametrize(
    ("version", "earliest", "latest"),
    [
        (64, Release.ZED, Release.ZED),
        (66, Release.R2023_1, Release.R2023_2),
        (45, Release.TRAIN, Release.USSURI),  # between two releases
        (99, Release.R2026_1, Release.R2026_2),
        (1, Release.HAVANA, Release.LIBERTY),
    ],
)
def test_release_from_the_service_version(version: int, earliest: Release, latest: Release) -> None:
    span = of_host(service(version=version))

    assert (span.earliest, span.latest) == (earliest, latest)


def test_a_second_clue_may_decide_between_two_releases() -> None:
    span = of_host(service(version=66), said("host", "nova-compute --version", "28.0.1"))

    assert str(span) == "2023.2 (nova-compute 28.0.1, service version 66)"


def test_services_without_a_version_column_predate_liberty() -> None:
    assert not of_host(service()).since(Release.LIBERTY)


@pytest.mark.parametrize("version", [None, 0, "64", [1]])
def test_an_odd_service_version_is_no_clue(version: object) -> None:
    with pytest.raises(UnheardError, match="release is unknown"):
        of_host(service(version=version)).since(Release.LIBERTY)


def test_an_upgrade_without_a_restart_leaves_both_possible() -> None:
    span = of_host(service(version=61), said("host", "nova-compute --version", "26.0.0"))

    assert span.since(Release.YOGA)
    with pytest.raises(UnheardError, match="Yoga to Zed"):
        span.since(Release.ZED)


def test_a_failure_is_no_clue() -> None:
    error = Failure(kind="absent", message="no Python package nova is installed under /usr")
    asked = {"layer": "host", "host": "vm", "query": "nova-compute --version"}

    with pytest.raises(UnheardError):
        of_host(Answer(**asked, at=NOON, took=0.1, error=error)).since(Release.ICEHOUSE)


def test_release_from_the_columns() -> None:
    span = release_of_cloud(
        bundle(
            table("services", "id", "host", "version", "uuid"),
            table("migrations", "id", "uuid", "status"),
            table("instances", "id", "uuid", "host"),
        )
    )

    assert str(span) == "Queens to Stein (columns)"


def test_a_table_that_was_not_collected_is_no_clue() -> None:
    error = Failure(kind="denied", message="SHOW command denied")
    asked = {"layer": "nova-db", "host": "vm", "query": "SHOW CREATE TABLE nova.services"}

    with pytest.raises(UnheardError):
        release_of_cloud(bundle(Answer(**asked, at=NOON, took=0.1, error=error))).since(
            Release.LIBERTY
        )


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("2.93", "Zed (API 2.93)"),
        ("2.87", "Ussuri to Victoria (API 2.87)"),
        ("2.90", "Xena to Yoga (API 2.90)"),
        ("2.95", "2023.1 to 2023.2 (API 2.95)"),
        ("2.96", "2024.1 to 2024.2 (API 2.96)"),
        ("2.100", "2025.1 to 2025.2 (API 2.100)"),
        ("", "any"),
        (["2.93"], "any"),
    ],
)
def test_release_from_the_apis_microversion(version: object, words: str) -> None:
    body = {"version": {"id": "v2.1", "version": version}}

    assert str(release_of_cloud(bundle(said("nova", "GET /v2.1/", body)))) == words
