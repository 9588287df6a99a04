import json
import random
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hoodsnap.bundle import Answer, Failure
from hoodsnap.facts.fact import UnheardError
from hoodsnap.facts.host.image import Image, ImageInfo
from hoodsnap.facts.host.image_store import ImageStore
from hoodsnap.facts.host.instances_directory import base_of

DIR = "/var/lib/nova/instances"
UUID = "c5925b92-45c5-4cb9-bb23-45aa4cc62d71"
DISK = f"{DIR}/{UUID}/disk"
BASE = f"{DIR}/_base/ffbcc52036e0b0d9932886f2b2a995033f8fd418"

# Output of qemu-img 7.2 for a guest of the lab.
HEADER: dict[str, Any] = {
    "backing-filename-format": "raw",
    "virtual-size": 1073741824,
    "filename": DISK,
    "cluster-size": 65536,
    "format": "qcow2",
    "actual-size": 335872,
    "format-specific": {
        "type": "qcow2",
        "data": {
            "compat": "1.1",
            "compression-type": "zlib",
            "lazy-refcounts": False,
            "refcount-bits": 16,
            "corrupt": False,
            "extended-l2": False,
        },
    },
    "full-backing-filename": BASE,
    "backing-filename": BASE,
    "dirty-flag": False,
}
CHAIN: list[dict[str, Any]] = [
    HEADER,
    {
        "virtual-size": 67108864,
        "filename": BASE,
        "format": "raw",
        "actual-size": 6295552,
        "dirty-flag": False,
    },
]
MISSING = f"qemu-img: Could not open '{BASE}': Could not open '{BASE}': No such file or directory"


def line(path: str, kind: str = "f", **more: object) -> dict[str, Any]:
    """Return one line of `find DIR -ls`."""
    entry: dict[str, Any] = {
        "path": path,
        "type": kind,
        "mode": "100644",
        "uid": 64055,
        "gid": 64055,
        "user": "libvirt-qemu",
        "group": "libvirt-qemu",
        "nlink": 1,
        "size": 393216,
        "blocks": 656,
        "dev": "254:0",
        "ino": 1515873,
        "rdev": "0:0",
        "mtime": "2026-11-23T06:52:19.044586Z",
        "ctime": "2026-11-23T06:52:19.044586Z",
        "btime": None,
        "target": None,
        "magic": "514649fb000000030000000000000228",
    }
    return entry | more


LISTING = [
    line(DIR, "d"),
    line(f"{DIR}/_base", "d"),
    line(BASE, size=67108864, ino=1515849, magic="00" * 16),
    line(f"{DIR}/{UUID}", "d"),
    line(DISK),
    line(f"{DIR}/{UUID}/disk.info", size=79),
    line(f"{DIR}/{UUID}_resize", "d"),
    line(f"{DIR}/{UUID}_resize/disk", ino=7),
    line(f"{DIR}/locks", "d"),
]

CHAIN_OF_DISK = f"qemu-img info -U --backing-chain --output=json -f qcow2 {DISK}"
HEADER_OF_DISK = f"qemu-img info -U --output=json -f qcow2 {DISK}"


def answer(query: str, value: Any = None, error: tuple[str, str] | None = None) -> Answer:
    asked = {
        "layer": "images",
        "host": "node1",
        "query": query,
        "subject": query.replace(" -ls", "").split()[-1],
        "at": datetime(2026, 11, 23, tzinfo=UTC),
        "took": 0.01,
    }
    if error is not None:
        return Answer(**asked, error=Failure(kind=error[0], message=error[1]))
    return Answer(**asked, value=value)


HEALTHY = [
    answer(f"find {DIR} -ls", LISTING),
    answer(f"cat {DIR}/{UUID}/disk.info", json.dumps({DISK: "qcow2"})),
    answer(CHAIN_OF_DISK, CHAIN),
    answer(f"qemu-img info -U --backing-chain -f qcow2 {DISK}", "image: …"),
    answer(f"qemu-img info -U --backing-chain --output=json -f raw {BASE}", CHAIN[1:]),
]


def store(*answers: Answer) -> ImageStore:
    return ImageStore.read([*HEALTHY, *answers])


def disk(*answers: Answer) -> Image:
    return store(*answers).images[DISK]


def test_an_overlay_has_its_own_sizes_and_a_backing_chain() -> None:
    image = disk()

    assert (image.path, image.format) == (DISK, "qcow2")
    assert (image.virtual_size, image.actual_size) == (1 << 30, 335872)
    assert (image.backing_filename, image.backing_format) == (BASE, "raw")
    assert [layer.path for layer in image.chain] == [DISK, BASE]
    assert image.chain[1].virtual_size == 64 << 20
    assert image.backing_missing is None
    assert image.corrupt is False
    assert image.declared == "qcow2"


def test_evidence_names_the_answer_and_the_place_in_it() -> None:
    said, place = disk().where("virtual_size")

    assert said is not None
    assert (said.query, place) == (CHAIN_OF_DISK, "[0].virtual-size")


def test_the_top_image_of_a_broken_chain_is_still_read() -> None:
    image = disk(answer(CHAIN_OF_DISK, error=("absent", MISSING)), answer(HEADER_OF_DISK, HEADER))

    assert image.backing_missing == MISSING
    assert (image.format, image.virtual_size, image.backing_filename) == ("qcow2", 1 << 30, BASE)
    with pytest.raises(UnheardError, match="No such file"):
        assert image.chain
    said, place = image.where("virtual_size")
    assert said is not None
    assert (said.query, place) == (HEADER_OF_DISK, "virtual-size")
    said, _ = image.where("backing_missing")
    assert said is not None
    assert said.query == CHAIN_OF_DISK


@pytest.mark.parametrize("kind", ["timeout", "denied", "failed", "missing"])
def test_a_chain_that_was_not_collected_has_no_missing_file(kind: str) -> None:
    image = disk(answer(CHAIN_OF_DISK, error=(kind, "no reply")), answer(HEADER_OF_DISK, HEADER))

    with pytest.raises(UnheardError, match="no reply"):
        assert image.backing_missing
    assert image.format == "qcow2"


def test_a_disk_that_does_not_exist_has_no_missing_base() -> None:
    gone = ("absent", f"Could not open '{DISK}': No such file or directory")
    image = disk(answer(CHAIN_OF_DISK, error=gone), answer(HEADER_OF_DISK, error=gone))

    with pytest.raises(UnheardError, match="No such file"):
        assert image.backing_missing


def test_a_header_alone_is_a_chain_if_it_names_no_base() -> None:
    alone = {key: value for key, value in HEADER.items() if "backing" not in key}

    images = ImageStore.read([answer(HEADER_OF_DISK, alone)]).images

    assert len(images[DISK].chain) == 1
    assert images[DISK].backing_missing is None


def test_a_chain_that_ends_too_early_leaves_its_base_unknown() -> None:
    image = disk(answer(CHAIN_OF_DISK, CHAIN[:1]))

    with pytest.raises(UnheardError, match="did not report its backing file"):
        assert image.backing_missing


def test_the_last_answer_counts() -> None:
    grown = [HEADER | {"virtual-size": 2 << 30}, *CHAIN[1:]]
    raw = CHAIN_OF_DISK.replace("-f qcow2", "-f raw")

    assert disk(answer(CHAIN_OF_DISK, grown)).virtual_size == 2 << 30
    assert disk(answer(raw, CHAIN[1:]), answer(CHAIN_OF_DISK, grown)).virtual_size == 2 << 30
    assert disk(answer(raw, [CHAIN[1] | {"filename": DISK}])).format == "raw"
    with pytest.raises(UnheardError):
        assert disk(answer(CHAIN_OF_DISK, error=("timeout", "no answer"))).virtual_size


def test_a_corrupt_image_is_marked_as_corrupt() -> None:
    data = HEADER["format-specific"]["data"] | {"corrupt": True}
    chain = [HEADER | {"format-specific": {"type": "qcow2", "data": data}}, *CHAIN[1:]]

    assert disk(answer(CHAIN_OF_DISK, chain)).corrupt is True
    assert store().images[BASE].corrupt is None


@pytest.mark.parametrize(
    ("filename", "path"),
    [
        ("/i/disk", "/i/disk"),
        ("file:/i/disk", "/i/disk"),
        ('json:{"driver": "qcow2", "file": {"driver": "file", "filename": "/i/disk"}}', "/i/disk"),
        ('json:{"driver": "qcow2", "file.filename": "/i/disk"}', "/i/disk"),
        ('json:{"driver": "nbd"}', 'json:{"driver": "nbd"}'),
        ("json:{", "json:{"),
        ("json:" + "[" * 100_000, "json:" + "[" * 100_000),
        ("rbd:vms/disk", "rbd:vms/disk"),
    ],
    ids=range(8),
)
def test_the_path_in_a_filename_is_found_in_every_form(filename: str, path: str) -> None:
    assert ImageInfo.model_validate(HEADER | {"filename": filename}).path == path


def test_a_guests_images_are_its_domains_disks_and_then_those_in_its_folder() -> None:
    volume = "/var/lib/nova/mnt/share/volume-1"
    images = store(answer(f"qemu-img info -U --backing-chain --output=json {volume}", CHAIN[1:]))

    assert [image.path for image in images.of(UUID, [volume, "/never/asked"])] == [volume, DISK]
    assert [image.path for image in images.of(UUID)] == [DISK]
    assert images.of("00000000-0000-0000-0000-000000000000") == ()


def test_folders_include_leftovers_of_a_resize() -> None:
    folders = store().folders

    assert list(folders) == [UUID]
    assert [folder.suffix for folder in folders[UUID]] == ["", "_resize"]


def test_the_name_of_a_base_is_the_sha1_of_the_image_id() -> None:
    name = base_of("2e5ca6a5-2e4b-4a5a-9d0f-1f2c3a4b5c6d")

    assert len(name) == 40
    assert base_of("") == "da39a3ee5e6b4b0d3255bfef95601890afd80709"
    assert store().bases[Path(BASE).name].size == 64 << 20


def test_a_file_is_found_by_its_inode() -> None:
    assert store().by_inode["254:0", 1515849] == (BASE,)


def test_a_file_missing_in_a_listing_is_absent_and_one_outside_all_listings_is_unknown() -> None:
    images = store()

    assert images.size_of(UUID, "disk") == 393216
    assert images.size_of(UUID, "disk.config") is None
    assert images.size_of("00000000-0000-0000-0000-000000000000", "disk") is None
    assert images.entry(f"{DIR}/{UUID}/nothing/deeper") is None
    with pytest.raises(UnheardError, match="/srv/disk: it was not collected"):
        images.entry("/srv/disk")


@pytest.mark.parametrize("kind", ["closed", "link", "list"])
def test_a_file_that_could_not_be_listed_is_never_absent(kind: str) -> None:
    folder = f"{DIR}/{UUID}"
    listing = [entry for entry in LISTING if not entry["path"].startswith(folder)]
    if kind == "closed":
        listing.append(line(folder, "d", error="Permission denied"))
    if kind == "link":
        listing.append(line(folder, "l", target="/srv/disk"))
    if kind == "list":
        listing.append({"type": "f"})
    images = store(answer(f"find {DIR} -ls", listing))

    with pytest.raises(UnheardError):
        images.size_of(UUID, "disk")


def test_a_file_is_not_absent_if_one_directory_did_not_answer() -> None:
    images = store(answer("find /srv/instances -ls", error=("timeout", "no answer")))

    assert images.size_of(UUID, "disk") == 393216
    with pytest.raises(UnheardError, match="no answer"):
        images.size_of(UUID, "disk.config")


def test_no_file_is_absent_without_a_listing() -> None:
    images = ImageStore.read([answer(f"find {DIR} -ls", error=("denied", "Permission denied"))])

    assert images.listing is None
    assert images.failures == {DIR: f"the listing of {DIR}: Permission denied"}
    with pytest.raises(UnheardError, match="Permission denied"):
        images.size_of(UUID, "disk")


def test_a_single_file_counts_until_a_newer_listing_covers_it() -> None:
    config = f"{DIR}/{UUID}/disk.config"
    absent = answer(f"stat -L {config}", error=("absent", "No such file or directory"))

    assert store(absent).entry(config) is None
    images = store(absent, answer(f"find {DIR} -ls", [*LISTING, line(config, size=5)]))
    assert images.size_of(UUID, "disk.config") == 5


def test_a_file_is_unheard_if_access_was_denied() -> None:
    images = store(answer("stat -L /srv/volume", error=("denied", "Permission denied")))

    with pytest.raises(UnheardError):
        images.entry("/srv/volume")


def test_an_image_cache_elsewhere_belongs_to_the_directory() -> None:
    linked = [entry for entry in LISTING if "/_base" not in entry["path"]]
    linked.append(line(f"{DIR}/_base", "l", target="/fast/base"))
    cache = [line(f"{DIR}/_base/", "d"), line(BASE)]
    images = store(answer(f"find {DIR} -ls", linked), answer(f"find {DIR}/_base/ -ls", cache))

    assert list(images.bases) == [Path(BASE).name]
    assert images.entry(f"{DIR}/_base/other") is None
    assert images.size_of(UUID, "disk") == 393216


def test_a_disk_that_disk_info_does_not_list_has_no_declared_format() -> None:
    other = answer(f"cat {DIR}/{UUID}/disk.info", '{"/elsewhere/disk.eph0": "raw"}')
    broken = answer(f"cat {DIR}/{UUID}/disk.info", '["disk"]')

    assert disk(other).declared is None
    with pytest.raises(UnheardError):
        assert disk(broken).declared
    with pytest.raises(UnheardError, match=r"disk\.info was not collected"):
        assert store().images[BASE].declared


# Damaged and old answers.

QUESTIONS: list[Callable[[Image], object]] = [
    lambda image: image.path,
    lambda image: image.format,
    lambda image: image.virtual_size,
    lambda image: image.actual_size,
    lambda image: image.backing_filename,
    lambda image: image.backing_format,
    lambda image: image.corrupt,
    lambda image: [layer.path for layer in image.chain],
    lambda image: image.backing_missing,
    lambda image: image.declared,
    lambda image: [image.where(field) for field in Image.places],
]


def read_everything(answers: list[Answer]) -> int:
    """Return how many questions were answered. Exceptions but `UnheardError` pass through."""
    images = ImageStore.read(answers)
    questions: list[Callable[[], object]] = [
        lambda: images.folders,
        lambda: images.bases,
        lambda: images.by_inode,
        lambda: images.of(UUID, [DISK]),
        lambda: images.size_of(UUID, "disk"),
        lambda: images.entry(BASE),
    ]
    for image in images.images.values():
        questions += [partial(ask, image) for ask in QUESTIONS]
    heard = 0
    for ask in questions:
        try:
            ask()
            heard += 1
        except UnheardError as reason:
            assert str(reason)
    return heard


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.sampled_from(["json:{", "json:[[[[", "d", "f", DISK, "/", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*HEADER, "path", "type", "size", "dev", "data", "corrupt"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield here
    items: Any = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, inner in items:
        yield from places(inner, (*here, key))


def damaged(value: Any, place: tuple[Any, ...], by: Any) -> Any:
    if not place:
        return by
    copy = value.copy()
    copy[place[0]] = damaged(copy[place[0]], place[1:], by)
    return copy


BROKEN = [
    *HEALTHY,
    answer(HEADER_OF_DISK, HEADER),
    answer("stat -L /srv/volume", line("/srv/volume")),
]


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(BROKEN) - 1), st.randoms(use_true_random=False), ANYTHING)
def test_damaged_answers_are_read_or_unheard(
    number: int, chance: random.Random, by: object
) -> None:
    victim = BROKEN[number]
    place = chance.choice(list(places(victim.value)))
    value = damaged(victim.value, place, by)

    heard = read_everything([*BROKEN[:number], answer(victim.query, value), *BROKEN[number + 1 :]])

    assert heard > 0


def test_healthy_answers_answer_everything() -> None:
    base_declares_nothing = 1

    assert read_everything(HEALTHY) == 6 + 2 * len(QUESTIONS) - base_declares_nothing


def json_in(text: str) -> Iterator[Any]:
    """Yield the JSON values in a text that begin a line."""
    decoder = json.JSONDecoder()
    end = 0
    for found in re.finditer(r"^\s*(?=[\[{])", text, re.MULTILINE):
        if found.end() >= end:
            try:
                value, end = decoder.raw_decode(text, found.end())
            except ValueError:
                continue
            yield value


def chains_in(value: Any) -> Iterator[Any]:
    """Yield every image and chain that qemu-img, or QMP in the same format, reported."""
    inner = value if isinstance(value, list) else []
    if isinstance(value, dict):
        if "virtual-size" in value:
            yield value
        inner = list(value.values())
    elif inner and all(isinstance(layer, dict) and "virtual-size" in layer for layer in inner):
        yield value
    for item in inner:
        yield from chains_in(item)


def test_the_output_of_qemu_img_2_to_10_is_read(corpus: Path) -> None:
    read = 0
    for file in sorted((corpus / "qemu-img").rglob("*.*")):
        values = json_in(file.read_text(errors="surrogateescape"))
        for told in (chain for value in values for chain in chains_in(value)):
            top = told[0] if isinstance(told, list) else told
            query = CHAIN_OF_DISK if isinstance(told, list) else HEADER_OF_DISK
            image = ImageStore.read([answer(query, told)]).images[DISK]
            if {"filename", "format"} <= top.keys():
                assert image.virtual_size == top["virtual-size"], file
                assert image.backing_filename == top.get("backing-filename"), file
                read += 1
            else:
                with pytest.raises(UnheardError):
                    image.top.format  # noqa: B018 (reading it raises)
    assert read > 20
